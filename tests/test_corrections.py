"""The log of corrections: only grows, folds to what stands, tells who contradicted whom, and loses nothing when two write."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftermap import corrections, features, vector
from aftermap.corrections import DELETED, FILE, HAZARD, LABELS, LAYER, NOT_HAZARD, STANDING, UNDONE, Log, Said, append, read
from aftermap.errors import InputRefusedError, UsageError
from aftermap.journal import held
from aftermap.tiles import Window
from tests.conftest import grid

ON = grid((60, 90))
WHOLE = Window(0, 0, 60, 90)
NOW = "2026-01-02T03:04:05Z"


def box(row: int = 10, col: int = 20, height: int = 10, width: int = 15, on: Any = ON) -> Any:
    return vector.boxes(np.array([[col, row]]), np.array([[col + width, row + height]]), on.affine)[0]


def label(kind: str = HAZARD, author: str = "Anna", seen: int = 0, shape: Any = None) -> Said:
    return Said(kind, author, seen, box() if shape is None else shape)


def test_nothing_that_was_said_is_changed(tmp_path: Path) -> None:
    first = append(tmp_path, ON, label()).rows[0]
    append(tmp_path, ON, label(NOT_HAZARD, "Ben", 1, box(30)))
    append(tmp_path, ON, Said(DELETED, "Ben", 2, takes_back=first.id))
    log = append(tmp_path, ON, Said(UNDONE, "Ben", 3))
    again = read(tmp_path / FILE, ON)
    assert [(r.revision, r.kind, r.author, r.takes_back) for r in again.rows] == [
        (1, HAZARD, "Anna", ""), (2, NOT_HAZARD, "Ben", ""), (3, DELETED, "Ben", first.id), (4, UNDONE, "Ben", log.rows[2].id)
    ]  # fmt: skip
    assert again.rows[0].id == first.id
    assert again.rows[0].time == first.time
    assert again.rows[0].shape.equals(box())
    assert [row.id for row in again.standing] == [row.id for row in again.rows[:2]]
    assert {LAYER, STANDING} <= set(features.layers(tmp_path / FILE))
    assert len(features.table(tmp_path / FILE, STANDING)[0]) == 2


def test_undo_takes_back_ones_own_last_and_no_undo(tmp_path: Path) -> None:
    append(tmp_path, ON, label())
    append(tmp_path, ON, label(author="Ben", seen=1, shape=box(40)))
    log = append(tmp_path, ON, Said(UNDONE, "Anna", 2))
    assert [row.author for row in log.standing] == ["Ben"]
    with pytest.raises(InputRefusedError, match="left to undo"):
        append(tmp_path, ON, Said(UNDONE, "Anna", 3))
    assert len(read(tmp_path / FILE, ON).rows) == 3


def test_two_who_did_not_see_each_other_are_told_and_both_kept(tmp_path: Path) -> None:
    append(tmp_path, ON, label())
    log = append(tmp_path, ON, label(NOT_HAZARD, "Ben", 0, box(15)))
    ((earlier, later),) = log.open
    assert (earlier.author, later.author) == ("Anna", "Ben")
    assert "Anna: hazard" in log.open[0].words
    truth = corrections.truth(log.standing, log.open, ON, WHOLE)
    assert set(truth[15:20, 20:35].ravel()) == {255}  # neither holds where they contradict
    assert set(truth[10:15, 20:35].ravel()) == {1}
    assert set(truth[20:25, 20:35].ravel()) == {0}
    assert append(tmp_path, ON, Said(DELETED, "Anna", 2, takes_back=later.id)).open == []


def test_whoever_saw_the_other_corrects_and_contradicts_nobody() -> None:
    log = Log().with_one(label(), NOW).with_one(label(NOT_HAZARD, "Ben", 1), NOW)
    assert log.conflicts == []
    assert set(corrections.truth(log.standing, log.open, ON, WHOLE)[10:20, 20:35].ravel()) == {0}


@pytest.mark.parametrize(("kind", "shape"), [(HAZARD, box()), (NOT_HAZARD, box(40))], ids=["same words", "elsewhere"])
def test_agreement_and_other_ground_are_no_conflict(kind: str, shape: Any) -> None:
    assert Log().with_one(label(), NOW).with_one(label(kind, "Ben", 0, shape), NOW).conflicts == []


def test_both_may_delete_the_same_and_the_second_is_told() -> None:
    log = Log().with_one(label(), NOW)
    for author in ("Anna", "Ben"):
        log = log.with_one(Said(DELETED, author, 1, takes_back=log.rows[0].id), NOW)
    assert len(log.conflicts) == 1
    assert log.open == []
    assert log.standing == []
    assert log.with_one(Said(UNDONE, "Ben", 3), NOW).standing == []  # Anna still wants it gone
    with pytest.raises(InputRefusedError, match="no such correction"):
        log.with_one(Said(DELETED, "Cleo", 3, takes_back=log.rows[0].id), NOW)


ACTS = st.lists(
    st.tuples(st.sampled_from([*LABELS, DELETED, UNDONE]), st.sampled_from(["Anna", "Ben", "Cleo"]), st.integers(0, 30))
)


@given(ACTS)
def test_whatever_is_said_the_log_grows_and_folds(acts: list[tuple[str, str, int]]) -> None:
    """Rows stay as they were; a row is live as long as no live row takes it back; what a person undoes is gone again."""
    log = Log()
    for kind, author, number in acts:
        own = [row for row in log.rows if row.kind in LABELS]
        said = Said(kind, author, min(number, len(log.rows)), box(number), own[number % len(own)].id if own else "")
        before = log
        try:
            log = before.with_one(said, NOW)
        except InputRefusedError:
            continue
        assert log.rows[:-1] == before.rows
        takers = {row.takes_back for row in log.rows if row.id in log.live}
        assert all((row.id in log.live) != (row.id in takers) for row in log.rows)
        if kind == UNDONE:
            target = next(row for row in log.rows if row.id == log.rows[-1].takes_back)
            assert target.author == author
            assert target.id not in log.live
    assert {row.id for pair in log.open for row in pair} <= {row.id for row in log.standing}


def test_two_processes_and_threads_at_once_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.test_corrections import *\n"
        "for k in range(6): append(Path(sys.argv[1]), ON, label(author=sys.argv[2], shape=box(k)))"
    )
    others = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), f"process {n}"]) for n in range(2)]

    def write(name: str) -> None:
        for k in range(6):
            append(tmp_path, ON, label(author=name, shape=box(k)))

    threads = [threading.Thread(target=write, args=(f"thread {n}",)) for n in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert [one.wait(60) for one in others] == [0, 0]
    log = read(tmp_path / FILE, ON)
    assert sorted({row.author: 0 for row in log.rows}) == ["process 0", "process 1", "thread 0", "thread 1"]
    assert len(log.rows) == len({row.id for row in log.rows}) == 24
    assert sorted(p.name for p in tmp_path.iterdir()) == [corrections.LOCK, FILE]


def test_who_waits_too_long_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corrections, "WAIT_S", 0.05)
    with held(tmp_path / corrections.LOCK, 1), pytest.raises(UsageError) as busy:
        append(tmp_path, ON, label())
    assert busy.value.code == "busy"


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(tmp_path, ON, label())
    before = (tmp_path / FILE).read_bytes()

    def broken(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", broken)
    with pytest.raises(OSError, match="disk full"):
        append(tmp_path, ON, label(seen=1))
    assert (tmp_path / FILE).read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [corrections.LOCK, FILE]


@pytest.mark.parametrize(
    "said",
    [
        label(author=""), label(author="  "), label(author="x" * 61), label(author="a\x00b"), label(author="a\u202eb"),
        label(seen=1), label(seen=-1), label(shape=box(200, 200)), label(shape=vector.from_wkt("POLYGON EMPTY")),
        label(shape=box(10, 10, 0, 0)), Said(DELETED, "Anna", 0, takes_back="'; DROP TABLE x; --"), Said("perhaps", "Anna", 0),
        label(shape=vector.from_wkt("POLYGON((420000 5350000, 420100 5349900, 420100 5350000, 420000 5349900, 420000 5350000))")),
    ],
    ids=lambda said: f"{said.kind} {said.author[:3]!r} {said.seen}",
)  # fmt: skip
def test_what_cannot_be_is_refused(tmp_path: Path, said: Said) -> None:
    with pytest.raises(InputRefusedError) as refused:
        append(tmp_path, ON, said)
    assert refused.value.code == "correction-invalid"
    assert refused.value.repair
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize("author", ["<script>alert(1)</script>", "'; DROP TABLE x; --", "Ünï 名前 🌊", "../../etc/passwd"])
def test_a_name_is_only_a_name(tmp_path: Path, author: str) -> None:
    append(tmp_path, ON, label(author=author))
    assert read(tmp_path / FILE, ON).rows[0].author == author


def test_a_log_is_full_at_some_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corrections, "MOST", 1)
    append(tmp_path, ON, label())
    with pytest.raises(InputRefusedError) as full:
        append(tmp_path, ON, label(seen=1))
    assert full.value.code == "corrections-full"


@pytest.mark.parametrize("harm", ["a row removed", "another kind", "other layers", "no file"])
def test_what_is_no_log_any_more_is_refused(tmp_path: Path, harm: str) -> None:
    for k in range(2):
        append(tmp_path, ON, label(seen=k))
    if harm == "no file":
        (tmp_path / FILE).unlink()
    elif harm == "other layers":
        with vector.GeoPackageWriter(tmp_path / FILE, ON, [vector.Layer("mine", "Polygon", {"a": "text"})]) as out:
            out.write("mine", [box()], {"a": ["b"]})
    else:
        broken = Log(read(tmp_path / FILE, ON).rows[1:] if harm == "a row removed" else _unkind(read(tmp_path / FILE, ON)))
        corrections._write(tmp_path / FILE, ON, broken)
    with pytest.raises(InputRefusedError) as refused:
        read(tmp_path / FILE, ON)
    assert refused.value.code == ("missing-file" if harm == "no file" else "corrections-invalid")


def _unkind(log: Log) -> tuple[corrections.Correction, ...]:
    from dataclasses import replace

    return (replace(log.rows[0], kind="maybe"), log.rows[1])


@pytest.mark.parametrize("crs", [None, "EPSG:4326"])
def test_it_is_of_the_map_wherever_that_is(tmp_path: Path, crs: str | None) -> None:
    on = grid((60, 90), crs=crs, gsd=0.001, origin=(10, 50))
    append(tmp_path, on, label(shape=box(on=on)))
    truth = corrections.truth(read(tmp_path / FILE, on).standing, [], on, WHOLE)
    assert np.array_equal(truth == 1, np.pad(np.ones((10, 15), bool), ((10, 40), (20, 55))))
    elsewhere = grid((60, 90), crs="EPSG:32632" if crs else UTM)
    if crs is None:
        with pytest.raises(InputRefusedError) as refused:
            read(tmp_path / FILE, elsewhere)
        assert refused.value.code == "vector-without-crs"


UTM = "EPSG:32633"
