"""Masked autoencoding: most patches are hidden, and their pixels told from the few that are seen.

He et al. 2022 (arXiv 2111.06377), as Allen et al. 2023 (arXiv 2310.00826) have it for radar: one decoder layer, the mean squared
error of hidden patches alone, as they are normalised (methods.md D.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap.model import Model
from aftermap.multicrop import Bands, Light, boxes, cut, one_band, repeated, seen, spread, spread_sums
from aftermap.torchdoor import Block, Tensor, functional, nn, torch
from aftermap.vit import EPS

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Settings:
    """Of a recipe's train.settings."""

    mask: float = 0.75
    """Share of tokens, the class token among them, that are hidden."""
    norm_pix: bool = False
    """Whether a patch's pixels are told relative to its own mean and std."""
    width: int = 512
    depth: int = 1
    heads: int = 16
    """Of the decoder."""
    crop: float = 0.08
    """Least share of the image that is seen in training; 1: all of it, in place."""
    flip: float = 0.0
    permute: float = 0.0
    groups: tuple[tuple[int, ...], ...] = ()
    """As Light: bands that may change places, seasons of one polarisation."""


class Masked(nn.Module):
    """Pixels (n, band, y, x) -> what each patch is told to be (n, patch, band patch patch), and which are hidden (n, patch)."""

    def __init__(self, model: Model, settings: Settings):
        super().__init__()
        self.model, self.settings = model, settings
        encoder: Any = model.encoder
        transformer, size = encoder.transformer, encoder.output_stride
        bands, width = transformer.patch_embed.proj.in_channels, settings.width
        self.patch, cells = size, transformer.patch_embed.num_patches
        self.enter = nn.Linear(transformer.embed_dim, width)
        self.hidden = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.zeros(1, 1 + cells, width))
        norm: Any = partial(nn.LayerNorm, eps=EPS)
        self.layers = nn.Sequential(
            *(Block(width, settings.heads, qkv_bias=True, norm_layer=norm) for _ in range(settings.depth)), norm(width)
        )
        self.leave = nn.Linear(width, size * size * bands)
        for free in (self.hidden, self.places):
            nn.init.normal_(free, std=0.02)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """As the class says; ranks of uniform noise say what is hidden."""
        encoder: Any = self.model.encoder
        cells = (pixels.shape[2] // self.patch) * (pixels.shape[3] // self.patch)
        order = torch.rand(len(pixels), cells).argsort(dim=1).to(pixels.device)
        kept = order[:, : max(1, int((cells + 1) * (1 - self.settings.mask)) - 1)]  # the class token is always seen
        found = self.enter(encoder.tokens(pixels, kept))
        every = self.hidden.to(found.dtype).expand(len(pixels), cells, -1).clone()
        every = every.scatter(1, kept[..., None].expand(-1, -1, every.shape[2]), found[:, 1:])
        every = torch.cat([found[:, :1], every], dim=1) + self.places
        told = self.leave(self.layers(every)[:, 1:])
        return told, torch.ones(len(pixels), cells, dtype=torch.bool, device=pixels.device).scatter(1, kept, False)


def patches(pixels: Tensor, size: int) -> Tensor:
    """Pixels (n, band, y, x) by patch (n, patch, band size size), band after band."""
    return functional.unfold(pixels, size, stride=size).transpose(1, 2)


@dataclass(frozen=True)
class MaskedPatches:
    """Mean squared error of hidden patches; pixels that are not valid count in none."""

    bands: Bands
    settings: Settings
    each: bool = False
    """Whether the encoder reads one band, drawn at random."""

    def __call__(self, model: nn.Module, batch: Batch) -> Batch:
        """{"loss": scalar}."""
        with repeated(model):
            pixels, valid = self._view(model, batch)
            told, hidden = model(pixels)
        side = int(model.patch)  # type: ignore[arg-type]
        wanted, known = patches(pixels, side), patches(valid[:, None].float().expand_as(pixels), side) > 0
        if self.settings.norm_pix:
            wanted = (wanted - wanted.mean(dim=2, keepdim=True)) / (wanted.var(dim=2, keepdim=True) + 1e-6).sqrt()
        counted = hidden[..., None] & known
        squared = (told.float() - wanted.float()) ** 2
        return {"loss": (squared * counted).sum() / counted.sum().clamp(min=1)}

    def _view(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        pixels, valid, own = batch["pixels"], batch["valid"], self.settings
        if model.training:
            box, side = boxes(len(pixels), (own.crop, 1), flip=own.flip), pixels.shape[2]
            pixels, valid = cut(pixels, box, side), seen(valid, box, side)
            pixels = Light(0, gain_db=0, jitter=0, grey=0, permute=own.permute, groups=own.groups)(pixels, self.bands)
        return one_band(pixels) if self.each else pixels, valid

    def sums(self, model: nn.Module, batch: Batch) -> Tensor:
        """As multicrop.spread_sums."""
        return spread_sums(model.model(batch["pixels"]))  # type: ignore[operator]

    def scores(self, sums: npt.NDArray[np.float64]) -> dict[str, float]:
        """{"spread": how much embeddings differ}."""
        return {"spread": spread(sums)}


def prepare(models: dict[str, Model], bands: Bands, settings: Settings, steps: int) -> tuple[Masked, MaskedPatches]:
    """The network that learns, and what it is trained for; `models` holds the one that is kept."""
    (model,) = models.values()
    return Masked(model, settings), MaskedPatches(bands, settings, model.spec.fusion == "each")
