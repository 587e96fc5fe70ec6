"""What the radar methods share: which bands there are, and a first pass over the scene."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from aftermap.indices.threshold import F32, Found, Gate, otsu, tiled_threshold
from aftermap.median import median_filter
from aftermap.scorer import LayerBands
from aftermap.tiles import Window, spread

if TYPE_CHECKING:
    from aftermap.scene import Scene

CROSS_POL, CO_POL = ("VH", "HV"), ("VV", "HH")
SAMPLE_BLOCK_PX, SAMPLE_BLOCKS = 512, 128
"""A first pass reads at most this many square blocks, evenly spread: 34 Mpx, whatever the size of the scene."""


def sample(scene: Scene, inputs: LayerBands) -> Iterator[F32]:
    """Blocks (y, x) of the first band of `inputs`, evenly spread over the scene."""
    for block in spread(scene.shape, SAMPLE_BLOCK_PX, SAMPLE_BLOCKS):
        yield look(scene, inputs, block)[0]


def look(scene: Scene, inputs: LayerBands, block: Window) -> F32:
    """Pixels (band, y, x) for a first pass: medians end at the block, or its eight neighbours would have to be read."""
    return median_filter(scene.read(replace(inputs, median_px=1), block), inputs.median_px)


def falls(scene: Scene, after: LayerBands, before: LayerBands) -> Iterator[F32]:
    """By how much (y, x) the first band fell from before to after, in blocks as of `sample`."""
    for then, now in zip(sample(scene, before), sample(scene, after), strict=True):
        yield then - now


def tiled_otsu(
    images: Iterable[F32], span: tuple[float, float], bounds: tuple[float, float], *, balance: float, least_votes: int
) -> Found:
    """Otsu's threshold within `bounds` over the bimodal tiles of all images (y, x), wherever their modes lie."""
    gate = Gate(span, bounds, (np.inf, -np.inf), (span[1] - span[0]) / 256, balance=balance, least_votes=least_votes)
    return tiled_threshold(images, gate, otsu)


def common_bands(scene: Scene, unit: str, *layers: str) -> list[str]:
    """Polarisations that every layer has in that unit, cross-pol first."""
    return [p for p in CROSS_POL + CO_POL if not any(scene.missing(LayerBands(layer, (p,), unit)) for layer in layers)]


def pair_unit(scene: Scene) -> str:
    """dB where both dates have a common polarisation in it, else the numbers as stored."""
    return "dB" if common_bands(scene, "dB", "after", "before") else "digital_number"


def why_not(scene: Scene, unit: str, *layers: str) -> str:
    """Words for the first layer without backscatter in that unit, or for layers without a common polarisation, or ""."""
    lacking = [layer for layer in layers if not common_bands(scene, unit, layer)]
    if lacking:
        return scene.missing(LayerBands(lacking[0], ("VV",), unit))
    return "" if common_bands(scene, unit, *layers) else f"the {' and the '.join(layers)} image have no polarisation in common"


def value_span(scene: Scene, *inputs: LayerBands) -> tuple[float, float]:
    """The values that 1 in 1000 pixels of all these bands lie below and above, at least 1 apart; (0, 1) where none is seen."""
    every = [block[::4, ::4].ravel() for layer in inputs for block in sample(scene, replace(layer, median_px=1))]
    seen = np.concatenate(every)
    seen = seen[np.isfinite(seen)]
    low, high = np.quantile(seen, (0.001, 0.999)) if seen.size else (0.0, 1.0)
    return float(low), max(float(high), float(low) + 1)
