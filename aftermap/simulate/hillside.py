"""One hillside in colours, with slides from fresh to half grown over, among roads, river gravel, terraces and hamlets.

Unlike `landslide`, whose storms strike where slopes fail, a block here has as many slides as it is told to, of the size in
pixels that it is told: what a network should meet in any picture, at any pixel size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from aftermap.raster import BLOCK_PX
from aftermap.simulate import optical
from aftermap.simulate.conditions import Hills
from aftermap.simulate.mountain import RANGES, heights, mountain, mountain_land, slope_deg
from aftermap.simulate.relief import Sun, skyline, slope_light, sunlight
from aftermap.simulate.slides import teardrop, walk
from aftermap.simulate.strokes import Painted, Stroke, paint
from aftermap.simulate.terrain import Cover, Field, Ground, Land, Terrain, fractal, hashed, noise, rises, smoothstep, uniform
from aftermap.simulate.town import town, trees

CROWNS_M = 2.5
"""Coarser pixels than this do not show single trees."""
RGB = list(optical.RGB)
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Made:
    """Both dates' reflectance (3, y, x), and where (y, x) new slides, water, and houses with their roads are."""

    before: Field
    after: Field
    slid: Mask
    water: Mask
    artificial: Mask


def block(seed: int, row: int, col: int, *, gsd_m: float, terrain: str, hills: Hills, suns: Mapping[str, Sun]) -> Made:
    """The whole 512 px block at block position (row, col), under each date's sun."""
    ground = Ground(seed, row * BLOCK_PX, col * BLOCK_PX, BLOCK_PX, BLOCK_PX, gsd_m)
    region = RANGES[terrain]
    ter = mountain(ground, region)
    use = mountain_land(ground, ter, region)
    use = Land(np.array(hills.land, np.uint8)[_frayed(ground, use.cover)], use.parcel)
    built, flat = _surface(ground, ter, use, hills)
    painted = paint(ground, _slides(ground, ter, hills), rim_m=hills.half_px * gsd_m)
    bare = _bare(ground, painted, hills)
    bare[ter.water | (use.cover == Cover.SNOW)] = 0
    sky = skyline(ground, partial(heights, region=region))
    light = 0.1 + 0.9 * sunlight(ground, ter, sky, suns["before"])
    before = _shaded(ground, flat, np.zeros_like(bare), ter, use.cover, suns["before"], hills) * light
    dug = _dug(ground, ter, painted, bare)
    light = 0.1 + 0.9 * sunlight(ground, dug, sky, suns["after"])
    green = bare * _left(ground, painted, hills)
    scar = optical.mixed(flat, green, np.array(hills.earth, np.float32), _rubble(ground, painted))
    after = _shaded(ground, scar, bare, dug, use.cover, suns["after"], hills) * light
    return Made(before, after, bare > 0.5, ter.water, built & (bare < 0.5))


def _frayed(ground: Ground, cover: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Cover (y, x) with borders that are rough at the pixel, whatever its size."""
    y, x = np.ogrid[: ground.height, : ground.width]
    down, right = (4 * fractal(ground, f"fray/{axis}", 20 * ground.gsd_m, 4, gain=0.75) for axis in ("south", "east"))
    rows, cols = (np.clip(np.rint(at), 0, BLOCK_PX - 1).astype(int) for at in (y + down, x + right))
    frayed = cover[rows, cols]
    return np.where((cover == Cover.WATER) | (frayed == Cover.WATER), cover, frayed)


def _slides(ground: Ground, ter: Terrain, hills: Hills) -> Iterator[Stroke]:
    """Teardrops from steep heads downhill, each of its own width and slenderness; more of them where the first ones are."""
    rng = np.random.default_rng([ground.seed, ground.row, ground.col])
    steep = smoothstep(8, 26, slope_deg(ter)) + np.float32(0.01)
    steep = steep * smoothstep(-1, 1, noise(ground, "rain", 150 * ground.gsd_m)) + np.float32(1e-4)
    steep[ter.water] = 0
    drawn = rng.choice(steep.size, hills.slides, p=(steep / steep.sum(dtype=np.float64)).ravel().astype(np.float64))
    south, east = np.divmod(drawn, BLOCK_PX)
    heads = np.stack([ground.south_m[south, 0], ground.east_m[0, east]], axis=1)
    half = hills.half_px * ground.gsd_m * np.exp(rng.normal(0, 0.45, hills.slides))
    long = 2 * half * np.exp(rng.uniform(np.log(1.1), np.log(7), hills.slides))
    step = max(4.0, hills.half_px) * ground.gsd_m
    ways, stopped = walk(ground, ter.rise_south, ter.rise_east, heads, step_m=step, reach_m=max(long.max(initial=0), step))
    for way, stop, wide, length, draw in zip(ways, stopped, half, long, rng.random(hills.slides), strict=True):
        last = max(1, min(int(stop), round(length / step), len(way) - 1))
        yield Stroke(way[: last + 1], wide * teardrop(last) * rng.uniform(0.8, 1.2, last + 1), float(draw))


def _bare(ground: Ground, painted: Painted, hills: Hills) -> Field:
    """Share (y, x) of a pixel inside a slide, ragged at its rim."""
    px, half = ground.gsd_m, hills.half_px * ground.gsd_m
    ragged = (0.5 * px + 0.22 * painted.half_m) * fractal(ground, "rim", 1.5 * half + 6 * px, 4, gain=0.65)
    inside = np.where(np.isfinite(painted.inside), painted.inside + ragged, -np.inf)
    return smoothstep(-0.7 * px, 0.7 * px, inside.astype(np.float32))


def _left(ground: Ground, painted: Painted, hills: Hills) -> Field:
    """Share (y, x) of a slide that is still earth: grown over evenly and in tufts, more in old slides, from the toe upward."""
    age = hills.regrown * (0.3 + 0.7 * painted.draw)
    tufts = smoothstep(-0.6, 1.2, fractal(ground, "tuft", 12 + 9 * ground.gsd_m, 3, gain=0.8) + painted.along - 0.5)
    return np.asarray(0.97 - age * (0.35 + 0.65 * tufts), np.float32)


def _rubble(ground: Ground, painted: Painted) -> Field:
    """Brightness (y, x) of slides: each its own, streaked downhill, blocky, darker at the wet toe."""
    streak = noise(ground, "gully", 3 * ground.gsd_m + 2) * 0.05
    half = np.maximum(painted.half_m, ground.gsd_m)
    streak = streak + 0.12 * np.sin(7 * painted.side / half + 20 * painted.draw + 1.5 * noise(ground, "wind", 25 * ground.gsd_m))
    blocks = 0.16 * fractal(ground, "blocks", 9 * ground.gsd_m + 3, 3, gain=0.8)
    return np.asarray(1.05 + 0.4 * (painted.draw - 0.5) - 0.25 * painted.along**2 + streak + blocks, np.float32)


def _dug(ground: Ground, ter: Terrain, painted: Painted, bare: Field) -> Terrain:
    """The terrain after: a hollow in the upper half of each slide, a bulge in the lower."""
    deep = np.where(np.isfinite(painted.inside), np.clip(painted.inside / np.maximum(painted.half_m, 1e-3), 0, 1), 0)
    depth = 0.16 * painted.half_m * np.sqrt(deep) * (1 - 1.5 * painted.along) * bare
    down, right = rises(ground, np.asarray(-depth, np.float32))
    return replace(ter, rise_south=ter.rise_south + down, rise_east=ter.rise_east + right)


def _surface(ground: Ground, ter: Terrain, use: Land, hills: Hills) -> tuple[Mask, Field]:
    """Where houses and their roads are, and reflectance (3, y, x) in flat light without slides."""
    colour = optical.surface(ground, use.cover, use.parcel, hills.ripe)[RGB]
    colour *= np.moveaxis(np.array(hills.palette, np.float32)[use.cover], -1, 0)
    colour *= (
        1 + 0.10 * fractal(ground, "herb", 14 * ground.gsd_m, 3, gain=0.85) + 0.08 * noise(ground, "patch", 70 * ground.gsd_m)
    )
    slope = slope_deg(ter)
    terraced = smoothstep(hills.terraces, hills.terraces + 0.3, fractal(ground, "terrace", 120 * ground.gsd_m, 3) - slope / 40)
    terraced[np.isin(use.cover, (Cover.WATER, Cover.SNOW, Cover.ROCK))] = 0
    colour = _terraces(ground, ter, colour, terraced, hills)
    gravel = _gravel(ground, ter, hills)
    stones = 1 + 0.12 * fractal(ground, "stones", 6 * ground.gsd_m + 2, 3, gain=0.9)
    colour = optical.mixed(colour, gravel, np.array(hills.gravel_colour, np.float32), stones)
    for k, (half_m, spread_m, bright) in enumerate(hills.roads):
        cut, road = _road(ground, k, half_m, spread_m)
        colour = optical.mixed(colour, cut * (slope > 8), np.array(hills.earth, np.float32), 0.85)
        colour = optical.mixed(colour, road, np.array(hills.road_colour, np.float32), bright)
    colour[:, ter.water] = (optical.SPECTRA[Cover.WATER][RGB] * np.array(hills.water, np.float32))[:, None]
    return _hamlets(ground, use, slope, hills, colour), colour


def _terraces(ground: Ground, ter: Terrain, colour: Field, share: Field, hills: Hills) -> Field:
    """Steps along the slope: bands of equal height, each sown unlike the next, with a dark rim."""
    level = ter.elevation / np.float32(hills.step_m) + 0.5 * noise(ground, "sag", 40 * ground.gsd_m)
    sown = uniform(hashed(ground.seed, "step", np.floor(level).astype(np.int32)), "sown")
    rim = 1 - 0.35 * smoothstep(0.75, 0.95, level - np.floor(level))
    crop = optical.SPECTRA[Cover.CROP][RGB][:, None, None] + sown * (optical.SPECTRA[Cover.BARE] - optical.SPECTRA[Cover.CROP])[
        RGB
    ][:, None, None] * np.float32(hills.ripe + 0.3)
    return np.asarray(colour + share * (crop * rim * (0.85 + 0.3 * sown) - colour), np.float32)


def _gravel(ground: Ground, ter: Terrain, hills: Hills) -> Field:
    """Share (y, x) of bars beside the river, and of one braided bed that no terrain has made."""
    bar = smoothstep(0, 1.5, hills.gravel + 0.8 * noise(ground, "bar", 30 * ground.gsd_m) - ter.hand / 2) * (ter.valley < 500)
    course = noise(ground, "braid", 260 * ground.gsd_m) + 0.15 * noise(ground, "bend", 60 * ground.gsd_m)
    down, right = rises(ground, course)
    away = np.abs(course) / np.maximum(np.hypot(down, right), 1e-5) / ground.gsd_m
    width = hills.braid_px * (1 + 0.5 * noise(ground, "bank", 40 * ground.gsd_m))
    braid = smoothstep(-1, 1, (width - away).astype(np.float32)) * (hills.braid_px > 0)
    channel = smoothstep(-0.4, -0.1, np.abs(noise(ground, "channel", 18 * ground.gsd_m)) - 0.55)
    return np.asarray(np.maximum(bar, braid) * (0.75 + 0.25 * channel), np.float32)


def _road(ground: Ground, k: int, half_m: float, spread_m: float) -> tuple[Field, Field]:
    """Shares (y, x) of the slope that was cut for a road here and there, and of the road: a level line of a noise."""
    field = noise(ground, f"road/{k}", spread_m) + 0.12 * noise(ground, f"bends/{k}", spread_m / 6)
    away = np.abs(field) / np.maximum(np.hypot(*rises(ground, field)), 1e-6)
    rim = 0.6 * ground.gsd_m
    cuts = half_m * (1 + 3 * smoothstep(0.6, 1.6, noise(ground, f"cut/{k}", 30 * ground.gsd_m)))
    return smoothstep(-rim, rim, (cuts - away).astype(np.float32)), smoothstep(-rim, rim, np.asarray(half_m - away, np.float32))


def _hamlets(ground: Ground, use: Land, slope: Field, hills: Hills, colour: Field) -> Mask:
    """Paints houses and lanes where people live; where they are (y, x)."""
    lived = (noise(ground, "hamlet", 110 * ground.gsd_m + 60) > hills.hamlets) & (slope < 25)
    lived |= use.cover == Cover.URBAN
    lived &= ~np.isin(use.cover, (Cover.WATER, Cover.SNOW))
    if not lived.any():
        return lived
    built = town(ground)
    light = 0.08 + 0.28 * uniform(built.key, "roof") * (0.85 + 0.3 * (built.tilt[0] > 0))
    hue = np.stack([1 + 0.3 * uniform(built.key, "rust"), np.ones_like(light), 1.1 - 0.35 * uniform(built.key, "rust")])
    lane = lived & (built.road | built.drive)
    np.copyto(colour, np.array(hills.road_colour, np.float32)[:, None, None] * np.float32(0.8), where=lane)
    np.copyto(colour, (hue * light).astype(np.float32), where=lived & built.house)
    return lived & (built.house | lane)


def _shaded(
    ground: Ground, colour: Field, bare: Field, ter: Terrain, cover: npt.NDArray[np.uint8], sun: Sun, hills: Hills
) -> Field:
    """The picture (3, y, x) under crowns that the sun lights from its side; trees do not stand in slides."""
    if ground.gsd_m > CROWNS_M:
        grain = fractal(ground, "canopy", 11 + 2 * ground.gsd_m, 2, gain=0.8)
        return np.asarray(colour * (1 + np.where(cover == Cover.FOREST, 0.22, 0.06) * (1 - bare) * grain), np.float32)
    wood = np.where(cover == Cover.FOREST, np.float32(0.95), smoothstep(0.6, 2, noise(ground, "grove", 35)) * np.float32(0.5))
    wood = np.where(np.isin(cover, (Cover.WATER, Cover.SNOW, Cover.ROCK)), 0, wood * (1 - hills.felled)) * (bare < 0.4)
    wood = np.where(colour.mean(axis=0) > 0.11, wood * 0.05, wood)  # not on roads, roofs and gravel
    closed = replace(ground, seed=ground.seed + 1)  # the crowns between: one lattice of trees does not close a wood
    crown = np.maximum(trees(ground, np.asarray(wood, np.float32)), trees(closed, np.asarray(wood * (cover == Cover.FOREST))))
    down, right = rises(ground, crown)
    lit = slope_light(replace(ter, rise_south=down, rise_east=right), sun)
    leaf = optical.SPECTRA[Cover.FOREST][RGB] * np.array(hills.palette, np.float32)[Cover.FOREST]
    leaves = leaf[:, None, None] * (0.75 + 0.07 * crown) * lit
    below = 1 - 0.45 * (cover == Cover.FOREST) * (1 - bare)  # the floor of a wood lies in shade
    return np.asarray(np.where(crown > 0.8, leaves, colour * below), np.float32)
