"""Models changed by unlabelled images of a target; never by its labels."""
