"""The consequences table: affected, analysed and not analysed area, polygons; rows of summary.csv."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap.hazardmap import OUTSIDE_AOI
from aftermap.palette import EXCLUSION

Bool = npt.NDArray[np.bool_]
U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
COLUMNS = ("quantity", "class", "reason", "value", "unit", "percent_of_aoi")


@dataclass
class Summary:
    """Areas by what became of them, in `unit` ("ha", or "px" where the scene has no scale), added up window by window."""

    hazard: str
    unit: str
    affected: float = 0.0
    analysed: float = 0.0
    excluded: dict[int, float] = field(default_factory=dict)
    outlined: bool = True
    """Whether polygons were drawn, which are then counted."""
    polygons: int = 0
    largest: float = 0.0
    exposure: list[dict[str, Any]] = field(default_factory=list)
    """Rows of what the hazard reached, and of graded buildings, which come last."""
    graded: dict[str, Any] = field(default_factory=dict)
    """What the grades of buildings rest on."""

    def _amount(self, area: float) -> float:
        return area / 1e4 if self.unit == "ha" else area

    def add(self, hazard: Bool, codes: U8, area: F64, polygon_areas: F64) -> None:
        """Adds a window: hazard and exclusion codes (y, x), pixel areas (y, x) in m2 or px, areas of polygons finished in it."""
        by_code = np.bincount(codes.ravel(), weights=area.ravel(), minlength=1)
        self.affected += self._amount(float(area[hazard].sum()))
        self.analysed += self._amount(float(by_code[0]))
        for code in np.flatnonzero(by_code[1:]) + 1:
            self.excluded[int(code)] = self.excluded.get(int(code), 0.0) + self._amount(float(by_code[code]))
        self.polygons += len(polygon_areas)
        self.largest = max(self.largest, self._amount(float(polygon_areas.max(initial=0.0))))

    @property
    def answer(self) -> str:
        """ "found", "nothing found" or "not analysed": three answers of their own."""
        if self.analysed == 0:
            return "not analysed"
        return "found" if self.affected > 0 else "nothing found"

    def rows(self) -> list[dict[str, Any]]:
        """Rows of COLUMNS; areas rounded to a square metre or a pixel, percent to a thousandth."""
        inside = {code: amount for code, amount in sorted(self.excluded.items()) if code != OUTSIDE_AOI}
        missing = sum(inside.values())
        aoi = self.analysed + missing
        area = [
            ("area_of_interest", "", "", aoi), ("analysed_area", "", "", self.analysed), ("not_analysed_area", "", "", missing),
            *(("not_analysed_area", "", EXCLUSION[code][0], amount) for code, amount in inside.items()),
            ("affected_area", self.hazard, "", self.affected),
            *([("largest_polygon", self.hazard, "", self.largest)] if self.outlined else []),
        ]  # fmt: skip
        rows: list[dict[str, Any]] = [
            dict(zip(COLUMNS, (*names, round(v, 4), self.unit, round(100 * v / aoi, 3) if aoi else None), strict=True))
            for *names, v in area
        ]
        polygons = dict(zip(COLUMNS, ("polygons", self.hazard, "", self.polygons, "count", None), strict=True))
        return [*rows, *([polygons] if self.outlined else []), *self.exposure]


def write_summary(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes summary.csv."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
