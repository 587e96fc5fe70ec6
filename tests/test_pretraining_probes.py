"""Few labels on frozen embeddings: the numbers of the study, worked out another way."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from aftermap.chips import Chip
from aftermap.scored import score
from benchmarks.label_efficiency_rows import brier
from benchmarks.pretraining_probes import balanced_draw, by_image, compared, drawn, needed, r2


def test_r2_of_the_mean_is_0() -> None:
    wanted = np.array([0.0, 1.0, 2.0])
    assert r2(np.ones(3), wanted) == 0
    assert r2(wanted, wanted) == 1


def test_labels_needed_are_between_points_by_the_logarithm() -> None:
    assert needed([10, 100, 1000], [0.2, 0.4, 0.6], 0.5) == pytest.approx(10**2.5)
    assert needed([10, 100], [0.2, 0.4], 0.1) == 10
    assert needed([10, 100], [0.2, 0.4], 0.5) is None


def test_draws_are_of_a_seed_and_balanced_where_asked() -> None:
    places, yes = np.arange(5, 105), np.arange(105) % 4 == 0
    np.testing.assert_array_equal(drawn(places, 10, 3), drawn(places, 10, 3))
    assert set(drawn(places, 10, 3)) != set(drawn(places, 10, 4))
    assert int(yes[balanced_draw(places, yes, 20, 0)].sum()) == 10


def test_images_are_compared_by_their_means_over_seeds() -> None:
    np.testing.assert_allclose(by_image(np.array(["b", "a", "b"]), np.array([1.0, 5.0, 2.0])), [5, 1.5])
    ours, theirs = np.zeros((2, 8)), np.zeros((2, 8))
    ours[0], ours[1] = 3, -1
    images, gain, low, high, p = compared(ours, theirs)
    assert (images, gain, low, high, p) == (8, 1, 1, 1, 0.5**8)


def test_the_brier_score_of_a_square_is_that_of_its_pixels() -> None:
    rng = np.random.default_rng(0)
    truth, scores = rng.integers(0, 2, (2, 8, 8)).astype(np.uint8), (rng.integers(0, 251, (2, 8, 8)) / 250).astype(np.float32)
    pixels, valid = np.ones((1, 8, 8), np.float32), np.ones((8, 8), bool)
    chips = {str(k): Chip(pixels, valid, truth[k], ("a",), "dB", str(k), "e") for k in range(2)}
    _, each = score(chips.items(), lambda chip: scores[int(chip.name)])
    np.testing.assert_allclose(brier(each), ((scores - truth) ** 2).mean(axis=(1, 2)), rtol=1e-6)
