"""Chips of a radar pair with the four sides of the two-stage system, as `aftermap chips` writes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from aftermap import chipfolder
from aftermap.chips import Chip
from tests.conftest import grid

SIDES = {"pretrain": 8, "train": 6, "validation": 4, "test": 4}


def radar_chip(name: str, rng: np.random.Generator, *, slid: bool, size: int = 32) -> Chip:
    """VV and VH in dB before and after; where it slid, after is 6 dB brighter."""
    pixels = rng.normal(-12, 1.5, (4, size, size)).astype(np.float32)
    truth = np.zeros((size, size), np.uint8)
    if slid:
        truth[5:19, 8:25] = 1
        pixels[2:, 5:19, 8:25] += 6
    bands = ("before.VV", "before.VH", "VV", "VH")
    return Chip(pixels, np.ones((size, size), bool), truth, bands, "dB", name, event="quake", domain="sentinel-1")


def written(out: Path) -> Path:
    """A folder of them with the ground, half of each side with a slide, and as many heads as make all classes of density."""
    rng = np.random.default_rng(0)
    made = [
        (_grounded(radar_chip(f"{side}-{k}", rng, slid=k % 2 == 0), rng), side, grid((32, 32)))
        for side, n in SIDES.items() for k in range(n)
    ]  # fmt: skip
    chipfolder.write(out, made, classes=("absent", "present"), facts={"title": "two-stage"}, beside=_heads)
    return out


def _grounded(chip: Chip, rng: np.random.Generator) -> Chip:
    """With a slope."""
    pixels = np.concatenate([chip.pixels, rng.uniform(5, 40, (1, *chip.shape)).astype(np.float32)])
    return replace(chip, pixels=pixels, bands=(*chip.bands, "dem.slope"), unit=(*("dB",) * len(chip.bands), "degrees"))


def _heads(chip: Chip) -> dict[str, float]:
    count = int(chip.name.rpartition("-")[2]) % 4 * 2 if np.any(chip.truth == 1) else 0
    return {"points": count, "points_per_km2": 10.0 * count}
