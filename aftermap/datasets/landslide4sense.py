"""Landslide4Sense, 14 bands in HDF5 (methods.md 14.4), laid out as published (TrainData/img) or as its mirror (images/train).

Files are paired by their number: two sorted listings would pair image_10 with mask_2.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap.chips import U8, UNKNOWN, Chip, recode
from aftermap.datasets import hdf5, pixels
from aftermap.datasets.dataset import Dataset, Facts, Member, Published, not_laid_out

FACTS = Facts(
    title="Landslide4Sense",
    licence="MIT (dataset card of ibm-nasa-geospatial/Landslide4sense)",
    citation="Ghorbanzadeh et al.: Landslide4Sense, IEEE TGRS 2022, arXiv:2206.00515",
    home="https://github.com/iarai/Landslide4Sense-2022",
    record="zenodo:10463239",
    cautions=(
        "values are rescaled by the authors (about 0 to 6): neither reflectance nor metres",
        "only the mirror has masks of validation and test",
        "no place is published per patch: the splits mix regions",
    ),
)
S2_BANDS = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B9", "B10", "B11", "B12")
BANDS = (*S2_BANDS, "slope", "elevation")
"""The file has no B8A, and holds the terrain in its last two."""
UNIT = ("digital_number",) * len(S2_BANDS) + ("relative",) * 2
"""Colour may be changed in training, the ground not (methods.md C.2)."""
_NUMBER = re.compile(r"_(\d+)\.(?:h5|png)$")
_LAYOUTS = (
    ("TrainData/img", "TrainData/mask", "train"), ("ValidData/img", "ValidData/mask", "validation"),
    ("TestData/img", "TestData/mask", "test"), ("images/train", "annotations/train", "train"),
    ("images/validation", "annotations/validation", "validation"), ("images/test", "annotations/test", "test"),
    ("labelled/img", "labelled/mask", "labelled"), ("unlabelled", "", "unlabelled"),
)  # fmt: skip


def _open(folder: Path) -> Dataset:
    members, absent = {}, []
    for images, masks, split in _LAYOUTS:
        truths = _numbered(folder / masks) if masks else {}
        for number, path in _numbered(folder / images).items():
            name = f"{split}_{number:04d}"
            files = {"image": path} | ({"mask": truths[number]} if number in truths else {})
            members[name] = Member(name, split, "unknown", files)
            if truths and number not in truths:
                absent.append(f"{masks}/mask_{number}.h5")
    if not members:
        raise not_laid_out(folder, FACTS.title, "it holds TrainData/img, or images/train with .h5 files")

    def load(member: Member) -> Chip:
        found = np.moveaxis(_array(member.files["image"], "img"), -1, 0).astype(np.float32)
        return pixels.chip(member, found, _truth(member), bands=BANDS, unit=UNIT, domain="sentinel-2+alos")

    classes = ("no landslide", "landslide")
    return Dataset("landslide4sense", folder, FACTS, BANDS, UNIT, classes, members, load, tuple(absent))


def _numbered(folder: Path) -> dict[int, Path]:
    """Number -> file, in the order of the numbers."""
    found = {int(m.group(1)): p for p in folder.glob("*") if (m := _NUMBER.search(p.name))} if folder.is_dir() else {}
    return dict(sorted(found.items()))


def _truth(member: Member) -> U8 | None:
    path = member.files.get("mask")
    if path is None:
        return None
    if path.suffix == ".png":
        return pixels.mask(path, {0: 0, 255: 1})
    return recode(_array(path, "mask"), {0: 0, 1: 1, UNKNOWN: UNKNOWN}, path.name)


def _array(path: Path, key: str) -> npt.NDArray[Any]:
    with hdf5.opened(path) as file:
        return np.asarray(hdf5.held(file, key))


LANDSLIDE4SENSE = Published("landslide4sense", FACTS, _open)
