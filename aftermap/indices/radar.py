"""What the radar methods share: which bands there are, a first pass over the scene, and a median against speckle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from aftermap.indices.threshold import F32
from aftermap.scorer import LayerBands
from aftermap.tiles import blocks

if TYPE_CHECKING:
    from aftermap.scene import Scene

CROSS_POL, CO_POL = ("VH", "HV"), ("VV", "HH")
SAMPLE_BLOCK_PX, SAMPLE_BLOCKS = 512, 128
"""A first pass reads at most this many square blocks, evenly spread: 34 Mpx, whatever the size of the scene."""

STRIP_ROWS = 32
"""Rows of 512 to 1024 px whose 5 x 5 neighbourhoods fit a processor's cache."""


def median_filter(pixels: F32, size: int) -> F32:
    """Medians of the observed pixels among the `size` x `size` around each, on the last two axes; NaN stays NaN.

    Beyond the edge nothing is observed. A median picks values and never sums them up, so the result is the same to the
    last bit wherever in the array its neighbourhood lies.
    """
    if size == 1:
        return pixels
    flat = pixels.reshape(-1, *pixels.shape[-2:])
    return np.stack([_median(image, size) for image in flat]).reshape(pixels.shape)


def _median(image: F32, size: int) -> F32:
    """Of one image (y, x), in strips: sorting needs all size x size neighbours of a pixel side by side."""
    padded = np.pad(image, size // 2, constant_values=np.nan)
    seen = np.maximum(_observed(padded, size), 1)
    medians = np.empty_like(image)
    for row in range(0, len(image), STRIP_ROWS):
        around = np.lib.stride_tricks.sliding_window_view(padded[row : row + STRIP_ROWS + size - 1], (size, size))
        ordered = np.sort(around.reshape(*around.shape[:2], size * size), axis=-1)  # NaN go last
        count = seen[row : row + STRIP_ROWS, :, None]
        low, high = (np.take_along_axis(ordered, rank, -1)[..., 0] for rank in ((count - 1) // 2, count // 2))
        medians[row : row + STRIP_ROWS] = (low + high) / 2
    return np.where(np.isnan(image), image, medians)


def _observed(padded: F32, size: int) -> npt.NDArray[np.intp]:
    """How many of the `size` x `size` pixels around each were observed, (y, x) without the padding."""
    seen = (~np.isnan(padded)).astype(np.intp)
    height, width = (length - size + 1 for length in padded.shape)
    rows = np.sum([seen[k : k + height] for k in range(size)], axis=0)
    return np.asarray(np.sum([rows[:, k : k + width] for k in range(size)], axis=0))


def sample(scene: Scene, inputs: LayerBands, smooth_px: int) -> Iterator[F32]:
    """Smoothed blocks (y, x) of the first band of `inputs`, evenly spread over the scene."""
    every = list(blocks(scene.shape, SAMPLE_BLOCK_PX))
    for index in np.linspace(0, len(every) - 1, min(len(every), SAMPLE_BLOCKS)).round().astype(int):
        yield median_filter(scene.read(inputs, every[index]), smooth_px)[0]


def common_bands(scene: Scene, unit: str, *layers: str) -> list[str]:
    """Polarisations that every layer has in that unit, cross-pol first."""
    return [p for p in CROSS_POL + CO_POL if not any(scene.missing(LayerBands(layer, (p,), unit)) for layer in layers)]


def why_not(scene: Scene, unit: str, *layers: str) -> str:
    """Words for the first layer without backscatter in that unit, or for layers without a common polarisation, or ""."""
    lacking = [layer for layer in layers if not common_bands(scene, unit, layer)]
    if lacking:
        return scene.missing(LayerBands(lacking[0], ("VV",), unit))
    return "" if common_bands(scene, unit, *layers) else f"the {' and the '.join(layers)} image have no polarisation in common"


def value_span(scene: Scene, *inputs: LayerBands) -> tuple[float, float]:
    """The values that 1 in 1000 pixels of all these bands lie below and above, at least 1 apart; (0, 1) where none is seen."""
    every = [block[::4, ::4].ravel() for layer in inputs for block in sample(scene, layer, 1)]
    seen = np.concatenate(every)
    seen = seen[np.isfinite(seen)]
    low, high = np.quantile(seen, (0.001, 0.999)) if seen.size else (0.0, 1.0)
    return float(low), max(float(high), float(low) + 1)
