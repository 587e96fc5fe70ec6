"""Drainage first, fractal terrain built round it, and land cover: closed forms of (seed, position), in metres.

The plane has no end. Whatever window of it is asked for, a pixel holds the same value, so scenes of any size are cut from one
world per seed without ever holding more than a window.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]
"""(y, x) values of a window."""
Hash = npt.NDArray[np.uint32]

HALO_PX = 2
"""Rim computed and dropped: central differences of the courses, then of the elevation, need one pixel each."""
MAIN_SPACING_M, TRIBUTARY_SPACING_M = 8000.0, 3000.0
_UNIT_STD = np.float32(315 / 151 * np.sqrt(12))  # the weights' mean square sum, over both axes, and a uniform's variance


@dataclass(frozen=True)
class Ground:
    """A window of the plane: `height` x `width` pixels of `gsd_m` metres from global pixel (row, col), rows southward."""

    seed: int
    row: int
    col: int
    height: int
    width: int
    gsd_m: float

    def grown(self, margin: int) -> Ground:
        """This window with `margin` pixels more on each side."""
        rim = 2 * margin
        return Ground(self.seed, self.row - margin, self.col - margin, self.height + rim, self.width + rim, self.gsd_m)

    @property
    def south_m(self) -> npt.NDArray[np.float64]:
        """Pixel centres southward of the origin, (y, 1) in metres."""
        return _centres(self.row, self.height, self.gsd_m)[:, None]

    @property
    def east_m(self) -> npt.NDArray[np.float64]:
        """Pixel centres eastward of the origin, (1, x) in metres."""
        return _centres(self.col, self.width, self.gsd_m)[None, :]


def _centres(first: int, count: int, gsd_m: float) -> npt.NDArray[np.float64]:
    return np.asarray((np.arange(first, first + count) + 0.5) * gsd_m, np.float64)


class Cover(IntEnum):
    WATER = 0  # permanent, as opposed to flood
    CROP = 1
    GRASS = 2
    BARE = 3
    FOREST = 4
    URBAN = 5
    ROCK = 6
    SNOW = 7


@dataclass(frozen=True)
class Terrain:
    """Fields (y, x): elevation, height above the nearest drainage and distance to the main valley's axis in metres.

    `rise_east` and `rise_south` are the elevation's derivatives (m/m); `water` is True on rivers and lakes at their normal level.
    """

    elevation: Field
    rise_east: Field
    rise_south: Field
    hand: Field
    valley: Field
    water: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Lowland:
    """A lowland region: half width (m) of the flat plain, how much it varies, its least, and height (m) of its hills."""

    plain_m: float
    plain_varies_m: float
    plain_least_m: float
    hills_m: float


LOWLANDS = {"plain": Lowland(295, 110, 160, 45), "hills": Lowland(190, 60, 100, 150)}


@dataclass(frozen=True)
class Land:
    """Fields (y, x): cover codes (uint8) and one hash per parcel, from which `uniform` draws the parcel's properties."""

    cover: npt.NDArray[np.uint8]
    parcel: Hash


def hashed(seed: int, layer: str, *keys: npt.NDArray[np.integer]) -> Hash:
    """32 well-mixed bits for each broadcast combination of integer keys; another layer or seed is another draw."""
    state = np.array([(seed * 0x9E3779B1 + zlib.crc32(layer.encode())) & 0xFFFFFFFF], np.uint32)
    for key in keys:
        state = _mixed(_mixed(state) + key.astype(np.uint32))
    return _mixed(state)


def _mixed(x: Hash) -> Hash:
    """The "lowbias32" finaliser of C. Wellons' hash prospector."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def uniform(bits: Hash, layer: str) -> Field:
    """Uniform draws in [0, 1), one per distinct hash; the same hash under another layer is independent."""
    drawn = _mixed(bits ^ np.uint32(zlib.crc32(layer.encode())))
    return (drawn >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)


def noise(ground: Ground, layer: str, scale_m: float) -> Field:
    """Smooth noise (y, x), mean 0, std 1, features of about `scale_m`: a cubic B-spline over hashed lattice values.

    The lattice is aligned with the pixels, so the spline is two small matrix products instead of sixteen gathers per pixel.
    """
    rows, down = _spline(ground.south_m[:, 0] / scale_m)
    cols, across = _spline(ground.east_m[0] / scale_m)
    lattice = uniform(hashed(ground.seed, layer, rows[:, None], cols[None, :]), layer) - np.float32(0.5)
    return np.asarray((down @ lattice @ across.T) * _UNIT_STD, np.float32)


def _spline(at: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int64], Field]:
    """Lattice indices (k,) and weights (n, k) of the cubic B-spline at ascending positions (n,) in lattice units."""
    cell = np.floor(at).astype(np.int64)
    t = at - cell
    quads = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6
    index = np.arange(cell[0] - 1, cell[-1] + 3)
    weights = np.zeros((len(at), len(index)), np.float32)
    weights[np.arange(len(at))[:, None], (cell - cell[0])[:, None] + np.arange(4)] = quads
    return index, weights


def fractal(ground: Ground, layer: str, scale_m: float, octaves: int, gain: float = 0.5) -> Field:
    """Sum (y, x) of `octaves` noises, each of half the scale and `gain` times the height of the one before; std near 1."""
    total = sum((noise(ground, f"{layer}/{k}", scale_m / 2**k) * np.float32(gain**k) for k in range(octaves)), np.float32(0))
    return np.asarray(total / np.float32(np.sqrt(sum(gain ** (2 * k) for k in range(octaves)))))


def rises(ground: Ground, field: Field) -> tuple[Field, Field]:
    """Derivatives (y, x) of a field southward and eastward, per metre; one-sided on the window's rim."""
    down, right = np.gradient(field, np.float32(ground.gsd_m))
    return np.asarray(down), np.asarray(right)


def smoothstep(low: float, high: float, x: npt.NDArray[np.floating]) -> Field:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((x - np.float32(low)) / np.float32(high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def terrain(ground: Ground, region: Lowland = LOWLANDS["plain"]) -> Terrain:
    """Lowland terrain of a window; the same to the last bit for the same window, to rounding where windows overlap."""
    wide = ground.grown(HALO_PX)
    heading = 0.9 * (float(uniform(hashed(ground.seed, "heading"), "heading")[0]) - 0.5)
    along = (np.cos(heading) * wide.east_m - np.sin(heading) * wide.south_m).astype(np.float32)
    across = (np.sin(heading) * wide.east_m + np.cos(heading) * wide.south_m).astype(np.float32)
    valley, channel, scroll = _main(wide, across)
    hand, bed, stream = _valleys(wide, region, along, valley, channel, scroll)
    lake = noise(wide, "lake", 650) + 0.15 * noise(wide, "shore", 120)
    basin = smoothstep(2.2, 3.0, lake) * smoothstep(3.0, 6.0, hand)
    # the plane falls 0.5 m per km along the main rivers, tributaries 4 m per km
    elevation = 260 - 0.0005 * along + bed + hand - 4 * basin
    down, rise = rises(ground, np.asarray(elevation))
    water = stream | (basin > 0.1)
    inner = (slice(HALO_PX, -HALO_PX), slice(HALO_PX, -HALO_PX))
    elevation, rise, down, hand, valley = (field[inner].astype(np.float32) for field in (elevation, rise, down, hand, valley))
    return Terrain(elevation, rise, down, hand, valley, water[inner])


def _main(ground: Ground, across: Field) -> tuple[Field, Field, Field]:
    """Metres to the main valley's axis, to the bank of its meandering river (negative in it), and across its meander belt."""
    axis = across + 900 * noise(ground, "valley", 5000)
    first = 2400 + 800 * (float(uniform(hashed(ground.seed, "first"), "first")[0]) - 0.5)
    course = axis + 360 * noise(ground, "meander", 780) + 60 * noise(ground, "bend", 330) - first
    half_width = 50 + 14 * noise(ground, "width", 2500)
    return np.abs(_nearest(axis - first, MAIN_SPACING_M)), _distance(course, MAIN_SPACING_M, ground) - half_width, course


def _nearest(position: Field, spacing: float) -> Field:
    """Signed offset (y, x) from the nearest multiple of `spacing`."""
    return np.asarray(position - np.float32(spacing) * np.round(position / np.float32(spacing)), np.float32)


def _distance(course: Field, spacing: float, ground: Ground) -> Field:
    """Metres to the nearest level set course = k * spacing, to first order: offset over gradient."""
    down, right = np.gradient(course, np.float32(ground.gsd_m))
    # near a saddle of the course the gradient vanishes; the floor bounds the pool that a bend or confluence may form there
    return np.asarray(np.abs(_nearest(course, spacing)) / np.maximum(np.hypot(down, right), np.float32(0.55)), np.float32)


def _valleys(
    ground: Ground, region: Lowland, along: Field, valley: Field, channel: Field, scroll: Field
) -> tuple[Field, Field, npt.NDArray[np.bool_]]:
    """Height above drainage and height of the nearest drainage's bed above the main river (m), and where the rivers are."""
    # those of the left and right bank are staggered; the jump lies in the river's middle and where none has grown
    bank = hashed(ground.seed, "bank", np.floor(scroll / np.float32(MAIN_SPACING_M / 2)).astype(np.int32))
    axis = along + np.float32(TRIBUTARY_SPACING_M) * uniform(bank, "shift") + 500 * noise(ground, "tributary", 2200)
    course = axis + 150 * noise(ground, "brook", 480) + 32 * noise(ground, "rill", 150)
    # tributaries rise below the divides, half way between two main rivers
    grown = 1 - smoothstep(0.6, 0.9, valley / np.float32(MAIN_SPACING_M / 2))
    brook = _distance(course, TRIBUTARY_SPACING_M, ground) - (13 + 3 * noise(ground, "brook-width", 600)) * grown
    side = np.abs(_nearest(axis, TRIBUTARY_SPACING_M)) / 420
    carved = 1 - grown * np.exp(-side * side)
    banks = smoothstep(0, 110, channel) * (1 - grown * (1 - smoothstep(0, 60, brook)))
    # a loop that leaves the plain has made its own
    reach = np.minimum(valley, 220 + 1.5 * np.maximum(channel, 0) + np.maximum(valley - 900, 0))
    relief = _relief(ground, region, reach, carved) + _swales(ground, scroll, valley)
    hand = np.maximum(relief, np.float32(0.3)) * banks
    bed = 0.004 * valley * valley / (valley + 600)
    return hand, bed, (channel < 0) | ((brook < 0) & (grown > 0.05))


def _relief(ground: Ground, region: Lowland, valley: Field, carved: Field) -> Field:
    """Metres above the drainage: a plain that is nearly flat for some hundred metres, then fractal slopes."""
    plain_m = np.clip(region.plain_m + region.plain_varies_m * noise(ground, "plain", 3000), region.plain_least_m, 800)
    edge = valley / plain_m
    hills = smoothstep(0.7, 7, edge) * np.clip(1 + 0.5 * fractal(ground, "hills", 1800, 6), 0.12, 3)
    return np.asarray((1.1 + 1.1 * edge * edge / (1 + 0.2 * edge) + region.hills_m * hills) * (0.12 + 0.88 * carved))


def _swales(ground: Ground, scroll: Field, valley: Field) -> Field:
    """Metres of micro-relief: scroll bars that follow the river's old courses on the plain, roughness elsewhere."""
    bars = np.cos(scroll / 32 + 2.5 * noise(ground, "scroll", 260)) * np.exp(-valley / 500) * 0.75
    return np.asarray(bars + 0.6 * fractal(ground, "swale", 320, 4, gain=0.7))


def land(ground: Ground, ter: Terrain) -> Land:
    """Cover and parcels of a window of plain or hills whose terrain is given: towns, woods and fields."""
    parcel = parcels(ground)
    return Land(_cover(ground, ter, uniform(parcel, "use")), parcel)


def parcels(ground: Ground) -> Hash:
    """One hash (y, x) per lot: bent strips of uneven lots, turned from commune to commune."""
    east = ground.east_m + 300 * noise(ground, "lots-east", 2600)
    south = ground.south_m + 300 * noise(ground, "lots-south", 2600)
    turn = 3 * uniform(hashed(ground.seed, "turn"), "turn") + np.where(noise(ground, "commune", 2200) > 0, 0, 0.65).astype(
        np.float32
    )
    east, south = np.cos(turn) * east - np.sin(turn) * south, np.sin(turn) * east + np.cos(turn) * south
    strip = np.floor(south / 190).astype(np.int32)
    of_strip = hashed(ground.seed, "strip", strip)
    lot_m = 120 + 380 * uniform(of_strip, "lot")
    lot = np.floor((east + 500 * uniform(of_strip, "shift")) / lot_m).astype(np.int32)
    return hashed(ground.seed, "parcel", strip, lot)


def _cover(ground: Ground, ter: Terrain, use: Field) -> npt.NDArray[np.uint8]:
    """Cover codes (y, x); woods keep to hills and river banks and follow lots, towns keep mostly off the plain."""
    cover = np.full(use.shape, Cover.CROP, np.uint8)
    cover[use < 0.42] = Cover.GRASS
    cover[use < 0.12] = Cover.BARE
    wood = (
        fractal(ground, "wood", 1300, 4, gain=0.6)
        + 0.9 * (use - 0.5)
        + 0.02 * np.minimum(ter.hand, 40)
        - 0.7 * np.exp(-ter.valley / 900)
    )
    cover[(wood > 1.15) | (noise(ground, "riparian", 140) - ter.valley / 700 > 1.2)] = Cover.FOREST
    town = noise(ground, "town", 700) + 0.35 * noise(ground, "block", 90) + 0.4 * np.minimum(ter.hand, 3)
    cover[town > 3.1] = Cover.URBAN
    cover[ter.water] = Cover.WATER
    return cover
