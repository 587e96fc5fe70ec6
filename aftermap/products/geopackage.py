"""map.gpkg: the polygons of a map with their evidence, what was not analysed, the sources and the summary, styled for QGIS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from aftermap import vector
from aftermap.outline import Outlines
from aftermap.palette import EXCLUSION
from aftermap.products.priority import Priority
from aftermap.products.styles import layer_styles
from aftermap.tally import Statistics
from aftermap.vector import GeoPackageWriter, Layer, Style

F64 = npt.NDArray[np.float64]

_AREA = {"area_ha": "real", "area_px": "integer"}
LAYERS = (
    Layer(
        "observed_event", "Polygon",
        dict.fromkeys(("event_type", "obj_desc", "det_method", "notation", "dmg_src_id"), "text")
        | _AREA | dict.fromkeys(("likelihood_mean", "likelihood_min", "agreement"), "real")
        | dict.fromkeys(("sensor", "acq_before", "acq_after"), "text"),
    ),
    Layer("not_analysed", "Polygon", {"reason": "text", **_AREA}),
    Layer("area_of_interest", "MultiPolygon", {}),
    Layer("image_footprint", "MultiPolygon", {"src_id": "text", "obj_desc": "text"}),
    Layer(
        "source", None,
        dict.fromkeys(("source_nam", "src_date", "source_tm"), "text")
        | {"sensor_gsd": "real", "eventphase": "text", "src_id": "text"},
    ),
    Layer(
        "summary", None,
        dict.fromkeys(("quantity", "class", "reason"), "text") | {"value": "real", "unit": "text", "percent_of_aoi": "real"},
    ),
)  # fmt: skip
"""The layers of every map.gpkg (products.md). `area_px` counts pixels, also where no pixel size gives hectares."""

PRIORITY = Layer(
    "priority", "Polygon",
    {"rank": "integer"}
    | dict.fromkeys(("share", "affected_ha", "analysed_ha", "polygons_per_km2", "likelihood_mean", "expected_per_km2"), "real")
    | dict.fromkeys(("density_class", "by"), "text"),
)  # fmt: skip
"""The layer of priority cells, where there is a density (priority.py)."""

BUILT_UP = Layer(
    "built_up", "MultiPolygon",
    {"damage_gra": "text", **dict.fromkeys(("damage_pct", "observed_pct", "unknown_pct", "score"), "real")},
)  # fmt: skip
"""The layer of graded footprints, where some were given."""

UNOSAT = Layer(
    "unosat", "Polygon",
    dict.fromkeys(("Water_Clas", "Sensor_ID", "Sensor_Dat", "Confidence", "Field_Vali", "Water_Stat", "Notes"), "text")
    | {"Area_m2": "real", "Area_ha": "real", "EventCode": "text"},
)  # fmt: skip
"""The mapped water under the field names of UNOSAT (its Pakistan 2022 web map), where that profile was asked for."""
_WATER_CLASSES = {"flood": "Flooded area", "water": "Satellite-detected water"}
"""Class of a map -> UNOSAT's words for its codes 1 and 4 (ml4floods, data/config.py)."""


@dataclass(frozen=True)
class Event:
    """What all polygons of the mapped hazard have in common; field names follow Copernicus EMS."""

    event_type: str
    """"5-Flood"."""
    obj_desc: str
    """"Flooded area", or "Open water, permanent water not separated"."""
    notation: str
    dmg_src_id: str
    """`src_id` of the source that shows the event."""
    sensor: str
    acq_before: str | None
    """ISO 8601; None where there is no image from before, or its time is not known."""
    acq_after: str | None
    det_method: str = "Automatic"


@dataclass(frozen=True)
class Source:
    """An image or data set that the map was made from."""

    src_id: str
    name: str
    acquired: str | None
    """ISO 8601 date or time (UTC where no zone is given); None where not known."""
    gsd_m: float | None
    eventphase: str
    """"Pre-event", "Post-event" or "Reference"."""


class MapPackage:
    """A map.gpkg in the making; leave its context to finish it.

    Areas of outlines are in m2 where the grid has a CRS or `gsd_m` is given; else they are pixels and area_ha is NULL.
    """

    def __init__(self, path: Path, grid: GeoBox, event: Event, *, gsd_m: float | None = None, extra: Sequence[Layer] = ()):
        self._event, self._grid, self._in_m2 = event, grid, grid.crs is not None or gsd_m is not None
        layers = (*LAYERS, *extra)
        qml = layer_styles(event.obj_desc)
        styles = [Style(n, n.replace("_", " "), qml[n]) for n in qml if n in (layer.name for layer in layers)]
        self._file = GeoPackageWriter(path, grid, layers, styles)

    def observed(self, outlines: Outlines) -> None:
        """Adds polygons of the hazard; `outlines.under` may hold "likelihood" (percent) and "agreement" (methods)."""
        n = len(outlines)
        likelihood, agreement = (outlines.under.get(name, _unknown(n)) for name in ("likelihood", "agreement"))
        evidence = {"likelihood_mean": likelihood.mean.round(2), "likelihood_min": likelihood.low}
        evidence["agreement"] = agreement.mean.round(2)
        common = {name: [value] * n for name, value in asdict(self._event).items()}
        self._file.write("observed_event", outlines.geometry, {**common, **self._areas(outlines), **evidence})

    def unosat(self, outlines: Outlines, water: str, event_code: str | None) -> None:
        """Adds the same polygons of `water` ("flood", "water") as UNOSAT names them; what nobody assessed is said to be so."""
        n, event, areas = len(outlines), self._event, self._areas(outlines)
        likelihood = outlines.under.get("likelihood", _unknown(n)).mean.round(0)
        common = {
            "Water_Clas": _WATER_CLASSES[water], "Sensor_ID": event.sensor, "Sensor_Dat": event.acq_after,
            "Field_Vali": "Not yet field validated", "Water_Stat": "Unknown", "Notes": f"{event.obj_desc}; {event.notation}",
            "EventCode": event_code,
        }  # fmt: skip
        columns = {name: [value] * n for name, value in common.items()}
        columns["Confidence"] = [
            "Not assessed" if np.isnan(v) else f"Not assessed, mean likelihood {v:.0f} %" for v in likelihood
        ]
        square = outlines.area_m2 if self._in_m2 else [None] * n
        self._file.write("unosat", outlines.geometry, {**columns, "Area_m2": square, "Area_ha": areas["area_ha"]})

    def not_analysed(self, outlines: Outlines) -> None:
        """Adds polygons whose codes are those of exclusion.tif."""
        reasons = [EXCLUSION[int(code)][0] for code in outlines.code]
        self._file.write("not_analysed", outlines.geometry, {"reason": reasons, **self._areas(outlines)})

    def priority(self, found: Priority, cell_px: tuple[int, int], columns: Mapping[str, Any]) -> None:
        """Adds the priority cells, cut at the edge of the grid, with `columns` of them."""
        self._file.write("priority", vector.boxes(*found.corners(cell_px, self._grid), self._grid.affine), columns)

    def built_up(self, shapes: Any, columns: Mapping[str, Any]) -> None:
        """Adds graded footprints, in pixels of the grid."""
        self._file.write("built_up", vector.place(shapes, self._grid.affine), columns)

    def area_of_interest(self, geometries: Sequence[Any]) -> None:
        """Adds the polygons that the map was asked for, in the grid's CRS."""
        self._file.write("area_of_interest", geometries, {})

    def footprint(self, src_id: str, obj_desc: str, geometry: Any) -> None:
        """Adds the outline of one image, in the grid's CRS."""
        self._file.write("image_footprint", [geometry], {"src_id": [src_id], "obj_desc": [obj_desc]})

    def source(self, source: Source) -> None:
        """Adds a source."""
        date, time = date_and_time(source.acquired)
        row = {
            "source_nam": source.name, "src_date": date, "source_tm": time, "sensor_gsd": source.gsd_m,
            "eventphase": source.eventphase, "src_id": source.src_id,
        }  # fmt: skip
        self._file.write("source", [], {name: [value] for name, value in row.items()})

    def summary(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds the rows of summary.csv; a missing key is NULL."""
        fields = next(layer.fields for layer in LAYERS if layer.name == "summary")
        self._file.write("summary", [], {name: [row.get(name) for row in rows] for name in fields})

    def _areas(self, outlines: Outlines) -> dict[str, Any]:
        return {"area_ha": outlines.area_m2 / 1e4 if self._in_m2 else [None] * len(outlines), "area_px": outlines.pixels}

    def __enter__(self) -> MapPackage:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._file.__exit__(kind, error, trace)


def date_and_time(acquired: str | None) -> tuple[str | None, str | None]:
    """("dd/mm/yyyy", "Thh:mm:ssZ") in UTC of an ISO 8601 time; the second is None for a date, both for None."""
    if acquired is None:
        return None, None
    moment = datetime.fromisoformat(acquired)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.strftime("%d/%m/%Y"), moment.strftime("T%H:%M:%SZ") if len(acquired) > 10 else None


def _unknown(count: int) -> Statistics:
    nothing: F64 = np.full(count, np.nan)
    return Statistics(nothing, nothing, nothing)
