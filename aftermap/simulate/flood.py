"""A flood with known truth: Sentinel-1 before and after, flood and permanent water, and elevation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap.raster import BLOCK_PX
from aftermap.simulate import optical
from aftermap.simulate.conditions import USUAL, Conditions
from aftermap.simulate.files import DEM, Layer, Place, Progress, check_choice, check_ranges, truth, write_scene
from aftermap.simulate.model import Model, chosen_site
from aftermap.simulate.mountain import RANGES, mountain, mountain_land
from aftermap.simulate.relief import Sun, slope_light
from aftermap.simulate.sar import (
    COHERENCE_PAIRS,
    POLARISATIONS,
    Surface,
    backscatter,
    coherent,
    estimated,
    incidence,
    speckled,
    texture,
)  # fmt: skip
from aftermap.simulate.terrain import LOWLANDS, Cover, Field, Ground, Land, Terrain, land, noise, smoothstep, uniform
from aftermap.simulate.terrain import terrain as lowland

PLACE = Place("EPSG:32633", 420_000, 5_350_000)
"""The Danube's plain east of Linz."""
DATES = {"before": "2024-05-01T05:00:00Z", "after": "2024-05-13T05:00:00Z"}
SKIES = {
    "before": optical.Sky(Sun(155, 52), haze=1.0, ripe=0.2, clouds=0.03, name="before"),
    "after": optical.Sky(Sun(154, 55), haze=1.6, ripe=0.3, clouds=0.12, name="after"),
}
REGIONS = (*LOWLANDS, *RANGES)
SWATH_EDGE_M = {"before": 400.0, "after": 460.0}
"""Where the swath's edge meets the north border; no pass repeats another's edge exactly."""
SWATH_LEAN = 0.21
"""Metres west per metre south: the ground track of a descending pass at mid latitudes."""


@dataclass(frozen=True)
class Block:
    """One window of a scene: `before`, `after` (band, y, x) in dB or as stored, `truth` (2, y, x) uint8, `dem` (1, y, x) in
    metres, `coherence` (2, y, x) in [0, 1] where it was asked for."""

    before: npt.NDArray[Any]
    after: npt.NDArray[Any]
    truth: npt.NDArray[np.uint8]
    dem: Field
    coherence: Field | None = None
    cover: npt.NDArray[np.uint8] | None = None
    """(y, x) codes of terrain.Cover."""


def simulate(
    out: Path,
    *,
    size: int | None = None,
    seed: int = 0,
    sensor: str = "sentinel-1",
    terrain: str = "plain",
    looks: float = 4.9,
    gsd_m: float | None = None,
    stage_m: float = 2.5,
    coherence: bool = False,
    dem: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Writes before.tif, after.tif, truth.tif (flood, permanent_water) and dem.tif (m) of size x size pixels.

    `dem` is a real elevation model: on its grid, cut to `size`, the flood stands by height above the drainage routed on it.
    `sensor` is "sentinel-1" (VV, VH in dB), to which `coherence` adds coherence.tif, "sentinel-2" (12 bands, reflectance
    x 10,000) or "rgb" (8 bits). A seed is one world: a smaller scene is the north-west corner of a larger one.
    """
    check_choice("sensor", sensor, ("sentinel-1", "sentinel-2", "rgb"), "no such picture of floods is made")
    check_choice("terrain", terrain, REGIONS, "there is no such terrain")
    site = chosen_site(PLACE, dem, size=size, seed=seed, gsd_m=gsd_m, usual_m=10.0)
    check_ranges(looks=(looks, 0.5, 1e6), stage_m=(stage_m, 0.1, 20))
    layers = {
        name: Layer(POLARISATIONS, unit="dB", acquired=date) if sensor == "sentinel-1" else optical.layer(sensor, date)
        for name, date in DATES.items()
    }
    layers |= {"truth": truth("flood", "permanent_water"), "dem": DEM}
    if coherence:
        check_choice("sensor", sensor, ("sentinel-1",), "coherence needs radar")
        layers["coherence"] = COHERENCE_PAIRS

    def make(row: int, col: int) -> Mapping[str, npt.NDArray[Any]]:
        made = block(
            seed, row, col, looks=looks, gsd_m=site.gsd_m, stage_m=stage_m, sensor=sensor, terrain=terrain,
            coherence=coherence, model=site.model,
        )  # fmt: skip
        return vars(made)

    made_by = f"aftermap flood seed={seed} looks={looks} stage_m={stage_m} sensor={sensor} terrain={terrain}{site.words}"
    write_scene(out, layers, site.masked(make, layers), grid=site.grid, made_by=made_by, progress=progress)


def block(
    seed: int, row: int, col: int, *, looks: float, gsd_m: float, stage_m: float, sensor: str = "sentinel-1",
    terrain: str = "plain", coherence: bool = False, model: Model | None = None, conditions: Conditions = USUAL,
) -> Block:  # fmt: skip
    """The whole 512 px block at block position (row, col): no other block, and no scene size, has a say in it."""
    ground = Ground(seed, row * BLOCK_PX, col * BLOCK_PX, BLOCK_PX, BLOCK_PX, gsd_m)
    ter, use = _country(ground, terrain, model, conditions)
    depth = _depth(ground, ter, stage_m)
    # stalks and ridges stand out of the first 40 cm
    flooded = smoothstep(-0.1, 0.4, depth) * (depth > 0)
    codes = np.stack([depth > 0, ter.water]).astype(np.uint8)
    pairs = _coherence(ground, use, flooded, (row, col)) if coherence else None
    radar = sensor == "sentinel-1"
    before, after = (
        _radar(ground, ter, use, flooded, looks, (row, col), conditions)
        if radar
        else _optical(ground, ter, use, flooded, sensor, (row, col))
    )
    return Block(before, after, codes, ter.elevation[None], pairs, use.cover)


def _country(ground: Ground, terrain: str, model: Model | None, conditions: Conditions) -> tuple[Terrain, Land]:
    """Terrain of the region of that name, or of a real model, with its lakes, and the land of that region."""
    if terrain in LOWLANDS:
        ter = model.terrain(ground) if model else lowland(ground, LOWLANDS[terrain])
    else:
        ter = model.terrain(ground) if model else mountain(ground, RANGES[terrain])
    if (lake := conditions.lake(ground)) is not None:
        ter = replace(ter, water=ter.water | lake)
    use = land(ground, ter) if terrain in LOWLANDS else mountain_land(ground, ter, RANGES[terrain])
    if conditions.land == USUAL.land and lake is None:
        return ter, use
    cover = np.array(conditions.land, np.uint8)[use.cover]
    cover[ter.water] = Cover.WATER
    return ter, replace(use, cover=cover)


def _radar(
    ground: Ground, ter: Terrain, use: Land, flooded: Field, looks: float, at: tuple[int, int], conditions: Conditions
) -> list[Field]:
    """Both pictures in dB."""
    shared = texture(ground, use.cover, use.parcel)
    dry, wet = (_waves(ground, date, conditions) for date in DATES)
    states = {
        "before": Surface(use.cover, np.zeros_like(shared), shared, dry, conditions),
        "after": Surface(use.cover, flooded, shared + _later(ground, use), wet, conditions),
    }
    return [_image(ground, surface, ter.rise_east, date, looks, at) for date, surface in states.items()]


def _optical(ground: Ground, ter: Terrain, use: Land, flooded: Field, sensor: str, at: tuple[int, int]) -> list[npt.NDArray[Any]]:
    """Both pictures as stored numbers; the flood is muddy and shows between the crowns of woods by half."""
    seen = flooded * np.where(use.cover == Cover.FOREST, np.float32(0.45), np.float32(1))
    pictures = []
    for date, sky in SKIES.items():
        flat = optical.surface(ground, use.cover, use.parcel, sky.ripe)
        flat = optical.flooded(flat, seen) if date == "after" else flat
        pictures.append(optical.picture(ground, flat, slope_light(ter, sky.sun), sky, sensor, at)[0])
    return pictures


def _coherence(ground: Ground, use: Land, flooded: Field, at: tuple[int, int]) -> Field:
    """Sample coherence (2, y, x) of a pair before the flood and of the pair across it; walls keep some above the water."""
    lost = flooded * np.where(use.cover == Cover.URBAN, np.float32(0.55), np.float32(0.95))
    kept = {"pre": np.ones_like(lost), "co": 1 - lost}
    return np.stack([
        estimated(coherent(ground, use.cover, share), ground.seed, f"coherence/{pair}", at) for pair, share in kept.items()
    ])  # fmt: skip


def _image(ground: Ground, surface: Surface, rise_east: Field, date: str, looks: float, at: tuple[int, int]) -> Field:
    """One date's picture (band, y, x) in dB of the block `at` (row, column), NaN beyond the swath's edge."""
    power = backscatter(surface, incidence(ground), rise_east)
    image = np.stack(
        [
            speckled(p, looks, ground.seed, f"{date}/{pol}", at, surface.conditions.smear_px)
            for p, pol in zip(power, POLARISATIONS, strict=True)
        ]
    )
    image[:, ground.east_m + SWATH_LEAN * ground.south_m < SWATH_EDGE_M[date]] = np.nan
    return image


def _depth(ground: Ground, ter: Terrain, stage_m: float) -> Field:
    """Metres of flood water (y, x), 0 where dry or permanent: the stage falls up the tributaries, height above drainage rises."""
    stage = stage_m * (0.15 + 0.85 * np.exp(-ter.valley / 1500)) + 0.15 * noise(ground, "stage", 3000)
    return np.where(ter.water, np.float32(0), np.maximum(stage - ter.hand, np.float32(0))).astype(np.float32)


def _later(ground: Ground, use: Land) -> Field:
    """What twelve days and a storm add to dry land in dB: wetter soil, some lots harvested or grazed."""
    change = 0.6 + 0.5 * noise(ground, "moisture", 1500) + 0.45 * noise(ground, "season", 60)
    change -= np.float32(3) * (uniform(use.parcel, "harvest") < 0.05)
    change[use.cover == Cover.WATER] = 0
    change[use.cover == Cover.URBAN] *= np.float32(0.3)
    return np.asarray(change, np.float32)


def _waves(ground: Ground, date: str, conditions: Conditions) -> Field:
    """What wind adds to open water in VV (dB): gusts roughen patches of it, more rarely by as much as hides it."""
    gusts = smoothstep(conditions.calm, conditions.calm + 1.3, noise(ground, f"wind/{date}", 1400))
    return np.asarray(np.float32(conditions.waves_db) * gusts, np.float32)
