"""Strokes: bent lines with a width, such as slides and fractures, and what a window sees of those that reach into it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap.simulate.terrain import Field, Ground

Points = npt.NDArray[np.float64]
"""(..., 2) as (south, east) in metres of the plane."""


@dataclass(frozen=True)
class Stroke:
    """A line of `points` (n, 2), `half_width` (n,) in metres, and a draw in [0, 1)."""

    points: Points
    half_width: npt.NDArray[np.float64]
    draw: float


@dataclass(frozen=True)
class Painted:
    """Fields (y, x): `inside` metres from the edge inward (negative outside, -inf where no stroke is near); of the stroke that
    reaches deepest there: `along` 0 at its start to 1 at its end, `side` metres to the right of its line, its half width
    `half_m`, its `draw`, and its direction as unit vector (`south`, `east`)."""

    inside: Field
    along: Field
    side: Field
    half_m: Field
    draw: Field
    south: Field
    east: Field


def strokes_near(
    ground: Ground, tile_m: float, reach_m: float, of_tile: Callable[[int, int], Iterable[Stroke]]
) -> Iterator[Stroke]:
    """Strokes of every tile of `tile_m` metres from which one of length `reach_m` could come into the window.

    Tiles are fixed to the plane, so that any two windows are told the same strokes.
    """
    north, west = (first * ground.gsd_m - reach_m for first in (ground.row, ground.col))
    south, east = (last * ground.gsd_m + reach_m for last in (ground.row + ground.height, ground.col + ground.width))
    for row in range(int(north // tile_m), int(south // tile_m) + 1):
        for col in range(int(west // tile_m), int(east // tile_m) + 1):
            yield from of_tile(row, col)


def sample(ground: Ground, field: Field, points: Points) -> npt.NDArray[np.float64]:
    """A field at points (n, 2), bilinear; points beyond the window take its edge."""
    y = np.clip(points[:, 0] / ground.gsd_m - 0.5 - ground.row, 0, ground.height - 1.001)
    x = np.clip(points[:, 1] / ground.gsd_m - 0.5 - ground.col, 0, ground.width - 1.001)
    i, j = y.astype(int), x.astype(int)
    v, u = y - i, x - j
    top, bottom = (field[i + k, j] * (1 - u) + field[i + k, j + 1] * u for k in (0, 1))
    return np.asarray(top * (1 - v) + bottom * v, np.float64)


def paint(ground: Ground, strokes: Iterable[Stroke], *, rim_m: float) -> Painted:
    """All strokes on a window, each with a rim of `rim_m` metres outside its edge."""
    fields = np.zeros((7, ground.height, ground.width), np.float32)
    fields[0] = -np.inf
    for stroke in strokes:
        _paint(ground, stroke, rim_m, fields)
    return Painted(*fields)


def _paint(ground: Ground, stroke: Stroke, rim_m: float, fields: Field) -> None:
    """Segment by segment, each within the rectangle that it can touch."""
    if _touched(ground, stroke.points, float(stroke.half_width.max()) + rim_m) is None:
        return
    for k in range(len(stroke.points) - 1):
        touched = _touched(ground, stroke.points[k : k + 2], float(stroke.half_width[k : k + 2].max()) + rim_m)
        if touched is None:
            continue
        rows, cols = touched
        there = fields[:, rows, cols]
        painted = _segment(ground.south_m[rows], ground.east_m[:, cols], stroke, k)
        deeper = (painted[0] > there[0]) & (painted[0] > -rim_m)
        for field, new in zip(there, painted, strict=True):
            np.copyto(field, new, where=deeper, casting="unsafe")


def _touched(ground: Ground, points: Points, margin_m: float) -> tuple[slice, slice] | None:
    """Rows and columns of the window within `margin_m` of the rectangle round the points; None where that misses it."""
    low = (points.min(0) - margin_m) / ground.gsd_m
    high = (points.max(0) + margin_m) / ground.gsd_m
    north, west = max(0, int(low[0]) - ground.row), max(0, int(low[1]) - ground.col)
    south, east = min(ground.height, int(high[0]) + 1 - ground.row), min(ground.width, int(high[1]) + 1 - ground.col)
    return (slice(north, south), slice(west, east)) if north < south and west < east else None


def _segment(south: npt.NDArray[np.float64], east: npt.NDArray[np.float64], stroke: Stroke, k: int) -> tuple[Any, ...]:
    """The seven fields of `Painted` for segment k of a stroke at pixel centres (y, 1) and (1, x)."""
    start, step = stroke.points[k], stroke.points[k + 1] - stroke.points[k]
    length = max(float(np.hypot(*step)), 1e-6)
    unit = step / length
    down, right = south - start[0], east - start[1]
    at = np.clip((down * unit[0] + right * unit[1]) / length, 0, 1)
    away = np.hypot(down - at * step[0], right - at * step[1])
    half = stroke.half_width[k] + at * (stroke.half_width[k + 1] - stroke.half_width[k])
    side = np.where(down * unit[1] - right * unit[0] > 0, away, -away)
    along = (k + at) / (len(stroke.points) - 1)
    return half - away, along, side, half, stroke.draw, unit[0], unit[1]
