"""Bare soil from red and green, and landslides from the change of radar backscatter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from aftermap.indices.landslide import common_unit
from aftermap.indices.optical import UNITS, normalised_difference
from aftermap.indices.radar import common_bands, why_not
from aftermap.indices.survey import otsu_of_rarer, span_of, survey, usual
from aftermap.indices.threshold import F32, Found, Gate, logistic, tiled_threshold
from aftermap.scorer import Bool, LayerBands, pair_inputs

if TYPE_CHECKING:
    from aftermap.scene import Scene


@dataclass(frozen=True)
class BareSoil:
    """Bare soil where red exceeds green and is bright; a landslide where it was not bare before.

    The index is (red - green) / (red + green) + red_weight red / r, r what 1 of 1000 pixels exceed. The ratio alone (field.md
    3.11) has AP 0.60, 0.69, 0.06 and 0.30 on Landslide4Sense A, B, C (120, 114, 48 pictures) and Bijie (62); with a quarter of
    the red 0.59, 0.66, 0.16 and 0.30: dry mountains are all red, and there the scars are brighter. The threshold is the
    median over bimodal tiles of Otsu's among the values above the tile's median, as what slid is the rarer half; over all
    values it is drawn into meadows against forest (IoU B 0.12 to 0.31).
    """

    red_weight: float = 0.25
    least_index: float = -0.1
    """Pictures are stretched band by band, which moves the level at which red equals green."""
    balance: float = 0.02
    least_votes: int = 1
    """A picture may be a single chip of 128 px, 4 tiles."""
    scale: float = 0.05

    name = "bare-soil"
    bands = ("red", "green")

    def why_not(self, scene: Scene) -> str:
        """Why the after image lacks red or green, in words; empty when it has both."""
        return "" if common_unit(scene, self.bands, "after") else scene.missing(LayerBands("after", self.bands, UNITS[-1]))

    def prepare(self, scene: Scene) -> BareSoilScorer:
        """The scorer with one threshold per date, None where none was found, from passes over at most 34 Mpx per date."""
        after, top, found = self._date(scene, "after")
        if not common_unit(scene, self.bands, "before"):
            return BareSoilScorer((after,), (top,), (found.value,), found.source, self.red_weight, self.scale)
        before, top_before, then = self._date(scene, "before")
        told = f"after: {found.source}; before: {then.source}"
        return BareSoilScorer((after, before), (top, top_before), (found.value, then.value), told, self.red_weight, self.scale)

    def _date(self, scene: Scene, layer: str) -> tuple[str, float, Found]:
        unit = common_unit(scene, self.bands, layer) or UNITS[-1]
        inputs = (LayerBands(layer, self.bands, unit),)
        top = max(span_of(survey(scene, inputs, lambda pixels: pixels[0]))[1], 1e-6)
        gate = Gate(
            (-1.0, 1.0 + self.red_weight), (self.least_index, np.inf), (np.inf, -np.inf), 1 / 128,
            balance=self.balance, least_votes=self.least_votes,
        )  # fmt: skip
        images = survey(scene, inputs, lambda pixels: soil_index(pixels, top, self.red_weight))
        return unit, top, tiled_threshold(images, gate, otsu_of_rarer)


def soil_index(pixels: F32, top: float, red_weight: float) -> F32:
    """Index (y, x) of red and green (2, y, x)."""
    bright = np.clip(pixels[0] / np.float32(top), 0, 1)
    return np.asarray(normalised_difference(pixels[0], pixels[1]) + np.float32(red_weight) * bright)


@dataclass(frozen=True)
class BareSoilScorer:
    """Scores of bare soil, or of landslide where there are two dates; units, tops of red and thresholds after and before."""

    units: tuple[str, ...]
    tops: tuple[float, ...]
    thresholds: tuple[float | None, ...]
    source: str
    red_weight: float
    scale: float

    halo_px = 0
    multiple_of = 1

    @property
    def inputs(self) -> tuple[LayerBands, ...]:
        """Red and green after, and before in a pair."""
        return tuple(LayerBands(k, BareSoil.bands, unit) for k, unit in zip(("after", "before"), self.units, strict=False))

    @property
    def classes(self) -> tuple[str, ...]:
        """Without a before image old and new cannot be told apart."""
        return ("bare soil", "landslide")[len(self.units) - 1 :][:1]

    def __call__(self, pixels: F32, valid: Bool) -> F32:
        """Scores (n, 1, y, x): bare after, and in a pair not before; 0 where nothing is bare after."""
        now, *then = self.thresholds
        if now is None:
            return np.zeros_like(pixels[:, :1])
        margin = self._index(pixels, 0) - now
        if then and then[0] is not None:
            margin = np.minimum(margin, then[0] - self._index(pixels, 1))
        return logistic(margin[:, None], self.scale)

    def _index(self, pixels: F32, date: int) -> F32:
        return np.stack([soil_index(p[2 * date : 2 * date + 2], self.tops[date], self.red_weight) for p in pixels])


@dataclass(frozen=True)
class LogRatio:
    """Landslide where backscatter changed significantly, up or down (after Handwerger et al. 2022, field.md 3.8).

    Cross-pol after - before in dB after a 5 x 5 median; a change is significant `significance` robust standard deviations
    from the median of the scene, and at least `least_db`; `most_db` is one even where most has changed. The published 99th
    percentile calls 1 % of any scene a landslide; this finds nothing where nothing changed. Published stacks of years and
    both orbits see more than one pair can.
    """

    smooth_px: int = 5
    significance: float = 4.0
    least_db: float = 2.0
    most_db: float = 6.0
    scale_db: float = 1.0

    name = "log-ratio"

    def why_not(self, scene: Scene) -> str:
        """Why there is no pair in dB with a common polarisation, in words; empty when there is."""
        return why_not(scene, "dB", "after", "before")

    def prepare(self, scene: Scene) -> LogRatioScorer:
        """The scorer with median and least change from a first pass over at most 34 Mpx."""
        band = common_bands(scene, "dB", "after", "before")[0]
        blank = LogRatioScorer(band, 0.0, "", self.least_db, self.smooth_px, self.scale_db)
        changes = survey(scene, blank.inputs, lambda pixels: blank.change(pixels[None])[0, 0], blank.halo_px)
        middle, std = usual(changes, least_std=0.1)
        told = f"median {middle:.2f} dB, robust standard deviation {std:.2f} dB"
        return LogRatioScorer(
            band, middle, told, min(max(self.significance * std, self.least_db), self.most_db), self.smooth_px, self.scale_db
        )  # fmt: skip


@dataclass(frozen=True)
class LogRatioScorer:
    """Scores of landslide; levels in dB."""

    band: str
    middle_db: float
    source: str
    threshold_db: float
    smooth_px: int
    scale_db: float

    classes = ("landslide",)
    halo_px = 0
    multiple_of = 1

    @property
    def inputs(self) -> tuple[LayerBands, ...]:
        """The same band after and before."""
        return pair_inputs((self.band,), "dB", self.smooth_px)

    def change(self, pixels: F32) -> F32:
        """Change (n, 1, y, x) from before to after (n, 2, y, x)."""
        return np.asarray(pixels[:, :1] - pixels[:, 1:])

    def __call__(self, pixels: F32, valid: Bool) -> F32:
        """Scores (n, 1, y, x): how far the change lies outside of what is usual."""
        return logistic(np.abs(self.change(pixels) - np.float32(self.middle_db)) - self.threshold_db, self.scale_db)
