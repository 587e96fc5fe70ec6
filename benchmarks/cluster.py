"""A map by one Dask worker against two of them, and with workers and scheduler killed: seconds, memory, the same bytes.

Every worker has one thread; both arms go through Dask, whose workers are there before the clock starts. The pair is one
simulated flood of 2,048 px laid side by side, written once into --work.

Run:     python -m benchmarks.cluster --work DIR
Writes:  benchmarks/results/cluster.md
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from odc.geo.geobox import GeoBox

from aftermap import journal, pieces, raster
from aftermap.tiles import Window
from aftermap.workers import OWN
from benchmarks.sar_landslides_table import measured

RESULTS = Path(__file__).parent / "results"
TILE_PX, MEMORY_MB = 2048, 1000
LEAST = 0.8
"""Share of two workers' time that has to be of use."""


def pair(work: Path, shape: tuple[int, int]) -> Path:
    """The folder of a before/after pair of that shape."""
    tile, scene = work / "tile", work / f"scene-{shape[1]}x{shape[0]}"
    if not (tile / "after.tif").exists():
        pieces.load("simulate", "flood")(tile, size=TILE_PX, seed=0)
    scene.mkdir(parents=True, exist_ok=True)
    for name in ("before.tif", "after.tif"):
        if not (scene / name).exists():
            _laid(tile / name, scene / f"partial-{name}", shape).rename(scene / name)
    return scene


def _laid(tile: Path, path: Path, shape: tuple[int, int]) -> Path:
    """One image side by side, as often as it takes."""
    facts = raster.facts(tile)
    pixels = raster.read_window(tile, Window(0, 0, TILE_PX, TILE_PX), facts.indexes)
    grid = GeoBox(shape, facts.grid.affine, facts.grid.crs)
    with raster.Writer(
        path, grid, dtype=str(pixels.dtype), descriptions=facts.descriptions, tags=facts.tags, unit=facts.units[0]
    ) as out:
        for row in range(0, shape[0], TILE_PX):
            for col in range(0, shape[1], TILE_PX):
                height, width = min(TILE_PX, shape[0] - row), min(TILE_PX, shape[1] - col)
                out.write(pixels[:, :height, :width], Window(row, col, height, width))
    return path


@dataclass
class Cluster:
    """A scheduler and workers without a nurse, each a process of its own."""

    folder: Path
    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    peak_mb: int = 0

    @property
    def address(self) -> str:
        """Once the scheduler has written it."""
        while not (self.folder / "scheduler.json").exists():
            time.sleep(0.1)
        return str(json.loads((self.folder / "scheduler.json").read_text())["address"])

    def join(self) -> None:
        """One worker more."""
        self.workers.append(_dask("worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory",
                                  str(self.folder)))  # fmt: skip

    def kill(self, place: int) -> None:
        """One worker, for whom another comes."""
        self.workers[place].kill()
        self.workers[place].wait()
        self.join()
        self.workers[place] = self.workers.pop()

    def look(self) -> None:
        """Notes the most memory that any worker has taken so far, in MB."""
        for one in self.workers:
            status = Path(f"/proc/{one.pid}/status")
            lines = status.read_text().splitlines() if status.exists() else []
            self.peak_mb = max([self.peak_mb, *(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))])


def _dask(what: str, *args: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *args]
    own = {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False", **OWN["distributed.nanny.pre-spawn-environ"]}
    return subprocess.Popen(command, env=os.environ | own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextmanager
def cluster(folder: Path, count: int) -> Iterator[Cluster]:
    """So many workers, connected."""
    from distributed import Client

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    own = Cluster(folder, _dask("scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(folder / "scheduler.json")))
    try:
        for _ in range(count):
            own.join()
        with Client(own.address) as client:  # type: ignore[no-untyped-call]
            client.wait_for_workers(count)
        yield own
    finally:
        for process in (*own.workers, own.scheduler):
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Run:
    """One mapping: seconds of the whole process and of its blocks, what died, and the products' hashes."""

    seconds: float
    mapping: float
    peak_mb: int
    products: dict[str, str]
    killed: int = 0
    kept: int = 0
    """Blocks that were there when it went on."""


def run(work: Path, scene: Path, count: int, args: Sequence[str], kill_every: float = 0) -> Run:
    """One map by so many workers, of which one dies every so often."""
    with cluster(work / "dask", count) as own:
        out, killed, began = _fresh(work), 0, time.perf_counter()
        process = _map(scene, out, own, args)
        due = began + kill_every if kill_every else float("inf")
        while process.poll() is None:
            time.sleep(0.1)
            if time.perf_counter() > due and not (out / journal.WORK / "products" / "map.gpkg").exists():
                own.look()
                own.kill(killed % count)
                killed, due = killed + 1, due + kill_every
        seconds = time.perf_counter() - began
        own.look()
    if process.returncode:
        raise click.ClickException(f"the map ended with {process.returncode}")
    return Run(seconds, _log(out)["seconds_to_map"], own.peak_mb, _products(out), killed)


def run_without_scheduler(work: Path, scene: Path, args: Sequence[str], after_s: float) -> Run:
    """The scheduler dies so long after the first blocks are written down; another comes, and the same command goes on."""
    out, began = _fresh(work), time.perf_counter()
    with cluster(work / "dask", 2) as own:
        process = _map(scene, out, own, args)
        while process.poll() is None and not _kept(out):
            time.sleep(0.1)
        time.sleep(after_s)
        own.scheduler.kill()
        if process.wait() != 5:
            raise click.ClickException(f"the map ended with {process.returncode}, not with 5")
    kept = _kept(out)
    with cluster(work / "dask", 2) as own:
        if _map(scene, out, own, args).wait():
            raise click.ClickException("the map did not go on")
        own.look()
    return Run(time.perf_counter() - began, _log(out)["seconds_to_map"], own.peak_mb, _products(out), 1, kept)


def _fresh(work: Path) -> Path:
    shutil.rmtree(work / "out", ignore_errors=True)
    return work / "out"


def _map(scene: Path, out: Path, own: Cluster, args: Sequence[str]) -> subprocess.Popen[bytes]:
    files = ["--after", str(scene / "after.tif"), "--before", str(scene / "before.tif"), "--hazard", "flood", "-o", str(out)]
    command = [sys.executable, "-m", "aftermap", "map", *files, "--cluster", own.address, "--memory", str(MEMORY_MB), *args]
    return subprocess.Popen([*command, "--quiet"], stdout=subprocess.DEVNULL)


def _log(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "log.json").read_text())
    return found


def _finished(out: Path) -> int:
    lines = out / journal.WORK / "windows.jsonl"
    return lines.read_text().count("\n") if lines.exists() else 0


def _kept(out: Path) -> int:
    """Blocks that are finished, whether they were written down or not."""
    return _finished(out) + sum(1 for _ in (out / journal.WORK).glob(f"part-*{journal.NOTE}"))


def _products(out: Path) -> dict[str, str]:
    files = (path for path in sorted(out.rglob("*")) if path.is_file() and path.name not in journal.UNSEALED)
    return {str(path.relative_to(out)): journal.sha256(path) for path in files}


HEAD = """# A map by Dask workers

{measured} `python -m benchmarks.cluster {words}`. {width:,} x {height:,} pixels of a
simulated before/after pair, VV and VH, `aftermap map --cluster ADDRESS --memory {memory}{args}`; workers of one thread, there
before the clock starts; the median of {repeats}. The mapping stage is what workers share: reading, scoring and writing of blocks.
The whole process also prepares the methods and makes the products. Efficiency is the time of one worker over twice that of two;
{least} is asked for.

| workers | whole process, s | mapping stage, s | the rest, s | most memory of a worker, MB |
| --- | --- | --- | --- | --- |
"""


def row(name: str, runs: Sequence[Run]) -> str:
    """Of the table."""
    whole, mapping = _median(runs)
    return f"| {name} | {whole:.1f} | {mapping:.1f} | {whole - mapping:.1f} | {max(one.peak_mb for one in runs)} |"


def _median(runs: Sequence[Run]) -> tuple[float, float]:
    return statistics.median(one.seconds for one in runs), statistics.median(one.mapping for one in runs)


def _same(one: Run, other: Run) -> str:
    every = one.products.keys() | other.products.keys()
    if apart := sorted(name for name in every if one.products.get(name) != other.products.get(name)):
        return f"**{', '.join(apart)} differ**"
    return f"all {len(every)} products are the same to the last byte"


KILL = "Also a run in which a worker dies every so many seconds, and one whose scheduler does."


@click.command()
@click.option("--work", type=click.Path(file_okay=False, path_type=Path), required=True, help="Keeps the pair for another run.")
@click.option("--width", default=25_000, show_default=True)
@click.option("--height", default=17_000, show_default=True)
@click.option("--repeats", default=1, show_default=True)
@click.option("--kill-every", default=0.0, help=KILL)
@click.option("--args", default="", help="More for `aftermap map`.")
def main(work: Path, width: int, height: int, repeats: int, kill_every: float, args: str) -> None:
    """As the module says."""
    scene, more = pair(work, (height, width)), args.split()
    arms: dict[int, list[Run]] = {1: [], 2: []}
    for _ in range(repeats):
        for count, runs in arms.items():
            runs.append(run(work, scene, count, more))
            click.echo(row(str(count), runs))
    one, two = (_median(runs) for runs in arms.values())
    whole, mapping = (single / (2 * double) for single, double in zip(one, two, strict=True))
    first = arms[1][0]
    said = ["", f"Efficiency: whole process **{whole:.2f}**, mapping stage **{mapping:.2f}**.",
            f"By one and by two workers {_same(first, arms[2][0])}."]  # fmt: skip
    if kill_every:
        said += _killed(first, run(work, scene, 2, more, kill_every), kill_every)
        said += _lost(first, run_without_scheduler(work, scene, more, two[1] / 3))
    words = f"--width {width} --height {height} --repeats {repeats} --kill-every {kill_every:g}"
    head = HEAD.format(
        measured=measured(), words=words + (f' --args "{args}"' if args else ""), width=width, height=height,
        memory=MEMORY_MB, args=f" {args}" if args else "", repeats=repeats, least=LEAST,
    )  # fmt: skip
    text = head + "\n".join([*(row(str(count), runs) for count, runs in arms.items()), *said]) + "\n"
    (RESULTS / "cluster.md").write_text(text, encoding="utf-8")
    click.echo(text)


def _killed(first: Run, run: Run, every: float) -> list[str]:
    return ["", f"Of two workers one killed every {every:g} s, {run.killed} in all, another in its place: {run.seconds:.1f} s, "
            f"mapping {run.mapping:.1f} s; {_same(first, run)}."]  # fmt: skip


def _lost(first: Run, run: Run) -> list[str]:
    return ["", f"Scheduler killed halfway: exit code 5, {run.kept} blocks kept, and the same command on a new one: "
            f"{_same(first, run)}."]  # fmt: skip


if __name__ == "__main__":
    main()
