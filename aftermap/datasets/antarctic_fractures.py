"""Fractures of Antarctic ice shelves (methods.md 14.7): MOA2009 at 125 m, one grey band, 0 outside the ice.

Outside the ice nothing was observed, a median 86 % of a tile: statistics and scores are of the ice alone (trap 9). The 2,331
fracture pixels that fall there are lost with it.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from aftermap.chips import UNKNOWN, Chip
from aftermap.datasets import pixels
from aftermap.datasets.dataset import Dataset, Facts, Member, Published, not_laid_out
from aftermap.errors import UsageError

FACTS = Facts(
    title="Antarctic ice-shelf fractures",
    licence="GPL-3.0 (repository)",
    citation="Lai et al.: Vulnerability of Antarctica's ice shelves to meltwater-driven fracture, Nature 584:574, 2020",
    home="https://github.com/chingyaolai/Antarctic-fracture-detection",
    record="zenodo:3949427",
    cautions=(
        "ten masks are wholly 0 though some of those tiles show fractures: empty='unknown' takes them for not annotated",
        "labels follow the stretch: calling every saturated pixel a fracture already scores",
        "tiles of train and validation border on each other",
    ),
)
SPLITS = {"data_trainset": "train", "data_validset": "validation", "data_testset": "test"}
_PLACE = re.compile(r"(\d+)x(\d+)")


MOST = 65535


def _open(folder: Path, *, empty: str = "absent", saturated: str = "labelled") -> Dataset:
    """`empty`: a mask without any fracture says "absent", or "unknown" (nothing was annotated). `saturated`: the truth of pixels
    at the top of the range, which labels follow, is as "labelled" or "unknown"."""
    if empty not in ("absent", "unknown") or saturated not in ("labelled", "unknown"):
        raise UsageError(f"empty is {empty!r}, saturated {saturated!r}", repair="say absent or unknown; labelled or unknown")
    members, absent = {}, []
    for inner, split in SPLITS.items():
        for path in sorted((folder / inner).glob("*.tif")):
            if not path.stem.endswith("_mask"):
                mask = path.with_name(f"{path.stem}_mask.tif")
                members[path.stem] = Member(path.stem, split, _band_of_rows(path.stem), {"image": path, "mask": mask})
                absent += [] if mask.exists() else [str(mask.relative_to(folder))]
    if not members:
        raise not_laid_out(folder, FACTS.title, "it holds data_trainset/ with NAME.tif and NAME_mask.tif")

    def load(member: Member) -> Chip:
        found = pixels.image(member.files["image"], nodata=0)
        truth = pixels.mask(member.files["mask"], {0: 0, 255: 1})
        if empty == "unknown" and not truth.any():
            truth = np.full_like(truth, UNKNOWN)
        if saturated == "unknown":
            truth = np.where(found[0] >= MOST, UNKNOWN, truth).astype(np.uint8)
        return pixels.chip(member, found, truth, bands=("grey",), unit="digital_number", domain="modis-grey")

    classes = ("no fracture", "fracture")
    return Dataset("antarctic-fractures", folder, FACTS, ("grey",), "digital_number", classes, members, load, tuple(absent))


def _band_of_rows(name: str) -> str:
    """The row of the mosaic that a tile lies in: tiles of one row border on each other. A name without place is its own."""
    place = _PLACE.search(name)
    return f"row {place.group(1)}" if place else name


ANTARCTIC_FRACTURES = Published("antarctic-fractures", FACTS, _open)
