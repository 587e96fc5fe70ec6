"""The inventory of a simulated event, as mappers draw them: a point at the head of each slide that bared ground in the scene."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from aftermap import vector
from aftermap.raster import BLOCK_PX
from aftermap.simulate.files import Make
from aftermap.simulate.slides import REACH_M, TILE_M, Slopes, slides
from aftermap.simulate.strokes import Stroke, strokes_near
from aftermap.simulate.terrain import Ground

FILE, LAYER = "inventory.gpkg", "landslide_heads"
_FIELDS = {"area_m2": "real", "event": "text"}


@dataclass(frozen=True)
class Inventory:
    """Slides of one event, gathered while the blocks of a scene are made."""

    seed: int
    slopes: Slopes
    gsd_m: float
    event: str
    density: float
    _found: dict[tuple[float, float], float] = field(default_factory=dict, repr=False)
    """Head (south, east) in metres of the plane -> area in m2."""

    def watched(self, make: Make) -> Make:
        """`make`, whose truth (its first band the slides) tells which slides show: none does under snow or water alone."""

        def watching(row: int, col: int) -> Mapping[str, npt.NDArray[Any]]:
            made = make(row, col)
            self._watch(row, col, made["truth"][0] == 1)
            return made

        return watching

    def _watch(self, row: int, col: int, slid: npt.NDArray[np.bool_]) -> None:
        ground = Ground(self.seed, row * BLOCK_PX, col * BLOCK_PX, BLOCK_PX, BLOCK_PX, self.gsd_m)
        for stroke in strokes_near(ground, TILE_M, REACH_M, self._of_tile):
            line, last = np.floor(stroke.points / self.gsd_m).astype(int) - (ground.row, ground.col), BLOCK_PX
            y, x = line[((line >= 0) & (line < last)).all(axis=1)].T
            if slid[y, x].any():
                south, east = stroke.points[0].tolist()
                self._found[south, east] = area_m2(stroke)

    def _of_tile(self, row: int, col: int) -> tuple[Stroke, ...]:
        return slides(self.seed, self.slopes, self.event, self.density, row, col)

    def write(self, path: Path, grid: GeoBox) -> None:
        """A GeoPackage of the heads within the grid, northernmost first, with `area_m2` and `event` ("after")."""
        height, width = (int(n) * self.gsd_m for n in grid.shape)
        heads = sorted(h for h in self._found if 0 <= h[0] < height and 0 <= h[1] < width)
        xy = [(east / self.gsd_m, south / self.gsd_m) for south, east in heads]
        columns: dict[str, vector.Values] = {"area_m2": [self._found[h] for h in heads], "event": ["after"] * len(heads)}
        with vector.GeoPackageWriter(path, grid, [vector.Layer(LAYER, "Point", _FIELDS)]) as out:
            out.write(LAYER, vector.place(vector.points(xy), grid.affine), columns)


def area_m2(stroke: Stroke) -> float:
    """The area that a stroke was drawn with, before its rim is frayed: its widths along its steps."""
    steps = np.hypot(*np.diff(stroke.points, axis=0).T)
    widths = stroke.half_width[1:] + stroke.half_width[:-1]
    return float((steps * widths).sum())
