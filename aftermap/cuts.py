"""Where a score begins to mean hazard, without labels: thresholds from the scores of the target alone.

Scores are counted by their log odds. A rule by percentile marks a fixed share of every image, whatever it shows; what that costs
can be said beforehand (unseen_table.ceiling). `even` is our own: it looks for the score at which both kinds of ground are equally
likely, however rare one of them is, which is what balanced accuracy rewards.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import scipy  # whose parts load when they are first used

from aftermap.indices.threshold import Found, Modes, kittler_illingworth, otsu, two_gaussians

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

BINS, COARSE, MOST = 1 << 14, 1 << 8, 12.0
"""Of log odds from -MOST to MOST, in a scene and in a table; what lies beyond counts in the end bins. Zero odds, a score of one
half, is an edge."""
PERCENTILE = 95.0
"""Of methods.md A.5: what lies strictly above it in its image is hazard."""
APART = 2.0
"""Ashman's D above which scores have two modes."""
ROUNDS = 1000
"""Of expectation maximisation; forty leave a rare kind where Otsu put it."""
SPREAD = 1.0
"""Where they have one: so many of its standard deviations above its mean begins hazard."""


def centres(bins: int = BINS) -> F64:
    """Log odds of each bin (bin,)."""
    return np.asarray((np.arange(bins) + 0.5) * (2 * MOST / bins) - MOST, np.float64)


def levels(scores: F32, bins: int = BINS) -> npt.NDArray[np.intp]:
    """The bin of each score in [0, 1]; a score equal to an edge lies below it."""
    odds = scipy.special.logit(np.clip(scores.astype(np.float64), 1e-7, 1 - 1e-7))
    return np.clip(np.ceil((odds + MOST) * (bins / (2 * MOST))).astype(np.intp) - 1, 0, bins - 1)


def first_above(odds: float, bins: int) -> int:
    """The first bin above a threshold."""
    return int(np.clip(np.rint((odds + MOST) * (bins / (2 * MOST))), 0, bins))


def counted(scores: F32) -> I64:
    """Scores (n,) by bin (bin,)."""
    return np.bincount(levels(scores), minlength=BINS)


def percentile(counts: I64) -> Found:
    """The 95th percentile."""
    above = np.cumsum(counts[::-1])[::-1]  # at or above each bin
    few = above <= (1 - PERCENTILE / 100) * counts.sum()
    place = int(np.argmax(few)) if few.any() else len(counts)
    return Found(place * 2 * MOST / len(counts) - MOST, f"the {PERCENTILE:g}th percentile of the scores")


def _by(cut: Callable[[F64, F64], F64], words: str) -> Callable[[I64], Found]:
    def rule(counts: I64) -> Found:
        found = float(cut(counts.astype(np.float64), centres(len(counts))))
        if np.isnan(found):
            return Found(None, f"no threshold found: {words} sees one value only")
        return Found(found, f"{words} of the scores")

    return rule


def even(counts: I64) -> Found:
    """Where two normal distributions of the log odds are equally dense, each by itself: its share plays no part.

    They are fitted by expectation maximisation from Otsu's threshold. Scores of one mode are parted one deviation above it.
    """
    if not counts.any():
        return Found(None, "no threshold found: nothing was observed")
    counts, at = _narrowed(counts)
    modes = _modes(counts, at)
    if modes is None:
        return Found(None, "no threshold found: there is one score only")
    if float(modes.ashman_d) > APART:
        return Found(_crossing(modes), f"two modes of the scores (Ashman's D {float(modes.ashman_d):.1f}) are equally dense")
    share = counts / counts.sum()
    mean = float(share @ at)
    deviation = float(np.sqrt(share @ (at - mean) ** 2))
    return Found(
        mean + SPREAD * deviation, f"no threshold found: the scores have one mode, parted {SPREAD:g} deviation above its mean"
    )


def _modes(counts: I64, at: F64) -> Modes | None:
    start = otsu(counts.astype(np.float64), at) if len(counts) > 1 else np.asarray(np.nan)
    return None if np.isnan(start) else two_gaussians(counts.astype(np.float64), at, start, rounds=ROUNDS)


def _narrowed(counts: I64) -> tuple[I64, F64]:
    """The range that is occupied, in at most COARSE bins, and their centres."""
    used = np.flatnonzero(counts)
    first, end = int(used[0]), int(used[-1]) + 1
    step = -(-(end - first) // COARSE)
    several: I64 = np.pad(counts[first:end], (0, -(end - first) % step)).reshape(-1, step).sum(axis=1)
    width = 2 * MOST / len(counts)
    return several, np.asarray(first * width - MOST + (np.arange(len(several)) + 0.5) * step * width, np.float64)


def _crossing(modes: Modes) -> float:
    """Between the means: where the one density, falling, meets the other, rising."""
    low, high, low_std, high_std = (float(v) for v in (modes.low_mean, modes.high_mean, modes.low_std, modes.high_std))
    at = np.linspace(low, high, 1001)
    more = -((at - high) ** 2) / (2 * high_std**2) - np.log(high_std) + (at - low) ** 2 / (2 * low_std**2) + np.log(low_std)
    return float(at[int(np.argmax(more > 0))]) if (more > 0).any() else high


CUTS: dict[str, Callable[[I64], Found]] = {
    "percentile": percentile,
    "otsu": _by(otsu, "Otsu's threshold"),
    "kittler-illingworth": _by(kittler_illingworth, "the minimum error threshold"),
    "even": even,
}
"""Rule -> counts of scores by bin to the log odds above which hazard begins."""
