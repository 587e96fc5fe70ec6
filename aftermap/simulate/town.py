"""A town as closed forms of (seed, position): districts with streets of their own direction, lots, houses and trees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aftermap.simulate.terrain import Field, Ground, Hash, hashed, noise, uniform

Mask = npt.NDArray[np.bool_]

DISTRICT_M = 430.0
BLOCK_M, AVENUE_M = 208.0, 5.5
"""Length of a street between crossings, and half the width of the main roads between districts."""
CROWN_M = 8.5
HOUSE_M = 60.0
"""Farther than this no house's middle lies from any of its pixels."""


@dataclass(frozen=True)
class Town:
    """Fields (y, x). `house` is True on roofs, `key` the lot's hash, `height` that of the roof in metres, 0 beside it.

    `beyond` is metres to the house on the lot, negative inside; `centre` (2, y, x) its place (south, east) in metres, `tilt`
    (2, y, x) the roof's slope toward south and east (m/m).
    """

    house: Mask
    key: Hash
    height: Field
    beyond: Field
    centre: npt.NDArray[np.float64]
    tilt: Field
    road: Mask
    drive: Mask


@dataclass(frozen=True)
class _Frame:
    """Fields (y, x): metres along and across the streets of a pixel's district, its hash, its turn, and metres to its border."""

    along: Field
    across: Field
    district: Hash
    turn: Field
    border: Field
    middle: npt.NDArray[np.float64]


def _centres(ground: Ground) -> tuple[npt.NDArray[np.float64], Hash]:
    """Districts' middles (n, 2) (south, east) in metres and their hashes, all that may rule in the window."""
    south, east = (
        np.arange(int(np.floor(at[0] / DISTRICT_M)) - 2, int(np.floor(at[-1] / DISTRICT_M)) + 3)
        for at in (ground.south_m[:, 0], ground.east_m[0])
    )
    bits = hashed(ground.seed, "district", south[:, None], east[None, :])
    place = [
        (cell + 0.15 + 0.7 * uniform(bits, axis).astype(float)) * DISTRICT_M
        for axis, cell in (("s", south[:, None]), ("e", east[None, :]))
    ]
    return _ruling(ground, np.stack([p.ravel() for p in place], axis=1), bits.ravel())


def _ruling(ground: Ground, middles: npt.NDArray[np.float64], bits: Hash) -> tuple[npt.NDArray[np.float64], Hash]:
    """Those middles that are nearest or second nearest to any point within `HOUSE_M` of the window."""
    low, high = (np.array([ground.south_m[k, 0], ground.east_m[0, k]]) for k in (0, -1))
    low, high = low - HOUSE_M, high + HOUSE_M
    least = np.hypot(*np.maximum(np.maximum(low - middles, middles - high), 0).T)
    most = np.hypot(*np.maximum(np.abs(middles - low), np.abs(middles - high)).T)
    rules = least <= np.partition(most, 1)[1]
    return middles[rules], bits[rules]


def _nearest(
    middles: npt.NDArray[np.float64], south: npt.NDArray[np.float64], east: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.intp], Field]:
    """Which middle is nearest, and metres to the border with the second nearest."""
    best, second = (np.full(np.broadcast_shapes(south.shape, east.shape), np.inf) for _ in range(2))
    which, rival = (np.zeros(best.shape, np.intp) for _ in range(2))
    for k, (s, e) in enumerate(middles):
        away = (south - s) ** 2 + (east - e) ** 2
        first, next_ = away < best, (away >= best) & (away < second)
        rival = np.where(first, which, np.where(next_, k, rival))
        second = np.where(first, best, np.where(next_, away, second))
        which, best = np.where(first, k, which), np.where(first, away, best)
    apart = np.hypot(*np.moveaxis(middles[which] - middles[rival], -1, 0))
    return which, ((second - best) / np.maximum(2 * apart, 1)).astype(np.float32)


def _frame(ground: Ground) -> tuple[_Frame, npt.NDArray[np.float64]]:
    middles, bits = _centres(ground)
    which, border = _nearest(middles, ground.south_m, ground.east_m)
    turn = (3.1416 * uniform(bits, "turn"))[which]
    middle = np.moveaxis(middles[which], -1, 0)
    south, east = (ground.south_m - middle[0]).astype(np.float32), (ground.east_m - middle[1]).astype(np.float32)
    along, across = np.cos(turn) * east + np.sin(turn) * south, np.cos(turn) * south - np.sin(turn) * east
    return _Frame(along, across, bits[which], turn, border, middle), middles


def town(ground: Ground) -> Town:
    """The town in a window; houses stand square to their streets, and none reaches over a district's border."""
    frame, middles = _frame(ground)
    shops = uniform(frame.district, "shops") < 0.15
    pitch = np.where(shops, np.float32(150), np.float32(72))
    street = np.round(frame.across / pitch)
    depth = np.abs(frame.across - street * pitch)
    bank = np.where(frame.across > street * pitch, np.float32(1), np.float32(-1))
    crossing = np.floor(frame.along / BLOCK_M)
    run = frame.along - crossing * BLOCK_M - 5
    row = hashed(0, "row", frame.district, (2 * street + (bank > 0)).astype(np.int32), crossing.astype(np.int32))
    lots = np.where(shops, np.float32(3), np.floor(7 + 4 * uniform(row, "lots"))).astype(np.float32)
    lot_m = np.asarray(np.float32(BLOCK_M - 10) / lots, np.float32)
    number = np.clip(np.floor(run / lot_m), 0, lots - 1)
    key = hashed(0, "lot", row, number.astype(np.int32))
    # the lot's own axes: metres along the street from the lot's middle, and away from the street's middle
    x, y = run - (number + 0.5) * lot_m, depth
    half_x, half_y, set_back = _sizes(key, shops, lot_m)
    aside = (lot_m / 2 - half_x - 1.5) * (uniform(key, "aside") - 0.5)
    x, y = x - aside, y - set_back - half_y
    centre = _place(frame, x, y, bank)
    _, room = _nearest(middles, centre[0], centre[1])
    built = (uniform(key, "built") < 0.88) & (room > AVENUE_M + 2 + np.hypot(half_x, half_y) * 1.3)
    beyond = np.where(built, _beyond(key, shops, x, y, half_x, half_y), np.float32(1e3)).astype(np.float32)
    road = (frame.border < AVENUE_M) | (depth < 4.2) | (run < -0.8) | (run > BLOCK_M - 9.2)
    drive = built & (np.abs(x - half_x * 0.55) < np.where(shops, half_x, 1.7)) & (y < 0) & ~road
    house = (beyond < 0) & ~road
    height, tilt = _roof(key, shops, x, y, half_x, half_y, frame.turn, bank)
    return Town(house, key, np.where(house, height, 0).astype(np.float32), beyond, centre, tilt * house, road, drive & ~house)


def _sizes(key: Hash, shops: Mask, lot_m: Field) -> tuple[Field, Field, Field]:
    """Half lengths along and away from the street and the front yard's depth, in metres."""
    half_x = np.minimum(np.where(shops, 14 + 14 * uniform(key, "x"), 4.6 + 4 * uniform(key, "x")), lot_m / 2 - 1.5)
    half_y = np.where(shops, 12 + 12 * uniform(key, "y"), 3.8 + 2.6 * uniform(key, "y"))
    return half_x, half_y, np.where(shops, 18 + 6 * uniform(key, "yard"), 9.5 + 3 * uniform(key, "yard"))


def _place(frame: _Frame, x: Field, y: Field, bank: Field) -> npt.NDArray[np.float64]:
    """Where the lot's house stands (2, y, x), (south, east) in metres: the pixel's own place less its offset from it."""
    along, across = frame.along - x, frame.across - y * bank
    south = frame.middle[0] + np.sin(frame.turn) * along + np.cos(frame.turn) * across
    return np.stack([south, frame.middle[1] + np.cos(frame.turn) * along - np.sin(frame.turn) * across])


def _beyond(key: Hash, shops: Mask, x: Field, y: Field, half_x: Field, half_y: Field) -> Field:
    """Metres outside the walls (negative inside): a rectangle, for four houses in ten with a wing behind or before."""
    body = np.maximum(np.abs(x) - half_x, np.abs(y) - half_y)
    left, back = (np.where(uniform(key, side) < 0.5, np.float32(-1), np.float32(1)) for side in ("left", "back"))
    wide, deep = half_x * (0.3 + 0.2 * uniform(key, "wing")), half_y * 0.9
    wing = np.maximum(np.abs(x - left * (half_x - wide)) - wide, np.abs(y - back * half_y) - deep)
    return np.where((uniform(key, "shape") < 0.4) & ~shops, np.minimum(body, wing), body)


def _roof(
    key: Hash, shops: Mask, x: Field, y: Field, half_x: Field, half_y: Field, turn: Field, bank: Field
) -> tuple[Field, Field]:
    """Height (y, x) in metres and slope (2, y, x) of gables along the longer side, hips on some, flat roofs on shops."""
    long = half_x >= half_y
    to_eave = np.where(long, half_y - np.abs(y), half_x - np.abs(x))
    to_gable = np.where(long, half_x - np.abs(x), half_y - np.abs(y))
    hipped = (uniform(key, "hip") < 0.4) & (to_gable < to_eave)
    pitch = np.where(shops, np.float32(0), 0.35 + 0.3 * uniform(key, "pitch"))
    stands = np.where(shops, 5 + 3 * uniform(key, "eave"), 2.8 + 2.6 * (uniform(key, "eave") > 0.75))
    height = stands + pitch * np.clip(np.where(hipped, to_gable, to_eave), 0, 6)
    on_x = long == hipped  # which of the lot's axes the slope runs along
    rise_x, rise_y = np.where(on_x, -np.sign(x) * pitch, 0), np.where(on_x, 0, -np.sign(y) * pitch * bank)
    south, east = np.sin(turn) * rise_x + np.cos(turn) * rise_y, np.cos(turn) * rise_x - np.sin(turn) * rise_y
    return height.astype(np.float32), np.stack([south, east]).astype(np.float32)


def trees(ground: Ground, kept: Field) -> Field:
    """Height (y, x) in metres of crowns, 0 between them; a tree stands where its draw is below `kept` at its middle."""
    wide = int(np.ceil(CROWN_M / ground.gsd_m))
    field = np.zeros((ground.height, ground.width), np.float32)
    south, east = (
        np.arange(int(np.floor(at[0] / CROWN_M)) - 1, int(np.floor(at[-1] / CROWN_M)) + 2)
        for at in (ground.south_m[:, 0], ground.east_m[0])
    )
    bits = hashed(ground.seed, "tree", south[:, None], east[None, :])
    row = (((south[:, None] + uniform(bits, "s")) * CROWN_M) / ground.gsd_m - ground.row).astype(int)
    col = (((east[None, :] + uniform(bits, "e")) * CROWN_M) / ground.gsd_m - ground.col).astype(int)
    inside = (row >= 0) & (row < ground.height) & (col >= 0) & (col < ground.width)
    share = kept[np.clip(row, 0, ground.height - 1), np.clip(col, 0, ground.width - 1)]
    for r, c, size in zip(
        *(f[inside & (uniform(bits, "grows") < share)] for f in (row, col, uniform(bits, "size"))), strict=True
    ):
        part = (slice(max(r - wide, 0), r + wide + 1), slice(max(c - wide, 0), c + wide + 1))
        down, right = np.ogrid[
            part[0].start - r : min(r + wide + 1, ground.height) - r, part[1].start - c : min(c + wide + 1, ground.width) - c
        ]
        dome = 1 - (down**2 + right**2) * (ground.gsd_m / (1.8 + 2.8 * size)) ** 2
        field[part] = np.maximum(field[part], (4 + 6 * size) * np.sqrt(np.maximum(dome, 0)))
    return np.asarray(field * (1 + 0.12 * noise(ground, "crown", 1.6)), np.float32)
