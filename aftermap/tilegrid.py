"""Tiles as M3LEO has them: squares of 4480 m along the meridians and parallels, named, with their splits (methods.md 14.6).

A data set of one's own lies in `<area>_partitions_aschips_<hash>/`; the polygons of its tiles and their splits, in stripes of
ground, stand beside it in files whose names begin so.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

from aftermap import plain, raster, vector
from aftermap.errors import InputRefusedError, UsageError
from aftermap.journal import write_json, write_text
from aftermap.splits import by_stripe

SIDE_M, SIDE_PX = 4480, 448
STRIPES, SHARES = 60, {"train": 0.6, "val": 0.2, "test": 0.2}
DEGREES = "EPSG:4326"
_EQUATOR_M, _FLATTENING = 6_378_137.0, 1 / 298.257223563
_NAME = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True)
class Tile:
    """A tile and its edges in degrees of WGS84."""

    name: str
    west: float
    south: float
    east: float
    north: float

    def grid(self, px: int = SIDE_PX) -> GeoBox:
        """Its pixels, `px` along each side."""
        step_x, step_y = (self.east - self.west) / px, (self.north - self.south) / px
        return GeoBox((px, px), Affine(step_x, 0, self.west, 0, -step_y, self.north), DEGREES)


def metres_per_degree(latitude_deg: float) -> tuple[float, float]:
    """Of longitude and of latitude, on the ellipsoid of WGS84."""
    squared, sine = _FLATTENING * (2 - _FLATTENING), np.sin(np.radians(latitude_deg))
    rest = 1 - squared * sine**2
    across = _EQUATOR_M / np.sqrt(rest) * np.cos(np.radians(latitude_deg))
    return float(np.radians(across)), float(np.radians(_EQUATOR_M * (1 - squared) / rest**1.5))


def tiles(west: float, south: float, east: float, north: float) -> Iterator[Tile]:
    """Whole tiles within a box in degrees, row by row from the south-west; each row has the width of a degree at its middle."""
    low = south
    while True:
        high = low + SIDE_M / metres_per_degree(low)[1]
        middle = (low + high) / 2
        high = low + SIDE_M / metres_per_degree(middle)[1]
        if high > north:
            return
        step = SIDE_M / metres_per_degree(middle)[0]
        for k in range(int((east - west) / step + 1e-9)):
            edges = tuple(round(v, 9) for v in (west + k * step, low, west + (k + 1) * step, high))
            yield Tile(hashlib.sha256(repr(edges).encode()).hexdigest()[:13], *edges)
        low = high


def lay(
    out: Path, area: str, *, aoi: Path | None = None, like: Sequence[Path] = (), angle_deg: float = 45, seed: int = 0
) -> Path:
    """Lays tiles over polygons, those whose middle lies within, or over the extent of rasters; the area's folder.

    Raises UsageError ("other-run") where other tiles lie there, InputRefusedError ("no-tiles").
    """
    if (aoi is None) == (not like) or not _NAME.fullmatch(area):
        what = f"the area is {area!r}, with {'neither' if aoi is None else 'both'} polygons and rasters to lie over"
        raise UsageError(what, repair="name it in small letters and digits, and give --aoi or --like")
    found = _within(aoi) if aoi is not None else _over(like)
    if not found:
        raise InputRefusedError(f"no tile of {SIDE_M} m lies within", repair="give a larger area", code="no-tiles")
    digest = hashlib.sha256("".join(sorted(tile.name for tile in found)).encode()).hexdigest()[:8]
    folder = out / f"{area}_partitions_aschips_{digest}"
    if others := [p.name for p in out.glob(f"{area}_partitions_aschips_*") if p.is_dir() and p != folder]:
        raise UsageError(f"{out} has {others[0]}, other tiles of {area}", repair="choose another -o or name", code="other-run")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(out / f"{folder.name}_splits_{STRIPES}bands_angle{angle_deg:g}_60-20-20.csv", _dealt(found, angle_deg, seed))
    write_json(out / f"{folder.name}.geojson", _collection(found))
    return folder


def _within(aoi: Path) -> list[Tile]:
    shapes = vector.read_polygons(aoi, GeoBox((1, 1), Affine.identity(), DEGREES))
    box = vector.bounds(shapes)
    found = list(tiles(*box))
    middles = np.array([((t.west + t.east) / 2, (t.south + t.north) / 2) for t in found]).reshape(-1, 2)
    return [tile for tile, inside in zip(found, vector.holds(shapes, middles), strict=True) if inside]


def _over(like: Sequence[Path]) -> list[Tile]:
    boxes = []
    for path in like:
        grid = raster.facts(path).grid
        if grid.crs is None:
            raise InputRefusedError(f"{path.name} has no CRS", repair="georeference it first", code="no-common-grid")
        boxes.append(grid.geographic_extent.boundingbox)
    return list(
        tiles(min(b.left for b in boxes), min(b.bottom for b in boxes), max(b.right for b in boxes), max(b.top for b in boxes))
    )


def _dealt(found: Sequence[Tile], angle_deg: float, seed: int) -> str:
    middle = metres_per_degree(sum(t.south + t.north for t in found) / (2 * len(found)))
    xy = np.array([((t.west + t.east) / 2 * middle[0], (t.south + t.north) / 2 * middle[1]) for t in found])
    sides = by_stripe(xy, np.random.default_rng(seed), SHARES, stripes=STRIPES, angle_deg=angle_deg)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [("identifier", "split"), *((t.name, s) for t, s in zip(found, sides, strict=True))]
    )
    return text.getvalue()


def _collection(found: Sequence[Tile]) -> dict[str, Any]:
    def corners(t: Tile) -> list[tuple[float, float]]:
        return [(t.west, t.south), (t.east, t.south), (t.east, t.north), (t.west, t.north), (t.west, t.south)]

    return {"type": "FeatureCollection", "features": [
        {"type": "Feature", "properties": {"identifier": t.name}, "geometry": {"type": "Polygon", "coordinates": [corners(t)]}}
        for t in found
    ]}  # fmt: skip


def read(folder: Path) -> list[Tile]:
    """The tiles of an area's folder, of the .geojson in it or beside it. Raises InputRefusedError ("dataset-layout")."""
    area = folder.name.partition("_")[0]
    paths = [*sorted(folder.glob("*.geojson")), *sorted(folder.parent.glob(f"{folder.name}*.geojson")),
             *sorted(folder.parent.glob(f"{area}*.geojson"))]  # fmt: skip
    if not paths:
        raise _strange(folder, "has no polygons of tiles (.geojson) in it or beside it")
    try:
        features = plain.read_json(paths[0])["features"]
        return [_tile(feature) for feature in features]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise _strange(paths[0], f"holds no polygons of tiles in degrees: {error}") from error


def _tile(feature: Mapping[str, Any]) -> Tile:
    ring = np.array(feature["geometry"]["coordinates"][0], np.float64)[:, :2]
    (west, south), (east, north) = ring.min(axis=0), ring.max(axis=0)
    if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
        raise ValueError(f"{west:g} {south:g} {east:g} {north:g} are no degrees")
    return Tile(str(feature["properties"]["identifier"]), *map(float, (west, south, east, north)))


def _strange(path: Path, what: str) -> InputRefusedError:
    return InputRefusedError(f"{path} {what}", repair="lay tiles with `aftermap data tiles`", code="dataset-layout")
