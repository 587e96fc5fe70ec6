"""Killed at any moment, the same command ends with byte-identical products; finished windows are not scored twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import aftermap as am
from aftermap import journal, pieces
from aftermap.errors import JobInterruptedError
from aftermap.journal import Journal

SHAPE = (1300, 1100)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    pieces.load("simulate", "flood")(folder, size=1100, seed=5)
    return folder


def command(scene: Path, out: Path) -> list[str]:
    files = ["--after", str(scene / "after.tif"), "--before", str(scene / "before.tif")]
    small = ["--memory", "430", "--keep-scores", "--quiet"]  # several blocks even of a small scene
    return [sys.executable, "-m", "aftermap", "map", *files, "--hazard", "flood", "-o", str(out), *small]


def products(out: Path) -> dict[str, str]:
    return {str(p.relative_to(out)): journal.sha256(p) for p in sorted(out.rglob("*")) if p.is_file() and p.name != "log.json"}


@pytest.fixture(scope="module")
def undisturbed(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], float]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    started = time.monotonic()
    subprocess.run(command(scene, out), check=True)
    return products(out), time.monotonic() - started


def killed_then_rerun(scene: Path, out: Path, after_s: float) -> bool:
    """True when the kill came before the end."""
    process = subprocess.Popen(command(scene, out), stdout=subprocess.DEVNULL)
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.kill()
    killed = process.wait() == -signal.SIGKILL
    subprocess.run(command(scene, out), check=True, stdout=subprocess.DEVNULL)
    return killed


@pytest.mark.parametrize("moment", [0.45, 0.7, 0.9])
def test_killed_and_rerun_is_byte_identical(
    scene: Path, undisturbed: tuple[dict[str, str], float], tmp_path: Path, moment: float
) -> None:
    expected, seconds = undisturbed
    killed_then_rerun(scene, tmp_path / "out", moment * seconds)
    assert products(tmp_path / "out") == expected


@pytest.mark.full
def test_killed_at_20_random_moments(scene: Path, undisturbed: tuple[dict[str, str], float], tmp_path: Path) -> None:
    expected, seconds = undisturbed
    rng = np.random.default_rng(20)
    killed = 0
    for k, moment in enumerate(rng.uniform(0.05, 0.8, 20)):
        killed += killed_then_rerun(scene, tmp_path / str(k), moment * seconds)
        assert products(tmp_path / str(k)) == expected
    assert killed >= 10


def test_interrupted_keeps_windows_and_resumes_without_repeating(scene: Path, tmp_path: Path) -> None:
    options = am.Options(memory_mb=420)
    seen: list[int] = []

    def stop(stage: str, done: int, whole: int) -> None:
        if stage == "map" and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(JobInterruptedError, match="interrupted"):
        am.map(scene / "after.tif", scene / "before.tif", out=tmp_path / "out", options=options, progress=stop)
    assert not (tmp_path / "out" / journal.SEAL).exists()
    log = Journal(tmp_path / "out", "")
    finished = log.done()
    assert 1 <= len(finished) <= 3

    def watch(stage: str, done: int, whole: int) -> None:
        if stage == "map":
            seen.append(done)

    am.map(scene / "after.tif", scene / "before.tif", out=tmp_path / "out", options=options, progress=watch)
    assert seen[0] == len(finished)


def test_a_damaged_window_is_made_again(scene: Path, tmp_path: Path) -> None:
    options = am.Options(memory_mb=420)

    def stop(stage: str, done: int, whole: int) -> None:
        if stage == "deliver":
            raise KeyboardInterrupt

    with pytest.raises(JobInterruptedError):
        am.map(scene / "after.tif", scene / "before.tif", out=tmp_path / "out", options=options, progress=stop)
    log = Journal(tmp_path / "out", "")
    before = log.done()
    victim = log.part(f"{sorted(before)[0]}.tif")
    victim.write_bytes(victim.read_bytes()[:-7])
    assert log.done() == before - {sorted(before)[0]}
    whole = am.map(scene / "after.tif", scene / "before.tif", out=tmp_path / "whole", options=options)
    mended = am.map(scene / "after.tif", scene / "before.tif", out=tmp_path / "out", options=options)
    assert products(mended.folder) == products(whole.folder)


def test_a_torn_journal_line_is_ignored(tmp_path: Path) -> None:
    with Journal(tmp_path / "out", "key") as log:
        log.open(overwrite=False)
        part = journal.partial(log.work, "one.tif")
        part.write_bytes(b"pixels")
        log.note(journal.settle(log.work, "one", {"one.tif": part}))
    with (log.work / "windows.jsonl").open("a") as stream:
        stream.write('{"window": "two", "fil')
    assert log.done() == {"one"}


def test_a_finished_job_is_not_run_again(scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    am.map(scene / "after.tif", scene / "before.tif", out=out)
    times = {p: os.stat(p).st_mtime_ns for p in out.iterdir()}
    assert am.map(scene / "after.tif", scene / "before.tif", out=out).answer == "found"
    assert {p: os.stat(p).st_mtime_ns for p in out.iterdir()} == times
