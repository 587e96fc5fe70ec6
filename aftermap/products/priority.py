"""The cells of a map to look at first: priority.csv, and what the layer of that name in map.gpkg says of them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from aftermap.area import lon_lat

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

FILE = "priority.csv"
MOST_PRIORITY = 10_000
"""Largest number of priority cells: a table that people read, and memory that does not grow with the scene."""
COLUMNS = (
    "rank", "row", "col", "x", "y", "lon", "lat", "share", "affected_ha", "analysed_ha", "polygons_per_km2", "likelihood_mean",
    "expected_per_km2", "density_class", "by",
)  # fmt: skip
UNGRADED = 255
"""In place of the class of a cell that no model has seen half of."""


@dataclass(frozen=True)
class Priority:
    """Cells in the order to look at them: columns (n,), areas in m2.

    First those of most slides that a model expects, where one was given; then of the largest mapped area; those that are equal,
    as all are in which nothing crosses the threshold, by mean likelihood times analysed area; then row by row.
    """

    row: I64
    col: I64
    affected_m2: F64
    analysed_m2: F64
    polygons: F64
    likelihood: F64
    """Mean over the analysed pixels, in percent."""
    expected: F64
    """Of a model: slides per km2; NaN where it does not say."""
    grade: I64
    """Of a model: code of the class; UNGRADED where it does not say."""

    @classmethod
    def none(cls) -> Priority:
        """No cell yet."""
        whole, real = np.zeros(0, np.int64), np.zeros(0)
        return cls(whole, whole, real, real, real, real, real, whole)

    def then(self, other: Priority) -> Priority:
        """The first MOST_PRIORITY of both."""
        both = [np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(Priority)]
        return Priority(*(column[Priority(*both)._order()[:MOST_PRIORITY]] for column in both))

    def _order(self) -> npt.NDArray[np.intp]:
        expected = np.nan_to_num(self.expected, nan=-1.0)
        return np.lexsort((self.col, self.row, -self.likelihood * self.analysed_m2, -self.affected_m2, -expected))

    def corners(self, cell_px: tuple[int, int], grid: GeoBox) -> tuple[I64, I64]:
        """First and last corner (n, 2) of each cell as (column, row) of the grid, cut at its edge."""
        rows, cols = cell_px
        first = np.stack([self.col * cols, self.row * rows], axis=1)
        return first, np.minimum(first + np.array([cols, rows]), (int(grid.shape[1]), int(grid.shape[0])))

    def columns(self, classes: Sequence[str], model: str, methods: str) -> dict[str, Any]:
        """The columns of the layer by name; None where there is no value. `methods` rank what no `model` does."""
        seen = np.isfinite(self.expected)
        return {
            "rank": np.arange(len(self.row)) + 1, "share": (self.affected_m2 / self.analysed_m2).round(6),
            "affected_ha": self.affected_m2 / 1e4, "analysed_ha": self.analysed_m2 / 1e4,
            "polygons_per_km2": (1e6 * self.polygons / self.analysed_m2).round(4), "likelihood_mean": self.likelihood.round(3),
            "expected_per_km2": [round(e, 4) if s else None for e, s in zip(self.expected.tolist(), seen, strict=True)],
            "density_class": [None if k == UNGRADED else classes[k] for k in self.grade],
            "by": [model if s else methods for s in seen],
        }  # fmt: skip

    def write(self, path: Path, cell_px: tuple[int, int], grid: GeoBox, columns: dict[str, Any]) -> None:
        """Writes priority.csv: the columns of the layer, and where the middle of each cell lies, in the CRS and in WGS84."""
        first, last = self.corners(cell_px, grid)
        col, row = ((first + last) / 2).T
        a, b, c, d, e, f = grid.affine[:6]
        x, y = a * col + b * row + c, d * col + e * row + f
        degrees = lon_lat(grid, x, y)
        digits = 9 if grid.crs is not None and grid.crs.geographic else 3
        places = {"row": self.row, "col": self.col, "x": x.round(digits), "y": y.round(digits)}
        places |= dict.fromkeys(("lon", "lat"), [None] * len(x)) if degrees is None else {
            "lon": degrees[0].round(7), "lat": degrees[1].round(7)}  # fmt: skip
        areas = {k: np.asarray(columns[k]).round(4) for k in ("affected_ha", "analysed_ha")}
        every = {**columns, **places, **areas}
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(zip(*(_plain(every[name]) for name in COLUMNS), strict=True))


def _plain(column: Any) -> list[Any]:
    """Python's own numbers, which print the shortest digits that tell them apart."""
    return column.tolist() if isinstance(column, np.ndarray) else list(column)
