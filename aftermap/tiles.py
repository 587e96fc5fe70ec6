"""Windows, tile starts and taper weights: how a scene is cut and put together again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

WEIGHT_STEPS = 256
"""Taper weights are whole numbers up to this, so that blending agreeing scores is exact (see `taper`)."""


class Window(NamedTuple):
    """A pixel rectangle: first row, first column, height and width, all in pixels."""

    row: int
    col: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of this window in a (..., y, x) array, as the last two axes."""
        return slice(self.row, self.row + self.height), slice(self.col, self.col + self.width)

    @property
    def stop_row(self) -> int:
        """First row below the window."""
        return self.row + self.height

    @property
    def stop_col(self) -> int:
        """First column right of the window."""
        return self.col + self.width

    def pad(self, margin: int, shape: tuple[int, int]) -> Window:
        """This window grown by `margin` pixels on each side and cut at an image of `shape` (y, x)."""
        row, col = max(self.row - margin, 0), max(self.col - margin, 0)
        return Window(row, col, min(self.stop_row + margin, shape[0]) - row, min(self.stop_col + margin, shape[1]) - col)

    def within(self, outer: Window) -> Window:
        """This window in the pixel coordinates of `outer`."""
        return Window(self.row - outer.row, self.col - outer.col, self.height, self.width)

    def out_of(self, outer: Window) -> Window:
        """This window, which is in the pixel coordinates of `outer`, in those that `outer` is in."""
        return Window(outer.row + self.row, outer.col + self.col, self.height, self.width)

    def overlap(self, other: Window) -> Window | None:
        """The common part of two windows, or None."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height, width = min(self.stop_row, other.stop_row) - row, min(self.stop_col, other.stop_col) - col
        return Window(row, col, height, width) if height > 0 and width > 0 else None


def blocks(shape: tuple[int, int], size: int) -> Iterator[Window]:
    """Square windows of at most `size` px that cover an image of `shape` (y, x) once, row by row."""
    for row in range(0, shape[0], size):
        for col in range(0, shape[1], size):
            yield Window(row, col, min(size, shape[0] - row), min(size, shape[1] - col))


def spread(shape: tuple[int, int], size: int, most: int) -> list[Window]:
    """At most `most` of the blocks of an image, evenly spread: what a first pass reads, whatever the size of the scene."""
    every = list(blocks(shape, size))
    return [every[i] for i in np.linspace(0, len(every) - 1, min(len(every), most)).round().astype(int)]


def lattice(shape: tuple[int, int], size: int, side: int) -> list[Window]:
    """At most `side` x `side` windows of `size` px, spread evenly and into every corner: what an image is sampled in."""
    height, width = min(size, shape[0]), min(size, shape[1])
    rows = np.unique(np.linspace(0, shape[0] - height, side).astype(int))
    cols = np.unique(np.linspace(0, shape[1] - width, side).astype(int))
    return [Window(int(r), int(c), height, width) for r in rows for c in cols]


def starts(length: int, size: int, stride: int) -> list[int]:
    """Left edges of tiles of `size` that cover [0, length), stride <= size; the last is pulled back to end flush."""
    if length <= size:
        return [0]  # the caller pads a single short tile
    return [*range(0, length - size, stride), length - size]


def taper(length: int, *, trim: int, ramp: int, at_start: bool, at_end: bool) -> npt.NDArray[np.float64]:
    """Whole-number weights (length,) in [0, 256] of one tile axis.

    The outer `trim` pixels see too little context and weigh nothing; the next `ramp` pixels rise linearly. An end that is
    the scene's own edge (`at_start`, `at_end`) is neither trimmed nor tapered: nothing lies beyond to blend with.
    Whole numbers make blending exact: float32 scores times weights below 2^9, summed in float64, lose no bit, so
    tiles that agree give back their common score to the last bit.
    """
    up = np.concatenate([np.zeros(trim), np.ceil(np.arange(1, ramp + 1) * WEIGHT_STEPS / (ramp + 1))])
    weights = np.full(length, float(WEIGHT_STEPS))
    count = min(len(up), length)
    if not at_start:
        weights[:count] = np.minimum(weights[:count], up[:count])
    if not at_end:
        weights[length - count :] = np.minimum(weights[length - count :], up[:count][::-1])
    return weights
