"""What probes come to: means over draws, shares of variance worked by hand, and where to label."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftermap.probe import Cells
from aftermap.probed import FACTORS, balanced, cube, decisions, explained, gap


def made(of, tasks: str = "ab", areas: str = "xyz", labels: tuple[int, ...] = (10, 50), repeats: int = 3) -> Cells:  # type: ignore[no-untyped-def]
    """Cells whose r is of(task, train, test, labels, repeat)."""
    rows = [*product(tasks, areas, areas, labels, range(repeats))]
    r = np.array([of(*row) for row in rows], np.float64)
    task, train, test, n, repeat = (np.array(one) for one in zip(*rows, strict=True))
    return Cells(task, train, test, np.full(len(rows), "ridge"), n, repeat, r, r, 1 - r, r * 0)


def test_a_cube_has_the_mean_and_scatter_of_draws() -> None:
    found = cube({"e": made(lambda k, a, b, n, i: (a == b) + i / 10)}, "ridge")
    assert found.axes["labels"] == ("10", "50")
    np.testing.assert_allclose(found.at(encoder="e", task="a", train="x", test="x"), 1.1)
    np.testing.assert_allclose(found.scatter, 0.1)
    names, matrix = gap(found, "e")
    assert names == ("x", "y", "z")
    np.testing.assert_allclose(matrix, np.eye(3) + 0.1)


def test_what_is_undefined_counts_as_nothing() -> None:
    found = cube({"e": made(lambda *_: np.nan)}, "ridge")
    assert (found.values == 0).all()


def test_variance_goes_with_what_it_was_made_of() -> None:
    each = {name: made(lambda k, a, b, n, i, e=e: 3 * e + (b == "x") * 1.0) for e, name in enumerate(("one", "two"))}
    shares = explained(cube(each, "ridge"), 3)
    of_encoder, of_test = 1.5**2, 2 / 9
    assert shares["encoder"] == pytest.approx(of_encoder / (of_encoder + of_test))
    assert shares["test"] == pytest.approx(of_test / (of_encoder + of_test))
    assert sum(shares.values()) == pytest.approx(1)
    drawn = explained(cube({"e": made(lambda k, a, b, n, i: i)}, "ridge"), 3)
    assert drawn["draw of labels"] == pytest.approx(1)
    crossed = explained(cube({"e": made(lambda k, a, b, n, i: a == b)}, "ridge"), 3)
    assert crossed["train x test"] == pytest.approx(1)


@given(seed=st.integers(0, 20))
def test_shares_are_of_the_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shares = explained(cube({e: made(lambda *_: rng.normal()) for e in "pq"}, "ridge"), 3)
    assert all(0 <= share <= 1 for share in shares.values())
    assert sum(shares.values()) == pytest.approx(1)
    assert len(shares) == len(FACTORS) + len(FACTORS) * (len(FACTORS) - 1) // 2 + 2


def test_a_cube_with_holes_is_balanced_by_leaving_out_whole_tasks_and_says_which() -> None:
    whole = made(lambda *_: 1.0)
    kept = ~((whole.task == "b") & (whole.test == "z"))
    holed = Cells(**{name: values[kept] for name, values in vars(whole).items()})
    found = cube({"e": holed}, "ridge")
    assert explained(found, 3) == {}
    left, gone = balanced(found)
    assert gone == ("b",)
    assert left.values.shape == (1, 1, 3, 3, 2)
    assert np.isfinite(left.values).all()


def test_the_decision_is_to_label_where_few_of_its_own_beat_the_best_of_others() -> None:
    def score(task: str, train: str, test: str, labels: int, repeat: int) -> float:
        if train == test:
            return {10: 0.5, 50: 0.9}[labels]
        return {"x": 0.2, "y": 0.7, "z": 0.95 if test == "y" else 0.1}[train]

    lines = {(d.task, d.area): d for d in decisions(cube({"e": made(score)}, "ridge"))}
    x, y = lines["a", "x"], lines["a", "y"]
    assert (x.best_foreign, x.needed, y.best_foreign, y.needed) == ("y", "50", "z", "over 50")
    assert x.foreign == pytest.approx(0.7)
    assert y.own == pytest.approx(0.9)
    smaller = decisions(cube({"e": made(score)}, "ridge", "rmse"), larger=False)
    assert [d.needed for d in smaller] == [lines[d.task, d.area].needed for d in smaller]
    assert smaller[0].foreign == pytest.approx(0.3)
