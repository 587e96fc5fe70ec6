"""Small synthetic flood events, shown to a method as a Scene would; for the tests of indices."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from aftermap.median import median_filter
from aftermap.scorer import F32, Bool, LayerBands, Method, Scorer
from aftermap.sensors import SENSORS
from aftermap.tiles import Window

S1, S2 = "sentinel-1", "sentinel-2-l2a"
Bands = dict[str, F32]


class Event:
    """What a Scene shows to a method, from arrays (y, x): layer=(sensor, unit, {band: pixels})."""

    def __init__(self, **layers: tuple[str, str, Bands]) -> None:
        self._pixels = {name: bands for name, (_, _, bands) in layers.items()}
        self.layers = {
            name: SimpleNamespace(sensor=SENSORS[sensor], bands=tuple(bands), unit=unit)
            for name, (sensor, unit, bands) in layers.items()
        }
        self.shape = next(iter(next(iter(self._pixels.values())).values())).shape

    def _band(self, layer: str, name: str) -> F32 | None:
        band = self.layers[layer].sensor.band(name)
        return self._pixels[layer].get(band.name) if band else None

    def missing(self, wanted: LayerBands) -> str:
        if wanted.layer not in self.layers:
            return f"there is no {wanted.layer} image"
        absent = [b for b in wanted.bands if self._band(wanted.layer, b) is None]
        if absent:
            return f"the {wanted.layer} image has no band {absent[0]}"
        unit = self.layers[wanted.layer].unit
        return "" if wanted.unit in (unit, "digital_number") else f"the {wanted.layer} image is in {unit}, not in {wanted.unit}"

    def read(self, wanted: LayerBands, window: Window) -> F32:
        found = [band for b in wanted.bands if (band := self._band(wanted.layer, b)) is not None]
        return median_filter(np.stack(found), wanted.median_px)[(..., *window.slices)].copy()

    @property
    def scene(self) -> Any:
        return self

    def pixels(self, scorer: Scorer) -> F32:
        whole = Window(0, 0, *self.shape)
        return np.concatenate([self.read(inputs, whole) for inputs in scorer.inputs])[None]


def seen(pixels: F32) -> Bool:
    """Where every band (n, band, y, x) was observed, (n, y, x)."""
    return np.asarray(np.isfinite(pixels).all(axis=1))


def scores(event: Event, method: Method) -> F32:
    """Scores (y, x) of the whole event at once."""
    assert method.why_not(event.scene) == ""
    scorer = method.prepare(event.scene)
    pixels = event.pixels(scorer)
    return np.asarray(scorer(pixels, seen(pixels))[0, 0])


LAKE, FLOOD = np.s_[130:250, 20:90], np.s_[40:160, 120:300]
SHAPE = (260, 330)


def backscatter(*, flooded: bool, seed: int, land_db: float = -8, water_db: float = -20, looks: float = 4.4) -> F32:
    """dB (y, x) with speckle of that many looks: land, a lake, and the flood where there is one."""
    truth = np.full(SHAPE, land_db)
    truth[LAKE] = water_db
    if flooded:
        truth[FLOOD] = water_db
    speckle = np.random.default_rng(seed).gamma(looks, 1 / looks, SHAPE)
    return np.asarray(truth + 10 * np.log10(speckle), dtype=np.float32)


def sar(*, flooded: bool, seed: int) -> Bands:
    return {
        "VV": backscatter(flooded=flooded, seed=seed),
        "VH": backscatter(flooded=flooded, seed=seed + 1, land_db=-15, water_db=-27),
    }


def eight_bit(db: F32) -> F32:
    """A stretch of its own to 0..255, as OMBRIA has it."""
    low, high = db.min(), db.max()
    return np.asarray(np.round((db - low) / (high - low) * 255), dtype=np.float32)


def optical(*, flooded: bool, scale: float = 1.0) -> Bands:
    water = np.isnan(np.full(SHAPE, 0.0))
    water[LAKE] = True
    water[FLOOD] = flooded
    noise = np.random.default_rng(5).normal(0, 0.01, (3, *SHAPE))
    bands = {"B03": (0.08, 0.09), "B08": (0.3, 0.03), "B11": (0.25, 0.02)}
    return {
        name: np.asarray((np.where(water, wet, dry) + noise[i]) * scale, dtype=np.float32)
        for i, (name, (dry, wet)) in enumerate(bands.items())
    }


def pair(seed: int = 0, *, flooded: bool = True) -> Event:
    return Event(
        after=(S1, "dB", sar(flooded=flooded, seed=seed)),
        before=(S1, "dB", sar(flooded=False, seed=seed + 10)),
    )


def stretched(*, flooded: bool = True) -> Event:
    layers = {"after": sar(flooded=flooded, seed=3)["VV"], "before": sar(flooded=False, seed=4)["VV"]}
    return Event(**{name: (S1, "digital_number", {"VV": eight_bit(db)}) for name, db in layers.items()})


def optical_pair(*, flooded: bool = True) -> Event:
    return Event(
        after=(S2, "reflectance", optical(flooded=flooded)),
        before=(S2, "digital_number", optical(flooded=False, scale=10_000)),
    )


def iou(mask: Bool, truth: Bool) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


def region(*parts: tuple[slice, slice]) -> Bool:
    mask = np.zeros(SHAPE, bool)
    for part in parts:
        mask[part] = True
    return mask
