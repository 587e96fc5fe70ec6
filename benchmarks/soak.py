"""Mapping in a loop to which things happen: every promise of docs/faults.md checked, and what a process holds measured.

    python -m benchmarks.soak                 an hour; `make soak`
    python -m benchmarks.soak --minutes 5 --seed 7

Each round does something to a run of the command line (soak_faults.py), checks what is promised, and lets the same command end.
Beside them one long-lived process maps, is interrupted, resumes and finds maps made, as a watch does for days; its memory and
open files are sampled after each round and a line is fitted. Writes results/soak.md. Exits with 1 where a promise was broken, or
that process grows.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from itertools import count
from pathlib import Path

import click
import numpy as np
from scipy import stats

from aftermap import card
from aftermap.errors import JobInterruptedError
from benchmarks.soak_faults import KINDS, Happened
from tests.faults import rig as rigs

RESULTS = Path(__file__).parent / "results" / "soak.md"
SETTLED = 1 / 3
"""Share of the first rounds that is not fitted: libraries are loaded, caches filled and the heap has found its shape."""
MOST_KB = 20.0
"""Kilobytes a round by which memory may grow at the most, by the upper end of the interval."""


@dataclass
class Held:
    """What the process that lives on held after each of its rounds."""

    memory_kb: list[float] = field(default_factory=list)
    files: list[float] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Held:
        """As the process wrote it, a line a round."""
        rows = [line.split() for line in path.read_text(encoding="ascii").splitlines()] if path.exists() else []
        return cls([float(memory) for memory, _ in rows], [float(files) for _, files in rows])


def sample() -> str:
    """Resident kilobytes and open files of this process, now, once the C library has given back what is free: heaps of
    many threads keep that for long, and no line through them ever comes to rest."""
    gc.collect()
    if sys.platform == "linux":
        with suppress(AttributeError):  # of glibc alone
            ctypes.CDLL(None).malloc_trim(0)
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return f"{next(line.split()[1] for line in status if line.startswith('VmRSS'))} {len(os.listdir('/proc/self/fd'))}"


@dataclass(frozen=True)
class Slope:
    """Of a line through samples: by how much each is more than the last, and its 95 % interval."""

    each: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Slope:
        """NaN of fewer than three. Neighbouring samples are alike, so that the interval is of means of 10 blocks of them."""
        settled = np.asarray(samples[int(SETTLED * len(samples)) :])
        if len(settled) and (settled == settled[0]).all():
            return cls(0.0, 0.0, 0.0)
        parts = np.array_split(settled, min(10, len(settled)))
        if len(parts) < 3:
            return cls(float("nan"), float("nan"), float("nan"))
        at = [np.mean(one) for one in np.array_split(np.arange(len(settled)), len(parts))]
        line = stats.linregress(at, [np.mean(one) for one in parts])
        half = float(line.stderr) * float(stats.t.ppf(0.975, len(parts) - 2))
        return cls(float(line.slope), float(line.slope) - half, float(line.slope) + half)

    def words(self, unit: str) -> str:
        """With its interval."""
        return f"{self.each:+.3g} {unit} a round ({self.low:+.3g} to {self.high:+.3g})"


def long_lived(rig: rigs.Rig, out: Path, rng: np.random.Generator) -> None:
    """A round of the process that lives on: interrupted at some word of progress, resumed, and found delivered."""
    stop, words = int(rng.integers(1, 12)), count(1)

    def interrupt(*_: object) -> None:
        if next(words) == stop:
            raise KeyboardInterrupt

    with suppress(JobInterruptedError):
        rig.map(out, progress=interrupt)
    rig.refuse_wrong(out)
    rig.resume(out)
    rig.resume(out)
    shutil.rmtree(out)


def _live_on(folder: Path, minutes: float, seed: int) -> None:
    """Rounds for that long, a line of `held.txt` after each; a wrong map ends it with a trace."""
    rng, rig, began = np.random.default_rng(seed), rigs.make(folder / "own-rig"), time.monotonic()
    with (folder / "held.txt").open("w", encoding="ascii") as lines:
        while time.monotonic() - began < 60 * minutes:
            long_lived(rig, folder / "own", rng)
            print(sample(), file=lines, flush=True)


def soak(folder: Path, minutes: float, seed: int) -> tuple[list[Happened], float]:
    """What happened in that time, beside a process that lives on."""
    rng, told = np.random.default_rng(seed), list[Happened]()
    rig, began = rigs.make(folder / "rig"), time.monotonic()
    own = [
        sys.executable,
        "-m",
        "benchmarks.soak",
        "--live-on",
        "--minutes",
        str(minutes),
        "--seed",
        str(seed),
        "--out",
        str(folder),
    ]
    with subprocess.Popen(own) as process:
        for number in count():
            if time.monotonic() - began > 60 * minutes:
                break
            kind, act = KINDS[number % len(KINDS)]
            happened = act(rig, folder / f"{number}-{kind}", rng)
            told.append(happened)
            click.echo(f"{number} {kind}: {happened.how}{f' BROKEN {happened.broken}' if happened.broken else ''}")
            if not happened.broken:
                shutil.rmtree(folder / f"{number}-{kind}", ignore_errors=True)
        if process.wait(rigs.NO_ANSWER_S):
            told.append(Happened("nothing", "lived on", True, "delivered wrong, or failed: the process that lives on"))
    return told, (time.monotonic() - began) / 60


def table(told: Sequence[Happened]) -> list[str]:
    """Counts by kind."""
    lines = ["| what happened | times | took effect | ended how | promise broken |", "|---|---|---|---|---|"]
    for kind, _ in KINDS:
        own = [one for one in told if one.kind == kind]
        ends = ", ".join(f"{how} {n}" for how, n in Counter(one.how for one in own).most_common())
        took, broken = sum(one.effect for one in own), sum(bool(one.broken) for one in own)
        lines.append(f"| {kind} | {len(own)} | {took} | {ends} | {broken} |")
    took, broken = sum(one.effect for one in told), sum(bool(one.broken) for one in told)
    return [*lines, f"| **all** | **{len(told)}** | **{took}** | | **{broken}** |"]


def page(told: Sequence[Happened], held: Held, minutes: float, command: str) -> list[str]:
    """The page of results."""
    memory, files = Slope.of(held.memory_kb), Slope.of(held.files)
    hung = sum("no answer" in one.broken for one in told)
    shown, zero = (sum(word in one.broken for one in told) for word in ("Traceback", "exit code 0"))
    machine = f"{platform.machine()}, {os.cpu_count()} cores shared with other work, Python {platform.python_version()}"
    last = f"{held.memory_kb[-1] / 1024:.0f} MB and {held.files[-1]:.0f} open files" if held.files else "nothing"
    return [
        "# Long runs and faults", "",
        f"{date.today()}, {machine}, `{command}`, {minutes:.0f} minutes", "",
        "What each kind is and what is promised: [Faults](../../docs/faults.md). A fault that came after the end of a run, or",
        "found no need of what it took away, took no effect; the map then has to be there and whole.", "",
        *table(told), "",
        f"Wrong maps delivered: **{sum('delivered' in one.broken for one in told)}**. Runs that did not end with the right map,",
        f"byte by byte, once repeated: **{sum('repeated' in one.broken for one in told)}**. Hangs: **{hung}**. Tracebacks shown:",
        f"**{shown}**. Exit code 0 after a failure: **{zero}**.", "",
        f"One process that was interrupted, resumed and found its map made in {len(held.files)} rounds, three maps asked for in",
        f"each, held {last} in the end. After the first third of the rounds memory, less what is free in heaps, grew by",
        f"{memory.words('KB')}, open files by {files.words('files')}; 95 % intervals of lines through means of ten parts.", "",
        "Limited is the address space, not the machine's memory: a process that the kernel kills for want of it is one that is",
        "killed. The verb `watch` itself, which asks a catalog, is not run here, nor is a network.",
    ]  # fmt: skip


@click.command()
@click.option("--minutes", default=60.0, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/soak"), show_default=True)
@click.option("--live-on", is_flag=True, hidden=True)
def main(minutes: float, seed: int, out: Path, live_on: bool) -> None:
    """Runs it, and writes the page."""
    card.BUNDLED = Path("no-bundled-models")  # as in the other processes (tests/faults/child.py)
    if live_on:
        _live_on(out, minutes, seed)
        return
    shutil.rmtree(out, ignore_errors=True)
    told, took = soak(out.absolute(), minutes, seed)
    held = Held.read(out / "held.txt")
    command = f"python -m benchmarks.soak --minutes {minutes:g}{f' --seed {seed}' if seed else ''}"
    RESULTS.write_text("\n".join(page(told, held, took, command)) + "\n", encoding="utf-8")
    click.echo(RESULTS.read_text(encoding="utf-8"))
    memory, files = Slope.of(held.memory_kb), Slope.of(held.files)
    if (memory.low > 0 and memory.high > MOST_KB) or files.low > 0 or any(one.broken for one in told):
        sys.exit(1)


if __name__ == "__main__":
    main()
