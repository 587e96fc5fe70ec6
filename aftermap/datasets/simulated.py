"""Varied scenes of the simulator, HAZARD-SEED/after.tif, before.tif, truth.tif, as `aftermap simulate HAZARD --vary` writes them.

Chips are squares of a scene, scenes are events, and the seed's last digit is its split: 8 chooses, 9 tests, the rest trains. A
folder may hold scenes of several hazards whose pictures have the same bands and that have a truth in common.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap.chips import U8, UNKNOWN, Chip
from aftermap.datasets import pixels
from aftermap.datasets.dataset import Dataset, Facts, Member, Published, not_laid_out
from aftermap.errors import UnknownNameError, UsageError
from aftermap.raster import BLOCK_PX
from aftermap.simulate.vary import VARIED
from aftermap.tiles import Window, blocks

FACTS = Facts(
    title="scenes that aftermap simulated",
    licence="Apache-2.0, as aftermap itself; no image and no label of anybody else is in it",
    citation="aftermap simulate HAZARD --vary SEEDS -o FOLDER",
    home="",
    access="make them: aftermap simulate flood --vary 0-199 -o FOLDER",
    cautions=("a simulation is not the world: what is learned from it has to be measured on real images",),
)
SPLITS = {8: "validation", 9: "test"}
_IMAGES = {"after": ("after",), "before": ("before",), "both": ("before", "after")}
_KEPT = 256
"""Scenes that stay in memory, up to 2 MB each: a scene is read square by square, in any order."""
Codes = npt.NDArray[np.uint8]


def _water(codes: Codes) -> U8:
    """Under crowns and between walls one image cannot tell: unknown."""
    flood, permanent, hidden = codes
    return np.where(hidden > 0, UNKNOWN, (flood | permanent) > 0).astype(np.uint8)


ARTIFICIAL = "artificial"
"""A truth of whole chips: 1 where a larger share than `BUILT` of what is seen was built, else 0, and nothing by pixel."""
BUILT = 0.05
"""As of WorldCover's class 50 (methods.md A'.2)."""
Truth = tuple[tuple[str, ...], Callable[[Codes], U8]]
TRUTHS: dict[str, dict[str, Truth]] = {
    "flood": {
        "water": (("not water", "water"), _water),
        "any-water": (("not water", "water"), lambda codes: codes[0] | codes[1]),
        "flood": (("no flood", "flood"), lambda codes: codes[0]),
    },
    "fracture": {
        "fracture": (("no fracture", "fracture"), lambda codes: codes[0]),
        "new-fracture": (("no new fracture", "new fracture"), lambda codes: codes[1]),
    },
    "building": {
        "building": (("no building", "building"), lambda codes: codes[2]),
        "damage": (
            ("no building", "no damage", "minor damage", "major damage", "destroyed"),
            lambda codes: np.where(codes[2] > 0, codes[1] + 1, 0).astype(np.uint8),
        ),
        ARTIFICIAL: ((ARTIFICIAL,), lambda codes: codes[2]),  # roofs; the truth does not know of roads
    },
    "landslide": {
        "landslide": (("no landslide", "landslide"), lambda codes: codes[0]),
        ARTIFICIAL: ((ARTIFICIAL,), lambda codes: codes[2]),  # roofs and the lanes between them
    },
}
"""Hazard -> what the truth may be, the first by default: its classes, and their codes from the bands of truth.tif."""


def _open(folder: Path, *, truth: str = "", image: str = "after", size: int = 128) -> Dataset:
    """`truth` is one of TRUTHS; `image` "after", "before" (its bands then stand for those of after) or "both"; `size` in px."""
    scenes = sorted(p.parent for p in folder.glob("*-*/truth.tif"))
    hazards = sorted({_hazard(scene.name) for scene in scenes})
    if not hazards or not set(hazards) <= set(VARIED):
        raise not_laid_out(folder, FACTS.title, "it holds HAZARD-SEED/truth.tif")
    layer = VARIED[hazards[0]].layers["after"]
    known = [name for name in TRUTHS[hazards[0]] if all(name in TRUTHS[hazard] for hazard in hazards)]
    if not known or any(VARIED[hazard].layers["after"] != layer for hazard in hazards):
        raise not_laid_out(folder, FACTS.title, f"{' and '.join(hazards)} have no bands or no truth in common")
    if (truth := truth or known[0]) not in known:
        raise UnknownNameError("truth", truth, known)
    if image not in _IMAGES or not 32 <= size <= BLOCK_PX:
        raise UsageError(f"image is {image!r} and size {size}", repair=f"say after, before or both; 32 to {BLOCK_PX}")
    wanted = _IMAGES[image]
    bands = tuple(b if len(wanted) == 1 or date == "after" else f"{date}.{b}" for date in wanted for b in layer.bands)
    classes = TRUTHS[hazards[0]][truth][0]
    members = dict(_members(scenes, size, wanted))
    nodata = None if np.isnan(layer.nodata) else np.array(layer.nodata, layer.dtype)

    @lru_cache(_KEPT)
    def scene(images: tuple[Path, ...], path: Path) -> tuple[npt.NDArray[Any], U8]:
        codes = TRUTHS[_hazard(path.parent.name)][truth][1]
        return np.concatenate([pixels.stored(p) for p in images]), codes(pixels.stored(path))

    def load(member: Member) -> Chip:
        images, answer = scene(tuple(member.files[date] for date in wanted), member.files["truth"])
        part = images[(..., *member.place.slices)]
        found = part.astype(np.float32) if nodata is None else np.where(part == nodata, np.float32(np.nan), part)
        domain, own = f"simulated-{_hazard(member.event)}", answer[member.place.slices]
        labels = {"target": _target(own, pixels.seen(found))} if truth == ARTIFICIAL else {"truth": own}
        return pixels.chip(member, found, bands=bands, unit=layer.unit, domain=domain, window=member.place, **labels)

    return Dataset("simulated", folder, FACTS, bands, layer.unit, classes, members, load)


def _hazard(scene: str) -> str:
    return scene.rpartition("-")[0]


def _target(built: U8, seen: npt.NDArray[np.bool_]) -> tuple[int] | None:
    """The label of a chip; None where nothing was seen."""
    return (int(built[seen].mean() > BUILT),) if seen.any() else None


def _members(scenes: list[Path], size: int, dates: tuple[str, ...]) -> list[tuple[str, Member]]:
    """The whole squares of each scene."""
    found = []
    for scene in scenes:
        split = SPLITS.get(int(scene.name.rpartition("-")[2]) % 10, "train")
        files: Mapping[str, Path] = {name: scene / f"{name}.tif" for name in (*dates, "truth")}
        for window in blocks((BLOCK_PX, BLOCK_PX), size):
            if (window.height, window.width) == (size, size):
                name = f"{scene.name}@{window.row},{window.col}"
                found.append((name, Member(name, split, scene.name, files, Window(*window))))
    return found


SIMULATED = Published("simulated", FACTS, _open)
