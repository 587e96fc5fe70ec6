"""How like a class a plane is, worked by hand: thresholds, correlation, probes, clusters, and what is undefined."""

from __future__ import annotations

import numpy as np
import pytest

from aftermap import likeness
from aftermap.clusters import fit, matched
from aftermap.errors import UsageError
from aftermap.likeness import Ground

INSIDE = np.array([1, 0, 0, 1, 0, 1, 1, 0], bool)
"""Patches of four pixels, all of one class; every second pair chooses."""
GROUND = Ground(np.stack([~INSIDE, INSIDE], axis=1) * 4.0, np.arange(8) // 2 % 2 == 0)


@pytest.mark.parametrize(("sign", "correlated"), [(1, 1.0), (-1, -1.0)])
def test_a_plane_that_is_the_reference_is_found_whichever_way_round(sign: int, correlated: float) -> None:
    row = likeness.of_plane(sign * INSIDE.astype(float), GROUND, 1)
    assert (row["iou_chosen_on"], row["iou"], row["correlation"]) == (1, 1, pytest.approx(correlated))
    assert row["above"] == (sign > 0)


def test_the_half_that_scores_chooses_nothing() -> None:
    """From 3 up is IoU 1/2, from 2.5 up 1/3, from 2 up 2/3; of the other half 5 and 4 are from 2 up: 1/3."""
    inside = np.array([1, 0, 1, 0, 1, 0, 1, 0], bool)
    ground = Ground(np.stack([~inside, inside], axis=1) * 1.0, np.arange(8) < 4)
    row = likeness.of_plane(np.array([3, 2.5, 2, 0, 5, 4, 1, 0]), ground, 1)
    assert (row["threshold"], row["iou_chosen_on"], row["iou"]) == (2, pytest.approx(2 / 3), pytest.approx(1 / 3))


def test_pixels_count_not_patches() -> None:
    """Patches of 3 of 4 and 1 of 4 pixels of the class: 3 / (3 + 1 + 1), and the same by the other half."""
    ground = Ground(np.array([[1, 3], [3, 1], [1, 3], [3, 1]], float), np.array([True, True, False, False]))
    row = likeness.of_plane(np.array([1.0, 0, 1, 0]), ground, 1)
    assert row["iou"] == pytest.approx(3 / 5)
    pixels = np.repeat([1.0, 0.0], 4), np.array([1, 1, 1, 0, 1, 0, 0, 0])
    assert row["correlation"] == pytest.approx(np.corrcoef(*pixels)[0, 1])


def test_what_is_constant_or_absent_is_undefined() -> None:
    flat = likeness.of_plane(np.ones(8), GROUND, 1)
    assert flat == {"iou_chosen_on": None, "threshold": None, "above": None, "iou": None, "correlation": None}
    dry = Ground(np.stack([np.full(8, 4.0), np.zeros(8)], axis=1), GROUND.chooses)
    assert likeness.of_plane(np.arange(8.0), dry, 1)["iou"] is None
    assert likeness.everything(dry, 1) is None
    assert likeness.chosen([flat]) is None
    assert likeness.probed(np.ones((8, 1), np.float32), Ground(GROUND.counts, np.zeros(8, bool))) is None


def test_a_probe_finds_a_sum_that_no_feature_shows() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 3)).astype(np.float32)
    inside = features[:, 0] + features[:, 2] > 0
    ground = Ground(np.stack([~inside, inside], axis=1).astype(np.float64), np.arange(400) % 2 == 0)
    scores = likeness.probed(np.c_[features, np.full((400, 1), 7, np.float32)], ground)
    assert scores is not None
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    alone, both = likeness.of_plane(features[:, 0], ground, 1)["iou"], likeness.of_plane(scores[:, 1], ground, 1)["iou"]
    assert both > 0.9 > 0.7 > alone


def test_permuted_clusters_match_perfectly() -> None:
    codes = np.array([3, 1, 2, 3, 1, 2, 3, 1])
    ground = Ground(np.eye(3, dtype=np.float64)[[0, 2, 1, 0, 2, 1, 0, 2]], np.arange(8) < 4)
    found = likeness.of_clusters(codes, ground)
    assert (found["purity"], found["miou"], found["miou_joined"]) == (1, 1, 1)
    assert found["class_of"] == {"3": 0, "2": 1, "1": 2}


def test_clusters_by_hand() -> None:
    """Two clusters of one class: one to one the larger (2 of 3), joined both; an absent class is undefined, not 0."""
    table = np.array([[2, 0, 0], [1, 0, 0], [0, 3, 0]], float)
    found = matched(table, table)
    assert list(found.ious) == [pytest.approx(2 / 3), 1, None]
    assert (found.joined, found.purity) == ((1.0, 1.0, None), 1.0)
    assert found.miou == pytest.approx(5 / 6)


def test_groups_are_the_same_for_a_seed_and_the_largest_comes_first() -> None:
    points = np.concatenate([np.full((5, 2), 9.0), np.full((9, 2), 1.0), np.full((2, 2), -4.0)]).astype(np.float32)
    first, second = (fit(points, 5, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first.centres, second.centres)
    np.testing.assert_array_equal(first.centres[:, 0], [1, 9, -4])
    np.testing.assert_array_equal(first.of(points[[0, 5, 15]]), [2, 1, 3])
    with pytest.raises(UsageError, match="254"):
        fit(points, 255, np.random.default_rng(0))
