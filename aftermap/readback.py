"""What was written read back: GDAL may close a file on a full disk without a word, and the file then opens, or is cut off.

Every window is compared by its CRC-32 with what was given; of overviews each tile has to be there and to decode.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio._err
import rasterio.errors
import rasterio.windows

from aftermap.tiles import Window, blocks

FAILED = (rasterio.errors.RasterioError, rasterio._err.CPLE_BaseError)
"""What GDAL raises where a file cannot be written or read; the second comes through uncaught where rasterio copies a file."""


def mark(pixels: npt.NDArray[Any]) -> int:
    """CRC-32 of pixels as they lie in a file."""
    return crc32(np.ascontiguousarray(pixels).view(np.uint8).data)


def refuse_unlike(path: Path, written: Mapping[Window, int]) -> None:
    """Raises OSError where a window (band, y, x) differs from its `mark`, or a tile of an overview cannot be read."""
    try:
        with rasterio.open(path) as src:
            unlike = next((at for at, known in written.items() if mark(src.read(window=native(at))) != known), None)
            levels = range(len(src.overviews(1)) if src.count else 0)
        for level in levels:
            _decode(path, level)
    except FAILED as error:
        raise OSError(f"{path.name} was not written whole: {error}") from error
    if unlike is not None:
        raise OSError(f"{path.name} was not written whole: row {unlike.row}, column {unlike.col} is not what was written there")


def _decode(path: Path, level: int) -> None:
    with rasterio.open(path, overview_level=level) as src:
        side = max(src.block_shapes[0])
        for at in blocks(src.shape, side):
            src.read(window=native(at))


def native(window: Window) -> Any:
    """As rasterio has windows."""
    return rasterio.windows.Window(window.col, window.row, window.width, window.height)
