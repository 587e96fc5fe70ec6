"""What of a map may grow with its cells, blocks and windows, each taken by itself: seconds and MB at two sizes or more.

Each measure runs in a process of its own (`alone`), so that its memory is its own.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from affine import Affine

from aftermap import gather, journal, raster
from aftermap.afar import grouped
from aftermap.catalog import Signer
from aftermap.itemfile import EventFile
from aftermap.outline import Classes, outlines, take_census
from aftermap.pieces import load
from aftermap.predict import Plan, mapped
from aftermap.remote import Remote
from aftermap.tiles import Window, blocks
from aftermap.virtual import Piece
from aftermap.workers import workers
from benchmarks.cluster import cluster
from benchmarks.sampled import look

READ_PX, READS = 1600, 60
"""Side of the windows that are read from virtual rasters, and how many."""


class Cost(NamedTuple):
    """Of one measure."""

    seconds: float
    mb: float
    """That the process holds more after it, at its highest."""
    more: dict[str, Any]


def alone(act: Callable[..., Cost], *args: Any) -> Cost:
    """What a measure finds in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(act, *args).result()


def _resident() -> float:
    found = look(os.getpid())
    return found.resident_mb if found else 0.0


def plan_cells(items: Path) -> Cost:
    """Reading the item file, and the cells of every layer."""
    before, began = _resident(), time.perf_counter()
    (part,) = EventFile.read(items).parts
    cells = {one.layer: one.cells(part.sheet.area) for one in gather.wanted(part)}
    return Cost(time.perf_counter() - began, _resident() - before, {"cells": sum(map(len, cells.values()))})


def plan_units(items: Path, count: int) -> Cost:
    """So many units of reading as they are handed to workers."""
    (part,) = EventFile.read(items).parts
    one = gather.wanted(part)[0]
    cells = one.cells(part.sheet.area)[:count]
    one.cell(cells[0])
    before, began = _resident(), time.perf_counter()
    units = [one.cell(cell) for cell in cells]
    return Cost(time.perf_counter() - began, _resident() - before, {"units": len(units)})


def plan_blocks(scene: Path, side: int, memory_mb: int) -> Cost:
    """The blocks of a map of so many pixels a side by one method, and their groups, those of a small scene's scorer."""
    from aftermap.scene import open_scene

    small = open_scene({"after": [scene / "after.tif"], "before": [scene / "before.tif"]}, hazard="flood")
    scorer = load("flood", "sar-threshold")().prepare(small)
    before, began = _resident(), time.perf_counter()
    plan = Plan({"sar-threshold": scorer}, 0.5, False, memory_mb, threads=1)
    every = plan.blocks((side, side))
    groups = grouped(every, plan.tiles((side, side)), 2, handing=False)
    return Cost(time.perf_counter() - began, _resident() - before, {"blocks": len(every), "groups": len(groups)})


def start_store(folder: Path, touched: bool) -> Cost:
    """A start that finds all windows of a layer there, with or without what says that nobody touched them."""
    if not touched:
        before, began = _resident(), time.perf_counter()
        kept = gather._Store(folder).kept
        return Cost(time.perf_counter() - began, _resident() - before, {"windows": len(kept)})
    lines = (folder / gather.INDEX).read_text().splitlines()[:100]
    said = [json.loads(line) for line in lines]
    began = time.perf_counter()
    size = 0
    for one in said:
        assert journal.sha256(folder / one["file"]) == one["sha256"]
        size += (folder / one["file"]).stat().st_size
    return Cost(time.perf_counter() - began, 0.0, {"windows": len(said), "bytes": size})


def add_lines(folder: Path, count: int) -> Cost:
    """So many windows written down."""
    shutil.rmtree(folder, ignore_errors=True)
    own = gather._Store(folder)
    began = time.perf_counter()
    for n in range(count):
        own.add({"cell": f"{n}-0", "file": None})
    return Cost(time.perf_counter() - began, 0.0, {"windows": count})


def read_virtual(path: Path, side: int) -> Cost:
    """Opening a virtual raster, and windows of it that lie anywhere; `more` has the seconds to open and to read one."""
    rng = np.random.default_rng(0)
    before, began = _resident(), time.perf_counter()
    source = raster.open_raster(path)
    opened = time.perf_counter() - began
    times = []
    for _ in range(READS):
        row, col = rng.integers(0, max(side - READ_PX, 1), 2)
        start = time.perf_counter()
        raster.read_open(source, Window(int(row), int(col), READ_PX, READ_PX), (1, 2), dtype="float32")
        times.append(time.perf_counter() - start)
    more = {"open_s": opened, "read_s": float(np.median(times)), "bytes": path.stat().st_size}
    return Cost(time.perf_counter() - began, _resident() - before, more)


def flat_virtual(items: Path, windows: Path, out: str) -> Path:
    """The raster of the first layer as it would be with all pieces in one file, beside the one in two levels."""
    (part,) = EventFile.read(items).parts
    one = gather.wanted(part)[0]
    own = gather._Store(windows / one.key)
    pieces = [Piece(name, c) for c in one.cells(part.sheet.area) if (name := own.kept.get(gather._name(c)))]
    path = own.folder / out
    path.write_text(gather._text(one, one.grid, pieces, one.tags), encoding="utf-8")
    return path


def outline_all(mapped: Path, side: int) -> Cost:
    """Both passes of the outlines over so many pixels a side: a delivered extent, side by side."""
    size = min(raster.size_of(mapped / "extent.tif")[0], 2048)
    codes = raster.read_window(mapped / "extent.tif", Window(0, 0, size, size))[0]
    codes[codes == 255] = 1

    def read(window: Window) -> Any:
        rows, cols = (np.arange(at.start, at.stop) % size for at in window.slices)
        return codes[np.ix_(rows, cols)]

    windows = list(blocks((side, side), 1024))
    classes = Classes(read, windows, (side, side), lambda w: np.full(w[2:], 100.0), frozenset({0}))
    before, began = _resident(), time.perf_counter()
    census = take_census(classes)
    counted, peak, polygons = time.perf_counter() - began, _resident(), 0
    for found in outlines(classes, census, Affine.identity(), min_area_m2={1: 1000.0}):
        polygons += len(found.outlines)
        peak = max(peak, _resident())
    held = sum(array.nbytes for array in (census.component, census.pieces, census.area_m2)) / 1e6
    more = {"windows": len(windows), "census_s": counted, "census_mb": held, "polygons": polygons}
    return Cost(time.perf_counter() - began, peak - before, more)


def say(number: int, remote: Remote, folder: Path, cell: gather.Cell) -> tuple[int, dict[str, Any]]:
    """What a worker says that has read a window, of one that it has not."""
    return number, {"cell": cell.name, "file": f"{cell.name}-{64 * '0'}.tif", "sha256": 64 * "0"}


def hand(folder: Path, items: Path, counts: Sequence[int]) -> Cost:
    """Units of reading in which nothing is read, to two workers: what Dask itself remembers of so many."""
    (part,) = EventFile.read(items).parts
    one = gather.wanted(part)[0]
    cells, remote = cycle(one.cells(part.sheet.area)), Remote(Signer(""))
    units = ((n, remote, folder, one.cell(cell)) for n, cell in zip(range(counts[-1]), cells, strict=False))
    with cluster(folder, 2) as own, workers(cluster=own.address) as crew:
        pids = {"client": os.getpid(), "scheduler": own.scheduler.pid, "worker": own.workers[0].pid}
        found, began = [], time.perf_counter()
        for done, _ in enumerate(crew(say, units, ordered=False), 1):
            if done in counts:
                found.append({name: seen.resident_mb for name, pid in pids.items() if (seen := look(pid))})
    return Cost(time.perf_counter() - began, 0.0, {"mb": found})


def map_in_turn(run: Path, out: Path, counts: Sequence[int]) -> Cost:
    """Blocks of a stopped run made again by one process, as a worker makes them: its memory after so many."""
    job = pickle.loads(next((run / journal.WORK).glob("job-*.pickle")).read_bytes())
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    began, found = time.perf_counter(), []
    for done, block in enumerate(job.plan.blocks(job.scene.shape)[: counts[-1]], 1):
        for made in mapped(replace(job, work=out), [block]):
            for name in (*made.files, made.window + journal.NOTE):
                (out / name).unlink()
        if done in counts:
            found.append(_resident())
    return Cost(time.perf_counter() - began, 0.0, {"mb": found})
