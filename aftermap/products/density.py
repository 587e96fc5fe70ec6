"""density.tif and the priority cells: how much of each cell of the ground is hazard, added up window by window in strips."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from odc.geo.geobox import GeoBox

from aftermap import raster
from aftermap.area import pixel_size_m, pixel_spacing_m
from aftermap.errors import UsageError
from aftermap.tiles import Window

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

FILE = "density.tif"
LEAST_PX = 4
"""Smallest side of a cell: the strips of cells that are in memory stay small, and a share keeps 16 steps."""
MOST_PRIORITY = 10_000
"""Largest number of priority cells: a table that people read, and memory that does not grow with the scene."""
_HAZARD, _ANALYSED, _COUNT = range(3)


@dataclass(frozen=True)
class Cells:
    """Cells of whole pixels, `rows` high and `cols` wide, from the grid's first corner; the last may reach past its edge."""

    rows: int
    cols: int

    @classmethod
    def nearest(cls, grid: GeoBox, side_m: float, *, gsd_m: float | None = None) -> Cells:
        """The cells whose sides at the grid's centre come nearest to `side_m` metres. Raises UsageError: no scale, too small."""
        if pixel_size_m(grid) is None and gsd_m is None:
            raise UsageError(
                "--density-m needs to know how large a pixel is", repair="give --gsd-m too, for the image has no CRS"
            )
        centre = Window(int(grid.shape[0]) // 2, int(grid.shape[1]) // 2, 1, 1)
        width, height = (float(side[0, 0]) for side in pixel_spacing_m(grid, centre, gsd_m=gsd_m))
        if not min(side_m / height, side_m / width) >= LEAST_PX - 0.5:
            least = LEAST_PX * max(width, height)
            raise UsageError(
                f"cells of {side_m:g} m are less than {LEAST_PX} pixels a side", repair=f"give --density-m {least:.4g} or more"
            )
        return cls(round(side_m / height), round(side_m / width))

    def of(self, grid: GeoBox) -> GeoBox:
        """The grid of the cells that cover `grid`."""
        a, b, c, d, e, f = grid.affine[:6]
        shape = (-(-int(grid.shape[0]) // self.rows), -(-int(grid.shape[1]) // self.cols))
        return GeoBox(shape, Affine(a * self.cols, b * self.rows, c, d * self.cols, e * self.rows, f), grid.crs)


@dataclass(frozen=True)
class Priority:
    """The cells with most hazard, largest area first, ties row by row: columns (n,), areas in m2."""

    row: I64
    col: I64
    affected_m2: F64
    analysed_m2: F64

    def then(self, other: Priority) -> Priority:
        """The first MOST_PRIORITY of both."""
        row, col, affected, analysed = (
            np.concatenate([getattr(self, k), getattr(other, k)]) for k in ("row", "col", "affected_m2", "analysed_m2")
        )
        order = np.lexsort((col, row, -affected))[:MOST_PRIORITY]
        return Priority(row[order], col[order], affected[order], analysed[order])


class Density:
    """Hazard and analysed area per cell, and the polygons counted in it, while windows come row by row (`tiles.blocks`).

    In memory are only the rows of cells that the current row of windows touches. Areas add to the same bits in any order
    (area.py), so that the result does not depend on the windows.
    """

    def __init__(self, cells: Cells, grid: GeoBox, scratch: Path, *, what: str, counted: bool):
        self.cells, self._coarse = cells, cells.of(grid)
        self._scratch = scratch / f"scratch-{FILE}"
        self._open: dict[int, F64] = {}
        nothing, no_area = np.zeros(0, np.int64), np.zeros(0)
        self.priority = Priority(nothing, nothing, no_area, no_area)
        size = f"per cell of {cells.rows} x {cells.cols} pixels; NaN nothing analysed"
        says = [f"share of the analysed area that is {what}, in [0, 1], {size}"]
        says += [f"polygons of {what} per km2 of analysed area, each in the cell of its lowest pixel, {size}"] if counted else []
        self._writer = raster.Writer(
            self._scratch, self._coarse, dtype="float32", nodata=float("nan"), descriptions=says,
            tags={"AFTERMAP_CELL_PX": f"{cells.rows} {cells.cols}"},
        )  # fmt: skip
        self._bands = len(says)

    def add(self, window: Window, hazard: Bool, analysed: Bool, area: F64, lowest: tuple[I64, I64]) -> None:
        """Adds a window: hazard and analysed (y, x) with pixel areas (y, x) in m2, and the rows and columns (n,) in the scene
        of the lowest pixel of each polygon finished in it. A polygon is finished in the row of windows that holds that pixel.
        """
        self._close(window.row // self.cells.rows)
        first = window.row // self.cells.rows, window.col // self.cells.cols
        sums = np.stack([self._by_cell(window, area * hazard), self._by_cell(window, area * analysed)])
        for k in range(sums.shape[1]):
            self._row(first[0] + k)[:2, first[1] : first[1] + sums.shape[2]] += sums[:, k]
        for row, col in zip(*(index.tolist() for index in lowest), strict=True):
            self._row(row // self.cells.rows)[_COUNT, col // self.cells.cols] += 1

    def finish(self, destination: Path) -> None:
        """Writes what is left and finishes the Cloud Optimized GeoTIFF."""
        self._close(int(self._coarse.shape[0]))
        self._writer.close()
        raster.finish_cog(self._scratch, destination, overview="average")
        self._scratch.unlink()

    def _row(self, row: int) -> F64:
        return self._open.setdefault(row, np.zeros((3, int(self._coarse.shape[1]))))

    def _by_cell(self, window: Window, amounts: F64) -> F64:
        """Sums (cell row, cell column) of amounts (y, x)."""
        rows = np.add.reduceat(amounts, list(_edges(window.row, window.stop_row, self.cells.rows)), axis=0)
        return np.asarray(np.add.reduceat(rows, list(_edges(window.col, window.stop_col, self.cells.cols)), axis=1))

    def _close(self, before: int) -> None:
        """Writes and forgets the rows of cells above `before`, which no later window reaches."""
        for row in sorted(r for r in self._open if r < before):
            amounts = self._open.pop(row)
            self._writer.write(_densities(amounts)[: self._bands, None], Window(row, 0, 1, amounts.shape[1]))
            col = np.flatnonzero(amounts[_HAZARD] > 0)
            found = Priority(np.full(len(col), row), col, amounts[_HAZARD][col], amounts[_ANALYSED][col])
            self.priority = self.priority.then(found)


def _densities(amounts: F64) -> npt.NDArray[np.float32]:
    """Share and polygons per km2 (2, column) of a row of cells; NaN where nothing was analysed."""
    analysed = amounts[_ANALYSED]
    wanted = np.stack([amounts[_HAZARD], 1e6 * amounts[_COUNT]])
    out: Any = np.divide(wanted, analysed, out=np.full(wanted.shape, np.nan), where=analysed > 0)
    return np.asarray(out, np.float32)


def _edges(start: int, stop: int, step: int) -> Iterator[int]:
    """Where cells begin in [start, stop), counted from `start`; the first may have begun before."""
    yield 0
    yield from range(step - start % step, stop - start, step)
