"""A median against speckle that does not know how the scene was cut: the same bits in every tile, NaN left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from aftermap.tiles import Window

F32 = npt.NDArray[np.float32]

STRIP_PX = 98_304
"""Pixels of a strip. A quarter of it would stay in the second cache, but then two threads mostly wait for each other."""


def median_filter(pixels: F32, size: int) -> F32:
    """Medians of the observed pixels among the `size` x `size` (odd) around each, on the last two axes; NaN stays NaN.

    Beyond the edge nothing is observed. A median picks values and never sums them up, so the result is the same to the
    last bit wherever in the array its neighbourhood lies.
    """
    return median_of(pixels, Window(0, 0, *pixels.shape[-2:]), size)


def median_of(pixels: F32, inside: Window, size: int) -> F32:
    """The medians of `inside` alone, a window within pixels (..., y, x) that also hold its neighbours."""
    around = inside.pad(size // 2, (pixels.shape[-2], pixels.shape[-1]))
    given = pixels[(..., *around.slices)]
    if size == 1:
        return given
    half, flat = size // 2, given.reshape(-1, *given.shape[-2:])
    beyond = (
        (half - inside.row + around.row, half - around.stop_row + inside.stop_row),
        (half - inside.col + around.col, half - around.stop_col + inside.stop_col),
    )
    out = np.stack([_median(np.pad(image, beyond, constant_values=np.nan) if np.any(beyond) else image, size) for image in flat])
    return out.reshape(*pixels.shape[:-2], inside.height, inside.width)


def _median(padded: F32, size: int) -> F32:
    """Medians (y, x) of all but the outer `size` // 2 pixels."""
    gap = np.isnan(padded)
    if not gap.any():
        return _complete(padded, size)
    medians = _complete(np.where(gap, np.float32(0), padded), size)
    unseen = gap[size // 2 : -(size // 2), size // 2 : -(size // 2)]
    at = np.nonzero(_any(gap, size) & ~unseen)
    medians[at] = _incomplete(np.lib.stride_tricks.sliding_window_view(padded, (size, size))[at], size)
    medians[unseen] = np.nan
    return medians


def _any(gap: npt.NDArray[np.bool_], size: int) -> npt.NDArray[np.bool_]:
    """Whether any of the `size` x `size` pixels from each on is a gap, (y, x) without the padding."""
    height, width = (length - size + 1 for length in gap.shape)
    rows = np.logical_or.reduce([gap[k : k + height] for k in range(size)])
    return np.asarray(np.logical_or.reduce([rows[:, k : k + width] for k in range(size)]))


def _incomplete(around: F32, size: int) -> F32:
    """Medians (n,) of neighbourhoods (n, size, size) with gaps; the mean of the middle two of an even count."""
    ordered = np.sort(around.reshape(-1, size * size), axis=-1)  # NaN go last
    count = np.maximum((~np.isnan(ordered)).sum(-1, keepdims=True), 1)
    low, high = (np.take_along_axis(ordered, rank, -1)[:, 0] for rank in ((count - 1) // 2, count // 2))
    return np.asarray((low + high) / 2)


def _complete(padded: F32, size: int) -> F32:
    """Medians (y, x) without the padding, where all neighbours are observed.

    Columns are sorted once for all the neighbourhoods that share them, and one comparator after the other works on a whole
    strip: many times faster than to sort the neighbours of each pixel.
    """
    height, width = (length - size + 1 for length in padded.shape)
    medians = np.empty((height, width), np.float32)
    spare: list[F32] = []
    rows = max(1, STRIP_PX // width)
    for row in range(0, height, rows):
        stop = min(row + rows, height)
        columns = _Wires([padded[row + y : stop + y] for y in range(size)])
        columns.run(sorting(size))
        wires = _Wires([rank[:, x : x + width] for rank in columns.values for x in range(size)], spare)
        wires.run(network(size))
        medians[row:stop] = wires.values[middle(size)]
        spare = wires.spare if len(medians) - stop >= rows else []
    return medians


class _Wires:
    """Arrays of one shape that comparators work on. What was given is read only; results go to arrays that are used again."""

    def __init__(self, values: Sequence[F32], spare: list[F32] | None = None):
        self.values, self.spare = list(values), spare or []
        self._own = [False] * len(self.values)

    def run(self, comparators: Sequence[Comparator]) -> None:
        """Lets each comparator do what it keeps."""
        for one, other, keeps_low, keeps_high in comparators:
            low, high = self.values[one], self.values[other]
            owned = [a for a, own in ((low, self._own[one]), (high, self._own[other])) if own]
            if keeps_low:
                self._put(one, np.minimum(low, high, out=self._room(low)))
            if keeps_high:
                self._put(other, np.maximum(low, high, out=owned.pop() if owned else self._room(low)))
            self.spare += owned

    def _room(self, like: F32) -> F32:
        return self.spare.pop() if self.spare else np.empty_like(like)

    def _put(self, wire: int, value: F32) -> None:
        self.values[wire], self._own[wire] = value, True


class Comparator(NamedTuple):
    """Brings the lower of two wires to `one` and the higher to `other`; what no later step reads is not kept."""

    one: int
    other: int
    keeps_low: bool = True
    keeps_high: bool = True


@lru_cache
def sorting(wires: int) -> tuple[Comparator, ...]:
    """Batcher's odd-even merge sort (1968)."""
    return tuple(Comparator(*pair) for pair in _merge_sort(wires))


def middle(size: int) -> int:
    """The wire that `network` brings the median to."""
    return _candidates(size)[len(_candidates(size)) // 2]


def _candidates(size: int) -> list[int]:
    """Wires rank * size + column that can still be the median once columns, then ranks across columns are sorted, by
    diagonals: the others have more than half of all values above or below them."""
    half, every = size * size // 2, [(rank, column) for rank in range(size) for column in range(size)]
    able = [(r, c) for r, c in every if max((r + 1) * (c + 1), (size - r) * (size - c)) - 1 <= half]
    return [r * size + c for r, c in sorted(able, key=lambda place: (sum(place), place))]


@lru_cache
def network(size: int) -> tuple[Comparator, ...]:
    """The comparators that bring the median of size x size values with sorted columns to the wire `middle`.

    Wires are rank * size + column. Ranks are sorted across the columns, then the candidates; a comparator that swaps no
    zeros and ones never swaps anything (the zero-one principle), and goes, as does what only serves other ranks.
    """
    across = [(rank * size + one, rank * size + other) for rank in range(size) for one, other in _merge_sort(size)]
    last = _candidates(size)
    steps = [*across, *((last[one], last[other]) for one, other in _merge_sort(len(last)))]
    if size <= _MOST_TRIED:
        steps = _swapping(steps, size)
    needed, kept = {middle(size)}, []
    for one, other in reversed(steps):
        if one in needed or other in needed:
            kept.append(Comparator(one, other, one in needed, other in needed))
            needed |= {one, other}
    return tuple(reversed(kept))


_MOST_TRIED = 5
"""Sizes up to this have few enough columns of zeros and ones, (size + 1) ** size, to try them all."""


def _swapping(steps: Sequence[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """The steps that swap zeros and ones for some sorted columns."""
    ones = np.stack(np.meshgrid(*[np.arange(size + 1)] * size, indexing="ij")).reshape(size, -1)
    wires = np.concatenate([ones >= size - rank for rank in range(size)])
    kept = []
    for one, other in steps:
        if (wires[one] & ~wires[other]).any():
            kept.append((one, other))
            wires[one], wires[other] = wires[one] & wires[other], wires[one] | wires[other]
    return kept


def _merge_sort(wires: int) -> Iterator[tuple[int, int]]:
    block = 1
    while block < wires:
        reach = block
        while reach >= 1:
            for start in range(reach % block, wires - reach, 2 * reach):
                for k in range(start, start + min(reach, wires - start - reach)):
                    if k // (2 * block) == (k + reach) // (2 * block):
                        yield k, k + reach
            reach //= 2
        block *= 2
