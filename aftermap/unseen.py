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
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from aftermap import arrays, cuts
from aftermap.adapt.crops import Place, crops
from aftermap.adapt.decide import SHOTS, depends
from aftermap.adapt.norm import Adaptation, adapted
from aftermap.ahead import ahead
from aftermap.card import Card
from aftermap.chips import F32, Chip
from aftermap.engine import Network
from aftermap.errors import InputRefusedError
from aftermap.journal import digest, write_json
from aftermap.page import Adapt, Target
from aftermap.scored import read_arrays
from aftermap.targets import Images
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
        arrays.write(path, names=np.asarray(self.names), events=np.asarray(self.events), odds=self.odds, ranks=self.ranks)

    @classmethod
    def read(cls, path: Path) -> Counted:
        """Raises InputRefusedError ("scores-broken")."""
        names, events, odds, ranks = read_arrays(path, "names", "events", "odds", "ranks")
        return cls(tuple(names.tolist()), tuple(events.tolist()), odds, ranks)


def score(networks: Sequence[Network], images: Images) -> list[Counted]:
    """Every image that has a pixel with known truth, by the mean of the networks; then, of several, by each."""
    found: list[list[tuple[Any, ...]]] = [[] for _ in range(len(networks) + 1 if len(networks) > 1 else 1)]

    def one(name: str) -> tuple[Chip, list[F32]]:
        chip = images.dataset.read(name)
        return chip, [_scores(network, images.levelled(network, chip)) for network in networks]

    for chip, scores in ahead(one, list(images.names), workers=2):
        each = [np.asarray(np.mean(scores, axis=0, dtype=np.float32)), *scores]
        for rows, mine in zip(found, each, strict=False):
            if (counts := _count(chip, mine)) is not None:
                rows.append((chip.name, chip.event, *counts))
    return [_joined(rows) for rows in found]


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


Made = AbstractContextManager[tuple[Sequence[Network], Variant]]


def run(
    models: Sequence[Path], firsts: Sequence[Path], target: Target, data: Path, adapts: Sequence[Adapt], out: Path, shared: Path,
    *, seed: int, source: Callable[[], Source] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Scores the models of some folders together, their first weights and their adaptations on a target; what is there is not
    scored again.

    `firsts` are the folders of the networks before training, `source` what they were trained on; `shared` holds what no seed
    changes.
    """
    networks = [Network.open(model) for model in models]
    images = Images.of(target, data, networks[0].card)
    known = Known(out, digest([*(Card.read(m).sha256 for m in models), images.sha256, seed]), _told_apart(networks))
    known.once("source", lambda: nullcontext((networks, Variant("source"))), images)
    if networks[0].card.normalise == "per_domain":
        known.once("unseparated", lambda: nullcontext((list(map(_unseparated, networks)), Variant("unseparated"))), images)
    known.once("untrained", lambda: nullcontext(([Network.open(f) for f in firsts], Variant("untrained"))), images)
    for adapt in adapts:
        if adapt.method == "self-train":
            _refined(networks, source, images, adapt, seed, known)
            continue
        for shots in adapt.shots:
            how = partial(_estimated, networks) if adapt.method == "bn" else partial(_taught, networks, source)
            known.once(f"{adapt.label}-{shots}", partial(how, images, adapt, shots, seed), images)
    beside = shared / images.sha256[:12]
    if not (beside / CLASSICAL).is_file():
        beside.mkdir(parents=True, exist_ok=True)
        without_training(images).write(beside / CLASSICAL)
    if "auto" not in known.facts:
        known.facts["auto"] = depends([c.pixels for c in crops(images.pictures(networks[0]), SHOTS, seed)])[0]
    return known.rows(beside)


def _told_apart(networks: Sequence[Network]) -> tuple[str, ...]:
    """A name for each of several."""
    return tuple(f"{k}-{one.card.encoder}" for k, one in enumerate(networks)) if len(networks) > 1 else ()


def _unseparated(network: Network) -> Network:
    """Without separated normalisation: on the level of the source."""
    return replace(network, card=replace(network.card, normalise="all"))


def _estimated(networks: Sequence[Network], images: Images, adapt: Adapt, shots: int, seed: int) -> Made:
    """Batch norm estimated anew, through the engine."""
    found: list[Network] = []
    taken: list[Place] = []
    for network in networks:
        own = crops(images.pictures(network), shots, seed, multiple_of=network.multiple_of)
        one, taken = adapted(network, own, Adaptation(shots, adapt.mode, adapt.momentum, seed=seed))
        found.append(one)
    return nullcontext((found, Variant(adapt.label, shots, len(taken), found[0].adapted, _names(taken))))


@contextmanager
def _taught(
    networks: Sequence[Network], source: Callable[[], Source] | None, images: Images, adapt: Adapt, shots: int, seed: int
) -> Iterator[tuple[Sequence[Network], Variant]]:
    """Bidirectional, in torch."""
    from aftermap.adapt.teach import teach

    words, models = [], []
    for network in networks:
        found, taken = teach(
            network.folder, images.pictures(network), shots, adapt.settings, source() if source else None, seed=seed
        )
        last = found.history[-1] if found.history else {}
        words.append(f"{found.iterations} iterations{f', stopped: {found.stopped}' if found.stopped else ''}; {last}")
        models.append(found.model)
    with _exported(networks, models) as opened:
        yield opened, Variant(adapt.label, shots, len(taken), "; ".join(words), _names(taken))


def _refined(
    networks: Sequence[Network], source: Callable[[], Source] | None, images: Images, adapt: Adapt, seed: int, known: Known
) -> None:
    """Self-training, each round a variant; in torch, gone on with where it was cut short."""
    from aftermap.adapt.teach import refine

    for shots in adapt.shots or (0,):
        label = f"{adapt.label}-{shots}" if shots else adapt.label
        if label in known.facts.setdefault("ended", {}):
            continue
        last = 0
        rounds = refine(
            [network.folder for network in networks],
            images.pictures(networks[0]),
            shots,
            adapt.arguments,
            source() if source else None,
            known.folder / label,
            seed=seed,
        )
        for found, taken in rounds:
            about = Variant(f"{label}-round-{found.number}", 0, len(taken), json.dumps(dict(found.row)), _names(taken))
            known.once(about.name, partial(_as_round, networks, found.models, about), images)
            last = found.number
        known.facts["ended"][label] = last
        write_json(known.folder / FACTS, known.facts)


@contextmanager
def _as_round(networks: Sequence[Network], models: Sequence[Any], about: Variant) -> Iterator[tuple[Sequence[Network], Variant]]:
    with _exported(networks, models) as opened:
        yield opened, about


@contextmanager
def _exported(networks: Sequence[Network], models: Sequence[Any]) -> Iterator[list[Network]]:
    """Models of torch in place of networks, for a while, in the precision of those."""
    from aftermap.model import save

    with TemporaryDirectory(prefix="aftermap-adapted-") as folder:
        opened = []
        for place, (network, model) in enumerate(zip(networks, models, strict=True)):
            own = Path(folder) / str(place)
            save(own, model, replace(network.card, calibration=None, scores=(), sha256={}))
            opened.append(Network.open(own, precision=network.precision))
        yield opened


def _names(taken: Sequence[Place]) -> tuple[str, ...]:
    return tuple(sorted({place.picture for place in taken}))


@dataclass
class Known:
    """The scored variants of one model on one target, in a folder."""

    folder: Path
    key: str
    """Of what determines them, but for how they are adapted, which is in their names."""
    members: tuple[str, ...] = ()
    """Names of several networks, each of which is also scored by itself."""
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
        with make() as (networks, variant):
            made = time.perf_counter()
            for scored, of in zip(score(networks, images), ("", *self.members), strict=True):
                scored.write(self.folder / f"{_of(name, of)}.npz")
            for network in networks:
                network.release()
        seconds = {"adapting_s": round(made - began, 1), "scoring_s": round(time.perf_counter() - made, 1)}
        for of in ("", *self.members):
            self.facts["variants"][_of(name, of)] = asdict(variant) | seconds
        write_json(self.folder / FACTS, self.facts)

    def rows(self, beside: Path) -> list[dict[str, Any]]:
        """One for each variant."""
        self.facts["classical"] = os.path.relpath(beside / CLASSICAL, self.folder)
        write_json(self.folder / FACTS, self.facts)
        return [{"variant": name, **facts} for name, facts in self.facts["variants"].items()]


def _of(variant: str, member: str) -> str:
    return f"{variant}.{member}" if member else variant
