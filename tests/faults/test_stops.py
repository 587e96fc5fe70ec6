"""Killed, stopped, its folder taken away or its clock turned: nothing wrong is delivered, and the same command ends as ever."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aftermap import pictured
from aftermap.errors import JobInterruptedError, UsageError
from aftermap.journal import SEAL, Journal
from tests.faults.rig import Rig, said

MANY = 12
LAST, YEAR_S = 10, 3.2e7
"""Words of progress that a run says at least; and a jump of the clock."""


def stopped(rig: Rig, out: Path, seed: int, name: str) -> bool:
    """One process that gets a signal at a random moment; True where that came before its end."""
    rng = np.random.default_rng(seed)
    result = rig.disturbed(out, {"at": int(rng.integers(1, LAST)), "signal": name, "delay": float(rng.uniform(0, 0.2))})
    code = said(result)
    delivered = rig.refuse_wrong(out)
    if result.returncode == 0:
        assert delivered
    elif name == "SIGTERM":
        assert (result.returncode, code) in ((5, "interrupted"), (-signal.SIGTERM, ""))
    else:
        assert result.returncode == -signal.SIGKILL
    rig.resume(out)
    return result.returncode != 0


def test_stopped_at_a_random_moment(rig: Rig, tmp_path: Path) -> None:
    """By a word; tests/test_resume.py has processes that are killed."""
    assert stopped(rig, tmp_path / "out", 1, "SIGTERM")


@pytest.mark.full
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_stopped_at_many_random_moments(rig: Rig, tmp_path: Path, name: str) -> None:
    assert sum(stopped(rig, tmp_path / str(seed), seed, name) for seed in range(100, 100 + MANY)) > MANY / 2


def test_stopped_again_and_again_in_one_folder(rig: Rig, tmp_path: Path) -> None:
    """Interrupted after each word of progress in turn: every run gets a little farther than the last."""
    for stop in range(1, 6):
        seen = iter(range(1, 1000))

        def interrupt(*_: object, stop: int = stop, seen: object = seen) -> None:
            if next(seen) == stop:  # type: ignore[call-overload]
                raise KeyboardInterrupt

        with pytest.raises(JobInterruptedError):
            rig.map(tmp_path / "out", progress=interrupt)
        assert not (tmp_path / "out" / SEAL).exists()
    rig.resume(tmp_path / "out")


@pytest.mark.parametrize(("stage", "word"), [("map", 1), ("deliver", 1), ("deliver", 2)])
def test_a_folder_that_vanishes(rig: Rig, tmp_path: Path, stage: str, word: int) -> None:
    out = tmp_path / "out"

    def take_away(now: str, done: int, whole: int) -> None:
        if now == stage and done == word:
            shutil.rmtree(out)

    with pytest.raises(JobInterruptedError) as told:
        rig.map(out, progress=take_away)
    assert told.value.code == "disk"
    rig.resume(out)


@pytest.mark.parametrize("name", ["run.json", "likelihood.tif"])
def test_a_product_that_vanishes_is_no_fault_of_an_input(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """While the report is written, or once all is delivered and before anybody looks: found by the soak."""
    out, made, delivered = tmp_path / "out", pictured.pictured, Journal.deliver

    def before(scene: Any, stage: Path, run: Any) -> Any:
        (stage / name).unlink()
        return made(scene, stage, run)

    def afterwards(self: Journal, **how: Any) -> None:
        delivered(self, **how)
        (out / name).unlink()

    if name == "likelihood.tif":
        monkeypatch.setattr("aftermap.deliver.pictured", before)
    else:
        monkeypatch.setattr(Journal, "deliver", afterwards)
    with pytest.raises(JobInterruptedError) as told:
        rig.map(out)
    assert told.value.code == "disk"
    monkeypatch.undo()
    shutil.rmtree(out)
    rig.resume(out)


def test_a_read_only_disk(rig: Rig, tmp_path: Path) -> None:
    """Mounted so, for a superuser writes whatever the mode of a folder."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", disk], check=False, capture_output=True).returncode:
        disk.chmod(0o555)
    try:
        with pytest.raises(UsageError) as told:
            rig.map(disk / "map")
        assert told.value.code == "unwritable"
    finally:
        subprocess.run(["umount", disk], check=False, capture_output=True)


def test_the_clock_may_jump(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a year to and fro at every look at it: no lock, journal or product goes by it."""
    looks, true = iter(range(1000)), time.time
    monkeypatch.setattr(time, "time", lambda: true() + YEAR_S * (-1) ** next(looks))
    rig.map(tmp_path / "out")
    assert next(looks) > 2
    assert rig.refuse_wrong(tmp_path / "out")
    times = {p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    for path in (tmp_path / "out").iterdir():
        os.utime(path, (0, 0))
    rig.map(tmp_path / "out")
    assert times.isdisjoint(p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()), "not made again"


@pytest.mark.full
def test_two_at_once_in_one_folder(rig: Rig, tmp_path: Path) -> None:
    """One of them maps; the other refuses, or finds the map made."""
    results: list[subprocess.CompletedProcess[str]] = []
    both = [threading.Thread(target=lambda: results.append(rig.disturbed(tmp_path / "out", {}))) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert sorted((r.returncode, said(r)) for r in results) in ([(0, ""), (0, "")], [(0, ""), (2, "busy")])
    assert rig.refuse_wrong(tmp_path / "out")
