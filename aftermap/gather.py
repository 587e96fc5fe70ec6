"""Windows of catalog images brought here: cells of a grid, each kept under its hash, and for each layer a virtual raster.

What is kept is not asked for again: a map of it needs no network. A cell that could not be read is told, and is nowhere in
the raster: not observed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry

from aftermap import meridian, raster, stacfacts
from aftermap.aoi import Aoi
from aftermap.catalog import Signer
from aftermap.errors import InputRefusedError
from aftermap.itemfile import EventFile, Part, Place, ids, refuse_elsewhere
from aftermap.journal import digest, partial, sha256, write_text
from aftermap.remote import Remote
from aftermap.stacfacts import Item, Kind
from aftermap.tiles import Window, blocks
from aftermap.virtual import Piece, vrt
from aftermap.workers import Workers, workers

CELL_PX = 1024
SQUARE_PX, MOST_PIECES = 16 * CELL_PX, 256
"""Cells are in virtual rasters of such squares where there are more of them."""
INDEX = "cells.jsonl"
_MARGIN_DEG = 0.02
"""Footprints in catalogs are drawn coarsely."""
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Cell:
    """One window of a layer, as a unit of work."""

    name: str
    kind: str
    bands: tuple[str, ...]
    added: float | None
    grid: GeoBox
    items: tuple[Item, ...]
    """Those that may have seen it."""


@dataclass(frozen=True, eq=False)
class Wanted:
    """The images of one kind of a layer on the grid that they are read on."""

    layer: str
    kind: str
    """Of stacfacts.KINDS."""
    items: tuple[Item, ...]
    grid: GeoBox

    @property
    def what(self) -> Kind:
        """How it is kept."""
        return stacfacts.KINDS[self.kind]

    @cached_property
    def bands(self) -> tuple[str, ...]:
        """Those that every item has. Raises InputRefusedError ("stac-asset")."""
        held = [stacfacts.assets(item) for item in self.items]
        found = tuple(b for b in self.what.assets if all(b in one for one in held))
        if not found:
            what = f"the {self.layer} images {', '.join(ids(self.items))} have no band in common"
            raise InputRefusedError(what, repair="leave some of them out", code="stac-asset")
        return found

    @cached_property
    def added(self) -> float | None:
        """What is to be added to numbers as they are kept; None where none of the items says. Raises InputRefusedError."""
        if self.kind != stacfacts.OPTICAL.name:
            return None
        said = {stacfacts.added(item) for item in self.items}
        known = [one for one in said if one is not None]
        if known and None in said:
            what = f"of some {self.layer} images it is not said which offset their numbers have"
            raise InputRefusedError(what, repair="leave them out", code="stac-offset")
        return min(known, default=None)

    @cached_property
    def key(self) -> str:
        """Of what determines its pixels."""
        items = [[i.get("collection"), i["id"], sorted((n, i["assets"][n]["href"]) for n in stacfacts.assets(i).values())]
                 for i in self.items]  # fmt: skip
        place = [str(self.grid.crs), list(self.grid.affine)[:6], list(self.grid.shape)]
        return digest([self.kind, self.bands, self.added, items, place, CELL_PX])[:16]

    def cells(self, area: Aoi) -> list[Window]:
        """Those that some of the area lies in, row by row."""
        return sorted(self._met(area, Window(0, 0, *self.shape)))

    def _met(self, area: Aoi, within: Window) -> Iterator[Window]:
        """By quarters, for an outline takes milliseconds to compare: one by one only along the edge of the area."""
        touched, held = area.meets(meridian.outline(self.grid[within.slices]))
        cells = -(-max(within[2:]) // CELL_PX)
        if touched and cells == 1:
            yield within
        for part in blocks(within[2:], CELL_PX if held else CELL_PX * -(-cells // 2)) if touched and cells > 1 else ():
            inner = part.out_of(within)
            yield from (inner,) if held else self._met(area, inner)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.grid.shape[0]), int(self.grid.shape[1])

    def cell(self, window: Window) -> Cell:
        """To be read by anyone."""
        grid = self.grid[window.slices]
        box = meridian.degrees(grid).buffer(_MARGIN_DEG)
        over = tuple(item for item, seen in zip(self.items, self._footprints, strict=True) if box.intersects(seen))
        return Cell(_name(window), self.kind, self.bands, self.added, grid, over)

    @cached_property
    def _footprints(self) -> list[Geometry]:
        """Of the items."""
        return [Geometry(dict(item["geometry"]), "EPSG:4326") for item in self.items]

    @property
    def tags(self) -> dict[str, str]:
        """Facts that files of satellites state, as naming.py reads them."""
        last = max(stacfacts.when(i) for i in self.items)
        said = {"AFTERMAP_ITEMS": ", ".join(ids(self.items))}
        if self.kind in stacfacts.IMAGES:
            said["ACQUISITION_DATETIME"] = stacfacts.stamp(last)
            directions = {stacfacts.orbit(i)[0] for i in self.items}
            said |= {"SAT:ORBIT_STATE": next(iter(directions))} if len(directions) == 1 and directions != {""} else {}
        return said | ({"BOA_ADD_OFFSET": f"{self.added:g}"} if self.added is not None else {})


@dataclass(frozen=True)
class Gathered:
    """Rasters by layer, and what could not be read."""

    files: dict[str, list[Path]]
    failed: tuple[dict[str, Any], ...]
    cells: dict[tuple[int, int], str]
    """Row and column, in cells of `side_px`, on the grid of images -> the files of theirs that lie there."""
    side_px: int


def wanted(part: Part) -> list[Wanted]:
    """What is to be read for a sheet: images on pixels of 10 m, the ground on its own."""

    def on(place: Place, items: tuple[Item, ...]) -> Wanted:
        layer, kind = place
        return Wanted(layer, kind, items, part.sheet.grid(stacfacts.KINDS[kind].gsd_m))

    return [on(place, items) for place, items in part.layers.items()]


def gather(
    part: Part, event: EventFile, folder: Path, *, offline: bool = False, leave: Mapping[str, str] | None = None,
    spread: Callable[[], AbstractContextManager[Workers]] = workers, progress: Progress = lambda *_: None,
) -> Gathered:  # fmt: skip
    """The layers of a sheet as rasters in `folder`, which keeps what was read; cells in `leave` are not tried, for a reason.

    `spread` gives workers, and is asked for them only where something is to be read.
    Cells are read one after the other, or by workers at once: not in threads, for one that waits in GDAL for what another fetches
    may hold the interpreter that the other wants to tell of an error, and neither goes on (seen with rasterio 1.4 and GDAL 3.10).
    Raises InputRefusedError ("offline") where something that is not kept must not be asked for, and as `refuse_elsewhere`.
    """
    every = wanted(part)
    plans = {one.key: one.cells(part.sheet.area) for one in every}
    stores = {one.key: _Store(folder / one.key) for one in every}
    left = leave or {}
    todo = [(one, c) for one in every for c in plans[one.key] if _name(c) not in stores[one.key].kept]
    failed = [_failure(one, c, left[_cell_id(one, c)]) for one, c in todo if _cell_id(one, c) in left]
    todo = [(one, c) for one, c in todo if _cell_id(one, c) not in left]
    if todo and offline:
        what = f"{len(todo)} of {sum(map(len, plans.values()))} windows are not kept in {folder}"
        raise InputRefusedError(what, repair="run once without --offline", code="offline")
    progress("fetch", 0, len(todo))
    if todo:
        refuse_elsewhere(event)
        with spread() as crew:
            failed += _read(todo, stores, Remote(Signer(event.token_url)), crew, progress)
    files: dict[str, list[Path]] = {}
    for one in every:
        files.setdefault(one.layer, []).append(stores[one.key].raster(one, plans[one.key]))
    return Gathered(files, tuple(sorted(failed, key=lambda f: str(f["cell"]))), _cells(every, stores), CELL_PX)


def _read(
    todo: Sequence[tuple[Wanted, Window]], stores: Mapping[str, _Store], remote: Remote, crew: Workers, progress: Progress
) -> list[dict[str, Any]]:
    """Reads cells into their stores; what could not be read."""
    failed = []
    units = ((n, remote, stores[one.key].folder.absolute(), one.cell(c)) for n, (one, c) in enumerate(todo))
    for done, (n, line) in enumerate(crew(read_cell, units, ordered=False), 1):
        one, cell = todo[n]
        if "why" in line:
            failed.append(_failure(one, cell, line["why"]))
        else:
            stores[one.key].add(line)
        progress("fetch", done, len(todo))
    return failed


def _cells(every: Sequence[Wanted], stores: Mapping[str, _Store]) -> dict[tuple[int, int], str]:
    found: dict[tuple[int, int], str] = {}
    for one in every:
        for name, file in sorted(stores[one.key].kept.items()) if one.kind in stacfacts.IMAGES else ():
            row, col = (int(edge) // CELL_PX for edge in name.split("-"))
            found[row, col] = f"{found.get((row, col), '')}{one.layer} {one.kind} {file} "
    return found


def read_cell(number: int, remote: Remote, folder: Path, cell: Cell) -> tuple[int, dict[str, Any]]:
    """Reads a cell into a file of its own, if anything was seen there: a line of the index, or why not."""
    kind = stacfacts.KINDS[cell.kind]
    try:
        pixels = remote.read(cell.items, cell.bands, kind, cell.grid, added=cell.added)
    except OSError as error:
        return number, {"why": str(error)}
    if kind.unseen(pixels).all():
        return number, {"cell": cell.name, "file": None}
    written = partial(folder, f"{cell.name}.tif")
    with raster.Writer(written, cell.grid, dtype=kind.dtype, descriptions=cell.bands, nodata=kind.nodata) as out:
        out.write(pixels, Window(0, 0, *cell.grid.shape))
    code = sha256(written)
    name = f"{cell.name}-{code[:16]}.tif"
    os.replace(written, folder / name)
    return number, {"cell": cell.name, "file": name, "sha256": code}


def _name(cell: Window) -> str:
    return f"{cell.row}-{cell.col}"


def _cell_id(one: Wanted, cell: Window) -> str:
    return f"{one.layer} {one.kind} {_name(cell)}"


def _failure(one: Wanted, cell: Window, why: str) -> dict[str, Any]:
    box = meridian.degrees(one.grid[cell.slices]).boundingbox
    return {"cell": _cell_id(one, cell), "window": list(cell), "bbox": [round(v, 6) for v in box], "why": why}


def _text(one: Wanted, grid: GeoBox, pieces: Sequence[Piece], tags: Mapping[str, str]) -> str:
    return vrt(grid, one.what.dtype, one.what.nodata, one.bands, one.what.unit, tags, pieces)


def _state(path: Path) -> dict[str, int]:
    """Of a file as it lies, which changes when somebody writes to it."""
    found = path.stat()
    return {"bytes": found.st_size, "mtime_ns": found.st_mtime_ns}


class _Store:
    """The cells of one layer that are kept, by name; a line of the index each, written once the file is whole."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.kept = dict(filter(None, map(self._line, self._lines())))

    def add(self, line: dict[str, Any]) -> None:
        """Keeps a cell that was read."""
        line = {**line, **(_state(self.folder / line["file"]) if line["file"] else {})}
        with (self.folder / INDEX).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        self.kept[line["cell"]] = line["file"]

    def raster(self, one: Wanted, cells: Sequence[Window]) -> Path:
        """A virtual raster over the cells; over squares of them where they are many, for each process holds every piece of it."""
        pieces = [Piece(name, cell) for cell in cells if (name := self.kept.get(_name(cell)))]
        squares = list(blocks(one.shape, SQUARE_PX)) if len(pieces) > MOST_PIECES else []
        if squares:
            inside: dict[Window, list[Piece]] = {square: [] for square in squares}
            for name, cell in pieces:
                square = squares[cell.row // SQUARE_PX * -(-one.shape[1] // SQUARE_PX) + cell.col // SQUARE_PX]
                inside[square].append(Piece(name, cell.within(square)))
            pieces = [Piece(self._square(one, square, within), square) for square, within in inside.items() if within]
        path = self.folder / f"{one.layer}.vrt"
        write_text(path, _text(one, one.grid, pieces, one.tags))
        return path

    def _square(self, one: Wanted, square: Window, pieces: Sequence[Piece]) -> str:
        """The name of a virtual raster over some cells, by its hash: the hash of what names it is of every pixel."""
        text = _text(one, one.grid[square.slices], pieces, {})
        name = f"{one.layer}-{_name(square)}-{digest(text)[:16]}.vrt"
        write_text(self.folder / name, text)
        return name

    def _lines(self) -> Iterable[str]:
        index = self.folder / INDEX
        return index.read_text(encoding="utf-8").splitlines() if index.exists() else ()

    def _line(self, line: str) -> tuple[str, str | None] | None:
        """A cell and its file, None of one without pixels; None for a line cut by a kill or a file that is not what it was.

        Hashed is what was touched since: all of it at each start would be 150 GB of a million km2.
        """
        try:
            said = json.loads(line)
            cell, name = str(said["cell"]), said["file"]
            whole = (
                name is None or _state(self.folder / name).items() <= said.items() or sha256(self.folder / name) == said["sha256"]
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return (cell, name) if whole else None
