"""Probes: each cell is what scikit-learn makes of the same chips; draws, what is held apart, and what is left out and counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aftermap.closedform import PENALTIES
from aftermap.errors import UsageError
from aftermap.probe import ARMS, Area, Cells, Plan, cells, draws, scored

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from sklearn.linear_model import LinearRegression, RidgeCV
from sklearn.metrics import r2_score, root_mean_squared_error
from sklearn.preprocessing import StandardScaler


def area(name: str, seed: int, count: int = 300, wide: int = 12) -> Area:
    """Two tasks that go with the features by a line of the area's own level."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, wide)) + rng.normal(size=wide)
    line = np.random.default_rng(9).normal(size=(wide, 2)) * 0.06
    shares = np.clip(0.5 + features @ line + rng.normal(size=(count, 2)) * 0.05, 0, 1)
    return Area(name, features, shares, np.arange(count) % 3 == 0)


PLAN = Plan(("trees", "water"), budgets=(30, 60), repeats=2, least_mixed=100)


def test_each_cell_is_what_scikit_learn_makes_of_the_same_chips() -> None:
    here, there = area("here", 0), area("there", 1)
    found, left = cells(here, [here, there], PLAN)
    assert left == []
    assert len(found) == 2 * 2 * 2 * 2 * 2  # budgets, repeats, arms, tests, tasks
    for repeat, rows in draws(here, PLAN):
        features, labels = here.features[rows], len(rows)
        scaler = StandardScaler().fit(features)
        for test in (here, there):
            for task, name in enumerate(PLAN.tasks):
                x, y = scaler.transform(features), here.shares[rows, task]
                for arm, model in zip(ARMS, (LinearRegression(), RidgeCV(PENALTIES)), strict=True):
                    asked = model.fit(x, y).predict(scaler.transform(test.features[test.held]))
                    wanted = test.shares[test.held, task]
                    (place,) = np.flatnonzero(
                        (found.task == name) & (found.test == test.name) & (found.arm == arm) & (found.labels == labels)
                        & (found.repeat == repeat)
                    )  # fmt: skip
                    assert found.r[place] == pytest.approx(np.corrcoef(asked, wanted)[0, 1], abs=1e-8)
                    assert found.r2[place] == pytest.approx(r2_score(wanted, asked), abs=1e-8)
                    assert found.rmse[place] == pytest.approx(root_mean_squared_error(wanted, asked), abs=1e-8)
                    assert found.bias[place] == pytest.approx((asked - wanted).mean(), abs=1e-8)


def test_draws_are_of_the_area_and_seed_and_nested_whatever_the_encoder() -> None:
    here = area("here", 0)
    once = [*draws(here, PLAN)]
    assert [(repeat, len(rows)) for repeat, rows in once] == [(0, 30), (0, 60), (1, 30), (1, 60)]
    assert not any(here.held[rows].any() for _, rows in once)
    np.testing.assert_array_equal(once[0][1], once[1][1][:30])
    assert set(once[1][1]) != set(once[3][1])
    for (_, one), (_, other) in zip(once, draws(replace(here, features=here.features[:, :5]), PLAN), strict=True):
        np.testing.assert_array_equal(one, other)
    for changed in (draws(here, replace(PLAN, seed=1)), draws(replace(here, name="x"), PLAN)):
        assert set(next(changed)[1]) != set(once[0][1])


def test_tasks_with_few_mixed_chips_and_budgets_beyond_the_pool_are_left_out_and_counted() -> None:
    here = area("here", 0)
    dry = replace(area("dry", 1), shares=np.stack([area("dry", 1).shares[:, 0], np.zeros(300)], axis=1))
    found, left = cells(here, [here, dry], replace(PLAN, budgets=(30, 500)))
    assert set(found.labels.tolist()) == {30}
    assert {(o.task, o.train, o.test, o.labels, o.why) for o in left} == {
        ("", "here", "", 500, "200 chips to draw from"), ("water", "here", "dry", 0, "0 mixed chips there"),
    }  # fmt: skip
    assert set(found.task[found.test == "dry"].tolist()) == {"trees"}
    nothing, why = cells(dry, [here], replace(PLAN, least_mixed=10_000))
    assert len(nothing) == 0
    assert len(why) == 2
    assert len(Cells.joined([found, nothing])) == len(found)
    assert len(Cells.joined([])) == 0


def test_scores_of_what_does_not_vary_are_undefined() -> None:
    r, r2, _, bias = scored(np.array([[1.0, 1.0], [1.0, 3.0]]), np.array([[0.0, 2.0], [1.0, 2.0]]))
    assert np.isnan(r).all()
    assert r2[0] == pytest.approx(1 - 1 / 0.5)
    assert np.isnan(r2[1])
    np.testing.assert_allclose(bias, [0.5, 0.0])


def test_an_area_of_other_lengths_or_with_holes_is_refused() -> None:
    here = area("here", 0)
    with pytest.raises(UsageError, match="300 embeddings, 299 labels"):
        replace(here, shares=here.shares[:-1])
    with pytest.raises(UsageError, match="without an embedding or a label"):
        replace(here, shares=np.where(here.shares > 0.5, np.nan, here.shares))
