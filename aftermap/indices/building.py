"""Buildings without a trained model: the least that a network must beat. No footprints are known here.

Bright is what roofs often are, rough is what streets and roofs are together, changed is what anything may be. None of
the three tells a building from a road, a rock or a crown; each says in its class what it maps instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from aftermap.indices.exact import LEVELS, box_sum, whole
from aftermap.indices.landslide import common_unit, pair_inputs, pair_why_not
from aftermap.indices.optical import UNITS, normalised_difference
from aftermap.indices.survey import span_of, survey, usual
from aftermap.indices.threshold import F32, Found, Gate, logistic, otsu, tiled_threshold
from aftermap.median import median_filter
from aftermap.scorer import Bool, LayerBands

if TYPE_CHECKING:
    from aftermap.scene import Scene

SETS = (("red", "green", "blue"), ("grey",))
"""In order of choice: what is visible, or one band."""


def _bands(scene: Scene, *layers: str) -> tuple[str, ...]:
    return next((bands for bands in SETS if common_unit(scene, bands, *layers)), SETS[0])


def _why_not(scene: Scene) -> str:
    bands = _bands(scene, "after")
    return "" if common_unit(scene, bands, "after") else scene.missing(LayerBands("after", bands, UNITS[-1]))


def _inputs(scene: Scene) -> tuple[LayerBands, ...]:
    bands = _bands(scene, "after")
    return (LayerBands("after", bands, common_unit(scene, bands, "after") or UNITS[-1]),)


def _span(scene: Scene, inputs: tuple[LayerBands, ...]) -> tuple[float, float]:
    return span_of(survey(scene, inputs, brightness))


def brightness(pixels: F32) -> F32:
    """Mean of the bands on the third last axis, summed in their order."""
    total = pixels[..., 0, :, :].astype(np.float64)
    for band in range(1, pixels.shape[-3]):
        total = total + pixels[..., band, :, :]
    return np.asarray(total / pixels.shape[-3], np.float32)


def _found(images: Iterator[F32], span: tuple[float, float]) -> Found:
    """The median of Otsu's thresholds of the bimodal tiles."""
    gate = Gate(span, span, (np.inf, -np.inf), (span[1] - span[0]) / 256, least_votes=1)
    return tiled_threshold(images, gate, otsu)


@dataclass(frozen=True)
class Brightness:
    """Bright surfaces: the mean of the visible bands above the median of Otsu's thresholds of bimodal tiles (field.md 3.11)."""

    scale: float = 0.1

    name = "brightness"

    def why_not(self, scene: Scene) -> str:
        """Why the after image has no visible band, in words; empty when it has."""
        return _why_not(scene)

    def prepare(self, scene: Scene) -> BrightnessScorer:
        """The scorer with its threshold, None where none was found, from two passes over at most 34 Mpx."""
        inputs = _inputs(scene)
        span = _span(scene, inputs)
        found = _found(survey(scene, inputs, brightness), span)
        return BrightnessScorer(
            inputs[0].bands, inputs[0].unit, found.value, found.source, self.scale * (span[1] - span[0])
        )  # fmt: skip


@dataclass(frozen=True)
class BrightnessScorer:
    """Scores of bright surface; levels in `unit`."""

    bands: tuple[str, ...]
    unit: str
    threshold: float | None
    source: str
    scale: float

    classes = ("bright surface",)
    halo_px = 0
    multiple_of = 1

    @property
    def inputs(self) -> tuple[LayerBands, ...]:
        """The visible bands."""
        return (LayerBands("after", self.bands, self.unit),)

    def __call__(self, pixels: F32, valid: Bool) -> F32:
        """Scores (n, 1, y, x); 0 without a threshold."""
        if self.threshold is None:
            return np.zeros_like(pixels[:, :1])
        return logistic(brightness(pixels)[:, None].astype(np.float64) - self.threshold, self.scale)


@dataclass(frozen=True)
class Texture:
    """Rough surfaces: the deviation of brightness among 9 x 9 px above the median of Otsu's thresholds of bimodal tiles."""

    window_px: int = 9
    scale: float = 0.02

    name = "texture"

    def why_not(self, scene: Scene) -> str:
        """Why the after image has no visible band, in words; empty when it has."""
        return _why_not(scene)

    def prepare(self, scene: Scene) -> TextureScorer:
        """The scorer with its threshold, None where none was found, from two passes over at most 34 Mpx."""
        inputs = _inputs(scene)
        scorer = TextureScorer(inputs[0].bands, inputs[0].unit, *_span(scene, inputs), self.window_px, None, "", self.scale)
        found = _found(survey(scene, inputs, lambda p: scorer.roughness(brightness(p)), scorer.halo_px), (0.0, 0.5))
        return replace(scorer, threshold=found.value, source=found.source)


@dataclass(frozen=True)
class TextureScorer:
    """Scores of rough surface; span in `unit`, threshold and scale in shares of the span."""

    bands: tuple[str, ...]
    unit: str
    low: float
    high: float
    window_px: int
    threshold: float | None
    source: str
    scale: float

    classes = ("rough surface",)
    multiple_of = 1

    @property
    def inputs(self) -> tuple[LayerBands, ...]:
        """The visible bands."""
        return (LayerBands("after", self.bands, self.unit),)

    @property
    def halo_px(self) -> int:
        """Half the window."""
        return self.window_px // 2

    def roughness(self, image: F32) -> F32:
        """Standard deviation (y, x) of what was observed in the window."""
        seen = np.isfinite(image)
        level = whole(image, (self.low, self.high))
        count = np.maximum(box_sum(seen.astype(np.float64), self.window_px), 1)
        variance = count * box_sum(level**2, self.window_px) - box_sum(level, self.window_px) ** 2  # times count^2
        return np.asarray(np.sqrt(variance) / count / LEVELS, np.float32)

    def __call__(self, pixels: F32, valid: Bool) -> F32:
        """Scores (n, 1, y, x); 0 without a threshold."""
        if self.threshold is None:
            return np.zeros_like(pixels[:, :1])
        rough = np.stack([self.roughness(image) for image in brightness(pixels)])[:, None]
        return logistic(rough.astype(np.float64) - self.threshold, self.scale)


@dataclass(frozen=True)
class BuildingChange:
    """Change of any kind: |normalised difference| of brightness, after and before, significant among that of the scene.

    The median of the difference is taken off, which takes up another exposure; what remains must exceed `significance`
    robust standard deviations and `least`; `most`, a brightness doubled or halved, is change even where all has changed.
    Without footprints ground and trees count too (field.md 3.10).
    """

    smooth_px: int = 3
    significance: float = 4.0
    least: float = 0.1
    most: float = 1 / 3
    scale: float = 0.05

    name = "building-change"

    def why_not(self, scene: Scene) -> str:
        """Why there is no pair of visible bands in one unit, in words; empty when there is."""
        return pair_why_not(scene, _bands(scene, "after", "before"))

    def prepare(self, scene: Scene) -> ChangeScorer:
        """The scorer with median and least difference from a first pass over at most 34 Mpx."""
        bands = _bands(scene, "after", "before")
        unit = common_unit(scene, bands, "after", "before") or UNITS[-1]
        blank = ChangeScorer(bands, unit, 0.0, "", self.least, self.smooth_px, self.scale)
        changes = survey(scene, blank.inputs, lambda p: blank.difference(p[None])[0, 0], blank.halo_px)
        middle, std = usual(changes, least_std=0.001)
        told = f"median {middle:.3f}, robust standard deviation {std:.3f}"
        threshold = min(max(self.significance * std, self.least), self.most)
        return replace(blank, middle=middle, source=told, threshold=threshold)


@dataclass(frozen=True)
class ChangeScorer:
    """Scores of change; levels of the normalised difference."""

    bands: tuple[str, ...]
    unit: str
    middle: float
    source: str
    threshold: float
    smooth_px: int
    scale: float

    classes = ("change",)
    multiple_of = 1

    @property
    def inputs(self) -> tuple[LayerBands, ...]:
        """The visible bands after, and the same before."""
        return pair_inputs(self.bands, self.unit)

    @property
    def halo_px(self) -> int:
        """Half the median's window."""
        return self.smooth_px // 2

    def difference(self, pixels: F32) -> F32:
        """Normalised difference (n, 1, y, x) of the smoothed brightness."""
        dates = [median_filter(brightness(date), self.smooth_px) for date in np.split(pixels, 2, axis=-3)]
        return normalised_difference(*dates)[:, None]

    def __call__(self, pixels: F32, valid: Bool) -> F32:
        """Scores (n, 1, y, x): how far the difference lies outside of what is usual."""
        return logistic(np.abs(self.difference(pixels) - np.float32(self.middle)) - self.threshold, self.scale)
