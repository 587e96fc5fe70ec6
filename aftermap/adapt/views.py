"""Two views of unlabelled crops that share their geometry: a weak one, only turned, and a strong one that also looks different.

What is strong is radiometry alone, on normalised pixels, so that a score of one view is a score of the same ground in the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap.torchdoor import Tensor, functional, torch

Crop = tuple[Tensor | npt.NDArray[Any], Tensor | npt.NDArray[Any]]
"""Normalised pixels (band, y, x), 0 where not valid, and valid (y, x)."""
GAIN, OFFSET, NOISE = 0.2, 0.2, 0.2
"""Largest change of contrast as a share, of brightness and of noise in standard deviations of the normaliser."""
CUT = (0.125, 0.25)
"""Side of the square that is cut out, as shares of the image's."""
_BLUR = (0.25, 0.5, 0.25)


def turned(crop: Crop, how: int) -> tuple[Tensor, Tensor]:
    """A crop in one of eight positions: bits of `how` flip y, flip x and, of a square, swap both."""
    pixels, valid = (torch.as_tensor(part) for part in crop)
    axes = [axis for bit, axis in ((1, -2), (2, -1)) if how & bit]
    pixels, valid = pixels.float().flip(axes), valid.bool().flip(axes)
    if how & 4 and valid.shape[0] == valid.shape[1]:
        pixels, valid = pixels.transpose(-2, -1), valid.transpose(-2, -1)
    return pixels, valid


def weak(crops: Sequence[Crop], seed: int, step: int, size: int) -> tuple[Tensor, Tensor, list[int]]:
    """Pixels (n, band, y, x), valid (n, y, x) and places in `crops` of a step: endless rows of permutations, each crop turned."""
    turns = np.random.default_rng([seed, step]).integers(8, size=size)
    places = [
        int(_order(seed, item // len(crops), len(crops))[item % len(crops)]) for item in range(step * size, (step + 1) * size)
    ]
    each = [turned(crops[place], int(how)) for place, how in zip(places, turns, strict=True)]
    return torch.stack([p for p, _ in each]), torch.stack([v for _, v in each]), places


def _order(seed: int, row: int, length: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, 2**32 - 1, row]).permutation(length)


def strong(pixels: Tensor, valid: Tensor, generator: torch.Generator) -> Tensor:
    """The same crops (n, band, y, x) in another light, each by its own draws; 0 where not valid and where a square is cut out.

    Contrast and brightness are those of all bands at once; half of the images are blurred and half have a square cut out, whose
    scores are asked for all the same, from what is around it.
    """
    n = len(pixels)
    draws = (2 * torch.rand(2, n, 1, 1, 1, generator=generator) - 1).to(pixels)
    blurs, cuts = (torch.rand(2, n, generator=generator) < 0.5).to(pixels.device)
    level = (torch.rand(n, 1, 1, 1, generator=generator) * NOISE).to(pixels)
    noise = torch.randn(pixels.shape, generator=generator).to(pixels)
    holes = _squares(n, (pixels.shape[2], pixels.shape[3]), generator).to(pixels.device)
    found = torch.where(blurs[:, None, None, None], _blurred(pixels, valid), pixels)
    found = found * (1 + GAIN * draws[0]) + OFFSET * draws[1] + level * noise
    kept: Tensor = found * (valid & ~(holes & cuts[:, None, None]))[:, None]
    return kept


def _blurred(pixels: Tensor, valid: Tensor) -> Tensor:
    """Means of 3 x 3 valid pixels, weighted by distance."""
    line = torch.tensor(_BLUR).to(pixels)
    kernel = torch.outer(line, line)[None, None]
    bands, seen = pixels.flatten(0, 1)[:, None], valid[:, None].to(pixels)  # (n band, 1, y, x), (n, 1, y, x)
    sums = functional.conv2d(bands, kernel, padding=1).view_as(pixels)
    weights = functional.conv2d(seen, kernel, padding=1)
    return sums / weights.clamp(min=_BLUR[0] ** 2)


def _squares(n: int, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """True (n, y, x) in one square of each image, wholly inside it."""
    side, *corner = torch.rand(3, n, generator=generator)
    side = (CUT[0] + (CUT[1] - CUT[0]) * side) * min(shape)
    inside = []
    for length, start in zip(shape, corner, strict=True):
        first = (start * (length - side))[:, None]
        place = torch.arange(length)[None]
        inside.append((place >= first) & (place < first + side[:, None]))
    squares: Tensor = inside[0][:, :, None] & inside[1][:, None, :]
    return squares
