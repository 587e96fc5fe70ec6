"""Maps of several sheets as one: a STAC collection of their items, and virtual rasters in degrees over them. Door: pystac."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from affine import Affine
from odc.geo.geobox import GeoBox

from aftermap import meridian, virtual
from aftermap.hazardmap import HazardMap
from aftermap.itemfile import EventFile
from aftermap.journal import SEAL, write_json, write_text
from aftermap.tiles import Window

COLLECTION, WARPED = "collection.json", "warped"
MOSAICS = ("extent", "likelihood", "exclusion")
_DEGREES_PER_M = 1 / 111_319.49
"""Of longitude at the equator and of latitude nearly anywhere."""


def write_collection(out: Path, event: EventFile, maps: Sequence[HazardMap]) -> None:
    """Over the delivered maps in folders of `out`; the collection is written last."""
    mosaics = [name for name in MOSAICS if all((one.folder / f"{name}.tif").exists() for one in maps)]
    for name in mosaics:
        _mosaic(out, name, maps)
    words = f"{event.hazard} of {event.event}, a map for each of {len(maps)} sheets"
    assets = {name: (f"{name}.vrt", "application/x-gdal-vrt") for name in mosaics}
    write_json(out / COLLECTION, described(out, f"{event.hazard}-{event.event}", words, maps, assets))


def described(
    out: Path, name: str, words: str, maps: Sequence[HazardMap], assets: Mapping[str, tuple[str, str]]
) -> dict[str, Any]:  # fmt: skip
    """A STAC collection over delivered maps in folders below `out`; its `assets` are files and their media types."""
    import pystac

    items = [pystac.Item.from_file(str(one.folder / SEAL)) for one in maps]
    boxes = [item.bbox for item in items if item.bbox]
    times = [item.datetime for item in items if item.datetime]
    extent = pystac.Extent(
        pystac.SpatialExtent([_around(boxes), *boxes]),
        pystac.TemporalExtent([[min(times, default=None), max(times, default=None)]]),
    )
    found = pystac.Collection(id=name, extent=extent, license="other", description=words)
    for key, (file, media) in assets.items():
        found.add_asset(key, pystac.Asset(href=file, media_type=media, roles=["data"]))
    said: dict[str, Any] = found.to_dict(include_self_link=False, transform_hrefs=False)
    homes = [one.folder.relative_to(out).as_posix() for one in maps]
    return {**said, "links": [{"rel": "item", "href": f"{home}/{SEAL}", "type": "application/geo+json"} for home in homes]}


def _around(boxes: Sequence[Sequence[float]]) -> list[float]:
    """Of boxes on both sides of the antimeridian the whole circle, which STAC reads as all longitudes."""
    if any(west > east for west, _, east, _ in boxes):
        return [-180.0, min(b[1] for b in boxes), 180.0, max(b[3] for b in boxes)]
    return [min(b[0] for b in boxes), min(b[1] for b in boxes), max(b[2] for b in boxes), max(b[3] for b in boxes)]


def _mosaic(out: Path, name: str, maps: Sequence[HazardMap]) -> None:
    """NAME.vrt: the sheets warped to degrees on one lattice, their codes kept as they are; the first that analysed counts."""
    step = min(abs(float(one.grid.resolution.x)) for one in maps) * _DEGREES_PER_M
    (out / WARPED).mkdir(exist_ok=True)
    grids = {}
    for one in maps:
        path = out / WARPED / f"{one.folder.name}-{name}.vrt"
        grids[path] = _in_degrees(one.grid, step)
        virtual.write_warped(one.folder / f"{name}.tif", grids[path], path)
    whole = _around_all(list(grids.values()))
    pieces = [virtual.Piece(path.relative_to(out).as_posix(), _place(grid, whole)) for path, grid in grids.items()]
    write_text(out / f"{name}.vrt", virtual.vrt(whole, "uint8", 255, [name], "", {}, pieces, overlapping=True))


def _in_degrees(grid: GeoBox, step: float) -> GeoBox:
    """Pixels of a lattice of the whole globe that hold a grid."""
    west, south, east, north = meridian.degrees(grid).boundingbox
    left, top = math.floor((west + 180) / step), math.floor((90 - north) / step)
    shape = (math.ceil((90 - south) / step) - top, math.ceil((east + 180) / step) - left)
    return GeoBox(shape, Affine(step, 0, left * step - 180, 0, -step, 90 - top * step), "EPSG:4326")


def _around_all(grids: Sequence[GeoBox]) -> GeoBox:
    """Of grids of one lattice."""
    first = min(grids, key=lambda g: float(g.affine.c)).affine
    top = max(float(g.affine.f) for g in grids)
    corner = Affine(first.a, 0, first.c, 0, first.e, top)
    ends = [~corner @ (g.affine @ (g.shape[1], g.shape[0])) for g in grids]
    return GeoBox((round(max(y for _, y in ends)), round(max(x for x, _ in ends))), corner, "EPSG:4326")


def _place(grid: GeoBox, whole: GeoBox) -> Window:
    col, row = ~whole.affine @ (grid.affine.c, grid.affine.f)
    return Window(round(row), round(col), int(grid.shape[0]), int(grid.shape[1]))
