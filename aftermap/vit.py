"""Vision transformers of timm for any number of bands and any size: a grid of tokens, one that stands for all, their attention.

Dosovitskiy et al. 2021 (arXiv 2010.11929): learned positions, layers normalised before they act, no dropout. Sizes are those of
the masked and self-distilled systems (methods.md D.2, E.1) and two that a laptop trains.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from aftermap.torchdoor import Tensor, VisionTransformer, functional, nn, torch

EPS = 1e-6
SIDE = 224
"""Pixels of the grid that positions are learned on, where nothing else is said."""


@dataclass(frozen=True)
class Size:
    """Width of a token, layers, heads, and side of a patch in px."""

    width: int
    depth: int
    heads: int
    patch: int


SIZES = {
    "vit_micro8": Size(128, 4, 4, 8), "vit_mini8": Size(192, 6, 3, 8),
    "vit_t16": Size(192, 12, 3, 16), "vit_s16": Size(384, 12, 6, 16), "vit_s8": Size(384, 12, 6, 8),
    "vit_b16": Size(768, 12, 12, 16), "vit_b32": Size(768, 12, 12, 32), "vit_l16": Size(1024, 24, 16, 16),
    "vit_h14": Size(1280, 32, 16, 14),
}  # fmt: skip
NAMES = tuple(SIZES)


class Vit(nn.Module):
    """Normalised pixels (n, band, y, x) -> [pixels, class token (n, width, 1, 1), tokens (n, width, y / patch, x / patch)].

    Positions belong to a grid of `side` px and are interpolated to any other (bicubic).
    """

    def __init__(self, name: str, bands: int, side: int = 0, drop_path: float = 0.0):
        super().__init__()
        size = SIZES[name]
        self.out_channels, self.output_stride = [bands, size.width, size.width], size.patch
        side = -(-(side or SIDE) // size.patch) * size.patch
        self.transformer: Any = VisionTransformer(
            img_size=side, patch_size=size.patch, in_chans=bands, embed_dim=size.width, depth=size.depth, num_heads=size.heads,
            num_classes=0, dynamic_img_size=True, drop_path_rate=drop_path, norm_layer=partial(nn.LayerNorm, eps=EPS),
        )  # fmt: skip

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """As the class says."""
        every = self.tokens(pixels)
        rows, cols = pixels.shape[2] // self.output_stride, pixels.shape[3] // self.output_stride
        grid = torch.unflatten(every[:, 1:].transpose(1, 2), 2, (rows, cols))  # (n, width, row, col)
        return [pixels, every[:, 0, :, None, None], grid]

    def tokens(self, pixels: Tensor, kept: Tensor | None = None) -> Tensor:
        """The class token and, after it, that of each patch (n, 1 + patch, width); of the patches `kept` (n, k) alone."""
        found: Tensor = self.transformer.norm(self._through(self.placed(pixels, kept)))
        return found

    def placed(self, pixels: Tensor, kept: Tensor | None = None) -> Tensor:
        """What the first layer reads: patches (n, 1 + patch, width) at their positions, the class token first."""
        grid = self.transformer.patch_embed(pixels)  # (n, row, col, width)
        patches = (grid + self._positions(grid.shape[1], grid.shape[2])).flatten(1, 2)
        if kept is not None:
            patches = patches.gather(1, kept[..., None].expand(-1, -1, patches.shape[2]))
        first = self.transformer.cls_token + self.transformer.pos_embed[:, :1]  # (1, 1, width)
        return torch.cat([first.expand(patches.shape[0], -1, -1), patches], dim=1)

    def attention(self, pixels: Tensor) -> Tensor:
        """How much the class token looks at each patch (n, head, row, col), by the last layer; sums to at most 1 a head."""
        return self.sight(pixels)[0]

    def sight(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The attention, as above, and the tokens of the patches (n, width, row, col), both of one pass."""
        *before, last = self.transformer.blocks
        tokens = self.placed(pixels)
        for block in before:
            tokens = block(tokens)
        own = last.attn
        mixed = own.qkv(last.norm1(tokens)).unflatten(2, (3, own.num_heads, own.head_dim)).permute(2, 0, 3, 1, 4)
        query, key = own.q_norm(mixed[0]), own.k_norm(mixed[1])  # (n, head, token, width of a head)
        looked: Tensor = (query[:, :, :1] * own.scale @ key.transpose(-2, -1)).softmax(dim=-1)[:, :, 0, 1:]  # (n, head, patch)
        grid = (pixels.shape[2] // self.output_stride, pixels.shape[3] // self.output_stride)
        after = self.transformer.norm(last(tokens))[:, 1:].transpose(1, 2)  # (n, width, patch)
        return torch.unflatten(looked, 2, grid), torch.unflatten(after, 2, grid)

    def _through(self, tokens: Tensor) -> Tensor:
        for block in self.transformer.blocks:
            tokens = block(tokens)
        return tokens

    def _positions(self, rows: int, cols: int) -> Tensor:
        """(1, row, col, width); interpolated where the grid is another than that they were learned on."""
        side = self.transformer.patch_embed.grid_size[0]
        learned: Tensor = self.transformer.pos_embed[:, 1:].unflatten(1, (side, side))
        if (rows, cols) == (side, side) and not torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            return learned
        grid = functional.interpolate(learned.permute(0, 3, 1, 2), size=(rows, cols), mode="bicubic", align_corners=False)
        return grid.permute(0, 2, 3, 1)


class Upward(nn.Module):
    """Features [..., (n, channel, y / stride, x / stride)] -> (n, width, y, x): 3 x 3 convolutions, each doubling the size.

    After the decoder of methods.md D.3, whose last ReLU, which cuts logits off at 0, is left out.
    """

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.stride = stride
        steps = max(1, (stride - 1).bit_length())
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width if k else channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
            for k in range(steps)
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """As the class says."""
        found = features[-1]
        size = (found.shape[2] * self.stride, found.shape[3] * self.stride)
        for layer in self.layers:
            found = functional.interpolate(layer(found), scale_factor=2.0, mode="bilinear", align_corners=False)
        if self.stride & (self.stride - 1):  # patches of 14 px
            found = functional.interpolate(found, size=size, mode="bilinear", align_corners=False)
        return found


class Deconvolved(nn.Module):
    """Features [..., (n, channel, y / stride, x / stride)] -> (n, width, y, x): transposed convolutions, each doubling the size.

    Width halves with each, from `width` down (methods.md I). Strides are powers of two.
    """

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        widths = [width // 2**k for k in range((stride - 1).bit_length())]
        self.width = widths[-1]
        self.layers = nn.Sequential(*(
            nn.Sequential(nn.ConvTranspose2d(before, after, 2, stride=2, bias=False), nn.BatchNorm2d(after), nn.ReLU())
            for before, after in zip([channels, *widths], widths, strict=False)
        ))  # fmt: skip

    def forward(self, features: list[Tensor]) -> Tensor:
        """As the class says."""
        found: Tensor = self.layers(features[-1])
        return found


class First(nn.Module):
    """Features of a transformer -> its class token (n, width)."""

    def forward(self, features: list[Tensor]) -> Tensor:
        """As the class says."""
        return features[-2].flatten(1)
