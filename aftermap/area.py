"""The area and the sides of each pixel on the ellipsoid, whatever the CRS: never in degrees, never in Web Mercator."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import pyproj.exceptions
from odc.geo.geobox import GeoBox
from pyproj.crs import ProjectedCRS
from pyproj.crs.coordinate_operation import LambertAzimuthalEqualAreaConversion

from aftermap.errors import InputRefusedError
from aftermap.tiles import Window

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

NODE_PX = 256
"""Largest distance of the nodes between which areas are interpolated."""
NODE_M = 10_000.0
"""The same on the ground: over 10 km the curvature of the cosine of the latitude leaves an error of some 1e-7."""
_BITS = 24
"""Areas are multiples of 2^-24 of the centre pixel's, so that sums below 2^53 of these are exact in any order."""


def pixel_area_m2(grid: GeoBox, window: Window, *, gsd_m: float | None = None) -> F64:
    """Area (y, x) in m2 of each pixel on the ellipsoid of the grid's CRS, the same bits whatever the window.

    Without CRS, `gsd_m` squared, and 1.0 where that is None: areas are then in pixels. 0.0 where the CRS is not defined.
    """
    plane = _plane_area(grid, gsd_m)
    if plane is not None:
        return _summable(np.full(window[2:], plane, dtype=np.float64), plane)
    step = _step_px(grid)
    rows = _nodes(window.row, window.stop_row, grid.shape[0], step)
    cols = _nodes(window.col, window.stop_col, grid.shape[1], step)
    return _summable(_filled(_areas_at(grid, rows, cols), rows, cols, window), _centre_area(grid))


def pixel_size_m(grid: GeoBox) -> float | None:
    """Side in m of a square with the area of the centre pixel; None where the grid has no CRS."""
    plane = _plane_area(grid, None)
    if grid.crs is None:
        return None
    return math.sqrt(_centre_area(grid) if plane is None else plane)


def pixel_spacing_m(grid: GeoBox, window: Window, *, gsd_m: float | None = None) -> tuple[F64, F64]:
    """Width and height (y, x) in m of each pixel along the ellipsoid of the grid's CRS, the same bits whatever the window.

    Without CRS both are `gsd_m`, and 1.0 where that is None: lengths are then in pixels. NaN where the CRS is not defined.
    """
    if _plane_area(grid, gsd_m) is not None:
        a, b, _, d, e, _ = grid.affine[:6]
        unit = (gsd_m or 1.0) if grid.crs is None else grid.crs.proj.axis_info[0].unit_conversion_factor
        return np.full(window[2:], math.hypot(a, d) * unit), np.full(window[2:], math.hypot(b, e) * unit)
    step = _step_px(grid)
    rows = _nodes(window.row, window.stop_row, grid.shape[0], step)
    cols = _nodes(window.col, window.stop_col, grid.shape[1], step)
    across, down = (_filled(lengths, rows, cols, window) for lengths in _sides_at(grid, rows, cols))
    return across, down


def pixels_per_m(grid: GeoBox, azimuth_deg: float) -> tuple[float, float]:
    """Columns and rows that a metre on the ground toward an azimuth, clockwise from true north, is at the grid's middle."""
    assert grid.crs is not None
    crs, reach = grid.crs.proj, 100.0
    back = pyproj.Transformer.from_crs(crs.geodetic_crs, crs, always_xy=True)
    height, width = grid.shape
    x, y = _place(grid, width / 2, height / 2)
    lon, lat = _geographic(grid).transform(x, y)
    geod = crs.get_geod()
    assert geod is not None
    there = back.transform(*geod.fwd(lon, lat, azimuth_deg, reach)[:2])
    here = back.transform(lon, lat)  # PROJ may turn longitudes: both ends come from it
    a, b, _, d, e, _ = grid.affine[:6]
    dx, dy = there[0] - here[0], there[1] - here[1]
    dx = (dx + 180) % 360 - 180 if grid.crs.geographic else dx
    det = a * e - b * d
    return (e * dx - b * dy) / det / reach, (a * dy - d * dx) / det / reach


def lon_lat(grid: GeoBox, x: F64, y: F64) -> tuple[F64, F64] | None:
    """Longitude in [-180, 180) and latitude in degrees of WGS84 of places (n,) in the grid's CRS; None where it has none, or one
    of a building site."""
    if grid.crs is None or grid.crs.proj.geodetic_crs is None:
        return None
    lon, lat = pyproj.Transformer.from_crs(grid.crs.proj, "EPSG:4326", always_xy=True).transform(x, y)
    return (np.asarray(lon) + 180) % 360 - 180, np.asarray(lat)


def _sides_at(grid: GeoBox, rows: I64, cols: I64) -> tuple[F64, F64]:
    """Geodesics (row, col) in m across single pixels and down them, through their centres."""
    assert grid.crs is not None
    to_degrees, geod = _geographic(grid), grid.crs.proj.get_geod()
    assert geod is not None
    y, x = np.meshgrid(rows + 0.5, cols + 0.5, indexing="ij")

    def between(dy: float, dx: float) -> F64:
        ends = [to_degrees.transform(*_place(grid, x + side * dx, y + side * dy)) for side in (-1, 1)]
        lengths = np.asarray(geod.inv(*ends[0], *ends[1])[2], np.float64)
        return np.where(lengths > 0, lengths, np.nan)

    return between(0, 0.5), between(0.5, 0)


@lru_cache(maxsize=16)
def _geographic(grid: GeoBox) -> pyproj.Transformer:
    """From the grid's CRS to longitude and latitude of its own datum. Raises InputRefusedError ("crs-impossible")."""
    assert grid.crs is not None
    crs = grid.crs.proj
    assert crs.geodetic_crs is not None
    try:
        return pyproj.Transformer.from_crs(crs, crs.geodetic_crs.to_2d(), always_xy=True)
    except pyproj.exceptions.ProjError as error:
        what = f"nothing can be placed in the CRS {crs.name}: {error}"
        raise InputRefusedError(what, repair="correct it (gdal_edit -a_srs)", code="crs-impossible") from error


def _plane_area(grid: GeoBox, gsd_m: float | None) -> float | None:
    """The one area of all pixels where the grid lies on no ellipsoid (no CRS, or a local one of a building site)."""
    if grid.crs is None:
        return 1.0 if gsd_m is None else gsd_m**2
    if grid.crs.proj.geodetic_crs is None:
        return float(abs(grid.affine.determinant) * grid.crs.proj.axis_info[0].unit_conversion_factor ** 2)
    return None


def _summable(areas: F64, typical: float) -> F64:
    quantum = 2.0 ** (math.frexp(typical)[1] - 1 - _BITS)
    areas *= 1 / quantum  # exact, as is the way back: a power of two
    np.rint(areas, out=areas)
    areas *= quantum
    return areas


@lru_cache(maxsize=16)
def _centre_area(grid: GeoBox) -> float:
    height, width = grid.shape
    area = float(_areas_at(grid, np.array([height // 2]), np.array([width // 2]))[0, 0])
    return area if area > 0 else 1.0


@lru_cache(maxsize=16)
def _step_px(grid: GeoBox) -> int:
    """Distance of nodes, a power of two."""
    fitting = max(NODE_M / math.sqrt(_centre_area(grid)), 1.0)
    return int(min(2 ** math.floor(math.log2(fitting)), NODE_PX))


def _nodes(start: int, stop: int, length: int, step: int) -> I64:
    """Pixels of a window of one axis to evaluate at: multiples of `step` and the axis's last, so that none lies outside."""
    nodes = np.arange(start // step, -(-stop // step) + 1) * step
    return np.unique(np.minimum(nodes, length - 1))


def _filled(values: F64, rows: I64, cols: I64, window: Window) -> F64:
    """Values (y, x) of all pixels of a window from those at the nodes (row, col), linearly between them."""
    out = np.empty((window.height, window.width))
    down = np.empty((window.height, len(cols)))
    for at, lower, upper, part in _segments(rows, window.row, window.height):
        down[at] = values[lower] * (1 - part[:, None]) + values[upper] * part[:, None]
    for at, left, right, part in _segments(cols, window.col, window.width):
        np.multiply(down[:, left, None], 1 - part, out=out[:, at])
        out[:, at] += down[:, right, None] * part
    return out


def _segments(nodes: I64, start: int, length: int) -> Iterator[tuple[slice, int, int, F64]]:
    """Pixels of one axis between two nodes: where they lie in the window, both nodes, and how far (pixel,) on the way."""
    if len(nodes) == 1:
        yield slice(0, length), 0, 0, np.zeros(length)
    for k, (first, second) in enumerate(pairwise(nodes.tolist())):
        begin, stop = max(first, start), min(second if k + 2 < len(nodes) else second + 1, start + length)
        if begin < stop:
            part = (np.arange(begin, stop) - first) / (second - first)
            yield slice(begin - start, stop - start), k, k + 1, part


def _areas_at(grid: GeoBox, rows: I64, cols: I64) -> F64:
    """Area (row, col) in m2 of single pixels: the shoelace formula over their corners in an equal-area projection."""
    corner_rows = rows[:, None, None] + np.array([0, 0, 1, 1])  # (row, 1, corner)
    corner_cols = cols[None, :, None] + np.array([0, 1, 1, 0])  # (1, col, corner)
    east, north = _equal_area(grid).transform(*_place(grid, corner_cols, corner_rows))
    with np.errstate(invalid="ignore"):  # infinite where the CRS is not defined
        east, north = east - east[..., :1], north - north[..., :1]  # else the products of large numbers lose the area
        area = 0.5 * np.abs((east * np.roll(north, -1, -1) - np.roll(east, -1, -1) * north).sum(axis=-1))
    return np.where(np.isfinite(area), area, 0.0)


def _place(grid: GeoBox, col: Any, row: Any) -> tuple[Any, Any]:
    """x and y in the grid's CRS of pixel coordinates; affine 3 deprecates `*` for this and affine 2 lacks `@`."""
    a, b, c, d, e, f = grid.affine[:6]
    return a * col + b * row + c, d * col + e * row + f


@lru_cache(maxsize=16)
def _equal_area(grid: GeoBox) -> pyproj.Transformer:
    """From the grid's CRS to Lambert's azimuthal equal-area projection of its own datum, centred at the grid."""
    assert grid.crs is not None
    crs = grid.crs.proj
    assert crs.geodetic_crs is not None
    datum = crs.geodetic_crs.to_2d()
    height, width = grid.shape
    centre = _place(grid, np.float64(width / 2), np.float64(height / 2))
    lon, lat = _geographic(grid).transform(*centre)
    lon, lat = (lon, lat) if math.isfinite(lon + lat) else (0.0, 0.0)
    conversion = LambertAzimuthalEqualAreaConversion(latitude_natural_origin=lat, longitude_natural_origin=lon)
    return pyproj.Transformer.from_crs(crs, ProjectedCRS(conversion, geodetic_crs=datum), always_xy=True)
