"""WorldFloods v2 (methods.md 14.8): Sentinel-2 L1C scenes of floods with water and cloud, read in windows.

The ground truth has two bands: 1 is 0 invalid, 1 clear, 2 cloud; 2 is 0 invalid, 1 land, 2 water. Under cloud the truth is
unknown here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aftermap import raster
from aftermap.chips import UNKNOWN, Chip, recode
from aftermap.datasets import pixels
from aftermap.datasets.dataset import Dataset, Facts, Member, Published, not_laid_out
from aftermap.errors import RasterError
from aftermap.tiles import blocks

FACTS = Facts(
    title="WorldFloods v2",
    licence="CC BY-NC 4.0, not for commercial use",
    citation="Portales-Julia et al.: Global flood extent segmentation in optical satellite images, Scientific Reports 2023",
    home="https://huggingface.co/datasets/isp-uv-es/WorldFloodsv2",
    record="hf:isp-uv-es/WorldFloodsv2",
    cautions=("water is all water: PERMANENTWATERJRC/ tells the permanent", "maps and images may be days apart"),
)
BANDS = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")
SPLITS = {"train": "train", "val": "validation", "test": "test"}


def _open(folder: Path, *, size: int = 512) -> Dataset:
    """Windows of at most `size` px. The event is the EMS activation, else the scene."""
    members, absent = {}, []
    for word, split in SPLITS.items():
        for path in sorted((folder / word / "S2").glob("*.tif")):
            files = {"image": path, "truth": folder / word / "gt" / path.name}
            if not files["truth"].exists():
                absent.append(str(files["truth"].relative_to(folder)))
                continue
            event = path.stem.partition("_")[0] if path.stem.startswith("EMSR") else path.stem
            try:
                shape = raster.size_of(path)
            except RasterError:
                shape = (1, 1)  # one member that fails by name when it is read
            for window in blocks(shape, size):
                name = f"{path.stem}_{window.row:05d}_{window.col:05d}"
                members[name] = Member(name, split, event, files, window)
    if not members and not absent:
        raise not_laid_out(folder, FACTS.title, "it holds train/S2, train/gt and the like")

    def load(member: Member) -> Chip:
        window = member.place
        found = pixels.stored(member.files["image"], range(1, len(BANDS) + 1), window).astype(np.float32)
        cloud, water = pixels.stored(member.files["truth"], (1, 2), window)
        truth = recode(water, {0: UNKNOWN, 1: 0, 2: 1}, member.files["truth"].name)
        truth[recode(cloud, {0: 1, 1: 0, 2: 1}, member.files["truth"].name) == 1] = UNKNOWN
        found = pixels.blackened(found) * pixels.REFLECTANCE
        return pixels.chip(member, found, truth, bands=BANDS, unit="reflectance", domain="sentinel-2-l1c", window=window)

    return Dataset("worldfloods", folder, FACTS, BANDS, "reflectance", ("land", "water"), members, load, tuple(absent))


WORLDFLOODS = Published("worldfloods", FACTS, _open)
