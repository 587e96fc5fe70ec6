"""density.tif and the cells to look at first: how much of each cell of the ground is hazard, added up window by window in strips.

Where a model of density is given, what it says of each cell stands beside what was mapped, in density.tif and density_class.tif.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from affine import Affine
from odc.geo.geobox import GeoBox

from aftermap import raster
from aftermap.area import pixel_size_m, pixel_spacing_m
from aftermap.errors import UsageError
from aftermap.products.priority import UNGRADED, Priority
from aftermap.tiles import Window

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

FILE, CLASSES = "density.tif", "density_class.tif"
LEAST_PX = 4
"""Smallest side of a cell: the strips of cells that are in memory stay small, and a share keeps 16 steps."""
USUAL_M = 1280.0
"""Side of a cell where nobody says another: 128 px of 10 m, the chips of arXiv 2211.10338."""
FEWEST = 4
"""Cells along the shorter side of a scene that is too small for that."""
_HAZARD, _ANALYSED, _COUNT, _PIXELS, _LIKELY = range(5)


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

    @classmethod
    def usual(cls, grid: GeoBox, *, gsd_m: float | None = None) -> Cells | None:
        """Cells of USUAL_M; of a quarter of the scene's shorter side where that is less, but LEAST_PX. None without a scale."""
        if pixel_size_m(grid) is None and gsd_m is None:
            return None
        rows, cols = (int(n) for n in grid.shape)
        width, height = (float(side[0, 0]) for side in pixel_spacing_m(grid, Window(rows // 2, cols // 2, 1, 1), gsd_m=gsd_m))
        if not width * height > 0:  # NaN where the CRS is not defined
            return None
        side_m = max(min(USUAL_M, rows * height / FEWEST, cols * width / FEWEST), LEAST_PX * max(width, height))
        return cls.nearest(grid, side_m, gsd_m=gsd_m)

    def of(self, grid: GeoBox) -> GeoBox:
        """The grid of the cells that cover `grid`."""
        a, b, c, d, e, f = grid.affine[:6]
        shape = (-(-int(grid.shape[0]) // self.rows), -(-int(grid.shape[1]) // self.cols))
        return GeoBox(shape, Affine(a * self.cols, b * self.rows, c, d * self.cols, e * self.rows, f), grid.crs)


class Graded(Protocol):
    """A model that says of each cell how densely hazards lie in it."""

    @property
    def name(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...]:
        """From the least dense up."""
        ...

    def row(self, number: int) -> npt.NDArray[np.float32]:
        """Probabilities (class, column) of the cells of a row, NaN where less than half of a cell was analysed."""
        ...

    def expected(self, probabilities: npt.NDArray[np.float32]) -> F64:
        """Hazards per km2 (column,) of probabilities (class, column)."""
        ...


class Density:
    """Hazard and analysed area per cell, and the polygons counted in it, while windows come row by row (`tiles.blocks`).

    In memory are only the rows of cells that the current row of windows touches. Areas add to the same bits in any order
    (area.py), and so do whole percents, so that the result does not depend on the windows.
    """

    def __init__(self, cells: Cells, grid: GeoBox, scratch: Path, *, what: str, counted: bool, model: Graded | None = None):
        self.cells, self.model, self._coarse = cells, model, cells.of(grid)
        self._scratch = scratch
        self._open: dict[int, F64] = {}
        self.priority = Priority.none()
        size = f"per cell of {cells.rows} x {cells.cols} pixels; NaN nothing analysed"
        says = [f"share of the analysed area that is {what}, in [0, 1], {size}"]
        says += [f"polygons of {what} per km2 of analysed area, each in the cell of its lowest pixel, {size}"] if counted else []
        self._counted = len(says)
        self._writers = {FILE: self._writer(FILE, "float32", float("nan"), says + self._graded_says())}
        if model is not None:
            codes = ", ".join(f"{code} {name}" for code, name in enumerate(model.classes))
            says = [f"likeliest density of {what} by {model.name}: {codes}; 255 not analysed"]
            self._writers[CLASSES] = self._writer(CLASSES, "uint8", UNGRADED, says)

    def _graded_says(self) -> list[str]:
        if self.model is None:
            return []
        unseen = f"by {self.model.name}; NaN less than half of the cell analysed"
        each = [f"probability of {name}, in [0, 1], {unseen}" for name in self.model.classes]
        return [f"expected per km2, {unseen}", *each]

    def _writer(self, name: str, dtype: str, nodata: float, says: list[str]) -> raster.Writer:
        tags = {"AFTERMAP_CELL_PX": f"{self.cells.rows} {self.cells.cols}"}
        return raster.Writer(
            self._scratch / f"scratch-{name}", self._coarse, dtype=dtype, nodata=nodata, descriptions=says, tags=tags
        )

    def add(
        self, window: Window, hazard: Bool, analysed: Bool, area: F64, lowest: tuple[I64, I64], likelihood: npt.NDArray[np.uint8]
    ) -> None:  # fmt: skip
        """Adds a window: hazard and analysed (y, x) with pixel areas (y, x) in m2, the rows and columns (n,) in the scene of the
        lowest pixel of each polygon finished in it, and likelihood (y, x) in percent. A polygon is finished in the row of windows
        that holds that pixel.
        """
        self._close(window.row // self.cells.rows)
        first = window.row // self.cells.rows, window.col // self.cells.cols
        of_pixels = {_HAZARD: area * hazard, _ANALYSED: area * analysed, _PIXELS: analysed, _LIKELY: likelihood * analysed}
        sums = np.stack([self._by_cell(window, amounts.astype(np.float64)) for amounts in of_pixels.values()])
        for k in range(sums.shape[1]):
            self._row(first[0] + k)[list(of_pixels), first[1] : first[1] + sums.shape[2]] += sums[:, k]
        for row, col in zip(*(index.tolist() for index in lowest), strict=True):
            self._row(row // self.cells.rows)[_COUNT, col // self.cells.cols] += 1

    def finish(self, folder: Path) -> None:
        """Writes what is left and finishes the Cloud Optimized GeoTIFFs in a folder."""
        self._close(int(self._coarse.shape[0]))
        for name, writer in self._writers.items():
            writer.finish(folder / name, overview="average" if name == FILE else "nearest")

    def _row(self, row: int) -> F64:
        return self._open.setdefault(row, np.zeros((5, int(self._coarse.shape[1]))))

    def _by_cell(self, window: Window, amounts: F64) -> F64:
        """Sums (cell row, cell column) of amounts (y, x)."""
        rows = np.add.reduceat(amounts, list(_edges(window.row, window.stop_row, self.cells.rows)), axis=0)
        return np.asarray(np.add.reduceat(rows, list(_edges(window.col, window.stop_col, self.cells.cols)), axis=1))

    def _close(self, before: int) -> None:
        """Writes and forgets the rows of cells above `before`, which no later window reaches."""
        for row in sorted(r for r in self._open if r < before):
            amounts, at = self._open.pop(row), Window(row, 0, 1, int(self._coarse.shape[1]))
            bands = list(_densities(amounts)[: self._counted])
            expected, grade = np.full(at.width, np.nan), np.full(at.width, UNGRADED)
            if self.model is not None:
                likely = self.model.row(row)
                expected = self.model.expected(likely)
                grade = np.where(np.isfinite(expected), likely.argmax(axis=0), UNGRADED)
                bands += [expected.astype(np.float32), *likely]
                self._writers[CLASSES].write(grade[None, None].astype(np.uint8), at)
            self._writers[FILE].write(np.stack(bands)[:, None], at)
            self._rank(row, amounts, expected, grade)

    def _rank(self, row: int, amounts: F64, expected: F64, grade: I64) -> None:
        """Enters the cells of a row of which anything was analysed."""
        col = np.flatnonzero(amounts[_ANALYSED] > 0)
        own = amounts[:, col]
        mean = own[_LIKELY] / own[_PIXELS]
        found = Priority(np.full(len(col), row), col, own[_HAZARD], own[_ANALYSED], own[_COUNT], mean, expected[col], grade[col])
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
