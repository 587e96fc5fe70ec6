"""Rows of the benchmark of low-rank updates: thresholds, groups, tests over groups and Holm within one table."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")

from aftermap.metrics import Counts
from aftermap.scored import LEVELS, Scored
from benchmarks import lora_floods_rows as rows
from benchmarks.lora_floods_runs import SEEN, STUDIES, WAYS, every


def scored(*events: str) -> Scored:
    """Squares of ten pixels: of flood four at 0.4 and one at 0.1, of dry ground five at 0.2."""
    levels = np.zeros((len(events), 2, LEVELS + 1), np.int32)
    levels[:, 1, [100, 25]], levels[:, 0, 50] = (4, 1), 5
    return Scored(tuple(map(str, range(len(events)))), events, np.tile([0, 0, 5, 5], (len(events), 1)), levels)


def test_a_threshold_is_chosen_where_it_marks_best() -> None:
    threshold = rows._threshold(scored("C"))
    assert threshold is not None
    assert 50 < threshold <= 100
    found = dict(rows._of(scored("C", f"{SEEN}D"), rows.REGIONS[0], threshold))
    assert list(found) == ["C"]
    assert found["C"].counts == Counts(0, 0, 5, 5)
    assert found["C"].tuned == Counts(4, 0, 1, 5)
    assert list(dict(rows._of(scored("C", f"{SEEN}D"), rows.REGIONS[1], threshold))) == ["D"]
    one_class = scored("C")
    one_class.levels[:, 1] = 0
    assert rows._threshold(one_class) is None


def of(aps: list[float], seed: int = 0) -> dict[rows.Key, rows.Group]:
    return {(seed, ("fold",), f"g{k}"): rows.Group(ap, Counts(1, 1, 1, 1), Counts(1, 1, 1, 1)) for k, ap in enumerate(aps)}


def test_ways_are_compared_group_by_group_on_trainings_that_both_have() -> None:
    base = [0.1 * k for k in range(8)]
    better = of([ap + 0.05 + 0.001 * k for k, ap in enumerate(base)]) | of([0.0] * 8, seed=1)
    gain, low, high, p = rows.compared(better, of(base))
    assert gain == pytest.approx(0.0535)
    assert low < gain < high
    assert p == 1 / 2**8
    assert rows.compared(of(base[:6]), of(base[:6]))[3] is None  # six can never reach 0.01


def test_holm_is_over_the_rows_of_one_table() -> None:
    def line(way: str, p: float | None) -> rows.Line:
        return rows.Line("S", "held out", "vit", way, 1, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, p)

    found = rows._adjusted([line("lora-4", 0.01), line("lora-16", 0.02), line(rows.EVERYTHING, 0.001), line("frozen", None)])
    assert [one.frozen_p_holm for one in found] == [0.02, 0.02, None, None]


def test_every_group_is_held_out_once_and_no_encoder_learned_from_it() -> None:
    for study in STUDIES.values():
        held = [group for fold in study.folds for group in fold]
        assert len(held) == len({*held})
        assert all(way in WAYS for ways in study.ways.values() for way in ways)
    assert len({*every([0, 1], ["OMBRIA"])}) == 2 * 6 * (8 + 6)
