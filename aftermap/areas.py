"""Areas of a data set as encoders see them: an embedding and the share of each class for every square, kept as Parquet by area.

An area is whatever events share a name; half of its events, or images, test alone. A file that is there and says that it is the
same is not made again.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from zlib import crc32

import numpy as np

from aftermap import tables
from aftermap.chips import F32, UNKNOWN, Chip
from aftermap.clusters import F64
from aftermap.datasets.dataset import Dataset, open_dataset
from aftermap.errors import InputRefusedError, UsageError
from aftermap.journal import digest
from aftermap.known import seen
from aftermap.page import Data
from aftermap.probe import Area
from aftermap.splits import by_event
from aftermap.tiles import Window, blocks

LEAST_KNOWN = 0.9
"""Share of a square whose class is known."""
_DRAW = 4


class Encoder(Protocol):
    """What makes numbers of a square."""

    @property
    def name(self) -> str:
        """In tables, and of its folder."""

    @property
    def key(self) -> str:
        """A hash of all that determines the numbers."""

    def read(self, chip: Chip) -> F32:
        """Pixels (band, y, x) of a whole chip as it wants them, NaN where not observed."""

    def __call__(self, pixels: F32) -> F32:
        """Of a square (d,)."""


@dataclass(frozen=True, eq=False)
class Place:
    """A data set, cut into squares of `size` px that fall to areas."""

    folder: Path
    data: Data
    size: int = 64
    pattern: str = ""
    """Regular expression whose first group names the area of an event; empty: the event itself."""
    most: int = 4000
    """Squares of an area at most, drawn by the seed."""
    seed: int = 0

    def __reduce__(self) -> tuple[Any, ...]:
        """For other processes, without what was opened."""
        return Place, (self.folder.resolve(), self.data, self.size, self.pattern, self.most, self.seed)

    @cached_property
    def dataset(self) -> Dataset:
        """Opened once."""
        return open_dataset(self.folder, self.data.kind, **self.data.settings)

    @cached_property
    def areas(self) -> Mapping[str, tuple[str, ...]]:
        """Area -> names of its chips. Raises UsageError ("no-area") for an event that the pattern does not name."""
        found: dict[str, list[str]] = {}
        for name in self.dataset.members:
            found.setdefault(self._area(self.dataset.members[name].event), []).append(name)
        return {area: tuple(names) for area, names in sorted(found.items())}

    def _area(self, event: str) -> str:
        if not self.pattern:
            return event
        match = re.search(self.pattern, event)
        if not match or not match.groups():
            what = f"--areas {self.pattern} names no area of the event {event}"
            raise UsageError(what, repair="give an expression with a group", code="no-area")
        return match.group(1)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Classes whose share is asked; of two the second."""
        classes = self.dataset.classes
        return classes[1:] if len(classes) == 2 else classes

    @property
    def units(self) -> Mapping[str, str]:
        """Of each band."""
        return dict(zip(self.dataset.bands, self.dataset.units, strict=True))

    @property
    def key(self) -> str:
        """Of which squares there are; of their pixels by the size and time of their files."""
        files = {file: (stat.st_size, stat.st_mtime_ns) for file, stat in self._files}
        return digest([self.dataset.name, dict(self.data.settings), self.size, self.pattern, self.most, self.seed,
                       {area: list(names) for area, names in self.areas.items()}, files])  # fmt: skip

    @cached_property
    def _files(self) -> list[tuple[str, os.stat_result]]:
        every = sorted({path for member in self.dataset.members.values() for path in member.files.values()})
        return [(str(path.relative_to(self.folder)), path.stat()) for path in every if path.exists()]

    def shares(self, chip: Chip, window: Window) -> F64 | None:
        """Of each task among the pixels that are known; None where too few are."""
        assert chip.truth is not None
        own = chip.truth[window.slices]
        known = own[own != UNKNOWN]
        if known.size < LEAST_KNOWN * own.size:
            return None
        counts = np.bincount(known, minlength=len(self.dataset.classes)) / known.size
        return np.asarray(counts[-len(self.tasks) :] if len(self.tasks) < len(counts) else counts, np.float64)

    def squares(self, area: str) -> Iterator[tuple[Chip, list[Window], bool]]:
        """Chips of an area with truth, the squares that are looked at, and whether they are held."""
        rng = np.random.default_rng([self.seed, _DRAW, crc32(area.encode())])
        names, held = self.areas[area], self._held(area)
        share = max(1, -(-self.most // len(names)))
        for name in names[: self.most]:
            chip = self.dataset.read(name)
            if chip.truth is None:
                continue
            every = [w for w in blocks(chip.shape, self.size) if (w.height, w.width) == (self.size, self.size)]
            kept = sorted(rng.permutation(len(every))[:share])
            yield chip, [every[k] for k in kept], held(name)

    def alone(self, area: str) -> bool:
        """Whether an area is one image, so that none would be left to test on."""
        return len(self.areas[area]) < 2

    def _held(self, area: str) -> Callable[[str], bool]:
        names = self.areas[area]
        events = {name: self.dataset.members[name].event for name in names}
        unit = events if len(set(events.values())) > 1 else {name: name for name in names}
        sizes = Counter(unit.values())
        if self.alone(area):
            raise InputRefusedError(f"the area {area} is one image, and none is left to test on", code="no-chips",
                                    repair="join it to others with --areas")  # fmt: skip
        side = by_event(sizes, np.random.default_rng([self.seed, _DRAW]), {"fit": 0.5, "test": 0.5})
        return lambda name: side[unit[name]] == "test"


class Embedded(NamedTuple):
    """An area as an encoder sees it, and how many squares were not used."""

    area: Area
    left_out: int


def embed(place: Place, encoder: Encoder, name: str, path: Path) -> Embedded:
    """Of one area, from `path` or into it. Raises InputRefusedError ("no-chips") where no square is fit."""
    key = digest([place.key, encoder.key, name])
    if (known := _read(path, key, name, place.tasks)) is not None:
        return known
    rows: list[tuple[str, int, int, bool]] = []
    found, shares, left = [], [], 0
    for chip, windows, held in place.squares(name):
        pixels = encoder.read(chip)
        for window in windows:
            own, share = np.asarray(pixels[(..., *window.slices)]), place.shares(chip, window)
            if share is None or not seen(own):
                left += 1
                continue
            rows.append((chip.name, window.row, window.col, held))
            found.append(encoder(own))
            shares.append(share)
    if not found:
        raise InputRefusedError(f"the area {name} has no square of {place.size} px with truth", code="no-chips",
                                repair="give a smaller --size")  # fmt: skip
    _write(path, key, place.tasks, rows, np.stack(found), np.stack(shares), left)
    again = _read(path, key, name, place.tasks)
    assert again is not None
    return again


def reread(path: Path, name: str, tasks: Sequence[str]) -> Area:
    """What `embed` wrote of an area."""
    found = tables.read(path)
    assert found is not None, f"{path} was there a moment ago"
    return _embedded(*found, name, tasks).area


def _write(
    path: Path, key: str, tasks: Sequence[str], rows: Sequence[tuple[str, int, int, bool]], found: F32, shares: F64, left: int
) -> None:  # fmt: skip
    chip, row, col, held = zip(*rows, strict=True)
    columns: dict[str, Any] = {"chip": list(chip), "row": list(row), "col": list(col), "held": list(held)}
    columns["embedding"] = tables.vectors(found)
    columns |= {f"share of {task}": shares[:, k] for k, task in enumerate(tasks)}
    tables.write(path, columns, {"key": key, "left_out": left})


def _read(path: Path, key: str, name: str, tasks: Sequence[str]) -> Embedded | None:
    found = tables.read(path)
    return None if found is None or found[1].get("key") != key else _embedded(*found, name, tasks)


def _embedded(table: Any, about: Mapping[str, Any], name: str, tasks: Sequence[str]) -> Embedded:
    features = tables.unpacked(table.column("embedding")).astype(np.float64)
    shares = np.stack([table.column(f"share of {task}").to_numpy() for task in tasks], axis=1)
    return Embedded(Area(name, features, shares, np.asarray(table.column("held").to_numpy(), bool)), int(about["left_out"]))
