"""Classes that someone knows, on a scene's grid by window: a raster of codes, or polygons of the hazard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from aftermap import raster, vector
from aftermap.errors import InputRefusedError, UsageError
from aftermap.tiles import Window, blocks

F32 = npt.NDArray[np.float32]
I16 = npt.NDArray[np.int16]
WINDOW_PX, MOST = 1024, 64
UNKNOWN = -1


@dataclass(frozen=True)
class Reference:
    """Places (y, x) among `codes`, -1 where nothing is known."""

    path: Path
    codes: tuple[int, ...]
    """As the raster has them; of polygons 0 beside them and 1 within."""
    _stored: Callable[[Window], F32] = field(repr=False, compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes, in words."""
        return tuple(f"class {code}" for code in self.codes)

    def read(self, window: Window) -> I16:
        """As the class says."""
        stored = self._stored(window)
        known = _known(stored)
        found = np.full(stored.shape, UNKNOWN, np.int16)
        found[known] = np.searchsorted(self.codes, stored[known])
        return found


def open_reference(path: Path, grid: GeoBox, *, band: int = 1) -> Reference:
    """A raster of classes by nearest neighbour (negative codes, 255 and nodata: unknown), or polygons, on a grid.

    Raises UsageError, InputRefusedError ("no-overlap", "truth-codes") and the errors of reading.
    """
    stored = _polygons(path, grid) if vector.is_vector(path) else _codes(path, grid, band)
    shape = (int(grid.shape[0]), int(grid.shape[1]))
    found: set[float] = set()
    for window in blocks(shape, WINDOW_PX):
        pixels = stored(window)
        found |= set(np.unique(pixels[_known(pixels)]).tolist())
        if len(found) > MOST or any(code % 1 for code in found):
            raise InputRefusedError(
                f"{path.name} holds {'numbers with fractions' if any(c % 1 for c in found) else f'more than {MOST} codes'}",
                repair="give a raster of classes, or polygons of the hazard", code="truth-codes",
            )  # fmt: skip
    if not found:
        raise InputRefusedError(
            f"{path.name} knows no pixel of the scene", repair="give a reference of the same place", code="no-overlap"
        )
    return Reference(path, tuple(sorted(int(code) for code in found)), stored)


def _known(stored: F32) -> npt.NDArray[np.bool_]:
    return np.asarray(np.isfinite(stored) & (stored >= 0) & (stored != 255), np.bool_)


def _codes(path: Path, grid: GeoBox, band: int) -> Callable[[Window], F32]:
    known = raster.facts(path)
    if band not in known.indexes:
        what = f"{path.name} has no band {band}; it has {', '.join(map(str, known.indexes))}"
        raise UsageError(what, repair="correct --reference-band")
    reader = raster.Reader(path, grid, [band], classes=True)
    return lambda window: reader.read(window)[0]


def _polygons(path: Path, grid: GeoBox) -> Callable[[Window], F32]:
    shapes = vector.read_polygons(path, grid)
    if not any(grid.extent.geom.intersects(shape) for shape in shapes):
        raise InputRefusedError(
            f"the polygons of {path.name} lie wholly beside the scene", repair="give those of the same place", code="no-overlap"
        )
    return lambda window: vector.rasterise(shapes, grid, window).astype(np.float32)
