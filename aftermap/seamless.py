"""One scorer over any window of a scene: tiles with context, discarded or blended at their edges, whatever the window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import lcm

import numpy as np
import numpy.typing as npt

from aftermap.errors import AftermapError
from aftermap.scorer import Scorer
from aftermap.tiles import Window, starts, taper

F32 = npt.NDArray[np.float32]

CORE_PX = 512
"""Pixels a tile adds to the last, along each axis."""


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
    region = reach(window, shape, tiling)
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


def reach(window: Window, shape: tuple[int, int], tiling: Tiling) -> Window:
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
    if tiling.blend == 0:
        return _laid(tiles, scored, region, tiling, classes)
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


def _laid(tiles: Sequence[Window], scored: Iterator[F32], region: Window, tiling: Tiling, classes: int) -> F32:
    """Scores of tiles that need no blending, side by side: where two of them see enough context they agree."""
    out = np.zeros((classes, region.height, region.width), np.float32)
    for tile, scores in zip(tiles, scored, strict=True):
        top, left = (tiling.trim if first > low else 0 for first, low in ((tile.row, region.row), (tile.col, region.col)))
        out[
            :, tile.row - region.row + top : tile.stop_row - region.row, tile.col - region.col + left : tile.stop_col - region.col
        ] = scores[:, top:, left:]
    return out
