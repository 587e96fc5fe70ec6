"""BigEarthNet v2 (reBEN): patches of 1.2 km in ten countries, Sentinel-1 and -2, 19 classes.

A chip has both labels: `target`, 0 or 1 for each class, and the reference map as truth by pixel. CORINE codes that belong to
none of the 19 classes are unknown.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aftermap.bandmaps import MAPS
from aftermap.chips import F32, UNKNOWN, Chip
from aftermap.datasets import parquets, pixels
from aftermap.datasets.dataset import Dataset, Facts, Member, Published, Source, not_laid_out
from aftermap.errors import UsageError

_RECORD = "https://zenodo.org/records/10891137/files/"
FACTS = Facts(
    title="BigEarthNet v2",
    licence="CDLA-Permissive-1.0",
    citation="Clasen et al.: reBEN: Refined BigEarthNet Dataset for Remote Sensing Image Analysis, 2024",
    home="https://bigearth.net",
    sources=(  # sizes as the Zenodo record lists them; no checksum is known here
        Source(f"{_RECORD}metadata.parquet", "metadata.parquet", 3_616_349),
        Source(f"{_RECORD}Reference_Maps.tar.zst", "Reference_Maps.tar.zst", 282_391_301),
        Source(f"{_RECORD}BigEarthNet-S1.tar.zst", "BigEarthNet-S1.tar.zst", 54_439_153_171),
        Source(f"{_RECORD}BigEarthNet-S2.tar.zst", "BigEarthNet-S2.tar.zst", 63_251_710_377),
    ),
    record="zenodo:10891137",
    cautions=(
        "bands of 20 and 60 m are repeated to 10 m, not interpolated",
        "the official split is by blocks of ground within each country: for places unseen split by event (country)",
    ),
)
S1 = ("VV", "VH")
S2 = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
CLASSES = {
    "Urban fabric": (111, 112),
    "Industrial or commercial units": (121,),
    "Arable land": (211, 212, 213),
    "Permanent crops": (221, 222, 223, 241),
    "Pastures": (231,),
    "Complex cultivation patterns": (242,),
    "Land principally occupied by agriculture, with significant areas of natural vegetation": (243,),
    "Agro-forestry areas": (244,),
    "Broad-leaved forest": (311,),
    "Coniferous forest": (312,),
    "Mixed forest": (313,),
    "Natural grassland and sparsely vegetated areas": (321, 333),
    "Moors, heathland and sclerophyllous vegetation": (322, 323),
    "Transitional woodland, shrub": (324,),
    "Beaches, dunes, sands": (331,),
    "Inland wetlands": (411, 412),
    "Coastal wetlands": (421, 422),
    "Inland waters": (511, 512),
    "Marine waters": (521, 522, 523),
}
"""The 19 classes in their official order, and the CORINE codes of each."""
_NEITHER = (0, 122, 123, 124, 131, 132, 133, 141, 142, 332, 334, 335, 423, 990, 995, 999)
_CODES = {float(c): i for i, codes in enumerate(CLASSES.values()) for c in codes} | {float(c): UNKNOWN for c in _NEITHER}
_COLUMNS = ("patch_id", "labels", "split", "country", "s1_name")
_SIDE = 120
ARTIFICIAL = ("Urban fabric", "Industrial or commercial units")
"""What people built, of the 19 classes; all else is natural (methods.md A'.2)."""
_LABELS = ("classes", "artificial")
_FILES = {"s1": (S1, ()), "s2": ((), S2), "both": (S1, S2), "rgb": ((), ("B04", "B03", "B02"))}
"""Image -> bands that are read of the radar's and of the optical patch."""
_PICTURE = MAPS["rgb-reflectance"]


def _open(folder: Path, *, image: str = "both", labels: str = "classes") -> Dataset:
    """`image` is "s1" (dB), "s2" (reflectance), "both", or "rgb": s2 as a picture from 0 to 255, as bandmaps.py makes it.

    `labels` is "classes", or "artificial": a single one of each chip, and no truth by pixel.
    """
    if image not in _FILES:
        raise UsageError(f"image is {image!r}", repair="say s1, s2, both or rgb")
    if labels not in _LABELS:
        raise UsageError(f"labels is {labels!r}", repair=f"say {' or '.join(_LABELS)}")
    table = folder / "metadata.parquet"
    if not table.is_file():
        raise not_laid_out(folder, FACTS.title, "it holds metadata.parquet, BigEarthNet-S1/, BigEarthNet-S2/, Reference_Maps/")
    bands = ("red", "green", "blue") if image == "rgb" else tuple(b for own in _FILES[image] for b in own)
    units = {"s1": "dB", "s2": "reflectance", "rgb": "digital_number"}
    unit: str | tuple[str, ...] = units.get(image, (*("dB",) * len(S1), *("reflectance",) * len(S2)))
    there = {
        root: {p.name for tile in (folder / root).glob("*") if tile.is_dir() for p in tile.iterdir()} for root in _roots(image)
    }
    members, absent = {}, []
    for row in parquets.rows(table, _COLUMNS):
        names = {"BigEarthNet-S1": row["s1_name"], "BigEarthNet-S2": row["patch_id"], "Reference_Maps": row["patch_id"]}
        lacking = [f"{root}/{names[root]}" for root in there if names[root] not in there[root]]
        absent += lacking
        if not lacking:
            name = row["patch_id"]
            members[name] = Member(name, row["split"], row["country"], {}, (row["s1_name"], tuple(row["labels"])))

    def load(member: Member) -> Chip:
        radar, named = member.place
        of_radar, of_optical = _FILES[image]
        found = [_band(_patch(folder / "BigEarthNet-S1", radar, 3) / f"{radar}_{b}.tif") for b in of_radar]
        if of_optical:
            patch = _patch(folder / "BigEarthNet-S2", member.name, 2)
            optical = pixels.blackened(np.stack([_band(patch / f"{member.name}_{b}.tif") for b in of_optical]))
            optical = optical * pixels.REFLECTANCE
            found += list(_PICTURE(optical[None])[0] if image == "rgb" else optical)
        truth, target = None, _target(named)
        if labels == "artificial":
            target = (max(target[tuple(CLASSES).index(name)] for name in ARTIFICIAL),)
        else:
            plan = _patch(folder / "Reference_Maps", member.name, 2) / f"{member.name}_reference_map.tif"
            truth = pixels.mask(plan, _CODES)
        return pixels.chip(
            member, np.stack(found), truth, bands=bands, unit=unit, domain=f"bigearthnet-{image}", target=target
        )  # fmt: skip

    classes = tuple(CLASSES) if labels == "classes" else (labels,)
    return Dataset("bigearthnet", folder, FACTS, bands, unit, classes, members, load, tuple(absent))


def _roots(image: str) -> tuple[str, ...]:
    roots = zip(("BigEarthNet-S1", "BigEarthNet-S2"), _FILES[image], strict=True)
    return (*(root for root, bands in roots if bands), "Reference_Maps")


def _patch(root: Path, name: str, parts: int) -> Path:
    """The folder of a patch, below that of its tile: the name less its last parts."""
    return root / name.rsplit("_", parts)[0] / name


def _band(path: Path) -> F32:
    """Values (120, 120) of a band of 10, 20 or 60 m."""
    found = pixels.image(path)[0]
    times = _SIDE // len(found)
    return np.asarray(found.repeat(times, axis=0).repeat(times, axis=1))


def _target(labels: tuple[str, ...]) -> tuple[int, ...]:
    strange = set(labels) - set(CLASSES)
    if strange:
        raise ValueError(f"the label {sorted(strange)[0]!r} is none of the 19 classes")
    return tuple(int(name in labels) for name in CLASSES)


BIGEARTHNET = Published("bigearthnet", FACTS, _open)
