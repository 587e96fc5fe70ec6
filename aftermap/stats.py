"""Tests and intervals that can say no: signed-rank over images, rank-sum over seeds, Holm, intervals by resampling events.

Definitions after methods.md section 0.2. All tests are one-sided: is the model better? A test whose least possible p lies above
alpha is refused before it is computed, for it can only ever say no.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import comb, nan
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import stats

from aftermap.errors import UsageError

F64 = npt.NDArray[np.float64]
Event = TypeVar("Event")

ALPHA = 0.01
"""Of the paper that started this (Jakubik et al.)."""
MOST_EXACT = 25
"""Pairs up to which the signed-rank distribution is enumerated, and values in all up to which the rank-sum's is."""


@dataclass(frozen=True)
class Tested:
    """The one-sided p that the model is no better, and what it rests on."""

    p: float
    test: str
    pairs: int
    """Differences that count; of the rank-sum, values in all."""
    dropped: int = 0
    """Pairs left out: no difference, or a score that is undefined."""


def signed_rank_over_images(model: npt.ArrayLike, baseline: npt.ArrayLike, *, alpha: float = ALPHA) -> Tested:
    """The primary test: scores (seed, image) of both, averaged over seeds, paired by image; NaN where undefined.

    Raises UsageError ("alpha-unreachable") for too few images.
    """
    means = [np.mean(np.atleast_2d(np.asarray(scores, np.float64)), axis=0) for scores in (model, baseline)]
    return _signed_rank(means[0] - means[1], "signed-rank over images", alpha)


def signed_rank_over_seeds(model: npt.ArrayLike, baseline: npt.ArrayLike, *, alpha: float = ALPHA) -> Tested:
    """Scores (seed,) of both, paired by seed. Raises UsageError ("alpha-unreachable") where 2**-n > alpha: 5 seeds, say."""
    return _signed_rank(np.asarray(model, np.float64) - np.asarray(baseline, np.float64), "signed-rank over seeds", alpha)


def rank_sum_over_seeds(model: npt.ArrayLike, baseline: npt.ArrayLike, *, alpha: float = ALPHA) -> Tested:
    """The secondary test (Mann-Whitney): scores (seed,) of both, not paired; exact, also with ties, for few seeds."""
    ours, theirs = np.asarray(model, np.float64), np.asarray(baseline, np.float64)
    seeds = len(ours) + len(theirs)
    _refuse_unreachable(1 / comb(seeds, len(ours)), alpha, f"rank-sum of {len(ours)} against {len(theirs)} seeds")
    tied = len(np.unique(np.concatenate([ours, theirs]))) < seeds
    method: Literal["exact", "asymptotic"] | stats.PermutationMethod = "exact" if seeds <= MOST_EXACT else "asymptotic"
    if tied and comb(seeds, len(ours)) <= 20_000:
        method = stats.PermutationMethod(n_resamples=20_000)  # all of them: scipy's exact mode knows no ties
    elif tied:
        method = "asymptotic"
    p = float(stats.mannwhitneyu(ours, theirs, alternative="greater", method=method).pvalue)
    return Tested(p, "rank-sum over seeds", seeds)


def _signed_rank(differences: F64, test: str, alpha: float) -> Tested:
    _refuse_unreachable(0.5 ** len(differences), alpha, f"{test} of {len(differences)} pairs")
    kept = differences[np.isfinite(differences) & (differences != 0)]
    return Tested(exact_signed_rank(kept) if len(kept) <= MOST_EXACT else _normal_signed_rank(kept), test, len(kept),
                  len(differences) - len(kept))  # fmt: skip


def exact_signed_rank(differences: npt.ArrayLike) -> float:
    """P(W+ at least as large) over all 2**n signs of differences (n,) without zeros, with mean ranks where they tie.

    scipy's exact mode has this without ties only. 1 where there is no difference at all.
    """
    given = np.asarray(differences, np.float64)
    doubled = np.rint(2 * stats.rankdata(np.abs(given))).astype(np.intp)  # mean ranks are halves
    ways = np.ones(1)
    for rank in doubled:
        ways = np.pad(ways, (0, rank)) + np.pad(ways, (rank, 0))
    return float(ways[doubled[given > 0].sum() :].sum() / ways.sum())


def _normal_signed_rank(differences: F64) -> float:
    return float(stats.wilcoxon(differences, alternative="greater", method="approx").pvalue)


def _refuse_unreachable(least: float, alpha: float, what: str) -> None:
    if least > alpha:
        raise UsageError(
            f"the {what} can never reach alpha {alpha:g}: its least p is {least:.4g}",
            repair="test over images, or take more seeds",
            code="alpha-unreachable",
        )


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p in the given order: ascending, times how many are left, never falling, at most 1 (Holm 1979)."""
    order = np.argsort(ps, kind="stable")
    stepped = np.maximum.accumulate(np.asarray(ps, np.float64)[order] * np.arange(len(ps), 0, -1))
    adjusted = np.empty(len(ps))
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted.tolist()


def starred(model: npt.ArrayLike, baselines: Mapping[str, npt.ArrayLike], *, alpha: float = ALPHA) -> bool:
    """Whether a model (seed, image) is better than every one of the baselines (seed, image), each at alpha."""
    if not baselines:
        raise UsageError("a model is starred against baselines, and there is none", repair="give the random baselines")
    return all(signed_rank_over_images(model, other, alpha=alpha).p <= alpha for other in baselines.values())


@dataclass(frozen=True)
class Interval:
    """A score and where it lies when other events of the kind are drawn."""

    value: float
    low: float
    high: float
    method: str
    """"bca", or "percentile": asked for, or all that there is where events do not differ or a resample is undefined."""
    events: int
    undefined: int = 0
    """Resamples in which the score is undefined, left out."""


def interval(
    events: Sequence[Event],
    score: Callable[[Sequence[Event]], float | None],
    rng: np.random.Generator,
    *,
    level: float = 0.95,
    method: Literal["bca", "percentile"] = "bca",
    resamples: int = 2000,
) -> Interval:
    """The interval of a score of all events together, whole events drawn with replacement: pixels of one are not independent.

    Raises UsageError for fewer than two events.
    """
    if len(events) < 2:
        raise UsageError("an interval over events needs at least two", repair="add events, or report the score alone")

    def of(drawn: npt.NDArray[np.intp]) -> float:
        found = score([events[k] for k in drawn])
        return nan if found is None else found

    places = np.arange(len(events))
    value, left_out = of(places), [of(np.delete(places, k)) for k in places]
    bca = method == "bca" and bool(np.isfinite([value, *left_out]).all()) and len({*left_out}) > 1
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # a resample may be undefined: handled below
        found = stats.bootstrap(
            (places,), of, vectorized=False, n_resamples=resamples, confidence_level=level,
            method="BCa" if bca else "percentile", rng=rng,
        )  # fmt: skip
    drawn = found.bootstrap_distribution
    defined = drawn[np.isfinite(drawn)]
    low, high = (float(limit) for limit in found.confidence_interval)
    if len(defined) < len(drawn):
        bca, tail = False, 50 * (1 - level)
        low, high = (float(np.percentile(defined, q)) if len(defined) else nan for q in (tail, 100 - tail))
    return Interval(value, low, high, "bca" if bca else "percentile", len(events), len(drawn) - len(defined))
