"""Where a score begins to mean hazard, without labels: thresholds from the scores of the target alone.

Scores are counted by their log odds. A rule by percentile marks a fixed share of every image, whatever the image shows; what
that costs can be said beforehand (`ceiling`). `even` is our own: it looks for the score at which both kinds of ground are
equally likely, however rare one of them is, which is what balanced accuracy rewards.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from aftermap.indices.threshold import Found, Modes, kittler_illingworth, otsu, two_gaussians

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

BINS, MOST = 256, 12.0
"""Of log odds from -MOST to MOST; what lies beyond counts in the end bins. Zero odds, a score of one half, is an edge."""
WIDTH = 2 * MOST / BINS
PERCENTILE = 95.0
"""Of methods.md A.5: what lies strictly above it in its image is hazard."""
APART = 2.0
"""Ashman's D above which scores have two modes."""
ROUNDS = 1000
"""Of expectation maximisation; forty leave a rare kind where Otsu put it."""
SPREAD = 1.0
"""Where they have one: so many of its standard deviations above its mean begins hazard."""


def centres() -> F64:
    """Log odds of each bin (bin,)."""
    return np.asarray((np.arange(BINS) + 0.5) * WIDTH - MOST, np.float64)


def levels(scores: F32) -> npt.NDArray[np.intp]:
    """The bin of each score in [0, 1]; a score equal to an edge lies below it."""
    odds = logit(np.clip(scores.astype(np.float64), 1e-7, 1 - 1e-7))
    return np.clip(np.ceil((odds + MOST) / WIDTH).astype(np.intp) - 1, 0, BINS - 1)


def counted(scores: F32) -> I64:
    """Scores (n,) by bin (bin,)."""
    return np.bincount(levels(scores), minlength=BINS)


def ceiling(prevalence: float, share: float = 1 - PERCENTILE / 100) -> float | None:
    """The best balanced accuracy of marking that share of an image in which so much is hazard (methods.md A.5).

    None where it is undefined: nothing, or everything, is hazard.
    """
    if not 0 < prevalence < 1:
        return None
    return 0.5 * (min(1.0, share / prevalence) + 1 - max(0.0, share - prevalence) / (1 - prevalence))


def percentile(counts: I64) -> Found:
    """The 95th percentile."""
    above = np.cumsum(counts[::-1])[::-1]  # at or above each bin
    share = 1 - PERCENTILE / 100
    place = int(np.argmax(above <= share * counts.sum())) if (above <= share * counts.sum()).any() else BINS - 1
    return Found(float(centres()[place] - WIDTH / 2), f"the {PERCENTILE:g}th percentile of the scores")


def _by(cut: Callable[[F64, F64], F64], words: str) -> Callable[[I64], Found]:
    def rule(counts: I64) -> Found:
        found = float(cut(counts.astype(np.float64), centres()))
        if np.isnan(found):
            return Found(None, f"no threshold found: {words} sees one value only")
        return Found(found, f"{words} of the scores")

    return rule


def even(counts: I64) -> Found:
    """Where two normal distributions of the log odds are equally dense, each by itself: its share plays no part.

    They are fitted by expectation maximisation from Otsu's threshold. Scores of one mode are parted one deviation above it.
    """
    start = otsu(counts.astype(np.float64), centres())
    if np.isnan(start):
        return Found(None, "no threshold found: there is one score only")
    modes = two_gaussians(counts.astype(np.float64), centres(), start, rounds=ROUNDS)
    if float(modes.ashman_d) > APART:
        return Found(_crossing(modes), f"two modes of the scores (Ashman's D {float(modes.ashman_d):.1f}) are equally dense")
    share = counts / counts.sum()
    mean = float(share @ centres())
    deviation = float(np.sqrt(share @ (centres() - mean) ** 2))
    return Found(mean + SPREAD * deviation, f"one mode of the scores, parted {SPREAD:g} deviation above its mean")


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
