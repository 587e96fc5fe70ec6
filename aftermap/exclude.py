"""Which pixels of a window are not analysed, and why: the one place where that is decided.

Of several reasons the first holds: outside the area of interest, cloud or its shadow, not observed, reference water, low
sensitivity, radar shadow or layover, slope, high above drainage. Excluded means not analysed, never "no hazard".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aftermap import clouds, sight, vector
from aftermap.area import pixel_size_m
from aftermap.drainage import CHANNEL_KM2, Drainage, coarsening
from aftermap.hazardmap import (
    ABOVE_DRAINAGE,
    CLOUD,
    LOW_SENSITIVITY,
    NOT_OBSERVED,
    OUTSIDE_AOI,
    RADAR,
    REFERENCE_WATER,
    SLOPE,
)
from aftermap.relief import drainage
from aftermap.scene import Scene
from aftermap.scorer import LayerBands
from aftermap.sight import Look, unseen
from aftermap.terrain import read_ground
from aftermap.tiles import Window, blocks

U8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]

_STEP_PX = 512
"""Side of the parts in which the ground of a window is worked out, which takes some ten times the room of its codes."""


@dataclass(frozen=True)
class Limits:
    """From where on the ground is taken for dry whatever the image shows; recorded in run.json.

    Slope: water lies flat, and above 15 degrees radar shadow looks like water (HydroSAR and OPERA DSWx-S1 end their slope
    memberships there). But an elevation model of surfaces is steep at the edge of every wood, so a slope counts only where the
    ground is not within `low_m` of the drainage's height, where both of them still expect water.
    Height: DSWx-S1 masks above 200 m; half of that is still an order of magnitude above the deepest floods.
    """

    slope_deg: float = 15.0
    low_m: float = 15.0
    high_m: float = 100.0
    channel_km2: float = CHANNEL_KM2


def limits_for(scene: Scene, *, gsd_m: float | None = None) -> Limits | None:
    """The limits that the ground sets a scene's hazard: for floods, given elevation and a scale; None where it sets none."""
    known = "dem" in scene.layers and (pixel_size_m(scene.grid) or gsd_m)
    return Limits() if known and scene.hazard == "flood" else None


@dataclass(frozen=True)
class Exclusions:
    """What of a scene is excluded when `images` (layers) are looked at. As little fit for two threads at once as the scene is."""

    scene: Scene
    images: tuple[str, ...]
    limits: Limits | None = None
    drainage: Drainage | None = None
    gsd_m: float | None = None
    look: Look | None = None

    def codes(self, window: Window) -> U8:
        """Codes (y, x) of exclusion.tif, 0 where nothing speaks against analysing what was observed; see `settle`."""
        codes = self._dry(window)
        self._mark_unseen(codes, window)
        if self.scene.insensitive:
            codes[vector.rasterise(self.scene.insensitive, self.scene.grid, window)] = LOW_SENSITIVITY
        for layer, code in (("low_sensitivity", LOW_SENSITIVITY), ("reference_water", REFERENCE_WATER)):
            if layer in self.scene.layers:
                codes[self.scene.read(LayerBands(layer, ("mask",), "class"), window)[0] > 0] = code
        for image in self.images:
            hidden = self.scene.clouded(image, window)
            if hidden is not None:
                codes[hidden] = CLOUD
        if self.scene.area_of_interest:
            codes[~vector.rasterise(self.scene.area_of_interest, self.scene.grid, window)] = OUTSIDE_AOI
        return codes

    def _mark_unseen(self, codes: U8, window: Window) -> None:
        """Writes RADAR into codes (y, x) where a radar that is looked at sees shadow or layover."""
        if self.look is None or not any(self.scene.layers[image].sensor.is_sar for image in self.images):
            return
        for part in blocks((window.height, window.width), _STEP_PX):
            there = Window(window.row + part.row, window.col + part.col, part.height, part.width)
            codes[part.slices][np.logical_or(*unseen(self.scene, there, self.look))] = RADAR

    def _dry(self, window: Window) -> U8:
        """SLOPE and ABOVE_DRAINAGE (y, x), else 0. What is not known excludes nothing."""
        codes = np.zeros((window.height, window.width), np.uint8)
        if self.limits is None or self.drainage is None:
            return codes
        for part in blocks((window.height, window.width), _STEP_PX):
            there = Window(window.row + part.row, window.col + part.col, part.height, part.width)
            ground = read_ground(self.scene, there, gsd_m=self.gsd_m)
            hand = self.drainage.hand(ground.elevation, there)
            high = np.where(hand > self.limits.high_m, np.uint8(ABOVE_DRAINAGE), np.uint8(0))
            steep = (ground.slope_deg > self.limits.slope_deg) & ~(hand <= self.limits.low_m)
            codes[part.slices] = np.where(steep, np.uint8(SLOPE), high)
        return codes


def prepare(scene: Scene, images: Iterable[str], *, gsd_m: float | None = None, look: Look | None = None) -> Exclusions:
    """The exclusions of a scene for a method that looks at `images`; routes the drainage where limits ask for it.

    `look` is how the radar looked; None excludes neither shadow nor layover.
    """
    limits = limits_for(scene, gsd_m=gsd_m)
    routed = drainage(scene, channel_km2=limits.channel_km2, gsd_m=gsd_m) if limits else None
    return Exclusions(scene, tuple(dict.fromkeys(images)), limits, routed, gsd_m, look)


def settle(codes: U8, observed: Bool) -> U8:
    """Final codes (y, x): what was not observed is so, unless cloud hides it or nobody asked for it."""
    return np.where(observed | np.isin(codes, (CLOUD, OUTSIDE_AOI)), codes, np.uint8(NOT_OBSERVED))


def words(scene: Scene, limits: Limits | None, look: Look | None) -> list[str]:
    """What excludes ground from the analysis, and what could not, in words."""
    images = [*scene.images("after"), *scene.images("before")]
    where = "the map is made from {} alone" if len(scene.images("after")) > 1 else "the leading method looks at {}"
    said = [
        f"cloud and cloud shadow of {layer.name} are excluded by its own band {band} where {where.format(layer.name)}"
        for layer in images if (band := clouds.class_band(layer))
    ]  # fmt: skip
    if any(layer.sensor.is_sar for layer in images):
        said.append(sight.words(look))
    if scene.insensitive or "low_sensitivity" in scene.layers:
        said.append("ground where the method cannot tell is excluded as --low-sensitivity says")
    if limits is not None:
        factor = coarsening(scene.shape)
        said += [
            f"ground steeper than {limits.slope_deg:g} degrees and not within {limits.low_m:g} m above the nearest drainage, and "
            f"ground more than {limits.high_m:g} m above it, is excluded",
            f"drainage (catchments from {limits.channel_km2:g} km2) is routed on the elevation model within the image"
            + (f", coarsened {factor} times" if factor > 1 else ""),
        ]
    elif "dem" in scene.layers and look is None:
        said.append("nothing is excluded by the elevation model")
    return said
