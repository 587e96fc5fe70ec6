"""What a data set holds, per split: mean, deviation and percentiles of each band, and the share of each class; and its faults.

Means and deviations are of every observed pixel, gathered chip by chip (Chan et al. 1979). Percentiles are of a sample, the
same number of pixels of each chip, drawn with a seed: memory does not grow with the data.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap.chips import Chip, counts
from aftermap.datasets.dataset import Corrupt, Dataset
from aftermap.errors import InputRefusedError

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
_SAMPLED_PX = 256
_MOST_SAMPLED = 200_000
"""Values of one band and split that are kept for percentiles; every second is dropped when there are more."""
F64 = npt.NDArray[np.float64]


@dataclass
class Moments:
    """Count, mean and sum of squared deviations (band,) that add."""

    count: int
    mean: F64
    squares: F64

    @classmethod
    def of(cls, values: npt.NDArray[np.float32]) -> Moments:
        """Those of values (band, n)."""
        exact = values.astype(np.float64)
        mean = exact.mean(axis=1) if exact.size else np.zeros(len(exact))
        return cls(exact.shape[1], mean, ((exact - mean[:, None]) ** 2).sum(axis=1))

    def __add__(self, other: Moments) -> Moments:
        total = self.count + other.count
        if not total:
            return self
        apart = other.mean - self.mean
        mean = self.mean + apart * other.count / total
        return Moments(total, mean, self.squares + other.squares + apart**2 * self.count * other.count / total)

    @property
    def deviation(self) -> F64:
        """Standard deviation (band,) of the population; NaN where nothing was observed."""
        return np.sqrt(self.squares / self.count) if self.count else np.full_like(self.mean, np.nan)


@dataclass
class SplitStatistics:
    """Of one split, gathered chip by chip."""

    bands: tuple[str, ...]
    classes: tuple[str, ...]
    seed: int = 0
    chips: int = 0
    observed_px: int = 0
    pixels: int = 0
    moments: Moments = field(init=False)
    of_class: npt.NDArray[np.int64] = field(init=False)
    samples: list[npt.NDArray[np.float32]] = field(default_factory=list)
    _every: int = 1

    def __post_init__(self) -> None:
        self.moments = Moments(0, np.zeros(len(self.bands)), np.zeros(len(self.bands)))
        self.of_class = np.zeros(len(self.classes), np.int64)

    def add(self, chip: Chip) -> None:
        """Adds a chip. Raises InputRefusedError ("label-codes")."""
        values = chip.pixels[:, chip.valid]
        self.moments += Moments.of(values)
        self.of_class += counts(chip, len(self.classes))
        self.chips, self.pixels, self.observed_px = (
            self.chips + 1,
            self.pixels + chip.valid.size,
            self.observed_px + values.shape[1],
        )
        if values.shape[1]:
            rng = np.random.default_rng([self.seed, zlib.crc32(chip.name.encode())])
            self.samples.append(values[:, rng.integers(values.shape[1], size=_SAMPLED_PX)][:, :: self._every])
            while sum(s.shape[1] for s in self.samples) > _MOST_SAMPLED:
                self._every *= 2
                self.samples = [s[:, ::2] for s in self.samples]

    def percentiles(self) -> F64:
        """(percentile, band) of the sample; NaN where nothing was observed."""
        if not self.samples:
            return np.full((len(PERCENTILES), len(self.bands)), np.nan)
        return np.asarray(np.percentile(np.concatenate(self.samples, axis=1), PERCENTILES, axis=1), np.float64)

    def row(self, split: str) -> dict[str, Any]:
        """Plain values: null where nothing was observed or labelled."""
        known = int(self.of_class.sum())
        quantiles = self.percentiles()
        return {
            "split": split, "chips": self.chips, "observed_share": self.observed_px / self.pixels if self.pixels else None,
            "labelled_px": known,
            "classes": {n: int(c) / known if known else None for n, c in zip(self.classes, self.of_class, strict=True)},
            "bands": {
                band: {"mean": _plain(self.moments.mean[k] if self.moments.count else np.nan),
                       "std": _plain(self.moments.deviation[k])}
                | {f"p{p}": _plain(quantiles[i, k]) for i, p in enumerate(PERCENTILES)}
                for k, band in enumerate(self.bands)
            },
        }  # fmt: skip


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


@dataclass
class Statistics:
    """Of a data set: a row for each split, and the members that could not be read."""

    dataset: Dataset
    splits: dict[str, SplitStatistics]
    corrupt: list[InputRefusedError]

    def rows(self) -> list[dict[str, Any]]:
        """A row per split."""
        return [s.row(name) for name, s in self.splits.items()]


def gather(
    dataset: Dataset, *, on_corrupt: Corrupt = "stop", seed: int = 0, progress: Callable[[str, int, int], None] | None = None
) -> Statistics:
    """Statistics of every split in one pass."""
    found = {s: SplitStatistics(dataset.bands, dataset.classes, seed) for s in dataset.splits}
    chips = dataset.chips(on_corrupt=on_corrupt)
    for done, chip in enumerate(chips, 1):
        found[dataset.members[chip.name].split].add(chip)
        if progress:
            progress("stats", done, len(chips))
    return Statistics(dataset, found, list(chips.corrupt))


@dataclass(frozen=True)
class Check:
    """What was found wrong with a data set on disk."""

    members: int
    absent: tuple[str, ...]
    corrupt: Sequence[InputRefusedError]
    unseen: tuple[str, ...]
    """Members that are whole, and of which no pixel was both observed and labelled."""
    codes: dict[str, int]
    """Labelled and observed pixels of each class."""


def examine(dataset: Dataset, *, progress: Callable[[str, int, int], None] | None = None) -> Check:
    """Reads every member once; each fault is named, and none ends the pass."""
    chips = dataset.chips(on_corrupt="skip")
    of_class = np.zeros(len(dataset.classes), np.int64)
    unseen, strange = [], []
    for done, chip in enumerate(chips, 1):
        try:
            found = counts(chip, len(dataset.classes))
        except InputRefusedError as error:
            strange.append(error)
            continue
        of_class += found
        if chip.truth is not None and not found.any():
            unseen.append(chip.name)
        if progress:
            progress("check", done, len(chips))
    codes = {n: int(c) for n, c in zip(dataset.classes, of_class, strict=True)}
    return Check(len(chips), dataset.absent, [*chips.corrupt, *strange], tuple(unseen), codes)
