"""How near the ground of a scene is to what a network knows: a percentage for each cell, and whether the scene as a whole is far.

A cell is judged by one chip in its middle, as large as those of training, whatever the scene's size: at most MOST_CELLS of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap.ahead import ahead
from aftermap.distances import NEAREST
from aftermap.engine import Network
from aftermap.hazardmap import NOT_ANALYSED, NOT_OBSERVED, OUTSIDE_AOI
from aftermap.known import Known, seen
from aftermap.predict import THREADS
from aftermap.scene import Scene
from aftermap.scorer import LayerBands
from aftermap.tiles import Window, blocks
from aftermap.transfer import Transferred

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]

FAMILIARITY = "familiarity"
MOST_CELLS = 256
FAR = 5.0
"""Percent; a scene whose median cell is below it is far: of twenty scenes like the training fewer than one."""


@dataclass(frozen=True, eq=False)
class Judge:
    """A network that knows something, as it reads a scene."""

    name: str
    """Of the method that it runs as."""
    network: Network
    inputs: tuple[LayerBands, ...]
    known: Known = field(repr=False)
    transferred: Transferred | None = None

    def read(self, scene: Scene, window: Window) -> F32:
        """Pixels (band, y, x) as the network reads them, sides filled up with "not observed"."""
        pixels = np.concatenate([scene.read(one, window) for one in self.inputs])
        found = pixels if self.transferred is None else self.transferred.as_read(pixels[None])[0]
        pad = ((0, 0), (0, -window.height % self.network.multiple_of), (0, -window.width % self.network.multiple_of))
        return np.asarray(np.pad(found, pad, constant_values=np.nan), np.float32)

    def judged(self, pixels: F32, window: Window) -> float:
        """Percent of a chip; NaN where too little of it was observed."""
        if not seen(pixels[:, : window.height, : window.width]):
            return float("nan")
        return float(100 * self.known.familiarity(self.network.embeddings(pixels[None]))[0])


def judge(methods: Mapping[str, Any], names: Iterable[str]) -> Judge | None:
    """The first network of those `names` that knows anything, among methods or scorers in the order in which they lead."""
    for name in (n for n in methods if n in set(names)):
        for member in getattr(methods[name], "members", (methods[name],)):
            network, mapped = member, None
            while not isinstance(network, Network):
                mapped = network if isinstance(network, Transferred) else mapped
                network = network.network
            if (known := Known.of(network.folder, network.card)) is not None:
                own = mapped.inputs if mapped is not None else network.inputs
                return Judge(name, replace(network), own, known, mapped)  # a copy: what it compiles is let go of
    return None


@dataclass(frozen=True, eq=False)
class Familiarity:
    """Of a scene: whole percents of cells (row, column), NOT_ANALYSED where too little was observed."""

    by: Judge = field(repr=False)
    cell_px: int
    cells: U8

    @property
    def median(self) -> float | None:
        """Percent, over the cells that were judged; None where none was."""
        judged = self.cells[self.cells != NOT_ANALYSED]
        return float(np.median(judged)) if judged.size else None

    @property
    def far(self) -> bool:
        """Whether the network has hardly seen such ground."""
        return self.median is not None and self.median < FAR

    def codes(self, window: Window, exclusion: U8) -> U8:
        """Percent (y, x) of a window; NOT_ANALYSED in cells that were not judged, and where nothing was observed or asked for."""
        rows, cols = ((np.arange(first, stop) // self.cell_px) for first, stop in (
            (window.row, window.stop_row), (window.col, window.stop_col)))  # fmt: skip
        found = self.cells[np.ix_(rows, cols)].copy()
        found[np.isin(exclusion, (NOT_OBSERVED, OUTSIDE_AOI))] = NOT_ANALYSED
        return found

    def facts(self) -> dict[str, Any]:
        """What the layer is of, for run.json."""
        known = self.by.known
        return {
            "of": self.by.name, "network": self.by.network.name, "median_percent": self.median,
            "cells": int((self.cells != NOT_ANALYSED).sum()), "cell_px": self.cell_px, "chip_px": known.chip_px,
            "training_chips": len(known.train), "validation_chips": len(known.validation), "nearest": NEAREST,
        }  # fmt: skip

    def words(self) -> str:
        """Why to beware of it."""
        return (
            f"half of the scene lies farther from the training of {self.by.name} than {100 - FAR:g} % of ground like it: "
            f"whether {self.by.name} is right here, its scores do not show"
        )


def of(scene: Scene, by: Judge) -> Familiarity:
    """Judges the cells of a scene, in bounded time and memory."""
    side = cell_px(scene.shape, by.known.chip_px)
    windows = [_middle(cell, side, by.known.chip_px, scene.shape) for cell in blocks(scene.shape, side)]

    def embedded(read: tuple[Window, F32]) -> float:
        return by.judged(read[1], read[0])

    pixels = ahead(lambda window: (window, by.read(scene, window)), windows)
    found = np.array(list(ahead(embedded, pixels, workers=THREADS)))
    codes = np.nan_to_num(np.rint(found), nan=NOT_ANALYSED).astype(np.uint8)
    rows, cols = (-(-length // side) for length in scene.shape)
    by.network.release()
    return Familiarity(by, side, codes.reshape(rows, cols))


def cell_px(shape: tuple[int, int], chip_px: int) -> int:
    """Side of the cells: that of a chip, or the least multiple of it that makes no more than MOST_CELLS."""
    times = 1
    while np.prod([-(-length // (times * chip_px)) for length in shape]) > MOST_CELLS:
        times += 1
    return times * chip_px


def _middle(cell: Window, side: int, chip_px: int, shape: tuple[int, int]) -> Window:
    """The chip in the middle of a cell, pulled back into the scene."""
    sizes = [min(chip_px, length) for length in shape]
    starts = (
        min(start + (side - chip_px) // 2, length - size) for start, length, size in zip(cell[:2], shape, sizes, strict=True)
    )
    return Window(*starts, *sizes)
