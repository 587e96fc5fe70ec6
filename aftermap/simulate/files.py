"""The files of a scene, whatever it shows: layers of one grid, made block by block and renamed when all are whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from odc.geo.geobox import GeoBox

from aftermap.errors import UsageError
from aftermap.raster import BLOCK_PX, Writer
from aftermap.tiles import blocks

LEAST_PX, MOST_PX = 64, 100_000
UNKNOWN = 255
"""Truth where nobody knows; a simulation knows everywhere, so it is declared and never written."""


@dataclass(frozen=True)
class Place:
    """Where a scene lies: CRS, and easting and northing of its north-west corner in metres."""

    crs: str
    east_m: float
    north_m: float

    def grid(self, size: int, gsd_m: float) -> GeoBox:
        """The grid of size x size pixels of `gsd_m` metres from that corner."""
        return GeoBox((size, size), Affine(gsd_m, 0, self.east_m, 0, -gsd_m, self.north_m), self.crs)


@dataclass(frozen=True)
class Layer:
    """One file of a scene: its bands, how they are stored, and tags beside the one that says it is simulated."""

    bands: tuple[str, ...]
    dtype: str = "float32"
    unit: str = ""
    nodata: float = np.nan
    acquired: str = ""


DEM = Layer(("elevation",), unit="metres")

Make = Callable[[int, int], Mapping[str, npt.NDArray[Any]]]
"""Block row and column to pixels (band, y, x) of each layer: always a whole block, whatever the scene's size."""
Progress = Callable[[int, int], None]
"""Hears blocks done and blocks in all."""


def truth(*classes: str) -> Layer:
    """A layer of codes, one band per question."""
    return Layer(classes, "uint8", "class", UNKNOWN)


def check_ranges(**ranges: tuple[float, float, float]) -> None:
    """Raises UsageError for the first of name = (given, least, most) outside its range."""
    for name, (given, least, most) in ranges.items():
        if not least <= given <= most:
            raise UsageError(f"{name} is {given}", repair=f"give a {name} from {least:,} to {most:,}", code="bad-value")


def check_scene(size: int, seed: int, gsd_m: float, *, finest_m: float = 2, coarsest_m: float = 60) -> None:
    """Raises UsageError where no scene of that size (px), seed and pixel (m) can be made."""
    check_ranges(size=(size, LEAST_PX, MOST_PX), seed=(seed, 0, 2**32 - 1), gsd_m=(gsd_m, finest_m, coarsest_m))


def check_choice(name: str, given: str, known: tuple[str, ...], why: str) -> None:
    """Raises UsageError where `given` is none of `known`."""
    if given not in known:
        raise UsageError(f"{name} is {given}: {why}", repair=f"give {' or '.join(known)}", code="bad-value")


def write_scene(
    out: Path, layers: Mapping[str, Layer], make: Make, *, grid: GeoBox, made_by: str,
    progress: Progress | None = None, beside: Mapping[str, Callable[[Path], None]] | None = None,
) -> None:  # fmt: skip
    """Writes `out`/NAME.tif on the grid for each layer, then the files `beside` by their writers; all of them appear, or none."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write into {out}: {error.strerror}", repair="name a folder that can be created") from error
    scratch = {name: out / f".{name}.tif.part" for name in layers}
    more = {name: out / f".part-{name}" for name in beside or {}}  # the ending tells some libraries the format
    try:
        _write(scratch, layers, grid, made_by, make, progress)
        for name, write in (beside or {}).items():
            write(more[name])
        for name, path in ({f"{k}.tif": p for k, p in scratch.items()} | more).items():
            os.replace(path, out / name)
    finally:
        for path in (*scratch.values(), *more.values()):
            path.unlink(missing_ok=True)


def _write(
    scratch: Mapping[str, Path], layers: Mapping[str, Layer], grid: GeoBox, made_by: str, make: Make, progress: Progress | None
) -> None:
    """Every block of the scene into its scratch files, north-west first."""
    windows = list(blocks((grid.shape[0], grid.shape[1]), BLOCK_PX))
    with ExitStack() as stack:
        writers = {name: stack.enter_context(_writer(path, grid, layers[name], made_by)) for name, path in scratch.items()}
        for done, window in enumerate(windows, start=1):
            made = make(window.row // BLOCK_PX, window.col // BLOCK_PX)
            for name, writer in writers.items():
                writer.write(made[name][:, : window.height, : window.width], window)
            if progress is not None:
                progress(done, len(windows))


def _writer(path: Path, grid: GeoBox, layer: Layer, made_by: str) -> Writer:
    """An open file of the right type; the caller closes it."""
    tags = {"SIMULATED": made_by}
    if layer.acquired:
        tags["ACQUISITION_DATETIME"] = layer.acquired
    return Writer(
        path, grid, dtype=layer.dtype, descriptions=layer.bands, nodata=layer.nodata, unit=layer.unit, tags=tags
    )  # fmt: skip
