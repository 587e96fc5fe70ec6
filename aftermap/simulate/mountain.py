"""Mountains built round their drainage: main valleys, branches, gullies and rills, each rising from the coarser one it joins.

Every level is a distance to the nearest course of its own coordinate, so elevation stays a closed form of (seed, position).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aftermap.simulate.terrain import (
    HALO_PX,
    Cover,
    Field,
    Ground,
    Land,
    Terrain,
    fractal,
    hashed,
    noise,
    parcels,
    rises,
    smoothstep,
    uniform,
)  # fmt: skip


@dataclass(frozen=True)
class Range:
    """A mountain region. Spacings and heights (m) go from main valleys to rills; heights are from course to divide.

    `floor_m` is the half width of the flat valley floor, `wall` the exponent that makes walls steep at their foot and
    shoulders gentle above (glacial U at 1.7) or straight from river to crest (fluvial V at 1).
    """

    base_m: float
    spacing_m: tuple[float, float, float, float]
    height_m: tuple[float, float, float, float]
    floor_m: float
    wall: float
    rough_m: float
    tree_line_m: float
    snow_line_m: float


RANGES = {
    # carved by ice: wide floors, high walls, sharp crests; slopes spread from flat to cliff
    "alps": Range(620, (9000, 2900, 900, 260), (1300, 400, 105, 16), 420, 1.6, 24, 1850, 2350),
    # cut by rivers into a rising flank: narrow floors, straight slopes near one angle, finely dissected; forest to the crests
    "andes": Range(1150, (5200, 1700, 520, 170), (620, 260, 78, 11), 45, 1.05, 13, 3100, 4600),
}


@dataclass(frozen=True)
class _Levels:
    """Fields (y, x) in metres: main river bed, the wall above it, all finer levels, distance to the main axis and bank."""

    bed: Field
    wall: Field
    spurs: Field
    valley: Field
    channel: Field
    branch: Field


def mountain(ground: Ground, region: Range) -> Terrain:
    """Terrain of a window; the same to the last bit for the same window, to rounding where windows overlap."""
    levels = _levels(ground.grown(HALO_PX), region)
    elevation = _elevation(levels)
    down, rise = rises(ground, elevation)
    # up a branch the branch is the nearest drainage and carries the wall's height with it
    hand = levels.spurs + levels.wall * (1 - levels.branch) + 0.004 * levels.valley
    hand = np.maximum(hand, np.float32(0.2)) * smoothstep(0, 90, levels.channel)
    inner = (slice(HALO_PX, -HALO_PX), slice(HALO_PX, -HALO_PX))
    elevation, rise, down, hand, valley = (
        np.asarray(field[inner], np.float32) for field in (elevation, rise, down, hand, levels.valley)
    )
    return Terrain(elevation, rise, down, hand, valley, (levels.channel < 0)[inner])


def heights(ground: Ground, region: Range) -> Field:
    """Elevation (y, x) in metres alone, for a wide and coarse look round a window."""
    return _elevation(_levels(ground, region))


def _elevation(levels: _Levels) -> Field:
    return np.asarray(levels.bed + levels.wall + levels.spurs, np.float32)


def _levels(ground: Ground, region: Range) -> _Levels:
    """Each level's coordinate runs across that of the level before; its height fades in away from the course it joins."""
    along, across = _axes(ground)
    one, two, three, four = region.spacing_m
    axis = across + 0.11 * one * noise(ground, "valley", 0.7 * one) + 0.03 * one * noise(ground, "bend", 0.2 * one)
    valley, at_one, side = _course(ground, axis, one, "main")
    above = np.maximum(at_one - region.floor_m / (one / 2), np.float32(0)) / (1 - region.floor_m / (one / 2))
    ridge = 1 + 0.22 * noise(ground, "ridge", 0.8 * one)
    wall = region.height_m[0] * ridge * (1 - (1 - above) ** np.float32(region.wall))
    branch = smoothstep(0, 0.35, above)
    spurs = 0.004 * valley + 1.2 * fractal(ground, "floor", 300, 3)
    coordinate, gate = along, branch
    for level, (spacing, coarser) in enumerate(((two, one), (three, two), (four, three)), start=1):
        bent = coordinate + 0.17 * spacing * noise(ground, f"bend/{level}", 0.9 * spacing)
        bent = bent + 0.05 * spacing * noise(ground, f"kink/{level}", 0.3 * spacing)
        shift = uniform(hashed(ground.seed, f"side/{level}", side), "shift") * np.float32(spacing)
        _, at, side = _course(ground, bent + shift, spacing, f"level/{level}")
        spurs = spurs + region.height_m[level] * gate * at * (1 + 0.45 * noise(ground, f"spur/{level}", 0.9 * coarser))
        gate = gate * smoothstep(0.04, 0.5, at)
        coordinate = axis if level == 1 else along
    rough = region.rough_m * fractal(ground, "rough", 420, 5, gain=0.55) * (0.04 + 0.96 * smoothstep(0, 0.25, above))
    bed = region.base_m - 0.008 * along
    channel = valley * (1 + 0.3 * noise(ground, "gravel", 400)) - (12 + 0.03 * region.floor_m)
    return _Levels(bed, wall, np.asarray(spurs + rough, np.float32), valley, np.asarray(channel, np.float32), branch)


def _axes(ground: Ground) -> tuple[Field, Field]:
    """Metres along and across the main valleys, whose heading the seed draws."""
    heading = 2 * (float(uniform(hashed(ground.seed, "heading"), "heading")[0]) - 0.5)
    along = np.cos(heading) * ground.east_m - np.sin(heading) * ground.south_m
    across = np.sin(heading) * ground.east_m + np.cos(heading) * ground.south_m
    return along.astype(np.float32), across.astype(np.float32)


def _course(ground: Ground, coordinate: Field, spacing: float, layer: str) -> tuple[Field, Field, npt.NDArray[np.int32]]:
    """Metres to the nearest course, the same from 0 there to 1 at the divide, and which valley side (for `hashed`).

    A side's identity changes only on its courses, where all finer levels have faded out.
    """
    scaled = coordinate / np.float32(spacing)
    first = uniform(hashed(ground.seed, layer), "first")
    nearest = np.abs(scaled - first - np.round(scaled - first))
    return nearest * np.float32(spacing), 2 * nearest, np.floor(scaled - first).astype(np.int32)


def slope_deg(ter: Terrain) -> Field:
    """Slope (y, x) in degrees."""
    return np.asarray(np.degrees(np.arctan(np.hypot(ter.rise_east, ter.rise_south))), np.float32)


def mountain_land(ground: Ground, ter: Terrain, region: Range) -> Land:
    """Cover and parcels: woods to the tree line, meadows, rock and snow above, gravel by the rivers, fields where it is flat."""
    parcel = parcels(ground)
    slope, use = slope_deg(ter), uniform(parcel, "use")
    ragged = fractal(ground, "belt", 900, 4, gain=0.6)
    cover = np.full(use.shape, Cover.FOREST, np.uint8)
    # pastures and clearings: large where the ground is gentle, small on slopes
    cover[fractal(ground, "clearing", 600, 5, gain=0.6) - slope / 28 > 0.35] = Cover.GRASS
    cover[ter.elevation > region.tree_line_m + 160 * ragged] = Cover.GRASS
    cover[slope + 5 * ragged > 48] = Cover.ROCK
    cover[(ter.elevation > region.snow_line_m + 170 * ragged) & (slope < 44)] = Cover.SNOW
    farmed = (slope < 13) & (noise(ground, "farms", 1500) + ter.hand / -60 > -0.9) & (cover != Cover.SNOW)
    cover[farmed & (use < 0.85)] = Cover.GRASS
    cover[farmed & (use < 0.5)] = Cover.CROP
    cover[farmed & (use < 0.10)] = Cover.BARE
    cover[(noise(ground, "quarry", 260) > 2.75) & (slope < 38)] = Cover.BARE
    cover[_track(ground) & (slope < 36)] = Cover.BARE
    cover[(slope < 9) & (noise(ground, "town", 500) + 0.4 * noise(ground, "block", 70) > 1.9)] = Cover.URBAN
    cover[(ter.hand < 0.5 + 0.7 * noise(ground, "bar", 160)) & (ter.valley < 300)] = Cover.BARE
    cover[ter.water] = Cover.WATER
    return Land(cover, parcel)


def _track(ground: Ground) -> npt.NDArray[np.bool_]:
    """Unpaved roads (y, x), some 8 m wide: level lines of a noise."""
    wide = ground.grown(1)
    field = noise(wide, "road", 1300) + 0.12 * noise(wide, "serpentine", 230)
    down, right = rises(wide, field)
    return np.asarray((np.abs(field) < 4 * np.hypot(down, right))[1:-1, 1:-1])
