"""A component of one's own on the tiles of an M3LEO area: any rasters, or the assets of STAC items, cut to each tile.

What M3LEO's makers do on Earth Engine. Where rasters overlap the first that saw a place counts. What none saw stays no data, and
a tile that none saw is not written; a tile that is there, of the same rasters and settings, is kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from aftermap import raster, tilegrid
from aftermap.errors import BandError, InputRefusedError, UnknownNameError, UsageError
from aftermap.journal import sha256, write_json
from aftermap.sensors import UNITS
from aftermap.tiles import Window

RESAMPLINGS = ("nearest", "bilinear", "average")
FACTS = "facts.json"
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Made:
    """Tiles written now, kept from before, and seen by no raster."""

    written: int
    kept: int
    uncovered: int


@dataclass(frozen=True)
class Component:
    """What is cut: "nearest" is for classes, "bilinear" and "average" for measurements, "average" where pixels grow."""

    name: str
    rasters: tuple[Path, ...]
    resampling: str
    px: int = tilegrid.SIDE_PX
    """Along each side of a tile."""
    bands: tuple[str, ...] = ()
    """Names, where the files do not say."""
    unit: str = ""

    def __post_init__(self) -> None:
        if self.resampling not in RESAMPLINGS:
            raise UnknownNameError("resampling", self.resampling, RESAMPLINGS)
        if self.unit and self.unit not in UNITS:
            raise UnknownNameError("unit", self.unit, UNITS)
        if not self.rasters or not 1 <= self.px <= 4096 or Path(self.name).name != self.name or self.name.startswith("."):
            what = f"{self.name!r} of {len(self.rasters)} rasters with {self.px} px"
            raise UsageError(what, repair="give a plain name, at least one raster and 1 to 4096 px")


def make(area: Path, what: Component, *, progress: Progress = lambda *_: None) -> Made:
    """Writes `area`/NAME/TILE.tif for each tile. Raises UsageError ("other-run"), InputRefusedError, RasterError."""
    tiles, every = tilegrid.read(area), [raster.facts(path) for path in what.rasters]
    _refuse_unlike(every, what)
    out = area / what.name
    _refuse_other(out, what)
    counts = {"written": 0, "kept": 0, "uncovered": 0}
    for done, tile in enumerate(tiles, 1):
        counts[_one(out / f"{tile.name}.tif", tile.grid(what.px), every, what)] += 1
        progress("tiles", done, len(tiles))
    return Made(**counts)


def _one(path: Path, grid: GeoBox, every: Sequence[raster.Facts], what: Component) -> str:
    """What became of a tile."""
    if path.exists():
        return "kept"
    whole, found = Window(0, 0, *grid.shape), None
    for facts in every:
        if not _touch(facts.grid, grid):
            continue
        seen = raster.Reader(facts.path, grid, facts.indexes, resampling=what.resampling).read(whole)
        found = seen if found is None else np.where(np.isnan(found), seen, found)
        if np.isfinite(found).all():
            break
    if found is None or not np.isfinite(found).any():
        return "uncovered"
    _write(path, grid, found, every[0], what)
    return "written"


def _touch(of: GeoBox, grid: GeoBox) -> bool:
    own, tile = of.geographic_extent.boundingbox, grid.extent.boundingbox
    return bool(own.left < tile.right and tile.left < own.right and own.bottom < tile.top and tile.bottom < own.top)


def _write(path: Path, grid: GeoBox, found: npt.NDArray[np.float32], first: raster.Facts, what: Component) -> None:
    """Whole or not at all; classes in the type of their file, where that declares what no data is."""
    nodata, dtype = first.nodata[0], "float32"
    if what.resampling == "nearest" and nodata is not None and np.issubdtype(np.dtype(first.dtype), np.integer):
        found, dtype = np.where(np.isnan(found), np.float32(nodata), found), first.dtype
    else:
        nodata = float("nan")
    partial = path.with_name(path.name + ".partial")
    unit = what.unit or (first.units[0] if first.units[0] in UNITS else "")
    with raster.Writer(partial, grid, dtype=dtype, descriptions=_bands(first, what), nodata=nodata, unit=unit) as out:
        out.write(found.astype(dtype), Window(0, 0, *grid.shape))
    os.replace(partial, path)


def _bands(first: raster.Facts, what: Component) -> tuple[str, ...]:
    return what.bands or tuple(said or f"band-{k}" for k, said in enumerate(first.descriptions, 1))


def _refuse_unlike(every: Sequence[raster.Facts], what: Component) -> None:
    for facts in every:
        if facts.grid.crs is None:
            raise InputRefusedError(f"{facts.path.name} has no CRS", repair="georeference it first", code="no-common-grid")
        if _kind(facts) != _kind(every[0]):
            words = f"{every[0].path.name} and {facts.path.name} differ in bands, type or no data"
            raise BandError(words, repair="give rasters of one kind", code="mosaic-mixed")
    if what.bands and len(what.bands) != len(every[0].indexes):
        words = f"{len(what.bands)} names for the {len(every[0].indexes)} bands of {every[0].path.name}"
        raise UsageError(words, repair="name each band once")


def _kind(facts: raster.Facts) -> tuple[int, str, str]:
    """Of bands, type and no data; as words, for NaN is not itself."""
    return len(facts.indexes), facts.dtype, str(facts.nodata)


def _refuse_other(out: Path, what: Component) -> None:
    """Remembers what the component is made of. Raises UsageError ("other-run") where that was something else."""
    told: dict[str, Any] = asdict(what) | {"rasters": [{"name": p.name, "sha256": sha256(p)} for p in what.rasters]}
    told["bands"] = list(what.bands)
    if (out / FACTS).exists() or any(out.glob("*.tif")):
        known = json.loads((out / FACTS).read_text(encoding="utf-8")) if (out / FACTS).exists() else None
        if known != told:
            words = f"{out} holds a component of other rasters or settings"
            raise UsageError(words, repair="choose another name, or remove it", code="other-run")
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / FACTS, told)
