"""Methods that need no training: thresholds and indices, each a Method whose scorer is numpy alone."""
