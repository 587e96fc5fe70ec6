"""Which methods run on a scene, which of them make the map, and why: in words, for the record.

Where radar and optical images of a date are there, the first method of each kind makes the map together with the other. Of the
ways that benchmarks/fusion.py compares, only the mean of these two is better than either alone on OMBRIA, on Sen1Floods11 and
on simulated floods; docs/methods.md has the numbers. A network runs beside the methods without training, and leads them only
where its card says that real data allow it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aftermap import calibration, card, pieces
from aftermap.beside import kind_of
from aftermap.calibration import UNCALIBRATED, Calibration, Key
from aftermap.card import Card
from aftermap.errors import InputRefusedError, UsageError
from aftermap.scene import Scene
from aftermap.scorer import Method, Scorer

_DATES = ("after", "before")
ENSEMBLE = "ensemble"
"""What several models that run as one are called."""


@dataclass(frozen=True)
class Chosen:
    """The methods that run, those that may lead first, why these, and why the others do not."""

    methods: dict[str, Method]
    why: str
    skipped: dict[str, str]
    beside: str = ""
    """Why others run beside them, in words."""
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Facts of the networks among them (engine.facts)."""
    calibrations: dict[str, Calibration | None] = field(default_factory=dict)
    """Of the networks; the tables of the other methods are found by what they look at."""
    followers: frozenset[str] = frozenset()
    """Networks that run beside others but make no part of the map."""


def choose(
    scene: Scene, method: str, *, model: str | Sequence[str] | None = None, baseline: bool = True, bundled: bool = True,
    lead: bool = False, how: Mapping[str, str] | None = None, cut: tuple[str, str] | None = None, flips: bool = False,
) -> Chosen:  # fmt: skip
    """Every method the inputs allow, in the order of PIECES, or the one asked for; with them the network of a `model` (name or
    folder), or with "auto" the bundled networks of the hazard, unless `bundled` is False; `how` networks run, as Network.open has
    it: precision, engine. With `cut`, a rule and a band map, the model may be of another hazard and sensor (transfer.py).
    Several models, or one with `flips`, run as one (ensemble.py). With `lead` they lead, whatever their cards say.

    Raises InputRefusedError when none can run, or the model cannot; UsageError ("ensemble-unlike").
    """
    models = (model,) if isinstance(model, str) else tuple(model or ())
    if (cut or flips or lead) and not models:
        what = "--cut and --band-map are" if cut else "--flips is" if flips else "--lead is"
        raise UsageError(f"{what} of a model", repair="give --model, or leave them out")
    folders = _folders(scene, models, bundled=method == "auto" and bundled, any_hazard=cut is not None, flips=flips)
    if not baseline and not folders:
        raise UsageError("--no-baseline leaves no method to run", repair="give --model, or leave it out")
    names = [] if not baseline else list(pieces.PIECES[scene.hazard]) if method == "auto" else [method]
    known: dict[str, Method] = {n: pieces.load(scene.hazard, n)() for n in names}
    reasons = {n: m.why_not(scene) for n, m in known.items()}
    lacks = {n: ["" if cut else Card.read(f, compared=False).why_not(scene) for f in parts] for n, parts in folders.items()}
    for asked, why in zip(models, (why for parts in lacks.values() for why in parts), strict=False):
        if why:
            repair = "give the images that it was made for, or another model"
            raise InputRefusedError(f"the model {asked} cannot run on these images: {why}", repair=repair, code="model-input")
    reasons |= {n: next(filter(None, parts), "") for n, parts in lacks.items()}
    skipped = {n: why for n, why in reasons.items() if why}
    classical = {n: m for n, m in known.items() if n not in skipped}
    networks = _opened(scene, {n: f for n, f in folders.items() if n not in skipped}, how or {}, cut, flips)
    if not classical and not networks:
        said = "; ".join(f"{n}: {why}" for n, why in skipped.items())
        raise InputRefusedError(
            f"no {scene.hazard} method can run on these images ({said})",
            repair="give the band or image that is missing",
            code="band-missing",
        )
    why = "it was asked for" if method != "auto" else f"first in the order {', '.join(names)} that these images allow"
    return _ordered(classical, networks, why, skipped, lead=lead)


def _folders(
    scene: Scene, models: Sequence[str], *, bundled: bool, any_hazard: bool, flips: bool
) -> dict[str, tuple[Path, ...]]:  # fmt: skip
    """Model folders by the name of the model: the one asked for, or the bundled ones of the hazard; several as an ensemble."""
    if not models:
        there = card.bundled() if bundled else {}
        return {n: (f,) for n, f in there.items() if Card.read(f, compared=False).hazard == scene.hazard}
    found = [_asked(scene, model, any_hazard=any_hazard) for model in models]
    if len(found) > 1 or flips:
        return {ENSEMBLE: tuple(folder for _, folder in found)}
    ((name, folder),) = found
    return {name: (folder,)}


def _asked(scene: Scene, model: str, *, any_hazard: bool) -> tuple[str, Path]:
    """Name and folder of a model that can make a map. Raises UsageError."""
    folder = card.find(model)
    asked = Card.read(folder)
    if asked.hazard != scene.hazard and not any_hazard:
        raise UsageError(
            f"the model {asked.name} maps {asked.hazard}, not {scene.hazard}",
            repair="give another model, or --cut even to try what it makes of a hazard that it never saw", code="model-hazard",
        )  # fmt: skip
    if asked.gives != "map":
        what = f"the model {asked.name} gives {'an' if asked.gives == 'embedding' else 'a'} {asked.gives} of a whole chip"
        raise UsageError(what, repair="give a model that maps", code="model-hazard")
    if asked.name in pieces.PIECES[scene.hazard]:
        raise UsageError(f"the model is called as the method {asked.name}", repair="call it otherwise in model.toml")
    return asked.name, folder


def _opened(
    scene: Scene, folders: Mapping[str, tuple[Path, ...]], how: Mapping[str, str], cut: tuple[str, str] | None, flips: bool
) -> dict[str, Any]:  # fmt: skip
    if not folders:
        return {}
    from aftermap import ensemble, since, transfer  # openvino costs 0.3 s, and many maps need none
    from aftermap.engine import Network

    def opened(folder: Path) -> ensemble.Member:
        network = Network.open(folder, **how)
        return transfer.on(scene, network, *cut) if cut else since.on(scene, network)

    every = {name: [opened(folder) for folder in parts] for name, parts in folders.items()}
    return {n: ensemble.of(n, parts, flips=flips) if len(parts) > 1 or flips else parts[0] for n, parts in every.items()}


def _ordered(
    classical: dict[str, Method], networks: dict[str, Any], why: str, skipped: dict[str, str], *, lead: bool
) -> Chosen:  # fmt: skip
    """Networks that may lead, then the methods without training, then the other networks."""
    leading = {n: m for n, m in networks.items() if m.card.leads or lead or not classical}
    followers = {n: m for n, m in networks.items() if n not in leading}
    first = next(iter(leading), None)
    if first is not None:
        alone = "" if classical else "no method without training runs beside it; "
        allowed = "lets it lead" if leading[first].card.leads else "does not let it lead any"
        asked = "it was asked to lead; " if lead else ""
        why = f"{alone}{asked}its card {allowed}{_because(leading[first])}"
    said = [f"; {n} runs beside, for its card does not let it lead{_because(m)}" for n, m in followers.items()]
    facts: dict[str, dict[str, Any]] = {}
    if networks:
        from aftermap import ensemble

        facts = {n: ensemble.facts(m) for n, m in networks.items()}
    tables = {n: m.calibration for n, m in networks.items()}
    return Chosen({**leading, **classical, **followers}, why, skipped, "".join(said), facts, tables, frozenset(followers))


def _because(network: Any) -> str:
    return f" ({network.card.why})" if network.card.why else ""


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


def make(scene: Scene, scorers: Mapping[str, Scorer], chosen: Chosen) -> Made:
    """The map of the first scorer, averaged with the first of each further kind of image that finds the same class.

    Where the firsts find different things, those that find the hazard itself go first.
    """
    seen = {n: scene.seen(i for i in s.inputs if i.layer in _DATES) for n, s in scorers.items()}
    kinds = {n: {kind_of(layer) for layer in layers.values()} for n, layers in seen.items()}
    finds, why = {n: s.classes[0] for n, s in scorers.items()}, chosen.why
    firsts: list[str] = []
    for name in (n for n in scorers if n not in chosen.followers):
        if all(kinds[name].isdisjoint(kinds[first]) for first in firsts):
            firsts.append(name)
    firsts.sort(key=lambda n: finds[n] != scene.hazard)
    combined = tuple(n for n in firsts if finds[n] == finds[firsts[0]])
    if len(combined) > 1:
        why = f"mean likelihood, where they observed the ground, of {' and '.join(combined)}: the first for each kind of image"
    elif len(firsts) > 1:
        why = f"{firsts[0]} alone finds {finds[firsts[0]]}, not {finds[firsts[1]]}"
    tables: dict[str, Calibration] = {}
    for name in scorers:
        if name in chosen.calibrations:
            table = chosen.calibrations[name]
        else:
            table = calibration.find(Key(scene.hazard, name, "+".join(sorted(kinds[name])), finds[name]))
        tables |= {name: table} if table else {}
    images = tuple(dict.fromkeys(k for n in combined for k in seen[n]))
    return Made(combined, why + chosen.beside, images, tuple(k for k in images if all(k in seen[n] for n in combined)), tables)
