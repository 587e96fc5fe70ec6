"""One scorer over any window of a scene: tiles with context, discarded or blended at their edges, whatever the window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import lcm

import numpy as np
import numpy.typing as npt

from aftermap.errors import AftermapError
from aftermap.scorer import Scorer, planes_of
from aftermap.tiles import Window, starts, taper

F32 = npt.NDArray[np.float32]

CORE_PX = 512
"""Pixels a tile adds to the last, along each axis, at least."""
BLENDED_PX = 672
"""Side of tiles that are blended, at least: less of them overlaps than of smaller ones, and memory has room for some."""


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
        """One tiling for all scorers of a run. What lies within the largest halo of an edge is
        discarded, so that local scorers are exact without blending; a halo of 32 px and more marks a deep network, whose
        residual seams are tapered."""
        halo = max(s.halo_px for s in scorers)
        blend = blend if blend is not None else (32 if halo >= 32 else 0)
        size = max(CORE_PX + 2 * halo + blend, BLENDED_PX if blend else 0)
        surplus = -size % lcm(*(s.multiple_of for s in scorers))
        return cls(size + surplus, halo, blend + surplus)


@dataclass(frozen=True)
class Handed:
    """What tiles scored for one window have to say of the next ones, row by row of windows, so that each is scored once.

    Nothing but time depends on it: what is not promised here is scored again, to the same scores. Kept are strips alone, of the
    `blend` px that a tile reaches beyond its window; more only where the last tiles are pulled back to end flush.
    """

    right: dict[Window, tuple[Window, F32 | None]] = field(default_factory=dict)
    below: dict[Window, tuple[Window, F32 | None]] = field(default_factory=dict)
    """Tile -> a part of it, and the scores (class, y, x) there; None while it is being scored."""
    last: list[Window] = field(default_factory=list)
    """The window that was begun last, which may still ask."""

    def find(self, tile: Window, part: Window) -> tuple[Window, F32 | None] | None:
        """What holds that part of a tile, or will."""
        for held in filter(None, (self.right.get(tile), self.below.get(tile))):
            if held[0].overlap(part) == part:
                return held
        return None

    def promise(self, tile: Window, weighing: Window, window: Window) -> None:
        """Says that what lies beyond the window of the part that weighs will be kept, before anyone asks for it."""
        for side, part in self._beyond(weighing, window):
            side[tile] = (part, None)

    def keep(self, tile: Window, weighing: Window, window: Window, scores: F32) -> None:
        """Keeps what was promised; `scores` (class, y, x) are of the whole tile."""
        for side, part in self._beyond(weighing, window):
            side[tile] = (part, scores[(..., *part.within(tile).slices)].copy())

    def _beyond(self, weighing: Window, window: Window) -> Iterator[tuple[dict[Window, tuple[Window, F32 | None]], Window]]:
        beyond = (
            (self.right, weighing._replace(col=window.stop_col, width=weighing.stop_col - window.stop_col)),
            (self.below, weighing._replace(row=window.stop_row, height=weighing.stop_row - window.stop_row)),
        )
        return ((side, part) for side, part in beyond if part.height > 0 and part.width > 0)

    def begin(self, following: Window) -> None:
        """Drops what neither the last window nor one after it can ask for."""
        window, *_ = self.last or [following]
        self.last[:] = [following]
        for tile in [t for t, (part, _) in self.right.items() if part.stop_row <= window.row or part.stop_col <= window.col]:
            del self.right[tile]
        for tile in [t for t, (part, _) in self.below.items() if part.stop_row <= window.row]:
            del self.below[tile]


def score_window(scorer: Scorer, read: Callable[[Window], F32], window: Window, shape: tuple[int, int], tiling: Tiling,
                 pool: ThreadPoolExecutor | None = None, handed: Handed | None = None) -> F32:  # fmt: skip
    """Blended scores (class, y, x) of a window, after them the spread of a scorer that gives one; NaN where its bands are not
    all observed.

    `read` gives pixels (band, y, x) of any window of the scene. Every tile of the scene's one tiling that weighs on the
    window takes part, so that the result does not depend on the window, nor on what was `handed` on by windows before it.
    """
    return begin_window(scorer, read, window, shape, tiling, pool, handed)()


def begin_window(scorer: Scorer, read: Callable[[Window], F32], window: Window, shape: tuple[int, int], tiling: Tiling,
                 pool: ThreadPoolExecutor | None = None, handed: Handed | None = None) -> Callable[[], F32]:  # fmt: skip
    """What gives the scores of a window, as `score_window`; its tiles are given to the `pool` at once. Windows that share what is
    `handed` on are begun in their order and asked for in it."""
    region = reach(window, shape, tiling)
    pixels = read(region)
    strips = handed or Handed()
    parts = {tile: _weighing(tile, shape, tiling) for tile in _tiles(window, shape, tiling)}
    inside = {tile: cut for tile, part in parts.items() if (cut := part.overlap(window)) is not None}
    strips.begin(window)
    missing = [tile for tile, cut in inside.items() if strips.find(tile, cut) is None]
    for tile in missing:
        strips.promise(tile, parts[tile], window)
    scored = (pool.map if pool else map)(lambda t: _score_tile(scorer, pixels[(..., *t.within(region).slices)]), missing)

    def finished() -> F32:
        found = {tile: strips.find(tile, cut) for tile, cut in inside.items() if tile not in missing}

        def pieces() -> Iterator[tuple[Window, Window, F32]]:
            for tile, cut in inside.items():
                held, scores = found.pop(tile, None) or (tile, next(scored))
                assert scores is not None  # windows were asked for in another order than they were begun in
                if held is tile:
                    strips.keep(tile, parts[tile], window, scores)
                yield tile, cut, scores[(..., *cut.within(held).slices)]

        out = (_blend if tiling.blend else _laid)(pieces(), window, shape, tiling, planes_of(scorer))
        out[:, ~np.isfinite(pixels[(..., *window.within(region).slices)]).all(axis=0)] = np.nan
        return out

    return finished


def _weighing(tile: Window, shape: tuple[int, int], tiling: Tiling) -> Window:
    """The part of a tile that has any weight: all but `trim` px at edges that are not the scene's."""
    row, col = (start + (tiling.trim if start else 0) for start in tile[:2])
    stops = ((tile.stop_row, shape[0]), (tile.stop_col, shape[1]))
    stop_row, stop_col = (stop - (tiling.trim if stop < length else 0) for stop, length in stops)
    return Window(row, col, stop_row - row, stop_col - col)


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
        return np.zeros((planes_of(scorer), height, width), np.float32)
    scores = scorer(np.ascontiguousarray(padded)[None], valid[None])[0]
    scores = np.where(valid, scores, np.float32(0))[:, :height, :width]
    if not ((scores >= 0) & (scores <= 1)).all():
        raise AftermapError(
            f"{type(scorer).__name__} gave scores outside [0, 1] or NaN on valid pixels", repair="report this", code="scorer"
        )
    return scores


def _blend(
    pieces: Iterator[tuple[Window, Window, F32]], window: Window, shape: tuple[int, int], tiling: Tiling, planes: int
) -> F32:
    """Weighted mean of overlapping tiles, each with its part of the window and the scores there. Weights are whole numbers and
    sums float64: tiles that agree lose no bit."""
    total = np.zeros((planes, window.height, window.width))
    weigh_y, weigh_x = np.zeros(window.height), np.zeros(window.width)
    rows, cols = set(), set()
    for tile, part, scores in pieces:
        wy = taper(tile.height, trim=tiling.trim, ramp=tiling.blend, at_start=tile.row == 0, at_end=tile.stop_row == shape[0])
        wx = taper(tile.width, trim=tiling.trim, ramp=tiling.blend, at_start=tile.col == 0, at_end=tile.stop_col == shape[1])
        (ys, xs), (own_y, own_x) = part.within(window).slices, part.within(tile).slices
        wy, wx = wy[own_y], wx[own_x]
        total[:, ys, xs] += scores * (wy[:, None] * wx[None, :])
        if tile.row not in rows:
            weigh_y[ys] += wy
        if tile.col not in cols:
            weigh_x[xs] += wx
        rows.add(tile.row)
        cols.add(tile.col)
    total /= weigh_y[:, None] * weigh_x[None, :]
    return total.astype(np.float32)


def _laid(
    pieces: Iterator[tuple[Window, Window, F32]], window: Window, shape: tuple[int, int], tiling: Tiling, planes: int
) -> F32:
    """Scores of tiles that need no blending, side by side: where two of them see enough context they agree."""
    out = np.zeros((planes, window.height, window.width), np.float32)
    for _, part, scores in pieces:
        out[(..., *part.within(window).slices)] = scores
    return out
