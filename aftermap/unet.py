"""The plain U-Net decoder of the xView2 winners: nearest upsampling, biased convolutions, no batch norm (methods.md A.2).

All batch norm lives in the encoder, so that adapting its statistics touches the encoder only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aftermap.torchdoor import Tensor, functional, nn, torch

REDUCTION = 16


@dataclass(frozen=True)
class Winner:
    """One of the four networks: its encoder, that encoder's channels e1 to e5, and decoder channels d1 to d5, shallow to deep."""

    encoder: str
    skips: tuple[int, ...]
    widths: tuple[int, ...]
    gated: bool = False
    """scSE with concatenation after each fusion with a skip."""


_WIDE, _NARROW = (48, 64, 96, 160, 320), (32, 48, 64, 128, 256)
WINNERS = {
    "resnet34": Winner("resnet34", (64, 64, 128, 256, 512), _WIDE),
    "seresnext50": Winner("legacy_seresnext50_32x4d", (64, 256, 512, 1024, 2048), _NARROW),
    "senet154": Winner("legacy_senet154", (128, 256, 512, 1024, 2048), _WIDE),
    "dpn92": Winner("dpn92", (64, 336, 704, 1552, 2688), _NARROW, gated=True),
}
"""methods.md A.2, after DIUx-xView/xView2_first_place, zoo/models.py."""


class Gate(nn.Module):
    """scSE: the input weighted by channel and by place, one after the other on the channel axis: twice as many channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // REDUCTION, 1)
        self.excite = nn.Conv2d(channels // REDUCTION, channels, 1)
        self.place = nn.Conv2d(channels, 1, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """(n, channel, y, x) -> (n, 2 channel, y, x)."""
        pooled = features.mean(dim=(2, 3), keepdim=True)  # (n, channel, 1, 1)
        by_channel = torch.sigmoid(self.excite(functional.relu(self.squeeze(pooled))))
        return torch.cat([features * by_channel, features * torch.sigmoid(self.place(features))], dim=1)


class PlainDecoder(nn.Module):
    """Features of strides 1 to 32 -> (n, d1, y, x) at full resolution."""

    def __init__(self, skips: Sequence[int], widths: Sequence[int], *, gated: bool = False):
        super().__init__()
        times = 2 if gated else 1
        before = [skips[-1], *(times * w for w in reversed(widths[1:]))]
        self.lifts = nn.ModuleList(_conv(i, o) for i, o in zip(before, reversed(widths), strict=True))
        joined = zip(reversed(widths[1:]), reversed(skips[:-1]), strict=True)
        self.joins = nn.ModuleList(_conv(w + s, w) for w, s in joined)
        self.gates = nn.ModuleList(Gate(w) if gated else nn.Identity() for w in reversed(widths[1:]))
        self.out_channels = widths[0]
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Features as encoders.build gives them."""
        found = features[-1]
        for lift, join, gate, skip in zip(self.lifts, self.joins, self.gates, reversed(features[1:-1]), strict=False):
            found = functional.relu(lift(_doubled(found)))
            found = gate(functional.relu(join(torch.cat([found, skip], dim=1))))
        return functional.relu(self.lifts[-1](_doubled(found)))


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _doubled(features: Tensor) -> Tensor:
    return functional.interpolate(features, scale_factor=2.0, mode="nearest")
