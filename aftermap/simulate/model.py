"""A real elevation model as the terrain of a simulated scene: its relief, and the drainage that is routed on it.

Textures and the shapes of slides take a pixel for a square of its area; slopes and catchments go by its true sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox
from scipy import ndimage

from aftermap import raster
from aftermap.area import pixel_area_m2, pixel_size_m, pixel_spacing_m
from aftermap.drainage import CHANNEL_KM2, ELEVATION, MOST_CELLS, accumulate, drained, receive
from aftermap.errors import UsageError
from aftermap.layer import open_layer
from aftermap.scene import Scene
from aftermap.simulate.files import LEAST_PX, Layer, Make, Place, check_scene
from aftermap.simulate.terrain import Field, Ground, Terrain
from aftermap.tiles import Window

CHANNEL_SHARE = 0.02
"""Catchments of this share of the model make a channel where that is less than usual: small models hold brooks only."""
RIVER_CHANNELS = 10
"""A river shows as water from so many times a channel's catchment on."""
RIVER_M = 15.0
"""Half the width of such a river."""
FAR_M = 1e5
"""Distance to a river, and height above drainage, where there is none."""
SIZE_PX = 2048
"""Side of a scene unless told otherwise."""
FINEST_M, COARSEST_M = 1.0, 120.0
"""Pixels of a model on which a scene can be made."""
_METRES = ("", "m", "metre", "metres", "meter", "meters")


@dataclass(frozen=True, eq=False)
class Model:
    """Fields (y, x) of a whole elevation model, in metres where they are lengths; `known` is False where it has no data."""

    name: str
    grid: GeoBox
    gsd_m: float
    known: npt.NDArray[np.bool_]
    whole: Terrain

    def terrain(self, ground: Ground) -> Terrain:
        """The terrain of a window; beyond the model its edge goes on."""
        rows = np.clip(np.arange(ground.row, ground.row + ground.height), 0, self.grid.shape[0] - 1)
        cols = np.clip(np.arange(ground.col, ground.col + ground.width), 0, self.grid.shape[1] - 1)
        return Terrain(**{name: field[np.ix_(rows, cols)] for name, field in vars(self.whole).items()})

    def heights(self, ground: Ground) -> Field:
        """Elevation (y, x) at the pixels of a window of any pixel size; beyond the model its edge goes on."""
        return self._at(ground, self.whole.elevation, "nearest")

    def rises(self, ground: Ground) -> tuple[Field, Field]:
        """Rise (y, x) southward and eastward at the pixels of a window of any pixel size; 0 beyond the model."""
        south, east = (self._at(ground, f, "constant") for f in (self.whole.rise_south, self.whole.rise_east))
        return south, east

    def _at(self, ground: Ground, field: Field, beyond: Literal["nearest", "constant"]) -> Field:
        south, east = ground.south_m[:, 0] / self.gsd_m - 0.5, ground.east_m[0] / self.gsd_m - 0.5
        places = np.stack(np.meshgrid(south, east, indexing="ij"))
        return np.asarray(ndimage.map_coordinates(field, places, order=1, mode=beyond), np.float32)

    def cut(self, size: int | None) -> GeoBox:
        """The model's grid, or its north-west corner of that many pixels a side."""
        height, width = (int(n) for n in self.grid.shape)
        return self.grid if size is None else self.grid[: min(size, height), : min(size, width)]

    def masked(self, make: Make, layers: Mapping[str, Layer]) -> Make:
        """`make` with every layer not observed where the elevation is not known."""

        def observed(row: int, col: int) -> Mapping[str, npt.NDArray[Any]]:
            made = make(row, col)
            first = next(iter(made.values())).shape[1]
            known = self.known[row * first : (row + 1) * first, col * first : (col + 1) * first]
            for name in layers:
                made[name][:, : known.shape[0], : known.shape[1]][:, ~known] = layers[name].nodata
            return made

        return observed


@dataclass(frozen=True)
class Site:
    """Where a scene is made: on a real model's grid, or on the endless plane of a seed."""

    grid: GeoBox
    gsd_m: float
    model: Model | None = None

    @property
    def words(self) -> str:
        """What the tag of the files adds."""
        return f" dem={self.model.name}" if self.model else ""

    def masked(self, make: Make, layers: Mapping[str, Layer]) -> Make:
        """`make`, not observed where a model is not known."""
        return self.model.masked(make, layers) if self.model else make


def chosen_site(
    place: Place, dem: Path | None, *, size: int | None, seed: int, gsd_m: float | None, usual_m: float
) -> Site:  # fmt: skip
    """The site of a scene; with `dem` pixel and grid are the model's. Raises UsageError."""
    if dem is None:
        check_scene(size or SIZE_PX, seed, usual_m if gsd_m is None else gsd_m)
        return Site(place.grid(size or SIZE_PX, gsd_m or usual_m), gsd_m or usual_m)
    if gsd_m is not None:
        raise UsageError("--gsd-m is that of --dem", repair="leave it out", code="bad-value")
    model = read_model(dem)
    check_scene(size or SIZE_PX, seed, model.gsd_m, finest_m=FINEST_M, coarsest_m=COARSEST_M)
    return Site(model.cut(size), model.gsd_m, model)


def read_model(path: Path) -> Model:
    """The elevation model of a file, read whole and routed. Raises UsageError: size, rotated, no CRS, no data, not in metres."""
    layer = open_layer("dem", [path])
    _refuse(path, layer.grid)
    if stated := [u for u in raster.facts(path).units if u.lower() not in _METRES]:
        raise UsageError(f"{path.name} states elevation in {stated[0]}", repair="convert it to metres", code="bad-value")
    height, width = (int(n) for n in layer.grid.shape)
    scene = Scene(path.stem, "flood", "", layer.grid, {"dem": layer})
    heights = scene.read(ELEVATION, Window(0, 0, height, width))[0]
    known = np.isfinite(heights)
    if not known.any():
        raise UsageError(f"{path.name} holds no elevation", repair="give a model with data", code="bad-value")
    size = pixel_size_m(layer.grid)
    assert size is not None
    return Model(path.name, layer.grid, size, known, _terrain(heights, known, layer.grid, size))


def _refuse(path: Path, grid: GeoBox) -> None:
    height, width = (int(n) for n in grid.shape)
    if grid.crs is None or grid.affine.b or grid.affine.d or grid.affine.e > 0:
        raise UsageError(f"{path.name} is not north-up on a CRS", repair="warp it with gdalwarp first", code="bad-value")
    if height * width > MOST_CELLS or min(height, width) < LEAST_PX:
        what = f"{path.name} has {height:,} x {width:,} pixels"
        repair = f"cut it to {LEAST_PX} a side at least and {MOST_CELLS:,} in all at most, for drainage is routed on the whole"
        raise UsageError(what, repair=repair, code="bad-value")


def _terrain(heights: Field, known: npt.NDArray[np.bool_], grid: GeoBox, size_m: float) -> Terrain:
    """Relief by central differences, and height above the drainage that the model itself carries."""
    column = Window(0, heights.shape[1] // 2, heights.shape[0], 1)
    across, down = pixel_spacing_m(grid, column)
    area = pixel_area_m2(grid, column)
    receivers = receive(heights, across, down)
    catchment = accumulate(receivers, area)
    channel_m2 = min(CHANNEL_KM2 * 1e6, CHANNEL_SHARE * float(area.sum()) * heights.shape[1])
    hand = np.maximum(heights - drained(heights, receivers, catchment, channel_m2), 0)
    river = (catchment >= RIVER_CHANNELS * channel_m2).reshape(heights.shape) & known
    valley = ndimage.distance_transform_edt(~river) * size_m if river.any() else np.full(heights.shape, FAR_M)
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    filled = heights[tuple(nearest)]
    south, east = np.gradient(filled)
    fields = (filled, east / across, south / down, np.where(np.isfinite(hand), hand, FAR_M), valley)
    elevation, rise_east, rise_south, above, away = (np.asarray(f, np.float32) for f in fields)
    return Terrain(elevation, rise_east, rise_south, above, away, valley <= max(RIVER_M, 0.5 * size_m))
