"""Sen1Floods11 v1.1, hand-labelled chips (methods.md 14.1): VV and VH in dB, or Sentinel-2 L1C; all water, not flood alone.

NaN of the radar stays unobserved: the official baseline fills it with 0 dB, brighter than any land (trap 18).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from aftermap.chips import UNKNOWN, Chip, Codes
from aftermap.datasets import pixels
from aftermap.datasets.dataset import Dataset, Facts, Member, Published, not_laid_out
from aftermap.errors import UsageError

FACTS = Facts(
    title="Sen1Floods11 v1.1, hand-labelled",
    licence="not stated in the repository; imagery Copernicus Sentinel, free and open",
    citation="Bonafilia, Tellman, Anderson, Issenberg: Sen1Floods11, CVPR Workshops 2020",
    home="https://github.com/cloudtostreet/Sen1Floods11",
    record="gcs:sen1floods11/v1.1/data/flood_events/HandLabeled/ gcs:sen1floods11/v1.1/splits/flood_handlabeled/",
    cautions=(
        "labels are all water, permanent and flood; JRCWaterHand tells the permanent",
        "train, valid and test hold the same ten events: only Bolivia is a place unseen",
    ),
)
EVENTS = (
    "Bolivia", "Ghana", "India", "Mekong", "Nigeria", "Pakistan", "Paraguay", "Somalia", "Spain", "Sri-Lanka", "USA",
)  # fmt: skip
S2_BANDS = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")
_BANDS = {"s1": ("VV", "VH"), "s2": S2_BANDS}
_FOLDERS = {"s1": "S1Hand", "s2": "S2Hand"}
_CODES: Codes = {-1: UNKNOWN, 0: 0, 1: 1}
_SPLITS = {"train": "train", "valid": "validation", "test": "test", "bolivia": "bolivia"}


def _open(folder: Path, *, image: str = "s1") -> Dataset:
    """`image` is "s1" (dB) or "s2" (top-of-atmosphere reflectance). Without the official lists the split is "unlisted"."""
    if image not in _BANDS:
        raise UsageError(f"image is {image!r}", repair="say s1 or s2")
    hand = _hand(folder)
    listed = _listed(folder)
    names = {p.name.removesuffix("_LabelHand.tif") for p in (hand / "LabelHand").glob("*_LabelHand.tif")}
    files = {n: {k: hand / k / f"{n}_{k}.tif" for k in (_FOLDERS[image], "LabelHand")} for n in sorted(names)}
    there = {n: f for n, f in files.items() if all(p.exists() for p in f.values())}
    members = {n: Member(n, listed.get(n, "unlisted"), n.partition("_")[0], f) for n, f in there.items()}
    absent = [str(p.relative_to(folder)) for n, f in files.items() if n not in there for p in f.values() if not p.exists()]
    absent += [f"{n} (listed as {split})" for n, split in listed.items() if n not in names]
    unit = "dB" if image == "s1" else "reflectance"

    def load(member: Member) -> Chip:
        found = pixels.image(member.files[_FOLDERS[image]])
        if image == "s2":  # fill is 0 in every band; the cirrus band alone may be 0 on clear ground
            found = pixels.blackened(found) * pixels.REFLECTANCE
        truth = pixels.mask(member.files["LabelHand"], _CODES)
        domain = "sentinel-1" if image == "s1" else "sentinel-2-l1c"
        return pixels.chip(member, found, truth, bands=_BANDS[image], unit=unit, domain=domain)

    return Dataset("sen1floods11", folder, FACTS, _BANDS[image], unit, ("not water", "water"), members, load, tuple(absent))


def _hand(folder: Path) -> Path:
    """The folder that holds LabelHand, below the bucket's root or cut down to it."""
    for inner in ("", "HandLabeled", "data/flood_events/HandLabeled", "v1.1/data/flood_events/HandLabeled"):
        if (folder / inner / "LabelHand").is_dir():
            return folder / inner
    raise not_laid_out(folder, FACTS.title, "it holds S1Hand/ and LabelHand/, or v1.1/data/flood_events/HandLabeled/")


def _listed(folder: Path) -> Mapping[str, str]:
    """Chip -> official split, of the lists that are there."""
    found: dict[str, str] = {}
    for inner in ("splits/flood_handlabeled", "v1.1/splits/flood_handlabeled"):
        for word, split in _SPLITS.items():
            path = folder / inner / f"flood_{word}_data.csv"
            if path.exists():
                with path.open(newline="", encoding="utf-8") as stream:
                    found |= {row[0].removesuffix("_S1Hand.tif"): split for row in csv.reader(stream) if row}
    return found


SEN1FLOODS11 = Published("sen1floods11", FACTS, _open)
