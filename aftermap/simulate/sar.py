"""C-band backscatter by cover, flooding, incidence angle and slope, with noise floor and gamma speckle."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from aftermap.simulate.conditions import USUAL, Conditions
from aftermap.simulate.files import Layer
from aftermap.simulate.terrain import Cover, Field, Ground, hashed, noise, uniform

POLARISATIONS = ("VV", "VH")
NOISE_FLOOR_DB = -28.0
"""Power added by the receiver: Sentinel-1 IW is specified below -22 dB and measured between about -25 and -30 dB."""
NEAR_DEG, FAR_DEG, SWATH_M = 30.5, 46.0, 250_000.0
"""Incidence across the IW swath (Sentinel-1 product definition). A descending pass looks west: far is the scene's west."""
REFERENCE_DEG = 38.0


@dataclass(frozen=True)
class Signature:
    """Mean backscatter (dB at 38 degrees), its change per degree, texture and response to standing water (dB), for VV and VH.

    `flooded` is None where standing water hides the surface; elsewhere trunks and walls above it bounce twice.
    """

    mean: tuple[float, float]
    per_deg: tuple[float, float]
    texture: float
    flooded: tuple[float, float] | None = None


# Means and trends: rounded from C-band statistics of the general literature (Ulaby and Dobson's handbook; Sentinel-1 global
# backscatter composites) and set beside the Sen1Floods11 chips: land VV -10.2 (-13.9 to -6.8), VH -16.6 (-20.5 to -13.4).
SIGNATURES = {
    Cover.WATER: Signature((-19.3, -28.5), (-0.40, -0.15), 0.4),
    Cover.CROP: Signature((-9.6, -16.0), (-0.13, -0.10), 1.0),
    Cover.GRASS: Signature((-10.6, -17.2), (-0.14, -0.11), 0.8),
    Cover.BARE: Signature((-11.6, -19.0), (-0.17, -0.14), 1.0),
    Cover.FOREST: Signature((-8.0, -13.6), (-0.08, -0.07), 0.6, flooded=(2.8, 0.6)),
    Cover.URBAN: Signature((-4.5, -12.0), (-0.06, -0.05), 2.2, flooded=(1.6, 0.4)),
    Cover.ROCK: Signature((-9.2, -17.0), (-0.12, -0.10), 1.6),
    Cover.SNOW: Signature((-14.5, -22.0), (-0.18, -0.15), 1.0),
}


@dataclass(frozen=True)
class Surface:
    """Fields (y, x) of one date: cover codes, share of the pixel under flood water, changes in dB of land and of water."""

    cover: npt.NDArray[np.uint8]
    flooded: Field
    land_db: Field
    water_db: Field
    conditions: Conditions = USUAL


def incidence(ground: Ground) -> Field:
    """Incidence angle (1, x) in degrees on the ellipsoid, falling eastward from the far edge to the near one."""
    across = np.clip(ground.east_m / SWATH_M, 0, 1)
    return np.asarray(FAR_DEG + (NEAR_DEG - FAR_DEG) * across, dtype=np.float32)


def texture(ground: Ground, cover: npt.NDArray[np.uint8], parcel: npt.NDArray[np.uint32]) -> Field:
    """What stays in the picture from date to date (dB): patches, lots sown alike, and single bright walls in towns."""
    patches = 0.75 * noise(ground, "texture/fine", 45) + 0.65 * noise(ground, "texture/coarse", 350)
    lots = 2.6 * (uniform(parcel, "crop") - 0.5)
    lots[cover == Cover.WATER] = 0
    rows, cols = np.arange(ground.row, ground.row + ground.height), np.arange(ground.col, ground.col + ground.width)
    wall = uniform(hashed(ground.seed, "wall", rows[:, None], cols[None, :]), "wall") > 0.93
    field = patches * _table("texture")[cover] + lots
    field[wall & (cover == Cover.URBAN)] += np.float32(8)
    return np.asarray(field, dtype=np.float32)


def _table(name: str, band: int | None = None) -> Field:
    """One number of every signature, by cover code."""
    values = [getattr(SIGNATURES[cover], name) for cover in Cover]
    return np.array([v if band is None else v[band] for v in values], np.float32)


def backscatter(surface: Surface, angle: Field, rise_east: Field) -> tuple[Field, Field]:
    """Linear power (y, x) of VV and VH without speckle, at incidence `angle` (degrees) on slopes `rise_east` (m/m)."""
    # seen from the east a rise to the east turns away: a degree of it dims by about a quarter dB
    tilt = np.clip(np.degrees(np.arctan(rise_east)) * np.float32(-0.25), -4, 4)
    tilt[surface.cover == Cover.WATER] = 0
    vv, vh = (_power(surface, angle - np.float32(REFERENCE_DEG), tilt, band) for band in range(len(POLARISATIONS)))
    return vv, vh


def _power(surface: Surface, off_deg: Field, tilt: Field, band: int) -> Field:
    """Linear power (y, x) of one band: the dry and the flooded share of each pixel, and the noise floor."""
    water = SIGNATURES[Cover.WATER]
    brighter = np.array([db[band] for db in surface.conditions.cover_db], np.float32)
    # wind raises VH by a third of what it raises VV: small waves depolarise little
    waves = surface.water_db if band == 0 else surface.water_db / 3
    dry = (
        (_table("mean", band) + brighter)[surface.cover]
        + _table("per_deg", band)[surface.cover] * off_deg
        + surface.land_db
        + tilt
    )
    open_water = water.mean[band] + brighter[Cover.WATER] + water.per_deg[band] * off_deg + waves
    dry = np.where(surface.cover == Cover.WATER, dry + waves, dry)
    bounce = np.array([s[band] if (s := SIGNATURES[cover].flooded) else np.nan for cover in Cover], np.float32)[surface.cover]
    wet = np.where(np.isnan(bounce), open_water, dry + surface.conditions.bounce * bounce)
    return linear(dry) * (1 - surface.flooded) + linear(wet) * surface.flooded + np.float32(10 ** (NOISE_FLOOR_DB / 10))


def linear(db: Field) -> Field:
    """Power from dB."""
    return np.asarray(np.exp(db * np.float32(np.log(10) / 10)), np.float32)


def speckled(power: Field, looks: float, seed: int, layer: str, block: tuple[int, int], smear_px: float = 0.0) -> Field:
    """Backscatter in dB (y, x): power times gamma speckle of mean 1 and variance 1 / looks, drawn for block (row, column).

    Resampling then spreads each pixel by `smear_px`, within the block.
    """
    rng = np.random.default_rng([seed, zlib.crc32(layer.encode()), *block])
    drawn = rng.standard_gamma(looks, power.shape, dtype=np.float32) * np.float32(1 / looks)
    seen = power * drawn
    if smear_px:
        seen = ndimage.gaussian_filter(seen, smear_px, mode="nearest")
    return 10 * np.log10(np.maximum(seen, np.float32(1e-10)))


COHERENCE = {
    Cover.WATER: 0.05, Cover.CROP: 0.42, Cover.GRASS: 0.48, Cover.BARE: 0.68, Cover.FOREST: 0.20, Cover.URBAN: 0.82,
    Cover.ROCK: 0.78, Cover.SNOW: 0.25,
}  # fmt: skip
"""Interferometric coherence over twelve days at C band, by cover; rounded from Sentinel-1 statistics of the literature."""
COHERENCE_LOOKS = 20.0
COHERENCE_PAIRS = Layer(("coherence_pre", "coherence_co"), unit="1")
"""A pair of images before the event, and the pair across it."""


def coherent(ground: Ground, cover: npt.NDArray[np.uint8], kept: Field) -> Field:
    """Coherence (y, x) that a pair of images has: by cover, less by the weather of the place, times what the event `kept`."""
    by_cover = np.array([COHERENCE[c] for c in Cover], np.float32)[cover]
    return np.asarray(np.clip(by_cover * (1 + 0.12 * noise(ground, "coherence", 240)), 0, 0.95) * kept, np.float32)


def estimated(coherence: Field, seed: int, layer: str, block: tuple[int, int]) -> Field:
    """Sample coherence (y, x) of `COHERENCE_LOOKS` looks, drawn for block (row, column): biased upward where it is low.

    The sample covariance of two circular Gaussian images is complex Wishart (Goodman 1963); its Bartlett factor needs two
    gamma draws and a complex normal one per pixel.
    """
    rng = np.random.default_rng([seed, zlib.crc32(layer.encode()), *block])
    first, second = (
        np.sqrt(rng.standard_gamma(looks, coherence.shape, dtype=np.float32)) for looks in (COHERENCE_LOOKS, COHERENCE_LOOKS - 1)
    )
    real, imaginary = (rng.standard_normal(coherence.shape, dtype=np.float32) * np.float32(np.sqrt(0.5)) for _ in range(2))
    rest = np.sqrt(1 - coherence**2)
    common = np.hypot(coherence * first + rest * real, rest * imaginary)
    return np.asarray(common / np.hypot(common, rest * second), np.float32)
