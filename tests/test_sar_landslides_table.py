"""The numbers of the landslide study, worked by hand (methods.md B.5)."""

from __future__ import annotations

import numpy as np
import pytest

from aftermap.scored import Scored
from benchmarks.sar_landslides_table import Mapped, Truth, claim, classical, line, nothing

NAMES = tuple(f"hill_{row:06d}_{col:06d}@0,0" for row in (0, 64, 512) for col in (0, 1024))
"""Six chips; two of them lie in one block of ground."""


def truth() -> Truth:
    """The first two chips hold 4 and 2 pixels of landslide of 16; of the last only three quarters are known."""
    hazard, known = np.zeros((6, 4, 4), bool), np.ones((6, 4, 4), bool)
    hazard[0, 0], hazard[1, 1, :2], known[5, 3] = True, True, False
    return Truth(NAMES, hazard, known)


def mapped(*marked: int) -> Mapped:
    """Two seeds of two checkpoints, all sure of themselves; of each chip the first so many pixels."""
    logits = np.full((6, 16), -20.0, np.float32)
    for chip, count in enumerate(marked):
        logits[chip, :count] = 20
    return Mapped(truth(), np.broadcast_to(logits.reshape(6, 4, 4), (2, 2, 6, 4, 4)).copy())


def test_counts_are_medians_over_chips() -> None:
    found = line("s", "same", 20, mapped(4, 0, 3, 1, 0, 16))
    assert (found.seeds, found.test_chips, found.chips) == (2, 6, 20)
    # mapped - true: 0, -2, 3, 1, 0, 12 (of the last chip the known pixels alone)
    assert found.l1 == 1.5
    assert found.l1_mean == 3
    assert found.count_hazard == -1
    assert found.count_free == 2
    assert found.false_per_free_chip == 4
    assert found.l1_soft == pytest.approx(1.5, abs=1e-6)
    # 20 pixels are marked, 4 of the 6 true ones among them, all of one score; then all others
    assert found.ap == pytest.approx(4 / 6 * 4 / 20 + 2 / 6 * 6 / 92)
    assert found.ap_error == 0


def test_a_map_of_nothing_counts_what_there_is() -> None:
    found = nothing("s", truth())
    assert (found.l1, found.l1_mean, found.count_hazard, found.count_free) == (0, 1, -3, 0)
    assert found.ap == found.prevalence == pytest.approx(6 / 92)


def test_logits_are_meaned_not_probabilities() -> None:
    one = mapped(0, 0, 0, 0, 0, 0)
    logits = one.logits.copy()
    logits[0, 0], logits[0, 1], logits[1] = 9, -1, -1
    assert (Mapped(one.truth, logits).together == 1.5).all()


def test_blocks_of_ground_hold_their_chips() -> None:
    assert sorted(len(own) for own in truth().blocks) == [1, 1, 2, 2]
    assert len(Truth(("a_1@0,0", "a_1@0,64", "b_1@0,0"), np.zeros((3, 2, 2), bool), np.ones((3, 2, 2), bool)).blocks) == 2


def test_a_claim_is_less_false_area_and_more_precision() -> None:
    better, worse = mapped(4, 2, 0, 0, 0, 0), mapped(4, 2, 5, 5, 5, 5)
    found = claim("s", "same", "random", 20, better, worse)
    assert found.false_pixels == -5
    assert found.false_high <= -4
    assert found.ap > 0
    assert found.p is None, "four free chips can never reach the level"


def test_whole_pictures_are_ranked_but_not_counted() -> None:
    levels = np.zeros((2, 2, 251), np.int32)
    levels[:, 0, 0], levels[0, 1, 250] = 10, 5
    each = Scored(("a", "b"), ("e", "e"), np.array([[5, 0, 0, 10], [0, 0, 0, 10]]), levels)
    assert classical("s", each, "index", 2).l1 == 0
    other = classical("s", each, "index", 8)
    assert (other.l1, other.ap) == (None, 1)
