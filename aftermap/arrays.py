"""Plain arrays by name in one npz file: written whole or not at all, read without unpickling."""

from __future__ import annotations

import zipfile
import zlib
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap import limits

BROKEN = (OSError, ValueError, KeyError, TypeError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What a damaged file, or one of other arrays, makes `read` raise."""


def write(path: Path, **arrays: npt.NDArray[Any]) -> None:
    """The same bytes for the same arrays."""
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]
    partial.replace(path)


def read(path: Path, *names: str) -> list[npt.NDArray[Any]]:
    """The arrays of those names. Raises one of BROKEN, InputRefusedError ("too-large")."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
        if not isinstance(held, np.lib.npyio.NpzFile) or held.zip is None:
            raise ValueError("it is no npz file")
        for name in names:
            _refuse_claims(held.zip, f"{name}.npy", path.name)
        return [held[name] for name in names]


def _refuse_claims(held: zipfile.ZipFile, member: str, name: str) -> None:
    """Of a header that states more than the member holds, for numpy makes room for it first."""
    size = held.getinfo(member).file_size
    limits.refuse_above("ARRAY_BYTES", size, f"{member} of {name}")
    with held.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    if dtype.hasobject or any(side < 0 for side in shape) or prod(shape) * dtype.itemsize > size:
        raise ValueError(f"{member} states {shape} of {dtype}, and has {size:,} bytes")
