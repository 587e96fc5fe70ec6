"""Where cloud and its shadow hide the ground, from the class band that came with the image; and a spectral test that warns.

The test only warns. On the Sentinel-2 scene with a mask in shared data (`scenes_csmask`) it finds 93 % of the cloud, but 24 % of
what it calls cloud is bright ground or shadow (precision 0.764, recall 0.927, F1 0.837; one scene): excluding by it would lose
ground that can be seen. Cloud shadow is not tested at all: without the sun's geometry it is dark in the infrared, just as water.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap.layer import Layer

F32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

CLASS_BANDS = ("SCL", "QA_PIXEL", "Fmask")
SCL_HIDDEN = (3, 8, 9, 10)
"""Sentinel-2 scene classes cloud shadow, cloud of medium and high probability, thin cirrus; 11, snow, is ground."""
SCL_FILL = (0, 1)
"""No data, and saturated or defective."""
HIDDEN_BITS = {"QA_PIXEL": 0b11110, "Fmask": 0b1110}
"""Landsat Collection 2, bits 1 to 4: dilated cloud, cirrus, cloud, shadow. HLS 2.0, bits 1 to 3: cloud, beside it, shadow."""
FILL = {"QA_PIXEL": 1, "Fmask": 255}
"""Landsat: bit 0. HLS: the whole code."""
TESTED = ("blue", "green", "red")
SPECTRAL = ("blue", "green", "red", "nir", "swir1", "swir2")


def class_band(layer: Layer) -> str | None:
    """The name of the layer's cloud class band; None where it has none."""
    return next((name for name in CLASS_BANDS if layer.index(name) is not None), None)


def hidden(codes: F32, band: str) -> Bool:
    """True (y, x) where codes of that class band say cloud, cirrus or cloud shadow."""
    if band == "SCL":
        return np.isin(codes, SCL_HIDDEN)
    return np.asarray((_bits(codes, band) & HIDDEN_BITS[band] > 0) & ~fill(codes, band))


def fill(codes: F32, band: str) -> Bool:
    """True (y, x) where that class band itself says that nothing usable was observed."""
    if band == "SCL":
        return np.isnan(codes) | np.isin(codes, SCL_FILL)
    return np.asarray(_bits(codes, band) & FILL[band] == FILL[band])


def _bits(codes: F32, band: str) -> npt.NDArray[np.int32]:
    # A file whose nodata is 0 hides Fmask's 0, which is clear; QA_PIXEL has no 0. Whole numbers of 16 bits survive float32.
    return np.nan_to_num(codes, nan=0 if band == "Fmask" else FILL[band]).astype(np.int32)


def spectral(bands: Mapping[str, F32]) -> Bool:
    """True (y, x) where reflectances by common name look like cloud: the potential cloud pixels of Fmask without temperature.

    Zhu and Woodcock 2012 (Remote Sensing of Environment 118), equations 1 to 4: bright in SWIR2, neither snow nor leaf, white,
    hazy by the HOT, NIR above SWIR1. Needs TESTED; a test whose band is missing is left out. False where not observed.
    """
    blue, green, red = (bands[name] for name in TESTED)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (blue + green + red) / 3
        white = np.abs(np.stack([blue, green, red]) - mean).sum(axis=0) / mean < 0.7
        cloud = white & (blue - 0.5 * red - 0.08 > 0)
        if "swir2" in bands:
            cloud &= bands["swir2"] > 0.03
        if "nir" in bands:
            cloud &= _difference(bands["nir"], red) < 0.8
        if "swir1" in bands:
            cloud &= _difference(green, bands["swir1"]) < 0.8
        if {"nir", "swir1"} <= set(bands):
            cloud &= bands["nir"] / bands["swir1"] > 0.75
    return np.asarray(cloud)


def _difference(first: F32, second: F32) -> Any:
    return (first - second) / (first + second)


def testable(layer: Layer) -> tuple[str, ...]:
    """The bands that the spectral test would read of a layer, by common name; empty where it cannot run."""
    if layer.unit != "reflectance" or any(layer.index(name) is None for name in TESTED):
        return ()
    return tuple(name for name in SPECTRAL if layer.index(name) is not None)
