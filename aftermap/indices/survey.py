"""A first pass over a scene, in bounded memory: what a method must know of the whole before it can score a tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from aftermap.indices.radar import SAMPLE_BLOCK_PX, SAMPLE_BLOCKS, look
from aftermap.indices.threshold import F32, F64, otsu
from aftermap.scorer import LayerBands
from aftermap.tiles import spread

if TYPE_CHECKING:
    from aftermap.scene import Scene

See = Callable[[F32], npt.NDArray[Any]]
"""Pixels (band, y, x) to an image (y, x)."""
MAD_TO_STD = 1.4826
"""Standard deviation of a Gaussian whose median absolute deviation is 1."""


def survey(scene: Scene, inputs: Sequence[LayerBands], see: See, halo_px: int = 0) -> Iterator[F32]:
    """Images (y, x) of what `see` makes of blocks evenly spread over the scene; NaN where any band was not observed."""
    for block in spread(scene.shape, SAMPLE_BLOCK_PX, SAMPLE_BLOCKS):
        wide = block.pad(halo_px, scene.shape)
        pixels = np.concatenate([look(scene, i, wide) for i in inputs])
        image = np.where(np.isfinite(pixels).all(axis=0), see(pixels), np.nan)
        yield np.asarray(image[block.within(wide).slices], np.float32)


def sampled(images: Iterator[F32]) -> F32:
    """Every fourth observed value (n,) of every fourth row, over all images."""
    values = np.concatenate([np.empty(0, np.float32), *(image[::4, ::4].ravel() for image in images)])
    return np.asarray(values[np.isfinite(values)])


def span_of(images: Iterator[F32], tail: float = 0.001) -> tuple[float, float]:
    """The values that a share `tail` lies below and above; (0, 1) where nothing differs."""
    values = sampled(images)
    low, high = (float(v) for v in np.quantile(values, (tail, 1 - tail))) if values.size else (0.0, 1.0)
    return (low, high) if high > low else (low, low + 1)


def usual(images: Iterator[F32], least_std: float) -> tuple[float, float]:
    """Median and robust standard deviation of what was sampled."""
    return middle_and_std(sampled(images), least_std)


def middle_and_std(values: F32, least_std: float) -> tuple[float, float]:
    """Median, and the standard deviation of most values (n,) from their median absolute deviation, not below `least_std`."""
    if not values.size:
        return 0.0, least_std
    middle = float(np.median(values))
    return middle, max(MAD_TO_STD * float(np.median(np.abs(values - middle))), least_std)


def _upper_half(counts: F64) -> F64:
    below = np.cumsum(counts, axis=-1)
    return np.where(2 * below > below[..., -1:], counts, 0.0)


def otsu_of_rarer(counts: F64, centres: F64) -> F64:
    """Otsu's thresholds (...) among the values above the median, for a class that takes up less than half."""
    return otsu(_upper_half(counts), centres)
