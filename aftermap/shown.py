"""A delivered map as a page shows it: facts, legends, painted tiles, outlines and the pictures of its report. Door: rio-tiler."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from odc.geo.geobox import GeoBox

from aftermap import features, meridian, palette, photos, raster, virtual
from aftermap.area import pixel_area_m2
from aftermap.errors import UnknownNameError
from aftermap.hazardmap import HazardMap
from aftermap.meridian import Bounds
from aftermap.palette import U8, Colour
from aftermap.products.density import Cells
from aftermap.tiles import Window

TILE_PX, MOST_ZOOM = 512, 22
"""Large tiles: a browser asks for six at a time."""
TILES_KEPT, PHOTOS_KEPT = 256, 8
_MOST_LAT = 85.05
STAGES = ((860, 680), (1460, 860))
"""Pixels that pages have for the map, less a margin: on a laptop and on a large screen."""
_NOWHERE = 254
"""No code of ours: what a tile holds beyond the raster, where 255 is "not analysed"."""
VECTORS = ("observed_event", "not_analysed", "built_up", "priority", "area_of_interest", "image_footprint")
MOST_FEATURES = 4000
_LEVELS_PX = 4_000_000
"""Areas by level are counted on an overview of about so many pixels."""
_FIELD = Affine(10, 0, 0, 0, -10, 0)
"""Where pixels without a place are laid: metres of the web's projection, at its origin."""
_TITLES = {
    "extent": "Extent", "likelihood": "Likelihood", "exclusion": "Not analysed", "agreement": "Agreement", "spread": "Spread",
    "familiarity": "Familiarity", "density": "Density",
}  # fmt: skip


Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Shown:
    """One delivered map under the name of a page's list."""

    id: str
    map: HazardMap

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Rasters that are there."""
        return tuple(name for name in _TITLES if (self.map.folder / f"{name}.tif").exists())

    @cached_property
    def placed(self) -> bool:
        """False where the scene has no CRS, or the web's projection no place for it, about a pole; it is shown in pixels."""
        if self.map.grid.crs is None:
            return False
        _, south, _, north = meridian.bounds(self.map.grid)
        return south >= -_MOST_LAT and north <= _MOST_LAT

    @cached_property
    def grid(self) -> GeoBox:
        """Where it lies for the page."""
        own = self.map.grid
        return own if self.placed else GeoBox(own.shape, _FIELD, "EPSG:3857")

    @property
    def bounds(self) -> Bounds:
        """For the page in degrees, on past the antimeridian."""
        return meridian.bounds(self.grid)

    def facts(self) -> dict[str, Any]:
        """What the page says of it."""
        run = self.map.made_by
        inputs = run["inputs"]
        return {
            "id": self.id, "folder": self.map.folder.resolve().name,
            "name": run["name"], "hazard": run["hazard"], "maps": run["maps"], "answer": run["answer"],
            "after": inputs["after"].get("acquired"), "before": inputs.get("before", {}).get("acquired"),
            "bounds": self.bounds, "placed": self.placed,
            "layers": [{"name": n, "title": _TITLES[n], "legend": self._legend(n)} for n in self.layers],
            "photos": list(self.pictures),
            "vectors": self.vectors, "unit": run["area_unit"], "threshold": run["methods"]["percent_at_threshold"],
            "calibration": run["calibration"], "summary": self.map.summary,
            "methods": {"made by": " + ".join(run["methods"]["combined"]), "why": run["methods"]["why"]},
            "warnings": [{"what": w["what"], "repair": w["repair"]} for w in run["warnings"]],
            "made_with": f"aftermap {run['aftermap']}",
        }  # fmt: skip

    @cached_property
    def vectors(self) -> list[str]:
        """Layers of map.gpkg that are there."""
        path = self.map.folder / "map.gpkg"
        return [name for name in VECTORS if name in features.layers(path)] if path.exists() else []

    def _legend(self, name: str) -> list[dict[str, str]]:
        def row(label: str, colour: Colour) -> dict[str, str]:
            return {"label": label, "colour": palette.css(colour)}

        run = self.map.made_by
        if name == "extent":
            return [row(run["maps"], palette.EXTENT), row("not analysed", palette.NOT_ANALYSED)]
        if name == "exclusion":
            return [row(label, colour) for code, (label, colour) in palette.EXCLUSION.items() if code not in (0, palette.NODATA)]
        if name == "agreement":
            count = len(run["methods"]["ran"])
            return [row(f"{k} of {count} methods", palette.agreed(k, count)) for k in range(1, count + 1)]
        if name == "density":
            return [row(f"{root**2 / 100:g} % of a cell", colour) for root, colour in palette.LIKELIHOOD[1:]]
        stops = {"likelihood": palette.LIKELIHOOD, "spread": palette.SPREAD, "familiarity": palette.FAMILIARITY}[name]
        return [row(f"{percent} %", colour) for percent, colour in stops]

    def path(self, layer: str) -> Path:
        """The raster of a layer. Raises UnknownNameError: nothing else is ever opened for a name from outside."""
        if layer not in self.layers:
            raise UnknownNameError("layer", layer, self.layers)
        return self.map.folder / f"{layer}.tif"

    def tile(self, layer: str, z: int, x: int, y: int, *, threshold: float | None = None) -> bytes:
        """A PNG of TILE_PX a side in the web's projection; with a threshold, in percent, likelihood as the extent above it.
        Empty bytes where the map is not."""
        return _tile(self, layer, z, x, y, threshold, self.path(layer).stat().st_mtime_ns)

    def ahead(self) -> None:
        """Makes what a page asks for first, which shows the whole map, before anybody asks: tiles and pictures."""
        for stage in STAGES:
            for at in _first_tiles(self.bounds, stage):
                self.tile("extent", *at)
        for name in self.pictures:
            self.photo(name)

    def _made(self, layer: str, z: int, x: int, y: int, threshold: float | None) -> bytes:
        found = _read_tile(self.path(layer), self._grid_of(layer), z, x, y)
        if found is None:
            return b""
        values, beyond = found
        codes = _roots(values) if layer == "density" else values
        picture = self._painted(layer, codes, threshold)
        picture[beyond, 3] = 0
        return _png(picture)

    def _grid_of(self, layer: str) -> GeoBox:
        """That of the map, or of the cells of the density."""
        return Cells(*self.map.made_by["parameters"]["density"]["cell_px"]).of(self.grid) if layer == "density" else self.grid

    def _painted(self, layer: str, codes: U8, threshold: float | None) -> U8:
        if layer == "likelihood" and threshold is not None:
            above = np.where(codes == palette.NODATA, codes, codes > threshold).astype(np.uint8)
            return palette.paint_extent(above)
        if layer == "agreement":
            return palette.paint_agreement(codes, len(self.map.made_by["methods"]["ran"]))
        paint = {
            "extent": palette.paint_extent, "likelihood": palette.paint_likelihood, "exclusion": palette.paint_exclusion,
            "spread": palette.paint_spread, "familiarity": palette.paint_familiarity, "density": palette.paint_density,
        }[layer]  # fmt: skip
        return paint(codes)

    @cached_property
    def levels(self) -> list[float]:
        """Area above each whole percent of likelihood, from 0 to 100, in the unit of the map; counted on an overview."""
        height, width = self.map.shape
        scale = max(1.0, (height * width / _LEVELS_PX) ** 0.5)
        shape = (max(1, round(height / scale)), max(1, round(width / scale)))
        codes = raster.thumbnail(self.path("likelihood"), shape)
        middle = Window(height // 2, width // 2, 1, 1)
        gsd = self.map.made_by["parameters"]["gsd_m"]
        each = float(pixel_area_m2(self.map.grid, middle, gsd_m=gsd)[0, 0]) * (height * width) / (shape[0] * shape[1])
        counts = np.bincount(codes.ravel(), minlength=256)[:101][::-1].cumsum()[::-1]
        above = np.append(counts[1:], 0) * each / (1e4 if self.map.made_by["area_unit"] == "ha" else 1)
        return [round(float(area), 3) for area in above]

    @cached_property
    def pictures(self) -> Mapping[str, tuple[str, bytes]]:
        """Photographs of the report by name: media type and bytes."""
        return photos.of(self.map.folder / "report.html")

    def photo(self, name: str) -> tuple[str, bytes]:
        """One of them as it fills `bounds`. Raises UnknownNameError."""
        if name not in self.pictures:
            raise UnknownNameError("layer", name, self.pictures)
        return _photo(self, name) if self.placed else self.pictures[name]

    def outlines(self, layer: str, bbox: Bounds) -> dict[str, Any]:
        """GeoJSON in degrees of the features of a layer within a box in degrees, the first MOST_FEATURES. Raises
        UnknownNameError."""
        if layer not in self.vectors:
            raise UnknownNameError("layer", layer, self.vectors)
        return features.geojson(self.map.folder / "map.gpkg", layer, bbox, MOST_FEATURES, self.grid, self.map.grid)


@lru_cache(TILES_KEPT)
def _tile(one: Shown, layer: str, z: int, x: int, y: int, threshold: float | None, _written_ns: int) -> bytes:
    """The last tiles of all maps, of files as they were then."""
    return one._made(layer, z, x, y, threshold)


@lru_cache(PHOTOS_KEPT)
def _photo(one: Shown, name: str) -> tuple[str, bytes]:
    return "image/webp", photos.laid(one.pictures[name][1], one.grid, one.bounds)


def _first_tiles(bounds: Bounds, stage: tuple[int, int]) -> Iterator[tuple[int, int, int]]:
    """Zoom, column and row of the tiles with which a page fits degrees into pixels (across, down)."""
    import morecantile  # with rio-tiler

    grid = morecantile.tms.get("WebMercatorQuad")
    west, south, east, north = bounds
    (_, low), (_, high) = grid.xy(0, south, truncate=True), grid.xy(0, north, truncate=True)
    shares = min((east - west) / 360, 1), (high - low) / (grid.xy_bbox.top - grid.xy_bbox.bottom)
    zoom = min(max(round(math.log2(min(px / (TILE_PX * s) for px, s in zip(stage, shares, strict=True)))), 0), MOST_ZOOM)
    west, east = meridian.within(west, east)
    return ((tile.z, tile.x, tile.y) for tile in grid.tiles(west, south, east, north, [zoom], truncate=True))


def _roots(shares: npt.NDArray[np.float32]) -> U8:
    """Codes (y, x) for palette.paint_density."""
    return np.where(np.isnan(shares), palette.NODATA, np.rint(100 * np.sqrt(np.nan_to_num(shares)))).astype(np.uint8)


def _read_tile(path: Path, grid: GeoBox, z: int, x: int, y: int) -> tuple[npt.NDArray[Any], Bool] | None:
    """Values (y, x) of a tile, and where it reaches beyond the raster; None where it does not touch it."""
    parts = [part for one in _turned(grid, z, x) if (part := _read_part(path, one, z, x, y)) is not None]
    if len(parts) < 2:
        return parts[0] if parts else None
    (values, beyond), (others, outside) = parts
    return np.where(beyond, others, values), beyond & outside


def _turned(grid: GeoBox, z: int, x: int) -> list[GeoBox]:
    """The grid as often as it lies on a column of tiles, a whole turn on or back: on both of its ends at the most."""
    if (circle := meridian.turn(grid)) is None:
        return [grid]
    west, east = (circle * (k / 2**z - 0.5) for k in (x, x + 1))
    first, last = meridian.turns(*meridian.span(grid), (west, east), circle)
    return [meridian.moved(grid, k * circle) for k in range(int(first), int(last) + 1)]


def _read_part(path: Path, grid: GeoBox, z: int, x: int, y: int) -> tuple[npt.NDArray[Any], Bool] | None:
    from rio_tiler.errors import TileOutsideBounds
    from rio_tiler.io import Reader

    with virtual.placed(path, grid) as src, Reader(str(path), dataset=src) as reader:
        try:
            options = {"resampling_method": "nearest", "reproject_method": "nearest", "nodata": _NOWHERE}
            image = reader.tile(x, y, z, tilesize=TILE_PX, indexes=1, **options)
        except TileOutsideBounds:
            return None
    beyond = np.ma.getmaskarray(image.array)[0]
    return np.where(beyond, image.array.dtype.type(palette.NODATA), image.array.data[0]), beyond


def _png(picture: U8) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG", compress_level=1)
    return out.getvalue()
