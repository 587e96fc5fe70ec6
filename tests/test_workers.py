"""Units of work in two processes of Dask: results in order, errors as they are, and what a dead worker had is done anew."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aftermap import workers as door
from aftermap.errors import JobInterruptedError, UnknownNameError, UsageError
from aftermap.workers import Workers, here, workers

pytest.importorskip("distributed", reason="distributed is not installed")


@pytest.fixture(scope="module")
def two() -> Iterator[Workers]:
    """Two processes."""
    with workers(2) as crew:
        yield crew


def told(number: int, folder: Path) -> tuple[int, int]:
    """Of a unit, its number and its process; the first that does number 3 dies of it."""
    died = folder / "died"
    if number == 3 and not died.exists():
        died.touch()
        os._exit(1)
    if number < 0:
        raise UnknownNameError("unit", str(number), ["3"])
    return number, os.getpid()


def test_units_come_back_in_order_though_a_worker_dies(two: Workers, tmp_path: Path) -> None:
    found = [*two(told, [(number, tmp_path) for number in range(8)])]
    assert [number for number, _ in found] == [*range(8)]
    assert (tmp_path / "died").exists()
    assert os.getpid() not in {process for _, process in found}
    (tmp_path / "died").touch()
    assert [*here(told, [(3, tmp_path)])] == [(3, os.getpid())]


def test_an_error_comes_back_as_it_was(two: Workers, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError) as refused:
        _ = [*two(told, [(-1, tmp_path)])]
    assert (refused.value.code, refused.value.repair) == ("unknown-unit", "known: 3")
    again = pickle.loads(pickle.dumps(refused.value))
    assert (str(again), again.code, again.exit_code) == (str(refused.value), "unknown-unit", 2)


def test_no_more_is_handed_out_than_workers_need(two: Workers, tmp_path: Path) -> None:
    (tmp_path / "died").touch()
    begun: list[int] = []

    def units() -> Iterator[tuple[int, Path]]:
        for number in range(60):
            begun.append(number)
            yield number, tmp_path

    found = two(told, units(), ordered=False)
    numbers = [next(found)[0]]
    assert len(begun) <= 2 * door.AHEAD + 1
    numbers += [number for number, _ in found]
    assert sorted(numbers) == [*range(60)]
    assert len(begun) == 60


class Unreadable:
    """Of a library that is missing where it arrives."""

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return int, ("not a number",)


def test_a_unit_that_cannot_be_read_is_refused(two: Workers, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        _ = [*two(told, [(Unreadable(), tmp_path)])]
    assert refused.value.code == "workers-differ"


def killing(_: int) -> None:
    os._exit(1)


def test_a_unit_that_kills_every_worker_is_given_up(two: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "DEATHS", 2)
    with pytest.raises(JobInterruptedError) as told:
        _ = [*two(killing, [(0,)])]
    assert (told.value.code, told.value.exit_code) == ("workers-lost", 5)


def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for count, cluster, code in ((1, "tcp://127.0.0.1:1", "usage"), (0, "nowhere://", "no-cluster")):
        with pytest.raises(UsageError) as refused, workers(count, cluster):
            pass
        assert refused.value.code == code
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match=r"aftermap\[cloud\]") as lacking, workers(1):
        pass
    assert lacking.value.code == "extra-missing"
    with workers() as crew:
        assert crew is here
