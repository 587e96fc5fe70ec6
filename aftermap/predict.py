"""Tiles to scores to one seamless map, window by window in bounded memory; reading, scoring and writing overlap."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap import raster
from aftermap.errors import AftermapError, UsageError
from aftermap.exclude import Exclusions, settle
from aftermap.hazardmap import NOT_ANALYSED
from aftermap.journal import Journal
from aftermap.scene import Scene
from aftermap.scorer import LayerBands, Scorer
from aftermap.tiles import Window, starts, taper

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]

CORE_PX = 512
"""Pixels a tile adds to the last, along each axis."""
BASE_MB, MOST_CORES = 350, 4
"""What the process takes before the first pixel (libraries, GDAL's cache), and the largest block in tiles a side."""
PLANES = ("likelihood", "extent", "exclusion", "agreement")


@dataclass(frozen=True)
class Tiling:
    """How a scorer is laid over a scene: tiles of `size` px, `trim` px discarded at each inner edge, `blend` px tapered."""

    size: int
    trim: int
    blend: int

    @property
    def stride(self) -> int:
        """Pixels from one tile to the next."""
        return self.size - 2 * self.trim - self.blend

    @classmethod
    def of(cls, *scorers: Scorer, blend: int | None = None) -> Tiling:
        """One tiling for all scorers of a run, tiles adding CORE_PX each. What lies within the largest halo of an edge is
        discarded, so that local scorers are exact without blending; a halo of 32 px and more marks a deep network, whose
        residual seams are tapered."""
        halo = max(s.halo_px for s in scorers)
        blend = blend if blend is not None else (32 if halo >= 32 else 0)
        size = CORE_PX + 2 * halo + blend
        surplus = -size % lcm(*(s.multiple_of for s in scorers))
        return cls(size + surplus, halo, blend + surplus)


def score_window(scorer: Scorer, read: Callable[[Window], F32], window: Window, shape: tuple[int, int], tiling: Tiling,
                 pool: ThreadPoolExecutor | None = None) -> F32:  # fmt: skip
    """Blended scores (class, y, x) of a window; NaN where the scorer's bands are not all observed.

    `read` gives pixels (band, y, x) of any window of the scene. Every tile of the scene's one tiling that weighs on the
    window takes part, so that the result does not depend on the window.
    """
    region = _reach(window, shape, tiling)
    pixels = read(region)
    tiles = _tiles(window, shape, tiling)
    scored = (pool.map if pool else map)(lambda t: _score_tile(scorer, pixels[(..., *t.within(region).slices)]), tiles)
    if len(tiles) == 1:
        blended = next(iter(scored))
    else:
        blended = _blend(tiles, scored, region, shape, tiling, len(scorer.classes))
    inner = window.within(region).slices
    out: F32 = np.array(blended[(..., *inner)], np.float32)
    out[:, ~np.isfinite(pixels[(..., *inner)]).all(axis=0)] = np.nan
    return out


def _tiles(window: Window, shape: tuple[int, int], tiling: Tiling) -> list[Window]:
    """The tiles of the scene's tiling that weigh on a window, row by row."""
    height, width = min(tiling.size, shape[0]), min(tiling.size, shape[1])
    rows, cols = _axis(window.row, window.stop_row, shape[0], tiling), _axis(window.col, window.stop_col, shape[1], tiling)
    return [Window(r, c, height, width) for r in rows for c in cols]


def _reach(window: Window, shape: tuple[int, int], tiling: Tiling) -> Window:
    """The pixels that the tiles weighing on a window cover."""
    tiles = _tiles(window, shape, tiling)
    first, last = tiles[0], tiles[-1]
    return Window(first.row, first.col, last.stop_row - first.row, last.stop_col - first.col)


def _axis(start: int, stop: int, length: int, tiling: Tiling) -> list[int]:
    """Starts of the tiles whose weights reach into [start, stop)."""
    reach = [
        (s, s + (tiling.trim if s else 0), s + tiling.size - (tiling.trim if s + tiling.size < length else 0))
        for s in starts(length, tiling.size, tiling.stride)
    ]
    return [s for s, low, high in reach if low < stop and high > start]


def _score_tile(scorer: Scorer, pixels: F32) -> F32:
    """Scores (class, y, x) of one tile, padded to the scorer's multiple with "not observed"; 0 where not valid."""
    height, width = pixels.shape[1:]
    pad = ((0, 0), (0, -height % scorer.multiple_of), (0, -width % scorer.multiple_of))
    padded = np.pad(pixels, pad, constant_values=np.nan) if any(p[1] for p in pad) else pixels
    valid = np.asarray(np.isfinite(padded).all(axis=0))
    if not valid.any():
        return np.zeros((len(scorer.classes), height, width), np.float32)
    scores = scorer(np.ascontiguousarray(padded)[None], valid[None])[0]
    scores = np.where(valid, scores, np.float32(0))[:, :height, :width]
    if not ((scores >= 0) & (scores <= 1)).all():
        raise AftermapError(
            f"{type(scorer).__name__} gave scores outside [0, 1] or NaN on valid pixels", repair="report this", code="scorer"
        )
    return scores


def _blend(
    tiles: Sequence[Window], scored: Iterator[F32], region: Window, shape: tuple[int, int], tiling: Tiling, classes: int
) -> F32:
    """Weighted mean of overlapping tiles. Weights are whole numbers and sums float64: tiles that agree lose no bit."""
    total = np.zeros((classes, region.height, region.width))
    weigh_y, weigh_x = np.zeros(region.height), np.zeros(region.width)
    for tile, scores in zip(tiles, scored, strict=True):
        wy = taper(tile.height, trim=tiling.trim, ramp=tiling.blend, at_start=tile.row == 0, at_end=tile.stop_row == shape[0])
        wx = taper(tile.width, trim=tiling.trim, ramp=tiling.blend, at_start=tile.col == 0, at_end=tile.stop_col == shape[1])
        ys, xs = tile.within(region).slices
        total[:, ys, xs] += scores * (wy[:, None] * wx[None, :])
        if tile.col == tiles[0].col:
            weigh_y[ys] += wy
        if tile.row == tiles[0].row:
            weigh_x[xs] += wx
    weight = np.maximum(weigh_y, 1)[:, None] * np.maximum(weigh_x, 1)[None, :]  # 0 only where the window does not reach
    total /= weight
    return total.astype(np.float32)


@dataclass(frozen=True)
class Plan:
    """What one mapping does: the scorers by method name, the leading one first, and how they are applied."""

    scorers: Mapping[str, Scorer]
    threshold: float
    keep_scores: bool
    memory_mb: int

    @cached_property
    def tiling(self) -> Tiling:
        """The tiling that all scorers share."""
        return Tiling.of(*self.scorers.values())

    @cached_property
    def bands(self) -> dict[tuple[str, str, str], int]:
        """Each (layer, band, unit) that any scorer reads, once, and its place on the band axis."""
        keys = [(i.layer, b, i.unit) for s in self.scorers.values() for i in s.inputs for b in i.bands]
        return {k: n for n, k in enumerate(dict.fromkeys(keys))}

    def block_edges(self, length: int) -> list[int]:
        """Edges of the blocks along one axis. They lie where tiles hand over, so that hardly a tile is scored twice."""
        tiling = self.tiling
        cores = min(MOST_CORES, max(1, int((self._block_px() ** 0.5) // CORE_PX)))
        begins = starts(length, tiling.size, tiling.stride)
        return [0, *(s + tiling.trim + tiling.blend // 2 for s in begins[cores::cores]), length]

    def _block_px(self) -> float:
        """Pixels a block may have: three blocks are in flight (read ahead, scored, written), and one scorer at a time."""
        per_px = 3 * 4 * len(self.bands) + 40 + 8 * len(self.scorers) + 3 * (len(PLANES) + 4)
        room = self.memory_mb - BASE_MB
        if room * 1e6 < per_px * CORE_PX**2:
            least = int(BASE_MB + per_px * CORE_PX**2 / 1e6) + 1
            raise UsageError(f"--memory {self.memory_mb} MB is too little for one tile", repair=f"give at least {least} MB")
        return room * 1e6 / per_px


def predict(scene: Scene, plan: Plan, exclusions: Exclusions, journal: Journal, *, progress: Callable[[int, int], None]) -> Parts:
    """Scores every block that the journal does not hold yet, less what is excluded; `progress(done, all)` is called after each.

    Raises RasterError when a window cannot be read; what was finished stays in the journal.
    """
    rows, cols = plan.block_edges(scene.shape[0]), plan.block_edges(scene.shape[1])
    grid_blocks = [Window(r, c, r2 - r, c2 - c) for r, r2 in pairwise(rows) for c, c2 in pairwise(cols)]
    finished = journal.done()
    todo = [b for b in grid_blocks if part_name(b) not in finished]
    progress(len(grid_blocks) - len(todo), len(grid_blocks))
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer, ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        ahead = reader.submit(_read_block, scene, plan, exclusions, todo[0]) if todo else None
        writing: Future[None] | None = None
        for n, block in enumerate(todo):
            assert ahead is not None
            cube = ahead.result()
            ahead = reader.submit(_read_block, scene, plan, exclusions, todo[n + 1]) if n + 1 < len(todo) else None
            planes, score = _map_block(scene, plan, block, cube, pool)
            if writing:
                writing.result()
            writing = writer.submit(_store, scene, plan, journal, block, planes, score)
            progress(len(grid_blocks) - len(todo) + n + 1, len(grid_blocks))
        if writing:
            writing.result()
    return Parts(journal, tuple(grid_blocks))


@dataclass(frozen=True)
class _Cube:
    """What one block needs, read in one go: `region` and its pixels (band, y, x); codes (y, x) of what the block excludes."""

    region: Window
    pixels: F32
    excluded: U8


def _read_block(scene: Scene, plan: Plan, exclusions: Exclusions, block: Window) -> _Cube:
    region = _reach(block, scene.shape, plan.tiling)
    pixels = np.empty((len(plan.bands), region.height, region.width), np.float32)
    for layer, unit in dict.fromkeys((lay, u) for lay, _, u in plan.bands):
        names = [b for lay, b, u in plan.bands if (lay, u) == (layer, unit)]
        pixels[[plan.bands[layer, b, unit] for b in names]] = scene.read(LayerBands(layer, tuple(names), unit), region)
    return _Cube(region, pixels, exclusions.codes(block))


def _map_block(scene: Scene, plan: Plan, block: Window, cube: _Cube, pool: ThreadPoolExecutor) -> tuple[U8, F32]:
    """Planes (likelihood, extent, exclusion, agreement) and the leading scores (y, x) of a block."""
    each = (score_window(s, _from(cube, plan, s), block, scene.shape, plan.tiling, pool)[0] for s in plan.scorers.values())
    lead = next(each)
    votes = (lead > plan.threshold).astype(np.uint8)
    for score in each:  # one at a time: together they would need room for every method
        votes += score > plan.threshold
    exclusion = settle(cube.excluded, ~np.isnan(lead))
    analysed = exclusion == 0
    lead = np.where(analysed, lead, np.float32(np.nan))
    filled = np.where(analysed, lead, np.float32(0))
    planes = (np.rint(filled * 100).astype(np.uint8), (filled > plan.threshold).astype(np.uint8), exclusion, votes)
    return np.stack([p if p is exclusion else np.where(analysed, p, np.uint8(NOT_ANALYSED)) for p in planes]), lead


def _from(cube: _Cube, plan: Plan, scorer: Scorer) -> Callable[[Window], F32]:
    places = [plan.bands[i.layer, b, i.unit] for i in scorer.inputs for b in i.bands]
    pixels = cube.pixels if places == list(range(len(cube.pixels))) else cube.pixels[places]
    return lambda window: pixels[(..., *window.within(cube.region).slices)]


def part_name(block: Window) -> str:
    """The file name of a block's part, without its ending."""
    return "part-{}-{}-{}-{}".format(*block)


def _store(scene: Scene, plan: Plan, journal: Journal, block: Window, planes: U8, score: F32) -> None:
    name, grid = part_name(block), scene.grid[block.slices]
    whole = Window(0, 0, block.height, block.width)
    files = {f"{name}.tif": journal.part(f"{name}.partial.tif")}
    with raster.Writer(files[f"{name}.tif"], grid, dtype="uint8", descriptions=PLANES) as part:
        part.write(planes, whole)
    if plan.keep_scores:
        files[f"{name}.score.tif"] = journal.part(f"{name}.score.partial.tif")
        with raster.Writer(files[f"{name}.score.tif"], grid, dtype="float32", descriptions=["score"]) as part:
            part.write(score[None], whole)
    journal.finish(name, files)


@dataclass(frozen=True)
class Parts:
    """The finished blocks as one raster, read by any window."""

    journal: Journal
    blocks: tuple[Window, ...]

    def plane(self, name: str, window: Window) -> U8:
        """One of PLANES (y, x); see products.md for the codes."""
        return np.asarray(self._gather(window, "tif", PLANES.index(name) + 1, np.uint8))

    def score(self, window: Window) -> F32:
        """The leading method's float scores (y, x), NaN where not analysed."""
        return np.asarray(self._gather(window, "score.tif", 1, np.float32))

    def _gather(self, window: Window, ending: str, band: int, dtype: Any) -> npt.NDArray[Any]:
        out = np.empty((window.height, window.width), dtype)
        for block in self.blocks:
            if (common := window.overlap(block)) is not None:
                path: Path = self.journal.part(f"{part_name(block)}.{ending}")
                out[common.within(window).slices] = raster.read_window(path, common.within(block), [band])[0]
        return out
