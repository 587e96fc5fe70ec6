"""Runs of a map by a client, a scheduler and two workers, each a process of its own, looked at while they go."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import click

from aftermap import journal
from benchmarks.cluster import cluster
from benchmarks.continent_client import STOPPED
from benchmarks.sampled import Sampler, Trend, trend

WORKERS = 2


class Step(NamedTuple):
    """What the client said, and when."""

    when: float
    stage: str
    done: int
    whole: int


@dataclass(frozen=True)
class Ran:
    """One run: what its client said, and its processes."""

    out: Path
    steps: list[Step]
    sampler: Sampler

    def of(self, stage: str) -> list[Step]:
        """The steps of a stage."""
        return [step for step in self.steps if step.stage == stage]

    def at(self, stage: str, place: int = 0) -> float:
        """When a stage was first told of, or last."""
        return self.of(stage)[place].when

    def cpu_s(self, first: float, last: float) -> float:
        """Processor seconds of all processes between two times."""
        return sum(self.sampler.cpu_s(name, first, last) for name in self.sampler.pids)

    def trend(self, name: str, stage: str) -> Trend:
        """Memory of a process over the units of a stage."""
        steps = self.of(stage)
        looks = self.sampler.between(name, steps[0].when, steps[-1].when)
        return trend(looks, [(step.when, step.done) for step in steps])

    def trends(self, stage: str) -> Iterator[tuple[str, Trend]]:
        """Of all processes."""
        return ((name, self.trend(name, stage)) for name in self.sampler.pids)


def run(work: Path, items: Path, windows: Path, *, method: str, stop: tuple[str, float] = ("", 1.0)) -> Ran:
    """A map from an item file, stopped after a share of a stage, or whole."""
    out, steps = work / "out", work / "steps.txt"
    shutil.rmtree(out, ignore_errors=True)
    with cluster(work / "dask", WORKERS) as own:
        words = [str(items), str(out), "--windows", str(windows), "--steps", str(steps), "--cluster", own.address]
        command = [
            sys.executable,
            "-m",
            "benchmarks.continent_client",
            *words,
            "--method",
            method,
            "--stop",
            stop[0],
            str(stop[1]),
        ]
        client = subprocess.Popen(command)
        workers = {f"worker {n}": one.pid for n, one in enumerate(own.workers, 1)}
        with Sampler({"client": client.pid, "scheduler": own.scheduler.pid, **workers}) as sampler:
            code = client.wait()
    if code != (STOPPED if stop[0] else 0):
        raise click.ClickException(f"the client ended with {code}")
    return Ran(out, _steps(steps), sampler)


def _steps(path: Path) -> list[Step]:
    lines = (line.split() for line in path.read_text().splitlines())
    return [Step(float(when), stage, int(done), int(whole)) for when, stage, done, whole in lines]


def stored(folder: Path, pattern: str = "*") -> int:
    """Bytes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob(pattern) if path.is_file())


def parts(ran: Ran) -> tuple[int, int]:
    """Blocks that a run was stopped with, also those of groups that nobody has told of yet, and their bytes."""
    return len(list((ran.out / journal.WORK).glob("part-*.tif"))), stored(ran.out / journal.WORK, "part-*.tif")
