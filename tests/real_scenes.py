"""Small crops of real scenes, one for each kind of image and method, read into memory and written anew as a test wants them.

tests/test_metamorphic_real.py changes them in ways that must not change their maps; tests/golden keeps what their maps say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from odc.geo.geobox import GeoBox

import aftermap as am
from aftermap import raster
from aftermap.tiles import Window
from tests.conftest import SHARED, shared, write

Pixels = npt.NDArray[Any]
ROWS, COLS = 256, 320
"""Lopsided, and multiples of 64, so that tiles of a turned image are those of the image, turned."""


@dataclass(frozen=True)
class Real:
    """One crop: where it lies, what its bands are, how it is mapped, and what is known of it."""

    path: str
    """Below ../shared/data."""
    hazard: str
    method: str
    bands: tuple[str, ...]
    indexes: tuple[int, ...]
    unit: str = ""
    sensor: str = ""
    model: str = ""
    """A bundled network that maps alone, in place of the method."""
    truth: str = ""
    codes: tuple[int, int] = (1, -1)
    """Of the hazard in the truth, 127 where that is all above it, and of what is not known there."""
    corner: tuple[int, int] = (0, 0)
    nodata: float = 0.0
    """Of the file as it is written: for a float NaN."""

    def read(self) -> tuple[Pixels, GeoBox]:
        """Pixels (band, y, x) as stored, and their grid."""
        folder, _, rest = self.path.partition("/")
        found = shared(folder) / rest
        window = Window(*self.corner, ROWS, COLS)
        with raster.open_raster(found) as src:
            return raster.read_open(src, window, self.indexes), raster.facts(found).grid[window.slices]

    def known(self) -> Pixels:
        """The truth (y, x): 1 hazard, 0 none, 255 not known."""
        window = Window(*self.corner, ROWS, COLS)
        with rasterio.open(SHARED / self.truth) as src:
            codes = src.read(1, window=rasterio.windows.Window(window.col, window.row, window.width, window.height))
        return np.where(codes == self.codes[1], 255, codes == self.codes[0] if self.codes[0] != 127 else codes > 127)


S2_CHIP = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")
_FLOODS, _ICE, _SLIDES = "flood_sen1floods11", "glacier_fracture_antarctica/data_trainset", "landslide_tianshui"
REAL: dict[str, Real] = {
    "radar": Real(
        f"{_FLOODS}/S1Hand/Nigeria_812045_S1Hand.tif", "flood", "sar-threshold", ("VV", "VH"), (1, 2), "dB",
        truth=f"{_FLOODS}/LabelHand/Nigeria_812045_LabelHand.tif", nodata=float("nan"), corner=(64, 64),
    ),
    "optical": Real(
        f"{_FLOODS}/S2Hand/Spain_7370579_S2Hand.tif", "flood", "mndwi", ("B03", "B08", "B11"), (3, 8, 12),
        truth=f"{_FLOODS}/LabelHand/Spain_7370579_LabelHand.tif", corner=(64, 64),
    ),
    "landslide": Real(
        f"{_SLIDES}/train_280.jpg", "landslide", "bare-soil", ("nir", "red", "green"), (1, 2, 3), sensor="vhr-nir-rgb",
        truth=f"{_SLIDES}/train_280_label.jpg", codes=(127, -1),
    ),
    "fracture": Real(
        f"{_ICE}/fracture_7x2.tif", "fracture", "gabor", ("grey",), (1,), sensor="modis-grey",
        truth=f"{_ICE}/fracture_7x2_mask.tif", corner=(320, 320), codes=(127, -1),
    ),
    "network": Real(
        f"{_FLOODS}/S1Hand/Nigeria_812045_S1Hand.tif", "flood", "auto", ("VV", "VH"), (1, 2), "dB", model="flood-s1",
        truth=f"{_FLOODS}/LabelHand/Nigeria_812045_LabelHand.tif", nodata=float("nan"), corner=(64, 64),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Given:
    """A scene as it is written: pixels (band, y, x), grid, and what else the file and the command say."""

    real: Real
    pixels: Pixels
    grid: GeoBox
    bands: tuple[str, ...]
    unit: str
    nodata: float
    memory_mb: int = 1000
    save: Callable[[Path, Given], Path] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, real: Real) -> Given:
        """As it is."""
        pixels, grid = real.read()
        return cls(real, pixels, grid, real.bands, real.unit, real.nodata)

    def map(self, out: Path) -> am.HazardMap:
        """Its map by the one method, or the one network."""
        real = self.real
        path = (self.save or _save)(out / "after.tif", self)
        declared = am.Declared(bands=self.bands, sensor=real.sensor, unit=self.unit)
        options = am.Options(
            memory_mb=self.memory_mb, model=real.model or None,
            baseline=not real.model, precision="f32" if real.model else "auto",
            min_area_m2=None if self.grid.crs is None else 0.0,
        )  # fmt: skip
        return am.map(
            path, out=out / "out", hazard=real.hazard, method=real.method, options=options, declared={"after": declared}
        )


def _save(path: Path, given: Given) -> Path:
    return write(path, np.ascontiguousarray(given.pixels), given.grid, given.bands, unit=given.unit, nodata=given.nodata)
