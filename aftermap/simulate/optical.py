"""Optical reflectance by cover in the twelve land bands of Sentinel-2, under sun, haze and clouds, as stored numbers."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aftermap.simulate.files import Layer
from aftermap.simulate.relief import Sun
from aftermap.simulate.terrain import Cover, Field, Ground, fractal, noise, smoothstep, uniform

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
SCALE = 10_000
"""Stored number of reflectance 1; nothing is added, as before processing baseline 04.00."""
RGB = (3, 2, 1)
RGB_WHITE = 0.30
"""Reflectance shown as 255; below it brightness goes with the power 1/1.6, as pictures are stretched for the eye."""
CLOUD_BASE_M = 1400.0
NOISE = 0.0022

# Reflectance, rounded from spectra of the general literature (USGS and ECOSTRESS libraries) and medians of Sentinel-2 scenes.
_SPECTRA = {
    Cover.WATER: (0.060, 0.062, 0.066, 0.046, 0.034, 0.024, 0.023, 0.020, 0.018, 0.016, 0.010, 0.008),
    Cover.CROP: (0.036, 0.046, 0.078, 0.058, 0.110, 0.240, 0.290, 0.310, 0.325, 0.320, 0.210, 0.120),
    Cover.GRASS: (0.032, 0.042, 0.074, 0.062, 0.118, 0.230, 0.268, 0.285, 0.305, 0.305, 0.240, 0.140),
    Cover.BARE: (0.080, 0.095, 0.128, 0.168, 0.190, 0.205, 0.218, 0.228, 0.240, 0.245, 0.300, 0.262),
    Cover.FOREST: (0.020, 0.024, 0.040, 0.026, 0.062, 0.175, 0.215, 0.230, 0.245, 0.245, 0.125, 0.058),
    Cover.URBAN: (0.105, 0.118, 0.138, 0.150, 0.165, 0.180, 0.192, 0.200, 0.208, 0.210, 0.220, 0.200),
    Cover.ROCK: (0.110, 0.122, 0.140, 0.152, 0.160, 0.166, 0.172, 0.176, 0.182, 0.184, 0.210, 0.196),
    Cover.SNOW: (0.860, 0.850, 0.840, 0.820, 0.800, 0.780, 0.760, 0.740, 0.700, 0.640, 0.100, 0.085),
}
SPECTRA = np.array([_SPECTRA[cover] for cover in Cover], np.float32)
"""(cover, band) reflectance."""
EARTH = np.array((0.076, 0.094, 0.142, 0.214, 0.232, 0.242, 0.252, 0.262, 0.272, 0.276, 0.335, 0.300), np.float32)
"""Fresh soil and broken rock: redder and, in the short-wave infrared, brighter than weathered ground."""
DRIED = np.array((0.045, 0.058, 0.086, 0.108, 0.150, 0.198, 0.222, 0.240, 0.258, 0.260, 0.300, 0.210), np.float32)
"""Straw and dry grass, toward which crops and meadows ripen."""
_CLOUD = np.array((0.62, 0.61, 0.60, 0.61, 0.62, 0.63, 0.63, 0.63, 0.62, 0.55, 0.48, 0.40), np.float32)
_HAZE = np.array((0.024, 0.015, 0.009, 0.006, 0.005, 0.005, 0.004, 0.003, 0.003, 0.003, 0.001, 0.0), np.float32)
_MUDDY = np.array((0.075, 0.085, 0.115, 0.120, 0.110, 0.085, 0.080, 0.065, 0.055, 0.045, 0.016, 0.010), np.float32)


@dataclass(frozen=True)
class Sky:
    """One date: sun, haze (1 is a fair day), ripeness of fields (0 green to 1 dry), share of clouds, and the date's name."""

    sun: Sun
    haze: float
    ripe: float
    clouds: float
    name: str


def layer(sensor: str, acquired: str) -> Layer:
    """How a picture of that sensor ("sentinel-2" or "rgb") is stored; 0 is not observed, and never written."""
    if sensor == "rgb":
        return Layer(("red", "green", "blue"), "uint8", "digital_number", 0, acquired)
    return Layer(BANDS, "uint16", "reflectance", 0, acquired)


def surface(ground: Ground, cover: npt.NDArray[np.uint8], parcel: npt.NDArray[np.uint32], ripe: float) -> Field:
    """Reflectance (band, y, x) of the ground in flat light: lots sown unlike and ripening, crowns and patches."""
    reflectance = np.take(SPECTRA, cover, axis=0)  # (y, x, band)
    lots = np.isin(cover, (Cover.CROP, Cover.GRASS))
    dry = np.where(lots, np.clip(ripe + 0.45 * (uniform(parcel, "ripe") - 0.5) + 0.12 * noise(ground, "drought", 260), 0, 1), 0)
    reflectance += dry[..., None].astype(np.float32) * (DRIED - reflectance)
    patches = 1 + 0.09 * noise(ground, "tint/coarse", 420) + 0.10 * fractal(ground, "tint", 70, 3)
    walls = np.where(cover == Cover.URBAN, 1 + 0.35 * noise(ground, "roofs", 18), 1)
    reflectance *= np.clip(patches * walls, 0.3, 2)[..., None].astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(reflectance, -1, 0))


def mixed(reflectance: Field, share: Field, spectrum: npt.NDArray[np.float32], brightness: Field | float = 1) -> Field:
    """Reflectance (band, y, x) where `share` (y, x) of each pixel is of another `spectrum` (band,) times `brightness`."""
    other = spectrum[:, None, None] * np.asarray(brightness, np.float32)
    return np.asarray(reflectance + share * (other - reflectance), np.float32)


def flooded(reflectance: Field, share: Field) -> Field:
    """Reflectance (band, y, x) with `share` (y, x) of each pixel under muddy water."""
    return mixed(reflectance, share, _MUDDY)


def clouds(ground: Ground, sky: Sky) -> tuple[Field, Field]:
    """Opacity of clouds and darkness of their shadows (y, x), both in [0, 1]; the shadow falls away from the sun."""
    if sky.clouds <= 0:
        zero = np.zeros((ground.height, ground.width), np.float32)
        return zero, zero
    shift = CLOUD_BASE_M / sky.sun.tangent / ground.gsd_m
    rows, cols = (round(part * shift) for part in sky.sun.toward)
    above = Ground(ground.seed, ground.row + rows, ground.col + cols, ground.height, ground.width, ground.gsd_m)
    opaque, shade = (_opacity(at, sky) for at in (ground, above))
    return opaque, np.asarray(0.75 * shade * (1 - opaque), np.float32)


def _opacity(ground: Ground, sky: Sky) -> Field:
    """Cumulus where a fractal is high; the level lets about the wished share through."""
    level = 2.1 - 2.3 * sky.clouds**0.5
    return smoothstep(level - 0.05, level + 0.55, fractal(ground, f"cloud/{sky.name}", 2600, 5, gain=0.55))


def picture(
    ground: Ground, reflectance: Field, light: Field, sky: Sky, sensor: str, at: tuple[int, int]
) -> tuple[npt.NDArray[np.integer], Field]:
    """Stored numbers (band, y, x) of the block `at` (row, column), and the share (y, x) that cloud or its shadow hides."""
    opaque, shade = clouds(ground, sky)
    seen = reflectance * (light * (1 - shade)) + _HAZE[:, None, None] * np.float32(sky.haze)
    seen = mixed(seen, opaque, _CLOUD, 1 + 0.12 * noise(ground, f"billow/{sky.name}", 160)) if opaque.any() else seen
    rng = np.random.default_rng([ground.seed, zlib.crc32(f"{sky.name}/{sensor}".encode()), *at])
    seen += np.float32(NOISE) * rng.standard_normal(seen.shape, dtype=np.float32)
    return _stored(seen, sensor), np.maximum(opaque, shade)


def _stored(reflectance: Field, sensor: str) -> npt.NDArray[np.integer]:
    """Whole numbers, from 1 on: 0 says not observed."""
    if sensor == "rgb":
        share = np.clip(reflectance[list(RGB)] / np.float32(RGB_WHITE), 0, 1)
        return np.asarray(np.clip(np.rint(255 * share ** np.float32(1 / 1.6)), 1, 255), np.uint8)
    return np.asarray(np.clip(np.rint(reflectance * SCALE), 1, 65_535), np.uint16)
