"""Distances of clouds by hand: nothing between equal ones, closed forms of Gaussians, tests that stay silent where they must."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from aftermap import distances
from aftermap.errors import UsageError

RNG = np.random.default_rng(7)
CLOUD = RNG.normal(size=(60, 4)) @ np.array([[2, 0.5, 0, 0], [0, 1, 0, 0.3], [0, 0, 0.5, 0], [0, 0, 0, 1]])
SHIFT = np.array([3.0, 0.0, -4.0, 0.0])


def test_equal_clouds_are_not_apart() -> None:
    again = RNG.permutation(CLOUD)
    assert distances.frechet(CLOUD, again) == pytest.approx(0, abs=1e-9)
    assert distances.whitened(CLOUD, again) == pytest.approx(0, abs=1e-9)
    assert distances.sliced(CLOUD, again, np.random.default_rng(0)) == pytest.approx(0, abs=1e-9)
    found = distances.mmd(CLOUD, again, np.random.default_rng(0), permutations=99)
    assert found.squared == pytest.approx(0, abs=1e-12)
    assert found.p == 1
    told = distances.told_apart(CLOUD, again, np.random.default_rng(0))
    assert told.accuracy < 0.6
    assert told.majority == 0.5


def test_frechet_has_its_closed_form() -> None:
    """Of a shift alone its square; of a cloud and its double, whose covariances C and 4 C meet as 2 C: tr C, and the means."""
    assert distances.frechet(CLOUD, CLOUD + SHIFT) == pytest.approx(25)
    own = distances.shrunk(CLOUD)
    expected = np.trace(own) + (CLOUD.mean(axis=0) ** 2).sum()
    assert distances.frechet(CLOUD, 2 * CLOUD) == pytest.approx(expected)


def test_shrinkage_keeps_the_trace_and_lets_go_with_many_points() -> None:
    """Ledoit and Wolf: between the covariance and the mean of its diagonal, nearer the first the more points there are."""
    for count, least in ((6, 0.1), (4000, 0.0)):
        points = np.random.default_rng(count).normal(size=(count, 5)) * np.array([1, 2, 3, 1, 1])
        sample = np.cov(points.T, bias=True)
        found = distances.shrunk(points)
        assert np.trace(found) == pytest.approx(np.trace(sample))
        off = ~np.eye(5, dtype=bool)
        share = 1 - found[off] / sample[off]
        np.testing.assert_allclose(share, share[0])
        assert least <= share[0] <= 1
        assert np.linalg.eigvalsh(found)[0] > 0
    assert share[0] < 0.05
    np.testing.assert_array_equal(distances.shrunk(np.ones((5, 3))), np.zeros((3, 3)))


def test_whitened_means_count_standard_deviations() -> None:
    """Two points a side and one number: within they have a variance of 1, and their means are 6 apart."""
    one = np.array([[-1.0], [1], [-1], [1], [-1], [1]])
    assert distances.whitened(one, one + 6) == pytest.approx(6)
    assert distances.whitened(10 * one, 10 * (one + 6)) == pytest.approx(6)


def test_sliced_wasserstein_of_one_number_is_that_of_sorted_values() -> None:
    one, other = RNG.normal(size=40), RNG.normal(2, 3, size=40)
    expected = np.sqrt(((np.sort(one) - np.sort(other)) ** 2).mean())
    assert distances.sliced(one[:, None], other[:, None], np.random.default_rng(0)) == pytest.approx(expected)
    thrice = np.repeat(other, 3)[:, None]
    assert distances.sliced(one[:, None], thrice, np.random.default_rng(0)) == pytest.approx(expected)
    far = distances.sliced(CLOUD, CLOUD + SHIFT, np.random.default_rng(0), projections=4000)
    assert far == pytest.approx(5 / np.sqrt(4), rel=0.05)  # a direction of four has a quarter of the squared shift on average


def test_mmd_by_hand() -> None:
    """Five points at 0 and five at 1: the median distance is 1, so the kernel across is exp(-1/2)."""
    found = distances.mmd(np.zeros((5, 1)), np.ones((5, 1)), np.random.default_rng(0), permutations=199)
    assert found.bandwidth == 1
    assert found.squared == pytest.approx(2 - 2 * np.exp(-0.5))
    assert found.p < 0.05


def test_mmd_is_silent_where_one_law_made_both() -> None:
    rng = np.random.default_rng(1)
    ps = [distances.mmd(rng.normal(size=(20, 3)), rng.normal(size=(25, 3)), rng, permutations=99).p for _ in range(40)]
    assert 0.2 < np.mean(ps) < 0.8
    assert np.mean(np.array(ps) <= 0.05) <= 0.15


def test_what_lies_apart_is_told_apart() -> None:
    told = distances.told_apart(CLOUD, CLOUD[:30] + 20, np.random.default_rng(0))
    assert told.accuracy == 1
    assert told.majority == pytest.approx(2 / 3)


def test_points_and_a_cloud() -> None:
    line = np.array([[0.0], [1], [2], [3], [10]])
    np.testing.assert_allclose(distances.nearest([[1.0]], line, k=3), [2 / 3])
    np.testing.assert_allclose(distances.nearest([[1.0]], line, k=9), [(1 + 0 + 1 + 2 + 9) / 5])
    spread = np.array([[-2.0, 0], [2, 0], [0, -1], [0, 1]])
    covariance = distances.shrunk(spread)
    point = np.array([[2.0, 3.0]])
    expected = np.sqrt((point @ np.linalg.inv(covariance) @ point.T)[0, 0])
    np.testing.assert_allclose(distances.mahalanobis(point, spread), [expected])


def test_conformal_p_counts_the_chip_itself() -> None:
    np.testing.assert_allclose(distances.conformal([0, 2, 5], [1, 2, 3]), [1, 3 / 4, 1 / 4])


@given(st.integers(0, 2**31))
def test_rank_correlation_is_scipys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = rng.integers(0, 6, 12), rng.normal(size=12)
    if len(set(one)) > 1:
        assert distances.rank_correlation(one, other) == pytest.approx(stats.spearmanr(one, other).statistic)


def test_permutations_hear_order_and_nothing_else() -> None:
    rising, rng = np.arange(12.0), np.random.default_rng(0)
    assert distances.permuted(rising, rising**3, rng) == pytest.approx(1 / 1000, abs=1e-3)
    assert (distances.permuted(rising, rng.normal(size=12), rng) or 0) > 0.05
    assert distances.permuted(rising, np.ones(12), rng) is None


def test_too_few_or_unlike_chips_are_refused() -> None:
    with pytest.raises(UsageError, match="a cloud of 4 chips"):
        distances.frechet(CLOUD[:4], CLOUD)
    with pytest.raises(UsageError, match="clouds of 2 and 4 numbers"):
        distances.whitened(CLOUD[:, :2], CLOUD)
