"""What a network knows, known.npz: embeddings of chips that it was trained on, and of chips that chose its checkpoint.

A new chip is compared with the first; how far chips lie from them that are no news to the network, the second tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aftermap import arrays
from aftermap.card import KNOWN, Card
from aftermap.distances import conformal, nearest
from aftermap.engine import Network
from aftermap.errors import InputRefusedError
from aftermap.journal import sha256

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

MOST = {"train": 512, "validation": 256}
"""Chips of each side that are kept."""
LEAST_SEEN = 0.9
"""Of a chip, to be judged or compared with."""
_LARGEST = float(np.finfo(np.float16).max)
_DRAW = 2
"""Apart from what else the seed draws."""


@dataclass(frozen=True, eq=False)
class Known:
    """Embeddings of chips of `chip_px` on a side."""

    train: F32
    """(n, d)."""
    validation: F32
    """(m, d)."""
    chip_px: int

    @classmethod
    def of(cls, folder: Path, card: Card) -> Known | None:
        """Of a model folder; None where its card names none, or it is not there. Raises InputRefusedError ("card-invalid")."""
        path = folder / KNOWN
        if KNOWN not in card.sha256 or not path.is_file():
            return None
        try:
            train, validation, side = arrays.read(path, "train", "validation", "chip_px")
            found = cls(train.astype(np.float32), validation.astype(np.float32), int(side))
        except (*arrays.BROKEN, TypeError) as error:
            raise _refused(path, str(error)) from error
        if not (found.train.ndim == found.validation.ndim == 2) or found.train.shape[1] != found.validation.shape[1]:
            raise _refused(path, f"they are {found.train.shape} and {found.validation.shape}")
        if not len(found.train) or not len(found.validation) or found.chip_px < 1:
            raise _refused(path, f"there are {len(found.train)} and {len(found.validation)} of chips of {found.chip_px} px")
        return found

    def write(self, folder: Path, card: Card) -> Card:
        """Beside the graph; gives the card, written anew, that names it."""
        kept = (np.clip(one, -_LARGEST, _LARGEST).astype(np.float16) for one in (self.train, self.validation))
        arrays.write(folder / KNOWN, **dict(zip(("train", "validation"), kept, strict=True)), chip_px=np.array(self.chip_px))
        named = replace(card, sha256={**card.sha256, KNOWN: sha256(folder / KNOWN)})
        named.write(folder)
        return named

    def distances(self, embeddings: F32) -> F64:
        """Of chips (n, d) from what was trained on (n,)."""
        return nearest(embeddings, self.train)

    def familiarity(self, embeddings: F32) -> F64:
        """Conformal p (n,) of chips (n, d): the share of validation chips that lie at least as far from training as each does."""
        return conformal(self.distances(embeddings), self._usual)

    @cached_property
    def _usual(self) -> F64:
        return nearest(self.validation, self.train)


def _refused(path: Path, why: str) -> InputRefusedError:
    repair = "train or bundle the model again, or take the file out of its card"
    return InputRefusedError(f"{path} does not hold the embeddings of chips: {why}", repair=repair, code="card-invalid")


def drawn(names: Sequence[str], side: str, seed: int) -> list[str]:
    """At most MOST of the chips of a side, each as likely, in the order given."""
    order = np.random.default_rng([seed, _DRAW, len(side)]).permutation(len(names))[: MOST[side]]
    return [names[k] for k in sorted(order)]


def seen(chip: F32) -> bool:
    """Whether enough of pixels (band, y, x), NaN where not observed, is ground: fill is far from everything."""
    return bool(np.isfinite(chip).all(axis=0).mean() >= LEAST_SEEN)


def keep(network: Network, train: Iterable[F32], validation: Iterable[F32], chip_px: int) -> Card:
    """Embeds chips (band, y, x) as the graph wants them, and writes what the network knows; its card as it is now, which names
    nothing new where no chip of a side was seen."""
    found = [[network.embeddings(chip[None]) for chip in chips if seen(chip)] for chips in (train, validation)]
    if not all(found):
        return network.card
    train_side, validation_side = (np.concatenate(side) for side in found)
    return Known(train_side, validation_side, chip_px).write(network.folder, network.card)
