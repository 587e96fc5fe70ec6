"""Ice-shelf fractures with known truth: a grey high-pass mosaic as of MODIS, before and after more of the shelf has broken."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap.raster import BLOCK_PX
from aftermap.simulate.conditions import USUAL_ICE, Ice
from aftermap.simulate.files import DEM, Layer, Place, Progress, check_scene, truth, write_scene
from aftermap.simulate.ice import REACH_M, TILE_M, flow, fractures
from aftermap.simulate.strokes import Painted, Stroke, paint, strokes_near
from aftermap.simulate.terrain import Field, Ground, fractal, hashed, noise, smoothstep, uniform

PLACE = Place("EPSG:3031", -1_310_000, 560_000)
"""The Ronne ice shelf, on the grid of the MODIS Mosaic of Antarctica."""
DATES = {"before": "2004-01-15T00:00:00Z", "after": "2009-01-15T00:00:00Z"}
SUN = (0.5, 0.87)
"""Whence light comes in the mosaic, (south, east) on the map."""
MASK_M = 1000.0
"""The shelf's outline is known to a kilometre."""
RIM_M = 450.0
WHITE = 65_535


def simulate(out: Path, *, size: int = 2048, seed: int = 0, gsd_m: float = 125.0, progress: Progress | None = None) -> None:
    """Writes before.tif, after.tif (grey, uint16, 0 off the shelf), truth.tif (fracture, new_fracture) and dem.tif (m)."""
    check_scene(size, seed, gsd_m, finest_m=30, coarsest_m=500)
    layers = {name: Layer(("grey",), "uint16", "digital_number", 0, date) for name, date in DATES.items()}
    layers |= {"truth": truth("fracture", "new_fracture"), "dem": DEM}
    make = partial(block, seed, gsd_m=gsd_m)
    made_by = f"aftermap fracture seed={seed}"
    write_scene(out, layers, make, grid=PLACE.grid(size, gsd_m), made_by=made_by, progress=progress)


def block(seed: int, row: int, col: int, *, gsd_m: float, ice: Ice = USUAL_ICE) -> Mapping[str, npt.NDArray[Any]]:
    """Layers (band, y, x) of the whole 512 px block at block position (row, col); no other block has a say in it."""
    ground = Ground(seed, row * BLOCK_PX, col * BLOCK_PX, BLOCK_PX, BLOCK_PX, gsd_m)
    shelf, stream = _shelf(ground), flow(ground)
    bed = _firn(ground, stream)
    made: dict[str, npt.NDArray[Any]] = {}
    cracked = {}
    for date in DATES:
        painted = _painted(ground, ice, before=date == "before")
        cracked[date] = (painted.inside > 0) & shelf
        made[date] = _grey(ground, bed + np.float32(ice.contrast) * _walls(painted), shelf, date, (row, col))
    codes = np.stack([cracked["after"], cracked["after"] & ~cracked["before"]]).astype(np.uint8)
    height = 48 + 9 * noise(ground, "thickness", 40_000) - 14 * smoothstep(0, 200, painted.inside)
    return {**made, "truth": codes, "dem": np.where(shelf, height, 0).astype(np.float32)[None]}


def _painted(ground: Ground, ice: Ice, *, before: bool) -> Painted:
    def opened(row: int, col: int) -> list[Stroke]:
        return [
            replace(stroke, half_width=stroke.half_width * ice.width)
            for stroke in fractures(ground.seed, before, row, col)
            if (stroke.draw * 997) % 1 < ice.opened  # apart from what the draw decides itself
        ]

    return paint(ground, strokes_near(ground, TILE_M, REACH_M, opened), rim_m=RIM_M)


def _shelf(ground: Ground) -> npt.NDArray[np.bool_]:
    """True on the shelf (y, x); its outline has the steps of the coarse mask it was taken from."""
    south, east = (np.floor(m.ravel() / MASK_M).astype(int) for m in (ground.south_m, ground.east_m))
    coarse = Ground(ground.seed, south[0], east[0], south[-1] - south[0] + 1, east[-1] - east[0] + 1, MASK_M)
    land = noise(coarse, "land", 55_000) + 0.3 * fractal(coarse, "coast", 14_000, 3)
    return np.asarray((land < 1.05)[np.ix_(south - south[0], east - east[0])])


def _firn(ground: Ground, stream: Field) -> Field:
    """Grey (y, x) of unbroken ice: flow stripes, mottling, dunes and the seams between the mosaic's scenes."""
    bend = 500 * noise(ground, "stripe/bend", 9000)
    stripes = 1700 * _ribbon(ground.seed, "stripe", (stream + bend) / 2600) + 1100 * _ribbon(
        ground.seed, "fine", (stream + bend) / 700
    )
    patches = 3600 * noise(ground, "patch", 26_000) + 2300 * fractal(ground, "mottle", 7000, 4, gain=0.7)
    along = ground.east_m * 0.6 + ground.south_m * 0.8
    dunes = np.sin(2 * np.pi * along / 900 + 2.5 * noise(ground, "dune", 3500)) * smoothstep(
        0.2, 2, noise(ground, "dunes", 22_000)
    )
    seam = 2600 * np.sign(noise(ground, "seam", 110_000) + 0.02 * noise(ground, "seam/edge", 9000))
    grain = 1900 * fractal(ground, "grain", 520, 2, gain=0.8)
    striped = stripes * (0.5 + smoothstep(-1, 1.5, noise(ground, "striped", 45_000)))
    return np.asarray(33_500 + striped + patches + 2100 * dunes + seam + grain, np.float32)


def _ribbon(seed: int, layer: str, at: npt.NDArray[np.floating]) -> Field:
    """Smooth noise (y, x) of one coordinate, mean 0, std near 1."""
    cell = np.floor(at).astype(np.int32)
    low, high = (uniform(hashed(seed, layer, cell + k), layer) for k in (0, 1))
    t = at - cell
    return np.asarray((low + (high - low) * t * t * (3 - 2 * t) - 0.5) * 4.2, np.float32)


def _walls(painted: Painted) -> Field:
    """Grey added by fractures (y, x): the wall that faces the sun is bright, the other and its shadow dark."""
    half = np.maximum(painted.half_m, 1)
    # the normal to the right of the line
    lit = painted.east * SUN[0] - painted.south * SUN[1]
    sunward = painted.side * np.sign(lit) / half
    strength = (0.35 + 0.65 * np.abs(lit)) * (0.6 + 0.8 * painted.draw) * np.where(np.isfinite(painted.inside), 1, 0)
    bright = 36_000 * np.exp(-(((sunward + 0.25) / 0.75) ** 2))
    dark = 24_000 * np.exp(-(((sunward - 1.25) / 0.7) ** 2))
    return np.asarray(strength * (bright - dark) * smoothstep(-RIM_M, -RIM_M / 2, painted.inside), np.float32)


def _grey(ground: Ground, light: Field, shelf: npt.NDArray[np.bool_], date: str, at: tuple[int, int]) -> npt.NDArray[np.uint16]:
    """Stored numbers (1, y, x) of the block `at` (row, column): 0 off the shelf, from 1 to saturation on it."""
    rng = np.random.default_rng([ground.seed, zlib.crc32(date.encode()), *at])
    seen = light + 1400 * noise(ground, f"snow/{date}", 6000) + 900 * rng.standard_normal(light.shape, dtype=np.float32)
    return np.where(shelf, np.clip(np.rint(seen), 1, WHITE), 0).astype(np.uint16)[None]
