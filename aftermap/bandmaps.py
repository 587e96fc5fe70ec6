"""Any sensor as a picture of three bands from 0 to 255, which is what a network trained on pictures reads.

The paper says nothing of it (methods.md A.5): each mapping here is fixed, has a name, and looks at no other pixel and no label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from aftermap.errors import InputRefusedError, UnknownNameError
from aftermap.scorer import LayerBands

if TYPE_CHECKING:
    from aftermap.scene import Scene

F32 = npt.NDArray[np.float32]
BYTE = 255
PICTURE = 3
"""Bands of a picture."""
VV_DB, VH_DB = (-25.0, 0.0), (-32.0, -5.0)
BRIGHT = 0.3
"""Reflectance that is white in a picture; about that of Sentinel-2's own true colour images."""


@dataclass(frozen=True)
class BandMap:
    """One mapping: what it reads of the image after the event, and what it makes of it."""

    name: str
    reads: LayerBands
    words: str
    make: Callable[[F32], F32] = field(repr=False, compare=False)
    """Pixels (band, ...) in their unit to (3, ...) from 0 to 255; NaN stays NaN."""

    def __call__(self, pixels: F32) -> F32:
        """Pixels (n, band, y, x) as pictures (n, 3, y, x)."""
        return np.asarray(self.make(pixels.swapaxes(0, 1)).swapaxes(0, 1), np.float32)


def _between(pixels: F32, ends: tuple[float, float]) -> F32:
    low, high = ends
    return np.asarray((np.clip(pixels, low, high) - low) * (BYTE / (high - low)), np.float32)


def _radar(pixels: F32) -> F32:
    vv, vh = _between(pixels[0], VV_DB), _between(pixels[1], VH_DB)
    return np.stack([vv, vh, (vv + vh) / 2])


def _grey(pixels: F32, most: float) -> F32:
    return np.repeat(_between(pixels, (0, most)), PICTURE, axis=0)


def _same(pixels: F32) -> F32:
    return pixels


def _bright(pixels: F32) -> F32:
    return _between(pixels, (0, BRIGHT))


def _of(name: str, bands: str, unit: str, words: str, make: Callable[[F32], F32]) -> BandMap:
    return BandMap(name, LayerBands("after", tuple(bands.split()), unit), words, make)


MAPS = {
    one.name: one
    for one in (
        _of("rgb", "red green blue", "digital_number", "8 bits as they are", _same),
        _of("s1", "VV VH", "dB", "VV from -25 to 0 dB, VH from -32 to -5 dB, and their mean", _radar),
        _of("modis-grey", "grey", "digital_number", "16 bits of grey, three times", partial(_grey, most=65535)),
        _of("rgb-reflectance", "red green blue", "reflectance", f"reflectance from 0 to {BRIGHT}", _bright),
        _of("nir-red-green", "nir red green", "digital_number", "8 bits as they are", _same),
        _of("swir-nir-green", "swir1 nir green", "digital_number", "8 bits as they are", _same),
        _of("vv", "VV", "digital_number", "8 bits of grey, three times", partial(_grey, most=BYTE)),
    )
}
"""By name; the first that a scene allows is taken where none is asked for."""


def of_scene(scene: Scene, name: str = "auto") -> BandMap:
    """The one asked for, or the first whose bands the scene has. Raises UnknownNameError, InputRefusedError ("band-missing")."""
    if name != "auto":
        return _named(name, lambda one: scene.missing(one.reads))
    return _first(lambda one: scene.missing(one.reads), f"the scene {scene.name}")


def of_bands(bands: Sequence[str], unit: str, name: str = "auto") -> BandMap:
    """The same for chips that have these bands, all in one unit."""

    def missing(one: BandMap) -> str:
        fits = one.reads.unit == unit and set(one.reads.bands) <= set(bands)
        return "" if fits else f"there are {', '.join(bands)} in {unit}"

    return _named(name, missing) if name != "auto" else _first(missing, f"{', '.join(bands)} in {unit}")


def _named(name: str, missing: Callable[[BandMap], str]) -> BandMap:
    if name not in MAPS:
        raise UnknownNameError("band map", name, MAPS)
    if why := missing(MAPS[name]):
        reads = MAPS[name].reads
        what = f"the band map {name} reads {', '.join(reads.bands)} in {reads.unit}, but {why}"
        raise InputRefusedError(what, repair="name the bands with --bands, or take another band map", code="band-missing")
    return MAPS[name]


def _first(missing: Callable[[BandMap], str], what: str) -> BandMap:
    for one in MAPS.values():
        if not missing(one):
            return one
    known = "; ".join(f"{one.name}: {', '.join(one.reads.bands)} in {one.reads.unit}" for one in MAPS.values())
    raise InputRefusedError(f"no band map fits {what}", repair=f"name the bands with --bands ({known})", code="band-missing")
