"""Golden numbers and laws of the scores."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, cohen_kappa_score, roc_auc_score

from aftermap.confusion import Confusion
from aftermap.metrics import (
    CountErrors,
    Counts,
    Inspection,
    Ranking,
    Reliability,
    aucs_one_vs_rest,
    ceiling,
    found_when_inspecting,
    inspected,
    macro,
    marked,
)

counts = st.builds(Counts, *[st.integers(0, 10**9)] * 4)


def test_counts_by_hand() -> None:
    mapped = np.array([1, 1, 0, 0, 1], bool)
    truth = np.array([1, 0, 1, 0, 1], bool)
    c = Counts.of(mapped, truth)
    assert c == Counts(tp=2, fp=1, fn=1, tn=1)
    assert c.iou == 2 / 4
    assert c.f1 == 4 / 6
    assert c.precision == c.recall == pytest.approx(2 / 3)
    assert c.balanced_accuracy == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert c.area_error == 0


@given(counts, counts, counts)
def test_counts_add_in_any_order(a: Counts, b: Counts, c: Counts) -> None:
    assert (a + b) + c == a + (c + b)


def test_undefined_is_none_not_zero() -> None:
    assert Counts(tn=5).recall is None
    assert Counts(tn=5).balanced_accuracy is None
    assert Counts(tn=5).iou is None
    assert Counts(fp=1, tn=5).iou == 0
    assert Ranking().average_precision is None
    assert Ranking().auc is None


@pytest.mark.parametrize("ties", [False, True])
def test_ranking_agrees_with_scikit_learn(ties: bool) -> None:
    rng = np.random.default_rng(3)
    truth = rng.random(4000) < 0.07
    scores = np.clip(rng.normal(0.3 + 0.25 * truth, 0.2), 0, 1).astype(np.float32)
    if ties:
        scores = np.round(scores, 1).astype(np.float32)
    ranking = Ranking()
    ranking.add(scores[:1500], truth[:1500])
    ranking.add(scores[1500:], truth[1500:])
    assert ranking.average_precision == pytest.approx(average_precision_score(truth, scores), abs=1e-5)
    assert ranking.auc == pytest.approx(roc_auc_score(truth, scores), abs=1e-5)


def test_constant_scores_have_the_precision_of_chance() -> None:
    """methods.md section 17, check 7."""
    ranking, truth = Ranking(), np.arange(200) % 8 == 0
    ranking.add(np.full(200, 0.4, np.float32), truth)
    assert ranking.average_precision == pytest.approx(truth.mean())
    assert ranking.auc == pytest.approx(0.5)


def test_calibration_by_hand() -> None:
    reliability = Reliability()
    scores = np.array([0.1, 0.1, 0.9, 0.9], np.float32)
    reliability.add(scores, np.array([0, 0, 1, 1], bool))
    assert reliability.expected_calibration_error == pytest.approx(0.1, abs=1e-6)
    mean, share = reliability.curve()
    np.testing.assert_allclose(mean, [0.1, 0.9], atol=1e-6)
    np.testing.assert_allclose(share, [0, 1])


@given(st.integers(2, 12), st.data())
def test_the_ceiling_is_the_best_of_all_masks(size: int, data: st.DataObject) -> None:
    """methods.md section 17, check 1: every mask of `share` pixels on an image of `size`."""
    hazard = data.draw(st.integers(1, size - 1))
    share = data.draw(st.integers(0, size))
    truth = np.arange(size) < hazard
    masks = (np.isin(np.arange(size), chosen) for chosen in combinations(range(size), share))
    best = max(Counts.of(mask, truth).balanced_accuracy or 0 for mask in masks)
    assert ceiling(hazard / size, share / size) == pytest.approx(best)


@pytest.mark.parametrize(("prevalence", "best"), [(0.0064, 0.978), (0.0136, 0.982), (0.05, 1), (0.07, 0.857), (0.3, 0.583)])
def test_the_ceiling_of_the_paper(prevalence: float, best: float) -> None:
    assert ceiling(prevalence) == pytest.approx(best, abs=6e-4)
    assert ceiling(0) is None


def test_the_percentile_rule_is_strict() -> None:
    assert marked(np.arange(100) / 100).sum() == 5
    assert marked(np.full(50, 0.3)).sum() == 0


def test_count_errors_by_hand() -> None:
    """methods.md section 17, check 7: the error of the map of nothing is what is true."""
    true = np.array([10.0, 30, 20, 0, 0])
    assert CountErrors(np.zeros(5), true).delta_l1 == 10
    errors = CountErrors(np.array([12.0, 20, 20, 3, 5]), true)
    assert errors.delta_l1 == 3
    assert errors.delta_count(hazard=True) == 0
    assert errors.delta_count(hazard=False) == 4
    assert CountErrors(true[:3], true[:3]).delta_count(hazard=False) is None


def test_found_when_inspecting_by_hand() -> None:
    affected = [0, 6, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0]
    order = [4, 1, 0, 2, 3, 5, 6, 7, 8, 9, 10, 11]
    assert found_when_inspecting(affected, order) == 0.9, "two of twelve cells, for a tenth is rounded up"
    assert found_when_inspecting(affected, order, 1 / 12) == 0.3
    assert found_when_inspecting(affected, order[:3], 0.25) == 0.9
    assert np.isnan(found_when_inspecting([0, 0], [1, 0]))
    assert [inspected(n) for n in (1, 10, 30, 31)] == [1, 1, 3, 4]
    one = Inspection.of(np.asarray(affected, np.float64), np.asarray(order))
    assert one.row() == {"found_top10": 0.9, "found_top10_chance": pytest.approx(1 / 6), "found_top10_best": 0.9}
    assert (one + Inspection.of(np.zeros(5), np.arange(5))).row() == one.row()
    other = Inspection.of(np.array([0.0, 10.0]), np.array([0, 1]))
    assert (one + other).row()["found_top10"] == 0.45
    assert set(Inspection().row().values()) == {None}


@pytest.mark.parametrize("ties", [False, True])
def test_one_against_the_rest_agrees_with_scikit_learn(ties: bool) -> None:
    rng = np.random.default_rng(5)
    codes = rng.choice(3, 300, p=[0.7, 0.2, 0.1])
    likely = rng.random((300, 3)) + np.eye(3)[codes]
    likely = np.round(likely, 1) if ties else likely
    likely /= likely.sum(axis=1, keepdims=True)
    areas = aucs_one_vs_rest(likely, codes)
    for k in range(3):
        assert areas[k] == pytest.approx(roc_auc_score(codes == k, likely[:, k]), abs=1e-12)
    assert macro(areas) == pytest.approx(roc_auc_score(codes, likely, multi_class="ovr", average="macro"), abs=1e-12)
    assert aucs_one_vs_rest(np.full((4, 3), 1 / 3), np.array([0, 0, 1, 1])) == (0.5, 0.5, None)
    assert macro([None, None]) is None


def test_kappa_of_ordered_classes() -> None:
    truth, mapped = np.array([0, 0, 1, 2, 2, 1]), np.array([0, 1, 1, 2, 0, 1])
    made = Confusion.of(("none", "few", "many"), truth, mapped)
    assert made.qwk == pytest.approx(1 - 6 * 5 / 42), "steps of 1 and 2 are 5 squared; all pairs 14 + 6 + 22"
    assert made.qwk == pytest.approx(cohen_kappa_score(truth, mapped, weights="quadratic"))
    assert made.commonest().qwk == 0
    assert Confusion.of(("none", "few"), truth[:2], mapped[:1].repeat(2)).qwk is None
