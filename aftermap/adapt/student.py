"""The networks of an adaptation: one student, three times with statistics of batch norm of its own, its teacher and its heads.

A pass with a gradient normalises by its own batch, as in training: by statistics that stay, nothing bounds features that an
adversary drives. So the network that learns from the target, the one that learns from the source and the one that maps share
every weight and no statistic.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from aftermap.model import Model
from aftermap.objectives.bidirectional import CHARACTERISTICS
from aftermap.surgery import bands_last
from aftermap.torchdoor import Tensor, nn, torch

_HIDDEN, _DROPPED = 256, 0.5


@dataclass(frozen=True, eq=False)
class Networks:
    """All in eval, but for the heads and, where the statistics are free, for batch norm of the two that learn."""

    student: Model
    """What maps: its statistics are moved by `observe` alone."""
    target: Model
    """The student's weights, for gradients from the target."""
    source: Model
    """The student's weights with the statistics of the source, for its gradients and to see what it still maps there."""
    teacher: Model
    heads: nn.ModuleDict
    """Readers of pooled features: one for each characteristic, and the adversary."""
    half: bool = False
    """Whether layers run in bfloat16."""

    @property
    def device(self) -> torch.device:
        """Where the student is."""
        return next(self.student.parameters()).device

    def run(self, call: Callable[[Any], Any], given: Any) -> Any:
        """A pass of one of the networks or of a part of it."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            return call(given)


def networks(model: Model, *, free: bool = True, half: bool = False) -> Networks:
    """All of them equal to a copy of `model`, statistics `free` or the source's for good; heads drawn by torch's generator."""
    student = deepcopy(model).eval()
    bands_last(student)
    dates = len(model.spec.bands) if model.spec.fusion == "siamese" else 1
    encoder: Any = student.encoder
    channels = dates * int(encoder.out_channels[-1])
    adversary = nn.Sequential(nn.Linear(channels, _HIDDEN), nn.ReLU(), nn.Dropout(_DROPPED), nn.Linear(_HIDDEN, 1))
    linear = {name: nn.Linear(channels, width) for name, width in CHARACTERISTICS.items()}
    heads = nn.ModuleDict({"adversary": adversary, **linear}).to(next(student.parameters()).device)
    target, source = (live(sibling(student), free) for _ in range(2))
    return Networks(student, target, source, deepcopy(student).requires_grad_(False), heads, half)


def sibling(model: Model) -> Model:
    """The very same weights, with statistics of batch norm of its own that start as the model's."""
    return deepcopy(model, {id(p): p for p in model.parameters()})


def norms(model: nn.Module) -> list[nn.Module]:
    """Its layers of batch norm."""
    return [part for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]


def live(model: Model, on: bool) -> Model:
    """Batch norm by the batch, whose statistics it remembers, or by the remembered ones; all else stays in eval."""
    for layer in norms(model):
        layer.train(on)
    return model


@torch.no_grad()
def observe(nets: Networks, pixels: Tensor) -> None:
    """Moves the student's statistics of batch norm by a batch, and nothing else."""
    student = live(nets.student, True)
    nets.run(student if norms(student.decoder) else student.features, pixels)
    live(student, False)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """Weights: `decay` of the teacher's and the rest of the student's. Statistics of batch norm: the student's."""
    for mine, own in zip(teacher.parameters(), student.parameters(), strict=True):
        mine.lerp_(own, 1 - decay)
    for kept, moved in zip(teacher.buffers(), student.buffers(), strict=True):
        kept.copy_(moved)
