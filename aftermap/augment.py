"""Chips as they might also have been seen: the same geometry for all dates and the truth, radiometry by what each band measures.

Radar gets speckle and gain, never colour jitter: contrast of decibels means nothing that a radar does. Optical bands get
brightness and contrast. Heights, slopes and class codes keep their values; where slopes face turns with the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from scipy import ndimage

from aftermap.chips import UNKNOWN, Chip
from aftermap.normalise import F32, units
from aftermap.sensors import POWER_FLOOR, SAR_UNITS

ASPECT = ("dem.aspect_sin", "dem.aspect_cos")
"""Bands that point somewhere."""
OPTICAL_UNITS = ("reflectance", "digital_number")


@dataclass(frozen=True)
class Augment:
    """What may happen to a chip, as probabilities in [0, 1] and ranges; all 0 leaves it as it is."""

    flip: float = 0.5
    """Up and down; and left and right by itself."""
    turn: float = 0.95
    """A multiple of 90 degrees, 0 among them."""
    move: float = 0.2
    """A shift and a scaling, together; what comes from outside is not valid."""
    shift: float = 0.2
    """At most this share of the side."""
    scale: float = 0.1
    """Between 1 - scale and 1 + scale."""
    speckle: float = 0.3
    """Probability, for radar: speckle of so many more looks on what the image has."""
    looks: float = 20.0
    gain: float = 0.3
    """Probability, for radar: all bands of a date brighter or darker by at most `gain_db`."""
    gain_db: float = 1.0
    jitter: float = 0.3
    """Probability, for optical images: brightness and contrast of a date within 1 +- `contrast`."""
    contrast: float = 0.2

    def __call__(self, chip: Chip, rng: np.random.Generator) -> Chip:
        """The chip changed; every draw is made whether it is used or not, so that one choice does not change another's."""
        flip_y, flip_x, turn, move = rng.random(4) < (self.flip, self.flip, self.turn, self.move)
        quarter, (dy, dx), scale = (
            int(rng.integers(4)),
            rng.uniform(-self.shift, self.shift, 2),
            rng.uniform(-self.scale, self.scale),
        )
        step = (-1 if flip_y else 1, -1 if flip_x else 1)
        chip = _each(chip, lambda a: np.rot90(a[..., :: step[0], :: step[1]], quarter if turn else 0, axes=(-2, -1)))
        chip = _faced(chip, step, quarter if turn else 0)
        if move:
            chip = _moved(chip, (float(dy), float(dx)), 1 + float(scale))
        return self._lit(chip, rng)

    def _lit(self, chip: Chip, rng: np.random.Generator) -> Chip:
        """Radiometry, date by date: a date's bands share gain, brightness and contrast."""
        pixels, unit = chip.pixels.copy(), units(chip)
        dates = [band.rpartition(".")[0] for band in chip.bands]
        for date in sorted(set(dates)):
            speckled, gained, jittered = rng.random(3) < (self.speckle, self.gain, self.jitter)
            gain = rng.uniform(-self.gain_db, self.gain_db) * gained
            bright, contrast = 1 + rng.uniform(-self.contrast, self.contrast, 2) * jittered
            for i in (i for i, other in enumerate(dates) if other == date):
                if unit[i] in SAR_UNITS:
                    noise = rng.gamma(self.looks, 1 / self.looks, chip.shape) if speckled else np.ones(chip.shape)
                    pixels[i] = _louder(pixels[i], 10 * np.log10(np.maximum(noise, POWER_FLOOR)) + gain, unit[i])
                elif unit[i] in OPTICAL_UNITS and jittered and np.isfinite(pixels[i]).any():
                    middle = np.nanmean(pixels[i])
                    pixels[i] = ((pixels[i] - middle) * contrast + middle) * bright
        return replace(chip, pixels=pixels)


def _louder(band: F32, db: np.ndarray[tuple[int, ...], np.dtype[np.float64]], unit: str) -> F32:
    """A radar band with so many dB added, in its own unit."""
    added = band + db if unit == "dB" else band * 10 ** (db / (10 if unit == "power" else 20))
    return np.asarray(added, np.float32)


def _each(chip: Chip, turn: Callable[[Any], Any]) -> Chip:
    """Pixels, valid and truth all turned the same way."""
    pixels, valid = (np.ascontiguousarray(turn(a)) for a in (chip.pixels, chip.valid))
    truth = None if chip.truth is None else np.ascontiguousarray(turn(chip.truth))
    return replace(chip, pixels=pixels, valid=valid, truth=truth, window=None)


def _faced(chip: Chip, step: tuple[int, int], quarter: int) -> Chip:
    """Aspect turned with the image: its sine is the share to the right, its cosine that upward."""
    rows = [chip.bands.index(name) for name in ASPECT if name in chip.bands]
    if len(rows) < len(ASPECT):
        return chip
    pixels = chip.pixels.copy()
    right, up = step[1] * chip.pixels[rows[0]], step[0] * chip.pixels[rows[1]]
    for _ in range(quarter):
        right, up = -up, right
    pixels[rows] = right, up
    return replace(chip, pixels=pixels)


def _moved(chip: Chip, shift: tuple[float, float], scale: float) -> Chip:
    """Shifted by a share of the side and scaled about the middle: pixels bilinear, truth and valid nearest."""
    size = np.asarray(chip.shape)
    offset = (size - 1) / 2 - (size - 1) / 2 / scale + np.asarray(shift) * size
    warped = partial(ndimage.affine_transform, matrix=np.full(2, 1 / scale), offset=offset, mode="constant")
    pixels = np.stack([warped(band, order=1, cval=np.nan) for band in chip.pixels]).astype(np.float32)
    valid = (warped(chip.valid.astype(np.uint8), order=0, cval=0) > 0) & np.isfinite(pixels).all(axis=0)
    truth = None if chip.truth is None else warped(chip.truth, order=0, cval=UNKNOWN).astype(np.uint8)
    return replace(chip, pixels=pixels, valid=valid, truth=truth)
