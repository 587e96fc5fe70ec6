"""Water that is dark, low and flat: the SAR threshold refined by memberships of the ground and of the segment's area."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from aftermap.indices.sar import DarkScorer, SarThreshold, newly_dark
from aftermap.indices.survey import sampled, survey
from aftermap.indices.threshold import F32, logistic
from aftermap.relief import HAND, SLOPE
from aftermap.scorer import Bool, LayerBands

if TYPE_CHECKING:
    from aftermap.scene import Scene


@dataclass(frozen=True)
class SarFuzzy:
    """Water where backscatter, height above drainage, slope and segment area all speak for it, and on average by 0.45.

    HydroSAR's refinement (field.md 3.1, step 6) of the threshold of `sar-threshold`, whose conditions on the before image
    stay as they are. It differs in two ways: the water that the limits are learned from lies on ground flatter than
    `steep_deg`, for in mountains most that is dark is shadow; and where none lies there, OPERA's limit of 15 m holds.
    """

    threshold: SarThreshold = field(default_factory=SarThreshold)
    least_mean: float = 0.45
    steep_deg: float = 15.0
    low_m: float = 15.0
    """Height at which membership ends where no water tells; OPERA DSWx-S1."""
    scarce_px: int = 3
    ample_px: int = 10
    scale: float = 0.15
    """Of the mean membership: a sure pixel, 1, scores 0.975."""

    name = "sar-fuzzy"

    def why_not(self, scene: Scene) -> str:
        """Why there is no backscatter in dB, no elevation or no scale, in words; empty when there are all."""
        if "dem" in scene.layers and scene.missing(SLOPE):
            return "the pixels have no size in metres, so the elevation model gives no slope"
        return self.threshold.why_not(scene) or scene.missing(SLOPE)

    def prepare(self, scene: Scene) -> FuzzyScorer:
        """The scorer with the thresholds, and the limits that dark flat ground shows, from further passes over 34 Mpx."""
        dark = self.threshold.prepare(scene)
        levels, heights = (self._of_water(scene, dark, which) for which in (0, 2))
        low, high, source = self._heights(heights)
        return FuzzyScorer(
            dark.band, dark.after_db, dark.after_source, dark.before_db, dark.before_source,
            water_db=float(np.median(levels)) if levels.size else dark.after_db - dark.least_drop_db,
            hand_sure_m=low, hand_none_m=high, hand_source=source, steep_deg=self.steep_deg, least_mean=self.least_mean,
            scarce_px=self.scarce_px, ample_px=self.ample_px, least_drop_db=dark.least_drop_db, smooth_px=dark.smooth_px,
            scale_db=dark.scale_db, scale=self.scale,
        )  # fmt: skip

    def _of_water(self, scene: Scene, dark: DarkScorer, which: int) -> F32:
        """Values (n,) of backscatter (0) or height above drainage (2) where it is dark and flat."""

        def see(pixels: F32) -> F32:
            wet = (pixels[0] < dark.after_db) & (pixels[1] < self.steep_deg)
            return np.where(wet, pixels[which], np.float32(np.nan))

        return sampled(survey(scene, (dark.inputs[0], SLOPE, HAND), see))

    def _heights(self, heights: F32) -> tuple[float, float, str]:
        """Height in m up to which membership is 1 and from which it is 0, and what says so."""
        if not heights.size:
            return 0.0, self.low_m, f"no dark flat ground; 0 to {self.low_m:g} m assumed"
        low = heights[heights <= np.quantile(heights, 0.9)].astype(np.float64)
        middle = float(np.median(low))
        return middle, middle + 3 * float(low.std()) + 5, "median, and that plus 3 deviations and 5 m, of dark flat ground"


@dataclass(frozen=True)
class FuzzyScorer:
    """Scores of water, or of flood where there is a threshold for the before image; dB, m, degrees and px."""

    band: str
    after_db: float
    after_source: str
    before_db: float | None
    before_source: str
    water_db: float
    hand_sure_m: float
    hand_none_m: float
    hand_source: str
    steep_deg: float
    least_mean: float
    scarce_px: int
    ample_px: int
    least_drop_db: float
    smooth_px: int
    scale_db: float
    scale: float

    multiple_of = 1

    @property
    def inputs(self) -> tuple[LayerBands, ...]:
        """The after band, slope, height above drainage, and the before band of a pair."""
        after, before = (LayerBands(layer, (self.band,), "dB", self.smooth_px) for layer in ("after", "before"))
        return (after, SLOPE, HAND) if self.before_db is None else (after, SLOPE, HAND, before)

    @property
    def classes(self) -> tuple[str, ...]:
        """Without a before image permanent water cannot be told from flood."""
        return ("water",) if self.before_db is None else ("flood",)

    @property
    def halo_px(self) -> int:
        """How far a segment smaller than `ample_px` reaches."""
        return self.ample_px - 1

    def __call__(self, pixels: F32, valid: Bool) -> F32:
        """Scores (n, 1, y, x): the mean membership above the least one, as long as none is 0; in a pair also newly dark."""
        level, slope, hand = (pixels[:, k : k + 1] for k in range(3))
        area = self._area(level[:, 0] < self.after_db)[:, None]
        members = (
            falling(level, self.water_db, self.after_db), falling(slope, 0, self.steep_deg),
            falling(hand, self.hand_sure_m, self.hand_none_m), falling(-area, -self.ample_px, -self.scarce_px),
        )  # fmt: skip
        mean = np.mean([np.maximum(m, 0) for m in members], axis=0) - self.least_mean
        scores = logistic(np.minimum(mean, np.min(members, axis=0)), self.scale)
        if self.before_db is None:
            return scores
        return np.minimum(scores, logistic(newly_dark(level, pixels[:, 3:], self.before_db, self.least_drop_db), self.scale_db))

    def _area(self, water: Bool) -> F32:
        """Pixels (n, y, x) of the segment (8 neighbours) that each lies in, counted up to `ample_px`; 0 outside."""
        each = np.zeros((3, 3, 3), bool)
        each[1] = True  # images of a batch are no neighbours
        labels, _ = ndimage.label(water, each)
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        return np.asarray(np.minimum(sizes, self.ample_px)[labels], np.float32)


def falling(values: F32, sure: float, none: float) -> F32:
    """Z-shaped membership (...): 1 at or below `sure`, 0 at `none`, two parabolas between; beyond, how far as a negative share.

    What is below 0 tells how far from being a member at all, so that likelihoods fall on; the mean counts it as 0.
    """
    share = (np.asarray(values, np.float64) - sure) / (none - sure)
    curve = np.where(share < 0.5, 1 - 2 * np.maximum(share, 0) ** 2, 2 * (1 - share) ** 2)
    return np.asarray(np.where(share > 1, 1 - share, curve), np.float32)
