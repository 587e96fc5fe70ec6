"""Splits without leaks: whole events, or whole blocks of ground, fall to one side; chips are never dealt one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from aftermap.errors import UsageError
from aftermap.tiles import Window

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
"""Shares of the chips that go to each split, unless told otherwise."""


def by_event(sizes: Mapping[str, int], rng: np.random.Generator, shares: Mapping[str, float] = SHARES) -> dict[str, str]:
    """Event -> split, every split with at least one event; `sizes` are chips per event.

    The largest event first, each to the split that lacks most of its share; `rng` orders events of one size. Raises
    UsageError ("too-few-events") where there are fewer events than splits.
    """
    _check(shares)
    if len(sizes) < len(shares):
        raise UsageError(
            f"{len(sizes)} events ({', '.join(sizes)}) cannot be split into {', '.join(shares)}",
            repair="give more events, fewer splits, or split one event by blocks",
            code="too-few-events",
        )
    lacking = {split: share * sum(sizes.values()) for split, share in shares.items()}
    names = sorted(sizes)
    order = sorted((names[i] for i in rng.permutation(len(names))), key=lambda event: -sizes[event])
    found: dict[str, str] = {}
    for k, event in enumerate(order):
        empty = [s for s in shares if s not in found.values()]
        among = empty if len(order) - k <= len(empty) else list(shares)
        split = max(among, key=lambda s: lacking[s])
        found[event] = split
        lacking[split] -= sizes[event]
    return found


def folds(sizes: Mapping[str, int], count: int, rng: np.random.Generator) -> list[tuple[str, ...]]:
    """`count` groups of events of about the same number of chips, every event in one."""
    dealt = by_event(sizes, rng, {str(k): 1 / count for k in range(count)})
    return [tuple(sorted(event for event, fold in dealt.items() if fold == str(k))) for k in range(count)]


def by_block(
    windows: Sequence[Window],
    rng: np.random.Generator,
    shares: Mapping[str, float] = SHARES,
    *,
    block_px: int,
    gap_px: int = 0,
) -> list[str]:
    """The split of each window; "" for one that is to be left out.

    Ground is cut into square blocks of `block_px`, each wholly in one split. A window that, grown by `gap_px` on each side,
    touches blocks of two splits is left out, so that pixels of two splits are never shared and lie at least `gap_px` apart.
    """
    _check(shares)
    touched = [_blocks(window, block_px, gap_px) for window in windows]
    held = sorted({block for blocks in touched for block in blocks})
    names = list(shares)
    dealt = np.repeat(np.arange(len(names)), _counts(len(held), list(shares.values())))
    split_of = {block: names[k] for block, k in zip(held, rng.permutation(dealt), strict=True)}
    found = []
    for blocks in touched:
        sides = {split_of[b] for b in blocks}
        found.append(sides.pop() if len(sides) == 1 else "")
    return found


def _blocks(window: Window, block_px: int, gap_px: int) -> list[tuple[int, int]]:
    rows = range((window.row - gap_px) // block_px, (window.stop_row - 1 + gap_px) // block_px + 1)
    cols = range((window.col - gap_px) // block_px, (window.stop_col - 1 + gap_px) // block_px + 1)
    return [(row, col) for row in rows for col in cols]


def _counts(total: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers that add to `total`, as near the shares as they come, none zero where there is enough for all."""
    ends = np.rint(np.cumsum(shares) / sum(shares) * total).astype(int)
    counts = np.diff(ends, prepend=0)
    while total >= len(shares) and counts.min() == 0:
        counts[counts.argmax()] -= 1
        counts[counts.argmin()] += 1
    return [int(c) for c in counts]


def _check(shares: Mapping[str, float]) -> None:
    if not shares or min(shares.values()) <= 0:
        said = ", ".join(f"{k} {v:g}" for k, v in shares.items())
        raise UsageError(f"the shares of the splits must be above zero, not {said or 'none'}", repair="correct the shares")
