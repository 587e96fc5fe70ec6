"""Damaged ice by the normalised Radon transform, and fractures by saturation: the coarse and the trivial view of a glacier."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from aftermap.indices.exact import deviation, line_sum, share
from aftermap.indices.ice import ANGLES, found_threshold, scores, view, why_not
from aftermap.indices.survey import sampled, survey
from aftermap.indices.threshold import F32, F64, logistic
from aftermap.scorer import Bool, LayerBands

if TYPE_CHECKING:
    from aftermap.scene import Scene


@dataclass(frozen=True)
class Radon:
    """Fracture where lines of one direction differ most: the normalised Radon transform of NeRD (Izeboud & Lhermitte 2023).

    NeRD cuts the scene into windows of 10 px, averages along lines of each direction, and takes the direction whose
    averages deviate most; damage is that deviation less a threshold. Here the window moves from pixel to pixel, so that
    the answer depends on no lattice, and the threshold is found in the scene. Bright and dark lines count alike.
    """

    window_px: int = 11
    background_px: int = 51
    tail_stds: float = 4.0
    least_tail: float = 0.005
    scale: float = 0.01

    name = "radon"

    def why_not(self, scene: Scene) -> str:
        """Why no band of the after image shows fractures, in words; empty when one does."""
        return why_not(scene)

    def prepare(self, scene: Scene) -> RadonScorer:
        """The scorer with span and threshold from two passes over at most 34 Mpx."""
        scorer = RadonScorer(*view(scene), self.background_px, self.window_px, None, "", self.scale)
        found = found_threshold(scene, scorer, self.tail_stds, self.least_tail)
        return replace(scorer, threshold=found.value, source=found.source)


def _line(angle: float, length: int) -> list[tuple[int, int]]:
    """Offsets (down, right) of `length` (odd) pixels on a line through the centre."""
    return [(round(k * np.sin(angle)), round(k * np.cos(angle))) for k in range(-(length // 2), length // 2 + 1)]


@dataclass(frozen=True)
class RadonScorer:
    """Scores of fracture; span in `unit`, threshold and scale in shares of the span."""

    band: str
    unit: str
    low: float
    high: float
    background_px: int
    window_px: int
    threshold: float | None
    source: str
    scale: float

    classes = ("fracture",)
    multiple_of = 1

    @property
    def inputs(self) -> tuple[LayerBands, ...]:
        """One band."""
        return (LayerBands("after", (self.band,), self.unit),)

    @property
    def halo_px(self) -> int:
        """Half the background's window, half a line, and half the window's side across it."""
        return self.background_px // 2 + 2 * (self.window_px // 2)

    def response(self, image: F32) -> F64:
        """Greatest deviation (y, x), over all directions, among the means of parallel lines."""
        ice, count = deviation(image, (self.low, self.high), self.background_px), self.window_px
        best = np.zeros(image.shape)
        for angle in ANGLES:
            along, across = line_sum(ice, _line(angle, count)), _line(angle + np.pi / 2, count)
            variance = count * line_sum(along**2, across) - line_sum(along, across) ** 2  # times count^4, a whole number
            np.maximum(best, variance, out=best)
        return share(np.sqrt(best) / count**2)

    def __call__(self, pixels: F32, valid: Bool) -> F32:
        """Scores (n, 1, y, x)."""
        return scores(self, pixels)


@dataclass(frozen=True)
class Saturation:
    """Fracture where the stretch of the image is at its upper end: the trivial rule that any method must beat.

    On the Antarctic tiles 7 % of the ice is stored as 65535 and holds half of what is labelled; calling it fracture has F1
    0.33 (README of the data). It finds nothing where fewer than `least_share` or more than half of the pixels pile up there.
    """

    least_share: float = 0.001
    scale: float = 0.01

    name = "saturation"

    def why_not(self, scene: Scene) -> str:
        """Why no band of the after image shows fractures, in words; empty when one does."""
        return why_not(scene)

    def prepare(self, scene: Scene) -> SaturationScorer:
        """The scorer with the greatest value, where enough pixels have it, from a pass over at most 34 Mpx."""
        band, unit, low, high = view(scene)
        values = sampled(survey(scene, (LayerBands("after", (band,), unit),), lambda pixels: pixels[0]))
        top = float(values.max()) if values.size else 0.0
        piled = float((values == top).mean()) if values.size else 0.0
        told = f"{piled:.2%} of the sampled pixels have the greatest value, {top:g}"
        found = self.least_share <= piled <= 0.5
        return SaturationScorer(
            band, unit, top if found else None, told if found else f"nothing found: {told}", self.scale * (high - low)
        )


@dataclass(frozen=True)
class SaturationScorer:
    """Scores of fracture; levels in `unit`."""

    band: str
    unit: str
    top: float | None
    source: str
    scale: float

    classes = ("fracture",)
    halo_px = 0
    multiple_of = 1

    @property
    def inputs(self) -> tuple[LayerBands, ...]:
        """One band."""
        return (LayerBands("after", (self.band,), self.unit),)

    def __call__(self, pixels: F32, valid: Bool) -> F32:
        """Scores (n, 1, y, x): above 0.5 at the greatest value; below it they fall off with the distance."""
        if self.top is None:
            return np.zeros_like(pixels)
        below = self.top - pixels.astype(np.float64)
        return logistic(np.where(below <= 0, self.scale, -below), self.scale)
