"""An ice shelf's flow and its fractures: trains of crevasses across the flow, long rifts, and short shears at the margins."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from aftermap.simulate.strokes import Points, Stroke, sample
from aftermap.simulate.terrain import Field, Ground, hashed, noise, rises, uniform

TILE_M, REACH_M = 64_000.0, 72_000.0
LATTICE_M = 2000.0
OLD = 0.72
"""Share of fractures that were there before."""
GROWN = 0.12
"""Share of the old ones that grew to nearly twice their length since."""


def flow(ground: Ground) -> Field:
    """Stream function (y, x) in metres: ice flows along its level lines, converging and bending round islands."""
    heading = 6.28 * float(uniform(hashed(ground.seed, "flow"), "flow")[0])
    across = np.sin(heading) * ground.east_m + np.cos(heading) * ground.south_m
    return np.asarray(across + 14_000 * noise(ground, "stream", 90_000) + 2500 * noise(ground, "eddy", 30_000), np.float32)


@lru_cache(maxsize=1024)
def fractures(seed: int, before: bool, row: int, col: int) -> tuple[Stroke, ...]:
    """Fractures that start in tile (row, col); `before`, only those that were there already, at the length they had."""
    pixels, rim = int(TILE_M / LATTICE_M), int(REACH_M / LATTICE_M) + 2
    ground = Ground(seed, row * pixels - rim, col * pixels - rim, pixels + 2 * rim, pixels + 2 * rim, LATTICE_M)
    stream = flow(ground)
    down, right = rises(ground, stream)
    found = [
        *_trains(ground, down, right, row, col),
        *_rifts(ground, down, right, row, col),
        *_shears(ground, down, right, row, col),
    ]
    return tuple(_earlier(s) for s in found if s.draw < OLD) if before else tuple(found)


def _earlier(stroke: Stroke) -> Stroke:
    """The fracture as it was, shorter where it has grown."""
    if stroke.draw > OLD * GROWN:
        return stroke
    kept = max(2, int(0.55 * len(stroke.points)))
    return Stroke(stroke.points[:kept], stroke.half_width[:kept], stroke.draw)


def _seeds(seed: int, layer: str, row: int, col: int, per_tile: int) -> tuple[Points, npt.NDArray[np.uint32]]:
    """One jittered point (n, 2) in each of per_tile x per_tile cells of a tile, and the cells' hashes (n,)."""
    south, east = (k * per_tile + np.arange(per_tile) for k in (row, col))
    draws = hashed(seed, layer, south[:, None], east[None, :])
    cell = TILE_M / per_tile
    place = [(south[:, None] + uniform(draws, "south")) * cell, (east[None, :] + uniform(draws, "east")) * cell]
    return np.stack([p.ravel() for p in place], axis=1).astype(np.float64), draws.ravel()


def _heading(ground: Ground, down: Field, right: Field, points: Points) -> npt.NDArray[np.float64]:
    """Angle (n,) of the flow, from south toward east, in radians."""
    return np.arctan2(-sample(ground, down, points), sample(ground, right, points))


def _line(start: Points, angle: npt.NDArray[np.float64], step: float) -> Points:
    """Points (n + 1, 2) reached from `start` by steps in the directions `angle` (n,)."""
    steps = step * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.asarray(np.vstack([start, start + np.cumsum(steps, axis=0)]), np.float64)


def _spindle(count: int, half_m: float) -> npt.NDArray[np.float64]:
    """Half widths (count,) of a line that pinches out at its ends."""
    return np.asarray(half_m * (0.25 + 0.75 * np.sin(np.pi * np.linspace(0.06, 0.94, count)) ** 0.6), np.float64)


def _trains(ground: Ground, down: Field, right: Field, row: int, col: int) -> Iterator[Stroke]:
    """Crevasses one behind the other, carried down the flow from where they open: what streams leave behind a corner."""
    points, draws = _seeds(ground.seed, "train", row, col, 3)
    for start, draw in zip(points, draws, strict=True):
        rng = np.random.default_rng(int(draw))
        if rng.random() > 0.24:
            continue
        gap, count, length, half = (
            rng.uniform(1100, 2300),
            int(rng.integers(12, 42)),
            rng.uniform(5000, 13_000),
            rng.uniform(125, 210),
        )
        turn, arch, at = rng.uniform(-0.35, 0.35), rng.uniform(-0.5, 0.5), start
        for _ in range(count):
            along = float(_heading(ground, down, right, at[None])[0])
            at = at + gap * rng.uniform(0.75, 1.25) * np.array([np.cos(along), np.sin(along)])
            if np.abs(at - start).max() > REACH_M - 14_000:
                break
            long = length * rng.uniform(0.45, 1.1)
            angle = along + np.pi / 2 + turn + np.linspace(-arch, arch, 7) + rng.normal(0, 0.10, 7)
            line = _line(np.zeros(2), angle, long / 7)
            yield Stroke(line - line[3] + at, _spindle(8, half * rng.uniform(0.7, 1.2)), float(rng.random()))
            half *= 0.99


def _rifts(ground: Ground, down: Field, right: Field, row: int, col: int) -> Iterator[Stroke]:
    """Fans of long rifts that turn from across the flow toward it, jagged where they met old seams."""
    points, draws = _seeds(ground.seed, "rift", row, col, 3)
    for start, draw in zip(points, draws, strict=True):
        rng = np.random.default_rng(int(draw))
        if rng.random() > 0.28:
            continue
        across, spread = rng.choice([-1, 1]) * rng.uniform(0.7, 1.5), rng.uniform(0.05, 0.25)
        along = float(_heading(ground, down, right, start[None])[0])
        aside = rng.uniform(1500, 5000) * np.array([np.cos(along), np.sin(along)])
        for k in range(int(rng.integers(1, 8))):
            at = start + k * aside
            long = rng.lognormal(np.log(20_000), 0.5)
            count = int(np.clip(long / 1000, 5, 45))
            bends = along + across + k * spread + rng.uniform(-0.6, 0.6) * np.linspace(0, 1, count) + rng.normal(0, 0.22, count)
            yield Stroke(_line(at, bends, 1000), _spindle(count + 1, rng.lognormal(np.log(230), 0.4)), float(rng.random()))


def _shears(ground: Ground, down: Field, right: Field, row: int, col: int) -> Iterator[Stroke]:
    """Short fractures in echelon, where the belts of shear are."""
    points, draws = _seeds(ground.seed, "shear", row, col, 24)
    belt = sample(ground, noise(ground, "belt", 24_000), points)
    chosen = uniform(draws, "opens") < 0.32 * np.clip(belt - 0.9, 0, 1)
    headings = _heading(ground, down, right, points[chosen])
    for start, draw, along in zip(points[chosen], draws[chosen], headings, strict=True):
        rng = np.random.default_rng(int(draw))
        angle = along + 0.75 + rng.normal(0, 0.08) + rng.normal(0, 0.10, 4)
        yield Stroke(_line(start, angle, rng.uniform(450, 1300)), _spindle(5, rng.uniform(95, 170)), float(rng.random()))
