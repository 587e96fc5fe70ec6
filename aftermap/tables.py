"""Tables in Parquet, which other tools read too: written whole or not at all, with what they are about; and asked by DuckDB.

The door to both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from aftermap.datasets import parquets
from aftermap.errors import UsageError
from aftermap.normalise import F32

_ABOUT = b"aftermap"


def write(path: Path, columns: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """A Parquet file, whole or not at all, with `about` in its metadata."""
    library = parquets.library()
    import pyarrow

    table = pyarrow.table(dict(columns)).replace_schema_metadata({_ABOUT: json.dumps(dict(about))})
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{uuid4().hex}.partial")  # of its own, where two write the same
    library.write_table(table, partial, compression="zstd")
    partial.replace(path)


def read(path: Path) -> tuple[Any, dict[str, Any]] | None:
    """Its table and what it is about; None where it is not there, or not one of ours."""
    if not path.is_file():
        return None
    try:
        table = parquets.library().read_table(path)
        return table, json.loads(table.schema.metadata[_ABOUT])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def vectors(rows: F32) -> Any:
    """A column of lists, each as long, of rows (n, d)."""
    parquets.library()
    import pyarrow

    return pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(np.ascontiguousarray(rows, np.float32).ravel()), rows.shape[1])


def unpacked(column: Any) -> F32:
    """The rows (n, d) of such a column."""
    whole = column.combine_chunks()
    return np.asarray(whole.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(len(whole), -1)


def query(sql: str, view: str, of: str, files: Mapping[str, Sequence[Path]]) -> list[dict[str, Any]]:
    """Rows of SQL about one `view`: tables by name, that name in the column `of`, one below the other.

    Raises UsageError ("extra-missing", "query-invalid").
    """
    try:
        import duckdb
    except ImportError as error:
        what = "duckdb, which answers SQL, is not installed"
        raise UsageError(what, repair='pip install "aftermap[probe]"', code="extra-missing") from error
    parts = [f"select {_quoted(name)} as {of}, * from read_parquet([{', '.join(_quoted(str(one)) for one in own)}])"
             for name, own in files.items()]  # fmt: skip
    with duckdb.connect() as asked:
        asked.execute(f"create view {view} as {' union all '.join(parts)}")
        try:
            found = asked.execute(sql)
        except duckdb.Error as error:
            raise UsageError(str(error), repair=f"correct the SQL; the view is {view}", code="query-invalid") from error
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def _quoted(said: str) -> str:
    return "'" + said.replace("'", "''") + "'"
