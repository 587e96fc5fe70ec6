"""Polygons in and out: read, rasterise by window, join, write GeoPackages. The door to pyogrio, shapely and sqlite3."""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import pyproj.exceptions
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from shapely import affinity

from aftermap import meridian, ogr, raster
from aftermap.errors import InputRefusedError
from aftermap.tiles import Window

Geometries = npt.NDArray[np.object_]
"""shapely geometries (n,)."""
Bool = npt.NDArray[np.bool_]
Values = Sequence[Any] | npt.NDArray[Any]

BROKEN = (*ogr.BROKEN, shapely.errors.ShapelyError)
"""What reading a damaged file, or geometries that are none, raises."""
_BURN_PX = 2048
"""Side of the fixed squares that polygons are burnt in."""
_EDGE_PARTS = 128
"""Edges are cut to this part of the extent before reprojection, for a straight line in one CRS is a curve in another."""
_BATCH = 300_000
"""Vertices and rows that gather in memory before a layer is opened and appended to."""
_VERSION = "1.2"
"""GeoPackage version, which also the GDAL of older QGIS (3.22) reads without a warning."""
_FIXED_TIME = "1970-01-01T00:00:00.000Z"
"""Time inside a GeoPackage: equal input gives equal bytes (architecture.md rule 9)."""


def polygons(shapes: Sequence[Sequence[Sequence[tuple[float, float]]]]) -> Geometries:
    """Polygons (n,) from lists of rings of (x, y), the outer ring first; rings start and turn in one canonical way."""
    if not shapes:
        return np.empty(0, dtype=object)
    rings = list(chain.from_iterable(shapes))
    corners = np.array(list(chain.from_iterable(rings)), dtype=np.float64)
    ring_ends = np.cumsum([0, *map(len, rings)])
    shape_ends = np.cumsum([0, *map(len, shapes)])
    built = shapely.from_ragged_array(shapely.GeometryType.POLYGON, corners, (ring_ends, shape_ends))
    return np.asarray(shapely.normalize(built), dtype=object)


def points(xy: Sequence[tuple[float, float]]) -> Geometries:
    """Points (n,) from pairs of (x, y)."""
    return np.asarray(shapely.points(np.array(xy, np.float64).reshape(-1, 2)), dtype=object)


def unions(parts: Sequence[Sequence[Any]]) -> Geometries:
    """The union (n,) of each list of polygons that fit to the last bit; no vertex where parts met remains on a straight edge."""
    whole = np.empty(len(parts), dtype=object)
    for i, pieces in enumerate(parts):
        whole[i] = shapely.union_all(pieces) if len(pieces) > 1 else pieces[0]
    # Normalised rings start in a true corner; simplifying by zero then removes every other point on a straight edge.
    return np.asarray(shapely.normalize(shapely.simplify(shapely.normalize(whole), 0)), dtype=object)


def place(geometries: Geometries, affine: Affine) -> Geometries:
    """Geometries in pixel coordinates (column, row) moved to world coordinates."""
    a, b, c, d, e, f = affine[:6]

    def move(xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        x, y = xy.T
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)

    return np.asarray(shapely.transform(geometries, move))


def rectangle(grid: GeoBox) -> Any:
    """The polygon of the grid's outer edge, in its CRS."""
    height, width = grid.shape
    return place(np.array([shapely.box(0, 0, width, height)]), grid.affine)[0]


def boxes(first: npt.NDArray[Any], last: npt.NDArray[Any], affine: Affine) -> Geometries:
    """Rectangles (n,) in world coordinates between pixel corners (n, 2) of (column, row)."""
    return place(np.asarray(shapely.box(*first.T, *last.T), dtype=object), affine)


def lowest_pixels(geometries: Geometries, affine: Affine) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Row and column (n,) of the first pixel in the last row of each polygon whose corners are pixel corners."""
    xy, of = shapely.get_coordinates(place(geometries, ~affine), return_index=True)
    corner = np.rint(xy).astype(np.int64)
    order = np.lexsort((corner[:, 0], -corner[:, 1], of))
    first = order[np.searchsorted(of[order], np.arange(len(geometries)))]
    return corner[first, 1] - 1, corner[first, 0]


def from_wkt(text: str) -> Any:
    """The geometry of well-known text. Raises InputRefusedError ("unreadable-vector")."""
    try:
        return shapely.from_wkt(text)
    except shapely.errors.ShapelyError as error:
        raise unreadable(Path(text[:40]), error) from error


def read_polygons(path: Path, grid: GeoBox) -> list[Any]:
    """Valid polygons of a file's one polygon layer, in the grid's CRS (pixel space where the grid has none).

    Raises InputRefusedError: missing or unreadable file, no or several polygon layers, no polygon, no CRS to go by.
    """
    layer = polygon_layer(path)
    try:
        meta, _, wkb, _ = ogr.pyogrio.raw.read(path, layer=layer, columns=[], force_2d=True)
        found = _polygonal(shapely.from_wkb(wkb))
    except BROKEN as error:
        raise unreadable(path, error) from error
    if len(found) == 0:
        raise InputRefusedError(f"{path.name} holds no polygon", repair="give a file of polygons", code="no-polygons")
    return list(shapely.get_parts(reproject(found, meta["crs"], grid, path.name)))


def bounds(shapes: Sequence[Any]) -> tuple[float, float, float, float]:
    """West, south, east and north of all shapes."""
    west, south, east, north = (float(v) for v in shapely.total_bounds(np.asarray(shapes, dtype=object)))
    return west, south, east, north


def holds(shapes: Sequence[Any], xy: npt.NDArray[np.float64]) -> Bool:
    """True (n,) where a place (n, 2) lies in one of the shapes."""
    return np.asarray(shapely.contains_xy(shapely.union_all(np.asarray(shapes, dtype=object)), xy[:, 0], xy[:, 1]), bool)


def polygon_layers(path: Path) -> tuple[str, ...]:
    """Names of the layers of polygons in one of our own packages."""
    return tuple(str(name) for name, kind in ogr.layers(path) if kind is not None and "Polygon" in kind)


def is_vector(path: Path) -> bool:
    """True for a file that holds layers of vector data."""
    try:
        return path.is_file() and len(ogr.layers(path)) > 0
    except ogr.BROKEN:
        return False


def polygon_layer(path: Path) -> str:
    """The one layer of a file that holds polygons. Raises InputRefusedError: missing, unreadable, none, several."""
    return only_layer(path, ("Polygon", "Unknown", "GeometryCollection"), "polygon")


def only_layer(path: Path, kinds: Sequence[str], word: str) -> str:
    """The one layer of a file whose geometry is of these kinds."""
    if not path.exists():
        raise InputRefusedError(f"there is no file {path}", repair="check the path", code="missing-file")
    try:
        layers = ogr.layers(path)
    except ogr.BROKEN as error:
        raise unreadable(path, error) from error
    fitting = [name for name, kind in layers if kind is not None and any(k in kind for k in kinds)]
    if not fitting:
        raise InputRefusedError(f"{path.name} holds no {word} layer", repair=f"give a file of {word}s", code=f"no-{word}s")
    if len(fitting) > 1:
        what = f"{path.name} holds {len(fitting)} {word} layers: {', '.join(fitting)}"
        raise InputRefusedError(what, repair="export the one to use to a file of its own", code="several-layers")
    return str(fitting[0])


def unreadable(path: Path, error: Exception) -> InputRefusedError:
    what = f"{path.name} cannot be read as vector data: {error}"
    return InputRefusedError(what, repair="export it again as GeoPackage or GeoJSON", code="unreadable-vector")


def _polygonal(shapes: Geometries) -> Geometries:
    """The valid polygons in these geometries; a ring that crosses itself is split where it does."""
    shapes = shapely.get_parts(shapely.make_valid(shapes[~shapely.is_missing(shapes)]))
    shapes = shapely.get_parts(shapes)  # make_valid may give a collection of collections
    return np.asarray(shapes[(shapely.get_type_id(shapes) == shapely.GeometryType.POLYGON) & ~shapely.is_empty(shapes)])


def reproject(shapes: Geometries, crs: str | None, grid: GeoBox, name: str) -> Geometries:
    """Geometries (n,) in the CRS of a grid; where that is longitude, turned to lie on the grid, as a collection if twice."""
    if crs is None and grid.crs is None:
        return shapes
    if crs is None or grid.crs is None:
        lacking, holder = (name, "the scene") if crs is None else ("the scene", name)
        raise InputRefusedError(
            f"{lacking} has no CRS and {holder} has one", repair=f"georeference {lacking} first", code="vector-without-crs"
        )
    try:
        same = pyproj.CRS(crs) == grid.crs.proj
        move = pyproj.Transformer.from_crs(crs, grid.crs.proj, always_xy=True)
    except pyproj.exceptions.ProjError as error:
        what = f"{name} cannot be brought to {grid.crs}: {error}"
        raise InputRefusedError(what, repair="give it in another CRS", code="outside-crs") from error
    if same:
        return _turned(shapes, grid)
    west, south, east, north = shapely.total_bounds(shapes)
    extent = max(east - west, north - south)  # 0 of a single point, which has no edge
    fine = shapely.segmentize(shapes, extent / _EDGE_PARTS) if extent else shapes
    moved = np.asarray(shapely.transform(fine, lambda xy: np.stack(move.transform(xy[:, 0], xy[:, 1]), 1)))
    if not np.isfinite(shapely.total_bounds(moved)).all() or not np.isfinite(shapely.bounds(moved)).all():
        what = f"{name} reaches beyond where {grid.crs} is defined"
        raise InputRefusedError(what, repair="cut it to the surroundings of the scene", code="outside-crs")
    return _turned(_mended(moved, grid), grid)


def _mended(shapes: Geometries, grid: GeoBox) -> Geometries:
    """Shapes reprojected to longitude: one over the antimeridian comes torn over the whole world, and is narrow again."""
    circle = meridian.turn(grid)
    if circle is None:
        return shapes
    mended = shapely.transform(shapes, lambda xy: np.stack([meridian.near(xy[:, 0], circle / 2, circle), xy[:, 1]], 1))
    torn, whole = (shapely.bounds(s)[:, 2] - shapely.bounds(s)[:, 0] for s in (shapes, mended))
    return np.where(whole < torn / 2, mended, shapes)


def _turned(shapes: Geometries, grid: GeoBox) -> Geometries:
    """Shapes in longitude, turned to lie on the grid; those that do not are left where they are."""
    circle = meridian.turn(grid)
    if circle is None or len(shapes) == 0:
        return shapes
    west, _, east, _ = shapely.bounds(shapes).T
    first, last = meridian.turns(west, east, meridian.span(grid), circle)
    out = shapes.copy()
    for i in np.flatnonzero((first <= last) & ((first != 0) | (last != 0))):
        steps = [(k * circle, 0.0) for k in range(int(first[i]), int(last[i]) + 1)]
        copies = [affinity.translate(shapes[i], *step) for step in steps]
        out[i] = copies[0] if len(copies) == 1 else shapely.geometrycollections(copies)
    return out


def rasterise(geometries: Sequence[Any], grid: GeoBox, window: Window) -> Bool:
    """True (y, x) where a pixel's centre lies in one of the polygons, which are in the grid's CRS.

    Burnt in fixed squares of the grid, so that rounding at a centre on an edge cannot depend on the window.
    """
    inside = np.zeros((window.height, window.width), dtype=bool)
    tree = shapely.STRtree(geometries)
    for row in range(window.row // _BURN_PX * _BURN_PX, window.stop_row, _BURN_PX):
        for col in range(window.col // _BURN_PX * _BURN_PX, window.stop_col, _BURN_PX):
            square = Window(row, col, _BURN_PX, _BURN_PX)
            affine = _cut(grid.affine, col, row)
            near = np.sort(tree.query(place(np.array([shapely.box(0, 0, _BURN_PX, _BURN_PX)]), affine)[0]))
            part = square.overlap(window)
            if len(near) and part is not None:
                burnt = raster.burn([geometries[i] for i in near], (_BURN_PX, _BURN_PX), affine)
                inside[part.within(window).slices] = burnt[part.within(square).slices]
    return inside


def _cut(affine: Affine, col: int, row: int) -> Affine:
    """The transform of a window that starts there."""
    a, b, c, d, e, f = affine[:6]
    return Affine(a, b, a * col + b * row + c, d, e, d * col + e * row + f)


@dataclass(frozen=True)
class Layer:
    """A layer of a GeoPackage: its name, geometry type ("Polygon", "MultiPolygon"; None for a table) and fields."""

    name: str
    geometry_type: str | None
    fields: Mapping[str, str]
    """Field -> "text", "real" or "integer"; None and NaN are written as NULL."""


@dataclass(frozen=True)
class Style:
    """A default QGIS style of a layer."""

    layer: str
    name: str
    qml: str


class GeoPackageWriter:
    """A new GeoPackage, its layers written in batches of rows; equal input gives equal bytes.

    Every layer exists from the start, so that an empty one has its schema too. `close` (or leaving the context) writes
    what still waits, and the styles.
    """

    def __init__(self, path: Path, grid: GeoBox, layers: Sequence[Layer], styles: Sequence[Style] = ()):
        path.unlink(missing_ok=True)
        # Waiting for the disk at every batch costs seconds; a file that a power cut spoils is never renamed into place.
        ogr.pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": _FIXED_TIME, "OGR_SQLITE_SYNCHRONOUS": "OFF"})
        self._path, self._styles = path, styles
        self._crs = None if grid.crs is None else grid.crs.to_wkt()
        self._layers = {layer.name: layer for layer in layers}
        self._waiting: dict[str, list[tuple[Geometries, dict[str, npt.NDArray[Any]]]]] = {name: [] for name in self._layers}
        self._rows = dict.fromkeys(self._layers, 0)
        for i, layer in enumerate(layers):
            no_rows = {name: _column([], kind) for name, kind in layer.fields.items()}
            self._append(layer, np.empty(0, dtype=object), no_rows, exists=i > 0)

    def write(self, layer: str, geometries: Sequence[Any] | Geometries, columns: Mapping[str, Values]) -> None:
        """Adds rows: one geometry each (none for a table) and a value for every field of the layer."""
        fields = self._layers[layer].fields
        assert set(columns) == set(fields), f"{layer} has the fields {list(fields)}, got {list(columns)}"
        waiting = self._waiting[layer]
        shapes = np.array([*geometries, None], dtype=object)[:-1]  # the None keeps numpy from looking into the geometries
        waiting.append((shapes, {name: _column(columns[name], kind) for name, kind in fields.items()}))
        if sum(map(_weight, waiting)) >= _BATCH:
            self._flush(layer)

    def _flush(self, layer: str) -> None:
        waiting = self._waiting[layer]
        if sum(map(_weight, waiting)):
            columns = {name: np.concatenate([some[name] for _, some in waiting]) for name in self._layers[layer].fields}
            self._append(self._layers[layer], np.concatenate([shapes for shapes, _ in waiting]), columns, exists=True)
        waiting.clear()

    def _append(self, layer: Layer, shapes: Geometries, columns: Mapping[str, npt.NDArray[Any]], *, exists: bool) -> None:
        self._rows[layer.name] += len(shapes) if layer.geometry_type else len(next(iter(columns.values())))
        with warnings.catch_warnings(), _disk(self._path):
            warnings.filterwarnings("ignore", message="'crs' was not provided")  # the doctor says it in words
            ogr.pyogrio.raw.write(
                self._path,
                geometry=None if layer.geometry_type is None else shapely.to_wkb(shapes),
                field_data=list(columns.values()), fields=list(columns), layer=layer.name, driver="GPKG",
                geometry_type=layer.geometry_type, crs=None if layer.geometry_type is None else self._crs,
                promote_to_multi=layer.geometry_type == "MultiPolygon", append=exists,
                layer_options={} if self._crs or layer.geometry_type is None else {"SRID": "-1"},
                dataset_options={} if self._path.exists() else {"VERSION": _VERSION},
            )  # fmt: skip

    def close(self) -> None:
        """Writes the rows that wait, and the styles. Raises OSError where the file then does not hold every row."""
        for name in self._layers:
            self._flush(name)
        with _disk(self._path):
            if self._styles:
                _write_styles(self._path, self._styles)
            _refuse_lacking(self._path, self._rows)

    def __enter__(self) -> GeoPackageWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except (ogr.pyogrio.errors.DataSourceError, ogr.pyogrio.errors.FeatureError, sqlite3.Error) as error:
        raise OSError(f"{path.name} could not be written: {error}") from error


def _refuse_lacking(path: Path, rows: Mapping[str, int]) -> None:
    """GDAL closes a file without a word where the disk did not take its last pages."""
    with closing(sqlite3.connect(path)) as file:
        (said,) = file.execute("PRAGMA quick_check(1)").fetchone()
        held = {name: file.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in rows}
    if said != "ok" or held != dict(rows):
        raise OSError(f"{path.name} was not written whole: {said}, rows {held} of {dict(rows)}")


def _weight(batch: tuple[Geometries, dict[str, npt.NDArray[Any]]]) -> int:
    """Vertices and rows of a batch: few polygons may be heavy, and a table has rows alone."""
    shapes, columns = batch
    return int(shapely.get_num_coordinates(shapes).sum()) + max([len(column) for column in columns.values()], default=0)


def _column(values: Values, kind: str) -> npt.NDArray[Any]:
    if kind == "text":
        return np.array([None if v is None else str(v) for v in values], dtype=object)
    dtype = {"real": np.float64, "integer": np.int64}[kind]
    return np.array([np.nan if v is None else v for v in values], dtype=dtype)


def _write_styles(path: Path, styles: Sequence[Style]) -> None:
    """The table in which QGIS keeps styles; it applies the default one of a layer when that is added to a project."""
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("PRAGMA synchronous = OFF")
        file.execute(
            "CREATE TABLE layer_styles (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256), "
            "f_table_schema TEXT(256), f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, "
            "styleSLD TEXT, useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30), update_time DATETIME)"
        )
        file.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, description, last_change, srs_id) "
            "VALUES ('layer_styles', 'attributes', 'layer_styles', '', ?, 0)",
            (_FIXED_TIME,),
        )
        file.executemany(
            "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, styleQML, "
            "styleSLD, useAsDefault, description, owner, ui, update_time) "
            "VALUES ('', '', ?, 'geom', ?, ?, '', 1, '', '', NULL, ?)",
            [(s.layer, s.name, s.qml, _FIXED_TIME) for s in styles],
        )
