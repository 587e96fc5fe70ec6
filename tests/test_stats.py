"""Significance: golden numbers of methods.md section 0.2, brute force, and refusals."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from aftermap import stats
from aftermap.errors import UsageError
from aftermap.metrics import Counts


def test_golden_least_p() -> None:
    """methods.md section 17, check 2."""
    assert stats.exact_signed_rank([1, 2, 3, 4, 5]) == 0.03125
    assert stats.exact_signed_rank(np.arange(1, 8)) == pytest.approx(0.0078, abs=2e-5)
    assert stats.rank_sum_over_seeds([6, 7, 8, 9, 10], [1, 2, 3, 4, 5]).p == pytest.approx(0.003968, abs=1e-6)


@given(st.lists(st.integers(-4, 4).filter(bool), min_size=1, max_size=9))
@settings(max_examples=40)
def test_signed_rank_is_the_share_of_all_signs(differences: list[int]) -> None:
    ranks = scipy_stats.rankdata(np.abs(differences))
    seen = ranks[np.array(differences) > 0].sum()
    sums = [ranks[np.array(signs, bool)].sum() for signs in product([0, 1], repeat=len(ranks))]
    assert stats.exact_signed_rank(differences) == pytest.approx(np.mean(np.array(sums) >= seen - 1e-9))


def test_signed_rank_agrees_with_scipy_without_ties_and_for_many() -> None:
    rng = np.random.default_rng(0)
    few, many = rng.normal(0.3, 1, 20), rng.normal(0.1, 1, 400)
    exact = scipy_stats.wilcoxon(few, alternative="greater", method="exact").pvalue
    assert stats.signed_rank_over_images(few, np.zeros(20)).p == pytest.approx(exact)
    normal = scipy_stats.wilcoxon(many, alternative="greater", method="approx").pvalue
    assert stats.signed_rank_over_images(many, np.zeros(400)).p == pytest.approx(normal)
    assert stats.signed_rank_over_images(many[:25], np.zeros(25)).p == pytest.approx(stats.exact_signed_rank(many[:25]))


def test_zero_and_undefined_differences_are_dropped_and_counted_after_seeds_are_averaged() -> None:
    model = np.array([[0.6, 0.5, np.nan, *np.full(9, 0.8)], [0.4, 0.7, 0.9, *np.full(9, 0.9)]])
    baseline = np.full((2, 12), 0.5)
    tested = stats.signed_rank_over_images(model, baseline)
    assert (tested.pairs, tested.dropped) == (10, 2)
    assert tested.p == 2**-10


def test_ties_between_seeds_are_exact() -> None:
    """Of the 252 draws, those as extreme: the tied value may stand on either side."""
    assert stats.rank_sum_over_seeds([3, 4, 5, 6, 7], [0, 1, 2, 2, 3]).p == pytest.approx(2 / 252)


def test_a_test_that_cannot_reach_alpha_is_refused() -> None:
    with pytest.raises(UsageError, match=r"least p is 0\.03125") as caught:
        stats.signed_rank_over_seeds(np.ones(5), np.zeros(5))
    assert caught.value.code == "alpha-unreachable"
    with pytest.raises(UsageError, match="3 against 3"):
        stats.rank_sum_over_seeds([1, 2, 3], [4, 5, 6])
    assert stats.signed_rank_over_seeds(np.ones(5), np.zeros(5), alpha=0.05).p == 0.03125


def test_holm_by_hand() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, 0.8]) == [1, 1]


def test_a_star_needs_every_baseline() -> None:
    model = np.linspace(0.6, 0.9, 12)
    assert stats.starred(model, {"noise": model - 0.1, "random": model - 0.2})
    assert not stats.starred(model, {"noise": model - 0.1, "random": model})
    with pytest.raises(UsageError, match="there is none"):
        stats.starred(model, {})


def pooled_iou(events: list[Counts]) -> float | None:
    return sum(events, Counts()).iou


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_the_interval_of_a_mean_covers_as_often_as_it_says(method: str) -> None:
    hits = 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        sample = rng.normal(5, 2, 30)
        found = stats.interval(sample.tolist(), lambda s: float(np.mean(s)), rng, method=method, resamples=300)  # type: ignore[arg-type]
        assert found.method == method
        hits += found.low <= 5 <= found.high
    assert 0.86 <= hits / 120 <= 1


def test_intervals_pool_events_and_say_what_was_undefined() -> None:
    rng = np.random.default_rng(1)
    found = stats.interval([Counts(9, 1, 1, 5), Counts(5, 5, 5, 5), Counts(tn=9)], pooled_iou, rng)  # type: ignore[arg-type]
    assert found.value == pytest.approx(14 / 26)
    assert found.method == "percentile"
    assert 0 < found.undefined < 0.1 * 2000  # three times the empty event: 1 of 27
    assert found.low <= found.value <= found.high
    same = stats.interval([Counts(1, 1)] * 4, pooled_iou, rng)  # type: ignore[arg-type]
    assert (same.low, same.high, same.method) == (0.5, 0.5, "percentile")
    with pytest.raises(UsageError, match="at least two"):
        stats.interval([Counts(1)], pooled_iou, rng)  # type: ignore[arg-type]
