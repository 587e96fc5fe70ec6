"""Whether to adapt, without labels: to another kind of sensor, and not to other ground.

Our own rule. Radar or one grey band, made into a picture of three, fills fewer dimensions of colour than the pictures that a
network was trained on: its first features are then off everywhere, which statistics can mend. Pictures of as many colours differ
by what is on the ground, and to take that out takes out what was to be found. benchmarks/results/unseen.md says what it came to.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from aftermap.normalise import F32

SHOTS = 10
"""Crops that it looks at, and adapts to."""
LEAST = 1e-6
"""Share of the largest eigenvalue of the bands' covariance below which the smallest is nothing; pictures in colour have 0.004."""


def depends(crops: Iterable[F32]) -> tuple[bool, str]:
    """Whether the bands of crops (band, y, x), NaN where not observed, depend on one another linearly; and why, in words."""
    seen = np.concatenate([crop[:, np.isfinite(crop).all(axis=0)] for crop in crops], axis=1)  # (band, pixel)
    if len(seen) < 2:
        return False, "left as it was: one band"
    values = np.linalg.eigvalsh(np.cov(seen.astype(np.float64)))
    found = bool(values[0] < LEAST * values[-1])
    words = "its bands are fewer than the network's, made into as many" if found else "its bands are as many as the network's"
    return found, f"{'adapted' if found else 'left as it was'}: {words}"
