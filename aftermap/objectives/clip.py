"""Contrast across modalities: an encoder for each, and the embeddings of one place alike whatever it was seen with.

Radford et al. 2021 (arXiv 2103.00020), as Allen et al. 2023 (arXiv 2310.00119) have it for radar, coherence and optical images:
one band at a time, every pair of modalities that is there (methods.md F).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap.model import Model, varied
from aftermap.multicrop import Bands, Light, boxes, cut, one_band, repeated, spread, spread_sums
from aftermap.torchdoor import Tensor, functional, nn, torch

Batch = dict[str, Tensor]
SHARPEST = 100.0
FIRST_TEMPERATURE = 0.07


@dataclass(frozen=True)
class Settings:
    """Of a recipe's train.settings."""

    width: int = 512
    """Of an embedding."""
    drop: float = 0.0
    """How often a modality of a chip is left out in training."""
    crop: float = 0.6
    """Least share of the image in a view, the same for all modalities."""
    speckle: float = 0.0
    gain_db: float = 0.0
    jitter: float = 0.0


class Paired(nn.Module):
    """Normalised pixels (n, band, y, x) of a modality -> embeddings (n, width) of unit length."""

    def __init__(self, models: dict[str, Model]):
        super().__init__()
        self.models = nn.ModuleDict(models)
        self.scale = nn.Parameter(torch.tensor(math.log(1 / FIRST_TEMPERATURE)))

    def forward(self, modality: str, pixels: Tensor) -> Tensor:
        """As the class says."""
        return functional.normalize(self.models[modality](pixels).float(), dim=1)


@dataclass(frozen=True)
class AcrossModalities:
    """Symmetric InfoNCE of every pair of modalities, over the chips that have both."""

    bands: Bands
    settings: Settings

    def __call__(self, model: nn.Module, batch: Batch) -> Batch:
        """{"loss": scalar}, ln(n) where nothing is known yet."""
        with repeated(model):
            found = self._embedded(model, batch["pixels"])
        net: Any = model
        scale = net.scale.exp().clamp(max=SHARPEST)
        each = [
            symmetric(a[both], b[both], scale)
            for (a, here), (b, there) in combinations(found, 2)
            if (both := here & there).sum() > 1
        ]
        nothing = torch.stack([a.sum() for a, _ in found]).sum() * 0 + net.scale * 0
        return {"loss": torch.stack(each).mean() + nothing if each else nothing}

    def _embedded(self, model: nn.Module, pixels: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Of each modality the embeddings (n, width), and where it is there (n,)."""
        own, n, net = self.settings, len(pixels), model
        if model.training:
            pixels = cut(pixels, boxes(n, (own.crop, 1)), pixels.shape[2])
            pixels = Light(own.speckle, gain_db=own.gain_db, jitter=own.jitter, grey=0)(pixels, self.bands)
        found = []
        for layer in self.bands.layers:
            view = pixels[:, self.bands.places(layer)]
            here = varied(view).any(dim=1)
            if model.training:
                here = here & (torch.rand(n) >= own.drop).to(here.device)
            spec: Any = net.models[layer].spec  # type: ignore[index, union-attr]
            view = one_band(view) if spec.fusion == "each" else view
            found.append((net(layer, view), here))
        return found

    def sums(self, model: nn.Module, batch: Batch) -> Tensor:
        """As multicrop.spread_sums, of each modality, one after the other."""
        net: Any = model
        each = [net(layer, batch["pixels"][:, self.bands.places(layer)]) for layer in self.bands.layers]
        return torch.cat([spread_sums(one) for one in each])

    def scores(self, sums: npt.NDArray[np.float64]) -> dict[str, float]:
        """{"spread": how much embeddings differ, the least of the modalities}."""
        return {"spread": min(spread(part) for part in np.split(sums, len(self.bands.layers)))}


def symmetric(a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    """Half of both cross entropies of telling which of b (n, d), unit length, belongs to each of a, and the other way round."""
    scores, own = scale * a @ b.T, torch.arange(len(a), device=a.device)
    return (functional.cross_entropy(scores, own) + functional.cross_entropy(scores.T, own)) / 2


def prepare(models: dict[str, Model], bands: Bands, settings: Settings, steps: int) -> tuple[Paired, AcrossModalities]:
    """The network that learns, and what it is trained for; `models` holds one for each modality, and all are kept."""
    return Paired(models), AcrossModalities(bands, settings)
