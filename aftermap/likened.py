"""What a network sees of a scene beside a reference: each head, the tokens, their clusters, and what needs no network.

Ground is dealt into a checkerboard of blocks: one half chooses, the other scores. Both halves of what a network sees were seen
together, in squares that reach over their borders; the reference never was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap import likeness
from aftermap.attended import Seen
from aftermap.clusters import fit
from aftermap.likeness import Ground

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
TABLE_BYTES = 32e6
"""Of patches that are kept to be scored; where a scene has more, every second, third ... row and column is kept."""


@dataclass(frozen=True)
class Beside:
    """Of a block, by patch (plane, row, col): means of the bands, of their edges, and known pixels of each class."""

    bands: F32
    edges: F32
    counts: I64


@dataclass
class Ledger:
    """The patches of a scene, or an even share of them, as they are seen; `facts` says how like the classes they are."""

    patches: tuple[int, int]
    """Rows and columns of the scene."""
    side: int
    """Of a square, in patches."""
    width: int
    heads: int
    bands: Sequence[str]
    classes: Sequence[str]
    _rows: list[tuple[npt.NDArray[Any], ...]] = field(default_factory=list)

    @property
    def step(self) -> int:
        """Every which row and column is kept."""
        numbers = self.width + self.heads + 2 * len(self.bands) + 2 * len(self.classes) + 1
        return max(1, ceil(sqrt(4 * numbers * self.patches[0] * self.patches[1] / TABLE_BYTES)))

    @property
    def block(self) -> int:
        """Side of the blocks of the checkerboard in patches: a square's, or a quarter of a smaller scene's shorter side."""
        return max(1, min(self.side, min(self.patches) // 4))

    def add(self, seen: Seen, codes: npt.NDArray[np.uint8], beside: Beside) -> None:
        """One block with its clusters (row, col)."""
        rows = np.arange(seen.window.row, seen.window.stop_row)[:, None]
        cols = np.arange(seen.window.col, seen.window.stop_col)
        whole = np.isfinite(beside.bands).all(axis=0) & np.isfinite(beside.edges).all(axis=0)
        kept = seen.there & whole & (rows % self.step == 0) & (cols % self.step == 0)
        chooses = (rows // self.block + cols // self.block) % 2 == 0
        planes = (seen.attention, seen.tokens, beside.bands, beside.edges, beside.counts)
        self._rows.append((*(plane[:, kept].T for plane in planes), codes[kept], chooses[kept]))

    def facts(self, count: int, seed: int) -> dict[str, Any]:
        """Everything that is scored; `count` clusters of the bands are drawn by `seed`."""
        attention, tokens, bands, edges, counts, codes, chooses = (np.concatenate(c) for c in zip(*self._rows, strict=True))
        ground = Ground(counts.astype(np.float64), chooses)
        planes = {"attention": np.c_[attention, attention.mean(axis=1)], "bands": bands, "edges": edges}
        features = {
            "tokens": tokens, "attention": attention, "tokens and attention": np.c_[tokens, attention],
            "bands": bands, "edges": edges, "bands and edges": np.c_[bands, edges],
        }  # fmt: skip
        found = self._planes(planes, ground)
        return {
            "patches": len(codes), "every": self.step, "block_patches": self.block, "classes": self._classes(ground),
            "planes": found, "best": self._best(found),
            "probes": [row for name, own in features.items() for row in self._probe(name, own, ground)],
            "clusters": {
                "tokens": likeness.of_clusters(codes, ground),
                "bands": likeness.of_clusters(_grouped(bands, count, seed), ground),
            },
        }  # fmt: skip

    def _classes(self, ground: Ground) -> list[dict[str, Any]]:
        both = zip(self.classes, ground.pixels(chooses=True), ground.pixels(chooses=False), strict=True)
        return [
            {"class": name, "choosing_px": first, "scored_px": second, "iou_of_all": likeness.everything(ground, k)}
            for k, (name, first, second) in enumerate(both)
        ]

    def _planes(self, planes: dict[str, npt.NDArray[Any]], ground: Ground) -> list[dict[str, Any]]:
        heads = [*(f"head {k + 1}" for k in range(self.heads)), "mean of heads"]
        names = {"attention": heads, "bands": list(self.bands), "edges": [f"edges of {b}" for b in self.bands]}
        return [
            {"of": kind, "plane": name, "class": label, **likeness.of_plane(column, ground, k)}
            for kind, own in planes.items()
            for name, column in zip(names[kind], own.T, strict=True)
            for k, label in enumerate(self.classes)
        ]

    def _best(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Of each kind and class the plane that the half that chooses takes."""
        kinds = dict.fromkeys(row["of"] for row in rows)
        every = (
            likeness.chosen([r for r in rows if (r["of"], r["class"]) == (kind, label)])
            for label in self.classes
            for kind in kinds
        )
        return [dict(row) for row in every if row is not None]

    def _probe(self, name: str, features: F32, ground: Ground) -> list[dict[str, Any]]:
        scores = likeness.probed(features, ground)
        if scores is None:
            return []
        return [
            {"of": name, "class": label, **likeness.of_plane(scores[:, k], ground, k)} for k, label in enumerate(self.classes)
        ]


def _grouped(bands: F32, count: int, seed: int) -> npt.NDArray[np.uint8]:
    """Clusters of the bands themselves, each divided by its spread."""
    if not len(bands):
        return np.empty(0, np.uint8)
    even = np.ascontiguousarray(bands / np.maximum(bands.std(axis=0), 1e-6), np.float32)
    return fit(even, count, np.random.default_rng(seed)).of(even)
