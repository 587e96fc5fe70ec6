"""What mapping costs to start and as scenes, bands, members and workers grow: seconds and memory, with fitted exponents."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox
from scipy.stats import linregress

from aftermap import pieces, raster
from aftermap.tiles import Window
from benchmarks.cluster import pair
from benchmarks.network import aftermap

Row = dict[str, Any]
SHAPES = ((1000, 1000), (2000, 2000), (4000, 4000), (8000, 8000), (20_000, 20_000))
"""1e6 to 4e8 px."""
FULL = (17_000, 25_000)
BESIDE_FULL = """425 Mpx are a full Sentinel-1 scene, a pair of 25,000 x 17,000 px with both polarisations, every product
written. For HydroSAR's water map of one image at 10 m, its terrain correction with it, HyP3 reserves one processor, 126 GB and up
to three hours ([WATER_MAP_10M](https://github.com/ASFHyP3/hyp3/tree/develop/job_spec)); that was not run here."""
LIMITS_S = {"--help": 0.3, "map of 256 px": 2.5}
BLOCK_PX = 512


def raw(image: Path, out: Path) -> Row:
    """Reading an image in blocks and writing two rasters of its size by rasterio, in one thread."""
    out.mkdir(exist_ok=True)
    began = time.perf_counter()
    with rasterio.open(image) as source:
        grid = GeoBox(source.shape, source.transform, source.crs)
        with (
            raster.Writer(out / "a.tif", grid, dtype="uint8", descriptions=["a"]) as one,
            raster.Writer(out / "b.tif", grid, dtype="uint8", descriptions=["b"]) as other,
        ):
            for row in range(0, source.height, BLOCK_PX):
                for col in range(0, source.width, BLOCK_PX):
                    height, width = min(BLOCK_PX, source.height - row), min(BLOCK_PX, source.width - col)
                    pixels = source.read(window=rasterio.windows.Window(col, row, width, height))
                    codes = np.clip(np.nan_to_num(pixels[:1]) + 100, 0, 255).astype(np.uint8)
                    one.write(codes, Window(row, col, height, width))
                    other.write(codes > 85, Window(row, col, height, width))
        mpx = source.height * source.width / 1e6
    return {"mpx": mpx, "wall_s": time.perf_counter() - began}


def startup(folder: Path, repeats: int) -> Row:
    """Medians, in seconds: the help, and a map of 256 px whole."""
    small, out = folder / "small", folder / "small-out"
    if not (small / "after.tif").exists():
        pieces.load("simulate", "flood")(small, size=256, seed=0)

    def mapped() -> Row:
        shutil.rmtree(out, ignore_errors=True)
        files = ("--after", small / "after.tif", "--before", small / "before.tif")
        return aftermap("map", *files, "--hazard", "flood", "-o", out, "--quiet")

    acts: Mapping[str, Callable[[], Row]] = {"--help": lambda: aftermap("--help"), "map of 256 px": mapped}
    return {
        name: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for name, rows in ((name, [act() for _ in range(repeats)]) for name, act in acts.items())
    }


def startup_lines(found: Row) -> list[str]:
    """Each beside its limit."""
    return ["| whole process | s | CPU s | limit s |", "|---|---|---|---|"] + [
        f"| `aftermap {name}` | **{row['wall_s']:.2f}** | {row['cpu_s']:.2f} | {LIMITS_S[name]} |" for name, row in found.items()
    ]


def growth(rows: Callable[[str, Callable[[], Row]], Row], folder: Path) -> list[Row]:
    """By scene size with one method and with all of them; by members of an ensemble; by workers."""
    found: list[Row] = []
    cases: list[tuple[str, tuple[int, int], tuple[str, ...]]] = []
    cases += [("sar-threshold", shape, ("--method", "sar-threshold")) for shape in SHAPES]
    cases += [("all methods, flood-s1", shape, ()) for shape in (*SHAPES[:4], FULL)]
    cases += [("sar-threshold and log-ratio", SHAPES[2], ("--method", "log-ratio"))]
    network = ("--model", "flood-s1", "--no-baseline")
    cases += [("flood-s1 alone", shape, network) for shape in (SHAPES[2], FULL)]
    cases += [("flood-s1, four turns", SHAPES[2], (*network, "--flips"))]
    cases += [(f"sar-threshold, {n} workers", SHAPES[3], ("--method", "sar-threshold", "--workers", str(n))) for n in (1, 2)]
    for name, shape, args in cases:
        scene = pair(folder / "pairs", shape)
        found.append({"run": name, "px": shape[0] * shape[1]} | rows(f"growth {name} {shape}", partial(_map, scene, args)))
    return found


def _map(scene: Path, args: Sequence[str]) -> Row:
    out = scene.parent / "out"
    shutil.rmtree(out, ignore_errors=True)
    files = ("--after", scene / "after.tif", "--before", scene / "before.tif")
    row = aftermap("map", *files, "--hazard", "flood", "-o", out, "--quiet", *args)
    log = json.loads((out / "log.json").read_text(encoding="utf-8"))
    told = {key: log[key] for key in ("seconds_to_scores", "seconds", "peak_memory_mb")}
    shutil.rmtree(out)
    return row | told | {"load": os.getloadavg()[0]}


def growth_lines(found: Sequence[Row]) -> list[str]:
    """The table, and a line per series of sizes."""
    told = ["| run | Mpx | s | CPU s | after the scores | peak MB | load |", "|---|---|---|---|---|---|---|"]
    told += [
        f"| {r['run']} | {r['px'] / 1e6:g} | {r['wall_s']:.1f} | {r['cpu_s']:.1f} "
        f"| {1 - r['seconds_to_scores'] / r['wall_s']:.0%} | {r['peak_memory_mb']} | {r['load']:.1f} |" for r in found
    ]  # fmt: skip
    for name in dict.fromkeys(row["run"] for row in found):
        own = [row for row in found if row["run"] == name]
        if len(own) > 2:
            told += ["", exponents(name, own)]
    return [*told, "", BESIDE_FULL]


def exponents(name: str, own: Sequence[Row]) -> str:
    """How seconds of the processor and memory go with pixels: the slope of a line through their logarithms, with its error; and
    between the two largest, where the seconds that every run takes hardly count."""
    px, said = np.log([row["px"] for row in own]), []
    for key, words in (("cpu_s", "processor seconds"), ("peak_memory_mb", "peak memory")):
        each = np.log([row[key] for row in own])
        line, last = linregress(px, each), (each[-1] - each[-2]) / (px[-1] - px[-2])
        said.append(f"{words} as pixels to the {line.slope:.2f} ± {line.stderr:.2f}, between the two largest to the {last:.2f}")
    return f"{name}: {'; '.join(said)}."
