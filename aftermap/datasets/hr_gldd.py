"""HR-GLDD (methods.md 14.3): PlanetScope patches of landslides as numpy arrays, read by row without loading the rest.

No document names the columns: the paper's list and its notebook speak for red, green, blue, near infrared, the satellite's own
order is blue, green, red, near infrared. Green and near infrared stand at the same place in both.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aftermap.chips import Chip, recode
from aftermap.datasets import pixels
from aftermap.datasets.dataset import Dataset, Facts, Member, Published, not_laid_out
from aftermap.errors import InputRefusedError, UsageError

FACTS = Facts(
    title="HR-GLDD",
    licence="see the record (not read here)",
    citation="Meena et al.: HR-GLDD, Earth System Science Data 15:3283, 2023",
    home="https://doi.org/10.5281/zenodo.7189381",
    record="zenodo:7189381",
    cautions=(
        "the order of the bands is not documented: try order='bgrn' as well",
        "patches carry no place, so a split by region cannot be made again",
    ),
)
ORDERS = {"rgbn": ("red", "green", "blue", "nir"), "bgrn": ("blue", "green", "red", "nir")}
SPLITS = {"train": "train", "val": "validation", "test": "test"}


def _open(folder: Path, *, order: str = "rgbn") -> Dataset:
    """`order` names the four columns: "rgbn" or "bgrn"."""
    if order not in ORDERS:
        raise UsageError(f"order is {order!r}", repair=f"say {' or '.join(ORDERS)}")
    members: dict[str, Member] = {}
    absent = []
    for word, split in SPLITS.items():
        files = {"image": folder / f"{word}X.npy", "mask": folder / f"{word}Y.npy"}
        absent += [p.name for p in files.values() if not p.exists()]
        if all(p.exists() for p in files.values()):
            count = _rows(files["image"])
            members |= {f"{word}_{i:04d}": Member(f"{word}_{i:04d}", split, "unknown", files, i) for i in range(count)}
    if len(absent) == 2 * len(SPLITS):
        raise not_laid_out(folder, FACTS.title, "it holds trainX.npy, trainY.npy and the like")

    def load(member: Member) -> Chip:
        image, mask = (np.load(member.files[k], mmap_mode="r") for k in ("image", "mask"))
        if len(image) != len(mask):
            raise InputRefusedError(
                f"{len(image)} images and {len(mask)} masks", repair="fetch both again", code="corrupt-member"
            )
        found = np.moveaxis(image[member.place], -1, 0).astype(np.float32)
        truth = recode(np.squeeze(mask[member.place], -1), {0: 0, 1: 1}, member.files["mask"].name)
        return pixels.chip(
            member, pixels.blackened(found), truth, bands=ORDERS[order], unit="digital_number", domain="planetscope"
        )

    return Dataset(
        "hr-gldd", folder, FACTS, ORDERS[order], "digital_number", ("no landslide", "landslide"), members, load, tuple(absent)
    )


def _rows(path: Path) -> int:
    """Rows that a file's header promises: of one cut off each is then missed by name. 1 where even that is damaged."""
    try:
        with path.open("rb") as stream:
            read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
            rows = int(read[np.lib.format.read_magic(stream)[0]](stream)[0][0])
    except (ValueError, KeyError, IndexError, TypeError):
        return 1
    return max(1, min(rows, path.stat().st_size))  # a row has a byte at least


HR_GLDD = Published("hr-gldd", FACTS, _open)
