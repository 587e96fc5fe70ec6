"""Bidirectional adaptation of a model folder to unlabelled pictures, crops and source brought to where it was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aftermap.adapt.bidirectional import Adapted, Bidirectional, adapt
from aftermap.adapt.crops import Picture, Place, crops
from aftermap.batches import Batches
from aftermap.errors import UsageError
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


def teach(
    folder: Path, pictures: Sequence[Picture], shots: int, settings: Mapping[str, Any], source: Source | None, *, seed: int
) -> tuple[Adapted, list[Place]]:
    """The network of a folder, adapted to crops of pictures that are on its level; `settings` as of Bidirectional.

    Without a source nothing is replayed. Raises the errors of `adapt`, UsageError ("no-chips", "usage").
    """
    model, card = load(folder)
    taken = list(crops(pictures, shots, seed, side=SIDE_PX))
    known = {"precision": fast_precision(), "seed": seed, **({} if source else {"replay": 0.0}), **settings}
    if "arms" in known:
        known["arms"] = tuple(known["arms"])
    try:
        how = Bidirectional(**known)
    except TypeError as error:
        raise UsageError(f"the settings of the adaptation are {dict(settings)}: {error}", repair="see docs/adapt.md") from error
    own = of_card(card)
    target = [(own.apply(crop.pixels), np.asarray(np.isfinite(crop.pixels).all(axis=0))) for crop in taken]
    batches = validation = None
    if source is not None:
        normaliser = source.samples.normaliser
        batches, validation = (source.batches(side, normaliser, how.batch, seed) for side in ("train", "validation"))
    loss = Sum(source.losses) if source else None
    return adapt(model, target, batches, loss, how, source_validation=validation), [crop.place for crop in taken]
