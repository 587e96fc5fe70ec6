"""Water and flood from radar backscatter: smooth open water mirrors the pulse away and is dark."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from aftermap.ahead import ahead
from aftermap.indices.radar import CROSS_POL, common_bands, falls, pair_unit, sample, tiled_otsu, value_span, why_not
from aftermap.indices.threshold import F32, Gate, logistic, tiled_threshold
from aftermap.scorer import Bool, LayerBands, pair_inputs

if TYPE_CHECKING:
    from aftermap.scene import Scene


@dataclass(frozen=True)
class SarThreshold:
    """Water where it is dark; flood where it is dark, was not before, and fell by more than `least_drop_db`.

    One polarisation is used, cross-pol where there is one: wind and rain roughen open water until VV sees it as bright
    as land. On Sen1Floods11 (pooled) VH alone has IoU 0.72, VV 0.30, both 0.30, either 0.71, the mean of their margins
    0.46. Each date has its own threshold: the median over bimodal tiles of the minimum error threshold (field.md 3.7).
    """

    smooth_px: int = 5
    cross_db: float = -22.0
    """Assumed where no threshold is found: between the caps of HydroSAR, -23, and of field.md 3.11, -20."""
    co_db: float = -16.0
    """Likewise: HYDRAFloods' first threshold; HydroSAR caps at -15.5."""
    cross_bounds_db: tuple[float, float] = (-28.0, -18.0)
    co_bounds_db: tuple[float, float] = (-28.0, -11.0)
    """Both as in OPERA DSWx-S1, algorithm_parameter_s1.yaml."""
    least_drop_db: float = 3.0
    """Half the power; keeps land that hovers about the threshold from counting as flood."""
    scale_db: float = 1.0

    name = "sar-threshold"

    def why_not(self, scene: Scene) -> str:
        """Why the after image is not backscatter in dB, in words; empty when it is."""
        return why_not(scene, "dB", "after")

    def prepare(self, scene: Scene) -> DarkScorer:
        """The scorer with one threshold per date, each from a first pass over at most 34 Mpx."""
        pair = common_bands(scene, "dB", "after", "before")
        band = (pair or common_bands(scene, "dB", "after"))[0]
        layers = ("after", "before") if pair else ("after",)
        found = list(ahead(lambda layer: self._threshold(scene, layer, band), layers, workers=2))
        after_db, after_source = found[0]
        before_db, before_source = found[1] if pair else (None, "no before image")
        return DarkScorer(
            band, after_db, after_source, before_db, before_source,
            least_drop_db=self.least_drop_db, smooth_px=self.smooth_px, scale_db=self.scale_db,
        )  # fmt: skip

    def _threshold(self, scene: Scene, layer: str, band: str) -> tuple[float, str]:
        assumed, bounds = (self.cross_db, self.cross_bounds_db) if band in CROSS_POL else (self.co_db, self.co_bounds_db)
        gate = Gate(span=(bounds[0] - 12, bounds[1] + 12), bounds=bounds, between=(assumed, assumed), bin_width=0.1)
        found = tiled_threshold(sample(scene, LayerBands(layer, (band,), "dB", self.smooth_px)), gate)
        return (assumed, f"{found.source}; {assumed:g} dB assumed") if found.value is None else (found.value, found.source)


@dataclass(frozen=True)
class DarkScorer:
    """Scores of water, or of flood where there is a threshold for the before image; dB."""

    band: str
    after_db: float
    after_source: str
    before_db: float | None
    before_source: str
    least_drop_db: float
    smooth_px: int
    scale_db: float

    halo_px = 0
    multiple_of = 1

    @property
    def inputs(self) -> tuple[LayerBands, ...]:
        """The after band, and the before band of a pair."""
        layers = ("after",) if self.before_db is None else ("after", "before")
        return tuple(LayerBands(layer, (self.band,), "dB", self.smooth_px) for layer in layers)

    @property
    def classes(self) -> tuple[str, ...]:
        """Without a before image permanent water cannot be told from flood."""
        return ("water",) if self.before_db is None else ("flood",)

    def __call__(self, pixels: F32, valid: Bool) -> F32:
        """Scores (n, 1, y, x): the least of the margins in dB, through the logistic function."""
        margin = self.after_db - pixels[:, :1]
        if self.before_db is not None:
            margin = np.minimum(margin, newly_dark(pixels[:, :1], pixels[:, 1:], self.before_db, self.least_drop_db))
        return logistic(margin, self.scale_db)


def newly_dark(now: F32, then: F32, before_db: float, least_drop_db: float) -> F32:
    """Margin (...) in dB by which what is dark `now` was not dark `then`, and fell."""
    return np.asarray(np.minimum(then - before_db, then - now - least_drop_db))


@dataclass(frozen=True)
class SarDrop:
    """Flood where every polarisation fell by more than 5 dB from above its dark level to below it: ai4g-flood's mask.

    field.md 3.3, `src/utils/image_processing.py`, without the network and its dilation. As published: `SarDrop(smooth_px=1,
    co_floor_db=-30, cross_floor_db=-32.5)`. The defaults differ in two ways, measured on Sen1Floods11 chips with a before
    image made of their own land: a 5 x 5 median first (mean IoU 0.24 to 0.31), and no floor (0.31 to 0.35), because the
    floor takes away up to a quarter of calm VH water; border noise is the reader's to mask.
    """

    smooth_px: int = 5
    drop_db: float = 5.0
    co_dark_db: float = -17.5
    cross_dark_db: float = -22.5
    co_floor_db: float = -99.0
    cross_floor_db: float = -99.0
    """Dead pixels of zero power are -100 dB; they are never flood."""
    scale_db: float = 1.0

    name = "sar-drop"

    def why_not(self, scene: Scene) -> str:
        """Why there is no pair in dB with a common polarisation, in words; empty when there is."""
        return why_not(scene, "dB", "after", "before")

    def prepare(self, scene: Scene) -> DropScorer:
        """The scorer for the polarisations that both images have; nothing is learned from the scene."""
        bands = tuple(common_bands(scene, "dB", "after", "before"))
        cross = [band in CROSS_POL for band in bands]
        return DropScorer(
            bands,
            dark_db=tuple(self.cross_dark_db if c else self.co_dark_db for c in cross),
            floor_db=tuple(self.cross_floor_db if c else self.co_floor_db for c in cross),
            drop_db=self.drop_db, smooth_px=self.smooth_px, scale_db=self.scale_db,
        )  # fmt: skip


@dataclass(frozen=True)
class DropScorer:
    """Scores of flood; levels in dB, one per band."""

    bands: tuple[str, ...]
    dark_db: tuple[float, ...]
    floor_db: tuple[float, ...]
    drop_db: float
    smooth_px: int
    scale_db: float

    classes = ("flood",)
    halo_px = 0
    multiple_of = 1

    @property
    def inputs(self) -> tuple[LayerBands, ...]:
        """The same bands after and before."""
        return pair_inputs(self.bands, "dB", self.smooth_px)

    def __call__(self, pixels: F32, valid: Bool) -> F32:
        """Scores (n, 1, y, x): the least margin of all conditions and polarisations, in dB, through the logistic function."""
        post, pre = np.split(pixels, 2, axis=1)  # (n, pol, y, x) each
        dark, floor = (np.array(levels, np.float32).reshape(-1, 1, 1) for levels in (self.dark_db, self.floor_db))
        margins = (dark - post, pre - dark, pre - post - self.drop_db, np.minimum(post, pre) - floor)
        return logistic(np.min(margins, axis=0).min(axis=1, keepdims=True), self.scale_db)


@dataclass(frozen=True)
class SarDarker:
    """Flood where it is dark and darker than before, each by Otsu after a 5 x 5 median (field.md 3.11); in any unit.

    8-bit exports stretch each date differently. Otsu's threshold of the difference takes up an offset; matching the gains
    by quantiles or deviations as well only lost on OMBRIA (pooled IoU 0.44 to 0.40-0.43), as a flood changes them too.
    Both thresholds are medians over bimodal tiles: a scarce flood is found, and a scene without one gives nothing.
    """

    smooth_px: int = 5
    balance: float = 0.05
    least_votes: int = 1
    """An 8-bit scene may be a single chip of 256 px, 16 tiles."""

    name = "sar-darker"

    def why_not(self, scene: Scene) -> str:
        """Why there is no pair of one radar band, in words; empty when there is."""
        return why_not(scene, pair_unit(scene), "after", "before")

    def prepare(self, scene: Scene) -> DarkerScorer:
        """The scorer with the two thresholds, None where none was found, from passes over at most 34 Mpx per date."""
        unit = pair_unit(scene)
        band = common_bands(scene, unit, "after", "before")[0]
        after, before = pair_inputs((band,), unit, self.smooth_px)
        low, high = value_span(scene, after, before)
        # in dB the dates compare, and what did not darken is no flood; 8-bit stretches may brighten a whole date
        least = 0.0 if unit == "dB" else low - high
        cut = partial(tiled_otsu, balance=self.balance, least_votes=self.least_votes)
        dark = cut(sample(scene, after), (low, high), (low, high))
        drop = cut(falls(scene, after, before), (low - high, high - low), (least, high - low))
        return DarkerScorer(band, unit, dark.value, dark.source, drop.value, drop.source, self.smooth_px, (high - low) / 25)


@dataclass(frozen=True)
class DarkerScorer:
    """Scores of flood; levels in `unit`."""

    band: str
    unit: str
    dark: float | None
    dark_source: str
    drop: float | None
    drop_source: str
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
        """Scores (n, 1, y, x): the lesser margin of dark and of darker, through the logistic function; 0 without thresholds."""
        if self.dark is None or self.drop is None:
            return np.zeros_like(pixels[:, :1])
        now, then = pixels[:, :1], pixels[:, 1:]
        return logistic(np.minimum(self.dark - now, then - now - self.drop), self.scale)
