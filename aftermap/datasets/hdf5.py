"""HDF5 and NetCDF-4 files of others, opened: no other file behind their names, no array larger than allowed. The door to h5py."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from threading import RLock
from typing import Any

from aftermap import limits
from aftermap.datasets.dataset import extra_missing
from aftermap.errors import InputRefusedError

METADATA_BYTES, _LOOKUP = 512 << 20, RLock()
_SIGNATURE, _SUPERBLOCK = b"\x89HDF\r\n\x1a\n", 256
"""What a file begins with, after a block of the user's that may come first, and bytes that hold the addresses."""


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file, to be read while the context lasts. Raises OSError where it is none, UsageError ("extra-missing")."""
    try:
        import h5py
    except ImportError as error:
        raise extra_missing("h5py") from error
    _refuse_driver(path)
    with _bounded():
        file = h5py.File(path, "r")
    with file:
        yield file


@contextmanager
def _bounded() -> Iterator[None]:
    """Metadata that lead into one another have the library take memory until the process is ended (found by fuzzing); it has
    no setting against that. On Linux a lookup, one at a time, gets METADATA_BYTES; beyond, it is a RuntimeError or KeyError."""
    if sys.platform != "linux":
        yield
        return
    import resource

    with _LOOKUP:
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + METADATA_BYTES
        if soft == resource.RLIM_INFINITY or soft > most:
            resource.setrlimit(resource.RLIMIT_AS, (most, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _refuse_driver(path: Path) -> None:
    """A superblock of the first two versions may send the library to a block of its driver, for which it takes up to 4 GB before
    it looks (HDF5 File Format Specification 3.0, II.A). What lies in one file has none. Raises OSError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        starts = (0, *(512 << k for k in range(size.bit_length())))
        for start in (at for at in starts if at < size):
            file.seek(start)
            head = file.read(_SUPERBLOCK)
            if head.startswith(_SIGNATURE):
                break
        else:
            return  # the library says that it is no such file
    width, at = head[13:14], 24 + 4 * (head[8:9] == b"\x01")
    if head[8:9] not in (b"\x00", b"\x01") or not width:
        return
    driver = head[at + 3 * width[0] : at + 4 * width[0]]
    if driver != b"\xff" * width[0] or not driver:
        raise OSError(f"the superblock of {path.name} is cut off, or names a block of a file driver")


def held(group: Any, name: str) -> Any:
    """What a group holds under a name, "a/b" of groups in one another. Raises KeyError where nothing, InputRefusedError
    ("points-elsewhere") where it lies in another file, ("too-large") where it is larger than allowed."""
    import h5py

    for part in name.strip("/").split("/"):
        with _bounded():
            link = group.get(part, getlink=True)
            if link is not None and not isinstance(link, h5py.HardLink):
                raise _elsewhere(group, part)
            group = group[part]
    if isinstance(group, h5py.Dataset):
        refuse_claims(group)
    return group


def refuse_claims(array: Any) -> None:
    """Of a dataset whose values lie in another file, or are more than allowed. Raises as `held`."""
    if array.is_virtual or array.external:
        raise _elsewhere(array.parent, array.name)
    what = f"{array.name} of {Path(array.file.filename).name}"
    limits.refuse_above("ARRAY_BYTES", prod(array.shape or (0,)) * array.dtype.itemsize, what)
    limits.refuse_above("BLOCK_BYTES", prod(array.chunks or (0,)) * array.dtype.itemsize, what)


def _elsewhere(group: Any, name: str) -> InputRefusedError:
    what = f"{name} of {Path(group.file.filename).name} is a link, or lies in another file"
    return InputRefusedError(what, repair="copy it into the file (h5repack)", code="points-elsewhere")
