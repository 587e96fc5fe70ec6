"""What became of each roof between two images: does its pattern of light and dark remain? One answer per footprint.

The halves of the logarithms of brightness differ by artanh of the normalised difference (field.md 3.10), and their moments
add up over windows. Within a footprint two things are asked of them, neither of which another exposure changes: how far the
difference spreads, and how much of the pattern correlates no more. The score is the lesser answer: a plain roof whose noise
does not correlate has not spread, and a roof whose contrast another sun has raised still correlates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from aftermap.indices.building import SETS, brightness
from aftermap.indices.exact import box_sum
from aftermap.indices.landslide import common_unit, pair_inputs
from aftermap.indices.optical import UNITS
from aftermap.indices.survey import sampled, span_of, survey
from aftermap.indices.threshold import F32, F64
from aftermap.tiles import Window

if TYPE_CHECKING:
    from aftermap.scene import Scene

MOMENTS = 6
"""Pixels; sums of after, before, after squared, before squared, after times before."""
LEAST_PX = 12
"""Below this a correlation is chance."""
FULL_SPREAD = 0.25
"""Spread of a roof turned to rubble; of the simulated ones destroyed it is 0.20 to 0.25."""
MOST_QUIET = 0.125
"""Where even the quietest quarter of the ground spreads by half a ruin, the pair cannot tell one from a roof."""
_STEPS = 1024
"""Whole numbers per unit of the half logarithm, so that moments add to the same bits in any order."""
_QUIET_PX = 9
_DARK = 1 / 256
"""Share of the bright end below which brightness is taken for dark: a logarithm of noise means nothing."""


@dataclass(frozen=True)
class RoofChange:
    """The pair as roofs are compared on it: bands, unit, the least brightness after and before, and how quiet the ground is."""

    bands: tuple[str, ...]
    unit: str
    least_after: float
    least_before: float
    quiet: float = 0.0
    """Spread that three quarters of the 9 x 9 px pieces of the scene exceed."""

    @property
    def tells(self) -> bool:
        """Whether ruins stand out of what changes everywhere."""
        return self.quiet <= MOST_QUIET

    def levels(self, pixels: F32) -> F64:
        """Whole numbers (2, y, x) of pixels (band, y, x), after and before; NaN where either was not observed."""
        dates = [np.maximum(brightness(date), least) for date, least in zip(np.split(pixels, 2), self._least, strict=True)]
        found = np.rint(0.5 * _STEPS * np.log(np.stack(dates).astype(np.float64)))
        return np.asarray(np.where(np.isfinite(found).all(axis=0), found, np.nan))

    def read(self, scene: Scene, window: Window) -> F64:
        """`levels` of a window."""
        return self.levels(np.concatenate([scene.read(i, window) for i in pair_inputs(self.bands, self.unit)]))

    @property
    def _least(self) -> tuple[float, float]:
        return self.least_after, self.least_before


def roof_change(scene: Scene) -> RoofChange | None:
    """How roofs are compared on the pair of a scene; None where it has none in visible bands of one unit."""
    fitting = [(bands, unit) for bands in SETS if (unit := common_unit(scene, bands, "after", "before"))]
    if not fitting:
        return None
    bands, unit = fitting[0][0], fitting[0][1] or UNITS[-1]
    inputs = pair_inputs(bands, unit)
    high = [span_of(survey(scene, [one], brightness))[1] for one in inputs]
    pair = RoofChange(bands, unit, *(max(h * _DARK, 1e-6) for h in high))
    local = sampled(survey(scene, inputs, lambda p: _local_spread(pair.levels(p)), _QUIET_PX // 2))
    quiet = float(np.quantile(local, 0.25)) if local.size else 0.0
    return RoofChange(bands, unit, pair.least_after, pair.least_before, round(quiet, 4))


def _local_spread(levels: F64) -> F32:
    """Standard deviation (y, x) of the difference among the observed 9 x 9 px."""
    seen = np.isfinite(levels[0])
    change = np.where(seen, levels[0] - levels[1], 0)
    count = np.maximum(box_sum(seen.astype(np.float64), _QUIET_PX), 1)
    variance = count * box_sum(change**2, _QUIET_PX) - box_sum(change, _QUIET_PX) ** 2  # times count^2
    return np.asarray(np.sqrt(np.maximum(variance, 0)) / count / _STEPS, np.float32)


def moments(levels: F64) -> F64:
    """MOMENTS (n, 6) of pixels (2, n)."""
    after, before = levels
    return np.stack([np.ones_like(after), after, before, after**2, before**2, after * before], axis=1)


def scores(sums: F64) -> F64:
    """Scores (n,) in [0, 1] from the summed moments (n, 6) of footprints; NaN where fewer than LEAST_PX pixels were compared."""
    known = sums[:, 0] >= LEAST_PX
    count = np.where(known, sums[:, 0], 1.0)
    after, before, square_after, square_before, product = (sums[:, 1:] / count[:, None]).T
    var_after, var_before = np.maximum(square_after - after**2, 0), np.maximum(square_before - before**2, 0)
    shared = product - after * before
    spread = np.sqrt(np.maximum(var_after + var_before - 2 * shared, 0)) / _STEPS
    both = np.sqrt(var_after * var_before)
    lost = 1 - np.divide(shared, both, out=np.zeros_like(shared), where=both > 0)
    found: npt.NDArray[np.float64] = np.clip(np.minimum(lost, spread / FULL_SPREAD), 0, 1)
    return np.where(known, found, np.nan)
