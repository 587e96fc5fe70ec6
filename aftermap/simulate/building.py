"""Damaged buildings with known truth: a town from above at half a metre, before and after a storm, each house with its grade."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap.raster import BLOCK_PX
from aftermap.simulate.files import DEM, Layer, Place, Progress, check_scene, truth, write_scene
from aftermap.simulate.relief import Sun
from aftermap.simulate.strokes import sample
from aftermap.simulate.terrain import Field, Ground, fractal, hashed, noise, smoothstep, uniform
from aftermap.simulate.town import CROWN_M, Town, town, trees

PLACE = Place("EPSG:32615", 365_000, 4_105_000)
"""Joplin, Missouri."""
DATES = {"before": "2024-04-20T17:10:00Z", "after": "2024-05-24T17:40:00Z"}
SUNS = {"before": Sun(152, 56), "after": Sun(166, 53)}
REACH_M = 14.0
"""Longest shadow, and how far a house scatters."""
GRADES = (0.22, 0.45, 0.72)
"""Severity from which a house has minor damage, major damage, is destroyed."""

# Numbers (red, green, blue) of 8-bit air photographs, set beside those of Joplin (NAIP 2010, WorldView 2011).
LAWN, DRY_LAWN, SOIL = (104, 112, 74), (148, 136, 102), (158, 138, 110)
ROAD, CONCRETE, CROWN, TARP = (142, 138, 130), (184, 178, 164), (58, 70, 46), (60, 92, 190)
ROOFS = np.array(
    [(128, 122, 116), (96, 90, 86), (134, 108, 88), (146, 94, 78), (206, 202, 196), (168, 150, 126), (112, 112, 118)], np.float32
)
RUBBLE = np.array([(196, 178, 148), (150, 128, 100), (110, 96, 84), (222, 214, 200), (84, 76, 70), (160, 110, 88)], np.float32)

Colour = npt.NDArray[np.float32]
"""(3, y, x) red, green, blue from 0 to 255."""


@dataclass(frozen=True)
class _Site:
    """What both dates share; `grade` (y, x) is that of the house on the pixel's lot, `severity` the storm's at the pixel."""

    ground: Ground
    town: Town
    grade: npt.NDArray[np.uint8]
    severity: Field
    speck: Field


def simulate(out: Path, *, size: int = 2048, seed: int = 0, gsd_m: float = 0.5, progress: Progress | None = None) -> None:
    """Writes before.tif, after.tif (red, green, blue, 8 bits), truth.tif (damaged, grade, building, class) and dem.tif (m).

    Grades: 0 none, 1 minor, 2 major, 3 destroyed; `damaged` is grade 2 or 3; `building` is any, before the event. `class` has the
    codes of xBD: 0 background, 1 no damage, 2 minor, 3 major, 4 destroyed.
    """
    check_scene(size, seed, gsd_m, finest_m=0.2, coarsest_m=2)
    layers = {name: Layer(("red", "green", "blue"), "uint8", "digital_number", 0, date) for name, date in DATES.items()}
    layers |= {"truth": truth("damaged", "grade", "building", "class"), "dem": DEM}
    make = partial(block, seed, gsd_m=gsd_m)
    made_by = f"aftermap building seed={seed}"
    write_scene(out, layers, make, grid=PLACE.grid(size, gsd_m), made_by=made_by, progress=progress)


def block(seed: int, row: int, col: int, *, gsd_m: float) -> Mapping[str, npt.NDArray[Any]]:
    """Layers (band, y, x) of the whole 512 px block at block position (row, col); no other block has a say in it."""
    rim = int(np.ceil((REACH_M + CROWN_M) / gsd_m))
    ground = Ground(seed, row * BLOCK_PX, col * BLOCK_PX, BLOCK_PX, BLOCK_PX, gsd_m)
    site = _site(ground.grown(rim))
    inner = (slice(rim, -rim), slice(rim, -rim))
    pictures = {date: _picture(site, date, inner, (row, col)) for date in DATES}
    grade, house = np.where(site.town.house, site.grade, 0)[inner], site.town.house[inner]
    height = 300 + 6 * noise(ground, "ground", 700) + 0.3 * noise(ground, "bumps", 40)
    answers = np.stack([grade >= 2, grade, house, house * (grade + 1)]).astype(np.uint8)
    return {**pictures, "truth": answers, "dem": height.astype(np.float32)[None]}


def _site(ground: Ground) -> _Site:
    """Severity is of the house's middle, so that a house has one grade; houses of one street fare unlike."""
    built = town(ground)
    coarse = _coarse(ground)
    storm = smoothstep(-0.9, 1.7, noise(coarse, "storm", 300) + 0.15 * noise(coarse, "gust", 110))
    at = sample(coarse, storm, built.centre.reshape(2, -1).T).reshape(built.key.shape)
    suffers = at + 0.42 * (uniform(built.key, "frail") - 0.5) * (at > 0.04)
    grade = np.digitize(suffers, GRADES).astype(np.uint8)
    pixels = np.stack(np.broadcast_arrays(ground.south_m, ground.east_m))
    severity = sample(coarse, storm, pixels.reshape(2, -1).T).reshape(built.key.shape).astype(np.float32)
    return _Site(ground, built, grade, severity, _speck(ground, 1))


def _coarse(ground: Ground, step_m: float = 16.0) -> Ground:
    """A lattice fixed to the plane, one house wider than the window on each side."""
    rim = 4
    row, col = (int(np.floor(first * ground.gsd_m / step_m)) - rim for first in (ground.row, ground.col))
    count = [int(np.ceil(n * ground.gsd_m / step_m)) + 2 * rim + 1 for n in (ground.height, ground.width)]
    return Ground(ground.seed, row, col, count[0], count[1], step_m)


def _speck(ground: Ground, side: int) -> Field:
    """Uniform draws (y, x), one for each square of `side` pixels."""
    rows, cols = (np.arange(first, first + n) // side for first, n in ((ground.row, ground.height), (ground.col, ground.width)))
    return uniform(hashed(ground.seed, "speck", rows[:, None], cols[None, :]), f"speck/{side}")


def _picture(site: _Site, date: str, inner: tuple[slice, slice], at: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """One date's picture (3, y, x) of the block `at` (row, column); 0 is not observed, and never written."""
    hit = date == "after"
    # the storm fells four trees in five where it was worst
    wood = 0.20 + 0.5 * smoothstep(0.6, 1.6, noise(site.ground, "grove", 90))
    crown = trees(site.ground, wood * (1 - 0.8 * site.severity * hit) * ~(site.town.road | site.town.house))
    standing = np.where(site.grade >= 3, np.float32(0.25), np.float32(1)) if hit else np.float32(1)
    height = np.maximum(site.town.height * standing, crown)
    colour = _ground_colour(site, hit)
    roofs = _roofs(site, SUNS[date])
    np.copyto(colour, roofs, where=site.town.house)
    if hit:
        _wreck(site, colour)
    crowns = np.array(CROWN, np.float32)[:, None, None] * (0.75 + 0.05 * crown + 0.16 * noise(site.ground, "leaf", 1.3))
    np.copyto(colour, crowns.astype(np.float32), where=crown > np.maximum(site.town.height * standing, 0.8))
    colour *= 1 - 0.58 * _shade(height, SUNS[date], site.ground.gsd_m)
    return _developed(site.ground, colour[:, *inner], date, at)


def _ground_colour(site: _Site, hit: bool) -> Colour:
    """Lawns green to dry, bare patches, roads, drives."""
    ground = site.ground
    dry = smoothstep(
        -1.2, 1.6, noise(ground, "dry", 60) + 0.4 * noise(ground, "tuft", 6) + 1.2 * (uniform(site.town.key, "mown") - 0.5)
    )
    colour = _mix(
        _mix(_flat(LAWN, dry.shape), _flat(DRY_LAWN, dry.shape), dry),
        _flat(SOIL, dry.shape),
        smoothstep(1.5, 2.2, noise(ground, "bald", 22)),
    )
    tint = 1 + 0.07 * fractal(ground, "grain", 4, 3) + 0.05 * (site.speck - 0.5)
    tone = 0.9 + 0.2 * uniform(site.town.key, "drive")
    np.copyto(colour, _flat(CONCRETE, dry.shape) * tone, where=site.town.drive)
    np.copyto(colour, _flat(ROAD, dry.shape) * (1 + 0.05 * noise(ground, "asphalt", 25)), where=site.town.road)
    if hit:  # leaves, insulation and splinters lie everywhere that it blew
        litter = site.severity * (_speck(ground, 2) < 0.10 * site.severity)
        colour = _mix(colour, _debris(site, 2), np.where(site.town.road, 0.4 * litter, litter))
        colour *= 1 - 0.12 * site.severity
    return np.asarray(colour * tint, np.float32)


def _roofs(site: _Site, sun: Sun) -> Colour:
    """Roofs (3, y, x) lit by their slope, with shingles and vents."""
    colour = np.moveaxis(ROOFS[(uniform(site.town.key, "roof") * len(ROOFS)).astype(int)], -1, 0)
    south, east = sun.toward
    facing = 1 - (site.town.tilt[0] * south + site.town.tilt[1] * east) / sun.tangent
    vents = np.where(_speck(site.ground, 3) > 0.985, np.float32(0.7), np.float32(1))
    worn = 1 + 0.05 * noise(site.ground, "worn", 3) + 0.06 * (site.speck - 0.5) + 0.1 * (uniform(site.town.key, "tone") - 0.5)
    return np.asarray(colour * np.clip(facing, 0.4, 1.4) * worn * vents, np.float32)


def _wreck(site: _Site, colour: Colour) -> None:
    """Paints what each grade does: shingles off and tarps; half the roof open on dark rooms; a heap, strewn over the lot."""
    holes = noise(site.ground, "holes", 3.2) + 0.6 * noise(site.ground, "tears", 1.2)
    house, grade = site.town.house, site.grade
    debris = _debris(site, 1)
    tarped = house & (grade == 1) & (uniform(site.town.key, "tarp") < 0.3) & (holes > 0.1)
    np.copyto(colour, _flat(TARP, holes.shape), where=tarped)
    np.copyto(colour, debris * np.float32(0.8), where=house & (grade == 1) & ~tarped & (holes > 1.25))
    open_ = house & (grade == 2) & (holes > 0.1)
    np.copyto(colour, _mix(colour * np.float32(0.4), debris, 0.5 * (site.speck > 0.6)), where=open_)
    heap = house & (grade == 3) & (holes > -1.5)
    np.copyto(colour, debris * (0.85 + 0.15 * np.clip(holes, -2, 2)).astype(np.float32), where=heap)
    slab = house & (grade == 3) & ~heap
    np.copyto(colour, _flat(CONCRETE, holes.shape), where=slab)
    strewn = (
        np.array([0, 0.03, 0.22, 0.55], np.float32)[grade]
        * np.exp(-np.maximum(site.town.beyond, 0) / 5)
        * (site.town.beyond < REACH_M)
    )
    np.copyto(colour, debris, where=~house & (_speck(site.ground, 2) < strewn * smoothstep(-1, 1, holes) * 1.6))


def _debris(site: _Site, side: int) -> Colour:
    """Rubble (3, y, x): boards, plaster, insulation and shadow between them, each `side` pixels wide."""
    drawn = (_speck(site.ground, side + 1) * len(RUBBLE)).astype(int)
    return np.asarray(np.moveaxis(RUBBLE[drawn], -1, 0) * (0.7 + 0.5 * site.speck), np.float32)


def _shade(height: Field, sun: Sun, gsd_m: float) -> Field:
    """1 (y, x) in cast shadow, 0 in the sun; `height` in metres. Wrong in the rim, which is dropped."""
    (south, east), depth = sun.toward, np.full(height.shape, -np.inf, np.float32)
    for k in range(1, int(REACH_M / gsd_m) + 1):
        shifted = np.roll(height, (-round(k * south), -round(k * east)), (0, 1))
        np.maximum(depth, shifted - np.float32(k * gsd_m * sun.tangent), out=depth)
    return smoothstep(0, 0.5, depth - height)


def _developed(ground: Ground, colour: Colour, date: str, at: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Numbers of one flight: its tint, its light and its grain."""
    tint = {"before": (1.02, 1.0, 0.97), "after": (0.90, 0.92, 0.98)}[date]
    rng = np.random.default_rng([ground.seed, zlib.crc32(date.encode()), *at])
    seen = colour * np.array(tint, np.float32)[:, None, None] + 3 * rng.standard_normal(colour.shape, dtype=np.float32)
    return np.asarray(np.clip(np.rint(seen), 1, 255), np.uint8)


def _flat(colour: tuple[int, int, int], shape: tuple[int, ...]) -> Colour:
    return np.broadcast_to(np.array(colour, np.float32)[:, None, None], (3, *shape))


def _mix(one: Colour, other: Colour, share: Field) -> Colour:
    return np.asarray(one + (other - one) * share, np.float32)
