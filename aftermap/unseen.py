"""A trained network on targets that it never saw, as it is and adapted to a few of their images without labels.

What is kept of each image is counts by truth: of scores by their log odds, and of their percentiles within the image. Every
threshold and every metric is worked out from those (unseen_table.py).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from aftermap import bandmaps, cuts
from aftermap.adapt.crops import Picture, Place, crops
from aftermap.adapt.decide import SHOTS, depends
from aftermap.adapt.norm import Adaptation, adapted
from aftermap.ahead import ahead
from aftermap.bandmaps import BandMap
from aftermap.card import Card
from aftermap.chips import F32, Chip
from aftermap.datasets.dataset import Dataset, open_dataset
from aftermap.engine import Network
from aftermap.errors import InputRefusedError
from aftermap.journal import digest, write_json
from aftermap.normalise import fit, of_card
from aftermap.recipe import Adapt, Target
from aftermap.scored import read_arrays, write_arrays
from aftermap.tiles import Window
from aftermap.transfer import reads_pictures
from aftermap.untrained import Untrained

if TYPE_CHECKING:
    from aftermap.adapt.teach import Source

FACTS, CLASSICAL = "facts.json", "classical.npz"
RANKS = 200
"""Steps of percentiles within an image."""
ROUND_PX = 64
"""Sides of images are filled up to a multiple, so that pictures of any size need few graphs."""


@dataclass(frozen=True, eq=False)
class Counted:
    """What a method came to on every image of a target, pixels by truth."""

    names: tuple[str, ...]
    events: tuple[str, ...]
    odds: npt.NDArray[np.int64] = field(repr=False)
    """(image, 2, cuts.COARSE): by log odds of the score."""
    ranks: npt.NDArray[np.int64] = field(repr=False)
    """(image, 2, RANKS): by how many of the RANKS percentiles from 0 on (0, 0.5 ... 99.5) of its image a score lies above."""

    def write(self, path: Path) -> None:
        """As npz; plain arrays, which are read without unpickling."""
        write_arrays(path, names=np.asarray(self.names), events=np.asarray(self.events), odds=self.odds, ranks=self.ranks)

    @classmethod
    def read(cls, path: Path) -> Counted:
        """Raises InputRefusedError ("scores-broken")."""
        names, events, odds, ranks = read_arrays(path, "names", "events", "odds", "ranks")
        return cls(tuple(names.tolist()), tuple(events.tolist()), odds, ranks)


@dataclass(frozen=True)
class Images:
    """The images of a target, mapped onto the bands of a network, with their truth for scoring alone."""

    dataset: Dataset
    names: tuple[str, ...]
    band_map: BandMap | None
    """None: as they are."""
    hazard: str
    settings: Mapping[str, Any]
    """How the data set was opened."""

    @classmethod
    def of(cls, target: Target, folder: Path, card: Card) -> Images:
        """Those with known truth that a network can read. Raises InputRefusedError ("band-missing")."""
        dataset = open_dataset(folder, target.data.kind, **target.data.settings)
        own = [(one.layer, one.unit, band) for one in card.inputs for band in one.bands]
        has = {("after", unit, band) for unit, band in zip(dataset.units, dataset.bands, strict=True)}
        fits = target.band_map == "auto" and set(own) <= has
        if not fits and not reads_pictures(card):
            what = f"the model {card.name} reads {card.reads}, and the target has {', '.join(dataset.bands)} in {dataset.unit}"
            raise InputRefusedError(what, repair="take a model of pictures of three bands", code="model-input")
        band_map = None if fits else bandmaps.of_bands(dataset.bands, str(dataset.unit), target.band_map)
        return cls(dataset, tuple(_some(dataset, target.most)), band_map, target.hazard, target.data.settings)

    @property
    def sha256(self) -> str:
        """Of what is scored, but for pixels."""
        how = self.band_map.name if self.band_map else ""
        return digest([self.dataset.name, dict(self.settings), self.hazard, self.names, how])

    def pixels(self, chip: Chip, bands: Sequence[str]) -> F32:
        """(band, y, x) as a network of those bands reads them, NaN where not valid."""
        wanted = self.band_map.reads.bands if self.band_map else bands
        own = np.where(chip.valid, chip.pixels, np.float32(np.nan))[[chip.bands.index(band) for band in wanted]]
        return self.band_map(own[None])[0] if self.band_map else own

    def pictures(self, network: Network) -> list[Picture]:
        """The same without truth, on the network's level, for adaptation."""
        bands = _bands(network)

        def read(name: str, window: Window) -> F32:
            pixels = _levelled(network, self.pixels(self.dataset.read(name), bands))
            return np.asarray(pixels[:, *window.slices])

        return [Picture(name, shape, partial(read, name)) for name, shape in self._shapes.items()]

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, int]]:
        """From one pass, for every adaptation."""
        return {name: self.dataset.read(name).shape for name in self.names}


def _some(dataset: Dataset, most: int) -> Iterator[str]:
    """All, or of each event at most so many, evenly spread."""
    for event in dataset.events:
        names = dataset.ids(events=[event])
        places = np.linspace(0, len(names) - 1, min(most or len(names), len(names)))
        yield from (names[k] for k in np.unique(places.round().astype(int)))


def score(network: Network, images: Images) -> Counted:
    """Every image that has a pixel with known truth."""
    bands, found = _bands(network), []

    def one(name: str) -> tuple[Chip, F32]:
        chip = images.dataset.read(name)
        return chip, _scores(network, _levelled(network, images.pixels(chip, bands)))

    for chip, scores in ahead(one, list(images.names), workers=2):
        if (counts := _count(chip, scores)) is not None:
            found.append((chip.name, chip.event, *counts))
    return _joined(found)


def without_training(images: Images) -> Counted:
    """What the methods without training make of the same images; an image that none takes scores 0 all over."""
    untrained, found = Untrained(images.hazard), []
    for name in images.names:
        chip = images.dataset.read(name)
        if (counts := _count(chip, np.nan_to_num(untrained(chip)))) is not None:
            found.append((chip.name, chip.event, *counts))
    return _joined(found)


def _joined(found: Sequence[tuple[Any, ...]]) -> Counted:
    if not found:
        raise InputRefusedError("no image of the target has known truth", repair="give another --target", code="no-chips")
    names, events, odds, ranks = zip(*found, strict=True)
    return Counted(names, events, np.stack(odds), np.stack(ranks))


def _count(chip: Chip, scores: F32) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    """Counts (2, bin) and (2, rank) of its labelled pixels, by percentiles of every valid one; None where nothing is known."""
    known, seen = chip.labelled, scores[chip.valid]
    if not known.any():
        return None
    assert chip.truth is not None
    edges = np.percentile(seen, np.arange(RANKS) * (100 / RANKS))
    rank = np.maximum(np.searchsorted(edges, scores[known], side="left") - 1, 0)
    truth, level = chip.truth[known] > 0, cuts.levels(scores[known], cuts.COARSE)
    odds = [np.bincount(level[truth == actual], minlength=cuts.COARSE) for actual in (False, True)]
    ranks = [np.bincount(rank[truth == actual], minlength=RANKS) for actual in (False, True)]
    return np.stack(odds), np.stack(ranks)


def _bands(network: Network) -> list[str]:
    return [band for one in network.inputs for band in one.bands]


def _levelled(network: Network, pixels: F32) -> F32:
    """Each image on the card's level, where it asks for that."""
    if network.card.normalise == "all":
        return pixels
    valid = np.asarray(np.isfinite(pixels).all(axis=0))
    if not valid.any():
        return pixels
    reference = of_card(network.card)
    own = fit([Chip(pixels, valid, None, reference.bands, reference.unit, "")])
    return np.where(valid, reference.invert(own.apply(pixels)), np.float32(np.nan))


def _scores(network: Network, pixels: F32) -> F32:
    """(y, x) of an image, 0 where it was not observed; what was, is filled up by reflection."""
    scores, valid = np.zeros(pixels.shape[1:], np.float32), np.asarray(np.isfinite(pixels).all(axis=0))
    if not valid.any():
        return scores
    at = tuple(slice(int(one[0]), int(one[-1]) + 1) for one in (np.flatnonzero(valid.any(axis=axis)) for axis in (1, 0)))
    part = pixels[:, *at]
    height, width = part.shape[1:]
    filled = np.pad(part, ((0, 0), (0, -height % ROUND_PX), (0, -width % ROUND_PX)), mode="reflect")
    scores[at] = network(filled[None], np.asarray(np.isfinite(filled).all(axis=0))[None])[0, 0, :height, :width]
    return scores


@dataclass(frozen=True)
class Variant:
    """A network as it is scored: from the source, or adapted to k crops."""

    method: str
    """ "source", "untrained", or an adaptation."""
    shots: int = 0
    crops: int = 0
    """As many as there were."""
    words: str = ""
    pictures: tuple[str, ...] = ()
    """Those that the crops are of."""

    @property
    def name(self) -> str:
        """As its file."""
        return f"{self.method}-{self.shots}" if self.shots else self.method


Made = AbstractContextManager[tuple[Network, Variant]]


def run(
    model: Path, first: Path, target: Target, data: Path, adapts: Sequence[Adapt], out: Path, shared: Path, *, seed: int,
    source: Callable[[], Source] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Scores the model of a folder, its first weights and its adaptations on a target; what is there is not scored again.

    `first` is the folder of the network before training, `source` what it was trained on; `shared` holds what no seed changes.
    """
    network = Network.open(model)
    images = Images.of(target, data, network.card)
    known = Known(out, digest([Card.read(model).sha256, images.sha256, seed]))
    known.once("source", lambda: nullcontext((network, Variant("source"))), images)
    known.once("untrained", lambda: nullcontext((Network.open(first), Variant("untrained"))), images)
    for adapt in adapts:
        for shots in adapt.shots:
            how = partial(_estimated, network) if adapt.method == "bn" else partial(_taught, network, source)
            known.once(f"{adapt.label}-{shots}", partial(how, images, adapt, shots, seed), images)
    beside = shared / images.sha256[:12]
    if not (beside / CLASSICAL).is_file():
        beside.mkdir(parents=True, exist_ok=True)
        without_training(images).write(beside / CLASSICAL)
    if "auto" not in known.facts:
        known.facts["auto"] = depends([c.pixels for c in crops(images.pictures(network), SHOTS, seed)])[0]
    return known.rows(beside)


def _estimated(network: Network, images: Images, adapt: Adapt, shots: int, seed: int) -> Made:
    """Batch norm estimated anew, through the engine."""
    own = crops(images.pictures(network), shots, seed, multiple_of=network.multiple_of)
    found, taken = adapted(network, own, Adaptation(shots, adapt.mode, adapt.momentum, seed=seed))
    return nullcontext((found, Variant(adapt.label, shots, len(taken), found.adapted, _names(taken))))


@contextmanager
def _taught(
    network: Network, source: Callable[[], Source] | None, images: Images, adapt: Adapt, shots: int, seed: int
) -> Iterator[tuple[Network, Variant]]:
    """Bidirectional, in torch; exported as the source was."""
    from aftermap.adapt.teach import teach
    from aftermap.model import save

    found, taken = teach(network.folder, images.pictures(network), shots, adapt.settings, source() if source else None, seed=seed)
    last = found.history[-1] if found.history else {}
    words = f"{found.iterations} iterations{f', stopped: {found.stopped}' if found.stopped else ''}; {last}"
    with TemporaryDirectory(prefix="aftermap-adapted-") as folder:
        save(Path(folder), found.model, replace(network.card, calibration=None, scores=(), sha256={}))
        yield (
            Network.open(Path(folder), precision=network.precision),
            Variant(adapt.label, shots, len(taken), words, _names(taken)),
        )


def _names(taken: Sequence[Place]) -> tuple[str, ...]:
    return tuple(sorted({place.picture for place in taken}))


@dataclass
class Known:
    """The scored variants of one model on one target, in a folder."""

    folder: Path
    key: str
    """Of what determines them, but for how they are adapted, which is in their names."""
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        path = self.folder / FACTS
        found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        self.facts = dict(found) if found.get("key") == self.key else {"key": self.key, "variants": {}}
        self.folder.mkdir(parents=True, exist_ok=True)

    def once(self, name: str, make: Callable[[], Made], images: Images) -> None:
        """Scores a variant that is not there."""
        if name in self.facts["variants"]:
            return
        began = time.perf_counter()
        with make() as (network, variant):
            made = time.perf_counter()
            score(network, images).write(self.folder / f"{name}.npz")
            network.release()
        seconds = {"adapting_s": round(made - began, 1), "scoring_s": round(time.perf_counter() - made, 1)}
        self.facts["variants"][name] = asdict(variant) | seconds
        write_json(self.folder / FACTS, self.facts)

    def rows(self, beside: Path) -> list[dict[str, Any]]:
        """One for each variant."""
        self.facts["classical"] = os.path.relpath(beside / CLASSICAL, self.folder)
        write_json(self.folder / FACTS, self.facts)
        return [{"variant": name, **facts} for name, facts in self.facts["variants"].items()]
