"""How like a class of ground a plane of numbers is: IoU at the best threshold, point-biserial correlation, a linear probe.

After methods.md E.1. The ground is patches that hold counted pixels of each class, so what is scored is pixels. One half of it
chooses (threshold, direction, plane, the probe's weights), the other half scores. What is undefined is None, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap.clusters import matched

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
RIDGE = 0.01
"""Penalty of the probe as a share of each feature's variance over the half that it is fitted on."""


@dataclass(frozen=True)
class Half:
    """Patches of one half: which, how many known pixels each holds, and of these how many are of the class."""

    places: npt.NDArray[np.intp]
    known: F64
    inside: F64


@dataclass(frozen=True)
class Ground:
    """Known pixels (patch, class) of each patch, and which patches choose; the others score."""

    counts: F64
    chooses: Bool

    def half(self, kind: int, *, chooses: bool) -> Half:
        """The patches of a half that hold known pixels, for one class."""
        places = np.flatnonzero((self.chooses == chooses) & (self.known > 0))
        return Half(places, self.known[places], self.counts[places, kind])

    @cached_property
    def known(self) -> F64:
        """Known pixels of each patch."""
        return np.asarray(self.counts.sum(axis=1), np.float64)

    def pixels(self, *, chooses: bool) -> list[int]:
        """Known pixels of each class in a half."""
        return [int(n) for n in self.counts[self.chooses == chooses].sum(axis=0)]


@dataclass(frozen=True)
class Cut:
    """What a plane calls the class: values from `at` up, or from it down; and the IoU of that where it was chosen."""

    at: float
    above: bool
    iou: float


def cut(values: npt.NDArray[Any], half: Half) -> Cut | None:
    """The threshold and direction of the largest IoU; None where the class is absent or the values (n,) are all the same."""
    if not half.inside.sum() or values.min() == values.max():
        return None
    down, up = _best(values, half), _best(-values, half)
    return Cut(down[0], True, down[1]) if down[1] >= up[1] else Cut(-up[0], False, up[1])


def _best(values: npt.NDArray[Any], half: Half) -> tuple[float, float]:
    """Over values from the largest down: where the IoU is largest, and how large."""
    order = np.argsort(-values, kind="stable")
    falling = values[order]
    inside, marked = np.cumsum(half.inside[order]), np.cumsum(half.known[order])
    ious = inside / (half.inside.sum() + marked - inside)
    last = np.append(falling[:-1] > falling[1:], True)  # what is equal is marked together
    place = int(np.argmax(np.where(last, ious, -1)))
    return float(falling[place]), float(ious[place])


def iou(values: npt.NDArray[Any], by: Cut | None, half: Half) -> float | None:
    """Of what the cut marks; None without a cut, or where the class is absent."""
    if by is None or not half.inside.sum():
        return None
    marked = values >= by.at if by.above else values <= by.at
    inside = half.inside[marked].sum()
    return float(inside / (half.inside.sum() + half.known[marked].sum() - inside))


def correlation(values: npt.NDArray[Any], half: Half) -> float | None:
    """Point-biserial, over pixels; None where the values, or the class, are the same everywhere."""
    every = half.known.sum()
    if not every or values.min() == values.max():
        return None
    share = half.inside.sum() / every
    apart = values - (half.known * values).sum() / every
    spread = np.sqrt((half.known * apart**2).sum() / every * share * (1 - share))
    return float(np.clip((half.inside * apart).sum() / every / spread, -1, 1)) if spread > 0 else None


def of_plane(values: npt.NDArray[Any], ground: Ground, kind: int) -> dict[str, Any]:
    """A row of the record: the cut of the half that chooses, and what the other half says of it."""
    chooses, scores = ground.half(kind, chooses=True), ground.half(kind, chooses=False)
    own = values.astype(np.float64)
    by = cut(own[chooses.places], chooses) if len(chooses.places) else None
    other = own[scores.places]
    return {
        "iou_chosen_on": by.iou if by else None, "threshold": by.at if by else None, "above": by.above if by else None,
        "iou": iou(other, by, scores), "correlation": correlation(other, scores) if len(other) else None,
    }  # fmt: skip


def chosen(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The row whose IoU is largest on the half that chooses; None where none has one."""
    able = [row for row in rows if row["iou_chosen_on"] is not None]
    return max(able, key=lambda row: float(row["iou_chosen_on"])) if able else None


def probed(features: F32, ground: Ground) -> F64 | None:
    """Linear scores (patch, class) of features (patch, feature): ridge regression of each class's share in closed form, weighted
    by pixels. None where the half that fits holds no known pixel."""
    weight = np.where(ground.chooses, ground.known, 0)
    total = weight.sum()
    if not total:
        return None
    mean = weight @ features / total
    centred = features - mean  # (patch, feature)
    spread = np.sqrt(weight @ centred**2 / total)
    centred = centred / np.where(spread > 1e-6 * (np.abs(mean) + 1e-6), spread, np.inf)  # what is constant says nothing
    shares = ground.counts / np.maximum(ground.known, 1)[:, None]
    base = weight @ shares / total
    gram = (centred * weight[:, None]).T @ centred + RIDGE * total * np.eye(features.shape[1])
    slopes = np.linalg.solve(gram, (centred * weight[:, None]).T @ (shares - base))
    return np.asarray(base + centred @ slopes, np.float64)


def everything(ground: Ground, kind: int) -> float | None:
    """IoU of marking all of the half that scores; None where the class is absent from it."""
    half = ground.half(kind, chooses=False)
    return float(half.inside.sum() / half.known.sum()) if half.inside.sum() else None


def of_clusters(codes: npt.NDArray[Any], ground: Ground) -> dict[str, Any]:
    """Clusters (patch,) from 1, matched with classes on the half that chooses and scored on the other."""
    table = np.zeros((2, int(codes.max(initial=1)), ground.counts.shape[1]))
    np.add.at(table, (ground.chooses.astype(int), codes.astype(int) - 1), ground.counts)
    found = matched(table[1], table[0])
    return found.row() | {"class_of": {str(k + 1): c for c, k in sorted(found.owner.items())}}
