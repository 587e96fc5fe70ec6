"""The U-Net of M3LEO's baselines: pairs of 3 x 3 convolutions, max pooling down, bilinear doubling up (methods.md J.3).

Sizes are those of spaceml-org/M3LEO; convolutions pad by reflection, and each has a bias, batch norm and ReLU.
"""

from __future__ import annotations

from collections.abc import Sequence

from aftermap.torchdoor import Tensor, functional, nn, torch

WIDTHS = {"double_conv": (32, 64, 128, 256, 512), "double_conv_quarter": (8, 16, 32, 64, 128)}
"""Name -> channels at strides 1, 2, 4, 8 and 16: as published, and a quarter of each, for two cores."""
NAMES = tuple(WIDTHS)


def _pair(inputs: int, outputs: int) -> nn.Sequential:
    layers = []
    for channels in (inputs, outputs):
        one = nn.Conv2d(channels, outputs, 3, padding=1, padding_mode="reflect")
        layers += [one, nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class DoubleConv(nn.Module):
    """Pixels (n, band, y, x) -> [pixels, features (n, channel, y, x), ..., (n, channel, y / 16, x / 16)]; sides of 32 or more."""

    def __init__(self, bands: int, widths: Sequence[int]):
        super().__init__()
        self.out_channels, self.output_stride = [bands, *widths], 16
        self.pairs = nn.ModuleList(_pair(i, o) for i, o in zip([bands, *widths[:-1]], widths, strict=True))

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """As the class says."""
        found = [pixels, self.pairs[0](pixels)]
        for pair in list(self.pairs)[1:]:
            found.append(pair(functional.max_pool2d(found[-1], 2)))
        return found


def encoder(name: str, bands: int) -> nn.Module:
    """One of NAMES."""
    return DoubleConv(bands, WIDTHS[name])


class Doubling(nn.Module):
    """Features as DoubleConv gives them -> (n, channel, y, x), as many channels as the first of them."""

    def __init__(self, channels: Sequence[int]):
        super().__init__()
        deep = zip(channels[:1:-1], channels[-2:0:-1], strict=True)
        self.pairs = nn.ModuleList(_pair(below + skip, skip) for below, skip in deep)

    def forward(self, features: list[Tensor]) -> Tensor:
        """As the class says."""
        found = features[-1]
        for pair, skip in zip(self.pairs, features[-2:0:-1], strict=True):
            found = functional.interpolate(found, scale_factor=2.0, mode="bilinear", align_corners=True)
            found = pair(torch.cat([skip, found], dim=1))
        return found
