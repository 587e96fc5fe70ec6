"""Slides: where slopes fail, how large, and down which way they run out, each a stroke from its head to its toe."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import gammaincc, gammainccinv

from aftermap.simulate.mountain import RANGES, Range, heights
from aftermap.simulate.strokes import Points, Stroke, sample
from aftermap.simulate.terrain import Field, Ground, hashed, noise, rises, smoothstep, uniform

TILE_M, REACH_M = 5120.0, 1600.0
"""Slides are made by tiles fixed to the plane; none runs farther from its head than the reach."""
CELL_M, LATTICE_M, STEP_M = 128.0, 40.0, 25.0
"""One slope in each cell may fail; ways are walked on elevation of the lattice's pixel, in steps."""
LEAST_M2, MOST_M2 = 1500.0, 250_000.0
"""Smaller scars than this do not show at 10 m, and are missing from inventories too; larger ones are another process."""
START_DEG, STOP_DEG = (25.0, 30.0, 46.0, 54.0), 9.0
"""Slopes fail between the outer of these angles, most readily between the inner; a slide stops on gentler ground."""
INERTIA = 0.55


Slopes = Callable[[Ground], tuple[Field, Field]]
"""Rise (y, x) southward and eastward at the pixels of a window."""


def _rises_of(region: Range) -> Slopes:
    return lambda ground: rises(ground, heights(ground, region))


RANGE_RISES: dict[str, Slopes] = {name: _rises_of(region) for name, region in RANGES.items()}
"""Slopes of the built mountains; one object each, for slides are remembered by it."""


@lru_cache(maxsize=4096)
def slides(seed: int, slopes: Slopes, event: str, density: float, row: int, col: int) -> tuple[Stroke, ...]:
    """Slides of one tile and event whose heads lie in tile (row, col); `density` is the share of steep cells that may fail."""
    ground, heads, draws = _cells(seed, event, row, col)
    down, right = slopes(ground)
    slope = np.degrees(np.arctan(np.hypot(*(sample(ground, f, heads) for f in (down, right)))))
    # rain falls in cells, rock is weak in belts: slides come in swarms
    swarm = smoothstep(-0.4, 1.5, sample(ground, noise(ground, f"{event}/rain", 2600), heads).astype(np.float32))
    steep = smoothstep(*START_DEG[:2], slope.astype(np.float32)) * (1 - smoothstep(*START_DEG[2:], slope.astype(np.float32)))
    chosen = np.flatnonzero(uniform(draws, "fails") < density * steep * swarm)
    ways, stopped = walk(ground, down, right, heads[chosen])
    return tuple(_stroke(way[: last + 1], draw) for way, last, draw in zip(ways, stopped, draws[chosen], strict=True) if last > 0)


def _cells(seed: int, event: str, row: int, col: int) -> tuple[Ground, Points, npt.NDArray[np.uint32]]:
    """The tile's elevation window with its rim, one head (n, 2) (south, east) in metres per cell, and the cells' hashes."""
    per_tile, rim = int(TILE_M / CELL_M), int(REACH_M / LATTICE_M) + 2
    pixels = int(TILE_M / LATTICE_M)
    ground = Ground(seed, row * pixels - rim, col * pixels - rim, pixels + 2 * rim, pixels + 2 * rim, LATTICE_M)
    south, east = (k * per_tile + np.arange(per_tile) for k in (row, col))
    draws = hashed(seed, event, south[:, None], east[None, :])
    place = [(cell + uniform(draws, axis)) * CELL_M for axis, cell in (("south", south[:, None]), ("east", east[None, :]))]
    return ground, np.stack([p.ravel() for p in place], axis=1).astype(np.float64), draws.ravel()


def walk(
    ground: Ground, down: Field, right: Field, heads: Points, *, step_m: float = STEP_M, reach_m: float = REACH_M
) -> tuple[Points, npt.NDArray[np.int64]]:
    """Points (n, step, 2) downhill from the heads, with inertia, and the step at which each meets gentle ground."""
    steps = int(reach_m / step_m)
    ways = np.repeat(heads[:, None], steps + 1, axis=1)
    stopped, going = np.full(len(heads), steps), np.zeros_like(heads)
    for k in range(1, steps + 1):
        fall = -np.stack([sample(ground, f, ways[:, k - 1]) for f in (down, right)], axis=1)
        gentle = np.hypot(fall[:, 0], fall[:, 1]) < np.tan(np.radians(STOP_DEG))
        stopped = np.where(gentle, np.minimum(stopped, k - 1), stopped)
        going = INERTIA * going + (1 - INERTIA) * fall / np.maximum(np.hypot(fall[:, 0], fall[:, 1]), 1e-9)[:, None]
        ways[:, k] = ways[:, k - 1] + step_m * going / np.maximum(np.hypot(going[:, 0], going[:, 1]), 1e-9)[:, None]
    return ways, stopped


@lru_cache(maxsize=1)
def _areas() -> npt.NDArray[np.float64]:
    """Areas (m2) at even ranks: the inverse gamma of Malamud et al. (2004), tail exponent 2.4, cut at both ends."""
    rho, scale, shift = 1.40, 1280.0, -132.0
    least, most = gammaincc(rho, scale / (np.array([LEAST_M2, MOST_M2]) - shift))
    return np.asarray(scale / gammainccinv(rho, np.linspace(float(least), float(most), 4097)) + shift, np.float64)


def _stroke(way: Points, draw: np.uint32) -> Stroke:
    """The slide of a drawn area that goes down the way as far as its slenderness lets it."""
    bits = np.array([draw], np.uint32)
    rank, slender = float(uniform(bits, "area")[0]), 3 + 9 * float(uniform(bits, "slender")[0]) ** 2
    area = float(np.interp(rank, np.linspace(0, 1, len(_areas())), _areas()))
    last = max(1, min(len(way) - 1, round(float(np.sqrt(area * slender)) / STEP_M)))
    shape = teardrop(last)
    half = area / (2 * last * STEP_M * float(shape.mean()))
    # a way cut short on gentle ground spreads, though not without end
    return Stroke(way[: last + 1], shape * min(half, 0.35 * last * STEP_M), float(uniform(bits, "draw")[0]))


def teardrop(last: int) -> npt.NDArray[np.float64]:
    """Widths (last + 1,) near 1: narrow at the scarp, widest in the upper third, a tongue below with a lobe at its toe."""
    at = np.linspace(0, 1, last + 1)
    return np.asarray(0.55 + 0.55 * np.exp(-(((at - 0.22) / 0.25) ** 2)) + 0.2 * np.exp(-(((at - 0.95) / 0.15) ** 2)))
