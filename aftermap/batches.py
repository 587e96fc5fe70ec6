"""Chips as tensors, in an order that is a function of seed and step alone: not of workers, machines or where a run resumed.

A batch is {"pixels": (n, band, y, x) float32 normalised, 0 where not valid, "valid": (n, y, x) bool, "domain": (n,) int64} and,
where the chips have them, "truth": (n, y, x) int64 with 255 unknown and "target": (n,) or (n, class).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Protocol

import numpy as np

from aftermap.chips import Chip
from aftermap.errors import InputRefusedError
from aftermap.normalise import F32
from aftermap.torchdoor import DataLoader, Tensor, torch

Batch = dict[str, Tensor]
MOST_READERS, CHIPS_A_READER = 16, 2000
"""Processes that read beside a GPU, and how many chips pay for the start of one: some seconds, a thousand chips read in each."""


class Source(Protocol):
    """A data set, as far as batches go (datasets/)."""

    def ids(self, split: str) -> list[str]: ...
    def read(self, id: str) -> Chip: ...


class Normal(Protocol):
    """A Normaliser or Separated."""

    def of(self, chip: Chip) -> F32: ...


@dataclass(frozen=True)
class Batches:
    """Batches of some chips of a data set."""

    source: Source
    ids: Sequence[str]
    normaliser: Normal
    size: int
    """Chips per batch, over all machines."""
    seed: int = 0
    augment: Callable[[Chip, np.random.Generator], Chip] | None = None
    domains: Mapping[str, str] = field(default_factory=dict)
    """Chip id -> domain; where given, each batch of training holds as many chips of each domain, each in its own order."""
    workers: int = 0
    """Processes that read; `readers` knows how many pay."""

    def __post_init__(self) -> None:
        if not self.ids:
            raise InputRefusedError("there is no chip to make batches of", repair="choose another split", code="no-chips")

    def training(self, steps: range, *, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """The batches of these steps, this machine's share of each; any step can be asked for without those before it."""
        return self._load((step, self._places(step)[rank::world]) for step in steps)

    def once(self, *, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """Every chip once, unchanged, in order; this machine's share. The last batch may be smaller."""
        mine = list(range(len(self.ids)))[rank::world]
        return self._load((-1, mine[i : i + self.size]) for i in range(0, len(mine), self.size))

    @cached_property
    def _rows(self) -> list[list[int]]:
        """Places in `ids` by domain."""
        groups: dict[str, list[int]] = {}
        for place, name in enumerate(self.ids):
            groups.setdefault(self.domains.get(name, ""), []).append(place)
        return [groups[name] for name in sorted(groups)]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(sorted(set(self.domains.values())))}

    def _places(self, step: int) -> list[int]:
        """Places in `ids` of the whole batch of a step: endless rows of permutations; with domains one of each in turn."""
        turns, rows = range(step * self.size, (step + 1) * self.size), self._rows
        return [self._item(rows[turn % len(rows)], turn % len(rows), turn // len(rows)) for turn in turns]

    def _item(self, places: list[int], row: int, item: int) -> int:
        """Item of an endless row of permutations."""
        return places[_order(self.seed, row, item // len(places), len(places))[item % len(places)]]

    def _load(self, plan: Iterable[tuple[int, list[int]]]) -> Iterator[Batch]:
        jobs = ([(step, place) for place in places] for step, places in plan if places)
        loader: Any = DataLoader(
            _Samples(self), batch_sampler=jobs, collate_fn=collate, num_workers=self.workers,  # type: ignore[arg-type]
            multiprocessing_context="spawn" if self.workers else None, generator=torch.Generator(),
            pin_memory=torch.cuda.is_available(),
        )  # fmt: skip
        yield from loader

    def sample(self, step: int, place: int) -> tuple[Chip, F32, int]:
        """One chip, changed by a generator of its own, its normalised pixels and the number of its domain; step -1: unchanged."""
        chip = self.source.read(self.ids[place])
        if self.augment and step >= 0:
            chip = self.augment(chip, np.random.default_rng([self.seed, 2**32 - 1, step, place]))
        return chip, self.normaliser.of(chip), self._numbers.get(self.domains.get(self.ids[place], ""), 0)


def readers(chips: int) -> int:
    """Processes that should read so many chips for a training: none where the processor itself trains, for they would take from
    it; beside a GPU as many cores as it leaves idle."""
    return min(MOST_READERS, (os.cpu_count() or 1) - 1, chips // CHIPS_A_READER) if torch.cuda.is_available() else 0


@lru_cache(maxsize=64)
def _order(seed: int, row: int, turn: int, length: int) -> list[int]:
    """One pass over a row."""
    return [int(i) for i in np.random.default_rng([seed, row, turn]).permutation(length)]


@dataclass(frozen=True)
class _Samples:
    """What the loader of torch asks for: a sample by key."""

    batches: Batches

    def __getitem__(self, key: tuple[int, int]) -> tuple[Chip, F32, int]:
        return self.batches.sample(*key)


def collate(samples: Sequence[tuple[Chip, F32, int]]) -> Batch:
    """Samples as one batch. Raises InputRefusedError ("chip-sizes") where their sizes differ."""
    chips = [chip for chip, _, _ in samples]
    if len({chip.shape for chip in chips}) > 1:
        raise InputRefusedError(
            f"{chips[0].name} is {chips[0].shape} px, other chips of its batch are not",
            repair="cut chips of one size with aftermap chips",
            code="chip-sizes",
        )
    batch = {
        "pixels": torch.from_numpy(np.stack([pixels for _, pixels, _ in samples])),  # (n, band, y, x)
        "valid": torch.from_numpy(np.stack([chip.valid for chip in chips])),  # (n, y, x)
        "domain": torch.tensor([number for _, _, number in samples]),
    }
    truths = [chip.truth for chip in chips if chip.truth is not None]
    if len(truths) == len(chips):
        batch["truth"] = torch.from_numpy(np.stack(truths)).long()  # (n, y, x)
    targets = [chip.target for chip in chips if chip.target is not None]
    if len(targets) == len(chips):
        batch["target"] = torch.tensor(targets)
    return batch
