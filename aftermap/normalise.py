"""Mean and standard deviation per band over observed pixels, and pixels made comparable by them: one for all, or one per domain.

Statistics are of the unit that the pixels have: those of linear power never normalise decibels (methods.md section 16, trap 2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from aftermap.errors import InputRefusedError, UnknownNameError
from aftermap.scorer import LayerBands
from aftermap.tiles import spread

if TYPE_CHECKING:
    from aftermap.card import Card
    from aftermap.chips import Chip
    from aftermap.scene import Scene

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
BY: dict[str, Callable[[Chip], str]] = {
    "all": lambda _: "all",
    "per_domain": lambda chip: chip.domain,
    "scene": lambda chip: chip.event or chip.name,
    "chip": lambda chip: chip.name,
}
"""What shares statistics; "chip" is for pictures that were each stretched by themselves."""
SURVEYED_PX, MOST_SURVEYED = 512, 64
"""Of a scene: squares that its own statistics are taken of, evenly spread where there are more."""
FLAT = 1e-6
"""A band whose standard deviation is below this share of its mean is taken as constant, and not divided by."""


@dataclass(frozen=True)
class Normaliser:
    """x -> (x - mean) / std, band by band."""

    bands: tuple[str, ...]
    unit: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, pixels: F32) -> F32:
        """Normalised (band, y, x), 0 in every band of a pixel that lacks any, as the exported graph has it."""
        mean, std = _columns(self.mean), _columns(self.std)
        missing = np.isnan(pixels).any(axis=0)
        return np.where(missing, np.float32(0), (pixels - mean) / std)

    def invert(self, normal: F32) -> F32:
        """Pixels (band, y, x) in their own units."""
        return normal * _columns(self.std) + _columns(self.mean)

    def of(self, chip: Chip) -> F32:
        """The chip's pixels normalised, 0 where not valid. Raises InputRefusedError ("normaliser-mismatch")."""
        if (chip.bands, units(chip)) != (self.bands, self.unit):
            raise InputRefusedError(
                f"{chip.name} has {_words(chip.bands, units(chip))}, the statistics are of {_words(self.bands, self.unit)}",
                repair="choose the same bands and unit for both",
                code="normaliser-mismatch",
            )
        return self.apply(np.where(chip.valid, chip.pixels, np.float32(np.nan)))


@dataclass(frozen=True)
class Separated:
    """One normaliser for each domain or scene (separated normalisation, methods.md C.2)."""

    by: str
    each: Mapping[str, Normaliser]

    def of(self, chip: Chip) -> F32:
        """As of the normaliser that the chip belongs to. Raises UnknownNameError for a domain without one."""
        name = BY[self.by](chip)
        if name not in self.each:
            raise UnknownNameError(self.by, name, self.each)
        return self.each[name].of(chip)


def units(chip: Chip) -> tuple[str, ...]:
    """The unit of each band."""
    return (chip.unit,) * len(chip.bands) if isinstance(chip.unit, str) else chip.unit


def fit(chips: Iterable[Chip]) -> Normaliser:
    """Statistics of all valid pixels in one pass. Raises InputRefusedError ("no-pixels")."""
    return fit_each(chips, by="all").each["all"]


def misapplied(chips: Iterable[Chip]) -> Normaliser:
    """For chips in dB the mean and std of their power, as if they were those of its log10 (methods.md section 16, trap 2).

    (log10 p - mean p) / std p is (dB - 10 mean p) / (10 std p). Raises InputRefusedError ("normaliser-mismatch").
    """

    def as_power() -> Iterator[Chip]:
        for chip in chips:
            if set(units(chip)) != {"dB"}:
                what, repair = f"{chip.name} is not in dB, and norm_bug is of radar in dB", "leave it out of the fidelity"
                raise InputRefusedError(what, repair=repair, code="normaliser-mismatch")
            yield replace(chip, pixels=np.asarray(10 ** (chip.pixels / 10), np.float32))

    found = fit(as_power())
    return replace(found, mean=tuple(10 * m for m in found.mean), std=tuple(10 * s for s in found.std))


def fit_each(chips: Iterable[Chip], *, by: str = "per_domain") -> Separated:
    """Statistics of each domain or scene in one pass over all chips; memory does not grow with them. Raises as `fit`."""
    fitting = Fitting(by)
    for chip in chips:
        fitting.add(chip)
    return fitting.done()


@dataclass
class Fitting:
    """Statistics under way, chip by chip; memory does not grow with them."""

    by: str
    _found: dict[str, _Moments] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.by not in BY:
            raise UnknownNameError("normalise", self.by, BY)

    def add(self, chip: Chip) -> None:
        """Counts the valid pixels of one more."""
        name, fresh = BY[self.by](chip), _Moments.of(chip.bands, units(chip), chip.pixels[:, chip.valid])
        self._found[name] = self._found[name] + fresh if name in self._found else fresh

    def done(self) -> Separated:
        """A normaliser for each. Raises InputRefusedError ("no-pixels") where one has no valid pixel, unless it is a chip."""
        empty = [name for name, moments in self._found.items() if not moments.count and self.by != "chip"]
        if empty or not self._found:
            raise InputRefusedError(
                f"no chip of {empty[0] if empty else 'the data'} has a valid pixel",
                repair="look at them with aftermap data stats", code="no-pixels",
            )  # fmt: skip
        return Separated(self.by, {name: moments.normaliser() for name, moments in self._found.items()})


def of_card(card: Card) -> Normaliser:
    """What a network divides by, as its card has it; bands as those of chips are called."""
    bands = tuple(b if one.layer == "after" else f"{one.layer}.{b}" for one in card.inputs for b in one.bands)
    return Normaliser(bands, tuple(one.unit for one in card.inputs for _ in one.bands), card.mean, card.std)


def of_scene(scene: Scene, inputs: Sequence[LayerBands]) -> Normaliser:
    """The statistics of a scene itself, over squares spread evenly; what has no observed pixel has mean 0 and std 1."""
    bands = tuple(band for one in inputs for band in one.bands)
    unit = tuple(one.unit for one in inputs for _ in one.bands)
    return _surveyed(scene, inputs, bands, unit, lambda pixels: pixels)


def of_pictures(scene: Scene, reads: LayerBands, bands: Sequence[str], as_picture: Callable[[F32], F32]) -> Normaliser:
    """The same of what `as_picture` makes of pixels (n, band, y, x): digital numbers of other `bands`."""
    return _surveyed(scene, [reads], tuple(bands), ("digital_number",) * len(bands), as_picture)


def _surveyed(
    scene: Scene, inputs: Sequence[LayerBands], bands: tuple[str, ...], unit: tuple[str, ...], made: Callable[[F32], F32]
) -> Normaliser:
    found = _Moments.of(bands, unit, np.empty((len(bands), 0), np.float32))
    for window in spread(scene.shape, SURVEYED_PX, MOST_SURVEYED):
        pixels = made(np.concatenate([scene.read(one, window) for one in inputs])[None])[0]
        found += _Moments.of(bands, unit, pixels[:, np.isfinite(pixels).all(axis=0)])
    return found.normaliser()


@dataclass(frozen=True)
class _Moments:
    """Pixels counted, their mean and summed squared deviation per band; two add exactly (Chan et al. 1979)."""

    bands: tuple[str, ...]
    unit: tuple[str, ...]
    count: int
    mean: F64
    squares: F64

    @classmethod
    def of(cls, bands: tuple[str, ...], unit: tuple[str, ...], pixels: F32) -> _Moments:
        """Of pixels (band, pixel), all observed."""
        seen = pixels.astype(np.float64)
        mean = seen.mean(axis=1) if seen.size else np.zeros(len(seen))
        return cls(bands, unit, seen.shape[1], mean, ((seen - mean[:, None]) ** 2).sum(axis=1))

    def __add__(self, other: _Moments) -> _Moments:
        if (self.bands, self.unit) != (other.bands, other.unit):
            raise InputRefusedError(
                f"chips with {_words(other.bands, other.unit)} among chips with {_words(self.bands, self.unit)}",
                repair="choose data of one sensor and unit",
                code="normaliser-mismatch",
            )
        count = self.count + other.count
        step, share = other.mean - self.mean, other.count / max(1, count)
        squares = self.squares + other.squares + step**2 * self.count * share
        return _Moments(self.bands, self.unit, count, self.mean + step * share, squares)

    def normaliser(self) -> Normaliser:
        std = np.sqrt(self.squares / max(1, self.count))
        std = np.where(std <= FLAT * np.maximum(np.abs(self.mean), FLAT), 1.0, std)
        return Normaliser(self.bands, self.unit, tuple(map(float, self.mean)), tuple(map(float, std)))


def _columns(numbers: tuple[float, ...]) -> F32:
    return np.asarray(numbers, np.float32)[:, None, None]


def _words(bands: tuple[str, ...], unit: tuple[str, ...]) -> str:
    return ", ".join(f"{band} in {of}" for band, of in zip(bands, unit, strict=True))
