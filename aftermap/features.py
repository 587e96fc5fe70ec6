"""Points, lines and polygons of a file, staged in pixels of a grid and met window by window. Beside vector.py at its doors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from aftermap import meridian, ogr, raster, vector
from aftermap.errors import InputRefusedError
from aftermap.meridian import Bounds
from aftermap.tiles import Window
from aftermap.vector import Geometries

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
At = tuple[I64, I64]
"""Rows and columns (n,) within a window."""

DEGREES = "EPSG:4326"
_BATCH = 50_000
"""Features in memory at once while a file is staged."""
_STEP_PX = 0.125
"""Longest piece of a line: where it enters a pixel, its length is wrong by half a piece at most."""
_SMALL_PX = 64
"""Polygons whose surroundings have at most so many pixels are cut by them exactly; larger ones take pixels by their centre."""
_KINDS = {shapely.GeometryType.POINT: 0, shapely.GeometryType.LINESTRING: 1, shapely.GeometryType.POLYGON: 2}


@dataclass(frozen=True)
class Features:
    """Parts of `count` features in pixel coordinates (column, row) of a grid, in a file with a spatial index."""

    path: Path
    count: int

    def near(self, window: Window) -> tuple[I64, Geometries]:
        """The feature (n,) of each part that comes near a window, and the parts (n,), each one point, line or polygon."""
        bounds = (window.col, window.row, window.stop_col, window.stop_row)
        _, _, wkb, columns = ogr.pyogrio.raw.read(self.path, layer="parts", columns=["feature"], bbox=bounds)
        return np.asarray(columns[0], np.int64), np.asarray(shapely.from_wkb(wkb), dtype=object)


def layer_of(path: Path) -> str:
    """The one layer of a file that holds features. Raises InputRefusedError: missing, unreadable, none, several."""
    return vector.only_layer(path, ("Point", "LineString", "Polygon", "Unknown", "GeometryCollection"), "feature")


def stage(path: Path, grid: GeoBox, scratch: Path, *, polygons: bool = False) -> Features:
    """The features of a file about the grid, or its polygons alone, made valid and in pixels.

    Raises InputRefusedError as `vector.read_polygons`.
    """
    layer, number = (vector.polygon_layer if polygons else layer_of)(path), 0
    kinds = [shapely.GeometryType.POLYGON] if polygons else list(_KINDS)
    parts = vector.Layer("parts", "Unknown", {"feature": "integer"})
    with vector.GeoPackageWriter(scratch, GeoBox(grid.shape, Affine.identity(), None), [parts]) as out:
        for shapes, crs in _batches(path, layer, grid):
            placed = vector.place(vector.reproject(shapes, crs, grid, path.name), ~grid.affine)
            simple, of = shapely.get_parts(shapely.make_valid(placed), return_index=True)
            simple, deeper = shapely.get_parts(simple, return_index=True)  # make_valid may give collections of collections
            keep = np.isin(shapely.get_type_id(simple), kinds) & ~shapely.is_empty(simple)
            out.write("parts", simple[keep], {"feature": number + of[deeper][keep]})
            number += len(shapes)
    return Features(scratch, number)


def read_points(path: Path, grid: GeoBox) -> F64:
    """Places (n, 2) of the points of a file about the grid, as column and row in pixels; of a multipoint each is one.

    Raises InputRefusedError: missing, unreadable, no or several point layers, no CRS to go by; "points-outside" where not
    one lies in the image.
    """
    layer, found = vector.only_layer(path, ("Point", "Unknown"), "point"), [np.empty((0, 2))]
    for shapes, crs in _batches(path, layer, grid):
        of_points = shapes[np.isin(shapely.get_type_id(shapes), (shapely.GeometryType.POINT, shapely.GeometryType.MULTIPOINT))]
        if not len(of_points):
            continue
        parts = shapely.get_parts(vector.reproject(of_points, crs, grid, path.name))
        found.append(shapely.get_coordinates(vector.place(shapely.get_parts(parts), ~grid.affine)))
    places = np.concatenate(found)
    if not _located(places, Window(0, 0, int(grid.shape[0]), int(grid.shape[1])))[0].size:
        what = f"no point of {path.name} lies in the image"
        raise InputRefusedError(what, repair="give points of the same place", code="points-outside")
    return places


def refuse_apart(path: Path, grid: GeoBox) -> None:
    """Raises InputRefusedError as `stage` does, and where no polygon of the file lies in the image."""
    layer, image = vector.polygon_layer(path), shapely.box(0, 0, int(grid.shape[1]), int(grid.shape[0]))
    for shapes, crs in _batches(path, layer, grid):
        placed = vector.place(vector.reproject(shapes, crs, grid, path.name), ~grid.affine)
        if (shapely.intersects(placed, image) & (shapely.get_dimensions(placed) == 2)).any():
            return
    raise InputRefusedError(
        f"no polygon of {path.name} lies in the image", repair="give footprints of the same place", code="footprints-outside"
    )


def wholes(staged: Features, batch: int) -> Iterator[tuple[I64, Geometries]]:
    """Features as multipolygons (n,) of their polygons, in pixels, with their numbers in rising order, some at a time."""
    for first in range(0, staged.count, batch):
        where = f"feature >= {first} AND feature < {first + batch}"
        _, _, wkb, columns = ogr.pyogrio.raw.read(staged.path, layer="parts", columns=["feature"], where=where)
        order = np.argsort(columns[0], kind="stable")
        number, of = np.unique(np.asarray(columns[0], np.int64)[order], return_inverse=True)
        if len(number):
            parts = np.asarray(shapely.from_wkb(wkb), dtype=object)[order]
            yield number, np.asarray(shapely.multipolygons(parts, indices=of), dtype=object)


def area_beyond(shapes: Geometries, shape: tuple[int, int]) -> F64:
    """Area in pixels (n,) of the polygons that reach beyond an image of `shape` (y, x), 0 for the others."""
    return np.where(leaves(shapes, shape), shapely.area(shapes), 0.0)


def _batches(path: Path, layer: str, grid: GeoBox) -> Iterator[tuple[Geometries, str | None]]:
    """Geometries (n,) of the features about the grid, in the order of the file, and their CRS."""
    skip = 0
    try:
        info = ogr.pyogrio.read_info(path, layer=layer, force_total_bounds=meridian.turn(grid) is not None)
    except ogr.BROKEN as error:
        raise vector.unreadable(path, error) from error
    crs = info["crs"]
    bounds = None if _turns(grid, info["total_bounds"]) else _bounds(grid, crs)
    while True:
        try:
            _, _, wkb, _ = ogr.pyogrio.raw.read(
                path, layer=layer, columns=[], force_2d=True, bbox=bounds, skip_features=skip, max_features=_BATCH
            )
            shapes = np.asarray(shapely.from_wkb(wkb), dtype=object)
        except vector.BROKEN as error:
            raise vector.unreadable(path, error) from error
        if len(shapes):
            yield shapes[~shapely.is_missing(shapes)], crs
        if len(shapes) < _BATCH:
            return
        skip += _BATCH


def _turns(grid: GeoBox, bounds: Bounds | None) -> bool:
    """True where features of a file may have to be turned to lie on a grid of longitudes, which a box would miss."""
    if bounds is None or meridian.turn(grid) is None or not np.isfinite(bounds).all():
        return False
    own = grid.extent.boundingbox
    return bool(min(own.left, bounds[0]) < -180 or max(own.right, bounds[2]) > 180)


def _bounds(grid: GeoBox, crs: str | None) -> Bounds | None:
    """The surroundings of the grid in another CRS; None for everything, also where they cross the antimeridian."""
    if crs is None or grid.crs is None:
        return None
    own = grid.extent.boundingbox
    west, south, east, north = grid.extent.to_crs(crs, resolution=max(own.span_x, own.span_y) / 32).boundingbox
    if not np.isfinite([west, south, east, north]).all() or (abs(west) <= 180 and east - west > 180):
        return None
    x, y = (east - west) / 50, (north - south) / 50  # edges bend between the points that were moved
    return west - x, south - y, east + x, north + y


def kinds(parts: Geometries) -> U8:
    """0 for points, 1 for lines, 2 for polygons (n,)."""
    table = np.zeros(8, np.uint8)
    table[list(_KINDS)] = list(_KINDS.values())
    return np.asarray(table[shapely.get_type_id(parts)])


def leaves(parts: Geometries, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """True (n,) for parts that reach beyond an image of `shape` (y, x)."""
    west, north, east, south = shapely.bounds(parts).T
    return np.asarray((west < 0) | (north < 0) | (east > shape[1]) | (south > shape[0]))


def points_in(points: Geometries, window: Window) -> tuple[I64, At]:
    """Which points lie in a window, and in which of its pixels."""
    return _located(shapely.get_coordinates(points), window)


def _located(xy: F64, window: Window) -> tuple[I64, At]:
    col, row = np.floor(xy).astype(np.int64).T - np.array([[window.col], [window.row]])
    inside = np.flatnonzero((row >= 0) & (row < window.height) & (col >= 0) & (col < window.width))
    return inside, (row[inside], col[inside])


def pieces_in(lines: Geometries, window: Window) -> tuple[I64, At, F64]:
    """Pieces of lines whose middle lies in a window: their line, pixel, and extent (n, 2) in columns and rows.

    Each straight stretch is cut into equal pieces of at most an eighth of a pixel, whatever the window.
    """
    xy, of = shapely.get_coordinates(lines, return_index=True)
    start, stop, of = xy[:-1], xy[1:], np.where(of[:-1] == of[1:], of[:-1], -1)
    low, high = np.minimum(start, stop), np.maximum(start, stop)
    edge = np.array([[window.col, window.row], [window.stop_col, window.stop_row]])
    near = np.flatnonzero((of >= 0) & (high >= edge[0]).all(axis=1) & (low <= edge[1]).all(axis=1))
    start, whole = start[near], (stop - start)[near]
    count = np.maximum(np.ceil(np.hypot(*whole.T) / _STEP_PX), 1).astype(np.int64)
    stretch, k = _runs(count)
    middle = start[stretch] + whole[stretch] * ((k + 0.5) / count[stretch])[:, None]
    inside, at = _located(middle, window)
    return of[near][stretch[inside]], at, (whole / count[:, None])[stretch[inside]]


def _runs(count: I64) -> tuple[I64, I64]:
    """For counts (n,): 0 repeated count[0] times, 1 ...; and beside them 0, 1, ... within each run."""
    run = np.repeat(np.arange(len(count)), count)
    return run, np.arange(len(run)) - np.repeat(np.cumsum(count) - count, count)


def shares_in(polygons: Geometries, window: Window) -> Iterator[tuple[I64, At, F64]]:
    """Pixels of a window that polygons touch: polygon, pixel and share of the pixel in [0, 1], small ones together.

    A large polygon touches pixels with share 0, for it takes pixels whose centre it holds, and those whole.
    """
    bounds = shapely.bounds(polygons)
    first, last = np.floor(bounds[:, :2]).astype(np.int64), np.ceil(bounds[:, 2:]).astype(np.int64)
    size = np.maximum(last - first, 1)
    small = size.prod(axis=1) <= _SMALL_PX
    yield _cut(polygons, np.flatnonzero(small), first, size, window)
    for i in np.flatnonzero(~small).tolist():
        box = Window(int(first[i, 1]), int(first[i, 0]), int(size[i, 1]), int(size[i, 0])).overlap(window)
        if box is not None:
            yield _burnt(polygons[i], i, box, window)


def _cut(polygons: Geometries, which: I64, first: I64, size: I64, window: Window) -> tuple[I64, At, F64]:
    """The pixels of small polygons with the exact share of each."""
    run, k = _runs(size[which].prod(axis=1))
    of = which[run]
    corner = first[of] + np.stack([k % size[of, 0], k // size[of, 0]], axis=1)
    inside, at = _located(corner + 0.5, window)
    cells = shapely.box(*corner[inside].T, *(corner[inside] + 1).T)
    share: Any = shapely.area(shapely.intersection(polygons[of[inside]], cells))
    held = share > 0
    return of[inside][held], (at[0][held], at[1][held]), share[held]


def _burnt(polygon: Any, i: int, box: Window, window: Window) -> tuple[I64, At, F64]:
    affine = Affine.translation(box.col, box.row)
    held = raster.burn([polygon], (box.height, box.width), affine)
    row, col = np.nonzero(held | raster.burn([polygon], (box.height, box.width), affine, all_touched=True))
    inner = box.within(window)
    return np.full(len(row), i), (row + inner.row, col + inner.col), held[row, col].astype(np.float64)


def layers(path: Path) -> tuple[str, ...]:
    """Names of the layers of a file."""
    return tuple(str(name) for name, _ in ogr.layers(path))


def geojson(
    path: Path, layer: str, bbox: Bounds, most: int, page: GeoBox, grid: GeoBox
) -> dict[str, Any]:  # fmt: skip
    """The first features of a layer of our own, on `grid`, within a box in degrees of the page, as GeoJSON and attributes."""
    asked, box = _seen(bbox, page), None
    if asked is not None:
        if asked.is_empty:
            return {"type": "FeatureCollection", "features": [], "more": False}
        there = vector.reproject(np.array([asked]), DEGREES, page, "the view")
        box = tuple(shapely.total_bounds(there if page == grid else vector.place(there, grid.affine @ ~page.affine)))
    meta, _, wkb, columns = ogr.pyogrio.raw.read(path, layer=layer, bbox=box, max_features=most + 1)
    shapes = np.asarray(shapely.from_wkb(wkb), dtype=object)
    names = [str(name) for name in meta["fields"]]
    rows = zip(*(column.tolist() for column in columns), strict=True) if columns else iter(() for _ in shapes)
    found = [
        {"type": "Feature", "geometry": shape, "properties": dict(zip(names, map(_plain, row), strict=True))}
        for shape, row in zip(shown(shapes[:most], page, grid), rows, strict=False)
    ]
    return {"type": "FeatureCollection", "features": found, "more": len(shapes) > most}


def _seen(bbox: Bounds, page: GeoBox) -> Any | None:
    """What of a view in degrees lies on a page, whatever side of the antimeridian it is stated on; None for half the globe or
    more, which is seen whole."""
    (west, south, east, north), own = bbox, meridian.bounds(page)
    half = (east - west) / 2
    if half >= 90:
        return None
    centre = meridian.near((west + east) / 2, (own[0] + own[2]) / 2, 360)
    view = shapely.box(centre - half, south, centre + half, north)
    return view if own[2] - own[0] >= 180 else shapely.intersection(view, shapely.box(*own))


def _plain(value: Any) -> Any:
    """As JSON has it, which knows no NaN and no bytes."""
    return value if isinstance(value, (bool, int, str)) or (isinstance(value, float) and np.isfinite(value)) else None


def table(path: Path, layer: str) -> tuple[Geometries, list[dict[str, Any]], str | None]:
    """Geometries (n,), attributes and CRS of a layer, in its order. Raises InputRefusedError ("unreadable-vector")."""
    try:
        meta, _, wkb, columns = ogr.pyogrio.raw.read(path, layer=layer, force_2d=True)
    except (ogr.pyogrio.errors.DataSourceError, ogr.pyogrio.errors.DataLayerError) as error:
        raise vector.unreadable(path, error) from error
    names = [str(name) for name in meta["fields"]]
    rows = [dict(zip(names, row, strict=True)) for row in zip(*(column.tolist() for column in columns), strict=True)]
    crs = meta["crs"]
    nowhere = crs is None or pyproj.CRS(crs).type_name == "Engineering CRS"  # how GDAL gives a layer of ours in pixels
    return np.asarray(shapely.from_wkb(wkb), dtype=object), rows, None if nowhere else crs


def laid(shapes: Geometries, page: GeoBox, grid: GeoBox) -> Geometries:
    """Shapes (n,) in degrees in the CRS of a grid, which a page shows as if it were `page`; a straight edge there stays near one.

    Raises InputRefusedError ("outside-crs").
    """
    moved = vector.reproject(shapes, DEGREES, page, "the polygon")
    whole = np.array([shapely.union_all(shapely.get_parts(shape)) for shape in moved], dtype=object)
    fine = shapely.simplify(whole, _STEP_PX * abs(page.affine.determinant) ** 0.5)
    return np.asarray(fine if page == grid else vector.place(fine, grid.affine @ ~page.affine), dtype=object)


def shown(shapes: Geometries, page: GeoBox, grid: GeoBox) -> list[dict[str, Any]]:
    """The way back: geometries of GeoJSON, on past the antimeridian where the page has them there."""
    there = shapes if page == grid else vector.place(shapes, page.affine @ ~grid.affine)
    move, (west, _, east, _) = pyproj.Transformer.from_crs(str(page.crs), DEGREES, always_xy=True), meridian.bounds(page)

    def degrees(xy: F64) -> F64:
        lon, lat = move.transform(xy[:, 0], xy[:, 1])
        return np.stack([meridian.near(lon, (west + east) / 2, 360) if east - west < 180 else lon, lat], 1)

    return [shape.__geo_interface__ for shape in shapely.transform(there, degrees)]


def placed(lon: F64, lat: F64, grid: GeoBox) -> tuple[F64, F64]:
    """Places in degrees in the CRS of a grid; inf where that has none."""
    assert grid.crs is not None
    x, y = pyproj.Transformer.from_crs(DEGREES, grid.crs.proj, always_xy=True).transform(lon, lat)
    return x, y


def corners(shape: Any) -> int:
    """How many a shape has, each ring's first twice."""
    return int(shapely.count_coordinates(shape))


def polygon_at(path: Path, layer: str, place: tuple[float, float], page: GeoBox, grid: GeoBox) -> Any | None:
    """The polygon of a layer of our own, on `grid`, that holds a place in degrees of the page; None where none does."""
    there = vector.reproject(np.array([shapely.Point(place)]), DEGREES, page, "the place")[0]
    x, y = (there.x, there.y) if page == grid else (grid.affine @ ~page.affine) @ (there.x, there.y)
    _, _, wkb, _ = ogr.pyogrio.raw.read(path, layer=layer, columns=[], bbox=(x, y, x, y))
    found = [shape for shape in shapely.from_wkb(wkb) if shapely.contains_xy(shape, x, y)]
    return found[0] if found else None
