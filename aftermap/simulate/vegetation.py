"""Land cover as ESA WorldCover tells it apart, on the covers that scenes are painted with: what stands on each pixel, by shares.

A pixel is a ground with woody plants, standing water and stones on it. Its class follows from these shares as the legend of
WorldCover defines it, so no class is a label apart from what radar and light see.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from aftermap.simulate.mountain import Range, slope_deg
from aftermap.simulate.terrain import Cover, Field, Ground, Land, Terrain, fractal, noise, smoothstep, uniform

LEAST_TREES = 0.10
"""Crown cover from which WorldCover says tree cover, whatever stands below."""
_ALPINE_M = 230.0
"""How far above the tree line meadows give way to moss and lichen."""


class Class(IntEnum):
    """In the order of WorldCover's codes 10 to 100. Mangroves need a coast, and no scene here has one."""

    TREES = 0
    SHRUBS = 1
    GRASS = 2
    CROP = 3
    BUILT = 4
    BARE = 5
    SNOW = 6
    WATER = 7
    WETLAND = 8
    MANGROVES = 9
    MOSS = 10


_CLASS_OF = {
    Cover.WATER: Class.WATER, Cover.CROP: Class.CROP, Cover.GRASS: Class.GRASS, Cover.BARE: Class.BARE,
    Cover.FOREST: Class.TREES, Cover.URBAN: Class.BUILT, Cover.ROCK: Class.BARE, Cover.SNOW: Class.SNOW,
}  # fmt: skip
CLASS_OF = np.array([_CLASS_OF[cover] for cover in Cover], np.uint8)
_GARDENS = np.array([0.0, 0.02, 0.05, 0.01, 0.0, 0.06, 0.0, 0.0], np.float32)
"""Mean crown cover of single trees by ground."""


@dataclass(frozen=True)
class Growth:
    """What grows in a region: mean crown cover of its woods, and noise levels (mean 0, std 1) above which the rest does."""

    crowns: float
    scrub: float
    """On dry slopes that face the sun."""
    fallow: float
    """Share of the lots of grass that have grown over with shrubs."""
    mire_m: float
    """Height above drainage (m) up to which grass is wet."""


@dataclass(frozen=True)
class Stand:
    """Fields (y, x): class (places of `Class`), cover code of the ground, shares of the pixel in [0, 1] of what is on it."""

    kind: npt.NDArray[np.uint8]
    ground: npt.NDArray[np.uint8]
    trees: Field
    shrubs: Field
    water: Field
    stones: Field

    def parts(self) -> Iterator[tuple[npt.NDArray[np.uint8], Field]]:
        """Cover codes (y, x) and their share (y, x) of each pixel; the shares add to 1."""
        woody = self.trees + self.shrubs
        yield self.ground, 1 - woody - self.water - self.stones
        for cover, share in ((Cover.FOREST, woody), (Cover.WATER, self.water), (Cover.ROCK, self.stones)):
            yield np.full_like(self.ground, cover), share


def stand(ground: Ground, ter: Terrain, use: Land, growth: Growth, region: Range | None) -> Stand:
    """What stands on each pixel of a window with that cover; `region` is the mountain range, None in the lowlands."""
    wood, grass = use.cover == Cover.FOREST, use.cover == Cover.GRASS
    under = np.where(wood, np.uint8(Cover.GRASS), use.cover)
    slope = slope_deg(ter)
    alpine = _above_trees(ground, ter, region)
    moss = grass & (alpine > _ALPINE_M)
    shrubby = _shrubby(ground, ter, use, growth, slope) & ~moss
    # dwarf pine and green alder between the last trees and the meadows
    shrubby |= (wood | grass) & (np.abs(alpine - 40) < 70)
    wet = (grass | (use.cover == Cover.CROP)) & ~shrubby & ~moss & _mire(ground, ter, growth, slope)
    under[wet] = Cover.GRASS
    trees = np.where(wood & ~shrubby, _crowns(ground, use, growth), _single_trees(ground, under))
    trees[alpine > 0] *= np.float32(0.2)
    trees[wood & ~shrubby] = np.maximum(trees[wood & ~shrubby], np.float32(LEAST_TREES))
    patchy = np.clip(1 + 0.25 * noise(ground, "patchy", 55), 0.4, 1.6)
    kind = CLASS_OF[use.cover]
    for where, name in ((shrubby, Class.SHRUBS), (wet, Class.WETLAND), (moss, Class.MOSS)):
        kind[where] = name
    shares = ((shrubby, 0.38), (wet, 0.3), (moss, 0.4))
    shrubs, water, stones = (np.where(where, np.float32(mean) * patchy, np.float32(0)) for where, mean in shares)
    return Stand(kind, under, np.asarray(trees, np.float32), shrubs, water, stones)


def _above_trees(ground: Ground, ter: Terrain, region: Range | None) -> Field:
    """Metres (y, x) above the ragged tree line that the cover follows; far below it where there is none."""
    if region is None:
        return np.full(ter.elevation.shape, -1e4, np.float32)
    return np.asarray(ter.elevation - region.tree_line_m - 160 * fractal(ground, "belt", 900, 4, gain=0.6), np.float32)


def _shrubby(ground: Ground, ter: Terrain, use: Land, growth: Growth, slope: Field) -> npt.NDArray[np.bool_]:
    """Grass on dry slopes that face south, woods on the driest of them, and lots that nobody mows."""
    south = -ter.rise_south / np.maximum(np.hypot(ter.rise_east, ter.rise_south), np.float32(1e-6))
    dry = noise(ground, "scrub", 420) + 0.4 * noise(ground, "scrub/fine", 70) - 0.8
    dry = dry + 1.6 * smoothstep(2, 14, slope) * smoothstep(-0.2, 0.5, south)
    fallow = uniform(use.parcel, "fallow") < growth.fallow
    slopes = (dry > growth.scrub) & (slope > 2)
    return np.asarray(
        ((use.cover == Cover.GRASS) & (slopes | fallow)) | ((use.cover == Cover.FOREST) & slopes & (dry > growth.scrub + 0.9))
    )


def _mire(ground: Ground, ter: Terrain, growth: Growth, slope: Field) -> npt.NDArray[np.bool_]:
    """Flat ground hardly above its drainage."""
    reach = growth.mire_m * np.exp(0.5 * noise(ground, "mire", 500) + 0.2 * noise(ground, "mire/fine", 80))
    return np.asarray((ter.hand < reach) & (slope < 4))


def _crowns(ground: Ground, use: Land, growth: Growth) -> Field:
    """Crown cover (y, x) of woods: stands of unlike age, and gaps."""
    closed = growth.crowns + 0.16 * fractal(ground, "crowns", 380, 4, gain=0.7) + 0.1 * (uniform(use.parcel, "age") - 0.5)
    return np.asarray(np.clip(closed, LEAST_TREES, 0.97), np.float32)


def _single_trees(ground: Ground, under: npt.NDArray[np.uint8]) -> Field:
    """Crown cover (y, x) of gardens, hedges and single trees: less than makes a wood."""
    many = _GARDENS[under] * np.exp(0.8 * noise(ground, "single", 60) - 0.3)
    return np.asarray(np.minimum(many, np.float32(LEAST_TREES - 0.01)), np.float32)
