"""What varies from scene to scene and is usual unless said otherwise: for radar, for ice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aftermap.simulate.terrain import Cover, Field, Ground, noise


@dataclass(frozen=True)
class Conditions:
    """Of one radar scene; dB for VV and VH where two are given. The usual ones change nothing."""

    cover_db: tuple[tuple[float, float], ...] = ((0.0, 0.0),) * len(Cover)
    """Brighter than the signature of each cover by so much; open water, flood water too, by that of Cover.WATER."""
    bounce: float = 1.0
    """How much of the double bounce of flooded woods and towns there is."""
    waves_db: float = 6.0
    """What wind adds to open water in VV where it blows most."""
    calm: float = 0.9
    """Gusts blow where noise of mean 0 and std 1 is above it."""
    smear_px: float = 0.0
    """Standard deviation of what resampling spreads each pixel over."""
    land: tuple[int, ...] = tuple(Cover)
    """Cover code that stands where each code would: another mixture of land."""
    lakes: float = np.inf
    """Permanent water also lies where noise of mean 0 and std 1 is above it."""
    lake_m: float = 1500.0
    """Size of such lakes."""

    def lake(self, ground: Ground) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]] | None:
        """Where lakes lie (y, x); None where there are none."""
        if not np.isfinite(self.lakes):
            return None
        shore: Field = noise(ground, "lake", self.lake_m) + np.float32(0.12) * noise(ground, "shore", self.lake_m / 9)
        return np.asarray(shore > self.lakes)


USUAL = Conditions()


@dataclass(frozen=True)
class Ice:
    """Of one ice shelf: share of its fractures that have opened, and their width and contrast against the usual."""

    opened: float = 1.0
    width: float = 1.0
    contrast: float = 1.0


USUAL_ICE = Ice()


@dataclass(frozen=True)
class Hills:
    """Of one picture of slopes; colours are reflectance in red, green, blue."""

    slides: int
    half_px: float
    """Half their width in pixels, about."""
    regrown: float
    """0 where they are fresh, 1 where the oldest are green again."""
    earth: tuple[float, float, float]
    land: tuple[int, ...]
    """Cover code that stands where each code would."""
    palette: tuple[tuple[float, float, float], ...]
    """Brighter than the spectrum of each cover by such factors."""
    ripe: float
    felled: float
    """Share of trees that are missing."""
    terraces: float
    """They lie where a noise of mean 0 and std 1, less on steep ground, is above it; `step_m` apart in height."""
    step_m: float
    gravel: float
    """How far above the river gravel lies, in metres, about."""
    braid_px: float
    """Half the width of a braided bed; 0 for none."""
    gravel_colour: tuple[float, float, float]
    roads: tuple[tuple[float, float, float], ...]
    """Half width and spread (m) and brightness of each."""
    road_colour: tuple[float, float, float]
    hamlets: float
    """Houses stand where a noise of mean 0 and std 1 is above it."""
    water: tuple[float, float, float]
    """Brighter than clear water by such factors."""
