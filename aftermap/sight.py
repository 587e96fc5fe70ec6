"""Ground that a side-looking radar cannot see: shadow and layover by an elevation model, the same whatever the window.

Rays are parallel: one angle of incidence and one direction for the whole scene, as declared or as the tags of `after` state. The
Earth's curvature is left out. A pixel is in shadow under a ray that something nearer to the radar has cut, in layover where other
ground, nearer or farther, is at its slant range (Kropatsch and Strobl 1990, IEEE TGRS 28, the passive parts included).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap import raster
from aftermap.area import pixels_per_m
from aftermap.drainage import ELEVATION
from aftermap.errors import UsageError
from aftermap.scene import Scene
from aftermap.tiles import Window

F32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

REACH_M, REACH_PX = 3000.0, 512
"""What stands farther along the ray than the lesser of these is not looked for; nor is what lies beyond the image."""
_INCIDENCE_TAG = re.compile(r"^(VIEW_)?INCIDENCE_ANGLE$", re.IGNORECASE)
_LOOK_TAG = re.compile(r"^(VIEW|LOOK)_AZIMUTH$", re.IGNORECASE)
_STEEPEST_DEG, _FLATTEST_DEG = 5.0, 80.0


@dataclass(frozen=True)
class Look:
    """Incidence in degrees from the vertical, and the azimuth, clockwise from north, in which the radar looks."""

    incidence_deg: float
    azimuth_deg: float
    source: str
    """"declared" or "tags"."""

    def __post_init__(self) -> None:
        if not _STEEPEST_DEG <= self.incidence_deg <= _FLATTEST_DEG or not 0 <= self.azimuth_deg <= 360:
            what = f"incidence {self.incidence_deg:g} and look {self.azimuth_deg:g} degrees are no radar's"
            angles = f"--incidence from {_STEEPEST_DEG:g} to {_FLATTEST_DEG:g} and --look from 0 to 360"
            raise UsageError(what, repair=f"give {angles}, clockwise from north")

    def facts(self) -> dict[str, Any]:
        """As recorded in run.json."""
        return {**asdict(self), "reach_m": REACH_M, "reach_px": REACH_PX}


def look_of(scene: Scene, incidence_deg: float | None, azimuth_deg: float | None) -> Look | None:
    """How the radar looked, where shadow can be told: radar, elevation and a CRS are there, and both angles declared or tagged.

    Raises UsageError where an angle is declared that cannot be used.
    """
    declared = [v for v in (incidence_deg, azimuth_deg) if v is not None]
    radar = next((image for image in scene.images("after") if image.sensor.is_sar), None)
    usable = radar is not None and "dem" in scene.layers and scene.grid.crs is not None
    if declared and not usable:
        raise UsageError(
            "--incidence and --look are for radar images with a CRS and a --dem", repair="give --dem, or leave them out"
        )
    if radar is None or not usable:
        return None
    tags = raster.facts(radar.paths[0]).tags
    angles = incidence_deg or _number(tags, _INCIDENCE_TAG), _number(tags, _LOOK_TAG) if azimuth_deg is None else azimuth_deg
    if angles[0] is None or angles[1] is None:
        if declared:
            raise UsageError("--incidence and --look go together", repair="give the other one too")
        return None
    return Look(angles[0], angles[1], "declared" if declared else "tags")


def _number(tags: Mapping[str, str], name: re.Pattern[str]) -> float | None:
    found = [value for key, value in tags.items() if name.match(key)]
    try:
        return float(found[0]) if found else None
    except ValueError:
        return None


def words(look: Look | None) -> str:
    """What is excluded by it, for people."""
    if look is None:
        return "radar shadow and layover are not excluded: that needs --dem, --incidence and --look"
    return (
        f"radar shadow and layover are excluded by the elevation model for an incidence of {look.incidence_deg:g} degrees and "
        f"rays toward {look.azimuth_deg:g} degrees ({look.source}), cast by ground of the image within {REACH_M:g} m and "
        f"{REACH_PX} pixels"
    )


def unseen(scene: Scene, window: Window, look: Look) -> tuple[Bool, Bool]:
    """Shadow and layover (y, x) of a window. What is not known casts no shadow, and is in none."""
    cols, rows = pixels_per_m(scene.grid, look.azimuth_deg)
    step_m = 1 / max(abs(cols), abs(rows))  # one pixel along the longer axis
    steps = min(int(REACH_M / step_m), REACH_PX)
    wide = window.pad(steps + 1, scene.shape)
    z = scene.read(ELEVATION, wide)[0]
    shadow, layover = np.zeros((2, window.height, window.width), bool)
    if not np.isfinite(z).any():
        return shadow, layover
    tangent = math.tan(math.radians(look.incidence_deg))
    relief = float(np.nanmax(z) - np.nanmin(z))
    steps = min(steps, int(relief * max(tangent, 1 / tangent) / step_m) + 1)  # farther away nothing is high enough
    z = _around(z, window, wide, steps + 1)
    here = _shifted(z, steps + 1, 0.0, 0.0, window)
    for k in range(1, steps + 1):
        away = np.float32(k * step_m)
        nearer, farther = (
            _shifted(z, steps + 1, side * k * step_m * rows, side * k * step_m * cols, window) - here for side in (-1, 1)
        )
        shadow |= nearer * np.float32(tangent) > away
        layover |= (farther > away * np.float32(tangent)) | (-nearer > away * np.float32(tangent))
    return shadow, layover


def _around(z: F32, window: Window, wide: Window, margin: int) -> F32:
    """Elevation of a window with a rim of `margin` pixels, NaN beyond the image."""
    inner = window.within(wide)
    rim = (
        (max(margin - inner.row, 0), max(inner.stop_row + margin - wide.height, 0)),
        (max(margin - inner.col, 0), max(inner.stop_col + margin - wide.width, 0)),
    )
    padded = np.pad(z, rim, constant_values=np.nan)
    row, col = inner.row + rim[0][0] - margin, inner.col + rim[1][0] - margin
    return padded[row : row + window.height + 2 * margin, col : col + window.width + 2 * margin]


def _shifted(z: F32, margin: int, rows: float, cols: float, window: Window) -> F32:
    """Elevation (y, x) so far away from each pixel of the window, bilinear."""
    row, col = math.floor(rows + 1e-9), math.floor(cols + 1e-9)
    down, right = max(rows - row, 0.0), max(cols - col, 0.0)
    total = np.zeros((window.height, window.width), np.float32)
    for dy, dx, weight in (
        (0, 0, (1 - down) * (1 - right)), (1, 0, down * (1 - right)), (0, 1, (1 - down) * right), (1, 1, down * right),
    ):  # fmt: skip
        if weight > 1e-6:
            y, x = margin + row + dy, margin + col + dx
            total += np.float32(weight) * z[y : y + window.height, x : x + window.width]
    return total
