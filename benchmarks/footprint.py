"""What mapping costs beside its limits: time to --help, peak memory by scene size, and speed beside plain reading and writing.

Run:     python benchmarks/footprint.py [--folder DIR]      (DIR keeps the simulated scenes, 7 GB, for another run)
Writes:  benchmarks/results/footprint.md

"Plain" reads both bands of both dates and writes the same rasters as the map, in blocks of 512 px, by rasterio in one thread:
as Cloud Optimized GeoTIFFs as they are delivered, and also as bare tiled GeoTIFFs, the stricter measure.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import click
import rasterio
import rasterio.shutil
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.windows import Window

from aftermap.simulate import flood
from aftermap.simulate.files import Layer, write_scene
from aftermap.simulate.sar import POLARISATIONS

RESULTS = Path(__file__).parent / "results"
HELP_LIMITS_S = {"--help": 0.3, "map --help": 0.5}
MEMORY_LIMIT_MB, GROWTH_LIMIT = 1200, 1.10
SHAPES = ((5_000, 5_000), (17_000, 25_000))
"""Height and width; peak memory of the second over the first must not grow."""
RUNS: dict[str, tuple[tuple[str, ...], tuple[str, ...], float]] = {
    "sar-threshold, likelihood and extent": (
        ("--method", "sar-threshold", "--only", "likelihood,extent"),
        ("likelihood", "extent"),
        0.5,
    ),
    "auto, all products": ((), ("likelihood", "extent", "exclusion", "agreement"), 0.2),
}
"""Name -> arguments, the rasters they write, and the least ratio to plain reading and writing."""


def aftermap(*args: str | Path) -> None:
    """Runs the command line as a process of its own."""
    subprocess.run([sys.executable, "-m", "aftermap", *map(str, args)], check=True, stdout=subprocess.DEVNULL)


def help_seconds(words: str, runs: int = 9) -> float:
    """Median wall time of a help text, whole process."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        aftermap(*words.split())
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def simulate(folder: Path, shape: tuple[int, int]) -> Path:
    """A before/after pair of two float32 bands of that shape, made unless it is there."""
    scene = folder / f"scene-{shape[1]}x{shape[0]}"
    if not (scene / "after.tif").exists():
        layers = {n: Layer(POLARISATIONS, unit="dB", acquired=day) for n, day in flood.DATES.items()}
        grid = GeoBox(shape, Affine(10, 0, flood.PLACE.east_m, 0, -10, flood.PLACE.north_m), flood.PLACE.crs)

        def make(row: int, col: int) -> Mapping[str, Any]:
            return vars(flood.block(0, row, col, looks=4.9, gsd_m=10.0, stage_m=2.5))

        write_scene(scene, layers, make, grid=grid, made_by="footprint")
    return scene


def map_pair(scene: Path, out: Path, args: Sequence[str]) -> dict[str, float]:
    """Peak memory (MB) and seconds of one mapping."""
    aftermap(
        "map", "--after", scene / "after.tif", "--before", scene / "before.tif", "--hazard", "flood", "-o", out, *args, "--quiet"
    )
    log: dict[str, float] = json.loads((out / "log.json").read_text())
    return log


def plain_seconds(scene: Path, mapped: Path, rasters: Sequence[str], scratch: Path) -> tuple[float, float]:
    """Wall time to read the pair and write these rasters of the map again: bare tiled GeoTIFFs, and with making them COGs."""
    sources = [rasterio.open(scene / f"{name}.tif") for name in ("after", "before")]
    given = [rasterio.open(mapped / f"{name}.tif") for name in rasters]
    height, width = sources[0].shape
    windows = [
        Window(c, r, min(512, width - c), min(512, height - r)) for r in range(0, height, 512) for c in range(0, width, 512)
    ]
    spent = 0.0
    facts = {
        "height": height,
        "width": width,
        "count": 1,
        "dtype": "uint8",
        "crs": sources[0].crs,
        "compress": "zstd",
        "zstd_level": 1,
    }
    outs = [
        rasterio.open(scratch / f"{n}.tif", "w", driver="GTiff", tiled=True, blockxsize=512, blockysize=512, **facts)
        for n in rasters
    ]
    for window in windows:
        pixels = [source.read(1, window=window) for source in given]  # what to write is not part of the work
        started = time.perf_counter()
        for source in sources:
            source.read(window=window)
        for out, values in zip(outs, pixels, strict=True):
            out.write(values, 1, window=window)
        spent += time.perf_counter() - started
    started = time.perf_counter()
    for out in outs:
        out.close()
    bare = spent + time.perf_counter() - started
    for name in rasters:
        rasterio.shutil.copy(
            scratch / f"{name}.tif", scratch / f"{name}.cog.tif", driver="COG", compress="DEFLATE", level=6, blocksize=512,
            num_threads=1, bigtiff="IF_SAFER",
        )  # fmt: skip
    return bare, spent + time.perf_counter() - started


def measure(folder: Path, say: Callable[[str], None]) -> list[str]:
    """Rows of the table, and the growth of memory for each run."""
    rows: list[str] = []
    peaks: dict[str, list[float]] = {name: [] for name in RUNS}
    for shape in SHAPES:
        scene, px = simulate(folder, shape), shape[0] * shape[1] / 1e6
        for name, (args, rasters, least) in RUNS.items():
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                out = Path(scratch) / "out"
                log = map_pair(scene, out, args)
                bare, cog = plain_seconds(scene, out, rasters, Path(scratch))
            peaks[name].append(log["peak_memory_mb"])
            speeds = [px / seconds for seconds in (log["seconds"], cog, bare)]
            rows.append(
                f"| {shape[1]:,} x {shape[0]:,} | {name} | {log['peak_memory_mb']:.0f} | {speeds[0]:.2f} | {speeds[1]:.1f} "
                f"| **{speeds[0] / speeds[1]:.2f}** (at least {least}) | {speeds[0] / speeds[2]:.2f} |"
            )
            say(rows[-1])
    grown = ", ".join(f"{name} **{after / before:.3f}**" for name, (before, after) in peaks.items())
    return [
        *rows,
        "",
        f"Peak memory of the larger over the smaller (limit {GROWTH_LIMIT}): {grown}. Limit of each: {MEMORY_LIMIT_MB} MB.",
    ]


@click.command()
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), help="Where the scenes are kept; else a temporary folder."
)
def main(folder: Path | None) -> None:
    """Measure, compare with the limits, and write the table."""
    shown = {words: help_seconds(words) for words in HELP_LIMITS_S}
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        rows = measure(folder or Path(temporary), click.echo)
    lines = [
        "# Footprint",
        "",
        f"{date.today().isoformat()}, {platform.machine()}, 2 cores shared with other work, `python benchmarks/footprint.py`",
        "",
        "Whole process, median of 9: "
        + ", ".join(f"`aftermap {w}` **{s:.3f} s** (limit {HELP_LIMITS_S[w]} s)" for w, s in shown.items()),
        "",
        "Mapping a simulated before/after pair, VV and VH, float32, `--memory 1000`, end to end with hashing and first passes.",
        "Plain: reading both bands of both dates and writing the same rasters with rasterio in one thread, as COGs; bare: as",
        "tiled GeoTIFFs without overviews.",
        "",
        "| pixels | run | peak memory MB | Mpx/s | plain Mpx/s | ratio to plain | ratio to bare |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "footprint.md").write_text("\n".join(lines))
    click.echo("\n".join(lines))


if __name__ == "__main__":
    main()
