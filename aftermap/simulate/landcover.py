"""Land cover with known truth: one region seen by radar, coherence and light, with elevation, classes and tree cover.

Regions differ in relief, mixture of land, moisture, incidence and season, all of which backscatter and pictures show.
Coherence goes by cover alone, the same in every region, so what it tells of a region is its mixture of land.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap.raster import BLOCK_PX
from aftermap.simulate import optical
from aftermap.simulate.files import DEM, Layer, Place, Progress, check_choice, check_ranges, check_scene, truth, write_scene
from aftermap.simulate.model import SIZE_PX
from aftermap.simulate.mountain import RANGES, heights, mountain, mountain_land
from aftermap.simulate.relief import Sun, radar_relief, skyline, slope_light, sunlight
from aftermap.simulate.sar import POLARISATIONS, Surface, backscatter, coherent, estimated, incidence, speckled, texture
from aftermap.simulate.terrain import LOWLANDS, Cover, Field, Ground, Land, Terrain, land, noise
from aftermap.simulate.terrain import terrain as lowland
from aftermap.simulate.vegetation import Growth, Stand, stand

GSD_M = 10.0
DATE = "2024-07-02T05:40:00Z"
PAIRS = ("pair_1", "pair_2")
"""Two pairs of images of twelve days, over which nothing happens."""
LAYERS: Mapping[str, Layer] = {
    "s1": Layer(POLARISATIONS, unit="dB", acquired=DATE), "coherence": Layer(PAIRS, unit="1"),
    "rgb": optical.layer("rgb", DATE), "dem": DEM, "truth": truth("land_cover", "tree_cover_percent"),
}  # fmt: skip
"""Files of a scene; the truth is written last."""
_FARTHEST = 8
"""Blocks from the corner of a region that a scene of many may lie, each way."""


@dataclass(frozen=True)
class Region:
    """Where a region lies, how far from the far edge of the swath (km), how wet its soil is (dB), its light, what grows."""

    place: Place
    swath_km: float
    moisture_db: float
    sky: optical.Sky
    growth: Growth


REGIONS = {
    "plain": Region(Place("EPSG:32633", 420_000, 5_350_000), 205, 1.0, optical.Sky(Sun(154, 60), 1.0, 0.45, 0, "plain"),
                    Growth(0.62, 3.0, 0.05, 0.75)),
    "hills": Region(Place("EPSG:32632", 660_000, 4_790_000), 20, -1.4, optical.Sky(Sun(148, 64), 1.3, 0.85, 0, "hills"),
                    Growth(0.5, -0.1, 0.15, 0.4)),
    "alps": Region(Place("EPSG:32632", 372_000, 5_148_000), 75, -0.4, optical.Sky(Sun(150, 58), 0.7, 0.1, 0, "alps"),
                   Growth(0.66, 1.3, 0.02, 0.7)),
    "andes": Region(Place("EPSG:32718", 776_000, 8_548_000), 170, 1.6, optical.Sky(Sun(40, 48), 1.6, 0.25, 0, "andes"),
                    Growth(0.84, 1.0, 0.08, 0.9)),
}  # fmt: skip
"""The Danube's plain, dry hills as in Tuscany, Valais, and the wet eastern flank of the Cordillera."""


def simulate(
    out: Path, *, size: int | None = None, seed: int = 0, terrain: str = "plain", looks: float = 4.9, gsd_m: float | None = None,
    progress: Progress | None = None,
) -> None:  # fmt: skip
    """Writes s1.tif (VV, VH in dB), coherence.tif, rgb.tif (8 bits), dem.tif (m) and truth.tif of size x size pixels.

    The truth is land_cover, a place of vegetation.Class (WorldCover's classes in the order of their codes), and
    tree_cover_percent. `terrain` is one of REGIONS. A smaller scene is the north-west corner of a larger one.
    """
    check_choice("terrain", terrain, tuple(REGIONS), "there is no such region")
    gsd_m, size = GSD_M if gsd_m is None else gsd_m, SIZE_PX if size is None else size
    check_scene(size, seed, gsd_m)
    check_ranges(looks=(looks, 0.5, 1e6))
    grid = REGIONS[terrain].place.grid(size, gsd_m)
    make = partial(block, seed, terrain=terrain, looks=looks, gsd_m=gsd_m)
    made_by = f"aftermap landcover seed={seed} terrain={terrain} looks={looks}"
    write_scene(out, LAYERS, make, grid=grid, made_by=made_by, progress=progress)


def many(out: Path, seeds: Iterable[int], *, progress: Progress | None = None) -> int:
    """Writes `out`/REGION-SEED/, a block of 512 px somewhere in each region, for each seed not there yet; how many are now."""
    wanted = [(seed, name) for seed in seeds for name in REGIONS]
    for done, (seed, name) in enumerate(wanted, 1):
        folder = out / f"{name}-{seed:06d}"
        if not (folder / "truth.tif").exists():
            rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
            row, col = (int(at) for at in rng.integers(_FARTHEST, size=2))
            made = block(seed, row, col, terrain=name, looks=4.9, gsd_m=GSD_M)
            grid = REGIONS[name].place.grid(BLOCK_PX, GSD_M)
            made_by = f"aftermap landcover varied seed={seed} terrain={name} block={row},{col}"
            write_scene(folder, LAYERS, lambda *_, made=made: made, grid=grid, made_by=made_by)
        if progress is not None:
            progress(done, len(wanted))
    return len(wanted)


def block(seed: int, row: int, col: int, *, terrain: str, looks: float, gsd_m: float) -> Mapping[str, npt.NDArray[Any]]:
    """Layers (band, y, x) of the whole 512 px block at block position (row, col); no other block has a say in it."""
    world, region, at = seed ^ zlib.crc32(terrain.encode()), REGIONS[terrain], (row, col)  # no two regions share a river
    ground = Ground(world, row * BLOCK_PX, col * BLOCK_PX, BLOCK_PX, BLOCK_PX, gsd_m)
    ter, use = _country(ground, terrain)
    here = stand(ground, ter, use, region.growth, RANGES.get(terrain))
    relief, rise, light = _relief(ground, ter, terrain)
    flat = _reflectance(ground, here, use, region.sky)
    return {
        "s1": _radar(ground, here, use, region, relief, rise, looks, at),
        "coherence": _coherence(ground, here, at),
        "rgb": optical.picture(ground, flat, light, region.sky, "rgb", at)[0],
        "dem": ter.elevation[None],
        "truth": np.stack([here.kind, np.rint(100 * here.trees).astype(np.uint8)]),
    }


def _country(ground: Ground, terrain: str) -> tuple[Terrain, Land]:
    if terrain in LOWLANDS:
        ter = lowland(ground, LOWLANDS[terrain])
        return ter, land(ground, ter)
    ter = mountain(ground, RANGES[terrain])
    return ter, mountain_land(ground, ter, RANGES[terrain])


def _angle(ground: Ground, region: Region) -> Field:
    """Incidence (1, x) in degrees, where the region lies in the swath."""
    return incidence(replace(ground, col=ground.col + round(1000 * region.swath_km / ground.gsd_m)))


def _relief(ground: Ground, ter: Terrain, terrain: str) -> tuple[Field, Field, Field]:
    """Backscatter (dB) by relief, rise to the east as backscatter takes it, and light, all (y, x); lowlands cast no shadow."""
    still, sun = np.zeros_like(ter.elevation), REGIONS[terrain].sky.sun
    if terrain in LOWLANDS:
        return still, ter.rise_east, slope_light(ter, sun)
    sky = skyline(ground, partial(heights, region=RANGES[terrain]))
    relief, _ = radar_relief(ground, ter, sky, float(_angle(ground, REGIONS[terrain]).mean()))
    return relief, still, sunlight(ground, ter, sky, sun)


def _radar(
    ground: Ground, here: Stand, use: Land, region: Region, relief: Field, rise: Field, looks: float, at: tuple[int, int]
) -> Field:
    """VV and VH (2, y, x) in dB: the power of each part of a pixel by its share; crowns hide two thirds of the soil's wetness."""
    shared, still = texture(ground, use.cover, use.parcel) + relief, np.zeros_like(relief)
    wet, angle = region.moisture_db + 0.5 * noise(ground, "moisture", 1500), _angle(ground, region)
    power = np.zeros((len(POLARISATIONS), *still.shape), np.float32)
    for cover, share in here.parts():
        soil = np.where(cover == Cover.FOREST, np.float32(1 / 3), np.float32(1)) * ~np.isin(cover, (Cover.WATER, Cover.URBAN))
        surface = Surface(cover, still, np.asarray(shared + soil * wet, np.float32), still)
        power += share * np.stack(backscatter(surface, angle, rise))
    return np.stack([speckled(p, looks, ground.seed, f"s1/{pol}", at) for p, pol in zip(power, POLARISATIONS, strict=True)])


def _coherence(ground: Ground, here: Stand, at: tuple[int, int]) -> Field:
    """Sample coherence (2, y, x) of both pairs."""
    level = sum((coherent(ground, cover, share) for cover, share in here.parts()), np.zeros_like(here.trees))
    return np.stack([estimated(level, ground.seed, f"coherence/{pair}", at) for pair in PAIRS])


def _reflectance(ground: Ground, here: Stand, use: Land, sky: optical.Sky) -> Field:
    """Reflectance (band, y, x) in flat light, each part of a pixel by its share; trees shade the ground, shrubs are lighter."""
    (_, rest), *_ = here.parts()
    shaded = rest * (1 - 0.6 * here.trees)
    flat = shaded * optical.surface(ground, here.ground, use.parcel, sky.ripe)
    crowns = 1 + 0.12 * noise(ground, "crowns/tint", 35)
    for cover, share in (
        (Cover.FOREST, crowns * (here.trees + 1.4 * here.shrubs)), (Cover.WATER, here.water), (Cover.ROCK, here.stones),
    ):  # fmt: skip
        flat += optical.SPECTRA[cover][:, None, None] * share
    return flat
