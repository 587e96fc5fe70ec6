"""Bidirectional adaptation: a network taught by unlabelled crops of a target, alternating two steps (methods.md A'.2).

Forward step: keep the source right (replay), agree with a slow copy of itself on another view, and name place, date and sensor.
Backward step: an adversary reads the domain from the features, which learn to hide it. Labels of the target are never seen.

The statistics of batch norm that map are moved by weak views of the target alone, once an iteration, whatever the arms, so that
arms compare; those of the source are kept apart (student.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np

from aftermap.adapt import views
from aftermap.adapt.failing import failure, measure
from aftermap.adapt.student import Networks, follow, networks, norms, observe
from aftermap.adapt.views import Crop
from aftermap.batches import Batch, Batches
from aftermap.errors import InputRefusedError, UnknownNameError, UsageError
from aftermap.losses import UNKNOWN, Sum
from aftermap.model import Model
from aftermap.objectives import bidirectional as terms
from aftermap.objectives.bidirectional import Metadata
from aftermap.torchdoor import Tensor, functional, nn, torch

ARMS = ("forward", "backward", "aux", "bdi")
ADVERSARIES = ("domain", "nat_art")
PRECISIONS = ("fp32", "bf16")
LITERAL = {
    "literal": True, "batch": 32, "lr_encoder": 0.01, "lr_heads": 0.01, "weight_decay": 0.0, "clip": 0.0, "forward_ramp": 0,
    "mask_margin": 0.0,
}  # fmt: skip
"""Paper 001 as it prints its settings: `Bidirectional(**LITERAL)`."""
_BOUNDS = {
    "iterations": (1, math.inf), "batch": (2, math.inf), "lr_encoder": (0, math.inf), "lr_heads": (0, math.inf),
    "weight_decay": (0, math.inf), "clip": (0, math.inf), "replay": (0, math.inf), "aux": (0, math.inf), "adverse": (0, math.inf),
    "forward_ramp": (0, math.inf), "decay": (0, 1), "mask_margin": (0, 1), "every": (1, math.inf), "seed": (0, math.inf),
}  # fmt: skip
Said = Callable[[int, int, dict[str, float]], None]
"""Told (iteration, iterations, numbers) after every iteration; there are numbers where it was checked."""


@dataclass(frozen=True)
class Bidirectional:
    """How a network is adapted; with its weights, the crops and the source it determines the result."""

    arms: tuple[str, ...] = ("forward", "backward", "aux")
    """Any of ARMS; none leaves batch norm and replay. bdi: linear probes in closed form, an arm of its own."""
    batch_norm: bool = True
    """Whether the statistics of batch norm follow the target; else they stay the source's."""
    adversary: str = "domain"
    """What the backward arm hides: source against target, or "nat_art", the 0 or 1 that chips of the source have as `target`."""
    iterations: int = 1000
    batch: int = 8
    """Crops of the target, and chips of the source, per iteration."""
    lr_encoder: float = 1e-5
    lr_heads: float = 1e-4
    """Of all that is not the encoder."""
    weight_decay: float = 1e-6
    clip: float = 1.0
    """Largest norm of the gradient; 0 for none."""
    replay: float = 1.0
    """Weight of the loss on labelled chips of the source; 0 leaves it out."""
    aux: float = 0.1
    """Weight of the aux arm, mu."""
    adverse: float = 0.1
    """Weight of the backward arm at the end, lambda, rising as in Ganin & Lempitsky (2015); and that of bdi's backward loss."""
    forward_ramp: int = 200
    """Iterations until the forward arm has the weight 1."""
    decay: float = 0.999
    """Of the teacher: its weights are so much of themselves and the rest of the student's, after every iteration."""
    mask_margin: float = 0.1
    """Pixels whose teacher's score is so near its 95th percentile of the image teach nothing; 0 for none."""
    every: int = 50
    """Iterations between failure checks."""
    seed: int = 0
    precision: str = "fp32"
    """As of train.Plan."""
    literal: bool = False
    """As paper 001 prints it: Adam, -lambda times the adversary's loss without reversal, cosines as distances. It diverges."""

    def __post_init__(self) -> None:
        for arm in self.arms:
            if arm not in ARMS:
                raise UnknownNameError("arm", arm, ARMS)
        if self.adversary not in ADVERSARIES:
            raise UnknownNameError("adversary", self.adversary, ADVERSARIES)
        if self.precision not in PRECISIONS:
            raise UnknownNameError("precision", self.precision, PRECISIONS)
        for name, (least, most) in _BOUNDS.items():
            if not least <= getattr(self, name) <= most:
                upto = f" and at most {most:g}" if math.isfinite(most) else ""
                raise UsageError(f"{name} is {getattr(self, name)}", repair=f"give at least {least}{upto}")

    @property
    def needs_source(self) -> str:
        """What of this needs images of the source, in words; empty where nothing does."""
        wanted = [f"the arm {arm}" for arm in ("backward", "bdi") if arm in self.arms]
        return " and ".join([*wanted, *(["replay"] if self.replay else [])])

    def weights(self, iteration: int) -> dict[str, float]:
        """Of each loss, from 0 on."""
        forward = min(1.0, iteration / self.forward_ramp) if self.forward_ramp else 1.0
        risen = 2 / (1 + math.exp(-10 * iteration / self.iterations)) - 1
        backward = -self.adverse if self.literal else self.adverse * risen
        return {"source": self.replay, "forward": forward, "aux": self.aux, "backward": backward,
                "bdi_forward": 1.0, "bdi_backward": self.adverse}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Adapted:
    """Where an adaptation ended."""

    model: Model
    """In eval; as of the last check that it passed, or the network given."""
    iterations: int
    """After which the model was taken."""
    history: list[dict[str, float]]
    """A row per check, the first before anything: `iteration` and what failing.measure gives. The losses of the arms, unweighted,
    are means since the row before, as are `certain`, the share of pixels that the teacher taught, and `adversary_accuracy`."""
    stopped: str
    """What ended it early: "score collapse", "source dice fell", "not finite"; else empty."""


@dataclass(frozen=True, eq=False)
class _Seen:
    """What an iteration sees, on the network's device."""

    weak: Tensor
    strong: Tensor
    valid: Tensor
    told: dict[str, Tensor]
    source: Batch | None


def adapt(
    model: Model, target: Sequence[Crop], source: Batches | None, loss: Sum | None, how: Bidirectional,
    *, source_validation: Batches | None = None, metadata: Sequence[Metadata] | None = None, said: Said = lambda *_: None,
) -> Adapted:  # fmt: skip
    """The network given, which stays as it is, taught by crops of the target (pixels normalised as the source's, valid).

    Without `source` it is source-free, for arms that need none and replay 0. It runs where the network is.

    Raises InputRefusedError ("chip-sizes", "no-batch-norm", "no-chips"), UsageError.
    """
    _refuse(model, target, source, loss, how, metadata)
    drawn = replace(source, size=how.batch).training(range(how.iterations)) if source and how.needs_source else None
    told = terms.described(metadata) if metadata and "aux" in how.arms else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)
        nets = networks(model, free=how.batch_norm, half=how.precision == "bf16")
        optimiser = _optimiser(nets, how)
        history = [_row(0, _names(how), []) | measure(nets, target, source_validation)]
        kept, taken, stopped, found = deepcopy(nets.student.state_dict()), 0, "", list[dict[str, float]]()
        for i in range(how.iterations):
            torch.manual_seed(_seed(how.seed, i))  # dropout of the adversary
            found.append(_iterate(nets, optimiser, _see(nets, target, drawn, told, how, i), loss, how, i))
            broken = not all(map(math.isfinite, found[-1].values()))
            if (i + 1) % how.every and i + 1 < how.iterations and not broken:
                said(i + 1, how.iterations, {})
                continue
            history.append(_row(i + 1, _names(how), found) | measure(nets, target, source_validation))
            found.clear()
            said(i + 1, how.iterations, history[-1])
            if stopped := "not finite" if broken else failure(history[-1], history[0]):
                break
            kept, taken = deepcopy(nets.student.state_dict()), i + 1
    nets.student.load_state_dict(kept)
    nets.student.zero_grad()
    return Adapted(nets.student, taken, history, stopped)


def _refuse(
    model: Model, target: Sequence[Crop], source: Batches | None, loss: Sum | None, how: Bidirectional,
    metadata: Sequence[Metadata] | None,
) -> None:  # fmt: skip
    """What cannot be done, before anything is."""
    if model.spec.decoder == "pool":
        raise UsageError("this network has one score for an image, no map", repair="adapt a network that maps")
    if how.batch_norm and not norms(model):
        raise InputRefusedError("this network has no batch norm", repair="set batch_norm = false", code="no-batch-norm")
    if not target:
        raise UsageError("there is no crop to adapt to", repair="give scenes with observed ground", code="no-chips")
    shapes = {tuple(valid.shape) for _, valid in target}
    if len(shapes) > 1 or any(side % model.spec.multiple_of for side in next(iter(shapes))):
        what = f"crops of the target are {', '.join(map(str, sorted(shapes)))} px"
        raise InputRefusedError(what, repair=f"give crops of one size, multiples of {model.spec.multiple_of}", code="chip-sizes")
    if how.needs_source and source is None:
        what = f"{how.needs_source} cannot do without images of the source"
        raise UsageError(what, repair="give the data that the network was trained on, or set replay = 0 and leave out those arms")
    if how.replay and loss is None:
        raise UsageError("replay wants the loss that the network was trained with", repair="give it, or set replay = 0")
    if "aux" in how.arms and not any(one != Metadata() for one in metadata or ()):
        what = "nothing is known of where, when or by what the target was imaged, and the arm aux learns only that"
        raise UsageError(what, repair="give metadata, or leave out the arm aux")
    if metadata is not None and len(metadata) != len(target):
        raise UsageError(f"there are {len(target)} crops and metadata of {len(metadata)}", repair="give one for each crop")


def _optimiser(nets: Networks, how: Bidirectional) -> torch.optim.Optimizer:
    """One for both steps: in one of its own, Adam would divide the weight of the backward arm out again."""
    encoder = list(nets.student.encoder.parameters())
    rest = [*nets.student.decoder.parameters(), *nets.student.head.parameters(), *nets.heads.parameters()]
    groups = [{"params": encoder, "lr": how.lr_encoder}, {"params": rest, "lr": how.lr_heads}]
    kind = torch.optim.Adam if how.literal else torch.optim.AdamW
    return kind(groups, weight_decay=how.weight_decay)


def _see(
    nets: Networks, target: Sequence[Crop], drawn: Iterator[Batch] | None, told: dict[str, Tensor], how: Bidirectional, i: int
) -> _Seen:  # fmt: skip
    """The batches of an iteration, which are a function of seed and iteration."""
    weak, valid, places = views.weak(target, how.seed, i, how.batch)
    strong = views.strong(weak, valid, torch.Generator().manual_seed(_seed(how.seed, i, 1)))
    source = None if drawn is None else {k: v.to(nets.device) for k, v in next(drawn).items()}
    known = {name: values[places].to(nets.device) for name, values in told.items()}
    return _Seen(_last(weak, nets), _last(strong, nets), valid.to(nets.device), known, source)


def _last(pixels: Tensor, nets: Networks) -> Tensor:
    """On the network's device, bands last in memory."""
    return pixels.to(nets.device, memory_format=torch.channels_last)


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _iterate(
    nets: Networks, optimiser: torch.optim.Optimizer, seen: _Seen, loss: Sum | None, how: Bidirectional, i: int
) -> dict[str, float]:
    """Statistics, the forward step, the backward step, the teacher; gives the losses."""
    weights = how.weights(i)
    if how.batch_norm:
        observe(nets, seen.weak)
    losses, numbers = _forward(nets, seen, loss, how)
    fine = _descend(nets, optimiser, losses, weights, how.clip)
    if fine and "backward" in how.arms:
        losses["backward"], numbers["adversary_accuracy"] = _backward(nets, seen, how)
        fine = _descend(nets, optimiser, {"backward": losses["backward"]}, weights, how.clip)
    follow(nets.teacher, nets.student, how.decay)
    return {name: value.item() for name, value in losses.items()} | numbers | ({} if fine else {"broken": math.inf})


def _forward(nets: Networks, seen: _Seen, loss: Sum | None, how: Bidirectional) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Losses of the forward step, unweighted, and what else is worth knowing of them."""
    losses: dict[str, Tensor] = {}
    numbers: dict[str, float] = {}
    if how.replay and seen.source and loss:
        losses["source"] = loss(nets.run(nets.source, seen.source["pixels"]).float(), _truth(seen.source))
    if {"forward", "aux"} & set(how.arms):
        features = nets.run(nets.target.features, seen.strong)
    if "forward" in how.arms:
        with torch.no_grad():
            taught = nets.run(nets.teacher, seen.weak)
        found = nets.run(nets.target.logits, features)
        losses["forward"], numbers["certain"] = terms.consistency(found, taught, seen.valid, margin=how.mask_margin)
    if "aux" in how.arms:
        pooled = terms.pooled(features[-1], seen.valid)
        read = {name: nets.heads[name](pooled) for name in terms.CHARACTERISTICS}
        losses["aux"] = terms.characteristics(read, seen.told, distance=not how.literal)
    if "bdi" in how.arms:
        assert seen.source is not None
        known, labels = _probed(nets, nets.source, seen.source["pixels"], _truth(seen.source))
        blind, _ = _probed(nets, nets.target, seen.weak, torch.where(seen.valid, 0, UNKNOWN))
        losses["bdi_forward"], losses["bdi_backward"] = terms.closed_form(known, labels, blind)
    return losses, numbers


def _probed(nets: Networks, model: Model, pixels: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """What the head reads (p, channel) where a code is known, and the share of each class there (p, class); codes (n, y, x)."""
    found = nets.run(lambda given: model.decoder(model.features(given)), pixels).float()
    classes = range(1, 2) if model.spec.outputs == 1 else range(model.spec.outputs)
    planes = torch.stack([codes != UNKNOWN, *(codes == one for one in classes)], dim=1).float()
    share = functional.interpolate(planes, found.shape[-2:], mode="area").movedim(1, -1)  # (n, y, x, known and class)
    seen = share[..., 0] > 0
    return found.movedim(1, -1)[seen], share[seen][:, 1:] / share[seen][:, :1]


def _backward(nets: Networks, seen: _Seen, how: Bidirectional) -> tuple[Tensor, float]:
    """The adversary's cross entropy and how often it is right; through reversed gradients to the encoder."""
    assert seen.source is not None
    given = terms.pooled(nets.run(nets.source.features, seen.source["pixels"])[-1], seen.source["valid"])
    if how.adversary == "nat_art":
        if "target" not in seen.source:
            what = "chips of the source have no label natural or artificial, which this adversary reads"
            raise InputRefusedError(what, repair='take chips with such labels, or adversary = "domain"', code="no-labels")
        features, labels = given, seen.source["target"].float()
    else:
        other = terms.pooled(nets.run(nets.target.features, seen.weak)[-1], seen.valid)
        features = torch.cat([given, other])
        labels = torch.cat([given.new_zeros(len(given)), other.new_ones(len(other))])
    logits = nets.heads["adversary"](features if how.literal else terms.reverse(features))[:, 0]
    right = ((logits > 0) == (labels > 0.5)).float().mean()
    return functional.binary_cross_entropy_with_logits(logits, labels), float(right)


def _descend(
    nets: Networks, optimiser: torch.optim.Optimizer, losses: dict[str, Tensor], weights: dict[str, float], clip: float
) -> bool:
    """A step down the weighted sum; False, and no step, where it or its gradient is not finite."""
    if not losses:
        return True
    total = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
    optimiser.zero_grad()
    total.backward()  # type: ignore[no-untyped-call]
    both = [*nets.student.parameters(), *nets.heads.parameters()]
    norm = nn.utils.clip_grad_norm_(both, clip or math.inf)
    if not bool(torch.isfinite(total) & torch.isfinite(norm)):
        return False
    optimiser.step()
    return True


def _names(how: Bidirectional) -> list[str]:
    """Of the numbers that an iteration gives."""
    of_arm = {"forward": ["forward", "certain"], "backward": ["backward", "adversary_accuracy"], "aux": ["aux"],
              "bdi": ["bdi_forward", "bdi_backward"]}  # fmt: skip
    return [*(["source"] if how.replay else []), *(name for arm in how.arms for name in of_arm[arm])]


def _row(iteration: int, names: list[str], found: list[dict[str, float]]) -> dict[str, float]:
    """Means since the row before."""
    values = {name: [one[name] for one in found if name in one] for name in names}
    return {"iteration": float(iteration)} | {k: math.fsum(v) / len(v) if v else math.nan for k, v in values.items()}


def _truth(batch: Batch) -> Tensor:
    return batch["truth"].masked_fill(~batch["valid"], UNKNOWN)
