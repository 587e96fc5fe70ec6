"""An area on map sheets: one UTM grid where one will do, else a sheet for each grid zone of MGRS (6 by 8 degrees)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry, box

from aftermap.aoi import DEGREES, Aoi
from aftermap.stacfacts import Item

_WIDEST, _TALLEST = 12.0, 16.0
"""Degrees that one UTM grid may span: two zones and two bands."""
_BANDS = "CDEFGHJKLMNPQRSTUVWX"
_POLES = {"A": "EPSG:3031", "Z": "EPSG:3413"}
"""Polar stereographic, south of -80 and north of 84 degrees."""


@dataclass(frozen=True, eq=False)
class Sheet:
    """A part of an area and the CRS that it is mapped in; `name` is empty for a whole area."""

    name: str
    area: Aoi
    crs: str

    def grid(self, gsd_m: float) -> GeoBox:
        """Pixels of that size over the area, their edges at multiples of it."""
        west, south, east, north = self.area.spans
        # Through its own middle: a degree beyond 180 is as good as any to PROJ.
        edge = box(west, south, east, north, DEGREES)
        shape = Geometry({**self.area.geojson}, DEGREES) if east <= 180 else edge
        bounds = shape.to_crs(self.crs, resolution=0.05).boundingbox
        left, bottom = (math.floor(v / gsd_m) * gsd_m for v in (bounds.left, bounds.bottom))
        right, top = (math.ceil(v / gsd_m) * gsd_m for v in (bounds.right, bounds.top))
        return GeoBox.from_bbox((left, bottom, right, top), self.crs, resolution=gsd_m)


def sheets(aoi: Aoi) -> list[Sheet]:
    """The sheets of an area, from west to east and south to north."""
    west, south, east, north = aoi.spans
    if east - west <= _WIDEST and north - south <= _TALLEST:
        return [Sheet("", aoi, _zone_crs((west + east) / 2, (south + north) / 2))]
    found = []
    for zone, band, square in _squares(aoi):
        if parts := [rings for part in aoi.parts for rings in _common(part, square)]:
            lon, lat = (square.boundingbox.left + square.boundingbox.right) / 2, square.boundingbox.bottom + 1e-9
            found.append(Sheet(f"{zone:02d}{band}" if zone else band, Aoi.of_rings(parts), _zone_crs(lon, lat)))
    return found


def _squares(aoi: Aoi) -> Iterator[tuple[int, str, Geometry]]:
    lats = [(letter, -80 + 8 * k, 84 if letter == "X" else -72 + 8 * k) for k, letter in enumerate(_BANDS)]
    for zone in range(1, 61):
        for letter, south, north in lats:
            yield zone, letter, box(-186 + 6 * zone, south, -180 + 6 * zone, north, DEGREES)
    yield 0, "A", box(-180, -90, 180, -80, DEGREES)
    yield 0, "Z", box(-180, 84, 180, 90, DEGREES)


def _common(part: Aoi, square: Geometry) -> Iterable[list[list[list[float]]]]:
    shape = Geometry(dict(part.geojson), DEGREES) & square
    for one in shape.geoms if shape.is_multi else [shape]:
        if one.area > 0:
            yield one.json["coordinates"]


def _zone_crs(lon: float, lat: float) -> str:
    if lat >= 84 or lat < -80:
        return _POLES["Z" if lat > 0 else "A"]
    zone = int((lon + 180) % 360 // 6) + 1
    return f"EPSG:{32600 + zone if lat >= 0 else 32700 + zone}"


def fitted(sheet: Sheet, items: Iterable[Item]) -> Sheet:
    """The sheet in the CRS that most of these images are in, if it is a UTM zone, so that their pixels stay as they are."""
    said = (item["properties"].get("proj:code") or item["properties"].get("proj:epsg") for item in items)
    codes = Counter(f"EPSG:{code}" if isinstance(code, int) else str(code) for code in said if code)
    most = min(codes, key=lambda c: (-codes[c], c), default="")
    return Sheet(sheet.name, sheet.area, most if most.startswith(("EPSG:326", "EPSG:327")) else sheet.crs)
