"""Threshold cores: numbers worked by hand from the equations, laws, and the gate that says "no threshold found"."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftermap.indices.threshold import (
    F32,
    F64,
    Gate,
    Modes,
    kittler_illingworth,
    logistic,
    otsu,
    parted,
    tiled_threshold,
    two_gaussians,
)

CENTRES = np.arange(-40, 0, 0.1) + 0.05
GATE = Gate(span=(-40, 0), bounds=(-28, -18), between=(-22, -22), bin_width=0.1)


def gaussian(mean: float, std: float) -> F64:
    return np.asarray(np.exp(-(((CENTRES - mean) / std) ** 2) / 2) / std)


def ones(*values: float) -> F64:
    return np.array(values, dtype=np.float64)


def test_otsu_by_hand() -> None:
    # 2, 1, 0, 3 at 0..3. After bin 0: 1/3 * 2/3 * 2.5^2 = 1.389; after bin 1: 1/2 * 1/2 * (3 - 1/3)^2 = 1.778, the largest.
    counts, centres = ones(2, 1, 0, 3), ones(0, 1, 2, 3)
    cut = parted(counts, centres)
    between = cut.low_share * (1 - cut.low_share) * (cut.high_mean - cut.low_mean) ** 2
    assert between[:2] == pytest.approx([1.388889, 1.777778], abs=1e-6)
    assert otsu(counts, centres) == 2.0  # half-way between the occupied bins 1 and 3


def test_kittler_illingworth_by_hand() -> None:
    # 1, 2, 1, 1, 2, 1 at 0..5. Cut in the middle: s^2 = 1/2 each, J = 1 + ln(1/2) + 2 ln 2 = 1.693.
    # Cut after bin 1: P0 = 3/8, s0^2 = 2/9, P1 = 5/8, s1^2 = 1.04: J = 1.784.
    assert kittler_illingworth(ones(1, 2, 1, 1, 2, 1), ones(0, 1, 2, 3, 4, 5)) == 2.5


def test_minimum_error_lies_where_the_densities_cross_and_otsu_does_not() -> None:
    counts = 0.1 * gaussian(-25, 1) + 0.9 * gaussian(-15, 2)
    crossing = CENTRES[np.argmax((0.9 * gaussian(-15, 2) > 0.1 * gaussian(-25, 1)) & (CENTRES > -25))]
    assert kittler_illingworth(counts, CENTRES) == pytest.approx(crossing, abs=0.3)
    assert otsu(counts, CENTRES) > crossing + 1  # pulled towards the wide, frequent class


def test_no_cut_is_nan_for_each_histogram_on_its_own() -> None:
    counts = np.stack([ones(0, 0, 0), ones(0, 5, 0), ones(5, 0, 5)])
    assert otsu(counts, ones(0, 1, 2)).tolist() == pytest.approx([np.nan, np.nan, 1.0], nan_ok=True)
    assert np.isnan(kittler_illingworth(counts, ones(0, 1, 2))).all()  # two spikes have no spread


def test_ashman_d_by_hand() -> None:
    modes = Modes(ones(0.3), ones(-24), ones(-18), ones(1), ones(2))
    assert modes.ashman_d == pytest.approx(np.sqrt(2) * 6 / np.sqrt(5))
    assert modes.balance == 0.3


def test_one_gaussian_has_one_mode_only_for_the_fit() -> None:
    one = gaussian(-15, 2)[None]
    halves = parted(one, CENTRES).ashman_d[0, np.argmin(np.abs(CENTRES + 15))]
    assert halves == pytest.approx(2.65, abs=0.02)  # sqrt(2) * 1.596 / (sqrt(2) * 0.603)
    skewed = one + 0.3 * gaussian(-12, 3)
    assert two_gaussians(skewed, CENTRES, otsu(skewed, CENTRES)).ashman_d < 2


def test_two_gaussians_are_recovered() -> None:
    modes = two_gaussians((0.2 * gaussian(-25, 1.5) + 0.8 * gaussian(-16, 2))[None], CENTRES, ones(-22))
    assert modes.low_share == pytest.approx(0.2, abs=0.01)
    assert [modes.low_mean[0], modes.high_mean[0]] == pytest.approx([-25, -16], abs=0.05)
    assert [modes.low_std[0], modes.high_std[0]] == pytest.approx([1.5, 2], abs=0.05)


@given(st.lists(st.integers(0, 50), min_size=3, max_size=12).filter(lambda c: sum(n > 0 for n in c) > 1), st.integers(-100, 100))
def test_otsu_is_the_best_of_all_cuts_wherever_the_values_lie(counts: list[int], shift: int) -> None:
    values = np.repeat(np.arange(len(counts)), counts)
    worth = [
        np.mean(values <= k) * np.mean(values > k) * (values[values > k].mean() - values[values <= k].mean()) ** 2
        if (values <= k).any() and (values > k).any() else -1.0
        for k in range(len(counts) - 1)
    ]  # fmt: skip
    cut = int(np.floor(otsu(ones(*counts), np.arange(len(counts), dtype=np.float64) + shift) - shift))
    assert worth[cut] == pytest.approx(max(worth), rel=1e-9)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e3))
def test_scores_are_above_a_half_exactly_where_the_margin_is_positive(margin: float, scale: float) -> None:
    score = logistic(np.array([margin]), scale)[0]
    assert score.dtype == np.float32
    assert 0 <= score <= 1
    assert (score > 0.5) == (margin / scale > 0)


def test_scores_rise_with_the_margin_and_nan_is_no_hazard() -> None:
    scores = logistic(np.array([-3, -1, 0, 1, 3, np.nan]), 1.0)
    assert (np.diff(scores[:5]) > 0).all()
    assert scores[3] == pytest.approx(1 / (1 + np.exp(-1)))
    assert scores[5] < 1e-6


def lake(share: float, *, size: int = 512) -> F32:
    """VH in dB: land at -15, a square lake at -26 of that share of the pixels, both with a deviation of 1 dB."""
    rng, side = np.random.default_rng(0), round(size * np.sqrt(share))
    image = rng.normal(-15, 1, (size, size))
    image[100 : 100 + side, 100 : 100 + side] -= 11
    return image.astype(np.float32)


def test_scarce_water_is_found_by_its_own_tiles() -> None:
    found = tiled_threshold([lake(0.015, size=1024)], GATE)  # one histogram of the scene would be 98.5 % land
    assert found.value == pytest.approx(-20.5, abs=1.5)
    assert found.source.startswith("median of ")
    assert found.source.endswith(" bimodal tiles of 256")


def test_land_alone_and_nothing_seen_have_no_threshold() -> None:
    assert tiled_threshold([lake(0)], GATE).source == "no threshold found: 0 of 64 tiles are bimodal, at least 5 must be"
    unseen = np.full((130, 70), np.nan, np.float32)
    assert tiled_threshold([unseen], GATE).source == "no threshold found: 0 of 0 tiles are bimodal, at least 5 must be"
    assert tiled_threshold([], GATE).value is None


def test_two_kinds_of_land_do_not_vote() -> None:
    fields = lake(0.3) + 8  # both modes brighter than water can be
    assert tiled_threshold([fields], GATE).value is None
