"""Sensors, their bands and units, and the explicit conversion between power, amplitude and dB."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from aftermap.errors import BandError, UnknownNameError

UNITS = (
    "dB", "power", "amplitude", "reflectance", "digital_number", "metres", "degrees", "radians", "1", "1/m", "relative", "class",
)  # fmt: skip
"""dB, linear power and amplitude of gamma0 or sigma0; reflectance in [0, 1]; numbers as stored; heights; slopes; phase; sines,
cosines and coherence; curvatures; what describes the ground on a scale of its author's; class codes."""
SAR_UNITS = ("dB", "power", "amplitude")
POLARISATIONS = ("VV", "VH", "HH", "HV")
POWER_FLOOR = 1e-10
"""Linear power below this is lifted to it before the logarithm (methods.md section 0)."""

# Wavelength ranges (nm) of the common names of optical bands, after the STAC `eo` extension. They leave gaps on purpose: a
# band in none of them has no common name.
_COMMON_NM = {
    "coastal": (400, 450), "blue": (450, 515), "green": (520, 600), "red": (630, 685), "rededge": (690, 795),
    "nir": (800, 900), "water_vapour": (930, 960), "cirrus": (1360, 1390), "swir1": (1550, 1750), "swir2": (2080, 2350),
}  # fmt: skip


@dataclass(frozen=True)
class Band:
    """One band as the sensor's documentation names it."""

    name: str
    unit: str
    gsd_m: float
    centre_nm: float | None = None

    @property
    def common(self) -> str:
        """The sensor-independent name: "green", "swir1" ... for optical bands, else the name itself."""
        if self.centre_nm is None:
            return self.name
        for common, (low, high) in _COMMON_NM.items():
            if low <= self.centre_nm <= high:
                return common
        return self.name


@dataclass(frozen=True)
class Sensor:
    """A sensor, its bands in their official order, and how its stored whole numbers become reflectance."""

    name: str
    bands: tuple[Band, ...]
    scale: float = 1e-4
    offset: float = 0.0
    """reflectance = stored * scale + offset, where the stored numbers are integers."""

    def band(self, name: str) -> Band | None:
        """The band of that sensor or common name, B4 and B04 alike; the band of finest pixels where names are shared."""
        key = canonical(name)
        exact = [b for b in self.bands if canonical(b.name) == key]
        alike = exact or sorted((b for b in self.bands if canonical(b.common) == key), key=lambda b: b.gsd_m)
        return alike[0] if alike else None

    @property
    def is_sar(self) -> bool:
        """True where pixels are radar backscatter."""
        return self.bands[0].unit in SAR_UNITS


def canonical(name: str) -> str:
    """A band name in one spelling: upper case, no leading zeros ("b04" -> "B4"), no separators."""
    return re.sub(r"^B0*(\d+A?)$", r"B\1", re.sub(r"[\s_-]", "", name.upper()))


def _optical(gsd_m: float, **centres_nm: float) -> tuple[Band, ...]:
    return tuple(Band(name, "reflectance", gsd_m, nm) for name, nm in centres_nm.items())


def _classes(*names: str, gsd_m: float) -> tuple[Band, ...]:
    return tuple(Band(name, "class", gsd_m) for name in names)


_S2 = (
    *_optical(60, B01=443), *_optical(10, B02=492, B03=560, B04=665), *_optical(20, B05=704, B06=741, B07=783),
    *_optical(10, B08=833), *_optical(20, B8A=865), *_optical(60, B09=945, B10=1374), *_optical(20, B11=1610, B12=2190),
)  # fmt: skip
_L4S = (
    *(replace(b, unit="digital_number") for b in _S2 if b.name != "B8A"), Band("slope", "relative", 10),
    Band("elevation", "relative", 10),
)  # fmt: skip
_LANDSAT = (
    *_optical(30, B1=443, B2=482, B3=561, B4=655, B5=865, B6=1609, B7=2201), *_optical(15, B8=590), *_optical(30, B9=1373),
)  # fmt: skip

SENSORS: dict[str, Sensor] = {
    s.name: s
    for s in (
        Sensor("sentinel-1", tuple(Band(p, "power", 10) for p in POLARISATIONS)),
        Sensor("sentinel-2-l1c", _S2),
        Sensor("sentinel-2-l2a", (*(b for b in _S2 if b.name != "B10"), *_classes("SCL", gsd_m=20))),
        Sensor("landsat-8-9", (*_LANDSAT, *_classes("QA_PIXEL", gsd_m=30)), scale=2.75e-5, offset=-0.2),
        Sensor("hls-l30", (*(b for b in _LANDSAT if b.name != "B8"), *_classes("Fmask", gsd_m=30))),
        Sensor("hls-s30", (*_S2, *_classes("Fmask", gsd_m=30))),
        Sensor("planetscope", _optical(3, blue=490, green=565, red=665, nir=865)),
        Sensor("vhr-rgb", _optical(0.5, red=660, green=560, blue=480)),
        Sensor("vhr-nir-rgb", _optical(0.5, nir=840, red=660, green=560, blue=480)),
        Sensor("optical", _optical(0, coastal=443, blue=490, green=560, red=660, nir=850, swir1=1610, swir2=2200)),
        Sensor("modis-grey", (Band("grey", "digital_number", 125, 645),)),
        Sensor("copernicus-dem", (Band("elevation", "metres", 30),)),
        Sensor("mask", (Band("mask", "class", 0),)),
        Sensor("landslide4sense", _L4S),
    )
}
"""The known sensors. "optical" is any multispectral sensor whose bands are declared by common names, "mask" a class layer,
"landslide4sense" Sentinel-2 and the ground as that data set stacks and rescales them."""
S2_OFFSET = -0.1
"""Added to Sentinel-2 reflectance from processing baseline 04.00 (25 January 2022) on: stored numbers carry +1000."""


def sensor(name: str) -> Sensor:
    """The known sensor of that name; raises UnknownNameError with the near misses."""
    if name not in SENSORS:
        raise UnknownNameError("sensor", name, SENSORS)
    return SENSORS[name]


def sensors_with(names: Iterable[str]) -> list[Sensor]:
    """Sensors that have a band for every name, exact names before common ones."""
    wanted = list(names)
    exact = [s for s in SENSORS.values() if {canonical(n) for n in wanted} <= {canonical(b.name) for b in s.bands}]
    return exact or [s for s in SENSORS.values() if all(s.band(n) for n in wanted)]


def convert(values: npt.NDArray[np.float32], given: str, wanted: str) -> npt.NDArray[np.float32]:
    """Values in unit `wanted`; backscatter converts between dB, power and amplitude, anything else only to itself.

    dB = 10 log10(power) = 20 log10(amplitude), power lifted to 1e-10 first. NaN stays NaN. Raises BandError otherwise.
    """
    if given == wanted or wanted == "digital_number":
        return values
    if given not in SAR_UNITS or wanted not in SAR_UNITS:
        raise BandError(f"values are in {given}, {wanted} is needed", repair="declare the unit with --unit", code="unit-mismatch")
    exact = values.astype(np.float64)
    power = 10 ** (exact / 10) if given == "dB" else exact**2 if given == "amplitude" else exact
    if wanted == "dB":
        power = 10 * np.log10(np.maximum(power, POWER_FLOOR))
    return np.asarray(np.sqrt(power) if wanted == "amplitude" else power, dtype=np.float32)
