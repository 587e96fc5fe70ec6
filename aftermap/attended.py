"""A scene as something that looks at squares sees it: attention and tokens of its patches, block by block, without seams.

Squares overlap by half, and what several say of a patch is their mean, weighted from 256 in the middle of each down to its inner
edges: a patch there sees half of its surroundings, and positions within a square, which tokens know, would show as a lattice.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from aftermap.ahead import ahead
from aftermap.tiles import Window, blocks, starts, taper

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
BLOCK_PX, KEPT = 1024, 40
"""What is blended at once, and how many squares that reach beyond it are remembered for the next."""


class Looks(Protocol):
    """Attention (head, row, col) and tokens (width, row, col) of one square of pixels (band, y, x), NaN where unseen."""

    @property
    def patch(self) -> int: ...
    @property
    def side(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def width(self) -> int: ...
    def seen(self, pixels: F32) -> Bool: ...
    def __call__(self, pixels: F32) -> tuple[F32, F32]: ...


@dataclass(frozen=True)
class Seen:
    """Of a block: its window among the patches; attention (head, row, col), 1 where as much as at any patch of its square; which
    patches are kept (head, then their mean; row, col); tokens (width, row, col). NaN or False where nothing was seen."""

    window: Window
    attention: F32
    kept: Bool
    tokens: F32

    @property
    def there(self) -> Bool:
        """Patches (row, col) that something was seen in."""
        return np.asarray(np.isfinite(self.attention[0]), np.bool_)


@dataclass(frozen=True)
class Look:
    """Something that looks at squares, and how it reads the scene: pixels (band, y, x) of a window of `shape`."""

    onlooker: Looks
    shape: tuple[int, int]
    read: Callable[[Window], F32]
    mass: float = 0.6
    """Share of the attention of a square that its kept patches hold, the most looked at first."""
    block_px: int = BLOCK_PX

    @property
    def patches(self) -> tuple[int, int]:
        """Rows and columns; the last ones may reach beyond the scene."""
        return -(-self.shape[0] // self.onlooker.patch), -(-self.shape[1] // self.onlooker.patch)

    @property
    def side(self) -> int:
        """Of a square, in patches."""
        return self.onlooker.side // self.onlooker.patch

    def windows(self) -> list[Window]:
        """Blocks that cover the patches once."""
        return list(blocks(self.patches, max(1, self.block_px // self.onlooker.patch)))

    def pixels(self, window: Window) -> Window:
        """A window of patches in pixels of the scene."""
        patch = self.onlooker.patch
        whole = Window(window.row * patch, window.col * patch, window.height * patch, window.width * patch)
        return whole.pad(0, self.shape)

    def over(self, windows: list[Window]) -> Iterator[Seen]:
        """What is seen of each block; the same whatever the blocks and however many squares are looked at side by side."""
        kept: dict[Window, F32 | None] = {}
        for window in windows:
            yield self._block(window, kept)
            for old in list(kept)[:-KEPT]:
                del kept[old]

    def _block(self, block: Window, kept: dict[Window, F32 | None]) -> Seen:
        heads = self.onlooker.heads
        total = np.zeros((2 * heads + 1 + self.onlooker.width, block.height, block.width))
        weights = np.zeros(total.shape[1:])
        for tile, part, found in self._found(block, kept):
            if found is None:
                continue
            here, own = part.within(block).slices, part.within(tile).slices
            weight = np.where(np.isfinite(found[0]), self._weights(tile), 0)[own]
            weights[here] += weight
            total[:, *here] += weight * np.nan_to_num(found[:, *own])
        mean = np.where(weights > 0, total / np.maximum(weights, 1), np.nan).astype(np.float32)
        return Seen(block, mean[:heads], mean[heads : 2 * heads + 1] >= 0.5, mean[2 * heads + 1 :])

    def _found(self, block: Window, kept: dict[Window, F32 | None]) -> Iterator[tuple[Window, Window, F32 | None]]:
        """Squares, the part of each that lies in the block, and their planes; those that other blocks want are kept."""
        squares, held = list(self._squares(block)), set(kept)
        fresh = (
            (tile, self.read(self.pixels(tile))) for tile, _ in squares if tile not in held
        )  # read here: one thread for one layer
        made = ahead(self._square, fresh, workers=os.cpu_count() or 1)
        for tile, part in squares:
            found = kept[tile] if tile in held else next(made)
            if part != tile:
                kept[tile] = found
            yield tile, part, found

    def _squares(self, block: Window) -> Iterator[tuple[Window, Window]]:
        """Those that reach into a block, and the part of each that does."""
        (rows, height), (cols, width) = (
            (starts(length, self.side, self._stride), min(self.side, length)) for length in self.patches
        )
        near = [c for c in cols if block.col - width < c < block.stop_col]
        for row in (r for r in rows if block.row - height < r < block.stop_row):
            for tile in (Window(row, col, height, width) for col in near):
                if part := tile.overlap(block):
                    yield tile, part

    @property
    def _stride(self) -> int:
        return max(1, self.side // 2)

    def _weights(self, tile: Window) -> F64:
        down, across = (
            taper(size, trim=0, ramp=self.side - self._stride, at_start=first == 0, at_end=first + size >= length)
            for first, size, length in zip(tile[:2], tile[2:], self.patches, strict=True)
        )
        return down[:, None] * across

    def _square(self, given: tuple[Window, F32]) -> F32 | None:
        """Planes (attention of each head, kept of each head and of their mean, tokens; row, col); None where nothing was seen."""
        tile, inside = given
        patch = self.onlooker.patch
        beyond = [(0, n * patch - own) for n, own in zip(tile[2:], inside.shape[1:], strict=True)]
        seen = np.pad(self.onlooker.seen(inside), beyond).reshape(tile.height, patch, tile.width, patch).any(axis=(1, 3))
        if not seen.any():
            return None
        # Mirrored, for patches cut by the scene's edge would otherwise be alike for that alone.
        attention, tokens = self.onlooker(np.pad(inside, [(0, 0), *beyond], mode="symmetric"))
        total = attention[:, seen].sum(axis=1)
        if not total.all():  # each band by itself, and every one of them constant
            return None
        scaled = np.where(seen, attention * (seen.sum() / total)[:, None, None], np.float32(np.nan))
        kept = [most(plane, self.mass) for plane in (*scaled, scaled.mean(axis=0))]
        return np.concatenate([scaled, np.stack(kept), tokens]).astype(np.float32)


def most(plane: F32, share: float) -> Bool:
    """The fewest patches (row, col), from the largest down, that hold this share of all that is there; NaN is nowhere."""
    values = np.nan_to_num(plane, nan=0).ravel().astype(np.float64)
    order = np.argsort(-values, kind="stable")
    before = np.cumsum(values[order]) - values[order]
    kept = np.zeros(values.size, bool)
    kept[order] = (before < share * values.sum()) & (values[order] > 0)
    return kept.reshape(plane.shape)
