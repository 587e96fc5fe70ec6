"""Land cover that aftermap simulated, REGION-SEED/s1.tif, coherence.tif, rgb.tif, dem.tif, truth.tif: several modalities at once.

Chips are squares of a scene, scenes are events, the region is the domain, and the seed's last digit is the split: 8 chooses, 9
tests, the rest trains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap import raster
from aftermap.chips import F32, U8, UNKNOWN, Bool, Chip, recode
from aftermap.datasets import pixels, worldcover
from aftermap.datasets.dataset import Dataset, Facts, Member, Published, not_laid_out
from aftermap.datasets.simulated import SPLITS
from aftermap.errors import UnknownNameError, UsageError
from aftermap.simulate.landcover import LAYERS, REGIONS
from aftermap.simulate.vegetation import Class
from aftermap.tiles import Window, blocks

FACTS = Facts(
    title="land cover that aftermap simulated",
    licence="Apache-2.0, as aftermap itself; no image and no label of anybody else is in it",
    citation="aftermap simulate landcover --vary SEEDS -o FOLDER",
    home="",
    access="make them: aftermap simulate landcover --vary 0-19 -o FOLDER",
    cautions=(
        "a simulation is not the world: what is learned from it has to be measured on real images",
        "no region has mangroves; snow and moss or lichen are of the alps alone",
    ),
)
MODALITIES = tuple(name for name in LAYERS if name != "truth")
BANDS = tuple(f"{name}.{band}" for name in MODALITIES for band in LAYERS[name].bands)
UNITS = tuple(LAYERS[name].unit for name in MODALITIES for _ in LAYERS[name].bands)
CLASSES = tuple(worldcover.CLASSES.values())
_CODES = {float(k): k for k in range(len(CLASSES))} | {float(UNKNOWN): UNKNOWN}
_KEPT = 64
"""Scenes that stay in memory, 7 MB each of 512 px: a scene is read square by square, in any order."""
Target = Callable[[U8, Bool], float | int | None]
"""From truth (band, y, x) and what of it was seen (y, x) to the label of a chip."""


@dataclass(frozen=True)
class Truth:
    """What the truth may be: its classes and, of a label for the whole chip, how it comes of the pixels."""

    classes: tuple[str, ...]
    target: Target | None = None


def _share(which: Callable[[U8], npt.NDArray[Any]]) -> Target:
    """The mean over what was seen, None where nothing was known there."""

    def of(truth: U8, seen: Bool) -> float | None:
        known = seen & (truth != UNKNOWN).all(axis=0)
        return float(which(truth)[known].mean()) if known.any() else None

    return of


def _commonest(truth: U8, seen: Bool) -> int | None:
    known = truth[0][seen & (truth[0] != UNKNOWN)]
    return int(np.bincount(known).argmax()) if known.size else None


TRUTHS = {
    "landcover": Truth(CLASSES),
    "vegetation": Truth(("tree cover",), _share(lambda truth: truth[1] / 100)),
    "built": Truth(("built-up",), _share(lambda truth: truth[0] == Class.BUILT)),
    "dominant": Truth(CLASSES, _commonest),
    "none": Truth(()),
}
"""Name of the setting -> what it gives; the first by default."""


def _open(folder: Path, *, truth: str = "landcover", size: int = 64, regions: str = "", after: str = "") -> Dataset:
    """`truth` is one of TRUTHS; `size` in px; `regions` those to read, with commas, by default all that are there; `after` a
    modality whose bands stand for those of the image after."""
    scenes = sorted(p.parent for p in folder.glob("*-*/truth.tif") if _region(p.parent.name) in REGIONS)
    if not scenes:
        raise not_laid_out(folder, FACTS.title, "it holds REGION-SEED/truth.tif")
    if truth not in TRUTHS:
        raise UnknownNameError("truth", truth, TRUTHS)
    wanted = [name.strip() for name in regions.split(",")] if regions else [_region(scene.name) for scene in scenes]
    for name in wanted:
        if name not in {_region(scene.name) for scene in scenes}:
            raise UnknownNameError("event", name, {_region(scene.name) for scene in scenes})
    if after and after not in MODALITIES:
        raise UnknownNameError("input", after, MODALITIES)
    bands = tuple(band.removeprefix(f"{after}.") for band in BANDS) if after else BANDS
    members = dict(_members([scene for scene in scenes if _region(scene.name) in wanted], size))
    asked = TRUTHS[truth]

    @lru_cache(_KEPT)
    def scene(paths: tuple[Path, ...], codes: Path) -> tuple[tuple[npt.NDArray[Any], ...], U8]:
        return tuple(pixels.stored(path) for path in paths), pixels.stored(codes)

    def load(member: Member) -> Chip:
        images, codes = scene(tuple(member.files[name] for name in MODALITIES), member.files["truth"])
        square = (slice(None), *member.place.slices)
        found = np.concatenate([_seen(name, image[square]) for name, image in zip(MODALITIES, images, strict=True)])
        own = codes[square]
        target = asked.target(own, pixels.seen(found)) if asked.target else None
        by_pixel = recode(own[0], _CODES, member.files["truth"].name) if asked.classes and not asked.target else None
        return pixels.chip(
            member, found, by_pixel, bands=bands, unit=UNITS, domain=_region(member.event), target=target, window=member.place,
        )  # fmt: skip

    listed = sorted({path for member in members.values() for path in member.files.values()})
    absent = tuple(str(path.relative_to(folder)) for path in listed if not path.exists())
    return Dataset("simulated-landcover", folder, FACTS, bands, UNITS, asked.classes, members, load, absent)


def _region(scene: str) -> str:
    return scene.rpartition("-")[0]


def _seen(name: str, stored: npt.NDArray[Any]) -> F32:
    """Pixels (band, y, x) of a modality, NaN where not observed."""
    found, nodata = stored.astype(np.float32), LAYERS[name].nodata
    return found if np.isnan(nodata) else np.where(stored == nodata, np.float32(np.nan), found)


def _members(scenes: list[Path], size: int) -> Iterator[tuple[str, Member]]:
    """The whole squares of each scene. Raises UsageError where the smallest has none."""
    for scene in scenes:
        shape = raster.size_of(scene / "truth.tif")
        if not 32 <= size <= min(shape):
            raise UsageError(f"size is {size}, and {scene.name} is {shape} px", repair=f"say 32 to {min(shape)}")
        split = SPLITS.get(int(scene.name.rpartition("-")[2]) % 10, "train")
        files = {name: scene / f"{name}.tif" for name in LAYERS}
        for window in blocks(shape, size):
            if (window.height, window.width) == (size, size):
                name = f"{scene.name}@{window.row},{window.col}"
                yield name, Member(name, split, scene.name, files, Window(*window))


LANDCOVER = Published("simulated-landcover", FACTS, _open)
