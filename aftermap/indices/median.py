"""A median against speckle that does not know how the scene was cut: the same bits in every tile, NaN left out."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from aftermap.indices.threshold import F32

STRIP_ROWS = 32
"""Rows of some 500 px whose 25 shifted copies fit a processor's second cache."""


def median_filter(pixels: F32, size: int) -> F32:
    """Medians of the observed pixels among the `size` x `size` (odd) around each, on the last two axes; NaN stays NaN.

    Beyond the edge nothing is observed. A median picks values and never sums them up, so the result is the same to the
    last bit wherever in the array its neighbourhood lies.
    """
    if size == 1:
        return pixels
    flat = pixels.reshape(-1, *pixels.shape[-2:])
    return np.stack([_median(image, size) for image in flat]).reshape(pixels.shape)


def _median(image: F32, size: int) -> F32:
    padded = np.pad(image, size // 2, constant_values=np.nan)
    gap = np.isnan(padded)
    medians = _complete(np.where(gap, np.float32(0), padded), size)
    around_gap = np.lib.stride_tricks.sliding_window_view(_any(gap, size), image.shape)[0, 0]
    at = np.nonzero(around_gap & ~np.isnan(image))
    medians[at] = _incomplete(np.lib.stride_tricks.sliding_window_view(padded, (size, size))[at], size)
    return np.where(np.isnan(image), image, medians)


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
    """Medians (y, x) without the padding, where all neighbours are observed: one comparator of the network after the other
    works on a whole strip, which is several times faster than to sort the neighbours of each pixel."""
    height, width = (length - size + 1 for length in padded.shape)
    medians = np.empty((height, width), np.float32)
    for row in range(0, height, STRIP_ROWS):
        stop = min(row + STRIP_ROWS, height)
        wires = [padded[row + y : stop + y, x : x + width].copy() for y in range(size) for x in range(size)]
        spare = np.empty_like(wires[0])
        for one, other, keeps_low, keeps_high in network(size * size):
            low, high = wires[one], wires[other]
            if keeps_low and keeps_high:
                np.minimum(low, high, out=spare)
                np.maximum(low, high, out=high)
                wires[one], spare = spare, low
            elif keeps_low:
                np.minimum(low, high, out=low)
            else:
                np.maximum(low, high, out=high)
        medians[row:stop] = wires[size * size // 2]
    return medians


class Comparator(NamedTuple):
    """Brings the lower of two wires to `one` and the higher to `other`; what no later step reads is not kept."""

    one: int
    other: int
    keeps_low: bool
    keeps_high: bool


@lru_cache
def network(wires: int) -> tuple[Comparator, ...]:
    """The comparators that bring the median to the middle wire: Batcher's odd-even merge sort (1968) without what it does
    for other ranks."""
    needed, steps = {wires // 2}, []
    for one, other in reversed(list(_merge_sort(wires))):
        if one in needed or other in needed:
            steps.append(Comparator(one, other, one in needed, other in needed))
            needed |= {one, other}
    return tuple(reversed(steps))


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
