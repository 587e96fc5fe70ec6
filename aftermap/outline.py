"""Polygons of a class raster of any size in bounded memory: two passes over windows, pieces joined across their edges.

`take_census` labels every window, joins what touches across window edges and so knows the size of every component.
`outlines` labels again, drops what is too small and gives each component as one polygon, with statistics of the rasters
under it. Between the passes only components that touch an inner window edge are remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from affine import Affine
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from aftermap import raster, vector
from aftermap.ahead import ahead
from aftermap.tally import Statistics, Tally, tally
from aftermap.tiles import Window

U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Values = Mapping[str, U8]

BACKGROUND = frozenset({0, 255})
_NO_JOINTS: I64 = np.zeros((0, 2), np.int64)


@dataclass(frozen=True)
class Classes:
    """A raster of class codes, read by windows that cover `shape` (y, x) once, row by row (`tiles.blocks`)."""

    read: Callable[[Window], U8]
    windows: Collection[Window]
    shape: tuple[int, int]
    area: Callable[[Window], F64]
    """Area (y, x) of each pixel in m2 (`area.pixel_area_m2`)."""
    background: frozenset[int] = BACKGROUND


@dataclass(frozen=True)
class Census:
    """The components that touch inner window edges: which pieces they consist of, and their area in the whole raster."""

    component: I64
    """Piece -> component. Pieces are numbered in the order of the windows, and of the labels within one."""
    pieces: I64
    area_m2: F64


@dataclass(frozen=True)
class Outlines:
    """Polygons as columns (n,), each of them one whole 4-connected component."""

    geometry: vector.Geometries
    code: U8
    pixels: I64
    area_m2: F64
    under: Mapping[str, Statistics]

    def __len__(self) -> int:
        return len(self.geometry)

    def only(self, *codes: int) -> Outlines:
        """The polygons of these codes."""
        keep = np.isin(self.code, codes)
        under = {name: Statistics(s.mean[keep], s.low[keep], s.high[keep]) for name, s in self.under.items()}
        return Outlines(self.geometry[keep], self.code[keep], self.pixels[keep], self.area_m2[keep], under)


@dataclass(frozen=True)
class Outlined:
    """One window of the second pass: its codes (y, x) without the components that were too small, the areas and values (y, x)
    that were read for it, and finished polygons."""

    window: Window
    codes: U8
    area_m2: F64
    values: Values
    outlines: Outlines


def take_census(classes: Classes) -> Census:
    """First pass: the components that touch inner window edges, joined, with their area in the whole raster."""
    seam, areas, joints = _Seam(classes.shape), [np.zeros(0)], [_NO_JOINTS]
    for piece in _pieces(classes, None):
        areas.append(piece.rows.area_m2[piece.labels.edge])
        joints.append(seam.join(piece.labels, piece.window))
    return _settle(np.concatenate(areas), np.concatenate(joints))


def outlines(
    classes: Classes,
    census: Census,
    affine: Affine,
    *,
    values: Callable[[Window], Values] | None = None,
    min_area_m2: Mapping[int, float] | None = None,
    dropped: int = 0,
) -> Iterator[Outlined]:
    """Second pass: per window the codes that remain and the polygons that it completes, placed by `affine`.

    Components of a code in `min_area_m2` that are smaller become `dropped`. `values` are rasters (y, x) for statistics.
    Polygons come in the order of the windows, within one by label, then those of components whose last piece it holds.
    """
    pool = _Pool(census)
    for window, codes, labels, area, under, rows in _pieces(classes, values):
        of = pool.components(labels)
        keep = _large_enough(labels.code, pool.areas(of, rows), min_area_m2 or {})
        codes = np.where(keep[labels.of], codes, np.where(labels.of > 0, np.uint8(dropped), codes))
        shapes = _polygonise(np.where(keep[labels.of], labels.of, 0), window, len(keep))
        pool.add(of, keep, shapes, rows)
        inner = np.flatnonzero(keep & (of < 0))
        whole, crossing = pool.release()
        found = _outlines(rows.take(inner).then(whole), vector.place(np.concatenate([shapes[inner], crossing]), affine))
        yield Outlined(window, codes, area, under, found)
    assert not pool.parts, "components were left unfinished: both passes must read the same codes"


def _outlines(rows: Tally, geometry: vector.Geometries) -> Outlines:
    return Outlines(geometry, rows.code, rows.pixels, rows.area_m2, rows.statistics())


class _Piece(NamedTuple):
    """One window as both passes need it."""

    window: Window
    codes: U8
    labels: _Labels
    area_m2: F64
    values: Values
    rows: Tally


def _pieces(classes: Classes, values: Callable[[Window], Values] | None) -> Iterator[_Piece]:
    """The windows in their order, each made ready while the caller works on the one before."""

    def ready(window: Window) -> _Piece:
        codes, under, area = classes.read(window), values(window) if values else {}, classes.area(window)
        labels = _label(classes, codes, window)
        return _Piece(window, codes, labels, area, under, tally(labels.of, labels.code, area, under))

    return ahead(ready, classes.windows)


@dataclass(frozen=True)
class _Labels:
    """Labels (y, x) of one window, 0 where background; the code of each label; the labels that touch an inner edge."""

    of: I32
    code: U8
    edge: I64


def _label(classes: Classes, codes: U8, window: Window) -> _Labels:
    of, code = np.zeros(codes.shape, np.int32), [0]
    for value in np.flatnonzero(np.bincount(codes.ravel(), minlength=256)):
        if int(value) not in classes.background:
            found, count = ndimage.label(codes == value)
            np.add(found, len(code) - 1, out=of, where=found > 0)
            code += [int(value)] * count
    return _Labels(of, np.array(code, np.uint8), _edge_labels(of, window, classes.shape))


def _edge_labels(of: I32, window: Window, shape: tuple[int, int]) -> I64:
    sides = (
        of[0, :] if window.row > 0 else of[:0, 0],
        of[-1, :] if window.stop_row < shape[0] else of[:0, 0],
        of[:, 0] if window.col > 0 else of[:0, 0],
        of[:, -1] if window.stop_col < shape[1] else of[:0, 0],
    )
    found = np.unique(np.concatenate(sides)).astype(np.int64)
    return found[found > 0]


class _Seam:
    """Pieces and codes along the lower and right rim of what was read: one row and one column of the raster."""

    def __init__(self, shape: tuple[int, int]):
        self._count = 0
        self._above, self._left = np.full((2, shape[1]), -1, np.int64), np.full((2, shape[0]), -1, np.int64)

    def join(self, labels: _Labels, window: Window) -> I64:
        """Pairs (n, 2) of pieces of one code that touch across the window's upper and left edge."""
        piece = np.full(len(labels.code), -1, np.int64)
        piece[labels.edge] = self._count + np.arange(len(labels.edge))
        self._count += len(labels.edge)
        facts = np.stack([piece, labels.code.astype(np.int64)])
        rows, cols = window.slices
        above = _touching(self._above[:, cols], facts[:, labels.of[0]]) if window.row > 0 else _NO_JOINTS
        left = _touching(self._left[:, rows], facts[:, labels.of[:, 0]]) if window.col > 0 else _NO_JOINTS
        self._above[:, cols], self._left[:, rows] = facts[:, labels.of[-1]], facts[:, labels.of[:, -1]]
        return np.unique(np.concatenate([above, left]), axis=0)


def _touching(one: I64, other: I64) -> I64:
    same = (one[0] >= 0) & (other[0] >= 0) & (one[1] == other[1])
    return np.stack([one[0][same], other[0][same]], axis=1)


def _settle(area_m2: F64, joints: I64) -> Census:
    graph = coo_array((np.ones(len(joints), np.int8), (joints[:, 0], joints[:, 1])), shape=(len(area_m2),) * 2)
    component = connected_components(graph, directed=False)[1].astype(np.int64) if len(area_m2) else np.zeros(0, np.int64)
    return Census(component, np.bincount(component), np.bincount(component, weights=area_m2).astype(np.float64))


def _large_enough(code: U8, area_m2: F64, min_area_m2: Mapping[int, float]) -> Bool:
    """True (label,) for components to keep; label 0, the background, is never one."""
    least = np.zeros(256)
    for small, area in min_area_m2.items():
        least[small] = area
    keep = area_m2 >= least[code]
    keep[0] = False
    return np.asarray(keep)


def _polygonise(of: I32, window: Window, count: int) -> vector.Geometries:
    """Polygons (label,) in pixel coordinates of the raster: whole numbers, so that pieces of two windows fit exactly."""
    found = raster.shapes_of(of, of > 0, Affine.translation(window.col, window.row))
    shapes = np.full(count, None, dtype=object)
    shapes[[label for _, label in found]] = vector.polygons([rings for rings, _ in found])
    return shapes


class _Pool:
    """Components that cross window edges while the second pass has not yet seen all of their pieces."""

    def __init__(self, census: Census):
        self._census, self._first, self._left = census, 0, census.pieces.copy()
        self._rows: Tally | None = None
        self._touched = np.zeros(0, np.int64)
        self.parts: dict[int, list[Any]] = {}

    def components(self, labels: _Labels) -> I64:
        """Component (label,) of the next window's labels; -1 for those within the window."""
        of = np.full(len(labels.code), -1, np.int64)
        of[labels.edge] = self._census.component[self._first : self._first + len(labels.edge)]
        self._first += len(labels.edge)
        return of

    def areas(self, of: I64, rows: Tally) -> F64:
        """Area (label,) in m2 of the whole component that each label belongs to."""
        areas = rows.area_m2.copy()
        areas[of >= 0] = self._census.area_m2[of[of >= 0]]
        return areas

    def add(self, of: I64, keep: Bool, shapes: vector.Geometries, rows: Tally) -> None:
        """Takes the pieces that are kept."""
        if self._rows is None:
            self._rows = Tally.empty(len(self._left), rows.under)
        label = np.flatnonzero(keep & (of >= 0))
        self._rows.add(of[label], rows.take(label))
        np.subtract.at(self._left, of[label], 1)
        for component, shape in zip(of[label].tolist(), shapes[label], strict=True):
            self.parts.setdefault(component, []).append(shape)
        self._touched = np.unique(of[label])

    def release(self) -> tuple[Tally, vector.Geometries]:
        """The components that the last pieces completed, each as one polygon."""
        assert self._rows is not None, "nothing was added yet"
        done = self._touched[self._left[self._touched] == 0]
        return self._rows.take(done), vector.unions([self.parts.pop(int(component)) for component in done])
