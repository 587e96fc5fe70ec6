"""Buildings without a trained model: the least that a network must beat. No footprints are known here.

Bright is what roofs often are, rough is what streets and roofs are together, changed is what anything may be. None of
the three tells a building from a road, a rock or a crown; each says in its class what it maps instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from aftermap.indices import pattern
from aftermap.indices.exact import LEVELS, box_sum, whole
from aftermap.indices.landslide import common_unit, pair_why_not
from aftermap.indices.optical import UNITS
from aftermap.indices.survey import span_of, survey, usual
from aftermap.indices.threshold import F32, F64, Found, Gate, logistic, otsu, tiled_threshold
from aftermap.scorer import Bool, LayerBands, pair_inputs

if TYPE_CHECKING:
    from aftermap.scene import Scene

SETS = (("red", "green", "blue"), ("grey",))
"""In order of choice: what is visible, or one band."""
DARK = 1 / 256
"""Share of the bright end below which brightness is dark."""


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
    """Change of any kind: pieces of 9 x 9 px whose pattern of light and dark is gone (pattern.py), significant in the scene.

    The median of the difference is taken off, which takes up another exposure; half of `significance` robust standard
    deviations, and half of `least`, must remain; `most` is change even where all has changed. Without footprints ground and
    trees count too (field.md 3.10).
    """

    window_px: int = 9
    significance: float = 4.0
    least: float = 0.25
    most: float = 0.5

    name = "building-change"

    def why_not(self, scene: Scene) -> str:
        """Why there is no pair of visible bands in one unit, in words; empty when there is."""
        return pair_why_not(scene, _bands(scene, "after", "before"))

    def prepare(self, scene: Scene) -> ChangeScorer:
        """The scorer with median and least difference, from two passes over at most 34 Mpx."""
        bands = _bands(scene, "after", "before")
        unit = common_unit(scene, bands, "after", "before") or UNITS[-1]
        after, before = (max(_span(scene, (one,))[1] * DARK, 1e-6) for one in pair_inputs(bands, unit))
        blank = ChangeScorer(bands, unit, after, before, 0.0, "", self.least, self.window_px)
        middle, std = usual(survey(scene, blank.inputs, blank.change), least_std=0.001)
        told = f"median {middle:.3f}, robust standard deviation {std:.3f}"
        return replace(blank, middle=middle, source=told, full=min(max(self.significance * std, self.least), self.most))


@dataclass(frozen=True)
class ChangeScorer:
    """Scores of change; differences are of half logarithms of brightness, which is at least `least_...` in `unit`."""

    bands: tuple[str, ...]
    unit: str
    least_after: float
    least_before: float
    middle: float
    source: str
    full: float
    window_px: int

    classes = ("change",)
    multiple_of = 1

    @property
    def inputs(self) -> tuple[LayerBands, ...]:
        """The visible bands after, and the same before."""
        return pair_inputs(self.bands, self.unit)

    @property
    def halo_px(self) -> int:
        """Half the window."""
        return self.window_px // 2

    def levels(self, pixels: F32) -> F64:
        """Levels (2, y, x) of pixels (band, y, x), after and before."""
        return pattern.levels([brightness(date) for date in np.split(pixels, 2)], (self.least_after, self.least_before))

    def change(self, pixels: F32) -> F32:
        """Difference (y, x) of pixels (band, y, x)."""
        after, before = self.levels(pixels)
        return np.asarray((after - before) / pattern.STEPS, np.float32)

    def around(self, levels: F64) -> F64:
        """Moments (6, y, x) summed over what was observed in the window of each pixel."""
        return np.stack([box_sum(moment, self.window_px) for moment in pattern.moments(levels)])

    def __call__(self, pixels: F32, valid: Bool) -> F32:
        """Scores (n, 1, y, x): how much of the pattern is gone."""
        found = [pattern.lost(self.around(self.levels(image)), middle=self.middle, full=self.full) for image in pixels]
        return np.stack(found)[:, None].astype(np.float32)
