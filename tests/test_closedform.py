"""Closed-form regressions beside scikit-learn's and leaving one out by hand; what is ill-conditioned, wide, or constant."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftermap.closedform import PENALTIES, decompose
from aftermap.errors import UsageError

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from sklearn.linear_model import LinearRegression, Ridge, RidgeCV
from sklearn.preprocessing import StandardScaler


def data(count: int, wide: int, seed: int, spread: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of which the last varies 10**-spread times as much as the first, three tasks, and features to ask."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(wide, wide))
    q, _ = np.linalg.qr(mixed)
    sizes = np.logspace(0, -spread, wide)
    every = rng.normal(size=(count + 40, wide)) * sizes @ q + rng.normal(size=wide) * 3
    tasks = every[:count] @ rng.normal(size=(wide, 3)) + rng.normal(size=(count, 3))
    return every[:count], tasks, every[count:]


@given(count=st.integers(5, 60), wide=st.integers(1, 40), seed=st.integers(0, 99))
def test_least_squares_and_ridge_are_those_of_scikit_learn(count: int, wide: int, seed: int) -> None:
    features, tasks, asked = data(count, wide, seed)
    made = decompose(features)
    scaler = StandardScaler().fit(features)
    x, other = scaler.transform(features), scaler.transform(asked)
    if abs(count - 1 - wide) > 2:  # where they are about as many, noise is all that is fitted, and a digit is lost with each
        expected = LinearRegression().fit(x, tasks).predict(other)
        np.testing.assert_allclose(made.least_squares(tasks)(asked), expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max())
    found = made.ridge(tasks)
    for k, penalty in enumerate(found.penalties):
        expected = Ridge(penalty).fit(x, tasks[:, k]).predict(other)
        np.testing.assert_allclose(found(asked)[:, k], expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("count", "wide"), [(50, 20), (30, 60)])
def test_the_penalty_is_that_of_leaving_one_out(count: int, wide: int) -> None:
    features, tasks, _ = data(count, wide, 1)
    x = StandardScaler().fit_transform(features)
    chosen = RidgeCV(PENALTIES, alpha_per_target=True).fit(x, tasks).alpha_
    np.testing.assert_array_equal(decompose(features).ridge(tasks).penalties, chosen)

    def left(penalty: float, k: int) -> float:
        rows = np.arange(count)
        errors = [tasks[i, k] - Ridge(penalty, solver="svd").fit(x[rows != i], tasks[rows != i, k]).predict(x[i : i + 1])[0]
                  for i in rows]  # fmt: skip
        return float(np.mean(np.square(errors)))

    for k in range(3):
        assert chosen[k] == min((left(penalty, k), penalty) for penalty in PENALTIES)[1]


def test_of_more_features_than_chips_the_slopes_are_those_of_least_norm() -> None:
    features, tasks, _ = data(20, 50, 2)
    found = decompose(features).least_squares(tasks)
    x = (features - features.mean(axis=0)) / features.std(axis=0)
    np.testing.assert_allclose(found(features), tasks, atol=1e-8)
    expected = np.linalg.pinv(x) @ (tasks - tasks.mean(axis=0))
    np.testing.assert_allclose(found.slopes * features.std(axis=0)[:, None], expected, atol=1e-8)


@pytest.mark.parametrize("spread", [4.0, 7.0])
def test_ill_conditioned_features_keep_five_digits(spread: float) -> None:
    features, tasks, _ = data(300, 40, 3, spread)
    x = (features - features.mean(axis=0)) / features.std(axis=0)
    x = np.concatenate([x, x[:, :1] + np.random.default_rng(4).normal(size=(300, 1)) * 10.0**-spread], axis=1)
    assert np.linalg.cond(x) > 10.0 ** (spread - 1)
    whole = np.concatenate([x, np.ones((300, 1))], axis=1)
    expected = whole @ np.linalg.lstsq(whole, tasks, rcond=1e-15)[0]  # scikit-learn's would drop what varies below 1e-6
    np.testing.assert_allclose(decompose(x).least_squares(tasks)(x), expected, rtol=1e-5, atol=1e-5)


def test_what_does_not_vary_counts_for_nothing() -> None:
    features, tasks, asked = data(30, 5, 5)
    wider = [np.concatenate([one, np.full((len(one), 2), 7.0)], axis=1) for one in (features, asked)]
    for of in ("least_squares", "ridge"):
        plain, more = (getattr(decompose(one), of)(tasks) for one in (features, wider[0]))
        np.testing.assert_allclose(more(wider[1]), plain(asked), rtol=1e-8, atol=1e-8)
    flat = decompose(np.ones((10, 3)))
    for found in (flat.least_squares(tasks[:10]), flat.ridge(tasks[:10])):
        np.testing.assert_allclose(found(np.ones((2, 3))), np.tile(tasks[:10].mean(axis=0), (2, 1)))


def test_two_chips_are_too_few() -> None:
    with pytest.raises(UsageError) as refused:
        decompose(np.ones((2, 3)))
    assert refused.value.code == "too-few-chips"
