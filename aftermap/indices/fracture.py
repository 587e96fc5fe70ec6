"""Fractures of glaciers and ice shelves from one image: thin lines that stand out from the ice around them.

What stands out is brighter by default, as walls and rubble are in high-passed mosaics and in radar; sign = -1 looks for
darker lines. Everything is measured in shares of the span that holds 998 of 1000 pixels of the scene.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from aftermap.indices.exact import LEVELS, deviation, share, strongest, whole
from aftermap.indices.ice import ANGLES, found_threshold, scores, view, why_not
from aftermap.indices.threshold import F32, F64
from aftermap.scorer import Bool, LayerBands

if TYPE_CHECKING:
    from aftermap.scene import Scene


@dataclass(frozen=True)
class Contrast:
    """Fracture where a pixel stands out from the mean of the 51 x 51 px around it: the simplest local rule."""

    background_px: int = 51
    sign: float = 1.0
    tail_stds: float = 4.0
    least_tail: float = 0.005
    scale: float = 0.05

    name = "contrast"

    def why_not(self, scene: Scene) -> str:
        """Why no band of the after image shows fractures, in words; empty when one does."""
        return why_not(scene)

    def prepare(self, scene: Scene) -> ContrastScorer:
        """The scorer with span and threshold from two passes over at most 34 Mpx."""
        scorer = ContrastScorer(*view(scene), self.background_px, self.sign, None, "", self.scale)
        found = found_threshold(scene, scorer, self.tail_stds, self.least_tail)
        return replace(scorer, threshold=found.value, source=found.source)


@dataclass(frozen=True)
class ContrastScorer:
    """Scores of fracture; span in `unit`, threshold and scale in shares of the span."""

    band: str
    unit: str
    low: float
    high: float
    background_px: int
    sign: float
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
        """Half the background's window."""
        return self.background_px // 2

    def response(self, image: F32) -> F64:
        """Deviation (y, x) from the surroundings."""
        return share(self.sign * deviation(image, (self.low, self.high), self.background_px))

    def __call__(self, pixels: F32, valid: Bool) -> F32:
        """Scores (n, 1, y, x)."""
        return scores(self, pixels)


@dataclass(frozen=True)
class Gabor:
    """Fracture where the strongest of 18 Gabor filters, one every 10 degrees, stands out (Van Wyk de Vries, field.md 3.9).

    As published: wavelength 2 px, aspect 0.1, the modulus of the filter, 1.25 times the median. Here wavelength 8, aspect
    0.5, the even part, whose sign tells bright lines from dark ones, times the brightness within the span. Pooled AP of the
    22 Antarctic tiles with labels: 0.12 as published, 0.21 with 8 px, 0.39 with the sign, 0.45 with the brightness.
    """

    wavelength_px: float = 8.0
    bandwidth: float = 2.0
    aspect: float = 0.5
    brightness_power: float = 1.0
    background_px: int = 51
    sign: float = 1.0
    tail_stds: float = 5.0
    least_tail: float = 0.015
    """Noise of five kinds, white to speckle, stays below 1.3 %, every Antarctic tile with labels has 2.3 % or more."""
    scale: float = 0.02

    name = "gabor"

    def why_not(self, scene: Scene) -> str:
        """Why no band of the after image shows fractures, in words; empty when one does."""
        return why_not(scene)

    def prepare(self, scene: Scene) -> GaborScorer:
        """The scorer with span and threshold from two passes over at most 34 Mpx."""
        shape = self.wavelength_px, self.bandwidth, self.aspect, self.brightness_power
        scorer = GaborScorer(*view(scene), self.background_px, self.sign, *shape, None, "", self.scale)
        found = found_threshold(scene, scorer, self.tail_stds, self.least_tail)
        return replace(scorer, threshold=found.value, source=found.source)


@lru_cache
def gabor_bank(wavelength_px: float, bandwidth: float, aspect: float) -> tuple[F64, ...]:
    """Even Gabor kernels (k, k) of whole numbers, one per angle; they sum to 0, their moduli to about 4096.

    The deviation across a line is that of a half-response bandwidth in octaves; along it, 1 / aspect times that.
    """
    octaves = 2.0**bandwidth
    across = wavelength_px / np.pi * np.sqrt(np.log(2) / 2) * (octaves + 1) / (octaves - 1)
    along = across / aspect
    reach = int(np.ceil(2.5 * along))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
    return tuple(
        _gabor(x * np.cos(a) + y * np.sin(a), y * np.cos(a) - x * np.sin(a), across, along, wavelength_px) for a in ANGLES
    )


def _gabor(u: F64, v: F64, across: float, along: float, wavelength_px: float) -> F64:
    envelope = np.exp(-(u**2) / 2 / across**2 - v**2 / 2 / along**2)
    even = envelope * np.cos(2 * np.pi * u / wavelength_px)
    even -= envelope * even.sum() / envelope.sum()
    whole = np.rint(even / np.abs(even).sum() * 4 * LEVELS)
    middle = whole.shape[0] // 2
    whole[middle, middle] -= whole.sum()
    return np.asarray(whole)


@dataclass(frozen=True)
class GaborScorer:
    """Scores of fracture; span in `unit`, threshold and scale in shares of the span."""

    band: str
    unit: str
    low: float
    high: float
    background_px: int
    sign: float
    wavelength_px: float
    bandwidth: float
    aspect: float
    brightness_power: float
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
        """Half the background's window and half the filter's."""
        return self.background_px // 2 + len(self._bank()[0]) // 2

    def _bank(self) -> tuple[F64, ...]:
        return gabor_bank(self.wavelength_px, self.bandwidth, self.aspect)

    def response(self, image: F32) -> F64:
        """Strongest response (y, x) of the bank to the deviation from the surroundings, where bright (dark) counting more."""
        lines = self.sign * deviation(image, (self.low, self.high), self.background_px)
        level = whole(image, (self.low, self.high)) / LEVELS
        bright = level if self.sign > 0 else 1 - level
        return share(strongest(lines, self._bank()) / (4 * LEVELS)) * bright**self.brightness_power

    def __call__(self, pixels: F32, valid: Bool) -> F32:
        """Scores (n, 1, y, x)."""
        return scores(self, pixels)
