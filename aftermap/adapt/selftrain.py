"""Progressive label refinement: networks label the target, learn from what they are sure of, and again.

After Zhao et al. 2022, winner of Landslide4Sense, and LoveCS (methods.md C.6). Labels of the target are never seen. With a source
its labelled chips are in every batch beside crops of the target, and each domain may have statistics of batch norm of its own
(domainnorm.py); without one the networks learn from their own labels alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap import checkpoint
from aftermap.augment import Augment
from aftermap.batches import Batches, Normal, Source
from aftermap.chips import UNKNOWN, Chip
from aftermap.domainnorm import Domained
from aftermap.ensemble import FLIPS
from aftermap.errors import UnknownNameError, UsageError
from aftermap.journal import digest, write_json
from aftermap.losses import Sum
from aftermap.model import Model, build
from aftermap.normalise import Normaliser
from aftermap.objectives.bidirectional import probabilities
from aftermap.objectives.segment import Segment
from aftermap.torchdoor import Tensor, torch
from aftermap.train import Plan, train

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
TARGET = "target"
"""Domain of its crops."""
STARTS = ("warm", "scratch")
ROUNDS = "rounds.json"
LOOKED_AT, SEEN_AT_ONCE, OBSERVED = 128, 16, 20
"""Chips of the source that each round is scored on; crops per pass; passes that a target's first statistics are taken from."""
_BOUNDS = {
    "rounds": (1, 100), "keep": (0.5, 1), "balanced": (0, 1), "source_weight": (0, math.inf), "target_weight": (0, math.inf),
    "steps": (1, math.inf), "batch": (1, math.inf), "lr": (0, math.inf), "weight_decay": (0, math.inf), "drift": (1, math.inf),
    "hard_pixels": (0, 1), "seed": (0, math.inf),
}  # fmt: skip


@dataclass(frozen=True)
class SelfTrain:
    """How labels are refined; with the networks, the crops and the source it determines the result."""

    rounds: int = 3
    keep: float = 0.7
    """Least probability of a label; pixels without one teach nothing."""
    balanced: float = 0.0
    """Above 0, in place of `keep`: of the pixels that are called a class, the share of which it is surest (LoveCS)."""
    source_weight: float = 1.0
    target_weight: float = 0.5
    start: str = "warm"
    """Of STARTS: each round goes on from the round before, or begins with first weights."""
    separate: bool = True
    """Whether source and target have statistics of batch norm of their own (domainnorm.py)."""
    source_free: bool = False
    """Whether the source is left out although it is there."""
    losses: Mapping[str, float] = field(default_factory=lambda: {"soft_ce": 1.0, "lovasz": 1.0})
    hard_pixels: float = 0.5
    steps: int = 200
    """Of each round and network."""
    batch: int = 8
    """Crops of the target per step, and as many chips of the source."""
    lr: float = 3e-4
    weight_decay: float = 1e-4
    flips: bool = True
    """Whether probabilities are means over the four flips of a crop."""
    drift: float = 2.0
    """Factor by which the share of hazard among labels may change; beyond it they confirm themselves (methods.md C.8)."""
    seed: int = 0
    precision: str = "fp32"
    """As of train.Plan."""

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise UnknownNameError("start", self.start, STARTS)
        for name, (least, most) in _BOUNDS.items():
            if not least <= getattr(self, name) <= most:
                raise UsageError(f"{name} is {getattr(self, name)}", repair=f"give at least {least:g} and at most {most:g}")


@dataclass(frozen=True)
class Labelled:
    """What the networks were trained on."""

    chips: Source
    normaliser: Normal
    sha256: str
    """Of the chips."""


@dataclass(frozen=True, eq=False)
class Round:
    """The networks after so many rounds; 0: before any, with the target's statistics where those are separate."""

    number: int
    models: tuple[Model, ...]
    """As they map the target."""
    row: Mapping[str, Any]
    """`labelled`, the share of pixels that taught, `prevalence`, that of hazard among them, and for each network `source_f1` and
    `loss`, of chips of the source, or of the labels where there is none."""


def self_train(
    models: Sequence[Model], target: Sequence[Chip], level: Normaliser, source: Labelled | None, how: SelfTrain, folder: Path
) -> Iterator[Round]:
    """Rounds of the networks given, which stay as they are. A folder that holds the same work goes on where it stood.

    `target` are crops (band, y, x) of one size without truth, on the `level` of the network. It ends where the labels drift,
    before that round. Raises UsageError ("no-chips", "other-run"), InputRefusedError ("no-batch-norm").
    """
    if not target:
        raise UsageError("there is no crop to adapt to", repair="give scenes with observed ground", code="no-chips")
    source = None if how.source_free else source
    work = _Work(tuple(models), tuple(replace(c, domain=TARGET, truth=None) for c in target), level, source, how, folder)
    rows = work.begun()
    nets = work.first()
    yield Round(0, work.plain(nets), {})
    for number in range(1, how.rounds + 1):
        if number <= len(rows):
            work.recall(nets, number)
        else:
            found, known = work.labels(nets)
            row: dict[str, Any] = {"round": number, **shares(found, known)}
            if stopped := _drifted([*rows, row], how.drift):
                work.wrote([*rows, row | {"stopped": stopped}])
                return
            nets = work.fresh(number) if how.start == "scratch" else nets
            row["networks"] = [work.learn(net, k, found, number) for k, net in enumerate(nets)]
            rows = [*rows, row]
            work.wrote(rows)
        if rows[number - 1].get("stopped"):
            return
        yield Round(number, work.plain(nets), rows[number - 1])


def pseudo_labels(scores: F32, valid: npt.NDArray[np.bool_], *, keep: float = 0.7, balanced: float = 0.0) -> U8:
    """Codes (n, y, x), UNKNOWN where nothing is sure enough or observed, of probabilities (n, class, y, x) that sum to one.

    With `balanced` the threshold of each class leaves this share of the pixels called so, as in LoveCS and class-balanced
    self-training (Zou et al. 2018). Raises ValueError for what are no probabilities (methods.md section 16, trap 13).
    """
    if scores.size and not (scores.min() >= 0 and np.allclose(scores.sum(axis=1), 1, atol=1e-3)):
        raise ValueError("probabilities of the classes of a pixel sum to one; these are something else, logits perhaps")
    called, sure = scores.argmax(axis=1), scores.max(axis=1)
    least = np.full(scores.shape[1], keep)
    if balanced:
        for code in range(scores.shape[1]):
            own = sure[(called == code) & valid]
            least[code] = np.quantile(own, 1 - balanced) if own.size else 1.0
    return np.where(valid & (sure >= least[called]), called, UNKNOWN).astype(np.uint8)


def shares(labels: U8, valid: npt.NDArray[np.bool_]) -> dict[str, float]:
    """`labelled`: of the valid pixels; `prevalence`: of class 1 and above among those."""
    known = labels != UNKNOWN
    return {
        "labelled": float(known.sum() / max(1, valid.sum())),
        "prevalence": float((labels[known] > 0).mean()) if known.any() else 0.0,
    }


def _drifted(rows: Sequence[Mapping[str, Any]], most: float) -> str:
    """Why the last round is not to be trusted, in words; empty where it is."""
    now, first = rows[-1]["prevalence"], rows[0]["prevalence"]
    if not rows[-1]["labelled"] or (len(rows) > 1 and not first / most <= now <= first * most):
        return f"stopped before it: hazard would be {now:.1%} of the labels, and was {first:.1%}"
    return ""


@dataclass(frozen=True, eq=False)
class _Work:
    """What all rounds share."""

    models: tuple[Model, ...]
    target: tuple[Chip, ...]
    level: Normaliser
    source: Labelled | None
    how: SelfTrain
    folder: Path

    @property
    def separate(self) -> bool:
        return self.how.separate and self.source is not None

    def begun(self) -> list[dict[str, Any]]:
        """Rows of the rounds that are there. Raises UsageError ("other-run")."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / ROUNDS).is_file():
            return []
        held = json.loads((self.folder / ROUNDS).read_text(encoding="utf-8"))
        if held["key"] != self.key:
            raise UsageError(f"{self.folder} holds rounds of other networks, images or settings", repair="choose another folder",
                             code="other-run")  # fmt: skip
        rows: list[dict[str, Any]] = held["rounds"]
        return rows

    @property
    def key(self) -> str:
        """Of what determines the result."""
        held = hashlib.sha256(b"".join(c.pixels.tobytes() for c in self.target))
        for model in self.models:
            for value in model.state_dict().values():
                held.update(value.detach().cpu().numpy().tobytes())
        own = self.source.sha256 if self.source else ""
        return digest([asdict(self.how) | {"rounds": 0}, held.hexdigest(), own, repr(self.level)])

    def wrote(self, rows: list[dict[str, Any]]) -> None:
        write_json(self.folder / ROUNDS, {"key": self.key, "rounds": rows})

    def first(self) -> list[Model | Domained]:
        """The networks, the target's statistics taken from its crops."""
        nets = [self._wrapped(model) for model in self.models]
        for net in nets:
            if isinstance(net, Domained):
                self._observe(net)
        return nets

    def fresh(self, number: int) -> list[Model | Domained]:
        """First weights."""
        return [self._wrapped(build(m.spec, seed=self.how.seed + 1000 * number)) for m in self.models]

    def _wrapped(self, model: Model) -> Model | Domained:
        if self.separate:
            return Domained(model).eval()
        own = build(model.spec)
        own.load_state_dict(model.state_dict())
        return own.eval()

    @torch.no_grad()
    def _observe(self, net: Domained) -> None:
        """Moves the statistics of the target alone."""
        rng = np.random.default_rng(self.how.seed)
        net.train()
        for _ in range(OBSERVED):
            places = rng.choice(len(self.target), size=min(SEEN_AT_ONCE, len(self.target)), replace=False)
            with self._half():
                net(self._pixels([self.target[k] for k in places]), 1)
        net.eval()

    def plain(self, nets: Sequence[Model | Domained]) -> tuple[Model, ...]:
        """As they map the target."""
        found = [net.folded(1) if isinstance(net, Domained) else deepcopy(net) for net in nets]
        assert all(isinstance(one, Model) for one in found)
        return tuple(found)  # type: ignore[arg-type]

    def _pixels(self, chips: Sequence[Chip]) -> Tensor:
        return torch.from_numpy(np.stack([self.level.of(c) for c in chips])).contiguous(memory_format=torch.channels_last)

    def _half(self) -> Any:
        return torch.autocast("cpu", torch.bfloat16) if self.how.precision == "bf16" else nullcontext()

    @torch.no_grad()
    def labels(self, nets: Sequence[Model | Domained]) -> tuple[U8, npt.NDArray[np.bool_]]:
        """Codes of every crop by the mean of all networks, and where it was observed (n, y, x)."""
        scores, valid = [], np.stack([c.valid for c in self.target])
        for start in range(0, len(self.target), SEEN_AT_ONCE):
            pixels = self._pixels(self.target[start : start + SEEN_AT_ONCE])
            each = [self._scored(net, pixels, axes) for net in nets for axes in (FLIPS if self.how.flips else FLIPS[:1])]
            scores.append(torch.stack(each).mean(dim=0).numpy())
        return pseudo_labels(np.concatenate(scores), valid, keep=self.how.keep, balanced=self.how.balanced), valid

    def _scored(self, net: Model | Domained, pixels: Tensor, axes: tuple[int, ...]) -> Tensor:
        """Probabilities (n, class, y, x) of both sides of one logit, or of all classes."""
        turned = pixels.flip(axes)
        with self._half():
            logits = net(turned, 1) if isinstance(net, Domained) else net(turned)
        found = probabilities(logits).flip(axes)
        return torch.cat([1 - found, found], dim=1) if found.shape[1] == 1 else found

    def learn(self, net: Model | Domained, place: int, labels: U8, number: int) -> dict[str, float | None]:
        """One network taught for a round; what it came to."""
        how, own = self.how, self.folder / f"round-{number}" / f"network-{place}"
        named = {f"target/{k}": replace(chip, truth=labels[k]) for k, chip in enumerate(self.target)}
        mixed = _Mixed(named, self.level, self.source)
        checking = list(named)[:LOOKED_AT] if self.source is None else self.source.chips.ids("validation")[:LOOKED_AT]
        learning = list(named) if self.source is None else [*self.source.chips.ids("train"), *named]
        domains = {} if self.source is None else {name: str(int(name in named)) for name in learning}
        shares_of = () if self.source is None else (how.source_weight, how.target_weight)
        classes = max(2, self.models[0].spec.outputs)
        objective = Segment(Sum(how.losses, hard_pixels=how.hard_pixels), classes, shares_of, isinstance(net, Domained))
        seed = how.seed + 1000 * number + place
        plan = Plan(how.steps, how.lr, how.weight_decay, schedule="cosine", every=how.steps, seed=seed, precision=how.precision)
        size = how.batch * (2 if self.source else 1)
        ended = train(
            net, objective, Batches(mixed, learning, mixed, size, seed=seed, augment=Augment(), domains=domains),
            Batches(mixed, checking, mixed, size), plan, own,
        )  # fmt: skip
        net.eval()
        checkpoint.write(self._kept(number, place), net, None, {})
        last = ended.history[-1]
        for file in own.glob("*.safetensors"):
            file.unlink()
        f1 = last.get("f1", last["macro_f1"])
        return {"loss": last["loss"], "source_f1" if self.source else "label_f1": None if math.isnan(f1) else f1}

    def _kept(self, number: int, place: int) -> Path:
        return self.folder / f"round-{number}" / f"network-{place}.safetensors"

    def recall(self, nets: Sequence[Model | Domained], number: int) -> None:
        """Puts the networks where a round left them."""
        for place, net in enumerate(nets):
            if self._kept(number, place).is_file():  # a round that drifted has none
                checkpoint.read(self._kept(number, place), net)
                net.eval()


@dataclass(frozen=True, eq=False)
class _Mixed:
    """Chips of the source and crops of the target as one source of batches, each on its own level."""

    target: Mapping[str, Chip] = field(repr=False)
    level: Normal
    source: Labelled | None = field(repr=False)

    def ids(self, split: str) -> list[str]:
        return list(self.target)

    def read(self, id: str) -> Chip:
        if id in self.target:
            return self.target[id]
        assert self.source is not None
        return self.source.chips.read(id)

    def of(self, chip: Chip) -> F32:
        return (self.level if chip.domain == TARGET or self.source is None else self.source.normaliser).of(chip)
