"""Buildings as a network itself outlines them, where no footprints were given: walls that touch are one building to it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from affine import Affine
from odc.geo.geobox import GeoBox

from aftermap.features import Features
from aftermap.outline import Classes, outlines, take_census
from aftermap.products.buildings import Grader
from aftermap.scene import Scene
from aftermap.tiles import Window
from aftermap.vector import GeoPackageWriter, Layer

LEAST_M2, LEAST_PX = 20.0, 12.0
"""Smaller outlines are none: a garage has some 20 m2; without a scale, what a roof must have to be compared (footprint.py)."""


class Levels(Protocol):
    """The parts of a map, as far as classes go (predict.py)."""

    def classes(self, window: Window, count: int) -> npt.NDArray[np.uint8]: ...


def own_outlines(
    scene: Scene, parts: Levels, grader: Grader, windows: Collection[Window],
    area: Callable[[Window], npt.NDArray[np.float64]], scratch: Path,
) -> Features:  # fmt: skip
    """What is likelier a building of any grade than not, in pixels, in a file in `scratch`; in bounded memory."""

    def built(window: Window) -> npt.NDArray[np.uint8]:
        levels = parts.classes(window, len(grader.classes))[grader.places].sum(axis=0, dtype=np.uint16)  # (y, x)
        return np.asarray(2 * levels > grader.levels, np.uint8)

    classes = Classes(built, windows, scene.shape, area)
    found = Features(scratch / "scratch-outlines.gpkg", 0)
    shape, number = (int(scene.grid.shape[0]), int(scene.grid.shape[1])), 0
    with GeoPackageWriter(
        found.path, GeoBox(shape, Affine.identity(), None), [Layer("parts", "Unknown", {"feature": "integer"})]
    ) as out:
        least = {1: LEAST_PX if scene.grid.crs is None else LEAST_M2}
        for piece in outlines(classes, take_census(classes), Affine.identity(), min_area_m2=least):
            shapes = piece.outlines.only(1).geometry
            out.write("parts", shapes, {"feature": number + np.arange(len(shapes))})
            number += len(shapes)
    return Features(found.path, number)
