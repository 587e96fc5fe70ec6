"""Scores that add: confusion counts, ranking and calibration, accumulated over valid pixels in any order.

Definitions after methods.md section 0.1: a rate whose denominator is zero is undefined (None), neither 0 nor 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

RANK_LEVELS = 1 << 20
"""Scores nearer to each other than 1e-6 count as tied in AP and AUC."""
CALIBRATION_BINS = 15


def _ratio(top: float, bottom: float) -> float | None:
    return top / bottom if bottom else None


@dataclass(frozen=True)
class Counts:
    """A confusion matrix over valid pixels; counts add in any order."""

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    @classmethod
    def of(cls, mapped: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> Counts:
        """Counts of two masks over the same valid pixels."""
        tp, positive, actual = int((mapped & truth).sum()), int(mapped.sum()), int(truth.sum())
        return cls(tp, positive - tp, actual - tp, truth.size - positive - actual + tp)

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    @property
    def total(self) -> int:
        """Pixels counted."""
        return self.tp + self.fp + self.fn + self.tn

    @property
    def precision(self) -> float | None:
        """TP / (TP + FP)."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float | None:
        """TP / (TP + FN)."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> float | None:
        """TN / (TN + FP)."""
        return _ratio(self.tn, self.tn + self.fp)

    @property
    def balanced_accuracy(self) -> float | None:
        """(TPR + TNR) / 2 of this one matrix ("micro"); undefined unless both classes are present."""
        return None if self.recall is None or self.specificity is None else (self.recall + self.specificity) / 2

    @property
    def iou(self) -> float | None:
        """TP / (TP + FP + FN) of the hazard."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def f1(self) -> float | None:
        """2 TP / (2 TP + FP + FN) of the hazard."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def area_error(self) -> float | None:
        """(mapped - true) / true area, in pixels."""
        return _ratio(self.fp - self.fn, self.tp + self.fn)


def ceiling(prevalence: float, share: float = 0.05) -> float | None:
    """The best balanced accuracy of any rule that marks a fixed share of each image, at the image's share of hazard.

    methods.md A.5: (min(1, share / prevalence) + 1 - max(0, share - prevalence) / (1 - prevalence)) / 2; undefined at 0 and 1.
    """
    if not 0 < prevalence < 1:
        return None
    return 0.5 * (min(1, share / prevalence) + 1 - max(0, share - prevalence) / (1 - prevalence))


def marked(scores: npt.NDArray[np.floating], percent: float = 95) -> npt.NDArray[np.bool_]:
    """Scores of the valid pixels of one image (n,) strictly above their percentile: the rule that `ceiling` bounds."""
    return np.asarray(scores > np.percentile(scores, percent)) if scores.size else np.zeros(0, bool)


def inspected(cells: int, share: float = 0.1) -> int:
    """How many of so many cells are that share of them, rounded up, so that at least one is looked at."""
    return min(cells, max(1, math.ceil(share * cells - 1e-9)))


def found_when_inspecting(affected: npt.ArrayLike, order: npt.ArrayLike, share: float = 0.1) -> float:
    """Share of all that is affected (n,), pixels or area of each analysed cell, that lies in the first `share` of the cells.

    `order` holds places in `affected`, the cell to look at first first; it may end early, but not before that share.
    NaN where nothing is affected.
    """
    amounts = np.asarray(affected, np.float64)
    first = np.asarray(order, np.intp)[: inspected(len(amounts), share)]
    assert len(first) == inspected(len(amounts), share), "the order ends before the share that is looked at"
    total = float(amounts.sum())
    return float(amounts[first].sum()) / total if total else float("nan")


@dataclass(frozen=True)
class Inspection:
    """Affected pixels by who would have found them in the first cells looked at; sums of several maps add."""

    affected: float = 0.0
    found: float = 0.0
    """In the order of the list."""
    best: float = 0.0
    """In the order of the truth."""
    chance: float = 0.0
    """In any order, on average."""

    @classmethod
    def of(cls, affected: npt.NDArray[np.float64], order: npt.NDArray[np.intp], share: float = 0.1) -> Inspection:
        """Of affected pixels (n,) of the analysed cells, and places in it."""
        total = float(affected.sum())
        if not total:
            return cls()
        found, best = (found_when_inspecting(affected, o, share) for o in (order, np.argsort(-affected, kind="stable")))
        return cls(total, found * total, best * total, total * inspected(len(affected), share) / len(affected))

    def __add__(self, other: Inspection) -> Inspection:
        return Inspection(*(getattr(self, k) + getattr(other, k) for k in ("affected", "found", "best", "chance")))

    def row(self) -> dict[str, float | None]:
        """Shares of all that is affected; None where nothing is."""
        return {
            "found_top10": _ratio(self.found, self.affected), "found_top10_chance": _ratio(self.chance, self.affected),
            "found_top10_best": _ratio(self.best, self.affected),
        }  # fmt: skip


def aucs_one_vs_rest(probabilities: npt.NDArray[np.floating], codes: npt.NDArray[np.integer]) -> tuple[float | None, ...]:
    """Area under the ROC curve of each class against all others, from probabilities (n, class) and true codes (n,).

    By ranks, those of equal probability shared (Mann-Whitney); None for a class that the truth lacks, or that is all of it.
    """
    return tuple(_auc_of_ranks(column, codes == k) for k, column in enumerate(np.asarray(probabilities, np.float64).T))


def _auc_of_ranks(scores: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_]) -> float | None:
    hazard, clear = int(truth.sum()), int((~truth).sum())
    if not hazard or not clear:
        return None
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((ranks[truth].sum() - hazard * (hazard + 1) / 2) / (hazard * clear))


def macro(values: Sequence[float | None]) -> float | None:
    """The mean of what is defined."""
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


@dataclass(frozen=True)
class CountErrors:
    """Hazard mapped and true per chip (n,), hard pixels or summed scores, same valid pixels; medians over chips."""

    mapped: npt.NDArray[np.float64]
    true: npt.NDArray[np.float64]

    @property
    def delta_l1(self) -> float | None:
        """Median over chips of |mapped - true|."""
        return float(np.median(np.abs(self.mapped - self.true))) if self.true.size else None

    def delta_count(self, *, hazard: bool) -> float | None:
        """Median of mapped - true over the chips with hazard, or over those without."""
        chips = (self.true > 0) == hazard
        return float(np.median((self.mapped - self.true)[chips])) if chips.any() else None


@dataclass(frozen=True)
class Errors:
    """Sums over samples whose number is known; they add in any order (methods.md 16, trap 19: no mean of batches)."""

    count: int = 0
    squared: float = 0.0
    """Of (found - true)."""
    total: float = 0.0
    """Of true."""
    squares: float = 0.0
    """Of true squared."""

    @classmethod
    def of(cls, found: npt.NDArray[np.float64], truth: npt.NDArray[np.float64]) -> Errors:
        """Of numbers (n,), NaN unknown."""
        known = np.isfinite(truth)
        y = truth[known]
        return cls(len(y), float(((found[known] - y) ** 2).sum()), float(y.sum()), float((y**2).sum()))

    def __add__(self, other: Errors) -> Errors:
        mine, theirs = (self.squared, self.total, self.squares), (other.squared, other.total, other.squares)
        return Errors(self.count + other.count, *(a + b for a, b in zip(mine, theirs, strict=True)))

    @property
    def rmse(self) -> float | None:
        """Root of the mean squared error."""
        return float(np.sqrt(self.squared / self.count)) if self.count else None

    @property
    def deviation(self) -> float | None:
        """RMSE of answering the mean of the truth every time."""
        return float(np.sqrt(max(self._spread, 0) / self.count)) if self.count else None

    @property
    def r2(self) -> float | None:
        """1 - SSE / SST; undefined where the truth does not vary."""
        return 1 - self.squared / self._spread if self._spread > 0 else None

    @property
    def _spread(self) -> float:
        return self.squares - self.total**2 / self.count if self.count else 0.0


def _levels() -> npt.NDArray[np.int64]:
    return np.zeros((2, RANK_LEVELS + 1), np.int64)


@dataclass
class Ranking:
    """Histogram of float scores by truth, (2, level); average precision and ROC area of all pixels pooled."""

    levels: npt.NDArray[np.int64] = field(default_factory=_levels, repr=False)

    def add(self, scores: npt.NDArray[np.floating], truth: npt.NDArray[np.bool_]) -> None:
        """Counts scores in [0, 1] and truth over the same valid pixels (n,)."""
        level = np.rint(scores.astype(np.float64) * RANK_LEVELS).astype(np.int64)
        for actual in (0, 1):
            found, counts = np.unique(level[truth == bool(actual)], return_counts=True)
            self.levels[actual, found] += counts

    def _descending(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        used = self.levels.any(axis=0)
        false, true = self.levels[:, used][:, ::-1].cumsum(axis=1)
        return false, true

    @property
    def average_precision(self) -> float | None:
        """Sum over descending thresholds of (R_n - R_n-1) P_n: step-wise, ties share one threshold."""
        false, true = self._descending()
        if not true.size or not true[-1]:
            return None
        gains = np.diff(true, prepend=0) / true[-1]
        return float((gains * true / (true + false)).sum())

    @property
    def auc(self) -> float | None:
        """Area under the ROC curve, by trapezoids over tied scores; undefined unless both classes are present."""
        false, true = self._descending()
        if not true.size or not true[-1] or not false[-1]:
            return None
        return float(np.trapezoid(np.r_[0, true] / true[-1], np.r_[0, false] / false[-1]))

    def precision_recall(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Precision and recall (n,) by descending threshold, for drawing."""
        false, true = self._descending()
        return true / np.maximum(true + false, 1), true / max(int(true[-1]) if true.size else 0, 1)


def _bins() -> npt.NDArray[np.float64]:
    return np.zeros((3, CALIBRATION_BINS))


@dataclass
class Reliability:
    """Pixels, summed scores and summed truth (3, bin) in equal bins of the score."""

    bins: npt.NDArray[np.float64] = field(default_factory=_bins)

    def add(self, scores: npt.NDArray[np.floating], truth: npt.NDArray[np.bool_]) -> None:
        """Counts scores in [0, 1] and truth over the same valid pixels (n,)."""
        place = np.minimum((scores * CALIBRATION_BINS).astype(np.intp), CALIBRATION_BINS - 1)
        for row, weights in enumerate((None, scores.astype(np.float64), truth.astype(np.float64))):
            self.bins[row] += np.bincount(place, weights=weights, minlength=CALIBRATION_BINS)

    @property
    def expected_calibration_error(self) -> float | None:
        """ECE: mean over pixels of |mean score - share of hazard| of their bin."""
        count, score, truth = self.bins
        return _ratio(float(np.abs(score - truth).sum()), float(count.sum()))

    def curve(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Mean score and share of hazard of each bin that has pixels, for drawing."""
        used = self.bins[0] > 0
        return self.bins[1, used] / self.bins[0, used], self.bins[2, used] / self.bins[0, used]
