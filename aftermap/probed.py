"""What many probes come to: matrices of areas, what their scores go with, and where to label (methods.md H)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from aftermap.probe import Cells

F64 = npt.NDArray[np.float64]
FACTORS = ("encoder", "task", "train", "test", "labels")


@dataclass(frozen=True, eq=False)
class Cube:
    """Means over draws (encoder, task, train, test, labels) of one arm, NaN where there is no cell, and what they scatter by."""

    axes: Mapping[str, tuple[str, ...]]
    """Names along each of FACTORS."""
    values: F64
    scatter: F64
    """Standard deviation over draws, of the same shape."""

    def at(self, **names: str) -> F64:
        """The part of some names, their axes gone."""
        return np.asarray(self.values[tuple(self.axes[f].index(names[f]) if f in names else slice(None) for f in FACTORS)])


def cube(each: Mapping[str, Cells], arm: str, score: str = "r") -> Cube:
    """Of cells by encoder; a correlation that is undefined, for nothing varies, counts as 0."""
    parts = {name: _of_arm(one, arm) for name, one in each.items()}
    axes: dict[str, tuple[str, ...]] = {"encoder": tuple(each)}
    axes |= {f: tuple(np.unique(np.concatenate([getattr(p, f) for p in parts.values()])).tolist()) for f in FACTORS[1:4]}
    budgets = np.unique(np.concatenate([p.labels for p in parts.values()]))
    axes["labels"] = tuple(map(str, budgets.tolist()))
    shape = tuple(len(axes[f]) for f in FACTORS)
    sums, squares, counts = (np.zeros(shape) for _ in range(3))
    for number, part in enumerate(parts.values()):
        values = getattr(part, score)
        values = np.where(np.isfinite(values), values, 0.0)
        places = (np.full(len(part), number), *(np.searchsorted(axes[f], getattr(part, f)) for f in FACTORS[1:4]),
                  np.searchsorted(budgets, part.labels))  # fmt: skip
        for total, added in ((sums, values), (squares, values**2), (counts, np.ones(len(part)))):
            np.add.at(total, places, added)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums / counts
        spread = np.sqrt(np.maximum(squares / counts - means**2, 0) * counts / (counts - 1))
    return Cube(axes, means, spread)


def _of_arm(cells: Cells, arm: str) -> Cells:
    kept = cells.arm == arm
    return Cells(**{name: values[kept] for name, values in vars(cells).items()})


def balanced(found: Cube) -> tuple[Cube, tuple[str, ...]]:
    """Without the tasks and numbers of labels that not every encoder has in and between all areas; and the names of those."""
    values, scatter, axes, gone = found.values, found.scatter, dict(found.axes), []
    for factor in ("labels", "task"):
        axis = FACTORS.index(factor)
        others = tuple(k for k in range(len(FACTORS)) if k != axis)
        share = np.isfinite(values).mean(axis=others)
        kept = np.flatnonzero(share == share.max() if factor == "labels" else share == 1)
        gone += [name for k, name in enumerate(axes[factor]) if k not in kept]
        axes[factor] = tuple(axes[factor][k] for k in kept)
        values, scatter = values.take(kept, axis), scatter.take(kept, axis)
    return Cube(axes, values, scatter), tuple(gone)


def explained(found: Cube, draws: int) -> dict[str, float]:
    """Eta squared: the share of the variance of all fits that goes with each factor, each pair, more together, and the draw.

    Of a balanced cube of means over `draws`; empty where nothing is left of it.
    """
    if not found.values.size or not np.isfinite(found.values).all():
        return {}
    total = ((found.values - found.values.mean()) ** 2).sum()
    within = float((found.scatter**2).sum()) * (draws - 1) / draws if draws > 1 else 0.0
    whole = total + within
    if whole <= 0:
        return {}
    shares: dict[str, float] = {}
    effects: dict[tuple[int, ...], F64] = {(): np.asarray(found.values.mean())}
    for order in (1, 2):
        for places in combinations(range(len(FACTORS)), order):
            others = tuple(k for k in range(len(FACTORS)) if k not in places)
            mean = found.values.mean(axis=others, keepdims=True)
            effect = mean - np.asarray(sum(effects[part] for size in range(order) for part in combinations(places, size)))
            effects[places] = effect
            repeated = found.values.size / effect.size
            shares[" x ".join(FACTORS[k] for k in places)] = float((effect**2).sum() * repeated / whole)
    shares["three and more"] = max(0.0, float(total / whole) - sum(shares.values()))
    shares["draw of labels"] = within / float(whole)
    return shares


@dataclass(frozen=True)
class Decision:
    """Label here, or borrow from where: of one encoder, task and area."""

    encoder: str
    task: str
    area: str
    best_foreign: str
    """The other area whose labels, all of them, do best here."""
    foreign: float
    own: float
    """With as many labels of its own."""
    needed: str
    """Labels of its own from which that is reached."""


def decisions(found: Cube, *, larger: bool = True) -> list[Decision]:
    """Of scores of which the larger is better, or the smaller. Areas without cells of their own, or of others, have none."""
    lines, sign = [], 1 if larger else -1
    budgets = found.axes["labels"]
    for e, encoder in enumerate(found.axes["encoder"]):
        for k, task in enumerate(found.axes["task"]):
            for j, area in enumerate(found.axes["test"]):
                there = sign * found.values[e, k, :, j, :]  # (train, labels)
                home = found.axes["train"].index(area) if area in found.axes["train"] else -1
                most = _last(there)
                most[home] = -np.inf
                if home < 0 or not np.isfinite(most).any() or not np.isfinite(there[home]).any():
                    continue
                best = int(np.argmax(most))
                reached = [n for n, value in zip(budgets, there[home], strict=True) if value >= most[best]]
                own = float(_last(there)[home])
                last = [n for n, value in zip(budgets, there[home], strict=True) if np.isfinite(value)][-1]
                needed = min(reached, key=int) if reached else f"over {last}"
                lines.append(
                    Decision(encoder, task, area, found.axes["train"][best], sign * float(most[best]), sign * own, needed)
                )
    return lines


def _last(values: F64) -> F64:
    """Of each row (train, labels) the value of the most labels that there are; -inf where there are none."""
    known = np.isfinite(values)
    place = values.shape[1] - 1 - np.argmax(known[:, ::-1], axis=1)
    return np.where(known.any(axis=1), values[np.arange(len(values)), place], -np.inf)


def gap(found: Cube, encoder: str) -> tuple[Sequence[str], F64]:
    """Areas that are fitted in and asked, and the mean over tasks (train, test) with the most labels that there are."""
    values = found.at(encoder=encoder)  # (task, train, test, labels)
    flat = _last(values.reshape(-1, values.shape[-1])).reshape(values.shape[:-1])
    known = np.isfinite(flat)
    with np.errstate(invalid="ignore"):
        return found.axes["train"], np.where(known, flat, 0).sum(axis=0) / known.sum(axis=0)
