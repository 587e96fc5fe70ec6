"""From stored values to a chip: images as float32 with NaN where not observed, masks as class codes with 255 unknown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap import limits, raster
from aftermap.chips import F32, U8, Bool, Chip, Codes, recode
from aftermap.datasets.dataset import Member
from aftermap.errors import InputRefusedError, RasterError
from aftermap.tiles import Window

_ENDS = {b"\x89PNG": b"IEND", b"\xff\xd8\xff": b"\xff\xd9"}
"""How PNG and JPEG begin and end; names do not tell, for web maps serve JPEG as .png."""
_TAIL = 1024
REFLECTANCE = np.float32(1e-4)
"""Sentinel-2 products before baseline 04.00 store reflectance times 10,000."""


def stored(path: Path, bands: Sequence[int] = (), window: Window | None = None) -> npt.NDArray[Any]:
    """Values (band, y, x) as stored; all bands and the whole image by default. Raises RasterError."""
    _refuse_cut(path)
    with raster.open_raster(path) as src:
        every = window or Window(0, 0, src.height, src.width)
        size = every.height * every.width * len(bands or src.indexes) * np.dtype(src.dtypes[0]).itemsize
        limits.refuse_above("ARRAY_BYTES", size, path.name)
        return raster.read_open(src, every, bands or src.indexes, name=path.name)


def _refuse_cut(path: Path) -> None:
    """GDAL reads a picture that ends too early without a word: its last bytes must be there. Raises RasterError."""
    if not path.is_file():
        return
    with path.open("rb") as stream:
        first = stream.read(4)
        ends = next((end for start, end in _ENDS.items() if first.startswith(start)), b"")
        stream.seek(max(0, path.stat().st_size - _TAIL))
        if ends not in stream.read():
            raise RasterError(f"{path.name} is truncated", repair="copy or download it again", code="truncated")


def image(path: Path, bands: Sequence[int] = (), *, nodata: float | None = None) -> F32:
    """Values (band, y, x) as float32, NaN where they are `nodata`."""
    pixels = stored(path, bands).astype(np.float32)
    if nodata is not None:
        pixels[pixels == np.float32(nodata)] = np.nan
    return pixels


def mask(path: Path, codes: Codes, *, band: int = 1) -> U8:
    """Class codes (y, x) of a band of stored ones."""
    return recode(stored(path, [band])[0], codes, path.name)


def blackened(pixels: F32) -> F32:
    """Pixels (band, y, x) with NaN where every band is 0: fill where a scene ends, in products that mark it no other way."""
    pixels[:, (pixels == 0).all(axis=0)] = np.nan
    return pixels


def chip(
    member: Member,
    pixels: F32,
    truth: U8 | None = None,
    *,
    bands: tuple[str, ...],
    unit: str | tuple[str, ...],
    domain: str,
    target: float | int | tuple[int, ...] | None = None,
    window: Window | None = None,
) -> Chip:
    """The chip of a member; observed where every band is finite. Raises InputRefusedError where sizes do not fit."""
    pixels = np.ascontiguousarray(pixels, np.float32)
    if len(pixels) != len(bands):
        raise _strange(member, f"{len(pixels)} bands where {len(bands)} are expected ({', '.join(bands)})")
    if truth is not None and truth.shape != pixels.shape[1:]:
        raise _strange(member, f"an image of {pixels.shape[1:]} px and a mask of {truth.shape}")
    return Chip(
        pixels=pixels, valid=seen(pixels), truth=truth, bands=bands, unit=unit, name=member.name, event=member.event,
        domain=domain, window=window, target=target,
    )  # fmt: skip


def seen(pixels: F32) -> Bool:
    """True (y, x) where every band (band, y, x) was observed."""
    return np.asarray(np.isfinite(pixels).all(axis=0))


def _strange(member: Member, what: str) -> InputRefusedError:
    return InputRefusedError(f"{member.name} has {what}", repair="fetch it again", code="corrupt-member")
