"""What a network is adapted to: squares of unlabelled pictures in an order of the seed, the same first ones for every k."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from aftermap.scene import Scene
from aftermap.scorer import LayerBands
from aftermap.tiles import Window, starts

F32 = npt.NDArray[np.float32]

SIDE_PX = 256
LEAST_VALID = 0.5
"""Crops with less of their pixels observed are no samples: their statistics are of the fill (methods.md A.6)."""


@dataclass(frozen=True)
class Picture:
    """One unlabelled image: its size (y, x), and pixels (band, y, x) of a window as the network reads them."""

    name: str
    shape: tuple[int, int]
    read: Callable[[Window], F32]


def picture_of(scene: Scene, inputs: Sequence[LayerBands], as_read: Callable[[F32], F32]) -> Picture:
    """A scene; `as_read` takes and gives (n, band, y, x)."""
    return Picture(
        scene.name, scene.shape, lambda window: as_read(np.concatenate([scene.read(i, window) for i in inputs])[None])[0]
    )


class Place(NamedTuple):
    """Where a crop is."""

    picture: str
    window: Window


@dataclass(frozen=True)
class Crop:
    """One of them."""

    place: Place
    pixels: F32
    """(band, y, x); beyond a small picture NaN."""


def crops(pictures: Sequence[Picture], shots: int, seed: int, *, side: int = SIDE_PX, multiple_of: int = 32) -> Iterator[Crop]:
    """At most so many, each at least half observed; a picture smaller than a crop is one."""
    places = [(k, window) for k, picture in enumerate(pictures) for window in _windows(picture.shape, side)]
    found = 0
    for place in np.random.default_rng(seed).permutation(len(places)):
        if found == shots:
            return
        number, window = places[place]
        height, width = (-(-length // multiple_of) * multiple_of for length in (window.height, window.width))
        part = pictures[number].read(window)
        pixels = np.full((len(part), height, width), np.nan, np.float32)
        pixels[:, : window.height, : window.width] = part
        if np.isfinite(part).all(axis=0).mean() >= LEAST_VALID:
            found += 1
            yield Crop(Place(pictures[number].name, window), pixels)


def _windows(shape: tuple[int, int], side: int) -> list[Window]:
    """Those at the far edges are pulled back to lie inside."""
    rows, cols = (starts(length, side, side) for length in shape)
    return [Window(r, c, min(side, shape[0]), min(side, shape[1])) for r in rows for c in cols]
