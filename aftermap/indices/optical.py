"""Water and flood from optical bands: water reflects green and absorbs the infrared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from aftermap.indices.threshold import F32, logistic
from aftermap.scorer import Bool, LayerBands

if TYPE_CHECKING:
    from aftermap.scene import Scene


@dataclass(frozen=True)
class Mndwi:
    """Water where (green - swir1) / (green + swir1) > 0 (Xu 2006, eq. 2); flood where there was none before.

    Built-up land, whose NDWI is positive, stays negative; cloud must be masked before.
    """

    threshold: float = 0.0
    scale: float = 0.1

    name = "mndwi"
    bands = ("green", "swir1")

    def why_not(self, scene: Scene) -> str:
        """Why the after image lacks one of the two bands, in words; empty when it has both."""
        return _why_not(scene, self.bands)

    def prepare(self, scene: Scene) -> RatioScorer:
        """The scorer; nothing is learned from the scene but which layers and units it has."""
        return _scorer(scene, self.bands, self.threshold, self.scale)


@dataclass(frozen=True)
class Ndwi:
    """Water where (green - nir) / (green + nir) > 0 (McFeeters 1996, eq. 1); flood where there was none before."""

    threshold: float = 0.0
    scale: float = 0.1

    name = "ndwi"
    bands = ("green", "nir")

    def why_not(self, scene: Scene) -> str:
        """Why the after image lacks one of the two bands, in words; empty when it has both."""
        return _why_not(scene, self.bands)

    def prepare(self, scene: Scene) -> RatioScorer:
        """The scorer; nothing is learned from the scene but which layers and units it has."""
        return _scorer(scene, self.bands, self.threshold, self.scale)


UNITS = ("reflectance", "digital_number")
"""In order of choice; the ratio survives a scale, but not an offset, in the stored numbers."""


def _unit(scene: Scene, layer: str, bands: tuple[str, ...]) -> str | None:
    return next((unit for unit in UNITS if not scene.missing(LayerBands(layer, bands, unit))), None)


def _why_not(scene: Scene, bands: tuple[str, ...]) -> str:
    return "" if _unit(scene, "after", bands) else scene.missing(LayerBands("after", bands, UNITS[-1]))


def _scorer(scene: Scene, bands: tuple[str, ...], threshold: float, scale: float) -> RatioScorer:
    units = tuple(unit for layer in ("after", "before") if (unit := _unit(scene, layer, bands)))
    return RatioScorer(bands, units, threshold, scale)


@dataclass(frozen=True)
class RatioScorer:
    """Scores of (first - second) / (first + second) above the threshold: water, or flood where two units say two dates."""

    bands: tuple[str, ...]
    units: tuple[str, ...]
    """Of the after image, and of the before image of a pair."""
    threshold: float
    scale: float

    halo_px = 0
    multiple_of = 1

    @property
    def inputs(self) -> tuple[LayerBands, ...]:
        """Two bands after, and the same before in a pair."""
        return tuple(LayerBands(layer, self.bands, unit) for layer, unit in zip(("after", "before"), self.units, strict=False))

    @property
    def classes(self) -> tuple[str, ...]:
        """Without a before image permanent water cannot be told from flood."""
        return ("water", "flood")[len(self.units) - 1 :][:1]

    def __call__(self, pixels: F32, valid: Bool) -> F32:
        """Scores (n, 1, y, x): water after, and in a pair no more than there was none before."""
        water = normalised_difference(pixels[:, 0::2], pixels[:, 1::2]) - self.threshold  # (n, date, y, x)
        margin = water[:, :1] if len(self.units) == 1 else np.minimum(water[:, :1], -water[:, 1:])
        return logistic(margin, self.scale)


def normalised_difference(first: F32, second: F32) -> F32:
    """(first - second) / (first + second) in [-1, 1]; reflectances below zero count as zero, and 0 where both are.

    Over dark water atmospheric correction may leave them negative; unclipped, a sum near zero gives any ratio.
    """
    first, second = np.maximum(first, 0), np.maximum(second, 0)
    total = first + second
    return np.asarray(np.divide(first - second, total, out=np.where(np.isnan(total), total, 0), where=total > 0))
