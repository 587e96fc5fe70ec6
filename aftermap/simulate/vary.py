"""Many small scenes, each unlike the last: what a network learns from that is to be used where no simulation was fitted.

Every number that a real scene might have otherwise is drawn anew from its seed, wider than the world is (Tobin et al. 2017,
domain randomization). Each scene is one block of 512 px in a folder of its own, read as data set `simulated`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap.errors import UnknownNameError
from aftermap.raster import BLOCK_PX
from aftermap.simulate import building, flood, fracture, hillside, landcover, landslide, optical, recolour
from aftermap.simulate.conditions import Conditions, Hills, Ice
from aftermap.simulate.files import Layer, Place, Progress, truth, write_scene
from aftermap.simulate.relief import Sun
from aftermap.simulate.sar import POLARISATIONS
from aftermap.simulate.terrain import Cover

Layers = Mapping[str, npt.NDArray[Any]]
Rng = np.random.Generator
FARTHEST = 48
"""Blocks from the west that a scene may lie: across the radar's swath, and anywhere in a town."""


@dataclass(frozen=True)
class Varied:
    """How the scenes of a hazard are made: their files, the truth last; where they lie; one scene (pixel in metres, layers)."""

    layers: Mapping[str, Layer]
    place: Place
    make: Callable[[int, Rng], tuple[float, Layers]]


def simulate(hazard: str, out: Path, seeds: Iterable[int], *, progress: Progress | None = None) -> int:
    """Writes `out`/HAZARD-SEED/ for each seed that is not there yet; how many are now. Raises UnknownNameError.

    Of "landcover" a scene of each region, `out`/REGION-SEED/.
    """
    if hazard == "landcover":
        return landcover.many(out, seeds, progress=progress)
    if hazard not in VARIED:
        raise UnknownNameError("hazard", hazard, VARIED)
    varied, wanted = VARIED[hazard], list(seeds)
    for done, seed in enumerate(wanted, 1):
        folder = out / f"{hazard}-{seed:06d}"
        if not (folder / "truth.tif").exists():  # it is renamed last
            rng = np.random.default_rng([seed, zlib.crc32(hazard.encode())])
            gsd_m, made = varied.make(seed, rng)
            grid = varied.place.grid(BLOCK_PX, round(gsd_m, 3))
            made_by = f"aftermap {hazard} varied seed={seed}"
            write_scene(folder, varied.layers, lambda *_, made=made: made, grid=grid, made_by=made_by)
        if progress is not None:
            progress(done, len(wanted))
    return len(wanted)


def _flood(seed: int, rng: Rng) -> tuple[float, Layers]:
    """Radar of every incidence, weather and land; from no water to nearly nothing else."""
    gsd_m = float(rng.uniform(8, 14))
    stage_m = float(np.exp(rng.uniform(np.log(0.2), np.log(14))))
    made = flood.block(
        seed, int(rng.integers(8)), int(rng.integers(FARTHEST)), gsd_m=gsd_m, stage_m=stage_m,
        looks=float(np.exp(rng.uniform(np.log(1.5), np.log(20)))),
        terrain=str(rng.choice(flood.REGIONS, p=(0.4, 0.3, 0.15, 0.15))), conditions=_weather(rng),
    )  # fmt: skip
    gain = rng.normal(0, 1.5) + rng.normal(0, 0.7, 2)
    before, after = (np.asarray(p + gain[:, None, None], np.float32) for p in (made.before, made.after))
    assert made.cover is not None
    hidden = (made.truth[0] > 0) & np.isin(made.cover, (Cover.FOREST, Cover.URBAN))
    return gsd_m, {"before": before, "after": after, "truth": np.stack([*made.truth, hidden]).astype(np.uint8)}


def _weather(rng: Rng) -> Conditions:
    cover_db = rng.normal(0, 2.0, (len(Cover), 1)) + rng.normal(0, 0.8, (len(Cover), 2)) + rng.normal(0, 1.0)
    cover_db[Cover.WATER] = rng.uniform((-4, -3), (5, 6))
    if rng.random() < 0.25:  # sand, dry lakes, tarmac: dark ground that is no water
        cover_db[Cover.BARE] = rng.uniform(-9, -3) + rng.normal(0, 1, 2)
    swapped = [int(rng.choice((c, *Cover), p=(0.65, *(0.35 / len(Cover),) * len(Cover)))) if c else 0 for c in Cover]
    land = tuple(c if c else int(Cover.BARE) for c in swapped[1:])
    return Conditions(
        cover_db=tuple((float(a), float(b)) for a, b in cover_db), bounce=float(rng.uniform(0, 1.8)),
        waves_db=float(rng.uniform(0, 11)), calm=float(rng.uniform(-0.5, 2.5)), smear_px=float(rng.uniform(0, 1.1)),
        land=(int(Cover.WATER), *land), lakes=_lakes(rng), lake_m=float(np.exp(rng.uniform(np.log(300), np.log(5000)))),
    )  # fmt: skip


def _lakes(rng: Rng) -> float:
    """Level above which lakes lie: none in half the scenes, elsewhere few to nearly everywhere."""
    return float("inf") if rng.random() < 0.5 else float(rng.uniform(-1.4, 2.2))


def _fracture(seed: int, rng: Rng) -> tuple[float, Layers]:
    """Ice from unbroken to shattered, in any stretch of its grey."""
    gsd_m = float(rng.uniform(80, 190))
    opened = 0.0 if rng.random() < 0.12 else float(rng.uniform(0.15, 1))
    ice = Ice(opened, float(rng.uniform(0.6, 1.5)), float(rng.uniform(0.3, 1.4)))
    made = fracture.block(seed, int(rng.integers(8)), int(rng.integers(FARTHEST)), gsd_m=gsd_m, ice=ice)
    stretch = recolour.stretched(rng)
    return gsd_m, {**{date: stretch(made[date]) for date in ("before", "after")}, "truth": made["truth"]}


def _building(seed: int, rng: Rng) -> tuple[float, Layers]:
    """A town in any colours and light, from drone to satellite."""
    gsd_m = float(np.exp(rng.uniform(np.log(0.1), np.log(0.8))))
    made = building.block(seed, int(rng.integers(8)), int(rng.integers(FARTHEST)), gsd_m=gsd_m)
    paint = recolour.painted(rng, gsd_m)
    grade, house = made["truth"][1], made["truth"][2] > 0
    pictures = {"before": paint(made["before"], house), "after": paint(made["after"], house & (grade < 2))}
    return gsd_m, {**pictures, "truth": made["truth"]}


def _landslide(seed: int, rng: Rng) -> tuple[float, Layers]:
    """Slopes in any colours and light, from air photograph to Sentinel-2; an eighth of them whole."""
    gsd_m, terrain = float(np.exp(rng.uniform(np.log(0.5), np.log(12)))), str(rng.choice(tuple(landslide.PLACES)))
    suns = [Sun(float(rng.uniform(0, 360)), float(rng.uniform(28, 75))) for _ in landslide.DATES]
    made = hillside.block(
        seed, int(rng.integers(8)), int(rng.integers(FARTHEST)), gsd_m=gsd_m, terrain=terrain, hills=_hills(rng, gsd_m),
        suns=dict(zip(landslide.DATES, suns, strict=True)),
    )  # fmt: skip
    develop = recolour.developed(rng)
    codes = np.stack([made.slid, made.water, made.artificial]).astype(np.uint8)
    return gsd_m, {"before": develop(made.before), "after": develop(made.after), "truth": codes}


_BIOMES = (
    # mixed, forest, meadow, dry land, bare mountains: what stands for water, crop, grass, bare, forest, town, rock, snow
    (0.3, (0, 1, 2, 3, 4, 5, 6, 7)), (0.3, (0, 1, 4, 2, 4, 5, 4, 6)), (0.15, (0, 1, 4, 2, 2, 5, 6, 6)),
    (0.15, (0, 3, 2, 3, 2, 5, 3, 6)), (0.1, (0, 2, 6, 3, 3, 5, 6, 7)),
)  # fmt: skip


def _hills(rng: Rng, gsd_m: float) -> Hills:
    half_px, share = np.exp(rng.uniform(np.log((2.0, 0.004)), np.log((45, 0.2))))
    slides = 0 if rng.random() < 1 / 8 else int(np.clip(round(share * BLOCK_PX**2 / (9 * half_px**2)), 1, 150))
    stone = optical.SPECTRA[Cover.ROCK][list(optical.RGB)] * np.exp(rng.normal(0.1, 0.25)) * np.exp(rng.normal(0, 0.04, 3))
    paved = np.array((0.25, 0.24, 0.22)) * np.exp(rng.normal(0, 0.3)) * np.exp(rng.normal(0, 0.03, 3))
    roads = [
        (max(rng.uniform(1.5, 5), 0.5 * gsd_m), np.exp(rng.uniform(np.log(60), np.log(300))) * gsd_m, rng.uniform(0.7, 1.2))
        for _ in range(rng.integers(0, 3))
    ]
    palette = np.exp(rng.normal(0, 0.05, (len(Cover), 3)) + rng.normal(0.1, 0.2, (len(Cover), 1)) + rng.normal(0, 0.07, 3))
    earth = optical.EARTH[list(optical.RGB)] * palette[Cover.BARE] * np.exp(rng.normal(0.2, 0.25) + rng.normal(0, 0.05, 3))
    return Hills(
        slides=slides, half_px=float(half_px), regrown=float(max(0, rng.uniform(-0.4, 0.75))), earth=_rgb(earth),
        land=_BIOMES[rng.choice(len(_BIOMES), p=[p for p, _ in _BIOMES])][1], palette=tuple(_rgb(c) for c in palette),
        ripe=float(rng.uniform(0, 0.9)), felled=float(rng.uniform(0, 0.5) ** 2),
        terraces=float(rng.uniform(-0.4, 3)), step_m=float(rng.uniform(2, 7) * max(0.4, gsd_m / 2)),
        gravel=float(rng.uniform(-1, 4)), braid_px=float(max(0, rng.uniform(-14, 22))), gravel_colour=_rgb(stone),
        roads=tuple((float(a), float(b), float(c)) for a, b, c in roads), road_colour=_rgb(paved),
        hamlets=float(rng.uniform(0.8, 3.5)), water=_rgb(np.exp(rng.normal((0.5, 0.4, 0.2), 0.15) + rng.normal(0, 0.3))),
    )  # fmt: skip


def _rgb(colour: npt.NDArray[np.floating]) -> tuple[float, float, float]:
    red, green, blue = map(float, colour)
    return red, green, blue


def _both(layer: Layer, codes: Layer) -> dict[str, Layer]:
    return {"before": layer, "after": layer, "truth": codes}


VARIED = {
    "flood": Varied(
        _both(Layer(POLARISATIONS, unit="dB"), truth("flood", "permanent_water", "hidden")), flood.PLACE, _flood
    ),
    "fracture": Varied(
        _both(Layer(("grey",), "uint16", "digital_number", 0), truth("fracture", "new_fracture")), fracture.PLACE, _fracture
    ),
    "building": Varied(
        _both(Layer(("red", "green", "blue"), "uint8", "digital_number", 0), truth("damaged", "grade", "building", "class")),
        building.PLACE, _building,
    ),
    "landslide": Varied(
        _both(Layer(("red", "green", "blue"), "uint8", "digital_number", 0), truth("landslide", "permanent_water", "artificial")),
        landslide.PLACES["andes"], _landslide,
    ),
}  # fmt: skip
"""By hazard."""
