"""A network that says of whole chips how densely landslides lie in them, and orders the cells of a map by it.

After arXiv 2211.10338 (methods.md B3): it makes no extent. The cells of the map are as large as its chips.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from aftermap import card as cards
from aftermap.card import Card
from aftermap.errors import InputRefusedError, UsageError
from aftermap.products.density import Cells
from aftermap.scene import Scene
from aftermap.tiles import Window

if TYPE_CHECKING:
    from aftermap.engine import Network

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

_CLASS = re.compile(r"(up to|over|(\d+(?:\.\d+)?) to) (\d+(?:\.\d+)?) per km2")
OPEN = 2.0
"""Times its lower edge that a class without an upper one counts as."""


def middles(classes: Sequence[str]) -> tuple[float, ...]:
    """Hazards per km2 that each class counts as: none 0, "up to 25 per km2" 12.5, "25 to 50 per km2" 37.5, "over 50 per km2" 100.

    Empty where these are not classes of density, from the least up.
    """
    found = [_middle(name) for name in classes]
    known = [m for m in found if m is not None]
    rising = all(a < b for a, b in pairwise(known))
    return tuple(known) if len(known) == len(found) > 1 and rising else ()


def _middle(name: str) -> float | None:
    if name == "none":
        return 0.0
    if (told := _CLASS.fullmatch(name)) is None:
        return None
    kind, low, edge = told[1], told[2], float(told[3])
    return edge * OPEN if kind == "over" else (edge + float(low or 0)) / 2


def apart(
    scene: Scene, models: str | Sequence[str] | None, how: Mapping[str, str]
) -> tuple[DensityModel | None, tuple[str, ...]]:
    """The model of landslide density among those asked for (names or folders), opened as `how` has it, and the others.

    Raises the errors of Card.read and Network.open, UsageError ("model-hazard") for several, or one that does not say how large
    its chips are, InputRefusedError ("model-input") where the scene lacks what it reads.
    """
    asked = (models,) if isinstance(models, str) else tuple(models or ())
    if scene.hazard != "landslide":
        return None, asked
    known = {model: (cards.find(model), Card.read(cards.find(model))) for model in asked}
    mine = [m for m, (_, c) in known.items() if c.hazard == "landslide" and c.gives == "class" and middles(c.classes)]
    if not mine:
        return None, asked
    if len(mine) > 1:
        raise UsageError(f"{' and '.join(mine)} are all models of density", repair="give one of them", code="model-hazard")
    folder, own = known[mine[0]]
    others = tuple(m for m in asked if m not in mine)
    if own.name in {known[m][1].name for m in others}:
        raise UsageError(f"two models are called {own.name}", repair="call one otherwise in model.toml", code="model-hazard")
    if not own.chip_px:
        what = f"the model {own.name} does not say how large its chips are"
        raise UsageError(what, repair="enter the side in pixels as chip_px in its model.toml", code="model-hazard")
    if why := own.why_not(scene):
        repair = "give the images that it was made for, or another model"
        raise InputRefusedError(f"the model {mine[0]} cannot run on these images: {why}", repair=repair, code="model-input")
    from aftermap.engine import Network  # openvino costs 0.3 s, and most maps have no such model

    return DensityModel(Network.open(folder, **how)), others


@dataclass(frozen=True)
class DensityModel:
    """The network of such a model, as far as a map needs it."""

    network: Network

    @property
    def name(self) -> str:
        """Of the card."""
        return self.network.name

    @property
    def cells(self) -> Cells:
        """As large as the chips."""
        return Cells(self.network.card.chip_px, self.network.card.chip_px)

    @property
    def facts(self) -> dict[str, Any]:
        """What determines its answers, and what a reader should know of it (engine.facts)."""
        from aftermap.engine import facts

        middle = dict(zip(self.network.card.classes, middles(self.network.card.classes), strict=True))
        return {**facts(self.network), "gives": "class", "counts_as_per_km2": middle}

    def refuse_above(self, memory_mb: float, taken_mb: float) -> None:
        """Raises UsageError ("memory") where one chip needs more than is left beside `taken_mb`."""
        needs = int(taken_mb + self.network.memory_mb((self.cells.rows, self.cells.cols), 1)) + 1
        if needs > memory_mb:
            what = f"--memory {memory_mb:g} MB is too little for a chip of {self.name}, which needs {needs}"
            raise UsageError(what, repair=f"give at least --memory {needs}", code="memory")

    def of(self, scene: Scene, analysed: Callable[[Window], Bool]) -> GradedCells:
        """The model on a scene; `analysed` (y, x) of a window says where the map is of any use."""
        ready = self.network.prepare(scene)
        network = replace(self.network, **{k: getattr(ready, k) for k in ("scene_mean", "scene_std")})
        return GradedCells(network, scene, analysed, self.cells)


@dataclass(frozen=True)
class GradedCells:
    """The cells of a scene as a model of density sees them (products.density.Graded), read row by row."""

    network: Network
    scene: Scene = field(repr=False)
    analysed: Callable[[Window], Bool] = field(repr=False)
    cells: Cells

    @property
    def name(self) -> str:
        """Of the model."""
        return self.network.name

    @property
    def classes(self) -> tuple[str, ...]:
        """As the card has them, from the least dense up."""
        return self.network.card.classes

    def row(self, number: int) -> F32:
        """Probabilities (class, column) of a row of cells; NaN where less than half of a cell was observed and analysed."""
        windows = list(self._windows(number))
        found = np.full((len(self.classes), len(windows)), np.nan, np.float32)
        for k, window in enumerate(windows):
            pixels = self._chip(window)
            seen = np.isfinite(pixels[:, : window.height, : window.width]).all(axis=0) & self.analysed(window)
            if 2 * int(seen.sum()) >= self.cells.rows * self.cells.cols:
                found[:, k] = self.network.probabilities(pixels[None])[0]
        return found

    def expected(self, probabilities: F32) -> F64:
        """Hazards per km2 (column,): what each class counts as (`middles`), times its probability."""
        return np.asarray(np.asarray(middles(self.classes)) @ probabilities.astype(np.float64))

    def _windows(self, number: int) -> Iterator[Window]:
        height, width = self.scene.shape
        row = number * self.cells.rows
        for col in range(0, width, self.cells.cols):
            yield Window(row, col, min(self.cells.rows, height - row), min(self.cells.cols, width - col))

    def _chip(self, window: Window) -> F32:
        """Pixels (band, y, x) of a cell; NaN beyond the edge of the scene, as samples of training are filled up."""
        bands = len(self.network.card.mean)
        chip = np.full((bands, self.cells.rows, self.cells.cols), np.nan, np.float32)
        chip[:, : window.height, : window.width] = np.concatenate([self.scene.read(w, window) for w in self.network.inputs])
        return chip
