"""xBD / xView2 (methods.md 14.2): images before and after a disaster, building polygons with a grade of damage.

Truth is burnt from the polygons of the JSON files: 0 background, 1 no damage to 4 destroyed. Labels before the event have
no grade, so `truth="building"` (0, 1) takes them, and `truth="damage"` those after.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine

from aftermap import plain, raster, vector
from aftermap.chips import U8, UNKNOWN, Chip
from aftermap.datasets import pixels
from aftermap.datasets.dataset import Dataset, Facts, Member, Published, Source, not_laid_out
from aftermap.errors import InputRefusedError, UsageError

FACTS = Facts(
    title="xBD (xView2)",
    licence="CC BY-NC-SA 4.0, not for commercial use",
    citation="Gupta et al.: xBD: A Dataset for Assessing Building Damage from Satellite Imagery, arXiv:1911.09296, 2019",
    home="https://xview2.org",
    sources=(  # MD5 as torchgeo states them (torchgeo/datasets/xview.py); the sizes and the other archives' are unknown
        Source("", "train_images_labels_targets.tar.gz", None, "md5:a20ebbfb7eb3452785b63ad02ffd1e16"),
        Source("", "test_images_labels_targets.tar.gz", None, "md5:1b39c47e05d1319c17cc8763cee6fe0c"),
        Source("", "hold_images_labels_targets.tar.gz"),
        Source("", "tier3.tar.gz"),
    ),
    access="register at https://xview2.org and put the archives into the folder; they are then checked and unpacked",
    cautions=(
        "train, test and hold share their disasters: split by event for places unseen",
        "roofs lean in images that look aside, so outlines of before lie beside roofs of after",
    ),
)
SPLITS = ("train", "tier3", "test", "hold")
GRADES = {"no-damage": 1, "minor-damage": 2, "major-damage": 3, "destroyed": 4}
UNCLASSIFIED = {"unknown": UNKNOWN, "no-damage": 1, "background": 0}
"""What an `un-classified` building may count as: 255; 1, as the first place of the challenge had it; or 0, dropped."""
RGB = ("red", "green", "blue")
_BANDS = (*(f"before.{b}" for b in RGB), *RGB)


def _open(folder: Path, *, truth: str = "damage", unclassified: str = "unknown", image: str = "both") -> Dataset:
    """`truth` is "damage" (polygons after the event) or "building" (before); `unclassified` a key of UNCLASSIFIED; `image` "both"
    or "before", whose bands then stand for those of after."""
    if truth not in ("damage", "building") or unclassified not in UNCLASSIFIED or image not in ("both", "before"):
        raise UsageError(
            f"truth is {truth!r}, unclassified {unclassified!r}, image {image!r}",
            repair=f"truth: damage or building; unclassified: {', '.join(UNCLASSIFIED)}; image: both or before",
        )
    dates, bands = (("before", "after"), _BANDS) if image == "both" else (("before",), _BANDS[len(_BANDS) // 2 :])
    members, absent = {}, []
    for split in (s for s in SPLITS if (folder / s / "images").is_dir() and (folder / s / "labels").is_dir()):
        for after in sorted((folder / split / "images").glob("*_post_disaster.*")):
            stem = after.name.partition("_post_disaster")[0]
            files = {
                "after": after,
                "before": after.with_name(after.name.replace("_post_", "_pre_")),
                "labels": folder / split / "labels" / f"{stem}_{'post' if truth == 'damage' else 'pre'}_disaster.json",
            }
            absent += [str(p.relative_to(folder)) for p in files.values() if not p.exists()]
            if after.suffix in (".png", ".tif") and all(p.exists() for p in files.values()):
                members[stem] = Member(stem, split, stem.rpartition("_")[0], files)
    if not members and not absent:
        raise not_laid_out(folder, FACTS.title, "it holds train/images, train/labels and the like")

    def load(member: Member) -> Chip:
        found = np.concatenate([pixels.image(member.files[k], (1, 2, 3)) for k in dates])
        burnt = _burn(member.files["labels"], found.shape[1:], truth, UNCLASSIFIED[unclassified])
        return pixels.chip(member, found, burnt, bands=bands, unit="digital_number", domain="maxar-rgb")

    classes = ("background", *GRADES) if truth == "damage" else ("background", "building")
    return Dataset("xbd", folder, FACTS, bands, "digital_number", classes, members, load, tuple(absent))


def _burn(path: Path, shape: Any, truth: str, unclassified: int) -> U8:
    """Class codes (y, x) of the polygons in pixel coordinates; the worse grade wins where two overlap."""
    features = plain.read_json(path)["features"]["xy"]
    graded: dict[int, list[Any]] = {}
    for feature in features:
        if feature["properties"].get("feature_type", "building") == "building":
            grade = 1 if truth == "building" else _grade(feature["properties"], unclassified, path)
            graded.setdefault(grade, []).append(vector.from_wkt(feature["wkt"]))
    codes = np.zeros(shape, np.uint8)
    for grade in sorted(graded, key=lambda g: -1 if g == UNKNOWN else g):
        codes[raster.burn(graded[grade], shape, Affine.identity())] = grade
    return codes


def _grade(properties: Any, unclassified: int, path: Path) -> int:
    subtype = properties.get("subtype")
    if subtype == "un-classified":
        return unclassified
    if subtype not in GRADES:
        raise InputRefusedError(
            f"{path.name} has a building of grade {subtype!r}; known are {', '.join(GRADES)} and un-classified",
            repair="labels before the event have no grade: open them with truth='building'",
            code="label-codes",
        )
    return GRADES[subtype]


XBD = Published("xbd", FACTS, _open)
