"""What a tenth of the cells finds, by several orders, on simulated landslides: python -m benchmarks.priority

A share of all affected pixels of one scene; each scene is weighed alike. The truth is that of `aftermap simulate landslide`.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

import aftermap as am
from aftermap import raster
from aftermap.metrics import Inspection
from aftermap.simulate.landslide import simulate
from aftermap.tiles import Window

SIZE, CELL_PX, CELL_M, SEEDS, SENSORS = 1024, 32, 320.0, range(6), ("sentinel-1", "sentinel-2")
ORDERS = (
    "the list",
    "mean likelihood alone",
    "polygons per km2 first",
    "chance",
    "best",
    "cells without area",
    "of these chance",
)


def event(folder: Path, sensor: str, seed: int) -> npt.NDArray[np.float64]:
    """Shares (order,) of one scene."""
    simulate(folder, size=SIZE, seed=seed, sensor=sensor)
    options = am.Options(density_m=CELL_M)
    mapped = am.map(folder / "after.tif", folder / "before.tif", out=folder / "map", hazard="landslide", options=options)
    whole, side = Window(0, 0, SIZE, SIZE), SIZE // CELL_PX
    slid = (raster.read_window(folder / "truth.tif", whole)[0] == 1) & (mapped.extent(whole) != 255)
    cells = slid.reshape(side, CELL_PX, side, CELL_PX).sum(axis=(1, 3))
    with (mapped.folder / "priority.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    affected = np.array([cells[int(r["row"]), int(r["col"])] for r in rows], np.float64)  # in the order of the list
    area, polygons, likely, analysed = (
        np.array([float(r[k]) for r in rows]) for k in ("affected_ha", "polygons_per_km2", "likelihood_mean", "analysed_ha")
    )
    orders = np.arange(len(rows)), np.argsort(-likely * analysed, kind="stable"), np.lexsort((-area, -polygons))
    found = [Inspection.of(affected, order).row() for order in orders]
    clear = affected[area == 0]
    rest = Inspection.of(clear, np.arange(len(clear))).row()
    told = [*(one["found_top10"] for one in found), found[0]["found_top10_chance"], found[0]["found_top10_best"]]
    return np.array([*told, rest["found_top10"], rest["found_top10_chance"]], np.float64)


def main() -> None:
    """Prints a row for each order: mean of the scenes, lowest and highest, by sensor."""
    for sensor in SENSORS:
        with tempfile.TemporaryDirectory() as folder:
            shares = np.stack([event(Path(folder) / str(seed), sensor, seed) for seed in SEEDS])
        for name, one in zip(ORDERS, shares.T, strict=True):
            sys.stdout.write(f"{sensor}  {name:24} {one.mean():.3f} ({one.min():.3f} to {one.max():.3f})\n")
        sys.stdout.write(f"{sensor}  the list finds more than mean likelihood in {(shares[:, 0] > shares[:, 1]).sum()} scenes\n")


if __name__ == "__main__":
    main()
