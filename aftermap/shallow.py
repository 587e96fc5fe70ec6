"""The networks of Boehm et al. 2022, all on the image's own grid: two encoders, a head of pixels and two of whole chips.

Sizes are those of the code released with the paper (methods.md B.3, B.4), which differ from the text: of its U-Net with a
ResNet-34 of 21 million parameters, 43,424 ever saw a gradient.
"""

from __future__ import annotations

from aftermap.torchdoor import Tensor, functional, nn, smp, torch

KERNEL = 8
"""Even: padded to the same size, the odd row and column come at the end."""
EMBEDDED = 32
CONV8 = {"conv8": 64, "conv8_wide": 124, "conv8_embedding": EMBEDDED}
"""Name -> bands of the features: as published; with the trainable parameters that the published network has beside an embedding
(1,130,033 against 1,133,193); and as an embedding itself."""
NAMES = ("unet_depth1", *CONV8)
HIDDEN, DROPOUT = 8, 0.8
"""Of the head that the paper describes and its code never calls."""


def _same(bands: int, channels: int) -> nn.Sequential:
    """A convolution that keeps the size; torch's own padding of even kernels copies the image, and warns of it."""
    return nn.Sequential(nn.ZeroPad2d((KERNEL // 2 - 1, KERNEL // 2) * 2), nn.Conv2d(bands, channels, KERNEL))


def _block(bands: int, channels: int) -> nn.Sequential:
    return nn.Sequential(_same(bands, channels), nn.BatchNorm2d(channels), nn.LeakyReLU())


class UnetDepth1(nn.Module):
    """Pixels (n, band, y, x) -> [pixels, embedding (n, 32, y, x)]: the first layer of a ResNet and one step back up."""

    def __init__(self, bands: int):
        super().__init__()
        self.out_channels, self.output_stride = [bands, EMBEDDED], 1
        first = nn.Conv2d(bands, 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
        self.stem = nn.Sequential(first, nn.BatchNorm2d(64), nn.ReLU())
        self.up = smp.decoders.unet.decoder.UnetDecoder([bands, 64], (EMBEDDED,), n_blocks=1)
        self.last = smp.base.SegmentationHead(EMBEDDED, EMBEDDED, kernel_size=3)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """As the class says; sides are even."""
        return [pixels, self.last(self.up([pixels, self.stem(pixels)]))]


class Conv8(nn.Module):
    """Pixels (n, band, y, x) -> [pixels, features (n, channel, y, x)]: three 8 x 8 convolutions."""

    def __init__(self, bands: int, channels: int):
        super().__init__()
        self.out_channels, self.output_stride = [bands, channels], 1
        self.layers = nn.Sequential(_block(bands, 8), _block(8, 16), _block(16, channels))

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """As the class says."""
        return [pixels, self.layers(pixels)]


def encoder(name: str, bands: int) -> nn.Module:
    """One of NAMES."""
    return Conv8(bands, CONV8[name]) if name in CONV8 else UnetDepth1(bands)


class Pixels(nn.Module):
    """Features [..., (n, channel, y, x)] -> logits (n, output, y, x): two 8 x 8 convolutions, the first as wide as its input."""

    def __init__(self, channels: int, outputs: int):
        super().__init__()
        self.wide, self.last = _block(channels, channels), _same(channels, outputs)

    def forward(self, features: list[Tensor]) -> Tensor:
        """As the class says."""
        logits: Tensor = self.last(self.wide(features[-1]))
        return logits


class ConvMean(nn.Module):
    """Features [..., (n, channel, y, x)] -> logit (n, 1): the mean of one 8 x 8 convolution over where it fits whole."""

    def __init__(self, channels: int):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(channels, 1, KERNEL), nn.BatchNorm2d(1), nn.LeakyReLU())

    def forward(self, features: list[Tensor]) -> Tensor:
        """As the class says."""
        logits: Tensor = self.one(features[-1]).mean(dim=(2, 3))
        return logits


class FullyConnected(nn.Module):
    """Features [..., (n, channel, side, side)] -> logit (n, 1): the paper's two layers on one 8 x 8 convolution.

    Chips of another side are averaged to `side` first.
    """

    def __init__(self, channels: int, side: int):
        super().__init__()
        self.side, self.one = side, _same(channels, 1)
        self.layers = nn.Sequential(
            nn.Linear(side * side, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.LeakyReLU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, 1)
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """As the class says."""
        seen = functional.adaptive_avg_pool2d(self.one(features[-1]), self.side)
        logits: Tensor = self.layers(torch.flatten(seen, 1))  # (n, side * side) -> (n, 1)
        return logits
