"""Training samples: a Chip, and cutting them from a scene with labels; only what was observed, only what is labelled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from aftermap import raster, vector
from aftermap.errors import InputRefusedError, UsageError
from aftermap.scene import Scene
from aftermap.scorer import LayerBands
from aftermap.tiles import Window

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
U8 = npt.NDArray[np.uint8]

Codes = Mapping[float, int] | Mapping[int, int]
"""Stored label code -> class code."""
UNKNOWN = 255
"""Class code of pixels whose truth is not known; losses and metrics leave them out."""
PRESENCE: Mapping[float, int] = {0: 0, 1: 1, -1: UNKNOWN, UNKNOWN: UNKNOWN}
"""Codes of a raster that marks one hazard: absent, present, unknown."""
UNSEEN, CONSTANT = "not observed enough", "a band is constant"
"""Why a chip without labels is left out."""
_DRAWS_PER_CHIP = 50
_SQUARE_PX, _SQUARES_KEPT = 2048, 32
"""The squares that vector.py burns in; 4 MB each."""


@dataclass(frozen=True, eq=False)
class Chip:
    """A training sample. Pixels (band, y, x) are in sensor units, NaN where not observed."""

    pixels: F32
    valid: Bool
    """(y, x), True where every band was observed."""
    truth: U8 | None
    """Class codes (y, x), 255 unknown; None where only the whole chip has a label, or none."""
    bands: tuple[str, ...]
    """Own names in order, the layer in front where it is not `after`: "before.VV"."""
    unit: str | tuple[str, ...]
    """One for all bands, or one for each."""
    name: str
    event: str = ""
    domain: str = ""
    """What shares statistics: sensor and place."""
    window: Window | None = None
    """Where in its scene, in pixels."""
    target: float | int | tuple[int, ...] | None = None
    """Label of the whole chip; several of 0 and 1, one per class, where classes do not exclude one another."""

    def __post_init__(self) -> None:
        assert self.pixels.dtype == np.float32
        assert self.pixels.ndim == 3
        assert len(self.bands) == len(self.pixels)
        assert self.valid.shape == self.pixels.shape[1:]
        assert self.truth is None or (self.truth.shape == self.valid.shape and self.truth.dtype == np.uint8)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.valid.shape[0], self.valid.shape[1]

    @property
    def labelled(self) -> Bool:
        """True (y, x) where the pixel was observed and its truth is known."""
        return self.valid & (self.truth != UNKNOWN) if self.truth is not None else np.zeros_like(self.valid)


def counts(chip: Chip, classes: int) -> npt.NDArray[np.int64]:
    """Pixels (class,) of each code among those observed and labelled. Raises InputRefusedError ("label-codes")."""
    if chip.truth is None:
        return np.zeros(classes, np.int64)
    found = np.bincount(chip.truth[chip.labelled], minlength=classes)
    if len(found) > classes:
        raise InputRefusedError(
            f"{chip.name} holds the class code {len(found) - 1}; codes are 0 to {classes - 1}, and 255 unknown",
            repair="recode the labels",
            code="label-codes",
        )
    return found


def unfit(pixels: F32, valid: Bool, least_px: float) -> str:
    """Why pixels (band, y, x), `valid` where every band was observed, are no use without labels; empty where they are.

    A constant band says nothing, and as a rule is fill that no tag declares (methods.md D.1).
    """
    seen = pixels[:, valid]
    if seen.shape[1] < max(1, least_px):
        return UNSEEN
    return CONSTANT if (seen.min(axis=1) == seen.max(axis=1)).any() else ""


class Labels:
    """Truth on a scene's grid by window: a band of codes, or polygons (1 inside, 0 outside). Raises as its readers do."""

    def __init__(self, path: Path, grid: GeoBox, codes: Codes = PRESENCE, *, band: int = 1):
        self._path, self._grid, self._codes = path, grid, codes
        self._shapes = vector.read_polygons(path, grid) if vector.is_vector(path) else None
        self._reader = None if self._shapes is not None else raster.Reader(path, grid, [band], classes=True)
        self._seen: set[float] = set()
        self._squares: dict[Window, Bool] = {}

    def read(self, window: Window) -> U8:
        """Class codes (y, x), 255 where the raster has no data. Raises InputRefusedError ("label-codes")."""
        if self._reader is None:
            return self._burnt(window)
        stored = self._reader.read(window)[0]
        self._seen |= set(np.unique(stored[np.isfinite(stored)]).tolist())
        return recode(stored, self._codes, self._path.name)

    def _burnt(self, window: Window) -> U8:
        """Polygons by window, from whole squares that are kept: windows lie close, and every burn goes over all polygons near."""
        out = np.zeros((window.height, window.width), np.uint8)
        for row in range(window.row // _SQUARE_PX * _SQUARE_PX, window.stop_row, _SQUARE_PX):
            for col in range(window.col // _SQUARE_PX * _SQUARE_PX, window.stop_col, _SQUARE_PX):
                square = Window(row, col, _SQUARE_PX, _SQUARE_PX)
                part = square.overlap(window)
                assert part is not None
                out[part.within(window).slices] = self._square(square)[part.within(square).slices]
        return out

    def _square(self, square: Window) -> Bool:
        if square not in self._squares:
            if len(self._squares) == _SQUARES_KEPT:
                del self._squares[next(iter(self._squares))]
            self._squares[square] = vector.rasterise(self._shapes or [], self._grid, square)
        return self._squares[square]

    def refuse_ambiguous(self) -> None:
        """Raises InputRefusedError ("truth-ambiguous") where all that was read is 0 and 255: is 255 the hazard?"""
        if self._seen == {0, UNKNOWN} and self._codes == PRESENCE:
            raise InputRefusedError(
                f"{self._path.name} holds only 0 and 255: is 255 the hazard, or unknown?",
                repair="say --hazard-code 255 or --hazard-code 1",
                code="truth-ambiguous",
            )


def recode(stored: npt.NDArray[np.generic], codes: Codes, name: str) -> U8:
    """Class codes (y, x) of stored ones; NaN is unknown. Raises InputRefusedError ("label-codes") for a code without one."""
    found = np.full(stored.shape, UNKNOWN, np.uint8)
    strange = ~np.isnan(stored) if stored.dtype.kind == "f" else np.ones(stored.shape, bool)
    for given, code in codes.items():
        here = stored == given
        found[here], strange[here] = code, False
    if strange.any():
        raise InputRefusedError(
            f"{name} holds the label code {stored[strange][0]}; known are {', '.join(f'{c:g}' for c in codes)}",
            repair="recode it, or say which code is the hazard",
            code="label-codes",
        )
    return found


@dataclass(frozen=True)
class Candidate:
    """A window that may be cut: how much of it was observed, and the pixels (class,) observed and labelled in it."""

    window: Window
    valid: float
    pixels: tuple[int, ...]
    """Empty where no pixel has a label and points alone tell."""
    points: int = 0
    """Of the inventory."""

    @property
    def contents(self) -> tuple[int, ...]:
        """Class codes in it besides 0; 1 for points where nothing else tells."""
        if not self.pixels:
            return (1,) if self.points else ()
        return tuple(code for code, n in enumerate(self.pixels) if code and n)


class Bands(Protocol):
    """Further bands of a scene, read by window on its grid: passes.py and terrain.py have some."""

    @property
    def bands(self) -> tuple[str, ...]: ...
    @property
    def units(self) -> tuple[str, ...]: ...
    def read(self, window: Window) -> F32: ...


@dataclass(frozen=True, eq=False)
class Cutter:
    """A scene, its labels and what to cut: every band of the images after and before, in the layers' own units, and `more`."""

    scene: Scene
    labels: Labels | None
    """None where points alone tell, or nothing does."""
    classes: int = 2
    event: str = ""
    more: tuple[Bands, ...] = ()
    points: F64 | None = None
    """Places (n, 2) of an inventory, as column and row in pixels."""
    skipped: Counter[str] | None = None
    """Where nothing is labelled: windows that were left out, by reason; None where labels tell."""

    def inputs(self) -> tuple[LayerBands, ...]:
        """The bands of each layer, in the units that they have there."""
        layers = [*self.scene.images("after"), *self.scene.images("before")]
        held = ((k, [b for i, b in enumerate(k.bands) if not k.is_class(i)]) for k in layers)
        return tuple(LayerBands(k.name, tuple(run), unit) for k, own in held for unit, run in groupby(own, k.unit_of))

    def chip(self, window: Window) -> Chip:
        """The chip of one window."""
        inputs = self.inputs()
        pixels = np.concatenate([*(self.scene.read(wanted, window) for wanted in inputs), *(m.read(window) for m in self.more)])
        dates = [w.layer.partition("-")[0] for w in inputs]  # radar and optical images of one date are two layers
        bands = tuple(b if d == "after" else f"{d}.{b}" for d, w in zip(dates, inputs, strict=True) for b in w.bands)
        units = tuple(w.unit for w in inputs for _ in w.bands)
        for one in self.more:
            bands, units = bands + one.bands, units + one.units
        truth = None if self.labels is None else self.labels.read(window)
        return Chip(
            pixels=pixels, valid=np.isfinite(pixels).all(axis=0), truth=truth, bands=bands,
            unit=units[0] if len(set(units)) == 1 else units, name=f"{self.scene.name}_{window.row:06d}_{window.col:06d}",
            event=self.event or self.scene.name, domain=self.scene.domain, window=window,
        )  # fmt: skip

    def points_in(self, window: Window) -> int:
        """Points of the inventory in a window; one on the border of two windows lies in the one to the south or east."""
        if self.points is None:
            return 0
        first, last = (window.col, window.row), (window.stop_col, window.stop_row)
        return int(((self.points >= first) & (self.points < last)).all(axis=1).sum())

    def candidates(self, windows: Sequence[Window], least_valid: float) -> Iterator[Candidate]:
        """Of these windows those observed to at least that share and with any pixel labelled, or where points alone tell all.

        Where nothing is labelled, those in which besides no band is constant; the others are counted.
        """
        for window in windows:
            chip = self.chip(window)
            if self.skipped is not None and (why := unfit(chip.pixels, chip.valid, least_valid * chip.valid.size)):
                self.skipped[why] += 1
                continue
            share = float(chip.valid.mean())
            pixels = () if chip.truth is None else tuple(int(n) for n in counts(chip, self.classes))
            if share >= least_valid and (chip.truth is None or any(pixels)):
                yield Candidate(window, share, pixels, self.points_in(window))


def regular(cutter: Cutter, size: int, *, stride: int | None = None, least_valid: float = 0.9) -> list[Candidate]:
    """Every window of a lattice of `stride` (by default `size`: side by side); what does not fill a window is left."""
    return list(cutter.candidates(lattice(cutter.scene.shape, size, stride or size), least_valid))


def random(cutter: Cutter, size: int, count: int, rng: np.random.Generator, *, least_valid: float = 0.9) -> list[Candidate]:
    """At most `count` windows anywhere, none twice; fewer where the scene has hardly any that are valid."""
    rows, cols = _room(cutter.scene.shape, size)
    found: list[Candidate] = []
    tried: set[tuple[int, int]] = set()
    for _ in range(_DRAWS_PER_CHIP * count):
        place = (int(rng.integers(rows)), int(rng.integers(cols)))
        if place not in tried:
            tried.add(place)
            found += cutter.candidates([Window(*place, size, size)], least_valid)
        if len(found) == count or len(tried) == rows * cols:
            break
    return sorted(found, key=lambda c: c.window)


def balanced(
    cutter: Cutter, size: int, count: int, rng: np.random.Generator, *, stride: int | None = None, least_valid: float = 0.9
) -> list[Candidate]:
    """At most `count` windows of a lattice (by default half overlapping): as many with each class as with 0 alone.

    A class that fills too few windows gives all it has, and the others make no more of it; a window with several classes
    counts for the one that fewest windows have.
    """
    every = list(cutter.candidates(lattice(cutter.scene.shape, size, stride or max(1, size // 2)), least_valid))
    having = {code: sum(code in c.contents for c in every) for code in range(1, cutter.classes)}
    groups: dict[int, list[Candidate]] = {}
    for candidate in every:
        groups.setdefault(min(candidate.contents, key=lambda c: (having[c], c), default=0), []).append(candidate)
    share = max(1, count // max(1, len(groups)))
    chosen = []
    for code in sorted(groups):
        order = rng.permutation(len(groups[code]))[: min(share, min(map(len, groups.values())))]
        chosen += [groups[code][i] for i in order]
    return sorted(chosen, key=lambda c: c.window)


def lattice(shape: tuple[int, int], size: int, stride: int) -> list[Window]:
    """Whole windows of `size`, every `stride`; what does not fill one is left. Raises UsageError."""
    rows, cols = _room(shape, size)
    return [Window(row, col, size, size) for row in range(0, rows, stride) for col in range(0, cols, stride)]


def _room(shape: tuple[int, int], size: int) -> tuple[int, int]:
    """How many first rows and columns a window may have."""
    if size < 1 or size > min(shape):
        raise UsageError(
            f"chips of {size} px cannot be cut from a scene of {shape[0]} x {shape[1]}",
            repair=f"choose a size of 1 to {min(shape)}",
        )
    return shape[0] - size + 1, shape[1] - size + 1
