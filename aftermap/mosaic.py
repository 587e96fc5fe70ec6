"""Images of one date that lie side by side: which files belong to one image, and the one grid over them all."""

from __future__ import annotations

from collections.abc import Sequence

from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry

from aftermap import meridian, naming
from aftermap.area import pixel_size_m
from aftermap.errors import BandError
from aftermap.raster import Facts

_SAME_PLACE = 0.5
"""Share of the area of two footprints together that they have in common: neighbours share a tenth, bands of an image all."""
_SPARSE = 10
"""A mosaic may have at most so many times the pixels of its images: farther apart, they belong to different runs."""


def images(name: str, files: Sequence[Facts], names: Sequence[tuple[str, ...]], *, dated: bool = True) -> list[list[int]]:
    """Positions of the files of each image, in the order given: one image where no band comes twice.

    `names` are the bands of each file; `dated` layers must be of one day. Raises BandError.
    """
    flat = [band for bands in names for band in bands]
    if len(set(flat)) == len(flat):
        return [list(range(len(files)))]
    groups: list[list[int]] = []
    for k, bands in enumerate(names):
        if len(set(bands)) < len(bands):
            raise _twice(name, bands, "name each band of a file once")
        home = next((g for g in groups if _belongs(k, g, files, names)), None)
        if home is None:
            groups.append([k])
        else:
            home.append(k)
    _refuse_unlike(name, groups, names)
    _refuse_undated(name, groups, files, flat, dated=dated)
    return groups


def _belongs(k: int, group: Sequence[int], files: Sequence[Facts], names: Sequence[tuple[str, ...]]) -> bool:
    taken = {band for g in group for band in names[g]}
    return taken.isdisjoint(names[k]) and _in_common(files[group[0]].grid, files[k].grid) > _SAME_PLACE


def _in_common(one: GeoBox, other: GeoBox) -> float:
    """Area that two footprints share, over that which they cover together, in [0, 1]; 1 for pixels without place."""
    if one.crs is None or other.crs is None:
        return 1.0
    first, second = one.extent, meridian.footprint(other, one)
    return float((first & second).area / (first | second).area)


def _refuse_unlike(name: str, groups: Sequence[Sequence[int]], names: Sequence[tuple[str, ...]]) -> None:
    held = [{band for k in group for band in names[k]} for group in groups]
    if any(bands != held[0] for bands in held):
        flat = [band for bands in held for band in bands]
        raise _twice(name, flat, "give each band once, or every band for each of the neighbouring images")


def _refuse_undated(
    name: str, groups: Sequence[Sequence[int]], files: Sequence[Facts], flat: Sequence[str], *, dated: bool
) -> None:
    """Images of different days are no mosaic, nor images without CRS, nor the same ground twice where no file says when."""
    days = [{a[:10] for k in group if (a := naming.acquired(files[k]))} for group in groups]
    stated = sorted(set().union(*days))
    if dated and len(stated) > 1:
        raise BandError(
            f"the images of {name} are of different days: {', '.join(stated)}",
            repair="give one day; an earlier one goes to --before",
            code="mosaic-dates",
        )
    grids = [files[group[0]].grid for group in groups]
    if any(g.crs is None for g in grids):
        raise _twice(name, flat, "give each band once; images without CRS cannot be laid side by side")
    repeated = any(_in_common(one, other) > 0.9 for i, one in enumerate(grids) for other in grids[:i])
    if dated and repeated and not all(days):
        raise _twice(name, flat, "give each band once; the same ground again needs dates, in tags or names, that are the same")


def _twice(name: str, bands: Sequence[str], repair: str) -> BandError:
    twice = sorted({b for b in bands if list(bands).count(b) > 1} or set(bands))
    return BandError(f"{name} holds the band {', '.join(twice)} more than once", repair=repair, code="band-twice")


def union(grids: Sequence[GeoBox]) -> GeoBox:
    """The pixels of the finest grid, or the first of equals, extended over all. Raises BandError where they lie far apart."""
    own = min(grids, key=lambda g: round(pixel_size_m(g) or 1.0, 3))
    assert own.crs is not None
    left, top, right, bottom = 0, 0, own.shape[1], own.shape[0]
    for grid in grids:
        x0, y0, x1, y1 = _in_pixels(meridian.footprint(grid, own), own)
        left, top, right, bottom = min(left, x0), min(top, y0), max(right, x1), max(bottom, y1)
    shape = (bottom - top, right - left)
    pixels = sum(g.shape[0] * g.shape[1] * (pixel_size_m(g) or 1.0) ** 2 for g in grids) / (pixel_size_m(own) or 1.0) ** 2
    if shape[0] * shape[1] > _SPARSE * pixels:
        raise BandError("the images lie too far apart for one map", repair="map each of them by itself", code="mosaic-apart")
    return GeoBox(shape, own.affine @ own.affine.translation(left, top), own.crs)


def _in_pixels(footprint: Geometry, on: GeoBox) -> tuple[int, int, int, int]:
    """Left, top, right and bottom pixel edges that enclose a footprint; a thousandth of a pixel over an edge is rounding."""
    parts = footprint.geoms if footprint.is_multi else [footprint]
    places = [~on.affine @ point for part in parts for point in part.exterior.coords]
    xs, ys = [p[0] for p in places], [p[1] for p in places]
    return int((min(xs) + 1e-3) // 1), int((min(ys) + 1e-3) // 1), int(-((1e-3 - max(xs)) // 1)), int(-((1e-3 - max(ys)) // 1))
