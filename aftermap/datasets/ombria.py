"""OMBRIA (methods.md 14.8): 8-bit pictures of floods before and after, Sentinel-1 VV and Sentinel-2 SWIR1, NIR, green.

Nearly every tile of the official test touches one of train. `groups_inferred.csv` beside the folders gives the scene of each
tile; groups A, B and H may be one country and are one event here.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from aftermap.chips import F32, Chip
from aftermap.datasets import pixels
from aftermap.datasets.dataset import Dataset, Facts, Member, Published, not_laid_out
from aftermap.errors import UsageError

FACTS = Facts(
    title="OMBRIA",
    licence="not stated; images derived from Copernicus Sentinel, masks from Copernicus EMS Rapid Mapping",
    citation="Drakonakis et al.: OmbriaNet, IEEE JSTARS 2022",
    home="https://github.com/geodrak/OMBRIA",
    sources=(),
    access="clone https://github.com/geodrak/OMBRIA; the repository states no licence",
    cautions=(
        "the official split leaks: 68 of 70 test tiles touch a train tile; split by event",
        "radar is stretched tile by tile to 0..255: no dB, and before and after are not comparable in level",
        "radar outside the swath is often 255 and cannot be told from a bright pixel; it counts as observed",
        "every tile holds some flood",
    ),
)
TOGETHER = ("A", "B", "H")
S1, S2 = ("VV",), ("swir1", "nir", "green")


def _open(folder: Path, *, image: str = "both") -> Dataset:
    """`image` is "s1", "s2", "both", or "after": both after the flood alone, each a layer by itself, "s1.VV"."""
    wanted = {"s1": ("S1",), "s2": ("S2",), "both": ("S1", "S2"), "after": ("S1", "S2")}.get(image)
    if wanted is None:
        raise UsageError(f"image is {image!r}", repair="say s1, s2, both or after")
    apart = image == "after"
    groups = _groups(folder / "groups_inferred.csv")
    members, absent = {}, []
    for split in ("train", "test"):
        for path in sorted((folder / f"Ombria{wanted[0]}" / split / "MASK").glob("*.png")):
            number = path.stem.rpartition("_")[2]
            files = {
                f"{kind}_{when}": folder / f"Ombria{kind}" / split / when.upper() / f"{kind}_{when}_{number}.png"
                for kind in wanted
                for when in ("before", "after", "mask")
            }
            lacking = [str(p.relative_to(folder)) for p in files.values() if not p.exists()]
            absent += lacking
            if not lacking:
                members[number] = Member(number, split, groups.get(number, "unlisted"), files)
    if not members:
        raise not_laid_out(folder, FACTS.title, "it holds OmbriaS1/train/MASK and the like")
    own = {"S1": S1, "S2": S2}
    bands = tuple(f"{lead}{b}" for k in wanted for lead in ((f"{k.lower()}.",) if apart else ("before.", "")) for b in own[k])

    def load(member: Member) -> Chip:
        dates = ("after",) if apart else ("before", "after")
        found = np.concatenate([_image(member, kind, when) for kind in wanted for when in dates])
        truth = pixels.mask(member.files[f"{wanted[0]}_mask"], {0: 0, 255: 1})
        return pixels.chip(member, found, truth, bands=bands, unit="digital_number", domain=f"ombria-{image}/{member.event}")

    classes = ("no flood", "flood")
    return Dataset("ombria", folder, FACTS, bands, "digital_number", classes, members, load, tuple(absent))


def _image(member: Member, kind: str, when: str) -> F32:
    found = pixels.image(member.files[f"{kind}_{when}"])
    return pixels.blackened(found) if kind == "S2" else found


def _groups(path: Path) -> Mapping[str, str]:
    """Tile number -> event."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as stream:
        rows = [(row["tile"], row["group_inferred"]) for row in csv.DictReader(stream)]
    return {tile: "+".join(TOGETHER) if group in TOGETHER else group for tile, group in rows}


OMBRIA = Published("ombria", FACTS, _open)
