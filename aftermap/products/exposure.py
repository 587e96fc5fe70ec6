"""What the hazard reached: assets (points, lines, polygons) affected and not analysed against all of them, window by window."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from aftermap import features
from aftermap.area import pixel_spacing_m
from aftermap.tiles import Window
from aftermap.vector import Geometries

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

CLEAR, AFFECTED, NOT_ANALYSED, OUTSIDE = range(4)
"""States of a pixel: analysed without hazard, hazard, not analysed, outside the area of interest."""
KINDS = ("points", "lines", "polygons")
_UNITS = {KINDS.index("lines"): ("km", 1e3), KINDS.index("polygons"): ("ha", 1e4)}
_QUANTITIES = ("assets_total", "assets_affected", "assets_not_analysed")
_NANOS = 2.0**20
"""Lengths are whole multiples of 1/2^20 m, so that they add to the same bits in any order."""


class Exposure:
    """Assets met by the states of a map. In memory are two bytes for each asset, and the assets of one window.

    A count takes an asset as a whole: affected if any part of it is; else not analysed if any part of it is, or lies outside
    the area of interest or the image. Lengths and areas are those of the parts within the area of interest.
    """

    def __init__(self, path: Path, grid: GeoBox, scratch: Path, *, gsd_m: float | None = None):
        self._grid, self._gsd_m, self._scaled = grid, gsd_m, grid.crs is not None or gsd_m is not None
        self._features = features.stage(path, grid, scratch / "scratch-assets.gpkg")
        self._states = np.zeros(self._features.count, np.uint8)  # bit k: some part is in state k
        self._kinds = np.zeros(self._features.count, np.uint8)
        self._amounts = np.zeros((len(KINDS), 4))

    def add(self, window: Window, states: U8, area: F64) -> None:
        """Adds a window: the state (y, x) and the area in m2 (y, x) of each pixel. Windows cover the scene once."""
        asset, shapes = self._features.near(window)
        kinds = features.kinds(shapes)
        np.maximum.at(self._kinds, asset, kinds)
        beyond = features.leaves(shapes, (int(self._grid.shape[0]), int(self._grid.shape[1])))
        self._mark(asset[beyond], np.full(int(beyond.sum()), OUTSIDE, np.uint8))
        for kind, look in enumerate((self._points, self._lines, self._polygons)):
            chosen = kinds == kind
            for of, state, amount in look(shapes[chosen], window, states, area) if chosen.any() else ():
                self._mark(asset[chosen][of], state)
                self._amounts[kind] += np.bincount(state, weights=amount, minlength=4)

    def _mark(self, asset: I64, state: U8) -> None:
        np.bitwise_or.at(self._states, asset, np.left_shift(np.uint8(1), state))

    def _points(self, shapes: Geometries, window: Window, states: U8, area: F64) -> Iterator[tuple[I64, U8, F64]]:
        """(index, state, amount) of the points in a window; points have no amount."""
        of, at = features.points_in(shapes, window)
        yield of, states[at], np.zeros(len(of))

    def _lines(self, shapes: Geometries, window: Window, states: U8, area: F64) -> Iterator[tuple[I64, U8, F64]]:
        """(index, state, length in m) of pieces of lines."""
        of, at, step = features.pieces_in(shapes, window)
        width, height = pixel_spacing_m(self._grid, window, gsd_m=self._gsd_m)
        length = np.nan_to_num(np.hypot(step[:, 0] * width[at], step[:, 1] * height[at]))
        yield of, states[at], np.rint(length * _NANOS) / _NANOS

    def _polygons(self, shapes: Geometries, window: Window, states: U8, area: F64) -> Iterator[tuple[I64, U8, F64]]:
        """(index, state, area in m2) of the parts of polygons in the pixels of a window."""
        for of, at, share in features.shares_in(shapes, window):
            yield of, states[at], share * area[at]

    def rows(self) -> list[dict[str, Any]]:
        """Rows of the summary; percent is of the assets of that kind and unit in the area of interest."""
        inside = self._states & (1 << CLEAR | 1 << AFFECTED | 1 << NOT_ANALYSED) > 0
        affected = self._states & (1 << AFFECTED) > 0
        missed = ~affected & (self._states & (1 << NOT_ANALYSED | 1 << OUTSIDE) > 0)
        rows = []
        for kind, name in enumerate(KINDS):
            mine = inside & (self._kinds == kind)
            if mine.any():
                rows += _rows(name, [float((mine & some).sum()) for some in (inside, affected, missed)], "count")
            if mine.any() and self._scaled and kind in _UNITS:
                (unit, size), amounts = _UNITS[kind], self._amounts[kind]
                parts = (amounts[:OUTSIDE].sum(), amounts[AFFECTED], amounts[NOT_ANALYSED])
                rows += _rows(name, [float(part) / size for part in parts], unit)
        return rows or _rows("", [0.0, 0.0, 0.0], "count")


def _rows(kind: str, values: list[float], unit: str) -> list[dict[str, Any]]:
    return [
        {
            "quantity": quantity, "class": kind, "reason": "", "value": int(value) if unit == "count" else round(value, 4),
            "unit": unit, "percent_of_aoi": round(100 * value / values[0], 3) if values[0] else None,
        }
        for quantity, value in zip(_QUANTITIES, values, strict=True)
    ]  # fmt: skip
