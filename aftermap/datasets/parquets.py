"""Parquet tables of others, opened: none larger than allowed. The door to pyarrow, with tables.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aftermap import limits
from aftermap.datasets.dataset import extra_missing

_VALUE_BYTES = 8


def library() -> Any:
    """The library. Raises UsageError ("extra-missing")."""
    try:
        import pyarrow.parquet as found
    except ImportError as error:
        raise extra_missing("pyarrow") from error
    return found


def rows(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of a table of others. Raises InputRefusedError ("too-large"), UsageError ("extra-missing"), and ValueError or OSError
    where it cannot be read."""
    with library().ParquetFile(path) as file:
        facts = file.metadata
        # the facts of columns stay unasked: damaged ones end the process (found by fuzzing)
        claimed = sum(facts.row_group(n).total_byte_size for n in range(facts.num_row_groups))
        # a page of few bytes can stand for any number of equal values
        limits.refuse_above("ARRAY_BYTES", max(claimed, facts.num_rows * len(columns) * _VALUE_BYTES), path.name)
        found: list[dict[str, Any]] = file.read(list(columns)).to_pylist()
        return found
