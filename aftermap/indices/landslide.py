"""Landslides from optical bands: a slide strips the plants and bares soil, which is redder and brighter.

A pair shows what changed; one image shows bare ground, whether a slide, a field or a road.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from aftermap.indices.optical import UNITS, normalised_difference
from aftermap.indices.survey import survey, usual
from aftermap.indices.threshold import F32, logistic
from aftermap.scorer import Bool, LayerBands, pair_inputs

if TYPE_CHECKING:
    from aftermap.scene import Scene


def common_unit(scene: Scene, bands: tuple[str, ...], *layers: str) -> str | None:
    """The unit, reflectance first, that every layer has these bands in."""
    return next((u for u in UNITS if not any(scene.missing(LayerBands(layer, bands, u)) for layer in layers)), None)


def pair_why_not(scene: Scene, bands: tuple[str, ...]) -> str:
    """Why there is no pair of these bands in one unit, in words; empty when there is."""
    if common_unit(scene, bands, "after", "before"):
        return ""
    said = (scene.missing(LayerBands(layer, bands, u)) for u in UNITS[::-1] for layer in ("after", "before"))
    return next(why for why in said if why)


@dataclass(frozen=True)
class NdviChange:
    """Landslide where leaves lost or gained water and the ground became redder: the gates of SLIP (Fayne et al. 2019).

    |d NDWI(nir, swir1)| > 0.20 and (red after - red before) / red before > 0.40, as in data_cube_utilities `dc_slip.py`
    (field.md 3.8). Its third gate, slope above 15 degrees, is not applied: the slope is for the delivery to exclude. The
    gates are absolute, so a scene without change gives nothing.
    """

    least_wetness: float = 0.20
    least_rise: float = 0.40
    scale: float = 0.05

    name = "ndvi-change"

    def why_not(self, scene: Scene) -> str:
        """Why there is no pair with red, nir and swir1, in words; empty when there is."""
        return pair_why_not(scene, NdviChangeScorer.bands)

    def prepare(self, scene: Scene) -> NdviChangeScorer:
        """The scorer; nothing is learned from the scene but its unit."""
        unit = common_unit(scene, NdviChangeScorer.bands, "after", "before") or UNITS[-1]
        return NdviChangeScorer(unit, self.least_wetness, self.least_rise, self.scale)


@dataclass(frozen=True)
class NdviChangeScorer:
    """Scores of landslide."""

    unit: str
    least_wetness: float
    least_rise: float
    scale: float

    bands = ("red", "nir", "swir1")
    classes = ("landslide",)
    halo_px = 0
    multiple_of = 1

    @property
    def inputs(self) -> tuple[LayerBands, ...]:
        """Three bands after, and the same before."""
        return pair_inputs(self.bands, self.unit)

    def __call__(self, pixels: F32, valid: Bool) -> F32:
        """Scores (n, 1, y, x): the lesser margin of both gates, in steps of NDWI; a rise counts half."""
        red, nir, swir, red_before, nir_before, swir_before = (pixels[:, k : k + 1] for k in range(6))
        wetness = np.abs(normalised_difference(nir, swir) - normalised_difference(nir_before, swir_before))
        rise = (red - red_before) / np.maximum(red_before, np.float32(1e-6))
        return logistic(np.minimum(wetness - self.least_wetness, (rise - self.least_rise) / 2), self.scale)


@dataclass(frozen=True)
class RdNdvi:
    """Landslide where the relative fall of NDVI is significant among its changes in the scene (HazMapper, field.md 3.8).

    rdNDVI = 100 (after - before) / sqrt(before + after) (Scheip & Wegmann 2021). Their users pick a threshold by eye; here it
    is `significance` standard deviations below the median, which takes up season and haze, and within `least_fall` and
    `most_fall`, which is a landslide even where most has changed. The deviation is robust, so that few slides do not raise
    it. On ground without plants before no landslide can be seen.
    """

    significance: float = 4.0
    least_fall: float = 15.0
    most_fall: float = 50.0
    least_before: float = 0.2
    scale: float = 5.0

    name = "rdndvi"

    def why_not(self, scene: Scene) -> str:
        """Why there is no pair with red and nir, in words; empty when there is."""
        return pair_why_not(scene, RdNdviScorer.bands)

    def prepare(self, scene: Scene) -> RdNdviScorer:
        """The scorer with its threshold from a first pass over at most 34 Mpx."""
        unit = common_unit(scene, RdNdviScorer.bands, "after", "before") or UNITS[-1]
        change = survey(scene, pair_inputs(RdNdviScorer.bands, unit), lambda p: relative_change(p[None])[0][0, 0])
        middle, std = usual(change, least_std=1.0)
        fall = min(max(self.significance * std - middle, self.least_fall), self.most_fall)
        told = f"median {middle:.2f}, robust standard deviation {std:.2f}"
        return RdNdviScorer(unit, -fall, told, self.least_before, self.scale)


def relative_change(pixels: F32) -> tuple[F32, F32]:
    """rdNDVI and NDVI before, (n, 1, y, x) each, of red and nir after and before; 0 where the sum is not positive."""
    red, nir, red_before, nir_before = (pixels[:, k : k + 1] for k in range(4))
    after, before = normalised_difference(nir, red), normalised_difference(nir_before, red_before)
    total = after + before
    root = np.sqrt(np.where(total > 0.01, total, np.float32(1)))
    return np.asarray(np.where(total > 0.01, 100 * (after - before) / root, total * 0)), before


@dataclass(frozen=True)
class RdNdviScorer:
    """Scores of landslide; threshold in percent of rdNDVI."""

    unit: str
    threshold: float
    source: str
    least_before: float
    scale: float

    bands = ("red", "nir")
    classes = ("landslide",)
    halo_px = 0
    multiple_of = 1

    @property
    def inputs(self) -> tuple[LayerBands, ...]:
        """Two bands after, and the same before."""
        return pair_inputs(self.bands, self.unit)

    def __call__(self, pixels: F32, valid: Bool) -> F32:
        """Scores (n, 1, y, x): the lesser margin of the fall and, in percent, of the NDVI before."""
        change, before = relative_change(pixels)
        return logistic(np.minimum(self.threshold - change, 100 * (before - self.least_before)), self.scale)
