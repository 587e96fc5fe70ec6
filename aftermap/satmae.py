"""The encoder of SatMAE for Sentinel-2: bands in three groups, each with tokens of its own that know where they are and what of.

Cong et al. 2022 (arXiv 2207.08051), section 3.3: positions and groups are sines and cosines, side by side; no library keeps it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from aftermap.torchdoor import Block, Tensor, nn, torch

GROUPS = ((0, 1, 2, 6), (3, 4, 5, 7), (8, 9))
"""Of ten bands: visible and near infrared of 10 m; red edge; short wave."""
OF_GROUP = 256
"""Numbers of a token's address that say its group."""
SIZES = {"base": (768, 12, 12), "large": (1024, 24, 16)}
"""Width, layers, heads."""


class GroupedVit(nn.Module):
    """Bands in [0, 1] (n, 10, side, side) -> the mean over groups of their tokens (n, token, width)."""

    def __init__(self, size: str, side: int, patch: int):
        super().__init__()
        width, depth, heads = SIZES[size]
        grid, own = side // patch, width - OF_GROUP
        self.patch_embed = nn.ModuleList(
            nn.ModuleDict({"proj": nn.Conv2d(len(group), width, patch, stride=patch)}) for group in GROUPS
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Buffer(torch.cat([torch.zeros(1, own), places(own, grid)])[None])  # (1, 1 + token, own)
        self.channel_embed = nn.Buffer(_waves(OF_GROUP, torch.arange(len(GROUPS)))[None])  # (1, group, OF_GROUP)
        self.channel_cls_embed = nn.Buffer(torch.zeros(1, 1, OF_GROUP))
        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        self.blocks = nn.ModuleList(Block(width, heads, qkv_bias=True, norm_layer=norm) for _ in range(depth))
        self.norm = norm(width)

    def forward(self, pixels: Tensor) -> Tensor:
        """As the class says."""
        seen = []
        for place, (group, layer) in enumerate(zip(GROUPS, self.patch_embed, strict=True)):
            tokens = layer["proj"](pixels[:, list(group)]).flatten(2).transpose(1, 2)  # type: ignore[index]
            of = self.channel_embed[:, place : place + 1].expand(-1, tokens.shape[1], -1)
            seen.append(tokens + torch.cat([self.pos_embed[:, 1:], of], dim=-1))
        first = self.cls_token + torch.cat([self.pos_embed[:, :1], self.channel_cls_embed], dim=-1)
        every = torch.cat([first.expand(pixels.shape[0], -1, -1), *seen], dim=1)
        for block in self.blocks:
            every = block(every)
        found: Tensor = self.norm(every)[:, 1:].unflatten(1, (len(GROUPS), -1)).mean(dim=1)
        return found


def places(width: int, grid: int) -> Tensor:
    """(token, width) of a square grid, row by row: half for the column, half for the row, as in MAE (arXiv 2111.06377)."""
    row, col = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    return torch.cat([_waves(width // 2, col.flatten()), _waves(width // 2, row.flatten())], dim=1)


def _waves(width: int, at: Tensor) -> Tensor:
    """Sines, then cosines (place, width) of places times frequencies from 1 to 1 / 10,000."""
    frequency = 1 / 10_000 ** (torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angle = at.double()[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1).float()
