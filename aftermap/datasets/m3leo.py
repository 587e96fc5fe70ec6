"""M3LEO (methods.md 14.6): tiles of 4.48 km in six areas, many sensors; here its GeoTIFF parts, one of which is the label.

Sentinel-1 is dB cut to whole numbers and stored as uint16, so that -12 reads 65524: the bits are read as int16 again (trap
16), and anything outside -60 to 30 dB is refused. Seasons are means of dB images, whatever the card says.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap.chips import F32, Chip, recode
from aftermap.datasets import pixels, worldcover
from aftermap.datasets.dataset import Dataset, Facts, Member, Published, not_laid_out
from aftermap.errors import BandError, UnknownNameError, UsageError

FACTS = Facts(
    title="M3LEO",
    licence="see the data set's card (not read here)",
    citation="Allen et al.: M3LEO: A Multi-Modal, Multi-Label Earth Observation Dataset, arXiv:2406.04230, 2024",
    home="https://huggingface.co/M3LEO",
    access="choose areas at https://huggingface.co/M3LEO; M3LEO-miniset has 5,000 tiles of each",
    cautions=(
        "seasons of Sentinel-1 are means of dB images, to whole dB, though the card says median",
        "whether 0 stands for 0 dB or for a pass that was never made is not known; it counts as 0 dB",
        "splits are stripes of ground at an angle",
        "interferometric parts (gssic, gunw) are NetCDF and are not read",
    ),
)
SEASONS, PASSES = ("winter", "spring", "summer", "fall"), ("VV.ascending", "VV.descending", "VH.ascending", "VH.descending")
S1 = tuple(f"{season}.{band}" for season in SEASONS for band in PASSES)
_MONTHS = tuple(f"{m:02d}" for m in range(1, 13))
_PARTS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "s1grd-2020": (S1, "dB"),
    "s2rgbm-2020": (tuple(f"{m}.{b}" for m in _MONTHS for b in ("red", "green", "blue")), "digital_number"),
    "srtmdem": (("dem.elevation",), "metres"),
}
_SPELLED = {"srtmdem": ("srtmdem", "strmdem")}
"""One area spells its elevation model in another way."""
TRUTH = "esaworldcover-2020"
_RANGE_DB = (-60, 30)


@dataclass(frozen=True)
class Label:
    """A part of which the mean over a tile is the tile's own label."""

    part: str
    name: str
    band: int
    """Place from the end."""
    of: Callable[[F32], F32]
    """Values as stored -> the label's own, NaN where nothing is known."""


def _tree_cover(stored: F32) -> F32:
    """MOD44B in percent, to [0, 1]: 200 is water, where no tree stands, and what is above 100 besides no percentage (J.4)."""
    return np.where(stored == 200, np.float32(0), np.where((stored >= 0) & (stored <= 100), stored / 100, np.float32(np.nan)))


def _positive(stored: F32) -> F32:
    return np.where(stored >= 0, stored, np.float32(np.nan))


LABELS = {
    "tree-cover": Label("modis44b006veg", "tree cover", -1, _tree_cover),
    "built": Label("ghsbuilts-2020", "built surface", 0, _positive),
    "biomass": Label("biomass-2020", "biomass", 0, _positive),
}
"""Tree cover is of 2020, the last of five years. Numbers stay as they are: the code of the authors cuts them to whole ones."""

TRUTHS = ("landcover", *LABELS)


def _open(folder: Path, *, parts: tuple[str, ...] = ("s1grd-2020",), truth: str = TRUTHS[0]) -> Dataset:
    """One area's folder `<aoi>_partitions_aschips_<hash>`, or what holds it. Season and month lead the names of bands.

    `truth` is "landcover", by pixel, or one of LABELS, of the whole tile.
    """
    if truth not in TRUTHS:
        raise UnknownNameError("truth", truth, TRUTHS)
    label = LABELS.get(truth)
    of_truth = label.part if label else TRUTH
    if not parts or set(parts) - set(_PARTS):
        raise UsageError(f"parts are {', '.join(parts) or 'none'}", repair=f"known: {', '.join(_PARTS)}")
    roots = sorted({p.parent for p in [*folder.glob(of_truth), *folder.glob(f"*/{of_truth}")]})
    if not roots:
        raise not_laid_out(folder, FACTS.title, f"it holds <aoi>_partitions_aschips_<hash>/{of_truth}")
    members, absent = {}, []
    for root in roots:
        area, listed = root.name.partition("_")[0], _listed(root)
        for path in sorted((root / of_truth).glob("*.tif")):
            files = {"truth": path} | {part: _part(root, part) / path.name for part in parts}
            lacking = [str(p.relative_to(folder)) for p in files.values() if not p.exists()]
            absent += lacking
            if not lacking:
                members[path.stem] = Member(path.stem, listed.get(path.stem, "unlisted"), area, files)
    bands = tuple(b for part in parts for b in _PARTS[part][0])
    units = tuple(_PARTS[part][1] for part in parts for _ in _PARTS[part][0])
    unit = units[0] if len(set(units)) == 1 else units

    def load(member: Member) -> Chip:
        found = [unwrap(pixels.stored(p), p.name) if part == "s1grd-2020" else pixels.image(p)
                 for part, p in ((part, member.files[part]) for part in parts)]  # fmt: skip
        stored = pixels.stored(member.files["truth"])
        if label:
            known = label.of(stored[label.band].astype(np.float32))
            target = float(np.nanmean(known, dtype=np.float64)) if np.isfinite(known).any() else None
            return pixels.chip(member, np.concatenate(found), bands=bands, unit=unit, domain=member.event, target=target)
        codes = recode(stored[0], worldcover.CODES, member.files["truth"].name)
        return pixels.chip(member, np.concatenate(found), codes, bands=bands, unit=unit, domain=member.event)

    classes = (label.name,) if label else tuple(worldcover.CLASSES.values())
    return Dataset("m3leo", folder, FACTS, bands, unit, classes, members, load, tuple(absent))


def unwrap(stored: npt.NDArray[Any], name: str) -> F32:
    """dB (band, y, x) of whole numbers stored modulo 65536. Raises BandError ("unit-impossible") outside -60 to 30 dB."""
    values = stored.astype(np.uint16).view(np.int16) if stored.dtype.kind in "ui" else stored
    seen = values[np.isfinite(values)]
    if seen.size and not _RANGE_DB[0] <= float(seen.min()) <= float(seen.max()) <= _RANGE_DB[1]:
        raise BandError(
            f"{name} holds {float(seen.min()):g} to {float(seen.max()):g}, which are no dB",
            repair="fetch it again",
            code="unit-impossible",
        )
    return values.astype(np.float32)


def _part(root: Path, part: str) -> Path:
    return next((root / s for s in _SPELLED.get(part, ()) if (root / s).is_dir()), root / part)


def _listed(root: Path) -> dict[str, str]:
    """Tile -> official split, of the list inside or beside the area's folder."""
    area = root.name.partition("_")[0]
    found: dict[str, str] = {}
    for path in sorted([*root.glob("*_splits_*.csv"), *root.parent.glob(f"{area}*_splits_*.csv")]):
        with path.open(newline="", encoding="utf-8") as stream:
            found |= {row["identifier"]: row["split"] for row in csv.DictReader(stream)}
    return found


M3LEO = Published("m3leo", FACTS, _open)
