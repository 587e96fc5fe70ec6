"""A raster opened: by a driver of drivers.py, no larger than limits.py allows, naming no file that it should not. Beside
raster.py at the door to rasterio."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.errors
from rasterio._env import set_gdal_config
from rasterio.enums import Interleaving
from rasterio.env import ensure_env
from rasterio.io import DatasetReader

from aftermap import archive, drivers, limits, vrtfile
from aftermap.errors import InputRefusedError, RasterError


def _register() -> None:
    """The drivers of drivers.py, where nobody has registered others before."""
    logger = logging.getLogger("rasterio._env")
    silent = logger.disabled
    logger.disabled = True  # GDAL says of each name that it does not know that it does not know it
    set_gdal_config("GDAL_SKIP", drivers.skipped(drivers.OTHERS))
    with rasterio.Env():
        logger.disabled = silent


_register()

BROKEN = (rasterio.errors.RasterioError, OSError)
"""What reading a damaged or distant file raises."""


def open_raster(path: Path) -> Any:
    """An open rasterio dataset; RasterError names the file and the reason, InputRefusedError ("too-large") what is too much."""
    if not archive.home(path).exists():
        raise RasterError(f"there is no file {path}", repair="check the path", code="missing-file")
    if path.is_dir():
        raise RasterError(
            f"{path} is a folder", repair="give the image files in it, bands stacked or one per file", code="folder"
        )
    try:
        virtual = archive.home(path) == path and vrtfile.is_vrt(path)
        if virtual:
            vrtfile.refuse_unsafe(path)
        src = _opened(archive.gdal_name(path), ["VRT"] if virtual else list(drivers.raster()))
    except (*BROKEN, ValueError) as error:
        raise unreadable(path, error) from error
    try:
        _refuse_claims(src, path)
    except (InputRefusedError, ValueError) as error:
        src.close()
        if isinstance(error, InputRefusedError):
            raise
        raise unreadable(path, error) from error
    return src


def unreadable(path: Path, error: Exception) -> RasterError:
    """The error for a file that is no image, or states what cannot be read: names that are no text, a CRS that is none."""
    return RasterError(f"{path.name} cannot be read as an image: {error}", repair="fetch or export it again", code="unreadable")


@ensure_env  # type: ignore[untyped-decorator]
def _opened(name: str, of: list[str]) -> Any:
    """rasterio.open takes one driver, or tries all."""
    return DatasetReader(name, driver=of)


def _refuse_claims(src: Any, path: Path) -> None:
    """Of sizes above what is allowed, and of other files. Raises InputRefusedError ("too-large", "points-elsewhere")."""
    height, width = src.block_shapes[0] if src.count else (1, 1)
    pixel = max([np.dtype(t).itemsize for t in src.dtypes if not t.startswith("complex")], default=8)
    interleaved = src.count if src.interleaving == Interleaving.pixel else 1
    limits.refuse_above("RASTER_BANDS", src.count, path.name)
    limits.refuse_above("RASTER_PX", src.height * src.width, path.name)
    limits.refuse_above("BLOCK_BYTES", height * width * pixel * interleaved, path.name)
    blocks = -(-src.height // height) * -(-src.width // width) * (1 if interleaved > 1 else src.count)
    limits.refuse_above("RASTER_BLOCKS", blocks, path.name)
    if domain := next((name for name in src.tag_namespaces() if name in vrtfile.FOREIGN and src.tags(ns=name)), ""):
        what = f"{path.name} names other files in its {domain} metadata"
        raise RasterError(what, repair="write it anew with gdal_translate -nomd", code="points-elsewhere")
