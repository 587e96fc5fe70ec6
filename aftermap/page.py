"""What a recipe says part by part: its data, chips, networks, steps and targets, each judged when it is made. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from aftermap.augment import Augment
from aftermap.bandmaps import MAPS
from aftermap.enlarging import ALLOWED, DEEPEST, multiple_of
from aftermap.errors import UnknownNameError
from aftermap.pieces import HAZARDS, NO_HAZARD
from aftermap.strict import refuse

UNLABELLED = ("mae", "dino", "clip", "contrast")
"""Objectives without labels: they give a model of embeddings, which others start from."""
OBJECTIVES = ("segment", "classify", "regress", *UNLABELLED)
ADAPTATIONS = ("bn", "bidirectional", "self-train")
PRECISIONS = ("auto", "bf16", "fp32")
BESIDE = ("trained", "untrained", "none")
TOLD = ("start", "balanced", "source_free", "separate")
"""Settings of self-training by which its results are told apart."""


def among(kind: str, given: str, known: Sequence[str]) -> None:
    """Raises UnknownNameError ("unknown-KIND")."""
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
    """hub: those that the encoder's publisher gives, fetched once. Or the folder of a model, from whose encoder it starts, or a
    page of facts (.toml) beside a safetensors file."""

    def __post_init__(self) -> None:
        path = Path(self.weights)
        there = path.is_file() if path.suffix == ".toml" else (path / "model.toml").is_file()
        if self.weights not in ("none", "hub") and not there:
            raise refuse(f"model.weights is {self.weights!r}", "say none, hub, the folder of a model, or a page of facts")

    @property
    def start(self) -> Path | None:
        """The model folder that it starts from."""
        return None if self.weights in ("none", "hub") or self.weights.endswith(".toml") else Path(self.weights)


@dataclass(frozen=True)
class Train:
    """One training; as train.Plan."""

    losses: Mapping[str, float] = field(default_factory=dict)
    """Of objectives with labels."""
    objective: str = "segment"
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of an objective without labels: as Settings of objectives/mae.py and so on."""
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
    encoder_lr: float = 0.0
    """Of what learns of the encoder; 0: lr too."""
    weight_decay: float = 1e-4
    weight_decay_end: float | None = None
    decay: str = "all"
    """As train.Plan."""
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
        among("precision", self.precision, PRECISIONS)
        for name in self.augmentation:
            among("augmentation", name, [f.name for f in fields(Augment)])
        among("objective", self.objective, OBJECTIVES)
        among("decay", self.decay, ("all", "matrices"))
        free = self.objective in UNLABELLED
        if free == bool(self.losses) or (self.settings and not free):
            what = f"{self.objective} with losses {sorted(self.losses)} and settings {sorted(self.settings)}"
            raise refuse(what, f"losses are of objectives with labels, settings of {', '.join(UNLABELLED)}")
        if self.encoder_lr < 0 or (self.encoder_lr and free):
            raise refuse(f"encoder_lr is {self.encoder_lr:g} with {self.objective}", "it is above 0, with labels alone")
        among("target", self.target, ("", "presence"))
        among("balance", self.balance, ("", "inverse_sqrt"))
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
        among("adaptation", self.method, ADAPTATIONS)
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
class LowRank:
    """Low-rank updates of a frozen encoder, where the surgery has "lora"."""

    rank: int = 16
    alpha: int = 0
    """Updates count alpha / rank times; 0: the rank, so once."""
    root: bool = False
    """alpha / sqrt(rank) in place of that (arXiv 2312.03732)."""
    dropout: float = 0.05
    layers: str = "all"
    """all linear layers and convolutions of the encoder, or those of attention alone."""

    def __post_init__(self) -> None:
        among("layers", self.layers, ("all", "attention"))
        if self.rank < 1 or self.alpha < 0 or not 0 <= self.dropout < 1:
            what = f"lora has rank = {self.rank}, alpha = {self.alpha} and dropout = {self.dropout:g}"
            raise refuse(what, "give a rank of at least 1, an alpha of at least 0 and a dropout below 1")


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
        among("use", self.use, BESIDE)


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
        among("hazard", self.hazard, (*HAZARDS, NO_HAZARD))
        among("band map", self.band_map, ["auto", *MAPS])


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
        among("product", self.product, ("extent",))
