"""Views of unlabelled chips, a whole batch at once: random boxes of an image, and other light for what each band measures.

A box is in shares of the image, so that one box cuts an image and an elevation model of another grid alike (methods.md section
16, trap 20). All draws are made on the processor, so that a seed gives the same views on any device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from aftermap.augment import OPTICAL_UNITS
from aftermap.model import varied
from aftermap.sensors import POWER_FLOOR, SAR_UNITS
from aftermap.torchdoor import Tensor, functional, nn, torch

STRETCH = (3 / 4, 4 / 3)
"""Of the sides of a box to one another."""
BLUR = (0.25, 0.5, 0.25)


@contextmanager
def repeated(network: nn.Module) -> Iterator[None]:
    """Within it, a network that is only measured draws the same every time; one that learns draws on."""
    if network.training:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def boxes(n: int, area: tuple[float, float], *, flip: float = 0.5, tilt: float = 0.0) -> Tensor:
    """Boxes (n, 2, 3): from places in a view to places in the image, both (x, y) in [-1, 1].

    `area` is the share of the image that a box covers, from and to; `tilt` the largest angle in degrees, of every second box.
    """
    share = torch.empty(n).uniform_(*area)
    stretch = torch.exp(torch.empty(n).uniform_(math.log(STRETCH[0]), math.log(STRETCH[1])))
    whole = area[0] >= 1
    half = torch.ones(n, 2) if whole else torch.stack([(share * stretch).sqrt(), (share / stretch).sqrt()], dim=1).clamp(max=1)
    middle = (2 * torch.rand(n, 2) - 1) * (1 - half)  # wholly inside the image
    mirrored = 1 - 2 * (torch.rand(n, 2) < flip).float()
    angle = torch.deg2rad((2 * torch.rand(n) - 1) * tilt * (torch.rand(n) < 0.5))
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).reshape(n, 2, 2)
    return torch.cat([turn * (half * mirrored)[:, None], middle[:, :, None]], dim=2)


def cut(image: Tensor, of: Tensor, side: int) -> Tensor:
    """What lies in boxes (n, 2, 3) of images (n, band, y, x), as views (n, band, side, side), bilinear; 0 outside."""
    grid = functional.affine_grid(of.to(image), [len(image), image.shape[1], side, side], align_corners=False)
    return functional.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def seen(valid: Tensor, of: Tensor, side: int) -> Tensor:
    """Valid (n, y, x) in boxes, as (n, side, side): where all that a pixel was made of is."""
    return cut(valid[:, None].float(), of, side)[:, 0] > 1 - 1e-3


def within(of: Tensor, places: Tensor) -> Tensor:
    """Places of images (n, k, 2) as places of their views; both (x, y) in [-1, 1], beyond it outside the view."""
    moved = places - of[:, None, :, 2].to(places)
    found: Tensor = torch.linalg.solve(of[:, None, :, :2].to(places), moved[..., None])[..., 0]
    return found


@dataclass(frozen=True)
class Bands:
    """What the bands of normalised pixels measure: name with its layer, unit, mean and std of each."""

    names: tuple[str, ...]
    unit: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def places(self, *layers: str) -> list[int]:
        """Bands of some layers, in their order here."""
        return [k for k, name in enumerate(self.names) if (name.rpartition(".")[0] or "after") in layers]

    @property
    def layers(self) -> tuple[str, ...]:
        """Each once, in order."""
        return tuple(dict.fromkeys(name.rpartition(".")[0] or "after" for name in self.names))

    def of(self, places: Sequence[int]) -> Bands:
        """Some of them."""
        names, unit = (tuple(part[k] for k in places) for part in (self.names, self.unit))
        mean, std = (tuple(part[k] for k in places) for part in (self.mean, self.std))
        return Bands(names, unit, mean, std)


@dataclass(frozen=True)
class Light:
    """What may happen to the radiometry of a view, as probabilities and ranges; elevation keeps its values."""

    speckle: float = 0.5
    """Of radar: so many looks more, each view from `looks`."""
    looks: tuple[float, ...] = (4.0, 20.0)
    gain_db: float = 1.0
    jitter: float = 0.5
    """Of optical images: contrast and brightness, and colour against grey, by at most `contrast`."""
    contrast: float = 0.4
    grey: float = 0.2
    blur: float = 0.0
    permute: float = 0.0
    """Of bands in `groups`: another order within each (seasons of one polarisation; methods.md E.1)."""
    groups: tuple[tuple[int, ...], ...] = field(default=())

    def __call__(self, pixels: Tensor, bands: Bands) -> Tensor:
        """Normalised pixels (n, band, y, x) in another light, image by image; 0 stays 0, which is what was not seen."""
        n, there = len(pixels), pixels != 0
        found = self._ordered(pixels)
        radar = [k for k, unit in enumerate(bands.unit) if unit in SAR_UNITS]
        optical = [k for k, unit in enumerate(bands.unit) if unit in OPTICAL_UNITS]
        found = found.clone()
        looks = torch.empty(n, 1, 1, 1).uniform_(self.looks[0], self.looks[-1]).expand(n, 1, *pixels.shape[2:])
        speckled, gain = _some(n, self.speckle), torch.empty(n, 1, 1, 1).uniform_(-self.gain_db, self.gain_db)
        for k in radar:
            power = torch._standard_gamma(looks) / looks if self.speckle else torch.ones(n, 1, 1, 1)
            louder = gain + speckled * 10 * power.clamp(min=POWER_FLOOR).log10()
            found[:, k : k + 1] = _louder(found[:, k : k + 1], louder.to(found), bands.unit[k], bands.mean[k], bands.std[k])
        if optical:
            found[:, optical] = self._jittered(found[:, optical])
        blurred = _some(n, self.blur).to(found)
        if self.blur:
            found = blurred * _blurred(found) + (1 - blurred) * found
        return found * there

    def _ordered(self, pixels: Tensor) -> Tensor:
        if not self.groups or not self.permute:
            return pixels
        order = torch.arange(pixels.shape[1]).repeat(len(pixels), 1)
        for row in (torch.rand(len(pixels)) < self.permute).nonzero()[:, 0].tolist():
            for group in self.groups:
                own = torch.tensor(group)
                order[row, own] = own[torch.randperm(len(group))]
        return pixels.gather(1, order[..., None, None].expand_as(pixels).to(pixels.device))

    def _jittered(self, pixels: Tensor) -> Tensor:
        n = len(pixels)
        draws = (self.contrast * (2 * torch.rand(3, n, 1, 1, 1) - 1) * _some(n, self.jitter)).to(pixels)
        grey = _some(n, self.grey).to(pixels)
        found = pixels * (1 + draws[0]) + draws[1]
        mean = found.mean(dim=1, keepdim=True)
        return mean + (found - mean) * (1 + draws[2]) * (1 - grey)


def _some(n: int, share: float) -> Tensor:
    """1 for about that share of n images, else 0 (n, 1, 1, 1)."""
    return (torch.rand(n, 1, 1, 1) < share).float()


def _louder(band: Tensor, db: Tensor, unit: str, mean: float, std: float) -> Tensor:
    """A normalised radar band with so many dB added."""
    if unit == "dB":
        return band + db / std
    return ((band * std + mean) * 10 ** (db / (10 if unit == "power" else 20)) - mean) / std


def _blurred(pixels: Tensor) -> Tensor:
    line = torch.tensor(BLUR).to(pixels)
    kernel = torch.outer(line, line)[None, None]
    padded = functional.pad(pixels.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="replicate")
    return functional.conv2d(padded, kernel).view_as(pixels)


def one_band(pixels: Tensor) -> Tensor:
    """One band of each image at random (n, 1, y, x), of those that are not constant; of an image without any, the first."""
    there = varied(pixels).float()  # (n, band)
    weights = torch.where(there.sum(dim=1, keepdim=True) > 0, there, torch.ones_like(there))
    chosen = torch.multinomial(weights.cpu(), 1).to(pixels.device)
    return pixels.gather(1, chosen[..., None, None].expand(-1, 1, *pixels.shape[2:]))


def spread_sums(embedded: Tensor) -> Tensor:
    """What adds over batches, (1 + 2 d,): count, sum and sum of squares of embeddings (n, d) of unit length."""
    unit = functional.normalize(embedded.double(), dim=1)
    return torch.cat([unit.new_tensor([len(unit)]), unit.sum(dim=0), (unit**2).sum(dim=0)])


def spread(sums: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """How much embeddings differ, in [0, 1]: 0 where all are the same, which is how self-distillation fails."""
    count, total, squares = sums[0], *np.split(sums[1:], 2)
    return float(np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0).sum()))
