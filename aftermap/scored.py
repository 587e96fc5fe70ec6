"""Scores of samples one by one and pooled, by any method: what tables, their intervals and their tests are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap import arrays
from aftermap.chips import F32, UNKNOWN, Chip
from aftermap.errors import InputRefusedError
from aftermap.evaluate import Evaluation
from aftermap.metrics import Counts, Ranking

LEVELS = 250
"""Of a sample's own histogram; the pooled ranking is finer."""


@dataclass(frozen=True, eq=False)
class Scored:
    """What a method came to on every sample of a split."""

    names: tuple[str, ...]
    events: tuple[str, ...]
    counts: npt.NDArray[np.int64] = field(repr=False)
    """(sample, 4): tp, fp, fn, tn."""
    levels: npt.NDArray[np.int32] = field(repr=False)
    """(sample, 2, level): pixels by truth and score."""

    def of(self, places: Sequence[int] | npt.NDArray[np.intp]) -> Counts:
        """The counts of some samples together."""
        return Counts(*self.counts[places].sum(axis=0).tolist())

    def by_event(self) -> dict[str, Counts]:
        """Event -> counts."""
        events = np.asarray(self.events)
        return {e: self.of(np.flatnonzero(events == e)) for e in sorted(set(self.events))}

    def everything(self) -> Scored:
        """What marking everything would come to on the same pixels."""
        tp, fp, fn, tn = self.counts.T
        zero = np.zeros_like(tp)
        levels = np.zeros_like(self.levels)
        levels[:, :, -1] = self.levels.sum(axis=2)
        return Scored(self.names, self.events, np.stack([tp + fn, fp + tn, zero, zero], axis=1), levels)

    def of_images(self) -> Scored:
        """The squares that one chip was cut into taken together."""
        chips = [name.partition("@")[0] for name in self.names]
        first = {chip: k for k, chip in reversed([*enumerate(chips)])}
        names = sorted(first)
        place = np.asarray([names.index(chip) for chip in chips])
        counts, levels = (np.zeros((len(names), *a.shape[1:]), a.dtype) for a in (self.counts, self.levels))
        np.add.at(counts, place, self.counts)
        np.add.at(levels, place, self.levels)
        return Scored(tuple(names), tuple(self.events[first[n]] for n in names), counts, levels)

    @classmethod
    def joined(cls, parts: Sequence[Scored]) -> Scored:
        """Several splits as one, by name."""
        names = [n for p in parts for n in p.names]
        order = sorted(range(len(names)), key=names.__getitem__)
        events = [e for p in parts for e in p.events]
        return cls(
            tuple(names[k] for k in order), tuple(events[k] for k in order),
            np.concatenate([p.counts for p in parts])[order], np.concatenate([p.levels for p in parts])[order],
        )  # fmt: skip

    def write(self, path: Path) -> None:
        """As npz; plain arrays, which are read without unpickling."""
        arrays.write(path, names=np.asarray(self.names), events=np.asarray(self.events), counts=self.counts, levels=self.levels)

    @classmethod
    def read(cls, path: Path) -> Scored:
        """Raises InputRefusedError ("scores-broken")."""
        names, events, counts, levels = read_arrays(path, "names", "events", "counts", "levels")
        return cls(tuple(names.tolist()), tuple(events.tolist()), counts, levels)


def read_arrays(path: Path, *names: str) -> list[npt.NDArray[Any]]:
    """Plain arrays of an npz, without unpickling. Raises InputRefusedError ("scores-broken")."""
    try:
        return arrays.read(path, *names)
    except arrays.BROKEN as error:
        what = f"{path} does not hold the scores of samples: {error}"
        raise InputRefusedError(what, repair="delete it and run again", code="scores-broken") from error


def score(
    chips: Iterable[tuple[str, Chip]], scores_of: Callable[[Chip], F32], *, likelihood: Callable[[F32], F32] | None = None
) -> tuple[Evaluation, Scored]:
    """Chips by name, with truth, by a method: scores (y, x) in [0, 1], NaN where it does not analyse; hazard above 0.5."""
    pooled, names, events, each, levels = Evaluation("pooled"), [], [], [], []
    for name, chip in chips:
        assert chip.truth is not None
        scores = scores_of(chip)
        seen = chip.valid & np.isfinite(scores)
        truth = np.where(chip.truth == UNKNOWN, -1, chip.truth.astype(np.int8)).astype(np.int8)
        scores = np.where(seen, scores, 0).astype(np.float32)
        extent = np.where(seen, scores > 0.5, 255).astype(np.uint8)
        one = Evaluation(chip.event, ranking=pooled.ranking, reliability=pooled.reliability)
        one.add(truth, extent, scores, likelihood(scores).astype(np.float32) if likelihood else scores)
        one.ranking, one.reliability = Ranking(), type(one.reliability)()  # they were pooled's own
        pooled += one
        each.append(list(vars(one.counts).values()))
        levels.append(_levels(scores[seen & (truth >= 0)], truth[seen & (truth >= 0)]))
        names.append(name)
        events.append(chip.event)
    return pooled, Scored(tuple(names), tuple(events), np.asarray(each, np.int64), np.asarray(levels, np.int32))


def _levels(scores: F32, truth: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
    level = np.rint(scores * LEVELS).astype(np.intp)
    return np.stack([np.bincount(level[truth == actual], minlength=LEVELS + 1) for actual in (0, 1)])
