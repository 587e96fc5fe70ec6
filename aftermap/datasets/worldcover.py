"""ESA WorldCover (methods.md 14.6): land cover at 10 m, of 2020 (v100) or 2021 (v200).

The two were made by different algorithms, so a folder with both is refused until one is named: what differs between them is
not change. Code 0 is no data, never tree.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from aftermap import raster
from aftermap.chips import UNKNOWN, Chip, Codes, recode
from aftermap.datasets import pixels
from aftermap.datasets.dataset import Dataset, Facts, Member, Published, not_laid_out
from aftermap.errors import InputRefusedError, UnknownNameError
from aftermap.tiles import blocks

FACTS = Facts(
    title="ESA WorldCover",
    licence="CC BY 4.0",
    citation="Zanaga et al.: ESA WorldCover 10 m 2020 v100 / 2021 v200, 2021 and 2022",
    home="https://esa-worldcover.org",
    access="choose tiles of 3 x 3 degrees at https://esa-worldcover.org",
    cautions=("v100 and v200 come from different algorithms: never take their difference for change",),
)
CLASSES = {
    10: "tree cover", 20: "shrubland", 30: "grassland", 40: "cropland", 50: "built-up", 60: "bare or sparse vegetation",
    70: "snow and ice", 80: "permanent water", 90: "herbaceous wetland", 95: "mangroves", 100: "moss and lichen",
}  # fmt: skip
CODES: Codes = {0: UNKNOWN} | {stored: code for code, stored in enumerate(CLASSES)}
"""Stored code -> class code in the order of CLASSES; 0 is unknown."""
_NAME = re.compile(r"ESA_WorldCover_10m_(\d{4})_(v\d{3})_([NS]\d{2}[EW]\d{3})_Map\.tif$")


def _open(folder: Path, *, version: str = "", size: int = 512) -> Dataset:
    """`version` is "v100" or "v200", needed where a folder holds both; windows of at most `size` px; a tile is an event."""
    tiles = [(m, p) for p in sorted(folder.rglob("*_Map.tif")) if (m := _NAME.search(p.name))]
    if not tiles:
        raise not_laid_out(folder, FACTS.title, "it holds ESA_WorldCover_10m_YEAR_VERSION_TILE_Map.tif")
    versions = sorted({m.group(2) for m, _ in tiles})
    if version and version not in versions:
        raise UnknownNameError("version", version, versions)
    if not version and len(versions) > 1:
        raise InputRefusedError(
            f"{folder} holds WorldCover {' and '.join(versions)}, which are not comparable",
            repair="name one: version='v200'",
            code="mixed-versions",
        )
    members = {
        f"{m.group(3)}_{w.row:05d}_{w.col:05d}": Member(f"{m.group(3)}_{w.row:05d}_{w.col:05d}", "all", m.group(3), {"map": p}, w)
        for m, p in tiles
        if m.group(2) == (version or versions[0])
        for w in blocks(raster.size_of(p), size)
    }

    def load(member: Member) -> Chip:
        codes = pixels.stored(member.files["map"], (1,), member.place)
        truth = recode(codes[0], CODES, member.files["map"].name)
        found = codes.astype(np.float32)
        found[codes == 0] = np.nan
        return pixels.chip(member, found, truth, bands=("map",), unit="class", domain=version or versions[0], window=member.place)

    return Dataset("worldcover", folder, FACTS, ("map",), "class", tuple(CLASSES.values()), members, load)


WORLDCOVER = Published("worldcover", FACTS, _open)
