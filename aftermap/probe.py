"""Linear probes by the hundred thousand: frozen embeddings of areas, fitted in one area and asked in every other (methods.md H).

One decomposition of a draw of chips gives all tasks, and one product all that a test area is asked, whatever was fitted on. Draws
are the same for every encoder, and those of fewer labels the first of those of more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from zlib import crc32

import numpy as np
import numpy.typing as npt

from aftermap.closedform import PENALTIES, Linear, decompose
from aftermap.errors import UsageError

F64 = npt.NDArray[np.float64]
ARMS = ("least squares", "ridge")
MIXED = (0.02, 0.98)
"""A chip whose share of a task lies between is mixed: of others a line learns little."""
_DRAW = 3


@dataclass(frozen=True, eq=False)
class Area:
    """Chips of one place as one encoder sees them."""

    name: str
    features: F64
    """(n, d)."""
    shares: F64
    """(n, task), in [0, 1]."""
    held: npt.NDArray[np.bool_]
    """(n,): chips that test alone, on ground apart from those that are fitted on."""

    def __post_init__(self) -> None:
        if not len(self.features) == len(self.shares) == len(self.held):
            what = f"{self.name} has {len(self.features)} embeddings, {len(self.shares)} labels and {len(self.held)} sides"
            raise UsageError(what, repair="give one of each for every chip")
        if not (np.isfinite(self.features).all() and np.isfinite(self.shares).all()):
            raise UsageError(f"{self.name} has chips without an embedding or a label", repair="leave them out")

    def mixed(self, task: int) -> int:
        """Chips whose share of a task is neither nearly none nor nearly all."""
        low, high = MIXED
        return int(((self.shares[:, task] > low) & (self.shares[:, task] < high)).sum())


@dataclass(frozen=True)
class Plan:
    """What is fitted and asked."""

    tasks: tuple[str, ...]
    budgets: tuple[int, ...] = (50, 100, 250, 500, 1000)
    repeats: int = 15
    penalties: tuple[float, ...] = PENALTIES
    seed: int = 0
    least_mixed: int = 200
    """Mixed chips that an area must have of a task; else its cells are left out, and counted."""

    def usable(self, area: Area) -> tuple[int, ...]:
        """Places of the tasks that an area has enough chips of."""
        return tuple(k for k in range(len(self.tasks)) if area.mixed(k) >= self.least_mixed)


@dataclass(frozen=True, eq=False)
class Cells:
    """Scores of fits, one a row; all fields have one length."""

    task: npt.NDArray[np.str_]
    train: npt.NDArray[np.str_]
    test: npt.NDArray[np.str_]
    arm: npt.NDArray[np.str_]
    labels: npt.NDArray[np.int64]
    repeat: npt.NDArray[np.int64]
    r: F64
    """Pearson's correlation of found and true share over the test chips; NaN where either does not vary."""
    r2: F64
    rmse: F64
    bias: F64
    """Mean of found less true."""

    def __len__(self) -> int:
        return len(self.r)

    @classmethod
    def joined(cls, parts: Sequence[Cells]) -> Cells:
        """One after the other; of none, none."""
        return _none() if not parts else cls(*(np.concatenate([getattr(one, f.name) for one in parts]) for f in fields(cls)))


@dataclass(frozen=True)
class Left:
    """Cells that could not be, and why."""

    task: str
    train: str
    test: str
    labels: int
    why: str


def draws(area: Area, plan: Plan) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
    """Repeat, and the chips that are fitted on, for every budget that the area has chips for; of its name and the seed alone."""
    pool = np.flatnonzero(~area.held)
    rng = np.random.default_rng([plan.seed, _DRAW, crc32(area.name.encode())])
    for repeat in range(plan.repeats):
        order = rng.permutation(pool)
        yield from ((repeat, order[:labels]) for labels in plan.budgets if labels <= len(pool))


def cells(train: Area, tests: Sequence[Area], plan: Plan) -> tuple[Cells, list[Left]]:
    """Every fit on draws of one area, asked on the held chips of each of `tests`, which may hold the area itself."""
    tasks, fits = list(plan.usable(train)), list[tuple[int, int, str, Linear]]()
    left = [Left(plan.tasks[k], train.name, "", 0, f"{train.mixed(k)} mixed chips") for k in _others(plan, tasks)]
    for repeat, drawn in draws(train, plan) if tasks else ():
        made, wanted = decompose(train.features[drawn]), train.shares[drawn][:, tasks]
        fits += [(len(drawn), repeat, ARMS[0], made.least_squares(wanted)),
                 (len(drawn), repeat, ARMS[1], made.ridge(wanted, plan.penalties))]  # fmt: skip
    pool = int((~train.held).sum())
    left += [Left("", train.name, "", n, f"{pool} chips to draw from") for n in plan.budgets if n > pool]
    parts = []
    for test in tests if fits else ():
        both = [k for k, task in enumerate(tasks) if task in plan.usable(test)]
        left += [Left(plan.tasks[k], train.name, test.name, 0, f"{test.mixed(k)} mixed chips there")
                 for k in tasks if k not in plan.usable(test)]  # fmt: skip
        if both and test.held.any():
            parts.append(_asked(fits, both, [plan.tasks[tasks[k]] for k in both], train.name, test, [tasks[k] for k in both]))
    return Cells.joined(parts), left


def _others(plan: Plan, tasks: Sequence[int]) -> list[int]:
    return [k for k in range(len(plan.tasks)) if k not in tasks]


def _none() -> Cells:
    words, counts, numbers = np.empty(0, np.str_), np.empty(0, np.int64), np.empty(0)
    return Cells(words, words, words, words, counts, counts, numbers, numbers, numbers, numbers)


def _asked(
    fits: Sequence[tuple[int, int, str, Linear]], columns: Sequence[int], names: Sequence[str], train: str, test: Area,
    tasks: Sequence[int],
) -> Cells:  # fmt: skip
    """All fits asked at once: (chip, d) by (d, fit x task)."""
    slopes = np.concatenate([fit.slopes[:, columns] for *_, fit in fits], axis=1)
    intercepts = np.concatenate([fit.intercepts[columns] for *_, fit in fits])
    found = test.features[test.held] @ slopes + intercepts
    scores = scored(found, np.tile(test.shares[test.held][:, tasks], (1, len(fits))))
    each = np.repeat(np.arange(len(fits)), len(columns))
    labels, repeat, arm = (np.array(one)[each] for one in list(zip(*fits, strict=True))[:3])
    here, there = (np.full(len(each), words) for words in (train, test.name))
    return Cells(np.tile(names, len(fits)), here, there, arm, labels, repeat, *scores)


def scored(found: F64, wanted: F64) -> tuple[F64, F64, F64, F64]:
    """r, r2, RMSE and bias of found and true (chip, k), each (k,); r2 beside the mean of the true; NaN where that is constant."""
    wrong = found - wanted
    there, here = wanted - wanted.mean(axis=0), found - found.mean(axis=0)
    spread, own = (there**2).sum(axis=0), (here**2).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.where((spread > 0) & (own > 0), (there * here).sum(axis=0) / np.sqrt(spread * own), np.nan)
        r2 = np.where(spread > 0, 1 - (wrong**2).sum(axis=0) / spread, np.nan)
    return r, r2, np.sqrt((wrong**2).mean(axis=0)), wrong.mean(axis=0)
