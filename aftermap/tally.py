"""What adds up over the pieces of a component: its size, and statistics of the rasters under it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

UNKNOWN = 255
"""Value of a raster under the polygons that takes no part in statistics."""
_START = {"seen": 0.0, "total": 0.0, "low": np.inf, "high": -np.inf}
_ADDING = {"seen": np.add, "total": np.add, "low": np.minimum, "high": np.maximum}


@dataclass(frozen=True)
class Statistics:
    """Mean, lowest and highest value (n,) of a raster under each polygon; NaN where it was 255 throughout."""

    mean: F64
    low: F64
    high: F64


@dataclass(frozen=True)
class Tally:
    """Columns over components (n,): size, and per raster what adds up to its statistics.

    Sums are of whole numbers, or of areas rounded so that their sums are exact (area.py): they come to the same bits in
    any order, and so do not depend on the windows.
    """

    code: U8
    pixels: I64
    area_m2: F64
    under: Mapping[str, Mapping[str, F64]]
    """Raster -> "seen" (pixels), "total", "low", "high"."""

    @classmethod
    def empty(cls, count: int, names: Mapping[str, object]) -> Tally:
        """Tallies of nothing, to be added to."""
        under = {name: {key: np.full(count, start) for key, start in _START.items()} for name in names}
        return cls(np.zeros(count, np.uint8), np.zeros(count, np.int64), np.zeros(count), under)

    def take(self, index: Index) -> Tally:
        """The tallies of some components."""
        under = {name: {key: column[index] for key, column in columns.items()} for name, columns in self.under.items()}
        return Tally(self.code[index], self.pixels[index], self.area_m2[index], under)

    def add(self, at: Index, pieces: Tally) -> None:
        """Adds pieces (m,) to the components `at` (m,) that they belong to."""
        self.code[at] = pieces.code
        np.add.at(self.pixels, at, pieces.pixels)
        np.add.at(self.area_m2, at, pieces.area_m2)
        for name, columns in self.under.items():
            for key, column in columns.items():
                _ADDING[key].at(column, at, pieces.under[name][key])

    def then(self, other: Tally) -> Tally:
        """These components and after them the other ones."""
        under = {
            name: {key: np.concatenate([column, other.under[name][key]]) for key, column in columns.items()}
            for name, columns in self.under.items()
        }
        code, pixels = np.concatenate([self.code, other.code]), np.concatenate([self.pixels, other.pixels])
        return Tally(code, pixels, np.concatenate([self.area_m2, other.area_m2]), under)

    def statistics(self) -> dict[str, Statistics]:
        """Statistics by the name of the raster."""
        return {name: _statistics(columns) for name, columns in self.under.items()}


def _statistics(columns: Mapping[str, F64]) -> Statistics:
    seen = columns["seen"]
    known = seen > 0
    mean = np.divide(columns["total"], seen, out=np.full(seen.shape, np.nan), where=known)
    return Statistics(mean, np.where(known, columns["low"], np.nan), np.where(known, columns["high"], np.nan))


def tally(of: I32, code: U8, area_m2: F64, values: Mapping[str, U8]) -> Tally:
    """Tallies (label,) of one window from its labels `of` (y, x), the code (label,) of each, and areas and values (y, x)."""
    count, flat = len(code), of.ravel()
    result = Tally.empty(count, values)
    result.code[:], result.pixels[:] = code, np.bincount(flat, minlength=count)
    result.area_m2[:] = np.bincount(flat, weights=area_m2.ravel(), minlength=count)
    for name, columns in result.under.items():
        known = np.flatnonzero((flat > 0) & (values[name].ravel() != UNKNOWN))
        label, value = flat[known], values[name].ravel()[known].astype(np.float64)
        columns["seen"][:] = np.bincount(label, minlength=count)
        columns["total"][:] = np.bincount(label, weights=value, minlength=count)
        np.minimum.at(columns["low"], label, value)
        np.maximum.at(columns["high"], label, value)
    return result
