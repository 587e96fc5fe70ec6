"""A published system in a page of TOML: strict, so that a typing error is an error; parse, override, find. No torch.

The comments at the head say `Run:`, `Expect:` (what was measured, or that nothing was) and `Differs:` (from the paper).
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from aftermap.augment import Augment
from aftermap.bandmaps import MAPS
from aftermap.enlarging import ALLOWED, DEEPEST, multiple_of
from aftermap.errors import UnknownNameError, UsageError
from aftermap.journal import digest
from aftermap.normalise import BY
from aftermap.pieces import HAZARDS

BUNDLED = Path(__file__).parent / "recipes"
OBJECTIVES = ("segment", "classify", "regress")
SURGERIES = ("freeze_encoder",)
WEIGHTS = ("none", "hub")
ADAPTATIONS = ("bn", "bidirectional")
PRECISIONS = ("auto", "bf16", "fp32")
_HEADER = ("Run", "Expect", "Differs")


def _refuse(what: str, repair: str = "correct the recipe") -> UsageError:
    return UsageError(what, repair=repair, code="recipe-invalid")


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

    def __post_init__(self) -> None:
        if self.size < 0 or self.size % 32:
            raise _refuse(f"chips.size is {self.size}", "give a multiple of 32")
        if not (multiple := multiple_of(self.upsample)):
            raise _refuse(f"chips.upsample is {self.upsample:g}", ALLOWED)
        if multiple > DEEPEST and (not self.size or self.size % multiple):
            what = f"chips.upsample is {self.upsample:g} and chips.size {self.size}"
            raise _refuse(what, f"give a size: a multiple of {multiple}")
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
    class_weights: tuple[float, ...] = ()
    steps: int = 0
    epochs: float = 0
    """In place of steps: passes over the chips."""
    batch: int = 16
    lr: float = 1e-3
    weight_decay: float = 1e-4
    schedule: str = "cosine"
    warmup: int = 0
    milestones: tuple[int, ...] = ()
    """Passes over the chips after which the rate halves, with the schedule "milestones"."""
    every: int = 0
    """Steps between validations; 0: a tenth of all."""
    metric: str = ""
    """What chooses the checkpoint; empty: iou, macro_iou of several classes, macro_f1 of classes of chips, rmse of numbers."""
    patience: int = 0
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
        if (self.steps > 0) == (self.epochs > 0) or self.batch < 1:
            raise _refuse(f"a step has steps = {self.steps}, epochs = {self.epochs}, batch = {self.batch}",
                          "give steps or epochs, above zero, and a batch of at least 1")  # fmt: skip


@dataclass(frozen=True)
class Adapt:
    """One adaptation to images of a target, without labels; each begins with the network as it was trained."""

    shots: tuple[int, ...]
    """Crops of the target, each number by itself; those of fewer are the first of those of more."""
    method: str = "bn"
    mode: str = "ema"
    """Of method "bn": as adapt.norm.Adaptation."""
    momentum: float = 0.1
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of method "bidirectional": as adapt.bidirectional.Bidirectional."""

    def __post_init__(self) -> None:
        _among("adaptation", self.method, ADAPTATIONS)
        if not self.shots or min(self.shots) < 1:
            raise _refuse(f"adapt.shots is {list(self.shots)}", "give numbers of crops above zero")

    @property
    def label(self) -> str:
        """Of its results: bn-ema, bidirectional-forward-backward."""
        if self.method == "bn":
            return f"bn-{self.mode}"
        arms = [str(arm) for arm in self.settings.get("arms", ["default"])]
        frozen = [] if self.settings.get("batch_norm", True) else ["frozen"]
        literal = ["literal"] if self.settings.get("literal") else []
        return "-".join([self.method, *(arms or ["replay"]), *frozen, *literal])


@dataclass(frozen=True)
class Target:
    """Images of a hazard that the network never saw, given by --target NAME=FOLDER; their labels score, and do nothing else."""

    hazard: str
    data: Data = field(default_factory=Data)
    band_map: str = "auto"
    """Of bandmaps.MAPS; auto: none where the network reads these bands, else the first that fits."""
    most: int = 0
    """Images of each event, evenly spread; 0: all."""

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
            raise _refuse("a step does nothing, or two things", "give it train = { ... } or adapt = { ... }")


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
    map: Map = field(default_factory=Map)
    targets: Mapping[str, Target] = field(default_factory=dict)
    """What the network is tried on that it never saw."""
    name: str = ""

    def __post_init__(self) -> None:
        _among("hazard", self.hazard, HAZARDS)
        for one in self.surgery:
            _among("surgery", one, SURGERIES)
        _among("normalise", self.normalise, list(BY))
        if not self.inputs or not any(step.train for step in self.steps):
            raise _refuse("a recipe needs inputs, and a step that trains")
        if (adapts := [k for k, step in enumerate(self.steps) if step.adapt]) and min(adapts) < len(self.steps) - len(adapts):
            raise _refuse("a step trains after one that adapts", "put the steps that adapt last")
        self._refuse_classes()
        if "folds" in self.split:
            _refuse_folds(self.split)
            return
        for side, events in self.split.items():
            _among("split", side, ("train", "validation", "test"))
            if not _are_names(events):
                raise _refuse(f"split.{side} is {events!r}", "give a list of names of events")

    def _refuse_classes(self) -> None:
        if len(self.classes) == 1 or len(set(self.classes)) < len(self.classes):
            raise _refuse(f"classes is {list(self.classes)!r}", "name at least two, none twice, or leave it out")
        for name in self.map.hazard_classes:
            _among("class", name, self.classes)
        if len({step.train.objective for step in self.steps if step.train}) > 1:
            raise _refuse("the steps have several objectives", "one network has one: give each step the same")

    @property
    def objective(self) -> str:
        """Of every step."""
        return next(step.train.objective for step in self.steps if step.train)

    @property
    def adapts(self) -> tuple[Adapt, ...]:
        """The steps that adapt."""
        return tuple(step.adapt for step in self.steps if step.adapt)

    @property
    def source(self) -> Recipe:
        """The recipe as far as targets play no part: what determines the training."""
        return replace(self, steps=tuple(step for step in self.steps if step.train), targets={})

    @property
    def sha256(self) -> str:
        """Of all that is said, overrides included, but for the name."""
        return digest({k: v for k, v in asdict(self).items() if k != "name"})


def _are_names(events: Any) -> bool:
    return isinstance(events, list) and all(isinstance(e, str) for e in events)


def _refuse_folds(split: Mapping[str, Any]) -> None:
    groups = split["folds"]
    if len(split) > 1 or not isinstance(groups, list) or len(groups) < 3 or not all(g and _are_names(g) for g in groups):
        raise _refuse(f"split is {dict(split)!r}", "give folds alone: at least three lists of names of events")


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
        raise _refuse(f"{path} cannot be read as TOML: {error}") from error
    for said in overrides:
        _override(table, said)
    made: Recipe = _value({**table, "name": path.stem}, Recipe, "")
    return made


def header(path: Path) -> dict[str, str]:
    """What the comments at the head say of Run, Expect and Differs."""
    lines = [line.removeprefix("#").strip() for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    return {w: next((k.partition(":")[2].strip() for k in lines if k.startswith(f"{w}:")), "") for w in _HEADER}


def setting(said: str) -> tuple[str, Any]:
    """ "KEY=VALUE" as a key and a plain value. Raises UsageError."""
    name, equals, value = said.partition("=")
    if not equals:
        raise UsageError(f"--set {said} has no value", repair="say --set KEY=VALUE")
    try:
        return name.strip(), ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name.strip(), {"true": True, "false": False}.get(value, value)


def _override(table: dict[str, Any], said: str) -> None:
    """Puts "steps.0.train.lr=1e-4" into the parsed table; _value then judges it."""
    key, value = setting(said)
    at: Any = table
    *way, last = key.split(".")
    for part in way:
        if isinstance(at, list):
            if not part.isdigit() or int(part) >= len(at):
                raise _refuse(f"--set {said}: there are {len(at)} steps, counted from 0", "say steps.0. and so on")
            at = at[int(part)]
        else:
            at = at.setdefault(part, {})
        if not isinstance(at, dict | list):
            raise _refuse(f"--set {said}: {part} is no table", "name a key of the recipe")
    if not isinstance(at, dict):
        raise _refuse(f"--set {said} names no key", "say steps.0.train.lr=..., for example")
    at[last] = list(value) if isinstance(value, tuple) else value


def _value(given: Any, kind: Any, where: str) -> Any:
    """A value of TOML as the annotation has it. Raises UnknownNameError ("unknown-key") and UsageError ("recipe-invalid")."""
    origin, inside = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _table(given, kind, where)
    if origin is tuple and isinstance(given, list):
        return tuple(_value(one, inside[0], f"{where}[{k}]") for k, one in enumerate(given))
    if origin is Mapping or getattr(origin, "__name__", "") == "Mapping":
        if isinstance(given, dict):
            return {k: _value(v, inside[1], f"{where}.{k}") for k, v in given.items()}
    elif type(None) in inside:
        return _value(given, inside[0], where)
    elif kind is Any:
        return given
    elif kind is float and isinstance(given, int | float) and not isinstance(given, bool):
        return float(given)
    elif kind in (str, int, bool) and type(given) is kind:
        return given
    raise _refuse(f"{where} is {given!r}, and has to be {_words(kind)}")


def _table(given: Any, kind: Any, where: str) -> Any:
    if not isinstance(given, dict):
        raise _refuse(f"{where} is {given!r}, and has to be a table of {', '.join(f.name for f in fields(kind))}")
    hints = get_type_hints(kind)
    for name in given.keys() - hints.keys():
        raise UnknownNameError("key", f"{where}.{name}".strip("."), [f"{where}.{k}".strip(".") for k in hints])
    for f in fields(kind):
        if f.default is MISSING and f.default_factory is MISSING and f.name not in given:
            raise _refuse(f"{where or 'the recipe'} does not say {f.name}", f"add {f.name}: {_words(hints[f.name])}")
    return kind(**{k: _value(v, hints[k], f"{where}.{k}".strip(".")) for k, v in given.items()})


def _words(kind: Any) -> str:
    origin, inside = get_origin(kind), get_args(kind)
    if origin is tuple:
        return f"a list, each {_words(inside[0])}"
    if is_dataclass(kind) or getattr(origin, "__name__", "") == "Mapping":
        return "a table"
    plain = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    return plain.get(kind) or " or ".join(_words(k) for k in inside if k is not type(None)) or "a value"
