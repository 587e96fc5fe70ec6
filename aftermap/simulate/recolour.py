"""Pictures as another camera, light or place would have them: stretches of grey, colours of roofs and ground, haze and blur."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from aftermap.simulate.fracture import WHITE
from aftermap.simulate.terrain import Field

Rng = np.random.Generator
Mask = npt.NDArray[np.bool_]


def stretched(rng: Rng) -> Callable[[npt.NDArray[np.uint16]], npt.NDArray[np.uint16]]:
    """A change of a grey picture (1, y, x), 0 not observed: slope of light, blur, noise, and a stretch that saturates."""
    slope, blur, grain = rng.normal(0, 4000, 2), rng.uniform(0, 1.0), rng.uniform(0, 2500)
    dark, bright = rng.uniform(0, 6), 100 - np.exp(rng.uniform(np.log(0.05), np.log(14)))
    reach, gamma, seed = rng.uniform(0.75, 1), np.exp(rng.normal(0, 0.15)), int(rng.integers(2**32))

    def change(stored: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
        seen, grey = stored[0] > 0, stored[0].astype(np.float32)
        if not seen.any():
            return stored
        grey = np.where(seen, grey, grey[seen].mean())
        y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in grey.shape)
        grey += np.float32(slope[0]) * y[:, None] + np.float32(slope[1]) * x
        grey += np.float32(grain) * np.random.default_rng(seed).standard_normal(grey.shape, dtype=np.float32)
        grey = ndimage.gaussian_filter(grey, blur, mode="nearest")
        low, high = np.percentile(grey[seen], (dark, bright))
        share = np.clip((grey - low) / max(float(high - low), 1.0), 0, 1 / reach) ** gamma * reach
        return np.where(seen, np.clip(np.rint(share * WHITE), 1, WHITE), 0).astype(np.uint16)[None]

    return change


def painted(rng: Rng, gsd_m: float) -> Callable[[npt.NDArray[np.uint8], Mask], npt.NDArray[np.uint8]]:
    """A change of a picture (3, y, x) of a town, given where its whole roofs are (y, x)."""
    seed = int(rng.integers(2**32))
    roofs, tint = rng.uniform(0, 0.9), np.exp(rng.normal(0, 0.13, 3)) * np.exp(rng.normal(0, 0.2))
    ground, share = rng.uniform((60, 60, 40), (215, 185, 170), (2, 3)), rng.uniform(0, 0.85)
    patch, haze = np.exp(rng.uniform(np.log(4), np.log(60))) / gsd_m, rng.uniform(0, 0.35)
    gamma, blur, grain = np.exp(rng.normal(0, 0.25)), rng.uniform(0, 1.3), rng.uniform(0, 7)

    def change(stored: npt.NDArray[np.uint8], house: Mask) -> npt.NDArray[np.uint8]:
        draw = np.random.default_rng(seed)  # the same on both dates
        colour = stored.astype(np.float32)
        _tinted(colour, _mixed(ground, _blotches(draw, house.shape, patch)), np.where(house, 0, share))
        _tinted(colour, _each_roof(draw, house), np.where(house, roofs, 0))
        colour *= tint.astype(np.float32)[:, None, None]
        colour = np.asarray(255 * np.clip(colour / 255, 0, 1) ** np.float32(gamma), np.float32)
        colour += np.float32(haze) * (np.float32(205) - colour)
        colour = ndimage.gaussian_filter(colour, (0, blur, blur), mode="nearest")
        colour += np.float32(grain) * draw.standard_normal(colour.shape, dtype=np.float32)
        return np.asarray(np.clip(np.rint(colour), 1, 255), np.uint8)

    return change


def developed(rng: Rng) -> Callable[[Field], npt.NDArray[np.uint8]]:
    """What makes a picture (3, y, x) of reflectance (3, y, x): haze, a stretch of its own, gamma, blur or sharpening, grain."""
    haze = rng.uniform(0, 0.08) * rng.random() * np.array((0.75, 0.9, 1.0)) * np.exp(rng.normal(0, 0.08, 3))
    cuts = rng.uniform(0, 2), 100 - np.exp(rng.uniform(np.log(0.1), np.log(4)))
    apart, gamma, reach = max(0.0, rng.uniform(-1, 0.8)), np.exp(rng.normal(0.35, 0.3)), rng.uniform(0.5, 1)
    black, grey, tint = rng.random(), rng.uniform(-0.2, 0.5), np.exp(rng.normal(0, 0.05, 3))
    blur, sharp, grain, seed = rng.uniform(0, 1.1), max(0.0, rng.uniform(-1.5, 1.5)), rng.uniform(0, 5), int(rng.integers(2**32))

    def change(reflectance: Field) -> npt.NDArray[np.uint8]:
        draw = np.random.default_rng(seed)  # the same on both dates
        colour = np.asarray(reflectance + haze.astype(np.float32)[:, None, None], np.float32)
        colour += np.float32(grey) * (colour.mean(axis=0) - colour)
        low, high = np.percentile(colour, cuts, axis=(1, 2), keepdims=True)  # of each band
        low, high = black * low.min(), high.max() * (high / high.max()) ** apart
        share = np.clip((colour - low) / np.maximum(high - low, 1e-3), 0, 1) ** (1 / gamma) * reach
        colour = np.asarray(255 * share * tint[:, None, None], np.float32)
        colour = ndimage.gaussian_filter(colour, (0, blur, blur), mode="nearest")
        colour += np.float32(sharp) * (colour - ndimage.gaussian_filter(colour, (0, 1.2, 1.2), mode="nearest"))
        colour += np.float32(grain) * draw.standard_normal(colour.shape, dtype=np.float32)
        return np.asarray(np.clip(np.rint(colour), 1, 255), np.uint8)

    return change


def _tinted(colour: Field, other: Field, share: npt.NDArray[np.floating]) -> None:
    """Gives the picture the other colour (3, y, x) by a share (y, x), with its own light and shade."""
    light = colour.mean(axis=0) / np.float32(125)
    colour += share.astype(np.float32) * (other * np.minimum(light, 1.5) - colour)


def _blotches(draw: Rng, shape: tuple[int, ...], size_px: float) -> Field:
    """0 to 1 (y, x) in patches of about that size."""
    coarse = draw.random((int(shape[0] / size_px) + 3, int(shape[1] / size_px) + 3), dtype=np.float32)
    wide = ndimage.zoom(coarse, np.ceil(size_px) + 1, order=1)[: shape[0], : shape[1]]
    return np.asarray(np.clip(2 * wide - 0.5, 0, 1), np.float32)


def _mixed(two: npt.NDArray[np.float64], share: Field) -> Field:
    one, other = two.astype(np.float32)[:, :, None, None]
    return np.asarray(one + (other - one) * share, np.float32)


def _each_roof(draw: Rng, house: Mask) -> Field:
    """One colour (3, y, x) for each roof: grey to white metal, rust, clay, paint."""
    labels, count = ndimage.label(house)
    light = draw.uniform(50, 245, (count + 1, 1))
    hue = np.where(
        draw.random((count + 1, 1)) < 0.5,
        draw.uniform(-12, 12, (count + 1, 3)),
        draw.uniform((0, -45, -70), (70, 20, 20), (count + 1, 3)),
    )
    return np.asarray(np.moveaxis(np.clip(light + hue, 15, 255)[labels], -1, 0), np.float32)
