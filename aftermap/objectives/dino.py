"""Self-distillation without labels: a student sees any view, its slowly following teacher the large ones, and both should agree.

Caron et al. 2021 (arXiv 2104.14294, equations 1 to 3 and section 3.1), with views that mean something for radar (methods.md E.1).
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap.encoders import build as encoder_of
from aftermap.model import Model
from aftermap.multicrop import Bands, Light, boxes, cut, one_band, repeated, spread, spread_sums
from aftermap.torchdoor import Tensor, functional, nn, torch

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Settings:
    """Of a recipe's train.settings."""

    prototypes: int = 4096
    """65,536 in the paper, for a million pictures."""
    hidden: int = 2048
    bottleneck: int = 256
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    centre_momentum: float = 0.9
    momentum: float = 0.996
    """Of the teacher, at first; 1 at last, by half a cosine."""
    frozen: int = 0
    """Steps in which the last layer does not learn: an epoch in the paper."""
    drop_path: float = 0.1
    local: int = 8
    """Small views beside the two large ones."""
    local_px: int = 0
    """Their side; 0: 96/224 of the chip's, in whole patches."""
    global_area: tuple[float, ...] = (0.4, 1.0)
    local_area: tuple[float, ...] = (0.05, 0.4)
    tilt: float = 10.0
    speckle: float = 0.5
    gain_db: float = 1.0
    jitter: float = 0.5
    permute: float = 0.5
    groups: tuple[tuple[int, ...], ...] = ()


class Head(nn.Module):
    """Class tokens (n, width) -> scores of prototypes (n, prototype): three layers, unit length, and rows of unit length."""

    def __init__(self, width: int, settings: Settings):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, settings.hidden), nn.GELU(), nn.Linear(settings.hidden, settings.hidden), nn.GELU(),
            nn.Linear(settings.hidden, settings.bottleneck),
        )  # fmt: skip
        self.prototypes = nn.Parameter(torch.empty(settings.prototypes, settings.bottleneck))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        nn.init.trunc_normal_(self.prototypes, std=0.02)

    def forward(self, tokens: Tensor, *, frozen: bool = False) -> Tensor:
        """As the class says; `frozen`: prototypes get no gradient."""
        rows = self.prototypes.detach() if frozen else self.prototypes
        return functional.linear(functional.normalize(self.layers(tokens), dim=1), functional.normalize(rows, dim=1))


class Distilled(nn.Module):
    """Views (n, band, y, x) -> scores of prototypes, of the student or of the teacher, whose encoder is that of `model`."""

    centre: Tensor
    step: Tensor

    def __init__(self, model: Model, settings: Settings, side: int):
        super().__init__()
        self.model, self.settings = model, settings
        encoder: Any = model.encoder
        bands = encoder.transformer.patch_embed.proj.in_channels
        self.student = encoder_of(model.spec.encoder, bands, side=model.spec.side, drop_path=settings.drop_path)
        self.student.load_state_dict(encoder.state_dict())
        self.head = Head(encoder.out_channels[-1], settings)
        self.teacher_head = deepcopy(self.head)
        for part in (self.model, self.teacher_head):
            part.requires_grad_(False)
        patch = int(encoder.output_stride)
        self.local_px = settings.local_px or max(patch, round(side * 96 / 224 / patch) * patch)
        self.centre = nn.Buffer(torch.zeros(1, settings.prototypes))
        self.step = nn.Buffer(torch.zeros((), dtype=torch.long))

    def forward(self, views: Tensor) -> Tensor:
        """The student's."""
        frozen = int(self.step) < self.settings.frozen
        scores: Tensor = self.head(self.student(views)[1].flatten(1), frozen=frozen)
        return scores

    @torch.no_grad()
    def taught(self, views: Tensor) -> Tensor:
        """The teacher's."""
        scores: Tensor = self.teacher_head(self.model.encoder(views)[1].flatten(1))
        return scores

    @torch.no_grad()
    def follow(self, steps: int) -> None:
        """The teacher moves towards what the student has become; momentum rises to 1 over so many steps."""
        t = min(1.0, int(self.step) / max(1, steps))
        momentum = 1 - (1 - self.settings.momentum) * (math.cos(math.pi * t) + 1) / 2
        pairs = ((self.model.encoder, self.student), (self.teacher_head, self.head))
        for teacher, student in pairs:
            for own, new in zip(teacher.parameters(), student.parameters(), strict=True):
                own.lerp_(new.to(own), 1 - momentum)

    @torch.no_grad()
    def recentre(self, taught: Tensor) -> None:
        """The centre moves towards the mean of what the teacher said (paper, equation 4)."""
        mean = taught.float().mean(dim=0, keepdim=True)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(mean)
            mean = mean / torch.distributed.get_world_size()
        self.centre.lerp_(mean, 1 - self.settings.centre_momentum)
        self.step += 1


@dataclass(frozen=True)
class Agreement:
    """Cross entropy of the student's views with the teacher's large ones, over all pairs of different views."""

    bands: Bands
    settings: Settings
    steps: int
    each: bool = False
    """Whether the encoder reads one band, drawn at random for each view."""

    def __call__(self, model: nn.Module, batch: Batch) -> Batch:
        """{"loss": scalar}; of a network that learns, its teacher follows the last step first."""
        net: Any = model
        if model.training and int(net.step):
            net.follow(self.steps)
        with repeated(model):
            large, small = self._views(net, batch["pixels"])
            said = [*net(torch.cat(large)).chunk(len(large)), *(net(torch.cat(small)).chunk(len(small)) if small else ())]
        taught = net.taught(torch.cat(large))
        sharp = functional.softmax((taught.float() - net.centre) / self.settings.teacher_temperature, dim=1).chunk(len(large))
        if model.training:
            net.recentre(taught)
        return {"loss": cross_views(sharp, said, self.settings.student_temperature)}

    def _views(self, net: Any, pixels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        own, n = self.settings, len(pixels)
        light = Light(own.speckle, gain_db=own.gain_db, jitter=own.jitter, permute=own.permute, groups=own.groups)
        lights = (light, replace(light, blur=1.0))  # one of the large views is blurred
        drawn = [(own.global_area, pixels.shape[2], lights[k]) for k in range(2)]
        drawn += [(own.local_area, net.local_px, light)] * own.local
        views = [how(cut(pixels, boxes(n, (area[0], area[-1]), tilt=own.tilt), side), self.bands) for area, side, how in drawn]
        views = [one_band(view) for view in views] if self.each else views
        return views[:2], views[2:]

    def sums(self, model: nn.Module, batch: Batch) -> Tensor:
        """As multicrop.spread_sums, of the teacher."""
        return spread_sums(model.model(batch["pixels"]))  # type: ignore[operator]

    def scores(self, sums: npt.NDArray[np.float64]) -> dict[str, float]:
        """{"spread": how much embeddings differ}: near 0 it has collapsed."""
        return {"spread": spread(sums)}


def cross_views(sharp: tuple[Tensor, ...], said: list[Tensor], temperature: float) -> Tensor:
    """Mean of -sum(p log q) over pairs of one large view of the teacher, p (n, prototype), and another view of the student."""
    logs = [functional.log_softmax(one.float() / temperature, dim=1) for one in said]
    pairs = [-(p * logs[j]).sum(dim=1).mean() for i, p in enumerate(sharp) for j in range(len(logs)) if i != j]
    return torch.stack(pairs).mean()


def prepare(models: dict[str, Model], bands: Bands, settings: Settings, steps: int) -> tuple[Distilled, Agreement]:
    """The network that learns, and what it is trained for; `models` holds the one that is kept, the teacher."""
    (model,) = models.values()
    return Distilled(model, settings, model.spec.side), Agreement(bands, settings, steps, model.spec.fusion == "each")
