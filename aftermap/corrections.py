"""What people say of a map, polygon by polygon, with name and time: a log that only grows, and what it comes to.

It lies beside the map, not in it, so that the map stays what its checksums say. A label is "hazard" or "not hazard"; to take one
back is a row of its own that names it, and so is to take that back. Nothing is ever changed or removed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from aftermap import features, vector
from aftermap.errors import InputRefusedError
from aftermap.journal import flush, held
from aftermap.tiles import Window

FILE, LAYER, STANDING = "corrections.gpkg", "corrections", "standing"
"""STANDING repeats, for a GIS, the labels that nobody has taken back."""
LOCK = ".corrections.lock"
HAZARD, NOT_HAZARD = LABELS = ("hazard", "not hazard")
DELETED, UNDONE = "deleted", "undone"
MOST, MOST_VERTICES, MOST_MARKED, MOST_NAME = 5000, 500, 100_000, 60
"""Rows of a log, corners of a polygon that is drawn and of one of the map's own, characters of a name."""
WAIT_S = 20.0
UNKNOWN = 255
_FIELDS = {
    "revision": "integer", "id": "text", "kind": "text", "author": "text", "time": "text", "takes_back": "text",
    "seen": "integer",
}  # fmt: skip
U8 = npt.NDArray[np.uint8]


def refused(what: str, repair: str, code: str = "correction-invalid") -> InputRefusedError:
    """What is wrong with a correction."""
    return InputRefusedError(what, repair=repair, code=code)


@dataclass(frozen=True)
class Said:
    """What somebody says, before it is in the log."""

    kind: str
    author: str
    seen: int
    """Last revision that they knew."""
    shape: Any = None
    """Of a label: its polygon in the CRS of the map."""
    takes_back: str = ""
    """Of DELETED: the id of the label. UNDONE takes back the author's own last row."""


@dataclass(frozen=True)
class Correction:
    """A row of the log."""

    revision: int
    """Its place, from 1 on."""
    id: str
    kind: str
    author: str
    time: str
    """UTC, ISO 8601."""
    takes_back: str
    seen: int
    shape: Any
    """Of what is taken back: that of the label."""


class Conflict(NamedTuple):
    """Two rows of two authors, of whom the later did not know of the earlier."""

    earlier: Correction
    later: Correction

    @property
    def words(self) -> str:
        """For people."""
        said = [f"{row.author}: {row.kind} ({row.time[11:16]} UTC)" for row in self]
        return f"{said[0]}, and, without having seen it, {said[1]}"


@dataclass(frozen=True)
class Log:
    """All rows in their order."""

    rows: tuple[Correction, ...] = ()

    @cached_property
    def live(self) -> frozenset[str]:
        """Ids of rows that no live row takes back."""
        gone, live = set[str](), set[str]()
        for row in reversed(self.rows):
            if row.id not in gone:
                live.add(row.id)
                gone.add(row.takes_back)
        return frozenset(live)

    @cached_property
    def standing(self) -> list[Correction]:
        """The labels that hold."""
        return [row for row in self.rows if row.kind in LABELS and row.id in self.live]

    @cached_property
    def conflicts(self) -> list[Conflict]:
        """Every one that there ever was."""
        unseen = ((earlier, later) for later in self.rows for earlier in self.rows[later.seen : later.revision - 1])
        return [Conflict(*pair) for pair in unseen if _clash(*pair)]

    @cached_property
    def open(self) -> list[Conflict]:
        """Those of labels that both still stand."""
        stand = {row.id for row in self.standing}
        return [one for one in self.conflicts if {one.earlier.id, one.later.id} <= stand]

    def with_one(self, said: Said, now: str) -> Log:
        """One row longer. Raises InputRefusedError ("correction-invalid", "corrections-full")."""
        if len(self.rows) >= MOST:
            raise refused(f"there are {MOST} corrections already", "map anew from what they taught", code="corrections-full")
        if not 0 <= said.seen <= len(self.rows):
            raise refused(f"revision {said.seen} is none of {len(self.rows)}", "load the page again")
        author = " ".join(said.author.split())
        if not author or len(author) > MOST_NAME or not author.isprintable():
            raise refused(f"a name of {len(author)} characters signs nothing", f"sign with 1 to {MOST_NAME} letters")
        taken = self._taken(said, author)
        row = Correction(
            len(self.rows) + 1, uuid4().hex, said.kind, author, now, taken.id if taken else "", said.seen,
            taken.shape if taken else said.shape,
        )  # fmt: skip
        return Log((*self.rows, row))

    def _taken(self, said: Said, author: str) -> Correction | None:
        """The row that is taken back; None for a label."""
        if said.kind in LABELS:
            return None
        if said.kind == UNDONE:
            own = [row for row in self.rows if row.author == author and row.kind != UNDONE and row.id in self.live]
            if not own:
                raise refused(f"nothing of {author} is left to undo", "delete what others said, if it is wrong")
            return own[-1]
        if said.kind != DELETED:
            raise refused(f"{said.kind[:20]!r} is no kind of correction", f"say {', '.join((*LABELS, DELETED, UNDONE))}")
        found = next((row for row in self.rows if row.id == said.takes_back and row.kind in LABELS), None)
        seen = Log(self.rows[: said.seen])
        if found is None or (found.id not in self.live and found.id not in seen.live):
            raise refused("there is no such correction any more", "load the page again")
        return found


def _clash(earlier: Correction, later: Correction) -> bool:
    """Whether two rows of two authors say different things of the same ground, or take the same back."""
    if earlier.author == later.author or UNDONE in (earlier.kind, later.kind):
        return False
    if earlier.takes_back:
        return earlier.takes_back == later.takes_back or (later.kind in LABELS and _overlap(earlier, later))
    return earlier.kind != later.kind and _overlap(earlier, later)


def _overlap(one: Correction, other: Correction) -> bool:
    return bool(one.shape.intersects(other.shape) and one.shape.intersection(other.shape).area > 0)


def append(folder: Path, grid: GeoBox, said: Said) -> Log:
    """The log of a map's folder, one row longer, and on disk: whole or not at all, whoever else writes.

    Raises InputRefusedError ("correction-invalid", "corrections-full", "corrections-invalid"), UsageError ("busy", "unwritable").
    """
    if said.kind in LABELS:
        check(said.shape, grid)
    with held(folder / LOCK, WAIT_S):
        log = read(folder / FILE, grid) if (folder / FILE).exists() else Log()
        log = log.with_one(said, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
        _write(folder / FILE, grid, log)
    return log


def check(shape: Any, grid: GeoBox) -> None:
    """Raises InputRefusedError ("correction-invalid") for what is no polygon on the map, in words."""
    if not shape.is_valid or shape.is_empty:
        raise refused("the polygon crosses itself", "draw it again, without crossing a side")
    if shape.area < abs(grid.affine.determinant):
        raise refused("the polygon is smaller than a pixel", "draw it larger")
    if not shape.intersects(vector.rectangle(grid)):
        raise refused("the polygon lies outside the map", "draw it on the map")


def _write(path: Path, grid: GeoBox, log: Log) -> None:
    partial = path.with_name(f".{path.stem}-{uuid4().hex}{path.suffix}")
    stand = [vector.Layer(name, "MultiPolygon", _FIELDS) for name in (LAYER, STANDING)]
    try:
        with vector.GeoPackageWriter(partial, grid, stand) as out:
            for name, rows in ((LAYER, log.rows), (STANDING, log.standing)):
                out.write(name, [row.shape for row in rows], {key: [getattr(row, key) for row in rows] for key in _FIELDS})
        flush(partial)  # people's work: it must not be lost to a power cut once the page has said "saved"
        os.replace(partial, path)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()


def read(path: Path, grid: GeoBox) -> Log:
    """The log in a file, its polygons in the CRS of `grid`.

    Raises InputRefusedError: "missing-file", "vector-without-crs"; "corrections-invalid" where rows lack or are no corrections.
    """
    if not path.exists():
        raise InputRefusedError(f"there is no file {path}", repair="check the path", code="missing-file")
    if not vector.is_vector(path) or LAYER not in features.layers(path):
        raise _damaged(path, f"it has no layer {LAYER}")
    shapes, rows, crs = features.table(path, LAYER)
    if any(set(row) != set(_FIELDS) for row in rows):
        raise _damaged(path, "its fields are not those of corrections")
    shapes = vector.reproject(shapes, crs, grid, path.name) if len(rows) else shapes
    log = Log(tuple(Correction(**row, shape=shape) for row, shape in zip(rows, shapes, strict=True)))
    if why := _wrong(log.rows):
        raise _damaged(path, why)
    return log


def _wrong(rows: Sequence[Correction]) -> str:
    """Why rows cannot be a log, in words."""
    known = set[str]()
    for place, row in enumerate(rows, 1):
        if row.revision != place or not 0 <= row.seen < place or row.id in known:
            return f"revision {place} is missing or was changed"
        if row.kind not in (*LABELS, DELETED, UNDONE) or (row.kind in LABELS) != (not row.takes_back) or row.shape is None:
            return f"revision {place} is {row.kind!r}, which is no correction"
        if row.takes_back and row.takes_back not in known:
            return f"revision {place} takes back what is not there"
        known.add(row.id)
    return ""


def _damaged(path: Path, why: str) -> InputRefusedError:
    return refused(f"{path} is no log of corrections: {why}", "restore it, or move it away", code="corrections-invalid")


def truth(rows: Iterable[Correction], contested: Iterable[Conflict], grid: GeoBox, window: Window) -> U8:
    """1 hazard, 0 not hazard, 255 nothing said (y, x): the later label holds, and none where two authors contradict unseen."""
    out = np.full((window.height, window.width), UNKNOWN, np.uint8)
    for row in rows:
        out[vector.rasterise([row.shape], grid, window)] = row.kind == HAZARD
    for one in contested:
        out[vector.rasterise([one.earlier.shape.intersection(one.later.shape)], grid, window)] = UNKNOWN
    return out
