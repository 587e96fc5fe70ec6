"""How far the image before lies beside the image after, by phase correlation, and the scene with that shift taken out.

Phase correlation after Kuglin and Hines 1975. The normalised cross-power spectrum is weighted with a Gaussian, which keeps the
speckle of radar out and makes of the peak a Gaussian, whose centre three logarithms give exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from aftermap.layer import Layer
from aftermap.scene import Scene
from aftermap.scorer import LayerBands
from aftermap.sensors import SAR_UNITS
from aftermap.tiles import Window, lattice

WINDOW_PX, WINDOW_SIDE = 256, 5
"""Shifts are measured in 5 x 5 windows of 256 px: up to 64 px are found."""
LEAST_PX = 0.1
"""Smaller shifts are left alone: the estimate is no better, and resampling costs sharpness."""
TELLING_PX = 0.5
"""A pair is said to be shifted from here on."""
_PASS = 0.08
"""Standard deviation of the weight on the spectrum, in cycles per pixel: details of about 12 px and larger decide."""
_CLEAR = 2.0
"""A peak is clear where it is so many times as high as any other farther than 8 px from it."""
_LEAST_SEEN, _LEAST_WINDOWS = 0.9, 3

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shift:
    """How many pixels before lies to the right of (`dx`) and below (`dy`) after; windows that tell, of those looked at."""

    dx: float
    dy: float
    clear: int
    windows: int

    @property
    def length(self) -> float:
        """In pixels."""
        return float(np.hypot(self.dx, self.dy))


def shift_of(scene: Scene, after: Layer, before: Layer) -> Shift | None:
    """The shift of before against after, the median of the windows with a clear peak; None where too few are clear or agree."""
    band = _common_band(after, before)
    if band is None or min(scene.shape) < 32:
        return None
    windows = lattice(scene.shape, WINDOW_PX, WINDOW_SIDE)
    found = [shift for w in windows if (shift := _peak(*(_seen(scene, k, band, w) for k in (after, before)))) is not None]
    if len(found) < min(_LEAST_WINDOWS, len(windows)):
        return None
    dx, dy = np.median(found, axis=0)
    near = np.hypot(*(np.array(found) - (dx, dy)).T) < 1
    return Shift(round(float(dx), 2), round(float(dy), 2), len(found), len(windows)) if near.mean() > 0.5 else None


def aligned(scene: Scene) -> tuple[Scene, dict[str, Shift]]:
    """The scene whose images before are read that much beside their own place, and the shifts that are taken out, by layer."""
    found = {before.name: shift_of(scene, after, before) for after, before in scene.pairs()}
    shifts = {k: s for k, s in found.items() if s is not None and s.length >= LEAST_PX and scene.grid.crs is not None}
    if not shifts:
        return scene, {}
    return replace(scene, shifts={**scene.shifts, **{k: (s.dx, s.dy) for k, s in shifts.items()}}, _readers={}), shifts


def _common_band(after: Layer, before: Layer) -> str | None:
    """The first band of after that before has too, by its common name, and that holds measurements."""
    names = (b.common or b.name for k, n in enumerate(after.bands) if not after.is_class(k) and (b := after.sensor.band(n)))
    return next((n for n in names if (i := before.index(n)) is not None and not before.is_class(i)), None)


def _seen(scene: Scene, layer: Layer, band: str, window: Window) -> F64 | None:
    """Pixels (y, x) less their mean, radar in dB, cut at the 2nd and 98th percentile; None where too few were observed."""
    unit = "dB" if layer.unit in SAR_UNITS else "digital_number"
    pixels = scene.read(LayerBands(layer.name, (band,), unit), window)[0].astype(np.float64)
    seen = np.isfinite(pixels)
    if seen.mean() < _LEAST_SEEN:
        return None
    low, high = np.percentile(pixels[seen], (2, 98))
    pixels = np.clip(np.where(seen, pixels, pixels[seen].mean()), low, high)
    return np.asarray(pixels - pixels.mean()) if high > low else None


def _peak(after: F64 | None, before: F64 | None) -> tuple[float, float] | None:
    """(dx, dy) in pixels of before against after (y, x); None where no peak is clear."""
    if after is None or before is None:
        return None
    height, width = after.shape
    taper = np.hanning(height)[:, None] * np.hanning(width)
    cross = np.fft.rfft2(before * taper) * np.conj(np.fft.rfft2(after * taper))
    far = np.fft.fftfreq(height)[:, None] ** 2 + np.fft.rfftfreq(width) ** 2
    weight = np.exp(-far / (2 * _PASS**2)) / np.maximum(np.abs(cross), 1e-12)
    found = np.fft.irfft2(cross * weight, s=after.shape)
    y, x = (int(k) for k in np.unravel_index(np.argmax(found), found.shape))
    centred = np.roll(found, (height // 2 - y, width // 2 - x), axis=(0, 1))
    near = (slice(height // 2 - 8, height // 2 + 9), slice(width // 2 - 8, width // 2 + 9))
    others = centred.copy()
    others[near] = -np.inf
    if centred[height // 2, width // 2] < _CLEAR * others.max():
        return None
    dy = (y + height // 2) % height - height // 2 + _summit(centred[height // 2 - 1 : height // 2 + 2, width // 2])
    dx = (x + width // 2) % width - width // 2 + _summit(centred[height // 2, width // 2 - 1 : width // 2 + 2])
    return dx, dy


def _summit(three: F64) -> float:
    """Where a Gaussian through three values at -1, 0 and 1 has its top."""
    left, middle, right = np.log(np.maximum(three, 1e-12))
    bend = left - 2 * middle + right
    return float((left - right) / (2 * bend)) if bend < 0 else 0.0
