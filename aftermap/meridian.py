"""Longitude is a circle: whole turns bring what lies beyond the antimeridian onto a grid, which itself may run on past 180."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry, box, multigeom, point, polygon

Bounds = tuple[float, float, float, float]
"""West, south, east, north."""
_SIDES = 20
"""Edges get a vertex each twentieth of a side before they are reprojected, for they bend."""
_NARROW_DEG = 90
"""What is less wide lies across no antimeridian and about no pole; to look for the cut takes ten times as long."""
_TOUCH = 1e-8
"""Spans that share less than this, a millimetre where it is degrees, only touch."""


def turn(grid: GeoBox) -> float | None:
    """A full circle in the units of a grid's CRS, 360 for degrees; None where its x is no longitude."""
    if grid.crs is None or not grid.crs.geographic:
        return None
    return round(2 * math.pi / grid.crs.proj.axis_info[0].unit_conversion_factor, 9)


def turns(
    west: npt.ArrayLike, east: npt.ArrayLike, between: tuple[float, float], circle: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """First and last number of turns (n,) by which spans of longitude (n,) overlap that one; first > last where none do."""
    return (
        np.ceil((between[0] - np.asarray(east, np.float64)) / circle),
        np.floor((between[1] - np.asarray(west, np.float64)) / circle),
    )


def span(grid: GeoBox) -> tuple[float, float]:
    """The longitudes of a grid's west and east, less what may as well be rounding."""
    bounds = grid.extent.boundingbox
    return bounds.left + _TOUCH, bounds.right - _TOUCH


def shifts(own: GeoBox, on: GeoBox) -> list[float]:
    """What is added to the longitudes of a grid to lay it on another of the same CRS; several where it lies on both ends of it.

    The nearest where it lies wholly beside. Where the CRS differ, what lays it within 180 degrees, as PROJ gives them.
    """
    circle = turn(own)
    if circle is None or own.crs is None:
        return [0.0]
    between = span(on) if own.crs == on.crs else (-circle / 2, circle / 2)
    first, last = (int(k) for k in turns(*span(own), between, circle))
    if first > last:
        first = last = round((sum(between) / 2 - _middle(own)) / circle)
    return sorted((k * circle for k in range(first, last + 1)), key=abs)


def moved(grid: GeoBox, shift: float) -> GeoBox:
    """The grid with that much added to its longitudes."""
    return grid if shift == 0 else GeoBox(grid.shape, Affine.translation(shift, 0) @ grid.affine, grid.crs)


def near(x: Any, centre: float, circle: float) -> Any:
    """Longitudes no more than half a turn from a centre."""
    return x + circle * np.round((centre - x) / circle)


def footprint(own: GeoBox, on: GeoBox) -> Geometry:
    """The outer edge of a grid in the CRS of another, there where it lies on that one."""
    assert on.crs is not None
    circle = turn(on)
    if own.crs == on.crs:
        parts = [moved(own, shift).extent for shift in shifts(own, on)]
        return parts[0] if len(parts) == 1 else multigeom(parts)
    if circle is None:
        return own.extent.to_crs(on.crs)
    centre = near(own.extent.centroid.to_crs(on.crs).coords[0][0], _middle(on), circle)
    return own.extent.to_crs(on.crs, resolution=_step(own)).transform(lambda x, y: (near(x, centre, circle), y))


def degrees(grid: GeoBox) -> Geometry:
    """The outer edge of a grid in longitude and latitude, cut at the antimeridian into parts within 180 degrees (RFC 7946); about
    a pole all that is as near to it, from -180 to 180."""
    circle = turn(grid)
    if circle is None:
        if (pole := _pole(grid)) is not None:
            return _about(pole, grid)
        plain = grid.extent.to_crs("EPSG:4326", resolution=_step(grid))
        if plain.boundingbox.span_x < _NARROW_DEG:
            return plain
        return grid.extent.to_crs("EPSG:4326", resolution=_step(grid), wrapdateline=True)
    west, south, east, north = grid.extent.boundingbox
    parts = []
    for k in range(math.floor(west / circle + 0.5), math.ceil(east / circle - 0.5) + 1):
        world = box((k - 0.5) * circle, south - 1, (k + 0.5) * circle, north + 1, grid.crs)
        if (part := grid.extent & world).area > 0:
            parts.append(part.transform(lambda x, y, k=k: (x - k * circle, y)).to_crs("EPSG:4326", resolution=_step(grid)))
    return parts[0] if len(parts) == 1 else multigeom(parts)


def _pole(grid: GeoBox) -> float | None:
    """The latitude of the pole that lies on a grid in metres."""
    assert grid.crs is not None
    for lat in (-90.0, 90.0):
        x, y = point(0, lat, "EPSG:4326").to_crs(grid.crs).coords[0]
        if math.isfinite(x) and math.isfinite(y) and grid.extent.contains(point(x, y, grid.crs)):
            return lat
    return None


def _about(pole: float, grid: GeoBox) -> Geometry:
    """What lies between a pole and the edge about it, by longitude: seen from the pole a rectangle has one edge each way."""
    edge = np.asarray(outline(grid).to_crs("EPSG:4326").exterior.coords[:-1])
    edge = edge[np.argsort(edge[:, 0])]
    end = float(np.interp(180, [edge[-1, 0], edge[0, 0] + 360], [edge[-1, 1], edge[0, 1]]))
    ring = [(-180.0, pole), (-180.0, end), *map(tuple, edge.tolist()), (180.0, end), (180.0, pole)]
    return polygon([*ring, ring[0]], "EPSG:4326")


@lru_cache
def bounds(grid: GeoBox) -> Bounds:
    """Of a grid in degrees; where it lies across the antimeridian, east is above 180."""
    found = degrees(grid)
    west, south, east, north = found.boundingbox
    if (circle := turn(grid)) is not None:
        west, east = (float(x) * 360 / circle for x in grid.extent.boundingbox.range_x)
        around = 360 * math.floor((west + 180) / 360)
        west, east = west - around, east - around
    elif found.is_multi:
        parts = [part.boundingbox.range_x for part in found.geoms]
        turned = [(left + 360, right + 360) if right <= 0 else (left, right) for left, right in parts]
        west, east = min(left for left, _ in turned), max(right for _, right in turned)
    return float(west), float(south), float(east), float(north)


def within(west: float, east: float) -> tuple[float, float]:
    """Such longitudes from -180 to 180; across the antimeridian west is the greater (RFC 7946, 5.2)."""
    return (-180.0, 180.0) if east - west >= 360 else (west, east - 360 * (east > 180))


def outline(grid: GeoBox) -> Geometry:
    """The outer edge of a grid in its own CRS, with vertices to bend by."""
    return grid.extent.segmented(_step(grid))


def centre(grid: GeoBox) -> tuple[float, float]:
    """Longitude in [-180, 180] and latitude of the middle of a grid."""
    lon, lat = grid.extent.centroid.to_crs("EPSG:4326").coords[0]
    return float(near(lon, 0, 360)), float(lat)


def _middle(grid: GeoBox) -> float:
    bounds = grid.extent.boundingbox
    return float(bounds.left + bounds.right) / 2


def _step(grid: GeoBox) -> float:
    return float(max(abs(grid.resolution.x) * grid.shape[1], abs(grid.resolution.y) * grid.shape[0]) / _SIDES)
