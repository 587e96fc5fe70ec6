"""How much of a pattern of light and dark remains between two images, over any piece of ground, from moments that add up.

The halves of the logarithms of brightness differ by artanh of the normalised difference (field.md 3.10). Two things are asked
of a piece: how far that difference lies from what is usual in the scene, as the root of its mean square, and how much of the
pattern correlates no more. The score is the lesser answer: plain ground whose noise does not correlate has not changed, and a
roof whose contrast another sun has raised still correlates. Another exposure of the whole image changes neither.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aftermap.indices.threshold import F32, F64

MOMENTS = 6
"""Pixels; sums of after, before, after squared, before squared, after times before."""
STEPS = 1024
"""Whole numbers per unit of the half logarithm, so that moments add to the same bits in any order."""


def levels(dates: Sequence[F32], least: Sequence[float]) -> F64:
    """Half logarithms (2, ...) in STEPS, as whole numbers, of brightness after and before; NaN where either was not observed.

    Brightness below `least` counts as that: a logarithm of noise means nothing.
    """
    bright = np.stack([np.maximum(date, dark) for date, dark in zip(dates, least, strict=True)])
    found = np.rint(0.5 * STEPS * np.log(bright.astype(np.float64)))
    return np.asarray(np.where(np.isfinite(found).all(axis=0), found, np.nan))


def moments(level: F64) -> F64:
    """MOMENTS (6, ...) of levels (2, ...); 0 where not observed."""
    seen = np.isfinite(level[0])
    after, before = np.where(seen, level, 0.0)
    return np.stack([seen.astype(np.float64), after, before, after**2, before**2, after * before])


def lost(sums: F64, *, middle: float, full: float) -> F64:
    """Scores (...) in [0, 1] from summed moments (6, ...); `middle` is the scene's usual difference, 1 needs one of `full`."""
    count = np.maximum(sums[0], 1.0)
    after, before, square_after, square_before, product = sums[1:] / count
    var_after, var_before = np.maximum(square_after - after**2, 0), np.maximum(square_before - before**2, 0)
    shared = product - after * before
    change = np.maximum(var_after + var_before - 2 * shared, 0) + (after - before - middle * STEPS) ** 2
    both = np.sqrt(var_after * var_before)
    same = np.divide(shared, both, out=np.zeros_like(shared), where=both > 0)
    return np.asarray(np.clip(np.minimum(1 - same, np.sqrt(change) / (full * STEPS)), 0, 1))


def spread(sums: F64) -> F64:
    """Standard deviation (...) of the difference from summed moments (6, ...)."""
    count = np.maximum(sums[0], 1.0)
    middle = (sums[1] - sums[2]) / count
    return np.asarray(np.sqrt(np.maximum((sums[3] + sums[4] - 2 * sums[5]) / count - middle**2, 0)) / STEPS)
