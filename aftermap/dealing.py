"""Candidates dealt to sides, as published or by blocks of ground, and what split.json says of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aftermap import published
from aftermap.chips import Candidate
from aftermap.errors import UsageError
from aftermap.splits import PUBLISHED_SHARES, SHARES, at_random, by_block, read_shares

NOT_DRAWN = "without a landslide, not drawn"


@dataclass(frozen=True)
class Dealing:
    """How: `split` "none", "random" or "blocks"; `halved` draws as many free chips as have a landslide."""

    split: str
    halved: bool
    seed: int
    block_px: int
    gap_px: int
    shares: str = ""
    """As splits.read_shares has them; empty: those published where `halved`, else SHARES."""

    def __post_init__(self) -> None:
        if self.shares and self.split == "none":
            raise UsageError("shares without a split", repair="say --split random or --split blocks")

    @property
    def of_sides(self) -> Mapping[str, float]:
        """Side -> share, or number of chips. Raises UsageError where blocks are to hold a number."""
        usual: Mapping[str, float] = PUBLISHED_SHARES if self.halved else SHARES
        found = read_shares(self.shares) if self.shares else usual
        if self.split == "blocks" and all(isinstance(v, int) for v in found.values()):
            raise UsageError("blocks of ground hold what they hold, not so many chips", repair="give --shares that add to 1")
        return found

    @property
    def protocol(self) -> dict[str, Any] | None:
        """What split.json says besides the sides; None where nothing is split."""
        if self.split == "none":
            return None
        blocks = {"block_px": self.block_px, "gap_px": self.gap_px} if self.split == "blocks" else {}
        return {"protocol": self.split, "seed": self.seed, "shares": dict(self.of_sides), **blocks}

    def told(self, sides: Mapping[int, str], left_out: Mapping[str, int]) -> dict[str, Any]:
        """What a command says: chips, chips of each side ("": left out), sides that have none, and what was left out before."""
        counts = Counter(sides.values())
        empty = [side for side in self.of_sides if side not in counts] if self.split != "none" else []
        return {"chips": counts.total() - counts[""], "splits": dict(counts), "empty": empty, "left_out": dict(left_out)}


@dataclass(frozen=True)
class Dealt:
    """Places among the candidates with their sides ("": left out between two), and how many free ones were not drawn."""

    sides: dict[int, str]
    not_drawn: int


def deal(candidates: Sequence[Candidate], how: Dealing, rng: np.random.Generator, events: Sequence[str] = ()) -> Dealt:
    """Candidates dealt; those of several `events` (one of each candidate) by blocks event by event.

    Blocks are dealt before free chips are drawn, so that each side is balanced; at random it is the same either way.
    """
    every = list(range(len(candidates)))
    if how.split == "blocks":
        sides = _blocks(candidates, how, rng, events or [""] * len(candidates))
        groups = [[i for i in every if sides[i] == side] for side in how.of_sides]
        drawn = {i for group in groups for i in (_halved(candidates, group, rng) if how.halved else group)}
        free = sum(bool(side) for side in sides.values()) - len(drawn)
        return Dealt({i: side for i, side in sides.items() if not side or i in drawn}, free)
    chosen = _halved(candidates, every, rng) if how.halved else every
    if how.split == "none":
        return Dealt(dict.fromkeys(chosen, "all"), len(every) - len(chosen))
    found = at_random([bool(candidates[i].contents) for i in chosen], rng, how.of_sides)
    return Dealt(dict(zip(chosen, found, strict=True)), len(every) - len(chosen))


def _blocks(candidates: Sequence[Candidate], how: Dealing, rng: np.random.Generator, events: Sequence[str]) -> dict[int, str]:
    found: dict[int, str] = {}
    for event in dict.fromkeys(events):
        own = [i for i, of in enumerate(events) if of == event]
        windows = [candidates[i].window for i in own]
        found |= zip(own, by_block(windows, rng, how.of_sides, block_px=how.block_px, gap_px=how.gap_px), strict=True)
    return dict(sorted(found.items()))


def _halved(candidates: Sequence[Candidate], places: Sequence[int], rng: np.random.Generator) -> list[int]:
    return [places[i] for i in published.halved([candidates[i] for i in places], rng)]
