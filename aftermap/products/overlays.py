"""The rasters of `aftermap explain`: attention, what it keeps, and clusters, on the pixels of the scene."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from aftermap import palette, raster
from aftermap.tiles import Window

UNSEEN = 255
_ATTENTION = "attention of {}: 1 is as much as at any patch of its square; NaN not seen"
_KEPT = "where {} holds {:g} of its attention: 1 yes, 0 no; 255 not seen"


class Overlays:
    """Scratch rasters written block by block; `finish` makes them Cloud Optimized GeoTIFFs in `stage`."""

    def __init__(self, grid: GeoBox, stage: Path, *, heads: int, groups: int, mass: float | None):
        planes = [*(f"head {k + 1}" for k in range(heads)), "the mean of the heads"]
        kept = [] if mass is None else [_KEPT.format(p, mass) for p in planes]
        clear = {0: (0, 0, 0, 0), UNSEEN: (0, 0, 0, 0)}
        self._stage = stage
        self._overviews = {"attention": "average", "clusters": "nearest"} | ({"mask": "nearest"} if kept else {})
        self._writers = {
            "attention": self._writer("attention", grid, "float32", [_ATTENTION.format(p) for p in planes], float("nan"), None),
            "clusters": self._writer(
                "clusters", grid, "uint8", [f"cluster of the tokens, 1 to {groups}, the largest first; 255 not seen"], UNSEEN,
                clear | palette.clusters(groups),
            ),
        }  # fmt: skip
        if kept:
            self._writers["mask"] = self._writer("mask", grid, "uint8", kept, UNSEEN, None)

    def _writer(
        self, name: str, grid: GeoBox, dtype: str, words: list[str], nodata: float, colours: dict[int, palette.Colour] | None
    ) -> raster.Writer:
        path = self._stage / f"scratch-{name}.tif"
        return raster.Writer(path, grid, dtype=dtype, descriptions=words, nodata=nodata, palette=colours)

    def write(self, planes: Mapping[str, npt.NDArray[Any]], there: npt.NDArray[np.bool_], window: Window, patch: int) -> None:
        """One block by name of the raster: patches (plane, row, col), as pixels where those (y, x) are `there`."""
        for name, writer in self._writers.items():
            own = enlarged(planes[name], patch, there.shape)
            own[:, ~there] = np.nan if name == "attention" else UNSEEN
            writer.write(own, window)

    def finish(self) -> list[Path]:
        """Closes the scratch rasters and gives the finished ones."""
        made = []
        for name, writer in self._writers.items():
            writer.finish(self._stage / f"{name}.tif", overview=self._overviews[name])
            made.append(self._stage / f"{name}.tif")
        return made


def enlarged(planes: npt.NDArray[Any], patch: int, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Patches (plane, row, col) as pixels (plane, y, x), cut at `shape`."""
    return planes.repeat(patch, axis=1).repeat(patch, axis=2)[:, : shape[0], : shape[1]]
