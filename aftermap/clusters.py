"""Groups of points that no label made (k-means), and how they lie beside classes: matched one to one, purity, mean IoU.

Kuhn 1955 for the matching (the Hungarian method), Arthur and Vassilvitskii 2007 for the first centres.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.cluster.vq import kmeans2, vq
from scipy.optimize import linear_sum_assignment

from aftermap.errors import UsageError
from aftermap.metrics import macro

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]
MOST = 254
"""Groups that 8 bits tell apart, beside 255 for what was not seen."""
ROUNDS = 30


@dataclass(frozen=True)
class Groups:
    """Centres (group, dimension), the group of most points first."""

    centres: F32

    def of(self, points: F32) -> U8:
        """Group (n,) of points (n, dimension), from 1: that of the nearest centre."""
        return np.asarray(1 + vq(points, self.centres, check_finite=False)[0], np.uint8)


def fit(points: F32, count: int, rng: np.random.Generator) -> Groups:
    """At most `count` groups of points (n, dimension): fewer where fewer points differ. Raises UsageError."""
    if not 2 <= count <= MOST:
        raise UsageError(f"{count} clusters are asked for", repair=f"give 2 to {MOST}")
    distinct = len(np.unique(points, axis=0))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="One of the clusters is empty")  # it is left out below
        centres, codes = kmeans2(points, min(count, distinct), iter=ROUNDS, minit="++", rng=rng, check_finite=False)
    held = np.bincount(codes, minlength=len(centres))
    order = np.argsort(-held, kind="stable")
    return Groups(np.asarray(centres[order[held[order] > 0]], np.float32))


@dataclass(frozen=True)
class Matched:
    """What clusters say of classes: `owner` has the cluster of each class, where there was one for it."""

    owner: Mapping[int, int]
    ious: tuple[float | None, ...]
    """Of each class; None of one that is not there to score on."""
    purity: float | None
    """Share of pixels that are of the commonest class of their cluster."""
    joined: tuple[float | None, ...]
    """IoU of each class where every cluster counts as the class that is commonest in it, several as one."""

    @property
    def miou(self) -> float | None:
        """Mean over the classes that are there; None where there is none."""
        return macro(self.ious)

    def row(self) -> dict[str, Any]:
        """As the record has it."""
        joined = {"miou_joined": macro(self.joined), "iou_joined": list(self.joined)}
        return {"purity": self.purity, "miou": self.miou, "iou": list(self.ious), **joined}


def matched(fitting: F64, scored: F64) -> Matched:
    """Clusters and classes matched for the largest sum of IoU on pixels (cluster, class) of one ground, scored on those of
    another. A class that is there and has no cluster has IoU 0."""
    ious, joined = _ious(fitting), np.zeros((fitting.shape[1], fitting.shape[1]))
    np.add.at(joined, fitting.argmax(axis=1), scored)  # (class that it counts as, class)
    clusters, classes = linear_sum_assignment(ious, maximize=True)
    owner = {int(c): int(k) for k, c in zip(clusters, classes, strict=True) if ious[k, c] > 0}
    there, own = scored.sum(axis=0) > 0, _ious(scored)
    alone = [float(own[owner[c], c]) if c in owner else 0.0 for c in range(len(there))]
    found, many = (
        tuple(float(k) if present else None for k, present in zip(each, there, strict=True))
        for each in (alone, np.diag(_ious(joined)))
    )
    total = float(scored.sum())
    return Matched(owner, found, float(scored.max(axis=1).sum()) / total if total else None, many)


def _ious(pixels: F64) -> F64:
    """Of each cluster as each class."""
    union = pixels.sum(axis=1, keepdims=True) + pixels.sum(axis=0, keepdims=True) - pixels
    return np.asarray(pixels / np.maximum(union, 1), np.float64)
