"""The one seam: a Scorer turns pixels into scores; a Method looks at the scene first and gives a Scorer.

A network, a classical index and a test's constant function are all Scorers, so prediction cannot tell them apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from aftermap.scene import Scene

F32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class LayerBands:
    """Bands of one layer that a scorer reads, in this order and unit; bands by sensor name ("VV") or common name ("green")."""

    layer: str
    bands: tuple[str, ...]
    unit: str
    """One of sensors.UNITS: "dB", "power", "amplitude", "reflectance", "digital_number" (as stored)."""
    median_px: int = 1
    """Each pixel is the median of what was observed of this many x this many (odd) around it: shared by the scorers of a run."""


def pair_inputs(bands: tuple[str, ...], unit: str, median_px: int = 1) -> tuple[LayerBands, LayerBands]:
    """The bands after, and the same before."""
    return LayerBands("after", bands, unit, median_px), LayerBands("before", bands, unit, median_px)


@runtime_checkable
class Scorer(Protocol):
    """Scores (n, class, y, x) float32 in [0, 1] from pixels (n, band, y, x) and valid (n, y, x).

    The band axis holds the bands of all `inputs` one after the other. Pixels are NaN where they were not observed, and
    `valid` is True where every band was. What a scorer returns where `valid` is False is not used. `halo_px` is how far
    a score looks (0 for a pixelwise scorer); height and width are multiples of `multiple_of`. A scorer is a frozen
    dataclass of plain numbers, so that every number it uses is recorded in run.json. Where a number comes from stands in
    words in a field whose name ends in `source`; "no threshold found" there becomes a warning of the map.
    """

    @property
    def inputs(self) -> tuple[LayerBands, ...]: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def halo_px(self) -> int: ...
    @property
    def multiple_of(self) -> int: ...

    def __call__(self, pixels: F32, valid: Bool) -> F32: ...


@runtime_checkable
class Heavy(Scorer, Protocol):
    """A scorer that takes memory of its own beside the pixels and scores of a tile."""

    def memory_mb(self, tile: tuple[int, int], threads: int) -> float:
        """What it takes, with that many tiles (y, x) px at once; the same number whenever it is asked."""
        ...

    def release(self) -> None:
        """Gives it back, until it scores again."""
        ...


@runtime_checkable
class Several(Protocol):
    """A scorer made of several scores, which gives one plane more after those of its classes: their standard deviation for the
    first class, in [0, 0.5]."""

    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def spreads(self) -> int:
        """Over how many scores."""
        ...


def planes_of(scorer: Scorer) -> int:
    """How many planes a scorer gives: one for each class, and the spread where it has one."""
    return len(scorer.classes) + isinstance(scorer, Several)


@runtime_checkable
class Method(Protocol):
    """Whatever must see the scene before it can score a tile; a scorer that need not returns itself."""

    @property
    def name(self) -> str: ...

    def why_not(self, scene: Scene) -> str:
        """Why this method cannot run on the scene, in words; empty when it can."""
        ...

    def prepare(self, scene: Scene) -> Scorer:
        """A scorer with the scene-wide numbers frozen, from a windowed pass in bounded memory."""
        ...
