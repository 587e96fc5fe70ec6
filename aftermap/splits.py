"""Splits without leaks: whole events, or whole blocks of ground, fall to one side; and `at_random`, which leaks, as published."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from aftermap.errors import UsageError
from aftermap.tiles import Window

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
"""Shares of the chips that go to each split, unless told otherwise."""

PUBLISHED_SHARES = {"pretrain": 0.6, "train": 0.2, "validation": 0.1, "test": 0.1}
"""Of the table of methods.md B.1 for Hokkaido; its text has 50, 25, 12.5 and 12.5 %."""
LEAK = "chips dealt at random have neighbours on other sides: scores come out too good (methods.md section 16, trap 23)"


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


def read_shares(said: str) -> dict[str, float] | dict[str, int]:
    """Side -> share, or whole number of chips, from "train=0.8,test=0.2" or "train=110,test=56". Raises UsageError."""
    pairs = [part.partition("=")[::2] for part in said.split(",")]
    names = [name.strip() for name, _ in pairs]
    try:
        numbers = [int(v) if v.strip().isdigit() else float(v) for _, v in pairs]
    except ValueError:
        numbers = []
    whole = all(isinstance(v, int) for v in numbers)
    if numbers and all(names) and len(set(names)) == len(names) and min(numbers) > 0:
        if whole:
            return dict(zip(names, map(int, numbers), strict=True))
        if math.isclose(sum(numbers), 1, abs_tol=1e-6):
            return dict(zip(names, map(float, numbers), strict=True))
    raise UsageError(
        f"shares are {said!r}", repair="say SIDE=SHARE,... that add to 1, or SIDE=NUMBER,... of chips, each side once"
    )


def at_random(
    having: Sequence[bool], rng: np.random.Generator, shares: Mapping[str, float] | Mapping[str, int] = PUBLISHED_SHARES
) -> list[str]:
    """The side of each chip, dealt one by one; every side has its part of those `having` a landslide, to one chip.

    Whole numbers are met exactly, and "" is left out beyond them. It leaks space (LEAK). Raises UsageError ("too-few-chips").
    """
    sides = [*shares, ""]
    sizes = _sizes(len(having), shares)
    ends = np.floor(np.cumsum(sizes) * (sum(having) / max(len(having), 1)) + 0.5).astype(int)
    own = np.diff(ends, prepend=0)
    found = np.empty(len(having), dtype=object)
    for group, dealt in ((True, own), (False, np.array(sizes) - own)):
        members = np.flatnonzero(np.asarray(having, bool) == group)
        found[rng.permutation(members)] = np.repeat(np.array(sides, dtype=object), dealt)
    return [str(side) for side in found]


def _sizes(total: int, shares: Mapping[str, float] | Mapping[str, int]) -> list[int]:
    """Chips of each side, and of none."""
    numbers = [v for v in shares.values() if isinstance(v, int)]
    if len(numbers) < len(shares):
        return [*_counts(total, list(shares.values())), 0]
    if sum(numbers) > total:
        raise UsageError(
            f"{total} chips cannot be dealt as {', '.join(f'{k} {v}' for k, v in shares.items())}",
            repair=f"give numbers that add to {total} at most, or shares that add to 1",
            code="too-few-chips",
        )
    return [*numbers, total - sum(numbers)]


def digest(sides: Mapping[str, str]) -> str:
    """SHA-256 of which chip is on which side, whatever the order."""
    return hashlib.sha256("".join(f"{name}\t{side}\n" for name, side in sorted(sides.items())).encode()).hexdigest()


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


def by_stripe(
    xy: npt.NDArray[np.float64], rng: np.random.Generator, shares: Mapping[str, float] = SHARES, *, stripes: int = 60,
    angle_deg: float = 0,
) -> list[str]:  # fmt: skip
    """The split of each place (n, 2) in metres east and north: stripes of equal width, each wholly in one split.

    Stripes run at `angle_deg` counterclockwise from east and reach over all places. Ground on both sides of an edge is near.
    """
    _check(shares)
    angle = np.radians(angle_deg)
    across = xy @ np.array([-np.sin(angle), np.cos(angle)])
    reach = max(float(np.ptp(across)), 1e-9)
    own = np.minimum(((across - across.min()) / reach * stripes).astype(int), stripes - 1)
    dealt = rng.permutation(np.repeat(np.arange(len(shares)), _counts(stripes, list(shares.values()))))
    return [list(shares)[dealt[k]] for k in own]


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
