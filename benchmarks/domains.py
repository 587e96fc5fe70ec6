"""Chips of landslides in two regions that a satellite sees unlike: 14 bands in physical units, 128 px, simulated with truth.

Region a, which trains and chooses, is tropical mountains under a high sun. Region b, which is scored, is other mountains in late
autumn: a low sun, haze, dry grass, bands that answer by a few percent otherwise, and Sentinel-2 numbers of baseline 04.00
whose +1000 nobody took off. For `python -m benchmarks.separated`: what is it worth to normalise each domain by itself?

Run:     python -m benchmarks.domains -o domains               # as above
         python -m benchmarks.domains -o domains-known --offset 0
         python -m benchmarks.domains -o domains-snow --offset 0 --snow
         python -m benchmarks.domains -o domains-stretched --stretch
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np

from aftermap import chipfolder
from aftermap.chips import UNKNOWN, Chip
from aftermap.normalise import F32
from aftermap.raster import BLOCK_PX
from aftermap.sensors import S2_OFFSET
from aftermap.simulate import landslide, optical
from aftermap.simulate.relief import Sun
from aftermap.tiles import blocks

SIZE, GSD_M = 128, 10.0
BANDS = (*optical.BANDS, "slope", "elevation")
UNITS = (*("reflectance",) * len(optical.BANDS), "degrees", "metres")
CLASSES = ("no landslide", "landslide")
HIDDEN = 0.5
"""Share of a pixel under cloud or its shadow from which nobody could label it, as in truth.tif of a scene."""
VALIDATION = 5
"""One scene of region a in so many chooses the checkpoint."""


@dataclass(frozen=True)
class Domain:
    """A region on the days on which it was seen, and the instrument that saw it."""

    name: str
    terrain: str
    first_seed: int
    sky: optical.Sky
    """About that of each scene; sun, haze and ripeness are drawn around it."""
    snow_line_m: float
    gain: tuple[float, ...]
    """Of each spectral band."""


A = Domain("a", "andes", 0, optical.Sky(Sun(100, 62), 0.7, 0.15, 0.03, "after"), 4600, (1.0,) * len(optical.BANDS))
B = Domain(
    "b", "alps", 500, optical.Sky(Sun(165, 38), 2.0, 0.65, 0.0, "after"), 2900,
    (1.03, 1.02, 1.01, 0.98, 0.97, 1.02, 1.03, 0.98, 1.01, 0.96, 1.03, 0.97),
)  # fmt: skip
WINTRY = replace(B, sky=replace(B.sky, clouds=0.015), snow_line_m=2300)
"""Region b after the first snow, under more clouds: few pixels, but so bright that they make most of the standard deviation."""


def scenes(domain: Domain, count: int, offset: float) -> Iterator[tuple[Chip, str]]:
    """Chips of so many scenes, each a block of 512 px of its own seed and sky, and an event; with their split."""
    for number in range(count):
        seed, event = domain.first_seed + number, f"{domain.name}-{number:03d}"
        made = landslide.block(
            seed, 0, 0, sensor="sentinel-2", terrain=domain.terrain, looks=1, gsd_m=GSD_M,
            skies={"after": _sky(domain.sky, seed)}, snow_line_m=domain.snow_line_m,
        )  # fmt: skip
        seen = made["after"].astype(np.float32) / optical.SCALE * np.array(domain.gain, np.float32)[:, None, None] + offset
        elevation = made["dem"][0]
        pixels = np.concatenate([seen, [_slope_deg(elevation), elevation]]).astype(np.float32)
        slid, _, hidden = made["truth"]
        truth = np.where(hidden, UNKNOWN, slid).astype(np.uint8)
        split = "test" if domain.name == "b" else "validation" if number % VALIDATION == VALIDATION - 1 else "train"
        for window in blocks((BLOCK_PX, BLOCK_PX), SIZE):
            chip = Chip(
                np.ascontiguousarray(pixels[:, *window.slices]), np.ones((SIZE, SIZE), bool), truth[window.slices], BANDS, UNITS,
                f"{event}-{window.row:03d}-{window.col:03d}", event, domain.name, window,
            )  # fmt: skip
            yield chip, split


def _sky(sky: optical.Sky, seed: int) -> optical.Sky:
    rng = np.random.default_rng(seed)
    sun = Sun(sky.sun.azimuth_deg + rng.uniform(-20, 20), sky.sun.elevation_deg + rng.uniform(-5, 5))
    haze, ripe = sky.haze * float(np.exp(rng.normal(0, 0.25))), sky.ripe + float(rng.uniform(-0.1, 0.1))
    return replace(sky, sun=sun, haze=haze, ripe=ripe)


def _slope_deg(elevation: F32) -> F32:
    """Slope (y, x) in degrees from the elevation (y, x) in metres alone, as one has it of a real model."""
    return np.asarray(np.degrees(np.arctan(np.hypot(*np.gradient(elevation, GSD_M)))), np.float32)


def stretched(chip: Chip) -> Chip:
    """The chip as a picture: each band by itself, its 2nd to 98th percentile from 0 to 255, what lies outside cut off."""
    low, high = np.percentile(chip.pixels, (2, 98), axis=(1, 2), keepdims=True)
    pixels = np.rint(255 * np.clip((chip.pixels - low) / np.maximum(high - low, 1e-6), 0, 1)).astype(np.float32)
    return replace(chip, pixels=pixels, unit="digital_number")


def both(count: int, *, offset: float = -S2_OFFSET, snow: bool = False, stretch: bool = False) -> Iterator[tuple[Chip, str]]:
    """Chips of `count` scenes of region a, and half as many of region b, with their split."""
    if count < VALIDATION:
        raise click.BadParameter(f"{count} scenes leave none to choose by; give {VALIDATION} or more", param_hint="--scenes")
    for domain, own, added in ((A, count, 0.0), (WINTRY if snow else B, -(-count // 2), offset)):
        for chip, split in scenes(domain, own, added):
            yield (stretched(chip) if stretch else chip), split


@click.command(help=__doc__)
@click.option("--scenes", "count", default=15, show_default=True, help="Scenes of region a, each 16 chips; b has half as many.")
@click.option("--offset", default=-S2_OFFSET, show_default=True, help="Reflectance that region b carries too much.")
@click.option("--snow", is_flag=True, help="Region b after the first snow, and cloudier.")
@click.option("--stretch", is_flag=True, help="Each chip and band stretched to 0..255 by itself, which hides the shift.")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True)
def main(count: int, offset: float, snow: bool, stretch: bool, out: Path) -> None:
    """Writes the chips."""
    rows = ((chip, split, None) for chip, split in both(count, offset=offset, snow=snow, stretch=stretch))
    facts = {"title": "simulated landslides in two regions", "licence": "Apache-2.0"}
    click.echo(f"{chipfolder.write(out, rows, classes=CLASSES, facts=facts)} chips in {out}")


if __name__ == "__main__":
    main()
