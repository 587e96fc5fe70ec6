"""A catalog of two passes over 1,000 x 1,000 km without its bytes: one simulated pair side by side, in virtual rasters by item.

An item is as wide as a slice of Sentinel-1 (205 km); its files are virtual rasters over one Cloud Optimized GeoTIFF of 2,048 px.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from affine import Affine
from odc.geo.geobox import GeoBox

from aftermap import gather, pieces, raster
from aftermap.aoi import Aoi
from aftermap.itemfile import EventFile, Part
from aftermap.journal import sha256
from aftermap.sheets import Sheet
from aftermap.tiles import Window, blocks
from aftermap.virtual import Piece, vrt
from tests.stac_scenes import item, sentinel1_rtc

TILE_PX, RIM_PX, SLICE_PX = 2048, 512, 20_480
"""Side of the simulated pair, columns of it that the swath's edge crosses and that are left out, and side of an item."""
CRS, WEST, NORTH, GSD_M = "EPSG:32633", 400_000, 1_500_000, 10
DATES = {"before": datetime(2024, 5, 1, 5), "after": datetime(2024, 5, 13, 5)}
ORBITS = {"before": 53_683, "after": 53_858}
EDGE_M = 5_000
"""Edges of the area have vertices this close, for they bend."""
STATED = ("bytes", "mtime_ns")


@dataclass(frozen=True)
class World:
    """The items of both dates, and item files over squares of them."""

    folder: Path
    items: Mapping[str, tuple[Mapping[str, Any], ...]]
    cog_bytes: int
    """Of one date of the tile, both bands, as catalogs keep it."""

    def event(self, side: int) -> Path:
        """The item file of the square of so many pixels in the north-west corner."""
        path = self.folder / f"items-{side}.json"
        over = {date: tuple(one for one in own if _corner(one) < side) for date, own in self.items.items()}
        layers = {(date, "radar"): over[date] for date in ("after", "before")}
        inner = GeoBox((side - 1,) * 2, grid(side).affine @ Affine.translation(0.5, 0.5), CRS)
        sheet = Sheet("", Aoi.of_geojson(inner.extent.segmented(EDGE_M).to_crs("EPSG:4326").json), CRS)
        EventFile("flood", f"{DATES['after']:%Y-%m-%dT%H:%M:%SZ}", "", "", (Part(sheet, layers, (), ()),)).write(path)
        return path


def grid(side: int, row: int = 0, col: int = 0) -> GeoBox:
    """A square whose first pixel is that one."""
    return GeoBox((side, side), Affine(GSD_M, 0, WEST + GSD_M * col, 0, -GSD_M, NORTH - GSD_M * row), CRS)


def _corner(one: Mapping[str, Any]) -> int:
    """The further of an item's first row and column."""
    left, _, _, top = one["properties"]["proj:bbox"]
    return int(max(left - WEST, NORTH - top) / GSD_M)


def world(folder: Path, side: int) -> World:
    """Items that cover a square of so many pixels, made anew."""
    tile = folder / "tile"
    if not (tile / "after.tif").exists():
        pieces.load("simulate", "flood")(tile, size=TILE_PX + RIM_PX, seed=0)
    shutil.rmtree(folder / "catalog", ignore_errors=True)
    sources = {date: _published(folder / "catalog", tile / f"{date}.tif", date) for date in DATES}
    corners = range(0, side, SLICE_PX)
    items = {
        date: tuple(_slice(folder / "catalog", source, date, row, col) for row in corners for col in corners)
        for date, source in sources.items()
    }
    stored = sum((folder / "catalog" / a["href"]).stat().st_size for a in sources["after"]["assets"].values())
    return World(folder, items, stored)


def _published(folder: Path, path: Path, date: str) -> Mapping[str, Any]:
    """One date of the tile as a catalog has it, in linear power."""
    found = raster.read_window(path, Window(0, RIM_PX, TILE_PX, TILE_PX), (1, 2))
    vv, vh = 10 ** (found / 10)
    return sentinel1_rtc(folder, vv, vh, grid(TILE_PX), DATES[date], absolute_orbit=ORBITS[date])


def _slice(folder: Path, source: Mapping[str, Any], date: str, row: int, col: int) -> Mapping[str, Any]:
    """An item over the tile, repeated; `row` and `col` are of its first pixel."""
    own, name = grid(SLICE_PX, row, col), f"{source['id']}_{row}_{col}"
    assets = {}
    for key, asset in source["assets"].items():
        repeated = [Piece(f"../{asset['href']}", window) for window in blocks((SLICE_PX,) * 2, TILE_PX)]
        path = folder / date / f"{name}-{key}.vrt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(vrt(own, "float32", -32768.0, (key.upper(),), "", {}, repeated), encoding="utf-8")
        assets[key] = {**asset, "href": str(path.absolute())}
    said = {k: v for k, v in source["properties"].items() if not k.startswith("proj:") and k != "datetime"}
    return item("sentinel-1-rtc", name, DATES[date], own, assets, said)


def fill(items: Path, read: Path, windows: Path) -> int:
    """Keeps all windows of a world, as if they had been read: links to those of its first tile in `read`; how many there are."""
    (part,) = EventFile.read(items).parts
    shutil.rmtree(windows, ignore_errors=True)
    count = 0
    for one in gather.wanted(part):
        held = _first_tile(read, one.layer)
        (windows / one.key).mkdir(parents=True)
        lines = []
        for cell in one.cells(part.sheet.area):
            source, code = held[cell.row % TILE_PX, cell.col % TILE_PX]
            name = f"{cell.row}-{cell.col}"
            path = windows / one.key / f"{name}-{code[:16]}.tif"
            os.link(source, path)
            state = dict(zip(STATED, (path.stat().st_size, path.stat().st_mtime_ns), strict=True))
            lines.append(json.dumps({"cell": name, "file": path.name, "sha256": code, **state}))
        (windows / one.key / gather.INDEX).write_text("\n".join(lines) + "\n", encoding="utf-8")
        count += len(lines)
    return count


def _first_tile(read: Path, layer: str) -> Mapping[tuple[int, int], tuple[Path, str]]:
    """Windows of the first tile of a layer, and their hashes."""
    (folder,) = (path.parent for path in read.glob(f"*/{layer}.vrt"))
    corners = {(row, col): f"{row}-{col}-*.tif" for row, col, _, _ in blocks((TILE_PX,) * 2, gather.CELL_PX)}
    found = {corner: next(folder.glob(pattern)) for corner, pattern in corners.items()}
    return {corner: (path, sha256(path)) for corner, path in found.items()}
