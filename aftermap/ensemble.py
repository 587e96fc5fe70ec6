"""Several networks, or one that sees the image turned, as one scorer: their mean probability, and how far they lie apart.

After Lakshminarayanan et al. 2017 (deep ensembles: the mean of the members' probabilities) and, for the flips, Krizhevsky et al.
2012 (test-time augmentation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import lcm
from typing import TYPE_CHECKING, Any

import numpy as np

from aftermap import engine
from aftermap.card import Card
from aftermap.engine import ENGINE_MB, Network
from aftermap.errors import UsageError
from aftermap.journal import digest
from aftermap.since import Since
from aftermap.transfer import Transferred

if TYPE_CHECKING:
    from aftermap.calibration import Calibration
    from aftermap.scene import Scene
    from aftermap.scorer import F32, Bool, LayerBands, Scorer

Member = Network | Since | Transferred

MEMBER_MB = 25
"""What the engine takes for each further network beside its weights and values: measured 12 to 20 (OpenVINO 2026.4.1)."""
FLIPS: tuple[tuple[int, ...], ...] = ((), (-2,), (-1,), (-2, -1))
"""Axes that the image is turned along: as it is, up-down, left-right, both."""


@dataclass(frozen=True)
class Ensemble:
    """A method and scorer of its members' hazard; the plain fields are what run.json records of it."""

    name: str
    flips: bool
    """Whether each member scores the image four times, turned as FLIPS has it."""
    threshold: float
    """Of the mean probability, where hazard begins: the mean of the members', so that they are above it by as much as below."""
    sha256: str
    """Over those of the members, in their order."""
    members: tuple[Member, ...] = field(repr=False)

    @property
    def calibration(self) -> Calibration | None:
        """None: a mean of several is a new score, and nothing calibrates it."""
        return None

    @property
    def card(self) -> Card:
        """The first member's; it may lead where each of them may."""
        cards = [one.card for one in self.members]
        why = "; ".join(dict.fromkeys(f"{one.name}: {one.why}" for one in cards if one.why))
        return replace(cards[0], leads=all(one.leads for one in cards), why=why, threshold=self.threshold, calibration=None)

    @property
    def inputs(self) -> tuple[LayerBands, ...]:
        """The same for all members."""
        return self.members[0].inputs

    @property
    def classes(self) -> tuple[str, ...]:
        """The same for all members."""
        return self.members[0].classes

    @property
    def halo_px(self) -> int:
        """The largest of the members."""
        return max(one.halo_px for one in self.members)

    @property
    def multiple_of(self) -> int:
        """Serves every member."""
        return lcm(*(one.multiple_of for one in self.members))

    @property
    def spreads(self) -> int:
        """How many scores the spread is over: members, each as often as it sees the image."""
        return len(self.members) * len(self._turns)

    def why_not(self, scene: Scene) -> str:
        """Of the first member that cannot run."""
        return next((why for one in self.members if (why := one.why_not(scene))), "")

    def memory_mb(self, tile: tuple[int, int], threads: int) -> float:
        """Of all members, whose graphs keep their values while another is at work, and of the mean and the deviations."""
        height, width = (-(-side // self.multiple_of) * self.multiple_of for side in tile)
        planes = 4 * (len(self.classes) + 1) + sum(len(one.bands) for one in self.inputs)
        own = sum(one.memory_mb(tile, threads) - ENGINE_MB + MEMBER_MB for one in self.members)
        return ENGINE_MB - MEMBER_MB + own + 4e-6 * threads * planes * height * width

    def release(self) -> None:
        """Of all members."""
        for one in self.members:
            one.release()

    def prepare(self, scene: Scene) -> Scorer:
        """Itself, with every member prepared."""
        return self.each(lambda one: one.prepare(scene))

    def each(self, change: Callable[[Any], Any]) -> Ensemble:
        """Itself with what becomes of each member."""
        return replace(self, members=tuple(change(one) for one in self.members))

    def __call__(self, pixels: F32, valid: Bool) -> F32:
        """Scores (n, class + 1, y, x): the mean of each class, of the hazard 0.5 at the threshold, and last the spread of the
        hazard's probability, a standard deviation in [0, 0.5]."""
        every = self._scores(pixels, valid)
        mean = next(every).copy()
        squares = np.zeros_like(mean[:, :1])
        for count, scores in enumerate(every, start=2):  # Welford 1962: those that agree lose no bit, and have no deviation
            apart = scores - mean
            mean += apart / np.float32(count)
            squares += apart[:, :1] * (scores - mean)[:, :1]
        spread = np.sqrt(np.maximum(squares, 0) / np.float32(self.spreads))
        lead = _centred(np.clip(mean[:, :1], 0, 1), self.threshold)
        return np.concatenate([lead, np.clip(mean[:, 1:], 0, 1), np.minimum(spread, 0.5)], axis=1).astype(np.float32)

    def _scores(self, pixels: F32, valid: Bool) -> Iterator[F32]:
        """Probabilities (n, class, y, x) of each member and turn, laid as the image is."""
        for turn in self._turns:
            turned, seen = np.ascontiguousarray(np.flip(pixels, turn)), np.ascontiguousarray(np.flip(valid, turn))
            for one in self.members:
                yield np.flip(one(turned, seen), turn)

    @property
    def _turns(self) -> tuple[tuple[int, ...], ...]:
        return FLIPS if self.flips else FLIPS[:1]


def _centred(scores: F32, threshold: float) -> F32:
    """As a network's own are (engine.py)."""
    return scores if threshold == 0.5 else np.interp(scores, [0, threshold, 1], [0, 0.5, 1]).astype(np.float32)


def of(name: str, members: Sequence[Member], *, flips: bool) -> Ensemble:
    """Raises UsageError ("ensemble-unlike") where two members read or find different things."""
    first = members[0]
    for n, one in enumerate(members[1:], start=2):
        for what, mine, other in (("reads", _reads(first), _reads(one)), ("finds", _finds(first), _finds(one))):
            if mine != other:
                raise UsageError(
                    f"model 1, {first.name}, {what} {mine}, and model {n}, {one.name}, {what} {other}",
                    repair="give models of the same bands, units and classes, or map with one after the other",
                    code="ensemble-unlike",
                )
    threshold = sum(_threshold(one) for one in members) / len(members)
    key = digest([one.sha256 for one in members])
    return Ensemble(name, flips, threshold, key, tuple(_plain(one) for one in members))


def _reads(member: Member) -> str:
    return " and ".join(f"{one.layer} {', '.join(one.bands)} in {one.unit}" for one in member.inputs)


def _finds(member: Member) -> str:
    return ", ".join(member.classes)


def _threshold(member: Member) -> float:
    """Of its probability; the scores of the other kinds begin at 0.5 by themselves."""
    return member.card.threshold if isinstance(member, Network) else 0.5


def _plain(member: Member) -> Member:
    """A network that gives its probability as it is: the mean of them is bent, and not each for itself."""
    return replace(member, card=replace(member.card, threshold=0.5)) if isinstance(member, Network) else member


def facts(found: Ensemble | Member) -> dict[str, Any]:
    """What determines pixels, of a network (engine.facts), or of an ensemble and every member."""
    if not isinstance(found, Ensemble):
        return engine.facts(found if isinstance(found, Network) else found.network)
    members = [{"name": one.name, **facts(one)} for one in found.members]
    return {
        "sha256": found.sha256, "flips": found.flips, "threshold": found.threshold, "leads": found.card.leads,
        "why": found.card.why, "members": members,
    }  # fmt: skip
