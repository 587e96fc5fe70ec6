"""The raster products: written by window, finished as Cloud Optimized GeoTIFF with palettes and descriptions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
from odc.geo.geobox import GeoBox

from aftermap import palette, raster
from aftermap.tiles import Window

_EXCLUSION_CODES = ", ".join(f"{code} {label}" for code, (label, _) in palette.EXCLUSION.items() if code != palette.NODATA)


@dataclass(frozen=True)
class RasterProduct:
    """One raster of a delivered map; `description` says codes and units in the band itself."""

    file: str
    dtype: str
    nodata: float | None
    description: str
    overview: str
    palette: dict[int, palette.Colour] | None = None


UNCALIBRATED = ("score", "spread", "familiarity")
"""Rasters that no calibration of the likelihood reaches."""
_CLEAR = (0, 0, 0, 0)
RASTERS = {
    "likelihood": RasterProduct(
        "likelihood.tif", "uint8", 255, "likelihood of {what} in percent, {calibration}; 255 not analysed", "average"
    ),
    "extent": RasterProduct(
        "extent.tif", "uint8", 255, "{what}: 1 yes, 0 no; 255 not analysed", "nearest",
        {0: _CLEAR, 1: palette.EXTENT, 255: palette.NOT_ANALYSED},
    ),
    "exclusion": RasterProduct(
        "exclusion.tif", "uint8", None, _EXCLUSION_CODES, "nearest", {c: colour for c, (_, colour) in palette.EXCLUSION.items()}
    ),
    "agreement": RasterProduct(
        "agreement.tif", "uint8", 255, "how many methods, of {methods}, call it {what}; 255 not analysed", "nearest"
    ),
    "spread": RasterProduct(
        "spread.tif", "uint8", 255, "standard deviation in percent, 0 to 50, of {members}; 255 not analysed", "average"
    ),
    "familiarity": RasterProduct(
        "familiarity.tif", "uint8", 255,
        "percent of the validation chips of {knows} at least as far from its training as the cell; 255 not observed", "nearest"
    ),
    "score": RasterProduct(
        "score.tif", "float32", float("nan"), "score of {what} in [0, 1], uncalibrated; NaN not analysed", "average"
    ),
}  # fmt: skip


class RasterSet:
    """Scratch rasters of a map, written window by window; `finish` makes them Cloud Optimized GeoTIFFs in `stage`."""

    def __init__(self, names: Sequence[str], grid: GeoBox, scratch: Path, stage: Path, words: dict[str, str]):
        self._stage, self.names = stage, tuple(names)
        self._writers = {
            n: raster.Writer(
                scratch / f"scratch-{n}.tif", grid, dtype=RASTERS[n].dtype, nodata=RASTERS[n].nodata, palette=RASTERS[n].palette,
                descriptions=[RASTERS[n].description.format(**words)],
                tags={"AFTERMAP_CALIBRATION": "uncalibrated" if n in UNCALIBRATED else words["calibration"]},
            )
            for n in names
        }  # fmt: skip

    def write(self, name: str, pixels: npt.NDArray[Any], window: Window) -> None:
        """Writes pixels (y, x) of one product."""
        self._writers[name].write(pixels[None], window)

    def finish(self) -> None:
        """Closes the scratch rasters and finishes each as `stage`/FILE."""
        for name, writer in self._writers.items():
            writer.finish(self._stage / RASTERS[name].file, overview=RASTERS[name].overview)
