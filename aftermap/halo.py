"""How far from the edge of a tile a network's scores still depend on what lies beyond it, measured: its halo.

What a map leaves out at the edges of tiles it scores twice; a halo wider than a network needs is time lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice
from math import ceil

import numpy as np
import numpy.typing as npt

from aftermap.engine import NEAR, SHARE, Network

F32 = npt.NDArray[np.float32]

HALOS = (32, 48, 64)
"""Tried in this order. Below 32 px tiles would not be blended (seamless.py); the last is taken where none is enough."""
TILE_PX, BEYOND_PX = 384, 96
"""Side of the tile, and what the image has more on each side."""


def measured(network: Network, chips: Sequence[F32]) -> int:
    """The least of HALOS, in px, within which a tile's scores are those of a larger image as architecture.md's rule 8 asks for:
    within 0.02 on 99.9 % of pixels, before any blending. `chips` (band, y, x) of one size are laid side by side as that image."""
    whole = _laid(chips, TILE_PX + 2 * BEYOND_PX)
    inside = (..., slice(BEYOND_PX, BEYOND_PX + TILE_PX), slice(BEYOND_PX, BEYOND_PX + TILE_PX))
    near = np.abs(network.probabilities(whole[None])[inside] - network.probabilities(whole[inside][None])) <= NEAR
    return next((h for h in HALOS if near[..., h:-h, h:-h].mean() >= SHARE), HALOS[-1])


def _laid(chips: Sequence[F32], side: int) -> F32:
    """Chips in rows, again from the first where they end, cut to a square."""
    height, width = chips[0].shape[1:]
    rows, cols = ceil(side / height), ceil(side / width)
    every = list(islice(cycle(chips), rows * cols))
    laid = [np.concatenate(every[r * cols : (r + 1) * cols], axis=2) for r in range(rows)]
    return np.ascontiguousarray(np.concatenate(laid, axis=1)[:, :side, :side])
