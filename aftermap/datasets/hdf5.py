"""HDF5 and NetCDF-4 files of others, opened: no other file behind their names, no array larger than allowed. The door to h5py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

from aftermap import limits
from aftermap.datasets.dataset import extra_missing
from aftermap.errors import InputRefusedError


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file, to be read while the context lasts. Raises OSError where it is none, UsageError ("extra-missing")."""
    try:
        import h5py
    except ImportError as error:
        raise extra_missing("h5py") from error
    with h5py.File(path, "r") as file:
        yield file


def held(group: Any, name: str) -> Any:
    """What a group holds under a name, "a/b" of groups in one another. Raises KeyError where nothing, InputRefusedError
    ("points-elsewhere") where it lies in another file, ("too-large") where it is larger than allowed."""
    import h5py

    for part in name.strip("/").split("/"):
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
