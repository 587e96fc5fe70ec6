"""What happens to a run in benchmarks/soak.py, one function a kind, and what is promised of each."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.conftest import flood_pair, grid, write
from tests.faults.rig import SHAPE, Rig, said

Rng = np.random.Generator
Result = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Happened:
    """Of one kind: how the run ended (its exit code, and the code it said), whether it felt anything, and which promise broke."""

    kind: str
    how: str
    effect: bool
    broken: str = ""


def _judged(kind: str, rig: Rig, out: Path, run: Callable[[], Result], allowed: Mapping[int, tuple[str, ...]]) -> Happened:
    """A run that something happens to, judged: one of the `allowed` exit codes with one of its codes, no wrong map, no traceback,
    0 only with a map; and the same command ends with the right one."""
    how = "?"
    try:
        result = run()
        code = said(result)
        how = f"{result.returncode}{f' {code}' if code else ''}"
        ok = result.returncode == 0 or code in allowed.get(result.returncode, ())
        broken = "" if ok else f"ended with {how}: {result.stderr[-300:]}"
        if rig.refuse_wrong(out) != (result.returncode == 0) and result.returncode == 0:
            broken = "exit code 0 and no map"
        return _repeated(Happened(kind, how, result.returncode != 0, broken), rig, out)
    except subprocess.TimeoutExpired:
        return Happened(kind, how, True, "no answer: it hangs")
    except AssertionError as error:
        words = str(error)
        return Happened(kind, how, True, f"Traceback {words[-300:]}" if "Traceback" in words else f"delivered {words[:300]}")


def _repeated(happened: Happened, rig: Rig, out: Path) -> Happened:
    """The same command once more, in a process to which nothing happens."""
    result = rig.disturbed(out, {})
    if result.returncode or not rig.refuse_wrong(out):
        words = f"{happened.broken} repeated: {result.returncode} {result.stderr[-300:]}"
        return Happened(happened.kind, happened.how, happened.effect, words)
    return happened


def _at(rng: Rng) -> dict[str, Any]:
    return {"at": int(rng.integers(1, 11)), "delay": float(rng.uniform(0, 0.3))}


def killed(rig: Rig, out: Path, rng: Rng) -> Happened:
    """SIGKILL at a random moment."""
    return _judged("killed", rig, out, lambda: rig.disturbed(out, {"signal": "SIGKILL", **_at(rng)}), {-9: ("",)})


def stopped(rig: Rig, out: Path, rng: Rng) -> Happened:
    """SIGTERM at a random moment."""
    allowed = {5: ("interrupted",), -15: ("",)}
    return _judged("stopped", rig, out, lambda: rig.disturbed(out, {"signal": "SIGTERM", **_at(rng)}), allowed)


def small_files(rig: Rig, out: Path, rng: Rng) -> Happened:
    """No file may grow beyond some bytes."""
    size = int(rng.integers(0, 230_000))
    return _judged("file size limit", rig, out, lambda: rig.disturbed(out, {"file_size": size}), {5: ("disk",)})


def small_disk(rig: Rig, out: Path, rng: Rng) -> Happened:
    """A disk that is full somewhere along the way, and is then enlarged; where nobody may mount one, a limit of file sizes."""
    size, disk = int(rng.integers(4, 600)), out
    disk.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", disk], check=False).returncode:
        return small_files(rig, out / "map", rng)

    def run() -> Result:
        result = rig.disturbed(disk / "map", {})
        subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
        return result

    try:
        return _judged("full disk", rig, disk / "map", run, {5: ("disk",), 2: ("unwritable",)})
    finally:
        subprocess.run(["umount", disk], check=True)


def no_memory(rig: Rig, out: Path, rng: Rng) -> Happened:
    """No more than a few MB of address space from some moment on. Libraries may end a process there on the spot."""
    fault = {"at": int(rng.integers(1, 9)), "room": int(rng.integers(1, 12)) << 20}
    allowed = {5: ("out-of-memory", "disk"), 3: ("unreadable-window",), -6: ("",), -11: ("",)}
    return _judged("no memory", rig, out, lambda: rig.disturbed(out, fault), allowed)


def _once_begun(out: Path, rng: Rng) -> None:
    """Waits until a run has the hashes of its inputs, and up to a second more."""
    until = time.monotonic() + 60
    while time.monotonic() < until and not (out / ".work" / "job.json").exists():
        time.sleep(0.01)
    time.sleep(float(rng.uniform(0, 1)))


def replaced(rig: Rig, out: Path, rng: Rng) -> Happened:
    """An image is replaced by another one while it is mapped, and put back before the command is repeated."""
    out.mkdir(parents=True)
    for path in rig.files.values():
        shutil.copy2(path, out / path.name)
    own, path = Rig(out, rig.expected), out / "after.tif"
    other = write(out / "other.tif", flood_pair(SHAPE, 7)[1], grid(SHAPE), ("VV", "VH"), unit="dB", nodata=float("nan"))

    def replace() -> None:
        _once_begun(out / "map", rng)
        os.replace(other, path)

    def run() -> Result:
        thread = threading.Thread(target=replace)
        thread.start()
        result = own.disturbed(out / "map", {})
        thread.join()
        shutil.copy2(rig.files["after"], path)
        return result

    return _judged("input replaced", own, out / "map", run, {3: ("input-changed",)})


def taken_away(rig: Rig, out: Path, rng: Rng) -> Happened:
    """The folder vanishes."""

    def take_away() -> None:
        _once_begun(out, rng)
        shutil.rmtree(out, ignore_errors=True)

    def run() -> Result:
        thread = threading.Thread(target=take_away)
        thread.start()
        result = rig.disturbed(out, {})
        thread.join()
        return result

    # A map that was whole before it vanished is none of the run's failures.
    happened = _judged("folder taken away", rig, out, run, {5: ("disk",), 2: ("unwritable",)})
    gone = happened.broken == "exit code 0 and no map"
    return Happened(happened.kind, "0, then gone", True) if gone else happened


def two_at_once(rig: Rig, out: Path, rng: Rng) -> Happened:
    """Two runs into one folder: one maps, the other refuses or finds the map made."""
    second: list[Result] = []

    def run() -> Result:
        thread = threading.Thread(target=lambda: second.append(rig.disturbed(out, {})))
        thread.start()
        time.sleep(float(rng.uniform(0, 1)))
        first = rig.disturbed(out, {})
        thread.join()
        return max(first, second[0], key=lambda result: result.returncode)

    return _judged("two at once", rig, out, run, {2: ("busy",)})


def nothing(rig: Rig, out: Path, rng: Rng) -> Happened:
    """No fault: the map is right."""
    return _judged("nothing", rig, out, lambda: rig.disturbed(out, {}), {})


KINDS: tuple[tuple[str, Callable[[Rig, Path, Rng], Happened]], ...] = (
    ("killed", killed), ("stopped", stopped), ("file size limit", small_files), ("full disk", small_disk),
    ("no memory", no_memory), ("input replaced", replaced), ("folder taken away", taken_away), ("two at once", two_at_once),
    ("nothing", nothing),
)  # fmt: skip
