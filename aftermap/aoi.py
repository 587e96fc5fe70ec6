"""An area of interest on the globe: a box or polygons in degrees, and which share of it footprints cover."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry, unary_union

from aftermap import vector
from aftermap.errors import InputRefusedError, UsageError

DEGREES = "EPSG:4326"
_STEP_DEG = 0.25
"""Edges get vertices this close before they are projected, for they bend."""


@dataclass(frozen=True, eq=False)
class Aoi:
    """Polygons in degrees, none across the antimeridian: what lies on both sides of it has parts on both (RFC 7946)."""

    geojson: Mapping[str, Any]

    @classmethod
    def of_box(cls, west: float, south: float, east: float, north: float) -> Aoi:
        """Between two meridians and two parallels; across the antimeridian where west is greater than east. Raises UsageError."""
        if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90 and west != east):
            what = f"{west:g},{south:g},{east:g},{north:g} is no box in degrees"
            raise UsageError(what, repair="give west,south,east,north, for example --bbox 11.2,44.1,12.4,44.7")
        spans = [(west, east)] if west < east else [(west, 180.0), (-180.0, east)]
        return cls.of_rings([_ring(w, south, e, north)] for w, e in spans if w < e)

    @classmethod
    def of_rings(cls, polygons: Iterable[Sequence[Sequence[Sequence[float]]]]) -> Aoi:
        """Of polygons, each a list of rings of [longitude, latitude], the outer one first."""
        return cls({"type": "MultiPolygon", "coordinates": [list(rings) for rings in polygons]})

    @classmethod
    def of_file(cls, path: Path) -> Aoi:
        """The polygons of a vector file. Raises InputRefusedError as vector.read_polygons has it, and UsageError beyond 180."""
        shapes = vector.read_polygons(path, GeoBox((1, 1), Affine.identity(), DEGREES))
        west, south, east, north = vector.bounds(shapes)
        if not (west >= -180 and east <= 180 and south >= -90 and north <= 90):
            what = f"{path.name} reaches beyond 180 degrees"
            raise UsageError(what, repair="cut polygons at the antimeridian, as GeoJSON wants it")
        return cls.of_rings(shape.__geo_interface__["coordinates"] for shape in shapes)

    @classmethod
    def of_geojson(cls, said: Any) -> Aoi:
        """Of a Polygon or MultiPolygon. Raises InputRefusedError ("aoi-invalid")."""
        try:
            rings = said["coordinates"] if said["type"] == "MultiPolygon" else [said["coordinates"]]
            found = cls.of_rings(rings)
            if said["type"] not in ("Polygon", "MultiPolygon") or not found.area_km2 > 0:
                raise ValueError(said["type"])
        except (KeyError, TypeError, AttributeError, IndexError, *vector.BROKEN) as error:
            raise InputRefusedError(
                f"no polygons in degrees: {error}", repair="give GeoJSON polygons", code="aoi-invalid"
            ) from error
        return found

    @property
    def parts(self) -> list[Aoi]:
        """Its polygons one by one."""
        return [Aoi.of_rings([rings]) for rings in self.geojson["coordinates"]]

    @cached_property
    def spans(self) -> tuple[float, float, float, float]:
        """West, south, east and north, the least that holds it: east is above 180 where it lies across the antimeridian."""
        corners = [(x, y) for rings in self.geojson["coordinates"] for x, y, *_ in rings[0]]
        lons, lats = sorted({x % 360 for x, _ in corners}), [y for _, y in corners]
        gaps = [((b - a) % 360, b) for a, b in zip([*lons[-1:], *lons[:-1]], lons, strict=True)]
        width = 360 - max(gaps)[0] if len(lons) > 1 else 0.0
        plain = max(x for x, _ in corners) - min(x for x, _ in corners)
        if plain <= width + 1e-9:
            return min(x for x, _ in corners), min(lats), max(x for x, _ in corners), max(lats)
        west = max(gaps)[1]
        west -= 360 * (west >= 180)
        return west, min(lats), west + width, max(lats)

    @property
    def bbox(self) -> tuple[float, float, float, float]:
        """West, south, east, north in [-180, 180], as STAC has it: west is greater than east across the antimeridian."""
        west, south, east, north = self.spans
        return west, south, east - 360 * (east > 180), north

    @property
    def area_km2(self) -> float:
        """Its area."""
        return float(self._flat.area) / 1e6

    def share(self, footprints: Iterable[Mapping[str, Any]]) -> float:
        """Of the area, how much GeoJSON geometries cover together, in [0, 1]."""
        union = unary_union([self._project(f) for f in footprints])
        if union is None:
            return 0.0
        covered = union & self._flat
        return min(float(covered.area / self._flat.area), 1.0)

    def touches(self, footprint: Mapping[str, Any]) -> bool:
        """Whether a GeoJSON geometry has any of the area."""
        return bool(self._project(footprint).intersects(self._flat))

    def meets(self, outline: Geometry) -> tuple[bool, bool]:
        """Whether an outline, in any CRS and with vertices where it bends, has any of the area, and whether nothing else."""
        flat = outline.to_crs(self._equal_area).buffer(0)
        return bool(flat.intersects(self._flat)), bool(self._flat.contains(flat))

    @cached_property
    def _flat(self) -> Geometry:
        return self._project(self.geojson)

    @cached_property
    def _equal_area(self) -> str:
        west, south, east, north = self.spans
        return f"+proj=laea +lat_0={(south + north) / 2} +lon_0={(west + east) / 2} +datum=WGS84 +units=m"

    def _project(self, geojson: Mapping[str, Any]) -> Geometry:
        shape = Geometry(dict(geojson), DEGREES)
        box = shape.boundingbox
        # Some catalogs cross the antimeridian without a cut: such an edge runs the short way only between its own two ends.
        step = None if box.right - box.left > 180 else _STEP_DEG
        return shape.to_crs(self._equal_area, resolution=step).buffer(0)


def _ring(west: float, south: float, east: float, north: float) -> list[list[float]]:
    return [[west, south], [east, south], [east, north], [west, north], [west, south]]
