"""Plain arrays by name in one npz file: written whole or not at all, read without unpickling."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

BROKEN = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
"""What a damaged file, or one of other arrays, makes `read` raise."""


def write(path: Path, **arrays: npt.NDArray[Any]) -> None:
    """The same bytes for the same arrays."""
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]
    partial.replace(path)


def read(path: Path, *names: str) -> list[npt.NDArray[Any]]:
    """The arrays of those names. Raises one of BROKEN."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
        return [held[name] for name in names]
