"""A published system in a page of TOML: strict, so that a typing error is an error; parse, override, find. No torch.

The comments at the head say `Run:`, `Expect:` (what was measured, or that nothing was) and `Differs:` (from the paper).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from aftermap.augment import Augment
from aftermap.bandmaps import MAPS
from aftermap.enlarging import ALLOWED, DEEPEST, multiple_of
from aftermap.errors import UnknownNameError
from aftermap.journal import digest
from aftermap.normalise import BY
from aftermap.pieces import HAZARDS
from aftermap.strict import override, refuse, value

BUNDLED = Path(__file__).parent / "recipes"
OBJECTIVES = ("segment", "classify", "regress")
SURGERIES = ("freeze_encoder", "domain_norm")
WEIGHTS = ("none", "hub")
ADAPTATIONS = ("bn", "bidirectional", "self-train")
PRECISIONS = ("auto", "bf16", "fp32")
BESIDE = ("trained", "untrained", "none")
FIDELITY = ("norm_bug", "batch_softmax", "bn_leak")
"""Faults of the code of Boehm et al. 2022 (methods.md B.2 to B.4), for who wants them back."""
TOLD = ("start", "balanced", "source_free", "separate")
"""Settings of self-training by which its results are told apart."""
_HEADER = ("Run", "Expect", "Differs")


def _among(kind: str, given: str, known: Sequence[str]) -> None:
    if given not in known:
        raise UnknownNameError(kind, given, known)


@dataclass(frozen=True)
class Data:
    """Which data set, and how it is opened."""

    kind: str = ""
    """Of `aftermap data list`; empty: that whose layout the folder has."""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Chips:
    """Of what a batch is made."""

    size: int = 0
    """Side in px, a multiple of 32; larger chips are cut, smaller ones padded. 0: the first chip's, at most 256."""
    upsample: float = 1
    """The network looks at images enlarged so many times, bilinearly, here and in maps; its classes come back by area."""
    most: int = 0
    """Chips of training at most, drawn by the seed, the fewer among the more; 0: all. Statistics are of all."""

    def __post_init__(self) -> None:
        if self.size < 0 or self.size % 32 or self.most < 0:
            raise refuse(f"chips.size is {self.size} and chips.most {self.most}", "give a multiple of 32, and no less than 0")
        if not (multiple := multiple_of(self.upsample)):
            raise refuse(f"chips.upsample is {self.upsample:g}", ALLOWED)
        if multiple > DEEPEST and (not self.size or self.size % multiple):
            what = f"chips.upsample is {self.upsample:g} and chips.size {self.size}"
            raise refuse(what, f"give a size: a multiple of {multiple}")
        if self.upsample == int(self.upsample):  # as TOML has it, so that a recipe keeps its hash
            object.__setattr__(self, "upsample", int(self.upsample))


@dataclass(frozen=True)
class Network:
    """As model.Spec."""

    encoder: str
    decoder: str = "unet"
    fusion: str = "auto"
    """auto: single for one date, early for two."""
    widths: tuple[int, ...] = ()
    weights: str = "none"
    """hub: those that the encoder's publisher gives, fetched once."""

    def __post_init__(self) -> None:
        _among("weights", self.weights, WEIGHTS)


@dataclass(frozen=True)
class Train:
    """One training; as train.Plan."""

    losses: Mapping[str, float]
    objective: str = "segment"
    target: str = ""
    """Of "classify" and "regress": the chips' own labels; or, of "classify", "presence": whether any pixel is hazard."""
    class_weights: tuple[float, ...] = ()
    balance: str = ""
    """inverse_sqrt, in place of class_weights: one over the root of how many chips of training are of a class."""
    hard_pixels: float = 1.0
    """Share of the pixels that the losses see: those of the largest cross entropy."""
    steps: int = 0
    epochs: float = 0
    """In place of steps: passes over the chips."""
    batch: int = 16
    lr: float = 1e-3
    weight_decay: float = 1e-4
    clip: float = 0.999
    """Largest norm of the gradient."""
    schedule: str = "cosine"
    warmup: int = 0
    milestones: tuple[int, ...] = ()
    """Passes over the chips after which the rate halves, with the schedule "milestones"."""
    every: int = 0
    """Steps between validations; 0: a tenth of all."""
    metric: str = ""
    """What chooses the checkpoint; empty: iou, macro_iou of several classes, macro_f1 of classes of chips, rmse of numbers. Of
    one hazard also ap, average precision."""
    patience: int = 0
    keep: int = 1
    """Best checkpoints that become models, all but the first below it in checkpoints/2 and so on: to map together."""
    augment: bool = True
    augmentation: Mapping[str, float] = field(default_factory=dict)
    """What differs from Augment's own numbers: { jitter = 0.8 }."""
    precision: str = "auto"
    """auto: bf16 where the machine multiplies it fast, else fp32; the row of results says which."""

    def __post_init__(self) -> None:
        _among("precision", self.precision, PRECISIONS)
        for name in self.augmentation:
            _among("augmentation", name, [f.name for f in fields(Augment)])
        _among("objective", self.objective, OBJECTIVES)
        _among("target", self.target, ("", "presence"))
        _among("balance", self.balance, ("", "inverse_sqrt"))
        if self.balance and (self.class_weights or self.objective != "classify"):
            raise refuse("balance is of classes of chips, and in place of class_weights", "leave one of them out")
        if self.target and self.objective != "classify":
            raise refuse(f"the target {self.target} is of the objective classify, not {self.objective}")
        if (self.steps > 0) == (self.epochs > 0) or min(self.batch, self.keep) < 1:
            raise refuse(f"a step has steps = {self.steps}, epochs = {self.epochs}, batch = {self.batch}, keep = {self.keep}",
                         "give steps or epochs, above zero, and a batch and a keep of at least 1")  # fmt: skip


@dataclass(frozen=True)
class Adapt:
    """One adaptation to images of a target, without labels; each begins with the network as it was trained."""

    shots: tuple[int, ...] = ()
    """Crops of the target, each number by itself; those of fewer are the first of those of more. Of self-train empty: all."""
    method: str = "bn"
    mode: str = "ema"
    """Of method "bn": as adapt.norm.Adaptation."""
    momentum: float = 0.1
    rounds: int = 3
    keep: float = 0.7
    """Of method "self-train": how often labels are made anew, and the least probability of one."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """As adapt.bidirectional.Bidirectional, adapt.selftrain.SelfTrain."""

    def __post_init__(self) -> None:
        _among("adaptation", self.method, ADAPTATIONS)
        if (not self.shots and self.method != "self-train") or min(self.shots, default=1) < 1:
            raise refuse(f"adapt.shots is {list(self.shots)}", "give numbers of crops above zero")

    @property
    def arguments(self) -> Mapping[str, Any]:
        """Of SelfTrain or Bidirectional."""
        return {"rounds": self.rounds, "keep": self.keep, **self.settings} if self.method == "self-train" else self.settings

    @property
    def label(self) -> str:
        """Of its results: bn-ema, bidirectional-forward-backward."""
        if self.method == "bn":
            return f"bn-{self.mode}"
        if self.method == "self-train":
            return "-".join([self.method, *(f"{k}={v}" for k, v in sorted(self.settings.items()) if k in TOLD)])
        arms = [str(arm) for arm in self.settings.get("arms", ["default"])]
        frozen = [] if self.settings.get("batch_norm", True) else ["frozen"]
        literal = ["literal"] if self.settings.get("literal") else []
        return "-".join([self.method, *(arms or ["replay"]), *frozen, *literal])


@dataclass(frozen=True)
class Pretrain:
    """Another question asked first; its network's encoder then stands frozen beside that of the one that maps.

    On --pretrain-on FOLDER, else on the data of the recipe; bands, chips and normalisation are the recipe's.
    """

    model: Network
    train: Train
    use: str = "trained"
    """untrained: the same encoder with its first weights, to tell what is learned from what is merely wider. none: nothing."""
    data: Data | None = None
    """Where it is opened otherwise than the recipe's."""
    split: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _among("use", self.use, BESIDE)


@dataclass(frozen=True)
class Target:
    """Images of a hazard that the network never saw, given by --target NAME=FOLDER; their labels score, and do nothing else."""

    hazard: str
    data: Data = field(default_factory=Data)
    band_map: str = "auto"
    """Of bandmaps.MAPS; auto: none where the network reads these bands, else the first that fits."""
    most: int = 0
    """Images of each event, evenly spread; 0: all."""
    events: tuple[str, ...] = ()
    """Of the data set, or official splits ("official:val"); empty: all."""
    inductive: bool = False
    """Adaptation and statistics look at every second image, and the others are scored."""

    def __post_init__(self) -> None:
        _among("hazard", self.hazard, HAZARDS)
        _among("band map", self.band_map, ["auto", *MAPS])


@dataclass(frozen=True)
class Step:
    """What is done to the network: one of the two."""

    train: Train | None = None
    adapt: Adapt | None = None

    def __post_init__(self) -> None:
        if (self.train is None) == (self.adapt is None):
            raise refuse("a step does nothing, or two things", "give it train = { ... } or adapt = { ... }")


@dataclass(frozen=True)
class Map:
    """What a map by this network is."""

    product: str = "extent"
    threshold: float = 0.5
    hazard_classes: tuple[str, ...] = ()
    """Those of several classes that the map calls hazard; empty: all but the first."""

    def __post_init__(self) -> None:
        _among("product", self.product, ("extent",))


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
    """What shares statistics: "all" of training; each domain, scene (event) or chip its own, and in a map the scene its own."""
    surgery: tuple[str, ...] = ()
    """freeze_encoder; domain_norm: in self-training each domain has statistics of batch norm of its own."""
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
        _among("hazard", self.hazard, HAZARDS)
        for one in self.surgery:
            _among("surgery", one, SURGERIES)
        for one in self.fidelity:
            _among("fidelity", one, FIDELITY)
        _among("normalise", self.normalise, list(BY))
        if not self.inputs or not any(step.train for step in self.steps):
            raise refuse("a recipe needs inputs, and a step that trains")
        if (adapts := [k for k, step in enumerate(self.steps) if step.adapt]) and min(adapts) < len(self.steps) - len(adapts):
            raise refuse("a step trains after one that adapts", "put the steps that adapt last")
        self._refuse_classes()
        if "folds" in self.split:
            _refuse_folds(self.split)
            return
        for side, events in self.split.items():
            _among("split", side, ("train", "validation", "test"))
            if not _are_names(events):
                raise refuse(f"split.{side} is {events!r}", "give a list of names of events")

    def _refuse_classes(self) -> None:
        if len(self.classes) == 1 or len(set(self.classes)) < len(self.classes):
            raise refuse(f"classes is {list(self.classes)!r}", "name at least two, none twice, or leave it out")
        for name in self.map.hazard_classes:
            _among("class", name, self.classes)
        if len({step.train.objective for step in self.steps if step.train}) > 1:
            raise refuse("the steps have several objectives", "one network has one: give each step the same")

    @property
    def objective(self) -> str:
        """Of every step."""
        return next(step.train.objective for step in self.steps if step.train)

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
        """Of all that is said, overrides included, but for the name."""
        return digest({k: v for k, v in asdict(self).items() if k != "name"})


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


def read(recipe: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe by name or path, with "model.encoder=resnet18" and the like on top.

    Raises UnknownNameError ("unknown-recipe", "unknown-key" ...) and UsageError ("recipe-invalid").
    """
    path = Path(recipe)
    if path.suffix != ".toml":
        _among("recipe", str(recipe), sorted(listed()))
        path = listed()[str(recipe)]
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise refuse(f"{path} cannot be read as TOML: {error}") from error
    for said in overrides:
        override(table, said)
    made: Recipe = value({**table, "name": path.stem}, Recipe, "")
    return made


def header(path: Path) -> dict[str, str]:
    """What the comments at the head say of Run, Expect and Differs."""
    lines = [line.removeprefix("#").strip() for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    return {w: next((k.partition(":")[2].strip() for k in lines if k.startswith(f"{w}:")), "") for w in _HEADER}
