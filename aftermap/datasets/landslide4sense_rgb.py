"""Landslide4Sense as RGB pictures with masks: images/image_N.png, masks/mask_N.png, index.csv with the region of each.

Regions were read off the pictures and the runs of their numbers; the data set does not publish them.
"""

from __future__ import annotations

import csv
from pathlib import Path

from aftermap.chips import Chip
from aftermap.datasets import landslide4sense, pixels
from aftermap.datasets.dataset import Dataset, Facts, Member, Published, not_laid_out

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


def _open(folder: Path) -> Dataset:
    """The event of a picture is its region: "A", "B", "C"; the split is "all", for there is no official one."""
    index = folder / "index.csv"
    rows = []
    if index.is_file():
        with index.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    if not rows or "region_inferred" not in rows[0]:
        raise not_laid_out(folder, FACTS.title, "it holds images/, masks/ and index.csv with region_inferred")
    members, absent = {}, []
    for row in rows:
        name, event = row["image"].removesuffix(".png"), row["region_inferred"].partition("_")[0]
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


LANDSLIDE4SENSE_RGB = Published("landslide4sense-rgb", FACTS, _open)
