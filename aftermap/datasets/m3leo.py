"""M3LEO (methods.md 14.6, J): tiles of 4.48 km in six areas; any of its components as inputs, one as the label.

So is a data set of one's own in this layout, as `aftermap data tiles` and `aftermap data component` make it. Sentinel-1 is dB
cut to whole numbers and stored as uint16, so that -12 reads 65524: the bits are read as int16 again (trap 16), and anything
outside -60 to 30 dB is refused. Seasons are means of dB images, whatever the card says.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aftermap.chips import F32, UNKNOWN, Chip, Codes, recode
from aftermap.datasets import m3leo_parts, pixels, worldcover
from aftermap.datasets.dataset import Dataset, Facts, Member, Published, not_laid_out
from aftermap.errors import UnknownNameError, UsageError

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
        "coherence (gssic) is taken for percent, as its makers draw it",
    ),
)
WORLDCOVER = "esaworldcover-2020"
SIDE_PX = 448
"""Of a tile where neither the truth nor a GeoTIFF among the inputs has a size of its own."""


@dataclass(frozen=True)
class Label:
    """A part of which the mean over a tile is the tile's own label."""

    part: str
    name: str
    band: int
    """Place from the end."""
    of: Callable[[F32], F32]
    """Values as stored, NaN where no data is declared -> the label's own, NaN where nothing is known."""

    def mean(self, path: Path) -> float | None:
        """Over what is known of a tile; None where nothing is."""
        known = self.of(m3leo_parts.observed(path)[self.band])
        return float(np.nanmean(known, dtype=np.float64)) if np.isfinite(known).any() else None


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


@dataclass(frozen=True)
class _Asked:
    """What the truth is: its component and classes, and either codes by pixel or a label of the whole tile."""

    part: str
    classes: tuple[str, ...]
    codes: Codes | None = None
    label: Label | None = None


def _open(
    folder: Path, *, parts: tuple[str, ...] | str = ("s1grd-2020",), truth: str = TRUTHS[0], classes: str = "", orbit: str = "",
    months: str = "", after: str = "",
) -> Dataset:  # fmt: skip
    """One area's folder `<aoi>_partitions_aschips_<hash>`, or what holds it. Bands lie side by side on the grid of the truth.

    `parts` are components, `truth` "landcover", by pixel, one of LABELS, of the whole tile, or a component of one's own: codes
    by pixel where `classes` names them from 0 on, else the mean. `orbit` and `months` as m3leo_parts.part; `after` is a layer
    whose bands stand for those of the image after.
    """
    names = tuple(one.strip() for one in parts.split(",")) if isinstance(parts, str) else tuple(parts)
    roots = _roots(folder)
    asked = _asked(truth, classes, roots)
    roots = [root for root in roots if (root / asked.part).is_dir()]
    if not names:
        raise UsageError("there are no parts", repair=f"known: {', '.join(m3leo_parts.PUBLISHED)}")
    if not roots:
        raise not_laid_out(folder, FACTS.title, f"it holds <aoi>_partitions_aschips_<hash>/{asked.part}")
    used = [m3leo_parts.part(name, roots, orbit=orbit, months=months) for name in names]
    layers = {one.layer for one in used}
    if after and after not in layers:
        raise UnknownNameError("input", after, layers)
    members, absent = _members(folder, roots, asked.part, used)
    bands = tuple(b if one.layer == after else f"{one.layer}.{b}" for one in used for b in one.bands)
    units = tuple(one.unit for one in used for _ in one.bands)
    unit = units[0] if len(set(units)) == 1 else units

    def load(member: Member) -> Chip:
        found = [one.read(member.files[one.name]) for one in used]
        path, codes, target = member.files["truth"], None, None
        if asked.codes is not None:
            codes = recode(m3leo_parts.observed(path)[0], asked.codes, path.name)
        elif asked.label is not None:
            target = asked.label.mean(path)
        shape = codes.shape if codes is not None else _shape(used, found)
        stacked = np.concatenate([m3leo_parts.fitted(one, (shape[0], shape[1])) for one in found])
        return pixels.chip(member, stacked, codes, bands=bands, unit=unit, domain=member.event, target=target)

    return Dataset("m3leo", folder, FACTS, bands, unit, asked.classes, members, load, tuple(absent))


def _asked(truth: str, classes: str, roots: Sequence[Path]) -> _Asked:
    """Raises UnknownNameError ("unknown-truth")."""
    if truth == TRUTHS[0]:
        return _Asked(WORLDCOVER, tuple(worldcover.CLASSES.values()), worldcover.CODES)
    if truth in LABELS:
        return _Asked(LABELS[truth].part, (LABELS[truth].name,), label=LABELS[truth])
    if not any((root / truth).is_dir() for root in roots):
        raise UnknownNameError("truth", truth, (*TRUTHS, *(p.name for root in roots for p in root.iterdir() if p.is_dir())))
    if not classes:
        return _Asked(truth, (truth,), label=Label(truth, truth, 0, lambda seen: seen))
    names = tuple(name.strip() for name in classes.split(","))
    return _Asked(truth, names, {k: k for k in range(len(names))} | {-1: UNKNOWN, UNKNOWN: UNKNOWN})


def _roots(folder: Path) -> list[Path]:
    """The area folders here, or this one."""
    found = [p for p in sorted(folder.glob("*_partitions_aschips_*")) if p.is_dir()]
    return found or [folder]


def _members(
    folder: Path, roots: Sequence[Path], truth: str, parts: Sequence[m3leo_parts.Part]
) -> tuple[dict[str, Member], list[str]]:
    """Tiles that have every component, and the files that others lack (J.4, 7)."""
    members: dict[str, Member] = {}
    absent: list[str] = []
    for root in roots:
        area, listed = root.name.partition("_")[0], _listed(root)
        for path in sorted((root / truth).glob("*.tif")):
            own = {one.name: m3leo_parts.folder(root, one.name) / f"{path.stem}{one.suffix}" for one in parts}
            lacking = [str(p.relative_to(folder)) for p in own.values() if not p.exists()]
            absent += lacking
            if not lacking:
                members[path.stem] = Member(path.stem, listed.get(path.stem, "unlisted"), area, {"truth": path} | own)
    return members, absent


def _shape(parts: Sequence[m3leo_parts.Part], found: Sequence[F32]) -> tuple[int, int]:
    """Of the first image; interferometry is coarser, and comes to the size of the others."""
    own = (pixels.shape[1:] for part, pixels in zip(parts, found, strict=True) if part.suffix == ".tif")
    height, width = next(own, (SIDE_PX, SIDE_PX))
    return height, width


def _listed(root: Path) -> dict[str, str]:
    """Tile -> official split, of the list inside or beside the area's folder."""
    area = root.name.partition("_")[0]
    found: dict[str, str] = {}
    for path in sorted([*root.glob("*_splits_*.csv"), *root.parent.glob(f"{area}*_splits_*.csv")]):
        with path.open(newline="", encoding="utf-8") as stream:
            found |= {row["identifier"]: row["split"] for row in csv.DictReader(stream)}
    return found


M3LEO = Published("m3leo", FACTS, _open)
