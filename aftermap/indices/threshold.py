"""Where to part two classes, and whether there are two: cores on histograms, for any number of histograms at once.

Counts are (..., bin), the last axis on the ascending bin `centres` (bin,). A threshold lies half-way between the two
occupied bins that it parts; NaN says "no threshold found" and is never replaced here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap.ahead import ahead

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

_TINY = 1e-300
"""Stands for an empty class where a logarithm or a quotient needs a number above zero."""


def logistic(margin: npt.NDArray[Any], scale: float) -> F32:
    """Scores in [0, 1]: 0.5 at margin 0, 0.73 at one `scale`; above 0.5 exactly where the margin is positive; NaN gives 0.

    In float64: numpy's float32 exp may round differently in the body and the remainder of a vector, and then a pixel's
    score would depend on the tile it lies in.
    """
    steps = np.clip(np.nan_to_num(np.asarray(margin, dtype=np.float64) / scale, nan=-100.0), -100, 100)
    # float32 steps are 6e-8 wide above 0.5: a smaller margin would round to undecided
    steps = np.where((steps > 0) & (steps < 1e-6), 1e-6, steps)
    return np.asarray(1 / (1 + np.exp(-steps)), dtype=np.float32)


@dataclass(frozen=True)
class Modes:
    """Two classes of each histogram (...): share of the lower one, means and standard deviations, in the bins' unit."""

    low_share: F64
    low_mean: F64
    high_mean: F64
    low_std: F64
    high_std: F64

    @property
    def ashman_d(self) -> F64:
        """Ashman's D (Ashman, Bird & Zepf 1994, eq. 4): sqrt(2) |m1 - m0| / sqrt(s0^2 + s1^2); two modes above 2."""
        spread = np.sqrt(self.low_std**2 + self.high_std**2)
        return _quotient(np.sqrt(2) * np.abs(self.high_mean - self.low_mean), spread, spread > 0)

    @property
    def balance(self) -> F64:
        """Share of the rarer class, in [0, 0.5]."""
        return np.asarray(np.minimum(self.low_share, 1 - self.low_share))


def otsu(counts: F64, centres: F64) -> F64:
    """Thresholds (...) that maximise w0 w1 (m0 - m1)^2 (Otsu 1979, eq. 14); NaN where fewer than two bins are occupied."""
    cut = parted(counts, centres)
    between = cut.low_share * (1 - cut.low_share) * (cut.high_mean - cut.low_mean) ** 2
    return _best(counts, centres, np.where(cut.balance > 0, between, -np.inf))


def kittler_illingworth(counts: F64, centres: F64) -> F64:
    """Thresholds (...) of minimum error (Kittler & Illingworth 1986, eq. 15).

    J = 1 + 2 (P0 ln s0 + P1 ln s1) - 2 (P0 ln P0 + P1 ln P1) is minimised over the cuts that leave both classes
    non-empty with s > 0; NaN where there is none.
    """
    cut = parted(counts, centres)
    usable = (cut.balance > 0) & (cut.low_std > 0) & (cut.high_std > 0)
    low, high = np.where(usable, cut.low_share, 0.5), np.where(usable, 1 - cut.low_share, 0.5)
    log_stds = low * np.log(np.where(usable, cut.low_std, 1)) + high * np.log(np.where(usable, cut.high_std, 1))
    error = 1 + 2 * log_stds - 2 * (low * np.log(low) + high * np.log(high))
    return _best(counts, centres, np.where(usable, -error, -np.inf))


def parted(counts: F64, centres: F64) -> Modes:
    """The classes (..., bin - 1) at or below, and above, each bin but the last; zeros for an empty class."""
    middle = float(centres.mean())  # offsets from it are small, so the second moments lose fewer digits
    share = counts / np.maximum(counts.sum(-1, keepdims=True), _TINY)
    below = [np.cumsum(share * (centres - middle) ** power, axis=-1) for power in range(3)]
    low = _moments(*(part[..., :-1] for part in below))
    high = _moments(*(part[..., -1:] - part[..., :-1] for part in below))
    return Modes(low[0], low[1] + middle, high[1] + middle, low[2], high[2])


def _moments(share: F64, first: F64, second: F64) -> tuple[F64, F64, F64]:
    """Share, mean and standard deviation of a class from its raw moments; what rounding leaves of nothing is nothing."""
    occupied = share > 1e-12
    mean = _quotient(first, share, occupied)
    variance = _quotient(second, share, occupied) - mean**2
    return np.where(occupied, share, 0.0), mean, np.sqrt(np.where(variance > 1e-9, variance, 0.0))


def _quotient(over: F64, under: F64, where: npt.NDArray[np.bool_]) -> F64:
    return np.asarray(np.divide(over, under, out=np.zeros_like(under), where=where))


def _best(counts: F64, centres: F64, worth: F64) -> F64:
    """Half-way between the last occupied bin of the lower class and the first of the upper one at the worthiest cut."""
    index = np.arange(counts.shape[-1])
    last = np.maximum.accumulate(np.where(counts > 0, index, 0), axis=-1)
    following = np.minimum.accumulate(np.where(counts > 0, index, index[-1])[..., ::-1], axis=-1)[..., ::-1]
    cut = np.argmax(worth, axis=-1)[..., None]
    below, above = np.take_along_axis(last, cut, -1), np.take_along_axis(following, cut + 1, -1)
    found = np.isfinite(np.take_along_axis(worth, cut, -1))
    return np.asarray(np.where(found, (centres[below] + centres[above]) / 2, np.nan)[..., 0])


def two_gaussians(counts: F64, centres: F64, start: F64, *, rounds: int = 40) -> Modes:
    """The two Gaussians (...) that fit each histogram best, by expectation maximisation from a first threshold (...).

    An honest test of bimodality needs them: the halves of one Gaussian cut at its mean have Ashman D 2.6, so D of a
    hard cut finds two modes in everything.
    """
    share = counts / np.maximum(counts.sum(-1, keepdims=True), _TINY)
    least_std = float(centres[1] - centres[0]) / np.sqrt(12)  # that of one bin
    low: F64 = (centres <= start[..., None]).astype(np.float64)
    for _ in range(rounds):
        modes = _maximise(share, centres, low, least_std)
        low = _expect(modes, centres)
    return _maximise(share, centres, low, least_std)


def _maximise(share: F64, centres: F64, low: F64, least_std: float) -> Modes:
    """The two classes (...) from the probability (..., bin) that a value belongs to the lower one."""
    found = []
    for side in (share * low, share * (1 - low)):
        weight = np.maximum(side.sum(-1), _TINY)
        mean = side @ centres / weight
        variance = (side * (centres - mean[..., None]) ** 2).sum(-1) / weight
        found.append((weight, mean, np.sqrt(np.maximum(variance, least_std**2))))
    (low_weight, low_mean, low_std), (_, high_mean, high_std) = found
    return Modes(low_weight, low_mean, high_mean, low_std, high_std)


def _expect(modes: Modes, centres: F64) -> F64:
    """Probability (..., bin) that a value belongs to the lower Gaussian."""
    low = _log_density(modes.low_share, modes.low_mean, modes.low_std, centres)
    high = _log_density(1 - modes.low_share, modes.high_mean, modes.high_std, centres)
    return np.asarray(1 / (1 + np.exp(np.clip(high - low, -500, 500))))


def _log_density(share: F64, mean: F64, std: F64, centres: F64) -> F64:
    distance = (centres - mean[..., None]) / std[..., None]
    return np.asarray(np.log(np.maximum(share, _TINY) / std)[..., None] - distance**2 / 2)


@dataclass(frozen=True)
class Gate:
    """Which square tiles of an image may vote for its threshold; levels in the image's unit.

    A tile votes where at least half of it was observed, its threshold lies within `bounds`, the mean of its lower mode
    below and of its upper mode above `between`, Ashman's D above and the rarer mode's share not below theirs.
    """

    span: tuple[float, float]
    """Of the histograms; what lies beyond counts in the end bins."""
    bounds: tuple[float, float]
    between: tuple[float, float]
    bin_width: float
    tile_px: int = 64
    ashman_d: float = 2.0
    balance: float = 0.1
    least_votes: int = 5

    def centres(self) -> F64:
        """Bin centres (bin,)."""
        low, high = self.span
        return np.asarray(low + (np.arange(round((high - low) / self.bin_width)) + 0.5) * self.bin_width, np.float64)


@dataclass(frozen=True)
class Found:
    """A threshold, None where none was found, and in words how it came about."""

    value: float | None
    source: str


def tiled_threshold(images: Iterable[F32], gate: Gate, cut: Callable[[F64, F64], F64] = kittler_illingworth) -> Found:
    """The median of the thresholds of the bimodal tiles of all images (y, x), NaN where not observed.

    Each tile is cut by `cut`, by Otsu where that finds nothing. Tiles with both classes are balanced even where water is
    0.1 % of the scene, whose own histogram would show one mode.
    """
    counts = np.concatenate([np.empty((0, len(gate.centres()))), *(histograms(image, gate) for image in images)])
    parts = np.array_split(counts, -(-len(counts) // _AT_ONCE)) if len(counts) else []
    votes, tiles = list(ahead(lambda part: _votes(part, gate, cut), parts, workers=2)), len(counts)
    every = np.concatenate([np.empty(0), *votes])
    if len(every) < gate.least_votes:
        return Found(None, f"no threshold found: {len(every)} of {tiles} tiles are bimodal, at least {gate.least_votes} must be")
    return Found(float(np.median(every)), f"median of {len(every)} bimodal tiles of {tiles}")


_AT_ONCE = 512
"""Histograms that are worked on together: enough that two threads hardly meet, few enough to stay in a processor's cache."""


def histograms(image: F32, gate: Gate) -> F64:
    """Counts (tile, bin) of the tiles of an image (y, x) that are at least half observed; the end bins take what is beyond."""
    bins, (rows, cols) = len(gate.centres()), (-(-length // gate.tile_px) for length in image.shape)
    seen = np.isfinite(image)
    tile = (np.arange(image.shape[0]) // gate.tile_px * cols)[:, None] + np.arange(image.shape[1]) // gate.tile_px
    index = np.clip((image[seen].astype(np.float64) - gate.span[0]) / gate.bin_width, 0, bins - 1).astype(np.intp)
    counts = np.bincount(tile[seen] * bins + index, minlength=rows * cols * bins).reshape(-1, bins)
    return np.asarray(counts[2 * counts.sum(axis=1) >= gate.tile_px**2], np.float64)


def _votes(counts: F64, gate: Gate, cut: Callable[[F64, F64], F64]) -> F64:
    """Thresholds (vote,) of the tiles that pass the gate."""
    centres = gate.centres()
    first = cut(counts, centres)
    first = np.where(np.isnan(first), otsu(counts, centres), first)
    with np.errstate(invalid="ignore"):
        inside = (first >= gate.bounds[0]) & (first <= gate.bounds[1])
    counts, first = counts[inside], first[inside]
    modes = two_gaussians(counts, centres, first)
    apart = (modes.ashman_d > gate.ashman_d) & (modes.balance >= gate.balance)
    return np.asarray(first[apart & (modes.low_mean < gate.between[0]) & (modes.high_mean > gate.between[1])])
