"""Folders of the Copernicus archive as delivered: a Sentinel-2 .SAFE to its band files; what cannot be mapped yet is refused."""

from __future__ import annotations

import re
from pathlib import Path

from aftermap.errors import RasterError

_BAND = re.compile(r"_(B\d[\dA]|SCL)(?:_(\d0)m)?$")
"""End of a band file's name, without the previews, aerosol and water vapour beside it; level 1C states no pixel size."""


def expand(path: Path) -> list[Path]:
    """The band files of a Sentinel-2 product, each band at its finest; any other path as it is. Raises RasterError."""
    name = path.name.upper()
    if re.match(r"S1[A-D]_", name) and (path.is_dir() or name.endswith(".ZIP")):
        raise RasterError(
            f"{path.name} holds radar digital numbers in radar geometry",
            repair="calibrate and terrain-correct it first (SNAP, pyroSAR, or an RTC product), then give the GeoTIFFs",
            code="sar-uncalibrated",
        )
    if name.endswith(".ZIP"):
        raise RasterError(f"{path.name} is packed", repair="unpack it and give the .SAFE folder in it", code="packed")
    return _bands(path) if path.is_dir() and name.endswith(".SAFE") else [path]


def _bands(product: Path) -> list[Path]:
    finest: dict[str, tuple[int, Path]] = {}
    for file in sorted(product.glob("GRANULE/*/IMG_DATA/**/*.jp2")):
        if found := _BAND.search(file.stem):
            size = int(found[2] or 0)
            finest[found[1]] = min(finest.get(found[1], (size, file)), (size, file))
    if not finest:
        raise RasterError(f"{product.name} holds no band files", repair="unpack or download it again", code="safe-empty")
    return [file for _, file in finest.values()]
