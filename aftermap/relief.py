"""What the ground is like as bands of a scene's elevation model, for whatever scores pixels.

A scorer does not know which window it is given; so what the ground gives by window it must get as pixels, like any band:
`LayerBands("dem", ("slope",), "degrees")`, `LayerBands("dem", ("elevation", "hand"), "metres")`, where a slope faces
`LayerBands("dem", ("aspect_sin", "aspect_cos"), "1")` and `LayerBands("dem", ("curvature",), "1/m")`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from aftermap.area import pixel_size_m
from aftermap.drainage import CHANNEL_KM2, ELEVATION, Drainage, drain
from aftermap.scene import Scene
from aftermap.scorer import LayerBands
from aftermap.terrain import Ground, read_ground
from aftermap.tiles import Window, blocks

F32 = npt.NDArray[np.float32]

SLOPE, HAND = LayerBands("dem", ("slope",), "degrees"), LayerBands("dem", ("hand",), "metres")
_STEP_PX = 512
"""Side of the parts in which slope is worked out, which takes some ten times the room of its result."""
_SHAPES: Mapping[str, Callable[[Ground], F32]] = {
    "slope": lambda ground: ground.slope_deg, "aspect_sin": lambda ground: ground.facing()[0],
    "aspect_cos": lambda ground: ground.facing()[1], "curvature": lambda ground: ground.curvature,
}  # fmt: skip
"""Band -> what the ground says by window (terrain.py)."""


@dataclass(frozen=True)
class Relief:
    """The ground of a scene; `gsd_m` is the pixel size of one without CRS. As little fit for two threads as the scene is."""

    scene: Scene
    gsd_m: float | None = None

    @property
    def units(self) -> Mapping[str, str]:
        """Of the bands that there are."""
        return {"slope": "degrees", "hand": "metres", "aspect_sin": "1", "aspect_cos": "1", "curvature": "1/m"}

    @cached_property
    def drainage(self) -> Drainage:
        """The scene's drainage, routed when first asked for."""
        return drain(self.scene, gsd_m=self.gsd_m)

    def read(self, band: str, window: Window) -> F32:
        """One of `units` (y, x) of a window; but for hand NaN where a neighbour's elevation is not known."""
        if band == "hand":
            return self._hand(window)
        return _by_parts(window, lambda part: _SHAPES[band](read_ground(self.scene, part, gsd_m=self.gsd_m)))

    def _hand(self, window: Window) -> F32:
        """Height (y, x) in m above the nearest drainage, NaN where the elevation is not known.

        0 where the elevation is known and the drainage is not, for flow that leaves the image first: what is not known must
        not keep a pixel from being scored, nor speak against water.
        """
        elevation = self.scene.read(ELEVATION, window)[0]
        height = self.drainage.hand(elevation, window)
        return np.where(np.isnan(height) & np.isfinite(elevation), np.float32(0), height)


def with_relief(scene: Scene, *, gsd_m: float | None = None) -> Scene:
    """The scene whose `dem` also has the bands of Relief; itself where it has no elevation model or no scale."""
    if "dem" not in scene.layers or not (pixel_size_m(scene.grid) or gsd_m):
        return scene
    return replace(scene, derived={**scene.derived, "dem": Relief(scene, gsd_m)})


def drainage(scene: Scene, *, channel_km2: float = CHANNEL_KM2, gsd_m: float | None = None) -> Drainage:
    """The drainage of a scene's `dem`: that of its band hand, where it has one from channels of that catchment."""
    ground = scene.derived.get("dem")
    if isinstance(ground, Relief) and channel_km2 == CHANNEL_KM2 and gsd_m == ground.gsd_m:
        return ground.drainage
    return drain(scene, channel_km2=channel_km2, gsd_m=gsd_m)


def _by_parts(window: Window, read: Callable[[Window], F32]) -> F32:
    out = np.empty((window.height, window.width), np.float32)
    for part in blocks((window.height, window.width), _STEP_PX):
        out[part.slices] = read(Window(window.row + part.row, window.col + part.col, part.height, part.width))
    return out
