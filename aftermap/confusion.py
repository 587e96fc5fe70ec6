"""Scores of several classes from one matrix of all samples pooled; matrices add in any order (methods.md 0.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aftermap.metrics import Counts, macro

I64 = npt.NDArray[np.int64]
DAMAGE = ("no-damage", "minor-damage", "major-damage", "destroyed")
"""Grades of xBD as class names, from the least up (methods.md 14.2)."""
_EPSILON = 1e-6


@dataclass(frozen=True, eq=False)
class Confusion:
    """Samples (truth, mapped) by class; truth that is not known is in no cell."""

    classes: tuple[str, ...]
    cells: I64

    @classmethod
    def of(cls, classes: Sequence[str], truth: npt.NDArray[np.integer], mapped: npt.NDArray[np.integer]) -> Confusion:
        """Of codes (n,) over the same known samples."""
        size = len(classes)
        cells = np.bincount(truth.astype(np.int64) * size + mapped.astype(np.int64), minlength=size**2)
        return cls(tuple(classes), cells.reshape(size, size))

    @classmethod
    def none(cls, classes: Sequence[str]) -> Confusion:
        """No sample yet."""
        return cls(tuple(classes), np.zeros((len(classes), len(classes)), np.int64))

    def __add__(self, other: Confusion) -> Confusion:
        assert self.classes == other.classes
        return Confusion(self.classes, self.cells + other.cells)

    @property
    def each(self) -> tuple[Counts, ...]:
        """Every class against all others."""
        total, right = int(self.cells.sum()), np.diag(self.cells)
        return tuple(
            Counts(int(tp), int(m - tp), int(t - tp), int(total - m - t + tp))
            for tp, t, m in zip(right, self.cells.sum(axis=1), self.cells.sum(axis=0), strict=True)
        )

    @property
    def accuracy(self) -> float | None:
        """Share of samples that are right."""
        total = int(self.cells.sum())
        return int(np.trace(self.cells)) / total if total else None

    @property
    def macro_iou(self) -> float | None:
        """Mean IoU of the classes that the truth has."""
        return macro([c.iou for c in self._present])

    @property
    def macro_f1(self) -> float | None:
        """Mean F1 of the classes that the truth has."""
        return macro([c.f1 for c in self._present])

    @property
    def qwk(self) -> float | None:
        """Kappa with quadratic weights (Cohen 1968): 1 less squared error over that of chance. Classes count in their order.

        Undefined where truth and map are all of one and the same class.
        """
        place = np.arange(len(self.classes))
        weights = (place[:, None] - place[None, :]) ** 2
        total = int(self.cells.sum())
        by_chance = float((weights * np.outer(self.cells.sum(axis=1), self.cells.sum(axis=0))).sum())
        return 1 - total * float((weights * self.cells).sum()) / by_chance if by_chance else None

    @property
    def _present(self) -> list[Counts]:
        return [c for c in self.each if c.tp + c.fn]

    def hazard(self, names: Sequence[str]) -> Counts:
        """Whether a sample is of any of these classes."""
        of = np.isin(self.classes, names)
        part = [[int(self.cells[np.ix_(t, m)].sum()) for m in (of, ~of)] for t in (of, ~of)]
        return Counts(tp=part[0][0], fn=part[0][1], fp=part[1][0], tn=part[1][1])

    def commonest(self) -> Confusion:
        """What calling everything by the commonest class of the truth would be."""
        cells = np.zeros_like(self.cells)
        true = self.cells.sum(axis=1)
        cells[:, int(true.argmax())] = true
        return Confusion(self.classes, cells)

    def scores(self) -> dict[str, float | None]:
        """Pooled scores, IoU and F1 of each class, and those of xView2 where the classes are its own."""
        found = {"macro_iou": self.macro_iou, "macro_f1": self.macro_f1, "accuracy": self.accuracy}
        for name, counts in zip(self.classes, self.each, strict=True):
            found |= {f"iou of {name}": counts.iou, f"f1 of {name}": counts.f1}
        return found | self.xview2()

    def xview2(self) -> dict[str, float | None]:
        """The challenge's F1 of buildings against background, harmonic mean of the F1 of four grades where the truth has
        buildings, and 0.3 and 0.7 of these; empty where the classes are others. A grade missed as background is missed.
        """
        if self.classes[1:] != DAMAGE:
            return {}
        buildings = self.hazard(DAMAGE).f1
        within = Confusion(self.classes, np.vstack([np.zeros_like(self.cells[:1]), self.cells[1:]])).each[1:]
        damage = len(DAMAGE) / sum(1 / ((c.f1 or 0.0) + _EPSILON) for c in within)
        return {
            "localisation_f1": buildings, "damage_f1": damage, "xview2": 0.3 * (buildings or 0.0) + 0.7 * damage,
        }  # fmt: skip
