"""What relief does to light and radar: slopes toward them, shadow cast from afar, and layover."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aftermap.simulate.terrain import Field, Ground, Terrain, smoothstep

REACH_M = 1200.0
"""How far a mountain is looked for that shadows a pixel or is laid over it; what stands farther is missed."""
COARSE_M = 30.0
"""Pixel of that look; shadows of single trees and walls are no matter of relief."""
DARKEST_DB = -45.0
DIFFUSE = 0.2
"""Share of light on flat ground that comes from the sky."""


@dataclass(frozen=True)
class Sun:
    """Where the sun stands, in degrees: azimuth clockwise from north, elevation above the horizon."""

    azimuth_deg: float
    elevation_deg: float

    @property
    def toward(self) -> tuple[float, float]:
        """Unit vector (south, east) along the ground toward the sun."""
        return -float(np.cos(np.radians(self.azimuth_deg))), float(np.sin(np.radians(self.azimuth_deg)))

    @property
    def tangent(self) -> float:
        """Height over distance of a ray."""
        return float(np.tan(np.radians(self.elevation_deg)))


@dataclass(frozen=True)
class Skyline:
    """Elevation (y, x) in metres on a coarse lattice fixed to the plane, `REACH_M` wider than the window it was made for."""

    around: Ground
    elevation: Field

    def on(self, ground: Ground, field: Field) -> Field:
        """A field of this lattice at the window's pixels, bilinear."""
        down = _weights(ground.south_m[:, 0], self.around.south_m[:, 0])
        across = _weights(ground.east_m[0], self.around.east_m[0])
        return np.asarray(down @ field @ across.T, np.float32)

    def shifted(self, south: float, east: float) -> Field:
        """Elevation at a whole number of coarse pixels away; wrong in the rim of `REACH_M`, which no window uses."""
        return np.roll(self.elevation, (-round(south), -round(east)), (0, 1))


def skyline(ground: Ground, heights: Callable[[Ground], Field]) -> Skyline:
    """The look around a window, `heights` giving elevation."""
    step = max(COARSE_M, ground.gsd_m)
    rim = int(REACH_M / step) + 2
    row, col = (int(first * ground.gsd_m // step) - rim for first in (ground.row, ground.col))
    count = [int(np.ceil(n * ground.gsd_m / step)) + 2 * rim + 1 for n in (ground.height, ground.width)]
    around = Ground(ground.seed, row, col, count[0], count[1], step)
    return Skyline(around, heights(around))


def _weights(at: npt.NDArray[np.float64], lattice: npt.NDArray[np.float64]) -> Field:
    """Weights (n, k) of linear interpolation from ascending lattice positions (k,) to positions (n,) among them."""
    place = (at - lattice[0]) / (lattice[1] - lattice[0])
    return np.asarray(np.maximum(0, 1 - np.abs(place[:, None] - np.arange(len(lattice)))), np.float32)


def slope_light(ter: Terrain, sun: Sun) -> Field:
    """Light (y, x) beside that on flat ground (1) by slope alone, a fifth of it diffuse: lowlands cast no shadow worth it."""
    south, east = sun.toward
    facing = 1 - (ter.rise_east * east + ter.rise_south * south) / sun.tangent
    direct = np.maximum(facing, 0) / np.sqrt(1 + ter.rise_east**2 + ter.rise_south**2)
    return np.asarray(DIFFUSE + (1 - DIFFUSE) * np.clip(direct, 0, 1.8), np.float32)


def sunlight(ground: Ground, ter: Terrain, sky: Skyline, sun: Sun) -> Field:
    """Light (y, x) beside that on flat open ground (1): direct light by slope and cast shadow."""
    (south, east), direct = sun.toward, slope_light(ter, sun)
    step = sky.around.gsd_m
    depth = np.full(sky.elevation.shape, -np.inf, np.float32)
    for k in range(1, int(REACH_M / step) + 1):
        np.maximum(depth, sky.shifted(k * south, k * east) - np.float32(k * step * sun.tangent), out=depth)
    shade = smoothstep(-4, 12, sky.on(ground, depth - sky.elevation))
    return np.asarray(DIFFUSE + (direct - DIFFUSE) * (1 - shade), np.float32)


def radar_tilt(ter: Terrain, incidence_deg: float) -> Field:
    """Backscatter change (y, x) in dB by slope: the facet in a cell grows as it turns to a radar in the east."""
    theta = np.float32(np.radians(incidence_deg))
    # rising to the west is facing: local incidence falls by the slope
    local = theta + np.arctan(ter.rise_east)
    facet = np.sin(theta) / np.maximum(np.sin(np.maximum(local, 0)), np.float32(0.18))
    grazing = np.maximum(np.cos(local), np.float32(0.03)) / np.cos(theta)
    return np.asarray(np.clip(10 * np.log10(facet * grazing), -14, 8), np.float32)


def radar_hidden(ground: Ground, sky: Skyline, incidence_deg: float) -> tuple[Field, Field]:
    """Shares (y, x) in shadow and in layover, for a radar in the east whose rays are parallel within `REACH_M`.

    A pixel is in shadow under a ray that something nearer has cut (z sin + west cos is constant along rays), in layover where
    another pixel is as far in slant range (west sin - z cos) though it lies behind or before.
    """
    sin, cos = (np.float32(f(np.radians(incidence_deg))) for f in (np.sin, np.cos))
    over = np.full(sky.elevation.shape, -np.inf, np.float32)
    folded = over.copy()
    for k in range(1, int(REACH_M / sky.around.gsd_m) + 1):
        away = np.float32(k * sky.around.gsd_m)
        east, west = (sky.shifted(0, sign * k) - sky.elevation for sign in (1, -1))
        np.maximum(over, east * sin - away * cos, out=over)
        np.maximum(folded, np.maximum(-away * sin - east * cos, west * cos - away * sin), out=folded)
    return smoothstep(-3, 8, sky.on(ground, over)), smoothstep(-3, 8, sky.on(ground, folded))


def radar_relief(ground: Ground, ter: Terrain, sky: Skyline, incidence_deg: float) -> tuple[Field, npt.NDArray[np.bool_]]:
    """Backscatter change (y, x) in dB by slope, layover (bright) and shadow (nothing returns), and where one of the two hides."""
    shadow, layover = radar_hidden(ground, sky, incidence_deg)
    tilt = radar_tilt(ter, incidence_deg)
    tilt = np.maximum(tilt, tilt * (1 - layover) + 7 * layover)
    return np.asarray(tilt + DARKEST_DB * shadow, np.float32), (shadow > 0.5) | (layover > 0.5)
