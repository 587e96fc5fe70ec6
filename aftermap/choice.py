"""Which methods run on a scene, which of them make the map, and why: in words, for the record.

Where radar and optical images of a date are there, the first method of each kind makes the map together with the other. Of the
ways that benchmarks/fusion.py compares, only the mean of these two is better than either alone on OMBRIA, on Sen1Floods11 and
on simulated floods; docs/methods.md has the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aftermap import calibration, pieces
from aftermap.beside import kind_of
from aftermap.calibration import UNCALIBRATED, Calibration, Key
from aftermap.errors import InputRefusedError
from aftermap.scene import Scene
from aftermap.scorer import Method, Scorer

_DATES = ("after", "before")


@dataclass(frozen=True)
class Chosen:
    """The methods that run in the order of PIECES, why these, and why the others do not."""

    methods: dict[str, Method]
    why: str
    skipped: dict[str, str]


def choose(scene: Scene, method: str) -> Chosen:
    """Every method the inputs allow, in the order of PIECES, or the one asked for. Raises InputRefusedError when none can."""
    names = list(pieces.PIECES[scene.hazard]) if method == "auto" else [method]
    known: dict[str, Method] = {n: pieces.load(scene.hazard, n)() for n in names}
    reasons = {n: m.why_not(scene) for n, m in known.items()}
    able = {n: m for n, m in known.items() if not reasons[n]}
    skipped = {n: why for n, why in reasons.items() if why}
    if not able:
        said = "; ".join(f"{n}: {why}" for n, why in skipped.items())
        raise InputRefusedError(
            f"no {scene.hazard} method can run on these images ({said})",
            repair="give the band or image that is missing",
            code="band-missing",
        )
    why = "it was asked for" if method != "auto" else f"first in the order {', '.join(names)} that these images allow"
    return Chosen(able, why, skipped)


@dataclass(frozen=True)
class Made:
    """What the map is made of: one method, or several whose likelihoods are averaged."""

    combined: tuple[str, ...]
    why: str
    images: tuple[str, ...]
    """Layers that the combined methods look at."""
    needed: tuple[str, ...]
    """Layers without which none of them sees a pixel: what hides the ground in one of these hides it for the map."""
    calibrations: dict[str, Calibration]

    @property
    def calibration(self) -> str:
        """Of the map's likelihood, in words. The mean of several is a new score, and nothing calibrates it."""
        table = self.calibrations.get(self.combined[0]) if len(self.combined) == 1 else None
        return table.words if table else UNCALIBRATED


def make(scene: Scene, scorers: Mapping[str, Scorer], why: str) -> Made:
    """The map of the first scorer, averaged with the first of each further kind of image that finds the same class.

    Where the firsts find different things, those that find the hazard itself go first.
    """
    seen = {n: scene.seen(i for i in s.inputs if i.layer in _DATES) for n, s in scorers.items()}
    kinds = {n: {kind_of(layer) for layer in layers.values()} for n, layers in seen.items()}
    firsts: list[str] = []
    for name in scorers:
        if all(kinds[name].isdisjoint(kinds[first]) for first in firsts):
            firsts.append(name)
    firsts.sort(key=lambda n: scorers[n].classes[0] != scene.hazard)
    combined = tuple(n for n in firsts if scorers[n].classes == scorers[firsts[0]].classes)
    if len(combined) > 1:
        why = f"mean likelihood, where they observed the ground, of {' and '.join(combined)}: the first for each kind of image"
    elif len(firsts) > 1:
        why = f"{firsts[0]} alone finds {scorers[firsts[0]].classes[0]}, not {scorers[firsts[1]].classes[0]}"
    tables = {
        n: table
        for n, s in scorers.items()
        if len(kinds[n]) == 1 and (table := calibration.find(Key(scene.hazard, n, next(iter(kinds[n])), s.classes[0])))
    }
    images = tuple(dict.fromkeys(k for n in combined for k in seen[n]))
    return Made(combined, why, images, tuple(k for k in images if all(k in seen[n] for n in combined)), tables)
