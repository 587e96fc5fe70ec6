"""Finished blocks as files of the work folder, and all of them as one raster, read by any window."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from aftermap import journal, raster
from aftermap.journal import Journal
from aftermap.tiles import Window

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]

PLANES = ("likelihood", "extent", "exclusion", "agreement")
SPREAD = "spread"
"""One plane more, where a scorer gives its spread."""
LEVELS = 250
"""Scores of classes are kept as whole numbers up to this; 0 where not analysed."""


class Mapped(NamedTuple):
    """Of a block or core: planes (plane, y, x), scores (y, x), and levels (class, y, x) of the classes that are kept."""

    planes: U8
    scores: F32
    classes: U8


class Kept(NamedTuple):
    """What is kept of blocks: the names of planes and classes, and whether the scores are."""

    planes: tuple[str, ...]
    classes: tuple[str, ...]
    scores: bool


@dataclass(frozen=True)
class Contents:
    """Inputs that came in cells and may come anew: what they are made of, so that only blocks that saw a new one are remade."""

    run: str
    """A hash of all else that determines pixels, but for the scorers."""
    cells: Mapping[tuple[int, int], str]
    """Row and column of a cell -> the names of its files, which hold their hashes."""
    side_px: int

    def key(self, region: Window) -> str:
        """Of what is read from a region of the scene."""
        rows, cols = (range(first // self.side_px, -(-last // self.side_px))
                      for first, last in ((region.row, region.stop_row), (region.col, region.stop_col)))  # fmt: skip
        return journal.digest([self.run, [self.cells.get((r, c), "") for r in rows for c in cols]])


def part_name(block: Window, key: str) -> str:
    """The file name of a block's part, without its ending: `key` is what determines its pixels."""
    return "part-{}-{}-{}-{}-{}".format(key[:16], *block)


def store(work: Path, name: str, grid: GeoBox, kept: Kept, mapped: Mapped) -> journal.Made:
    """Writes the part of a block on its own grid; it appears whole or not at all, though two do so at once."""
    given: Mapping[str, tuple[npt.NDArray[Any], Sequence[str]]] = {
        "tif": (mapped.planes, kept.planes),
        **({"score.tif": (mapped.scores[None], ["score"])} if kept.scores else {}),
        **({"classes.tif": (mapped.classes, kept.classes)} if kept.classes else {}),
    }
    files = {}
    for ending, (pixels, names) in given.items():
        path = files[f"{name}.{ending}"] = journal.partial(work, f"{name}.{ending}")
        with raster.Writer(path, grid, dtype=str(pixels.dtype), descriptions=names) as part:
            part.write(pixels, Window(0, 0, *grid.shape))
    return journal.settle(work, name, files)


@dataclass(frozen=True)
class Parts:
    """The finished blocks, which are a grid and stand row by row, as one raster."""

    journal: Journal
    names: Mapping[Window, str]
    """Block -> part_name, row by row."""

    def planes(self, window: Window, *names: str) -> U8:
        """Some of PLANES, and SPREAD where there is one (name, y, x); see products.md for the codes."""
        return np.asarray(self._gather(window, "tif", [(*PLANES, SPREAD).index(n) + 1 for n in names], np.uint8))

    def score(self, window: Window) -> F32:
        """The float scores (y, x) that the extent is cut from, NaN where not analysed."""
        return np.asarray(self._gather(window, "score.tif", [1], np.float32)[0])

    def classes(self, window: Window, count: int) -> U8:
        """Levels (class, y, x) from 0 to LEVELS of each of `count` classes of the method that tells them apart."""
        return np.asarray(self._gather(window, "classes.tif", range(1, count + 1), np.uint8))

    def _gather(self, window: Window, ending: str, bands: Sequence[int], dtype: Any) -> npt.NDArray[Any]:
        out = np.empty((len(bands), window.height, window.width), dtype)
        for block in self._meeting(window):
            if (common := window.overlap(block)) is not None:
                path: Path = self.journal.part(f"{self.names[block]}.{ending}")
                out[(..., *common.within(window).slices)] = raster.read_window(path, common.within(block), bands)
        return out

    def _meeting(self, window: Window) -> Iterator[Window]:
        """The blocks that may have a part in a window, found by their edges."""
        (rows, cols), blocks = self._edges, self._blocks
        for row in range(bisect_right(rows, window.row) - 1, bisect_left(rows, window.stop_row)):
            first = bisect_right(cols, window.col) - 1
            yield from blocks[row * len(cols) + first : row * len(cols) + bisect_left(cols, window.stop_col)]

    @cached_property
    def _edges(self) -> tuple[list[int], list[int]]:
        """First rows and columns of the blocks, which stand row by row."""
        return sorted({block.row for block in self.names}), sorted({block.col for block in self.names})

    @cached_property
    def _blocks(self) -> list[Window]:
        return list(self.names)
