"""Landslide4Sense as RGB pictures with masks: images/image_N.png, masks/mask_N.png, index.csv with the region of each.

Regions were read off the pictures and the runs of their numbers; the data set does not publish them.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from aftermap.chips import Chip
from aftermap.datasets import landslide4sense, pixels
from aftermap.datasets.dataset import Dataset, Facts, Member, Published, not_laid_out
from aftermap.errors import InputRefusedError, UsageError

FACTS = Facts(
    title="Landslide4Sense, RGB pictures",
    licence=landslide4sense.FACTS.licence,
    citation=landslide4sense.FACTS.citation,
    home="https://github.com/patschue/DLBS_landslides",
    access="clone https://github.com/patschue/DLBS_landslides and lay it out as images/, masks/ and index.csv",
    cautions=(
        "each picture is stretched by itself: grey levels of two are not comparable",
        "regions are inferred; the mirror's own split has neighbours on both sides and is not offered",
        "only pictures with landslides were kept",
    ),
)
BANDS = ("red", "green", "blue")


def _open(folder: Path, *, runs: int = 1) -> Dataset:
    """The event of a picture is its region: "A", "B", "C"; the split is "all", for there is no official one.

    With `runs` above 1 each region is so many events, "B1" and on: equal runs of its published numbers, whose neighbours are
    likely neighbours on the ground.
    """
    if runs < 1:
        raise UsageError(f"runs is {runs}", repair="give 1 or more")
    index = folder / "index.csv"
    rows = []
    if index.is_file():
        with index.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    if not rows or "region_inferred" not in rows[0]:
        raise not_laid_out(folder, FACTS.title, "it holds images/, masks/ and index.csv with region_inferred")
    members, absent, part_of = {}, [], _runs(rows, runs)
    for row in rows:
        name, event = row["image"].removesuffix(".png"), _region(row) + part_of.get(row["image"], "")
        files = {"image": folder / "images" / row["image"], "mask": folder / "masks" / row["mask"]}
        members[name] = Member(name, "all", event, files)
        absent += [str(p.relative_to(folder)) for p in files.values() if not p.exists()]

    def load(member: Member) -> Chip:
        found = pixels.image(member.files["image"])
        if len(found) == 4:
            found[:, found[3] == 0] = float("nan")
        truth = pixels.mask(member.files["mask"], {0: 0, 255: 1})
        return pixels.chip(member, found[:3], truth, bands=BANDS, unit="digital_number", domain=f"sentinel-2-rgb/{member.event}")

    classes = ("no landslide", "landslide")
    return Dataset("landslide4sense-rgb", folder, FACTS, BANDS, "digital_number", classes, members, load, tuple(absent))


def _region(row: Mapping[str, str]) -> str:
    return row["region_inferred"].partition("_")[0]


def _runs(rows: Sequence[Mapping[str, str]], runs: int) -> dict[str, str]:
    """Picture -> the run of its region that it falls into, from "1"; empty for one run."""
    if runs == 1:
        return {}
    found: dict[str, str] = {}
    for region in {_region(row) for row in rows}:
        own = sorted((row for row in rows if _region(row) == region), key=_number)
        found |= {row["image"]: str(1 + k * runs // len(own)) for k, row in enumerate(own)}
    return found


def _number(row: Mapping[str, str]) -> int:
    """As published: image_12.h5. Raises InputRefusedError ("dataset-layout") where there is none."""
    match = re.search(r"(\d+)\.h5$", row.get("landslide4sense_train_name", ""))
    if match is None:
        raise InputRefusedError(
            f"index.csv has no published number of {row['image']}", repair="leave runs out", code="dataset-layout"
        )
    return int(match.group(1))


LANDSLIDE4SENSE_RGB = Published("landslide4sense-rgb", FACTS, _open)
