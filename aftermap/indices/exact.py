"""Filters that do not know how the scene was cut: of whole numbers, whose sums have the same bits in any order.

A Fourier transform or a running sum rounds a pixel by what else is in its tile. On whole numbers the error stays far
below one half, and rounding removes it; beyond the edge everything is 0.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import scipy  # whose parts load when they are first used

from aftermap.indices.threshold import F32, F64

LEVELS = 1024
"""Steps of a stretch; a quarter of a step is the unit of what is filtered."""
_UNIT = 4 * LEVELS


def box_sum(image: F64, size: int) -> F64:
    """Sums (y, x) of whole numbers over the `size` x `size` (odd) around each pixel."""
    before, after = size // 2 + 1, size // 2
    total = np.pad(image, (before, after)).cumsum(0).cumsum(1)
    rows = total[size:] - total[:-size]
    return np.asarray(rows[:, size:] - rows[:, :-size])


def whole(image: F32, span: tuple[float, float]) -> F64:
    """Whole numbers (y, x) from 0 to LEVELS over the span; what lies beyond counts as its ends, what was not observed as 0."""
    filled = np.where(np.isfinite(image), image, span[0]).astype(np.float64)
    return np.asarray(np.rint(np.clip((filled - span[0]) / (span[1] - span[0]), 0, 1) * LEVELS))


def deviation(image: F32, span: tuple[float, float], background_px: int) -> F64:
    """Whole numbers (y, x): by how much a pixel exceeds the observed around it, of 4096 for the `span`; 0 where not observed."""
    seen, level = np.isfinite(image), whole(image, span)
    around = box_sum(level, background_px) / np.maximum(box_sum(seen.astype(np.float64), background_px), 1)
    return np.asarray(np.where(seen, np.rint(4 * (level - around)), 0.0))


def strongest(image: F64, kernels: Iterable[F64]) -> F64:
    """The greatest response (y, x) of whole-number kernels (k, k), k odd, all of one size, to whole numbers (y, x)."""
    stack = list(kernels)
    reach = stack[0].shape[0] // 2
    shape = tuple(scipy.fft.next_fast_len(length + 2 * reach, real=True) for length in image.shape)
    spectrum = scipy.fft.rfft2(image, shape)
    best = np.full(image.shape, -np.inf)
    inner = tuple(slice(reach, reach + length) for length in image.shape)
    for kernel in stack:
        response = scipy.fft.irfft2(spectrum * scipy.fft.rfft2(kernel[::-1, ::-1], shape), shape)[inner]
        np.maximum(best, np.rint(response), out=best)
    return best


def share(whole: F64) -> F64:
    """Whole numbers of `deviation` as shares of its span."""
    return np.asarray(whole / _UNIT)


def _overlap(by: int, length: int) -> tuple[slice, slice]:
    return slice(max(by, 0), length + min(by, 0)), slice(max(-by, 0), length - max(by, 0))


def line_sum(image: F64, offsets: Iterable[tuple[int, int]]) -> F64:
    """Sums (y, x) of whole numbers over the pixels at these offsets (down, right) from each; beyond the edge is 0."""
    total = np.zeros_like(image)
    height, width = image.shape
    for down, right in offsets:
        if abs(down) < height and abs(right) < width:
            (to_y, from_y), (to_x, from_x) = _overlap(-down, height), _overlap(-right, width)
            total[to_y, to_x] += image[from_y, from_x]
    return total
