"""item.json: a STAC item over the delivered files with their checksums; the seal that is written last. Door: pystac."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from odc.geo.geobox import GeoBox

from aftermap import meridian
from aftermap.journal import SEAL, multihash, sealed, write_json

_EXTENSIONS = (
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
)
MEDIA = {
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized", ".gpkg": "application/geopackage+sqlite3",
    ".qgz": "application/x-qgis-project",
    ".csv": "text/csv", ".html": "text/html", ".json": "application/json", ".qml": "application/xml",
}  # fmt: skip
_ROLES = {
    ".tif": "data",
    ".gpkg": "data",
    ".csv": "data",
    ".html": "overview",
    ".qgz": "overview",
    ".json": "metadata",
    ".qml": "style",
}
_UNKNOWN_TIME = (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC))
"""STAC wants a time or an interval; where no file states one, the widest there is, and `aftermap:acquired` says null."""


def write_item(stage: Path, grid: GeoBox, run: Mapping[str, Any]) -> None:
    """Writes the item over every file in `stage`. Geometry is null for a scene without CRS."""
    import pystac

    after = run["inputs"]["after"]
    geometry, bbox = _footprint(grid)
    item = pystac.Item(
        id=run["name"],
        geometry=geometry,
        bbox=bbox,
        datetime=parsed(after["acquired"]),
        start_datetime=None if after["acquired"] else _UNKNOWN_TIME[0],
        end_datetime=None if after["acquired"] else _UNKNOWN_TIME[1],
        stac_extensions=list(_EXTENSIONS),
        properties=_properties(grid, run),
    )
    for path in sorted(p for p in stage.rglob("*") if p.is_file() and p.name != SEAL):
        href = path.relative_to(stage).as_posix()
        asset = pystac.Asset(href=href, media_type=MEDIA.get(path.suffix), roles=[_ROLES.get(path.suffix, "data")])
        asset.extra_fields = {"file:checksum": multihash(path), "file:size": path.stat().st_size}
        item.add_asset(href, asset)
    write_json(stage / SEAL, sealed(item.to_dict(include_self_link=False, transform_hrefs=False)))


def _footprint(grid: GeoBox) -> tuple[dict[str, Any] | None, list[float] | None]:
    """GeoJSON and bbox in degrees, split at the antimeridian (RFC 7946: there west is greater than east); null without CRS."""
    if grid.crs is None:
        return None, None
    west, south, east, north = meridian.bounds(grid)
    west, east = meridian.within(west, east)
    return meridian.degrees(grid).json, [round(v, 9) for v in (west, south, east, north)]


def parsed(acquired: str | None) -> datetime | None:
    """An ISO 8601 date or time as UTC; None stays None."""
    if acquired is None:
        return None
    moment = datetime.fromisoformat(acquired.replace("Z", "+00:00"))
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _properties(grid: GeoBox, run: Mapping[str, Any]) -> dict[str, Any]:
    epsg = grid.crs.to_epsg() if grid.crs is not None else None
    code = {"proj:code": f"EPSG:{epsg}" if epsg else None}
    if grid.crs is not None and epsg is None:
        code["proj:wkt2"] = grid.crs.to_wkt()
    return {
        "title": f"{run['maps']} ({run['answer']})",
        "platform": run["inputs"]["after"]["sensor"],
        **code,
        "proj:shape": list(run["grid"]["shape"]),
        "proj:transform": run["grid"]["transform"],
        "processing:software": {"aftermap": run["aftermap"]},
        "processing:facility": "aftermap",
        "aftermap:hazard": run["hazard"],
        "aftermap:answer": run["answer"],
        "aftermap:method": " + ".join(run["methods"]["combined"]),
        "aftermap:calibration": run["calibration"],
        "aftermap:acquired": run["inputs"]["after"]["acquired"],
    }
