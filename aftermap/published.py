"""Chips as published systems cut them (methods.md B.1, 14.5): whole, on dry land, as many without a landslide as with one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aftermap.area import pixel_size_m
from aftermap.chips import Candidate, Cutter, lattice
from aftermap.drainage import ELEVATION

MOST_WATER = 0.2
"""Share of a chip at an elevation of 0 or below, beyond which it is left out."""
BLOCK_M = 2000.0
"""Least side of the blocks of ground that fall to one side; between two sides stays a gap of one chip."""


@dataclass(frozen=True)
class Whole:
    """Chips side by side that may be drawn, and how many there are that may not, by reason."""

    candidates: list[Candidate]
    unseen: int
    water: int


def whole(cutter: Cutter, size: int) -> Whole:
    """Windows side by side of which every pixel was observed in every pass and, where there is a `dem`, few are water."""
    every = lattice(cutter.scene.shape, size, size)
    seen = list(cutter.candidates(every, 1.0))
    dry = [c for c in seen if _water(cutter, c) <= MOST_WATER]
    return Whole(dry, len(every) - len(seen), len(seen) - len(dry))


def _water(cutter: Cutter, candidate: Candidate) -> float:
    if "dem" not in cutter.scene.layers:
        return 0.0
    return float((cutter.scene.read(ELEVATION, candidate.window) <= 0).mean())


def halved(candidates: Sequence[Candidate], rng: np.random.Generator) -> list[int]:
    """Places of all with a landslide and of as many without, drawn at random; fewer where there are no more."""
    having = [i for i, c in enumerate(candidates) if c.contents]
    free = [i for i, c in enumerate(candidates) if not c.contents]
    return sorted([*having, *(free[i] for i in rng.permutation(len(free))[: len(having)])])


def block_px(cutter: Cutter, size: int) -> int:
    """Side of a block: four chips or more, and `BLOCK_M`; a multiple of `size`, so that no chip lies across two."""
    least = BLOCK_M / (pixel_size_m(cutter.scene.grid) or math.inf)
    return size * max(4, math.ceil(least / size))
