"""What became of each roof between two images: does its pattern remain? One answer per footprint, from moments (pattern.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from aftermap.coregister import shift_of
from aftermap.indices import pattern
from aftermap.indices.building import BuildingChange, ChangeScorer
from aftermap.indices.survey import sampled, survey
from aftermap.indices.threshold import F64
from aftermap.tiles import Window

if TYPE_CHECKING:
    from aftermap.scene import Scene

LEAST_PX = 12
"""Below this a correlation is chance."""
FULL = 0.25
"""Difference of a roof turned to rubble; in the simulated towns it spreads by 0.16 to 0.25."""
MOST_QUIET = 0.125
"""Where even the quietest quarter of the ground spreads by half a ruin, the pair cannot tell one from a roof."""

MOST_SHIFT_PX = 1.0
"""Images farther apart compare a roof's edge with its lawn."""


@dataclass(frozen=True)
class RoofChange:
    """The pair as roofs are compared on it, and how quiet it is where nothing happened."""

    pair: ChangeScorer
    quiet: float
    """Spread of the difference that three quarters of the pieces of the scene exceed (pieces of the pair's window)."""

    shift_px: float | None
    """How far the images lie apart; None where that cannot be told."""

    @property
    def why_not(self) -> str:
        """Why no roof can be compared, in words; empty when they can."""
        if (self.shift_px or 0.0) > MOST_SHIFT_PX:
            return f"the two images lie {self.shift_px:.1f} px apart: map with --coregister"
        if self.quiet > MOST_QUIET:
            return f"the two images differ everywhere (spread {self.quiet:.3f} where quietest)"
        return ""

    def read(self, scene: Scene, window: Window) -> F64:
        """Levels (2, y, x) of a window, after and before; NaN where either was not observed."""
        return self.pair.levels(np.concatenate([scene.read(i, window) for i in self.pair.inputs]))

    def scores(self, sums: F64) -> F64:
        """Scores (n,) in [0, 1] from the summed moments (n, 6) of footprints; NaN where fewer than LEAST_PX were compared."""
        found = pattern.lost(sums.T, middle=self.pair.middle, full=FULL)
        return np.asarray(np.where(sums[:, 0] >= LEAST_PX, found, np.nan))


def roof_change(scene: Scene) -> RoofChange | None:
    """How roofs are compared on the pair of a scene; None where it has none in visible bands of one unit."""
    method = BuildingChange()
    if method.why_not(scene):
        return None
    pair = method.prepare(scene)
    local = sampled(survey(scene, pair.inputs, lambda p: pattern.spread(pair.around(pair.levels(p))), pair.halo_px))
    shift = shift_of(scene, *scene.seen(pair.inputs).values())
    quiet = round(float(np.quantile(local, 0.25)), 4) if local.size else 0.0
    return RoofChange(pair, quiet, None if shift is None else round(shift.length, 2))
