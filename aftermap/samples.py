"""What a network is trained and scored on: chosen bands and classes, squares of one size, no pixel twice.

Whole events fall to one side; where a data set has official splits, those hold.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np

from aftermap.chips import F32, U8, UNKNOWN, Chip, unfit
from aftermap.datasets.dataset import Dataset
from aftermap.errors import InputRefusedError, UnknownNameError, UsageError
from aftermap.normalise import Fitting, Normaliser, Separated, fit, misapplied, units
from aftermap.scorer import LayerBands
from aftermap.splits import by_event
from aftermap.tiles import Window, blocks

Progress = Callable[[str, int, int], None]
SPLITS = ("train", "validation", "test")
_OFFICIAL = {
    "train": "train",
    "training": "train",
    "tier3": "train",
    "val": "validation",
    "validation": "validation",
    "valid": "validation",
    "test": "test",
}
OFFICIAL = "official:"
"""Begins the name of an official split where names of events are asked for."""
VALIDATION_SHARE = 0.1
"""Of the chips of training, to choose a checkpoint by, where no event is left for that."""
LEAST_SEEN = 0.5
"""Share of a square that was observed, from which it is kept without labels."""
KEPT_BYTES, SHARES = 2**31, 16
MULTIPLE_OF, MOST_PX = 32, 256
"""Sides that networks take, and the largest that is chosen without being asked for."""


@dataclass(frozen=True)
class Samples:
    """Squares of `size` px by split; a source of batches.py."""

    dataset: Dataset = field(repr=False)
    bands: tuple[str, ...]
    inputs: tuple[LayerBands, ...]
    """The same bands as layers of a scene, in the same order."""
    size: int
    places: Mapping[str, tuple[str, Window]] = field(repr=False)
    """Sample -> its chip and where in it."""
    sides: Mapping[str, str] = field(repr=False)
    """Sample -> split."""
    events: Mapping[str, tuple[str, ...]]
    """Split -> events in it."""
    dealt: bool
    """Whether chips of the events of training, left out of it, choose the checkpoint."""
    reference: Normaliser
    """Of the chips of training."""
    normaliser: Normaliser | Separated
    """What batches are normalised with: the reference, or the statistics of what each chip belongs to."""
    sha256: str
    """Of pixels, truth and split of every sample."""
    codes: U8 = field(repr=False)
    """Class code of the data set -> that of the samples (256,)."""
    classes: tuple[str, ...] = ()
    """Name of each code of the samples; empty for one hazard, 1, against all else, 0."""
    of_chips: bool = False
    """Whether a sample is a whole chip with its own label, `target`."""
    presence: bool = False
    """Whether that label is 1 where any known pixel is hazard, else 0; of chips without truth by pixel their own label."""
    unlabelled: bool = False
    """Whether samples have no labels, whatever the data set has."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Of samples without labels: squares that were left out, by reason (chips.unfit)."""
    _kept: dict[str, Chip] = field(default_factory=dict, repr=False, compare=False)
    """Samples that were read, as many as `_most` bytes hold: decoding a picture takes a third of a step of a small network."""
    _most: int = field(default=KEPT_BYTES, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        """For one of several processes that read: it reads by itself, and holds a share."""
        return vars(self) | {"_kept": {}, "_most": KEPT_BYTES // SHARES}

    @property
    def unseen(self) -> bool:
        """Whether no event that is scored was trained on or chosen by."""
        known = {*self.events["train"], *self.events["validation"]}
        return bool(self.events["test"]) and known.isdisjoint(self.events["test"])

    def hazard(self, lead: Sequence[int]) -> Samples:
        """The same samples, of whose classes those at the places `lead` are the hazard, 1, and the others 0."""
        if not self.classes:
            return self
        of = np.where(self.codes == UNKNOWN, UNKNOWN, np.isin(self.codes, lead))
        return replace(self, codes=of.astype(np.uint8), classes=(), _kept={})

    def ids(self, split: str) -> list[str]:
        """Samples of a split."""
        return [name for name, side in self.sides.items() if side == split]

    def each(self, split: str, progress: Progress, words: str) -> Iterator[tuple[str, Chip]]:
        """Every sample of a split by its name; `progress` hears which."""
        names = self.ids(split)
        for done, name in enumerate(names, 1):
            yield name, self.read(name)
            progress(words, done, len(names))

    def whole(self, split: str, progress: Progress, words: str) -> Iterator[tuple[str, Chip]]:
        """The chips that the samples of a split were cut from, as `each`."""
        names = list(dict.fromkeys(self.places[name][0] for name in self.ids(split)))
        for done, name in enumerate(names, 1):
            yield name, narrowed(self.dataset.read(name), self.bands, self.codes)
            progress(words, done, len(names))

    def as_mapped(self, chip: Chip) -> F32:
        """Pixels (band, y, x) as the graph wants them, NaN where not valid: on the level of the chips of training."""
        if self.normaliser is self.reference:
            return chip.pixels
        return np.where(chip.valid, self.reference.invert(self.normaliser.of(chip)), np.float32(np.nan))

    def read(self, id: str) -> Chip:
        """One sample, its truth in `codes`; what lies outside its chip is not valid."""
        if (known := self._kept.get(id)) is not None:
            return known
        name, window = self.places[id]
        whole = narrowed(self.dataset.read(name), self.bands, self.codes)
        chip = _sample(whole, window, self.size, unlabelled=self.unlabelled, presence=self.presence)
        _keep(self._kept, id, chip, self._most)
        return chip


def survey(
    dataset: Dataset, inputs: Sequence[str], *, split: Mapping[str, Sequence[str]] | None = None, size: int = 0, seed: int = 0,
    normalise: str = "all", classes: Sequence[str] = (), of_chips: bool = False, presence: bool = False, norm_bug: bool = False,
    unlabelled: bool = False, progress: Progress = lambda *_: None,
) -> Samples:  # fmt: skip
    """Reads every chip once. `inputs` are layers ("after") or bands ("after.VV"); `split` names the events of each side;
    `classes` of the data set are told apart, by default the hazard from all else; with `of_chips` each chip has one label, with
    `presence` too, made of the truth of each square by itself.

    With `unlabelled` no label counts, whatever else is asked for: squares of which LEAST_SEEN was observed and no band is
    constant are kept, and statistics are of the chips that have any.

    `normalise` says what shares statistics (normalise.BY); with "all" they are those of the chips of training. With `norm_bug`
    these are those of power, and decibels are divided by them (methods.md B.2).

    Raises UnknownNameError for inputs, sides, events and classes, InputRefusedError ("no-chips", "band-missing", "chip-sizes").
    """
    if unlabelled:
        classes, of_chips, presence = (), False, False
    bands, codes = choose_bands(dataset.bands, inputs), choose_codes(dataset.classes, () if of_chips else classes)
    sides, dealt = divide(dataset, split or {}, np.random.default_rng(seed))
    found, fitting = _Squares(size, of_chips, presence, unlabelled), Fitting(normalise)

    def of_training() -> Iterator[Chip]:
        for done, (name, side) in enumerate(sides.items(), 1):
            chip = narrowed(dataset.read(name), bands, codes)
            if unlabelled:
                chip = replace(chip, truth=None, target=None)
            taken = found.add(name, side, chip)
            progress("chips", done, len(sides))
            if unlabelled and not taken:
                continue
            if normalise != "all":
                fitting.add(chip)
            if side == "train":
                yield chip
        if unlabelled:
            _refuse_none(dataset, found.side_of, found.skipped)

    reference = (misapplied if norm_bug else fit)(of_training())
    _refuse_none(dataset, found.side_of, found.skipped)
    of_side = {s: tuple(sorted({dataset.members[n].event for n, k in sides.items() if k == s})) for s in SPLITS}
    return Samples(
        dataset, bands, as_layers(bands, found.unit), found.side_px, found.places, found.side_of, of_side, dealt, reference,
        reference if normalise == "all" else fitting.done(), codes=codes,
        classes=() if presence else tuple(dataset.classes if of_chips else classes), of_chips=of_chips, presence=presence,
        sha256=found.hashes.hexdigest(), unlabelled=unlabelled, skipped={why: n for why, n in found.skipped.items() if n},
        _kept=found.kept,
    )  # fmt: skip


@dataclass
class _Squares:
    """Those taken of the chips read so far, and the hash of all that was read."""

    side_px: int
    """0 for that of the first chip."""
    of_chips: bool
    presence: bool
    unlabelled: bool
    unit: tuple[str, ...] = ()
    places: dict[str, tuple[str, Window]] = field(default_factory=dict)
    side_of: dict[str, str] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    kept: dict[str, Chip] = field(default_factory=dict)
    hashes: Any = field(default_factory=hashlib.sha256)

    def add(self, name: str, side: str, chip: Chip) -> bool:
        """Whether any square of a chip is taken. Raises InputRefusedError ("chip-sizes")."""
        self.unit, self.side_px = self.unit or units(chip), self.side_px or _side(chip.shape)
        labelled, before = self.of_chips and (not self.presence or chip.truth is None), len(self.places)
        self.hashes.update(repr((name, side)).encode())
        for array in (chip.pixels, chip.truth if chip.truth is not None else chip.valid):
            self.hashes.update(np.ascontiguousarray(array).tobytes())
        if labelled:
            self.hashes.update(repr(chip.target).encode())
            _refuse_larger(chip, self.side_px)
        for window in blocks(chip.shape, self.side_px):
            if self.unlabelled and (why := _unfit(chip, window, self.side_px)):
                self.skipped[why] += 1
            elif self.unlabelled or (chip.target is not None if labelled else chip.labelled[window.slices].any()):
                key = f"{name}@{window.row},{window.col}"
                self.places[key], self.side_of[key] = (name, window), side
                # Kept now: in the order of training, files of many chips would be opened for each.
                made = _sample(chip, window, self.side_px, unlabelled=self.unlabelled, presence=self.presence)
                _keep(self.kept, key, made)
        return len(self.places) > before


def choose_bands(known: Sequence[str], inputs: Sequence[str]) -> tuple[str, ...]:
    """Bands of a data set ("before.VV", plain for after) that layers or single bands ask for, in that order."""
    found: list[str] = []
    for wanted in inputs:
        layer, _, band = wanted.partition(".")
        own = [b for b in known if _layer(b)[0] == layer and band in ("", _layer(b)[1])]
        if not own:
            names = {_layer(b)[0] for b in known} | {".".join(_layer(b)) for b in known}
            raise UnknownNameError("input", wanted, names)
        found += [b for b in own if b not in found]
    return tuple(found)


def choose_codes(known: Sequence[str], wanted: Sequence[str]) -> U8:
    """Class code of the data set -> place in `wanted` (256,), 255 what is not named; with nothing wanted every code above 0 is 1.

    Raises UnknownNameError.
    """
    codes = np.full(256, UNKNOWN if wanted else 1, np.uint8)
    codes[[0, UNKNOWN]] = UNKNOWN if wanted else 0, UNKNOWN
    for place, name in enumerate(wanted):
        if name not in known:
            raise UnknownNameError("class", name, known)
        codes[list(known).index(name)] = place
    return codes


def divide(dataset: Dataset, split: Mapping[str, Sequence[str]], rng: np.random.Generator) -> tuple[dict[str, str], bool]:
    """Chip -> side, and whether the chips that choose are dealt from the events of training.

    By the events named; else the official splits; else whole events; a data set of one or two events is all for training.
    """
    for name in split.keys() - set(SPLITS):
        raise UnknownNameError("split", name, SPLITS)
    official = {s: _OFFICIAL[s] for s in dataset.splits if s in _OFFICIAL}
    if split:
        sides = _named(dataset, split)
    elif len(set(official.values())) > 1 and "train" in official.values():
        sides = {n: official[m.split] for n, m in dataset.members.items() if m.split in official}
    elif len(dataset.events) >= len(SPLITS):
        of_event = by_event(dataset.sizes(), rng)
        sides = {n: of_event[m.event] for n, m in dataset.members.items()}
    else:
        sides = dict.fromkeys(dataset.members, "train")
    if dealt := "validation" not in sides.values():
        own = [n for n, side in sides.items() if side == "train"]
        for k in rng.permutation(len(own))[: max(1, round(VALIDATION_SHARE * len(own)))]:
            sides[own[k]] = "validation"
    return sides, dealt


def _named(dataset: Dataset, split: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Chip -> side, by its event or, where the name begins so, by its official split."""
    of_chip: dict[str, str] = {}
    for side, names in split.items():
        for name in names:
            part = name.removeprefix(OFFICIAL)
            own = dataset.ids(events=[name]) if part == name else dataset.ids(part)  # either refuses what is not there
            for chip in own:
                if of_chip.setdefault(chip, side) != side:
                    raise UsageError(f"{name} is in {of_chip[chip]} and in {side}", repair="give each event one side")
    return of_chip


def _layer(band: str) -> tuple[str, str]:
    layer, dot, name = band.rpartition(".")
    return (layer, name) if dot else ("after", name)


def as_layers(bands: Sequence[str], of: Sequence[str]) -> tuple[LayerBands, ...]:
    """Bands of chips and their units as layers of a scene."""
    named = [(_layer(band), unit) for band, unit in zip(bands, of, strict=True)]
    runs = groupby(named, lambda one: (one[0][0], one[1]))
    return tuple(LayerBands(layer, tuple(own[1] for own, _ in run), unit) for (layer, unit), run in runs)


def _refuse_none(dataset: Dataset, of_sample: Mapping[str, str], skipped: Mapping[str, int]) -> None:
    for needed in ("train", "validation"):
        if needed not in of_sample.values():
            why = "".join(f"; {n} squares left out: {reason}" for reason, n in skipped.items())
            what = f"no chip of {dataset.folder} {'fit to learn from' if skipped else 'with labels'} is left for {needed}{why}"
            raise InputRefusedError(what, repair="cut more chips", code="no-chips")


def _sample(whole: Chip, window: Window, size: int, *, unlabelled: bool, presence: bool) -> Chip:
    """A square of a chip, with the label that is asked for."""
    chip = _square(whole, window, size)
    if unlabelled:
        return replace(chip, truth=None, target=None)
    return replace(chip, truth=None, target=_presence(chip)) if presence else chip


def _keep(kept: dict[str, Chip], name: str, chip: Chip, most: int = KEPT_BYTES) -> None:
    """Holds a sample as long as so many bytes are not full."""
    if (len(kept) + 1) * (4 * len(chip.pixels) + 2) * chip.pixels[0].size <= most:
        kept[name] = chip


def _unfit(chip: Chip, window: Window, size: int) -> str:
    """Why a square of `size` is no use without labels; what lies outside its chip was not observed."""
    return unfit(chip.pixels[:, *window.slices], chip.valid[window.slices], LEAST_SEEN * size**2)


def _presence(chip: Chip) -> int:
    """Whether any pixel is known to be hazard; of points, what the chip itself is labelled."""
    if chip.target is not None:
        return int(np.any(np.asarray(chip.target)))
    assert chip.truth is not None
    return int((chip.truth[chip.labelled] == 1).any())


def _side(shape: tuple[int, int]) -> int:
    return min(MOST_PX, -(-max(shape) // MULTIPLE_OF) * MULTIPLE_OF)


def _refuse_larger(chip: Chip, size: int) -> None:
    if max(chip.shape) > size:
        what = f"{chip.name} is {chip.shape} px and has one label, which its parts of {size} px need not have"
        raise InputRefusedError(what, repair="give chips.size of the largest chip at least", code="chip-sizes")


def narrowed(chip: Chip, bands: tuple[str, ...], codes: U8) -> Chip:
    """The chip with these bands alone, its truth recoded."""
    if lacking := [b for b in bands if b not in chip.bands]:
        what = f"{chip.name} has no band {', '.join(lacking)} (it has {', '.join(chip.bands)})"
        raise InputRefusedError(what, repair="leave it out of the inputs", code="band-missing")
    rows, of = [chip.bands.index(b) for b in bands], units(chip)
    unit = tuple(of[i] for i in rows)
    pixels = chip.pixels[rows]
    truth = None if chip.truth is None else codes[chip.truth]
    return replace(chip, pixels=pixels, valid=np.asarray(np.isfinite(pixels).all(axis=0)), truth=truth, bands=bands,
                   unit=unit[0] if len(set(unit)) == 1 else unit)  # fmt: skip


def _square(chip: Chip, window: Window, size: int) -> Chip:
    """A window of a chip, grown to a square of `size` with nothing observed."""
    pixels = np.full((len(chip.pixels), size, size), np.nan, np.float32)
    valid, truth = np.zeros((size, size), bool), np.full((size, size), UNKNOWN, np.uint8)
    within = np.s_[: window.height, : window.width]
    pixels[:, *within], valid[within] = chip.pixels[:, *window.slices], chip.valid[window.slices]
    if chip.truth is not None:
        truth[within] = chip.truth[window.slices]
    return replace(chip, pixels=pixels, valid=valid, truth=truth, window=None)
