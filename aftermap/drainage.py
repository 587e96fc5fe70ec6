"""Height above the nearest drainage: where water runs, routed once on a coarse elevation model, then read by window.

Steepest descent (D8; O'Callaghan and Mark 1984), depressions drained over their lowest pass along a spanning tree of basins and
carved (Cordonnier, Bovy and Braun 2019, Earth Surface Dynamics 7), height above the drainage that a pixel flows to (Rennó et al.
2008). All of it is array work in O(n log n): a queue in Python would take minutes for what takes seconds here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from affine import Affine
from odc.geo.geobox import GeoBox
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

from aftermap.area import pixel_area_m2, pixel_spacing_m
from aftermap.scene import Scene
from aftermap.scorer import LayerBands
from aftermap.tiles import Window, blocks

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

MOST_CELLS = 4_000_000
"""Drainage is global by nature; it is routed on no more cells than this (architecture.md rule 7)."""
CHANNEL_KM2 = 1.0
"""Catchment from which on running water counts as drainage."""
_READ_PX = 1024
ELEVATION = LayerBands("dem", ("elevation",), "metres")


@dataclass(frozen=True)
class Drainage:
    """Elevation (row, col) in m of the drainage that each cell of `factor` x `factor` pixels flows to.

    NaN where the elevation is not known, and where the flow leaves the image before it meets drainage.
    """

    elevation: F32
    factor: int

    def hand(self, elevation: F32, window: Window) -> F32:
        """Height (y, x) in m above the nearest drainage of a window's elevation (y, x) in m; never below 0, NaN if unknown."""
        rows = np.arange(window.row, window.stop_row) // self.factor
        cols = np.arange(window.col, window.stop_col) // self.factor
        return np.asarray(np.maximum(elevation - self.elevation[np.ix_(rows, cols)], np.float32(0)))


def coarsening(shape: tuple[int, int], most: int = MOST_CELLS) -> int:
    """The least side in pixels of square cells of which an image has no more than `most`."""
    factor = 1
    while -(-shape[0] // factor) * -(-shape[1] // factor) > most:
        factor += 1
    return factor


def drain(scene: Scene, *, channel_km2: float = CHANNEL_KM2, gsd_m: float | None = None, most: int = MOST_CELLS) -> Drainage:
    """The drainage of a scene's `dem` within the image; what flows in from beyond its edge is not known to it.

    `gsd_m` is the pixel size of a scene without CRS.
    """
    factor = coarsening(scene.shape, most)
    heights = _coarse(scene, factor)
    grid = GeoBox(heights.shape, scene.grid.affine @ Affine.scale(factor), scene.grid.crs)
    size = gsd_m and gsd_m * factor
    # one column: within a scene a row's pixels differ too little to turn water round
    column = Window(0, heights.shape[1] // 2, heights.shape[0], 1)
    across, down = pixel_spacing_m(grid, column, gsd_m=size)
    area = pixel_area_m2(grid, column, gsd_m=size)
    receivers = receive(heights, across, down)
    return Drainage(drained(heights, receivers, accumulate(receivers, area), channel_km2 * 1e6), factor)


def _coarse(scene: Scene, factor: int) -> F32:
    """The lowest elevation (row, col) of each cell: a mean would dam every valley narrower than a cell."""
    height, width = (-(-n // factor) for n in scene.shape)
    lowest = np.empty((height, width), np.float32)
    for window in blocks(scene.shape, max(_READ_PX // factor, 1) * factor):
        pixels = scene.read(ELEVATION, window)[0]
        pixels = np.pad(pixels, [(0, -n % factor) for n in pixels.shape], constant_values=np.nan)
        rows, cols = (n // factor for n in pixels.shape)
        cells = np.fmin.reduce(pixels.reshape(rows, factor, cols, factor), axis=(1, 3))
        row, col = window.row // factor, window.col // factor
        lowest[row : row + rows, col : col + cols] = cells
    return lowest


def receive(heights: F32, across_m: F64, down_m: F64) -> I32:
    """The flat index (n,) of the cell that each cell flows to, its own where water leaves: at the edge, beside and in voids.

    Spacing (y, 1) in m. Following the receivers ends at an outlet from everywhere.
    """
    receivers = _descend(heights, across_m, down_m)
    pits = np.flatnonzero((receivers == np.arange(receivers.size)) & np.isfinite(heights.ravel()))
    labels = np.zeros(receivers.size, np.int32)  # 0 is the outside, voids included
    labels[pits] = np.arange(1, len(pits) + 1)
    basins = np.where(np.isfinite(heights), labels[follow(receivers)].reshape(heights.shape), 0)
    if len(pits):
        _carve(receivers, *_passes(heights, basins, len(pits)))
    return receivers


def _descend(heights: F32, across_m: F64, down_m: F64) -> I32:
    """Receivers (n,) by steepest descent; on a flat the equal neighbour before it, so that a lake has one pit, not thousands."""
    height, width = heights.shape
    index = np.arange(heights.size, dtype=np.int32).reshape(heights.shape)
    around = np.pad(np.where(np.isnan(heights), np.inf, heights), 1, constant_values=np.inf)
    receivers, steepest, level = index.copy(), np.zeros_like(heights), index.copy()
    steps = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
    for y, x in steps:
        drop = heights - around[1 + y : 1 + y + height, 1 + x : 1 + x + width]
        if (y, x) < (0, 0):
            np.copyto(level, index + np.int32(y * width + x), where=drop == 0)
        drop /= np.hypot(y * down_m, x * across_m).astype(np.float32)
        better = drop > steepest
        np.copyto(steepest, drop, where=better)
        np.copyto(receivers, index + np.int32(y * width + x), where=better)
    return np.where(receivers == index, level, receivers).ravel()


def follow(receivers: I32) -> I32:
    """Where each cell's flow ends (n,): pointers doubled until they stand still."""
    while True:
        onward = receivers[receivers]
        if np.array_equal(onward, receivers):
            return receivers
        receivers = onward


def _passes(heights: F32, basins: npt.NDArray[np.int32], count: int) -> tuple[I64, I64]:
    """The cell (n,) at which each basin spills on its lowest way out, and the cell beyond; the same one where that is outside."""
    low, high, level, inner, outer = _borders(heights, basins)
    key = low.astype(np.int64) * (count + 1) + high
    order = np.lexsort((level, key))
    key, first = np.unique(key[order], return_index=True)
    edges = order[first]
    weights = level[edges].astype(np.float64) - float(level.min()) + 1  # the tree takes 0 for no edge
    tree = minimum_spanning_tree(coo_array((weights, (low[edges], high[edges])), shape=(count + 1, count + 1)).tocsr())
    _, towards = breadth_first_order(tree, 0, directed=False)
    basin, towards = np.arange(1, count + 1), towards[1:].astype(np.int64)
    edge = edges[np.searchsorted(key, np.minimum(basin, towards) * (count + 1) + np.maximum(basin, towards))]
    from_low = low[edge] == basin
    here, beyond = np.where(from_low, inner[edge], outer[edge]), np.where(from_low, outer[edge], inner[edge])
    return here.astype(np.int64), np.where(towards == 0, here, beyond).astype(np.int64)


def _borders(heights: F32, basins: npt.NDArray[np.int32]) -> tuple[I32, I32, F32, I32, I32]:
    """Neighbouring cells of two basins: lower and higher basin, the pass's elevation in m, the cells in these; (n,) each."""
    labels = np.pad(basins, 1)
    level = np.pad(np.where(basins == 0, np.float32(-np.inf), heights), 1, constant_values=-np.inf)  # outside, only land counts
    index = np.pad(np.arange(heights.size, dtype=np.int32).reshape(heights.shape), 1, constant_values=-1)
    pairs = []
    for first, second in (
        (np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:]),
        (np.s_[:-1, :-1], np.s_[1:, 1:]), (np.s_[:-1, 1:], np.s_[1:, :-1]),
    ):  # fmt: skip
        apart = labels[first] != labels[second]
        one, two = labels[first][apart], labels[second][apart]
        cells, swap = (index[first][apart], index[second][apart]), one > two
        passes = np.maximum(level[first][apart], level[second][apart])
        low, high = np.minimum(one, two), np.maximum(one, two)
        pairs.append((low, high, passes, np.where(swap, cells[1], cells[0]), np.where(swap, cells[0], cells[1])))
    low, high, passes, inner, outer = (np.concatenate(part) for part in zip(*pairs, strict=True))
    return low, high, passes, inner, outer


def _carve(receivers: I32, here: I64, came: I64) -> None:
    """Turns the way from each pass down to its pit round, in place: from the pit over the pass to the cell beyond."""
    while here.size:
        onward = receivers[here].astype(np.int64)
        receivers[here] = came
        going = onward != here
        came, here = here[going], onward[going]


def accumulate(receivers: I32, area_m2: F64) -> F64:
    """Catchment (n,) in m2 of each cell, itself included, from the area (y, 1) of the cells of each row."""
    depth = _depth(receivers)
    order = np.argsort(depth, kind="stable").astype(np.int32)
    ends = np.cumsum(np.bincount(depth))
    catchment = np.repeat(area_m2.ravel(), receivers.size // area_m2.size)
    for start, end in zip(ends[-2::-1], ends[:0:-1], strict=True):  # the farthest from an outlet first
        cells = order[start:end]
        np.add.at(catchment, receivers[cells], catchment[cells])
    return catchment


def _depth(receivers: I32) -> I32:
    """Steps (n,) from each cell to its outlet."""
    steps = (receivers != np.arange(receivers.size)).astype(np.int32)
    while (further := steps[receivers]).any():
        steps = steps + further
        receivers = receivers[receivers]
    return np.asarray(steps, np.int32)


def drained(heights: F32, receivers: I32, catchment: F64, channel_m2: float) -> F32:
    """Elevation (row, col) in m of the first cell downstream whose catchment makes it drainage; NaN where there is none."""
    channel = catchment >= channel_m2
    ends = follow(np.where(channel, np.arange(receivers.size, dtype=np.int32), receivers))
    return np.asarray(np.where(channel[ends], heights.ravel()[ends], np.float32(np.nan)).reshape(heights.shape))
