"""Object-contextual representations (Yuan et al. 2020, arXiv 1909.11065): each place also sees the mean of what is like it.

Written from the paper's equations, with its widths for HRNet (512, keys 256). Differs: the paper supervises the soft regions by
a loss of their own, 0.4 x cross entropy; here they enter the logits with that share, so that whatever loss the recipe has
reaches them too.
"""

from __future__ import annotations

from collections.abc import Sequence

from aftermap.torchdoor import Tensor, functional, nn, torch

STRIDES = 4
"""How many features are gathered: those of strides 4, 8, 16 and 32."""
SHARE = 0.4
"""Of the soft regions in the logits: the paper's share of their loss."""


class Gathered(nn.Module):
    """Features -> (n, width, y / 4, x / 4): those of strides 4 to 32 enlarged to the first and joined, the head of HRNet."""

    def __init__(self, channels: Sequence[int], width: int):
        super().__init__()
        self.join = _step(sum(channels[-STRIDES:]), width, size=3)

    def forward(self, features: list[Tensor]) -> Tensor:
        """As the class says; features as encoders.build gives them."""
        first, *deeper = features[-STRIDES:]
        large = [_enlarged(one, 2**k) for k, one in enumerate(deeper, 1)]
        joined: Tensor = self.join(torch.cat([first, *large], dim=1))
        return joined


class ObjectContext(nn.Module):
    """Pixel representations (n, width, y, x) at stride 4 -> logits (n, output, 4 y, 4 x).

    The regions are those of the image that is given: scores look as far as it reaches. Of one logit h there are two, for the
    ground has its own context too: background and hazard are the pair of logits -h / 2 and h / 2, whose softmax is h's sigmoid.
    """

    def __init__(self, width: int, outputs: int):
        super().__init__()
        self.keys = max(1, width // 2)
        self.regions = nn.Conv2d(width, outputs, 1)
        self.query = nn.Sequential(_step(width, self.keys), _step(self.keys, self.keys))
        self.key = nn.Sequential(_step(width, self.keys), _step(self.keys, self.keys))
        self.value, self.widen = _step(width, self.keys), _step(self.keys, width)
        self.join, self.last = _step(2 * width, width), nn.Conv2d(width, outputs, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """As the class says."""
        soft = self.regions(pixels)  # (n, output, y, x)
        augmented = self.join(torch.cat([pixels, self._context(pixels, soft)], dim=1))  # equation 4, (n, width, y, x)
        return _enlarged(self.last(augmented) + SHARE * soft, 4)

    def _context(self, pixels: Tensor, soft: Tensor) -> Tensor:
        """(n, width, y, x): at each place the regions by how much it is related to them (equation 3)."""
        masks = torch.cat([-soft, soft], dim=1) / 2 if soft.shape[1] == 1 else soft  # (n, region, y, x)
        shares = functional.softmax(masks.flatten(2), dim=2)  # over places
        objects = shares @ pixels.flatten(2).transpose(1, 2)  # equation 1, (n, region, width)
        objects = objects.transpose(1, 2).unsqueeze(3)  # (n, width, region, 1)
        queries = self.query(pixels)  # (n, key, y, x)
        related = queries.flatten(2).transpose(1, 2) @ self.key(objects).flatten(2)  # (n, place, region)
        weights = functional.softmax(related * self.keys**-0.5, dim=2)  # equation 2
        context = weights @ self.value(objects).flatten(2).transpose(1, 2)  # (n, place, key)
        widened: Tensor = self.widen(context.transpose(1, 2).reshape(queries.shape))
        return widened


def _step(inputs: int, outputs: int, size: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def _enlarged(features: Tensor, times: int) -> Tensor:
    return functional.interpolate(features, scale_factor=float(times), mode="bilinear", align_corners=False)
