"""Contrast of views: two views of one chip alike, of others not; of places within chips too; and elevation told from the image.

SimCLR (Chen et al. 2020, arXiv 2002.05709), GLCNet (Li et al. 2022, arXiv 2106.14768) and elevation as a second question (Castano
et al. 2023, arXiv 2304.06857); weights and layers of the released code (methods.md G.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap.model import Model
from aftermap.multicrop import Bands, Light, boxes, cut, repeated, seen, spread, spread_sums, within
from aftermap.torchdoor import Tensor, functional, nn, smp, torch

Batch = dict[str, Tensor]
UP = 3
"""Steps that the two decoders go up from the deepest features: to a quarter of the image's side."""
WIDTHS = (256, 128, 64)
LATTICE = 4
"""Points across a region that its mean is of."""


@dataclass(frozen=True)
class Settings:
    """Of a recipe's train.settings."""

    elevation: float = 0.5
    """Weight of elevation against contrast (alpha); 0: no elevation."""
    whole: float = 0.5
    """Weight of whole chips against places in them (beta); 1: SimCLR."""
    temperature: float = 0.5
    style: bool = False
    """Whether variances of features stand beside their means, as in GLCNet."""
    relative: bool = False
    """Whether the mean of each chip's elevation is taken out: absolute heights tell where a chip is from."""
    metres: float = 500.0
    """By which elevation is divided."""
    elevation_px: int = 33
    """Side of the elevation that is told."""
    crop_elevation: bool = False
    """Whether it is told from a box too, the same of both; else from the whole chip, as published."""
    area: float = 0.7
    """Least share of the image in a view."""
    regions: int = 4
    region_px: int = 16
    jitter: float = 0.5
    contrast: float = 0.4
    grey: float = 0.2
    speckle: float = 0.5
    gain_db: float = 1.0


class Contrasted(nn.Module):
    """Encoder, what projects it, and decoders for places and for elevation."""

    def __init__(self, model: Model, settings: Settings):
        super().__init__()
        self.model, self.settings = model, settings
        encoder: Any = model.encoder
        channels = encoder.out_channels
        deep = channels[-1] * (2 if settings.style else 1)
        self.project = nn.Sequential(
            nn.Linear(deep, deep, bias=False), nn.ReLU(), nn.BatchNorm1d(deep), nn.Linear(deep, 128, bias=False)
        )
        if settings.elevation > 0:
            self.rise = smp.decoders.unet.decoder.UnetDecoder(channels[-UP - 2 :], WIDTHS, n_blocks=UP)
            self.height = nn.Conv2d(WIDTHS[-1], 1, 1)
        if settings.whole < 1:
            self.detail = smp.decoders.unet.decoder.UnetDecoder(channels[-UP - 2 :], (*WIDTHS[:-1], 128), n_blocks=UP)
            self.describe = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 128))

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Features of the encoder, shallow to deep."""
        found: list[Tensor] = self.model.encoder(pixels)
        return found

    def whole(self, features: list[Tensor]) -> Tensor:
        """Projection (n, 128) of a chip: of the mean of its deepest features, and their variance."""
        deep = features[-1].flatten(2)
        parts = [deep.mean(dim=2), *([deep.var(dim=2, unbiased=False)] if self.settings.style else [])]
        return self.project(torch.cat(parts, dim=1))  # type: ignore[no-any-return]

    def places(self, features: list[Tensor], middles: Tensor, side: int) -> Tensor:
        """Descriptions (n place, 128) of regions of region_px about middles (n, place, 2), in [-1, 1] of a view of `side` px."""
        detail = self.detail(features[-UP - 2 :])  # (n, 128, side / 4, side / 4)
        steps = (torch.arange(LATTICE) + 0.5) / LATTICE * 2 - 1
        offsets = torch.cartesian_prod(steps, steps).to(middles) * self.settings.region_px / side
        at = middles[:, :, None] + offsets  # (n, place, point, 2)
        found = functional.grid_sample(detail.float(), at, align_corners=False).mean(dim=3)  # (n, 128, place)
        return self.describe(found.transpose(1, 2).flatten(0, 1))  # type: ignore[no-any-return]

    def told(self, features: list[Tensor]) -> Tensor:
        """Elevation (n, 1, elevation_px, elevation_px) in units of `metres`."""
        size = (self.settings.elevation_px,) * 2
        risen = self.height(self.rise(features[-UP - 2 :]))
        return functional.interpolate(risen.float(), size=size, mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class Views:
    """alpha MSE(elevation) + (1 - alpha) (beta NT-Xent(chips) + (1 - beta) NT-Xent(places))."""

    bands: Bands
    settings: Settings

    def __call__(self, model: nn.Module, batch: Batch) -> Batch:
        """{"loss": scalar} and its parts, of those that have a weight."""
        own, net = self.settings, model
        with repeated(model):
            parts = self._contrast(net, batch["pixels"][:, self._image], self.bands.of(self._image))
            if own.elevation > 0:
                parts["elevation"] = self._elevation(net, batch)
        weights = {
            "elevation": own.elevation, "chips": (1 - own.elevation) * own.whole,
            "places": (1 - own.elevation) * (1 - own.whole),
        }  # fmt: skip
        return {"loss": torch.stack([weights[name] * part for name, part in parts.items()]).sum(), **parts}

    @property
    def _image(self) -> list[int]:
        """Bands that are seen: all but elevation."""
        return self.bands.places(*(layer for layer in self.bands.layers if layer != "dem"))

    def _contrast(self, net: Any, pixels: Tensor, bands: Bands) -> Batch:
        own, n, side = self.settings, len(pixels), pixels.shape[2]
        light = Light(own.speckle, gain_db=own.gain_db, jitter=own.jitter, contrast=own.contrast, grey=own.grey)
        box = [boxes(n, (own.area, 1)) for _ in range(2)]
        features = [net(light(cut(pixels, one, side), bands)) for one in box]
        first, second = (net.whole(f) for f in features)
        parts = {"chips": nt_xent(first, second, own.temperature)}
        if own.whole < 1:
            middles = self._matched(box, side)
            described = [net.places(f, m.to(pixels), side) for f, m in zip(features, middles, strict=True)]
            parts["places"] = nt_xent(described[0], described[1], own.temperature)
        return parts

    def _matched(self, box: list[Tensor], side: int) -> list[Tensor]:
        """The same places (n, region, 2) in both views: of many drawn within the first, those deepest inside both."""
        own, n = self.settings, len(box[0])
        room = 1 - own.region_px / side
        drawn = (2 * torch.rand(n, 32 * own.regions, 2) - 1) * room
        there = box[0][:, :, :2] @ drawn.transpose(1, 2) + box[0][:, :, 2:]  # (n, 2, place) of the image
        other = within(box[1], there.transpose(1, 2))
        inside = (other.abs().amax(dim=2) <= room).float()
        chosen = torch.topk(inside + torch.rand(inside.shape) / 2, own.regions, dim=1).indices[..., None].expand(-1, -1, 2)
        return [drawn.gather(1, chosen), other.gather(1, chosen).clamp(-room, room)]

    def _elevation(self, net: Any, batch: Batch) -> Tensor:
        own, pixels, image, dem = self.settings, batch["pixels"], self._image, self.bands.places("dem")[0]
        side, area = pixels.shape[2], (own.area, 1.0) if own.crop_elevation else (1.0, 1.0)
        box = boxes(len(pixels), area)
        lit = Light(0, gain_db=0, jitter=own.jitter, contrast=own.contrast, grey=0)
        told = net.told(net(lit(cut(pixels[:, image], box, side), self.bands.of(image))))
        heights = pixels[:, dem : dem + 1].float() * self.bands.std[dem] + self.bands.mean[dem]
        true = cut(heights, box, own.elevation_px) / own.metres
        known = seen(batch["valid"], box, own.elevation_px)[:, None]
        if own.relative:
            true = true - (true * known).sum(dim=(2, 3), keepdim=True) / known.sum(dim=(2, 3), keepdim=True).clamp(min=1)
        error: Tensor = ((told - true) ** 2 * known).sum() / known.sum().clamp(min=1)
        return error

    def sums(self, model: nn.Module, batch: Batch) -> Tensor:
        """As multicrop.spread_sums."""
        return spread_sums(model.model(batch["pixels"][:, self._image]))  # type: ignore[operator]

    def scores(self, sums: npt.NDArray[np.float64]) -> dict[str, float]:
        """{"spread": how much embeddings differ}."""
        return {"spread": spread(sums)}


def nt_xent(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """Mean over all 2n views of -log(exp(own / t) / sum over the other views exp(. / t)), cosines of a and b (n, d)."""
    every = functional.normalize(torch.cat([a, b]).float(), dim=1)
    scores = every @ every.T / temperature
    scores = scores.masked_fill(torch.eye(len(every), dtype=torch.bool, device=every.device), -torch.inf)
    own = torch.arange(len(every), device=every.device).roll(len(a))
    return functional.cross_entropy(scores, own)


def prepare(models: dict[str, Model], bands: Bands, settings: Settings, steps: int) -> tuple[Contrasted, Views]:
    """The network that learns, and what it is trained for; `models` holds the one that is kept."""
    (model,) = models.values()
    return Contrasted(model, settings), Views(bands, settings)
