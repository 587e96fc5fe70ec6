"""Flood from the change between two dates alone: backscatter that fell, or MNDWI that rose, with a threshold of its own.

What either date looks like by itself plays no part: nothing must be dark enough, which haze, wind and another stretch upset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from aftermap.indices.landslide import common_unit
from aftermap.indices.optical import UNITS, normalised_difference
from aftermap.indices.radar import common_bands, falls, pair_unit, tiled_otsu, value_span, why_not
from aftermap.indices.survey import survey
from aftermap.indices.threshold import F32, Gate, logistic, otsu, tiled_threshold
from aftermap.scorer import Bool, LayerBands, pair_inputs

if TYPE_CHECKING:
    from aftermap.scene import Scene


@dataclass(frozen=True)
class LogRatio:
    """Flood where one polarisation fell by more than the threshold of its fall: the log-ratio, a difference in dB.

    field.md 3.4 and 3.5 (UN-SPIDER, HYDRAFloods), with the difference in dB, and Otsu by tiles in place of a fixed ratio or a
    threshold of the whole; the minimum error threshold had a lower IoU in 11 of 12 simulated scenes. An 8-bit picture of dB
    is the logarithm up to a stretch: its stored numbers are taken, and as a stretch may brighten a whole date, the bounds do
    not hold there.
    """

    smooth_px: int = 5
    bounds_db: tuple[float, float] = (2.0, 10.0)
    """Below 2 dB speckle and soil moisture change as much, above 10 calm water has long taken the place of any land."""
    balance: float = 0.05
    least_votes: int = 1
    """As in `sar-darker`: a scene may be a single chip of 256 px, 16 tiles."""

    name = "log-ratio"

    def why_not(self, scene: Scene) -> str:
        """Why there is no pair of one radar band, in words; empty when there is."""
        return why_not(scene, pair_unit(scene), "after", "before")

    def prepare(self, scene: Scene) -> FallScorer:
        """The scorer with the threshold, None where none was found, from a pass over at most 34 Mpx per date."""
        unit = pair_unit(scene)
        band = common_bands(scene, unit, "after", "before")[0]
        after, before = pair_inputs((band,), unit, self.smooth_px)
        low, high = value_span(scene, after, before)
        wide = high - low
        bounds = self.bounds_db if unit == "dB" else (-wide, wide)
        found = tiled_otsu(falls(scene, after, before), (-wide, wide), bounds, balance=self.balance, least_votes=self.least_votes)
        return FallScorer(band, unit, found.value, found.source, self.smooth_px, 1.0 if unit == "dB" else wide / 25)


@dataclass(frozen=True)
class FallScorer:
    """Scores of flood; threshold and scale in `unit`."""

    band: str
    unit: str
    threshold: float | None
    source: str
    smooth_px: int
    scale: float

    classes = ("flood",)
    halo_px = 0
    multiple_of = 1

    @property
    def inputs(self) -> tuple[LayerBands, ...]:
        """The same band after and before."""
        return pair_inputs((self.band,), self.unit, self.smooth_px)

    def __call__(self, pixels: F32, valid: Bool) -> F32:
        """Scores (n, 1, y, x): the fall above the threshold through the logistic function; 0 without a threshold."""
        if self.threshold is None:
            return np.zeros_like(pixels[:, :1])
        return logistic(pixels[:, 1:] - pixels[:, :1] - np.float32(self.threshold), self.scale)


@dataclass(frozen=True)
class MndwiRise:
    """Flood where MNDWI rose by more than Otsu's threshold of the rise (field.md 3.11).

    Haze lowers MNDWI over water below 0, and muddy water starts there; but it is still higher than the land was.
    """

    least_rise: float = 0.1
    """A tenth of the way from dry to wet: below it, plants and moisture change as much."""
    balance: float = 0.05
    least_votes: int = 1
    scale: float = 0.1

    name = "mndwi-rise"
    bands = ("green", "swir1")

    def why_not(self, scene: Scene) -> str:
        """Why there is no pair of both bands, in words; empty when there is."""
        lacking = (scene.missing(LayerBands(layer, self.bands, UNITS[-1])) for layer in ("after", "before"))
        return next((words for words in lacking if words), "")

    def prepare(self, scene: Scene) -> RiseScorer:
        """The scorer with the threshold, None where none was found, from a pass over at most 34 Mpx per date."""
        after, before = (common_unit(scene, self.bands, layer) or UNITS[-1] for layer in ("after", "before"))
        inputs = LayerBands("after", self.bands, after), LayerBands("before", self.bands, before)
        gate = Gate(
            (-2.0, 2.0), (self.least_rise, 2.0), (np.inf, -np.inf), 1 / 64, balance=self.balance, least_votes=self.least_votes
        )  # fmt: skip
        found = tiled_threshold(survey(scene, inputs, rise), gate, otsu)
        return RiseScorer(self.bands, after, before, found.value, found.source, self.scale)


def rise(pixels: F32) -> F32:
    """MNDWI after less MNDWI before (..., y, x), in [-2, 2], of green and swir1 after and before (..., 4, y, x)."""
    index = normalised_difference(pixels[..., 0::2, :, :], pixels[..., 1::2, :, :])
    return np.asarray(index[..., 0, :, :] - index[..., 1, :, :])


@dataclass(frozen=True)
class RiseScorer:
    """Scores of flood from the rise of MNDWI."""

    bands: tuple[str, ...]
    after_unit: str
    before_unit: str
    threshold: float | None
    source: str
    scale: float

    classes = ("flood",)
    halo_px = 0
    multiple_of = 1

    @property
    def inputs(self) -> tuple[LayerBands, ...]:
        """Green and swir1 after and before."""
        return LayerBands("after", self.bands, self.after_unit), LayerBands("before", self.bands, self.before_unit)

    def __call__(self, pixels: F32, valid: Bool) -> F32:
        """Scores (n, 1, y, x): the rise above the threshold through the logistic function; 0 without a threshold."""
        if self.threshold is None:
            return np.zeros_like(pixels[:, :1])
        return logistic(rise(pixels)[:, None] - np.float32(self.threshold), self.scale)
