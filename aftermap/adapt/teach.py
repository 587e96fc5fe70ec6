"""Model folders taught by unlabelled pictures: their crops and their source brought to where the networks were trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from aftermap.adapt.bidirectional import Adapted, Bidirectional, adapt
from aftermap.adapt.crops import Picture, Place, crops
from aftermap.adapt.selftrain import Labelled, Round, SelfTrain, self_train
from aftermap.batches import Batches
from aftermap.chips import Chip
from aftermap.errors import InputRefusedError, UnknownNameError
from aftermap.losses import Sum
from aftermap.model import load
from aftermap.normalise import Normaliser, Separated, of_card
from aftermap.samples import Samples
from aftermap.train import fast_precision

SIDE_PX = 128
"""Of crops: that of the chips that small networks are trained on."""


@dataclass(frozen=True)
class Source:
    """What the network was trained on, and by which losses."""

    samples: Samples
    losses: Mapping[str, float]

    def batches(self, split: str, normaliser: Normaliser | Separated, size: int, seed: int) -> Batches:
        """Of one side, at most as many of those that validate as a look at them may cost."""
        ids = self.samples.ids(split)
        return Batches(self.samples, ids if split == "train" else ids[:LOOKED_AT], normaliser, size, seed=seed)


LOOKED_AT = 64
MOST_OF_EACH = 64
"""Crops of each picture on average, where not told how many: what fits into memory."""


def settings_of(method: str, given: Mapping[str, Any]) -> SelfTrain | Bidirectional:
    """As of SelfTrain or Bidirectional. Raises UnknownNameError, UsageError."""
    kind: Any = SelfTrain if method == "self-train" else Bidirectional
    known = [one.name for one in fields(kind)]
    for name in given:
        if name not in known:
            raise UnknownNameError("setting", name, known)
    made: SelfTrain | Bidirectional = kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
    return made


def refine(
    folders: Sequence[Path], pictures: Sequence[Picture], shots: int, settings: Mapping[str, Any], source: Source | None,
    out: Path, *, seed: int,
) -> Iterator[tuple[Round, list[Place]]]:  # fmt: skip
    """Rounds of self-training of the networks of some folders, which read the same, on crops of pictures on their level.

    `settings` as of SelfTrain; `out` is gone on with. Raises the errors of `self_train`, InputRefusedError ("model-input").
    """
    loaded = [load(folder) for folder in folders]
    card = loaded[0][1]
    for _, other in loaded[1:]:
        if (other.inputs, other.mean, other.std, other.classes) != (card.inputs, card.mean, card.std, card.classes):
            what = f"{card.name} reads {card.reads} and finds {', '.join(card.classes)}, {other.name} something else"
            raise InputRefusedError(what, repair="take models trained on the same data", code="model-input")
    how = settings_of("self-train", {"precision": fast_precision(), "seed": seed, **settings})
    assert isinstance(how, SelfTrain)
    taken = list(crops(pictures, shots or len(pictures) * MOST_OF_EACH, seed, side=source.samples.size if source else SIDE_PX))
    own = of_card(card)
    target = [
        Chip(c.pixels, np.asarray(np.isfinite(c.pixels).all(axis=0)), None, own.bands, own.unit, str(c.place)) for c in taken
    ]
    labelled = Labelled(source.samples, source.samples.normaliser, source.samples.sha256) if source else None
    places = [crop.place for crop in taken]
    yield from ((found, places) for found in self_train([model for model, _ in loaded], target, own, labelled, how, out))


def teach(
    folder: Path, pictures: Sequence[Picture], shots: int, settings: Mapping[str, Any], source: Source | None, *, seed: int
) -> tuple[Adapted, list[Place]]:
    """The network of a folder, adapted to crops of pictures that are on its level; `settings` as of Bidirectional.

    Without a source nothing is replayed. Raises the errors of `adapt`, UsageError ("no-chips", "usage").
    """
    model, card = load(folder)
    taken = list(crops(pictures, shots, seed, side=SIDE_PX))
    known = {"precision": fast_precision(), "seed": seed, **({} if source else {"replay": 0.0}), **settings}
    how = settings_of("bidirectional", known)
    assert isinstance(how, Bidirectional)
    own = of_card(card)
    target = [(own.apply(crop.pixels), np.asarray(np.isfinite(crop.pixels).all(axis=0))) for crop in taken]
    batches = validation = None
    if source is not None:
        normaliser = source.samples.normaliser
        batches, validation = (source.batches(side, normaliser, how.batch, seed) for side in ("train", "validation"))
    loss = Sum(source.losses) if source else None
    return adapt(model, target, batches, loss, how, source_validation=validation), [crop.place for crop in taken]
