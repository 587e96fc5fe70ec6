"""A published system in a page of TOML: strict, so that a typing error is an error; parse, override, find. No torch.

The comments at the head say `Run:`, `Expect:` (what was measured, or that nothing was) and `Differs:` (from the paper).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from aftermap import plain
from aftermap.foundation import AS_TRAINED, FOUNDATIONS
from aftermap.journal import digest
from aftermap.normalise import BY
from aftermap.page import UNLABELLED, Adapt, Chips, Data, LowRank, Map, Network, Pretrain, Step, Target, among
from aftermap.pieces import HAZARDS, NO_HAZARD
from aftermap.strict import override, refuse, value

BUNDLED = Path(__file__).parent / "recipes"
SURGERIES = ("freeze_encoder", "lora", "bitfit", "domain_norm")
FIDELITY = ("norm_bug", "batch_softmax", "bn_leak")
"""Faults of the code of Boehm et al. 2022 (methods.md B.2 to B.4), for who wants them back."""
_HEADER = ("Run", "Expect", "Differs")


@dataclass(frozen=True)
class Recipe:
    """The page; with data and seed it determines the result."""

    hazard: str
    inputs: tuple[str, ...]
    """Layers ("after", "before") or their bands ("after.VV")."""
    model: Network
    steps: tuple[Step, ...]
    data: Data = field(default_factory=Data)
    classes: tuple[str, ...] = ()
    """Classes of the truth to tell apart, of those that the data set has; what is not named is unknown. Empty: the hazard, which
    is every class but the first, against the first."""
    split: Mapping[str, Any] = field(default_factory=dict)
    """Side -> events: { train = ["A"], test = ["B"] }, or official splits: { test = ["official:val"] }; by default the official
    splits as they are, else whole events.

    { folds = [["A"], ["B", "C"], ["D"]] } tests each list in turn, chooses by the next one and trains on the others."""
    chips: Chips = field(default_factory=Chips)
    normalise: str = "all"
    """What shares statistics: "all" of training; each domain, scene (event) or chip its own, and in a map the scene its own. Or
    "as_trained": those of a foundation model."""
    surgery: tuple[str, ...] = ()
    """freeze_encoder; lora: low-rank updates of it learn; bitfit: its biases learn; domain_norm: in self-training each domain has
    statistics of batch norm of its own."""
    lora: LowRank = field(default_factory=LowRank)
    ensemble: tuple[Network, ...] = ()
    """Networks beside `model`: each is trained by itself, and together they label what self-training learns from."""
    pretrain: Pretrain | None = None
    fidelity: tuple[str, ...] = ()
    """Of FIDELITY. norm_bug: decibels divided by the mean and std of power. batch_softmax: classify by a softmax over the batch.
    bn_leak: batch norm of the frozen encoder counts on."""
    map: Map = field(default_factory=Map)
    targets: Mapping[str, Target] = field(default_factory=dict)
    """What the network is tried on that it never saw."""
    name: str = ""

    def __post_init__(self) -> None:
        among("hazard", self.hazard, (*HAZARDS, NO_HAZARD))
        for one in self.surgery:
            among("surgery", one, SURGERIES)
        if len(of_encoder := [one for one in self.surgery if one != "domain_norm"]) > 1:
            raise refuse(f"surgery is {list(self.surgery)}: {' and '.join(of_encoder)} exclude one another", "choose one")
        for one in self.fidelity:
            among("fidelity", one, FIDELITY)
        among("normalise", self.normalise, [*BY, AS_TRAINED])
        if self.normalise == AS_TRAINED and (self.ensemble or self.model.encoder not in FOUNDATIONS):
            what = f"normalise is {AS_TRAINED}, which is of one foundation model, and the encoder is {self.model.encoder}"
            raise refuse(what, f'choose one of {", ".join(FOUNDATIONS)}, or normalise = "all"')
        if not self.inputs or not any(step.train for step in self.steps):
            raise refuse("a recipe needs inputs, and a step that trains")
        if (adapts := [k for k, step in enumerate(self.steps) if step.adapt]) and min(adapts) < len(self.steps) - len(adapts):
            raise refuse("a step trains after one that adapts", "put the steps that adapt last")
        self._refuse_classes()
        if "folds" in self.split:
            _refuse_folds(self.split)
            return
        for side, events in self.split.items():
            among("split", side, ("train", "validation", "test"))
            if not _are_names(events):
                raise refuse(f"split.{side} is {events!r}", "give a list of names of events")

    def _refuse_classes(self) -> None:
        if len(self.classes) == 1 or len(set(self.classes)) < len(self.classes):
            raise refuse(f"classes is {list(self.classes)!r}", "name at least two, none twice, or leave it out")
        for name in self.map.hazard_classes:
            among("class", name, self.classes)
        if len({step.train.objective for step in self.steps if step.train}) > 1:
            raise refuse("the steps have several objectives", "one network has one: give each step the same")
        if self.unlabelled and (len(self.steps) > 1 or self.classes or self.pretrain or self.ensemble or self.targets):
            raise refuse(f"{self.objective} is one step, without classes, targets, ensemble or pretraining", "leave them out")

        if self.unlabelled and self.model.encoder in FOUNDATIONS:
            raise refuse(f"{self.objective} does not train {self.model.encoder}", "choose an encoder that is no foundation model")

    @property
    def objective(self) -> str:
        """Of every step."""
        return next(step.train.objective for step in self.steps if step.train)

    @property
    def unlabelled(self) -> bool:
        """Whether it learns without labels."""
        return self.objective in UNLABELLED

    @property
    def target(self) -> str:
        """Of the first step, as Train has it."""
        return next(step.train.target for step in self.steps if step.train)

    @property
    def adapts(self) -> tuple[Adapt, ...]:
        """The steps that adapt; without domain_norm self-training mixes the domains' statistics of batch norm."""
        mixed = {} if "domain_norm" in self.surgery else {"separate": False}
        each = [step.adapt for step in self.steps if step.adapt]
        return tuple(replace(a, settings={**mixed, **a.settings}) if a.method == "self-train" else a for a in each)

    @property
    def source(self) -> Recipe:
        """The recipe as far as targets play no part: what determines the training."""
        steps, surgery = tuple(step for step in self.steps if step.train), tuple(s for s in self.surgery if s != "domain_norm")
        return replace(self, steps=steps, surgery=surgery, targets={}, ensemble=())

    @property
    def pretraining(self) -> Recipe | None:
        """What asks the other question, as a recipe of its own; None where nothing is trained for it."""
        first = self.pretrain
        if first is None or first.use != "trained":
            return None
        return Recipe(
            self.hazard, self.inputs, first.model, (Step(first.train),), first.data or self.data, split=first.split,
            chips=replace(self.chips, most=0), normalise=self.normalise, fidelity=self.fidelity, name=f"{self.name}-pretrain",
        )  # fmt: skip

    @property
    def members(self) -> tuple[Recipe, ...]:
        """The source of each network; of several, named after their encoders."""
        if not self.ensemble:
            return (self.source,)
        return tuple(replace(self.source, model=one, name=f"{self.name}-{one.encoder}") for one in (self.model, *self.ensemble))

    @property
    def sha256(self) -> str:
        """Of all that is said and plays a part, overrides included, but for the name."""
        told = ("name",) if "lora" in self.surgery else ("name", "lora")
        said = asdict(self)
        for one in (*(step["train"] for step in said["steps"]), (said["pretrain"] or {}).get("train")):
            if one and not one["encoder_lr"]:
                del one["encoder_lr"]
        return digest({k: v for k, v in said.items() if k not in told})


def _are_names(events: Any) -> bool:
    return isinstance(events, list) and all(isinstance(e, str) for e in events)


def _refuse_folds(split: Mapping[str, Any]) -> None:
    groups = split["folds"]
    if len(split) > 1 or not isinstance(groups, list) or len(groups) < 3 or not all(g and _are_names(g) for g in groups):
        raise refuse(f"split is {dict(split)!r}", "give folds alone: at least three lists of names of events")


def folds(recipe: Recipe) -> list[Recipe]:
    """The recipe once for each fold of its split; itself where it has none."""
    groups = recipe.split.get("folds")
    if groups is None:
        return [recipe]
    turned = [(groups[k:] + groups[:k]) for k in range(len(groups))]
    return [replace(recipe, split={"test": t[0], "validation": t[1], "train": [e for g in t[2:] for e in g]}) for t in turned]


def listed() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    return {path.stem: path for path in sorted(BUNDLED.glob("*.toml"))}


def table(recipe: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """What a recipe by name or path says, with "model.encoder=resnet18" and the like on top; its name too.

    Raises UnknownNameError ("unknown-recipe") and UsageError ("recipe-invalid").
    """
    path = Path(recipe)
    if path.suffix != ".toml":
        among("recipe", str(recipe), sorted(listed()))
        path = listed()[str(recipe)]
    try:
        said = plain.read_toml(path)
    except (OSError, ValueError) as error:
        raise refuse(f"{path} cannot be read as TOML: {error}") from error
    for one in overrides:
        override(said, one)
    return {**said, "name": path.stem}


def read(recipe: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe that trains. Raises as `table`, and UnknownNameError ("unknown-key" ...)."""
    made: Recipe = value(table(recipe, overrides), Recipe, "")
    return made


def header(path: Path) -> dict[str, str]:
    """What the comments at the head say of Run, Expect and Differs."""
    lines = [line.removeprefix("#").strip() for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    return {w: next((k.partition(":")[2].strip() for k in lines if k.startswith(f"{w}:")), "") for w in _HEADER}
