"""A plain folder of images and masks: the one that `aftermap chips` writes, or anybody's own, with a mask or with polygons.

Own folders hold images/NAME.* and masks/NAME.*, alone or in train/, val/ and test/; or images and masks side by side with a
suffix; or images with one file of polygons. Pictures named by web-map tile (`...-X-Y-Z.png`) are georeferenced by that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

from aftermap import raster, vector
from aftermap.chips import U8, UNKNOWN, Chip, recode
from aftermap.datasets import pixels
from aftermap.datasets.cut import EDGES, Use, is_written, open_written
from aftermap.datasets.dataset import Dataset, Facts, Member, Published, not_laid_out
from aftermap.errors import InputRefusedError, UsageError
from aftermap.tiles import Window

FACTS = Facts("a folder of images and masks", "your own", "", "", access="it is your own")
_IMAGES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
_SPLITS = {"": "all", "train": "train", "val": "validation", "validation": "validation", "test": "test"}
_TILE = re.compile(r"(\d+)[-_](\d+)[-_](\d+)$")
_HALF_WORLD_M = math.pi * 6378137
EVENT_ZOOM = 19
"""Web-map tiles of one parent at this zoom show one piece of ground, and are one event."""


@dataclass(frozen=True)
class Plain:
    """How to read a folder of one's own."""

    images: str = "images"
    masks: str = "masks"
    mask_suffix: str = ""
    """Between the name of an image and its mask's ending: "_label"; `masks` may then be the folder of the images."""
    polygons: str = ""
    """A vector file in the folder, in place of masks."""
    hazard_code: int | None = None
    """The code of the hazard in masks; 1 or 255 where it is not said and only one is possible."""
    threshold: float | None = None
    """Masks stored lossily (JPEG): above it is hazard."""
    bands: tuple[str, ...] = ()
    unit: str = "digital_number"
    nodata: float | None = None
    event: str = ""
    """A regular expression: its first group in an image's name is the event; by default the whole folder is one."""


def _open(
    folder: Path, *, images: str = "images", masks: str = "masks", mask_suffix: str = "", polygons: str = "",
    hazard_code: int | None = None, threshold: float | None = None, bands: Sequence[str] = (), unit: str = "digital_number",
    nodata: float | None = None, event: str = "", passes: int = 1, combine: str = "mean", target: str = "",
    edges: Sequence[float] = EDGES, present_only: bool = False,
) -> Dataset:  # fmt: skip
    """Chips as `aftermap chips` wrote them, used as `cut.Use` says, or one's own as `Plain` says."""
    use = Use(passes, combine, target, tuple(edges), present_only)
    if is_written(folder):
        return open_written(folder, FACTS, use)
    if use != Use():
        raise UsageError(f"{folder} was not cut by aftermap chips", repair="leave passes, combine, target and the like out")
    how = Plain(images, masks, mask_suffix, polygons, hazard_code, threshold, tuple(bands), unit, nodata, event)
    return _plain(folder, how)


def _plain(folder: Path, how: Plain) -> Dataset:
    members, absent = _find(folder, how)
    if not members and not absent:
        raise not_laid_out(folder, FACTS.title, f"it holds {how.images}/ and {how.masks}/ with files of the same names")
    bands = how.bands or next((_bands(m.files["image"]) for m in members.values()), ())
    shapes: dict[str, Any] = {}

    def load(member: Member) -> Chip:
        found = pixels.image(member.files["image"], range(1, len(bands) + 1), nodata=how.nodata)
        found = _without_alpha(member.files["image"], found)
        truth = _burn(member, folder / how.polygons, shapes) if how.polygons else _mask(member.files["mask"], how)
        return pixels.chip(member, found, truth, bands=bands, unit=how.unit, domain=folder.name)

    return Dataset("folder", folder, FACTS, bands, how.unit, ("absent", "present"), members, load, tuple(absent))


def _find(folder: Path, how: Plain) -> tuple[dict[str, Member], list[str]]:
    members: dict[str, Member] = {}
    absent = []
    for inner, split in _SPLITS.items():
        root = folder / inner / how.images
        for path in sorted(p for p in root.glob("*") if p.suffix.lower() in _IMAGES) if root.is_dir() else ():
            if how.mask_suffix and path.stem.endswith(how.mask_suffix):
                continue
            mask = None if how.polygons else next(_masks(folder / inner / how.masks, path, how.mask_suffix), None)
            if mask is None and not how.polygons:
                absent.append(f"mask of {path.relative_to(folder)}")
                continue
            name = path.stem if path.stem not in members else f"{split}_{path.stem}"
            files = {"image": path} | ({} if mask is None else {"mask": mask})
            members[name] = Member(name, split, _event(path, folder, how), files)
    return members, absent


def _masks(folder: Path, image: Path, suffix: str) -> Iterator[Path]:
    stems = {f"{image.stem}{suffix}", image.stem.replace("image", "mask")} if not suffix else {f"{image.stem}{suffix}"}
    yield from (p for s in sorted(stems) for e in _IMAGES if (p := folder / f"{s}{e}").exists() and p != image)


def _event(path: Path, folder: Path, how: Plain) -> str:
    if how.event:
        found = re.search(how.event, path.stem)
        return (found.group(1) if found.groups() else found.group(0)) if found else "unknown"
    if tile := _TILE.search(path.stem):
        x, y, zoom = map(int, tile.groups())
        if zoom >= EVENT_ZOOM:
            return f"{x >> zoom - EVENT_ZOOM}-{y >> zoom - EVENT_ZOOM}-{EVENT_ZOOM}"
    return folder.name


def _bands(path: Path) -> tuple[str, ...]:
    """Names of the bands that measure: as the file says, red, green and blue of a picture, else by number."""
    said = raster.facts(path)
    names = said.descriptions
    if all(names):
        return names
    rgb = len(names) == 3 and said.dtype == "uint8"
    return ("red", "green", "blue") if rgb else tuple(f"band_{k + 1}" for k in range(len(names)))


def _without_alpha(path: Path, found: Any) -> Any:
    """Pixels (band, y, x) with NaN where nodata, a mask or an alpha band of the file says so."""
    known = raster.facts(path)
    if known.alpha or any(v is not None for v in known.nodata):
        reader = raster.Reader(path, known.grid, known.indexes[: len(found)])
        found = np.where(np.isnan(found), np.nan, reader.read(Window(0, 0, *found.shape[1:])))
    return found


def _mask(path: Path, how: Plain) -> U8:
    stored = pixels.stored(path, (1,))[0]
    if how.threshold is not None:
        return np.asarray(stored > how.threshold, np.uint8)
    if how.hazard_code is None and set(np.unique(stored).tolist()) == {0, 255}:
        raise InputRefusedError(
            f"{path.name} holds only 0 and 255: is 255 the hazard, or unknown?",
            repair="say hazard_code=255 or hazard_code=1",
            code="truth-ambiguous",
        )
    known = {0.0: 0, -1.0: UNKNOWN} | ({255.0: UNKNOWN} if how.hazard_code != 255 else {})
    return recode(stored, known | {float(how.hazard_code or 1): 1}, path.name)


def _burn(member: Member, polygons: Path, held: dict[str, Any]) -> U8:
    grid = tile_grid(member.files["image"])
    key = str(grid.crs)
    if key not in held:
        held[key] = vector.read_polygons(polygons, grid)
    return vector.rasterise(held[key], grid, Window(0, 0, *grid.shape)).astype(np.uint8)


def tile_grid(path: Path) -> GeoBox:
    """The grid of a file: its own, or that of the web-map tile (EPSG:3857) that its name ends in."""
    own = raster.facts(path).grid
    tile = _TILE.search(path.stem)
    if own.crs is not None or tile is None:
        return own
    x, y, zoom = map(int, tile.groups())
    side = 2 * _HALF_WORLD_M / 2**zoom
    height, width = own.shape
    corner = Affine.translation(x * side - _HALF_WORLD_M, _HALF_WORLD_M - y * side)
    return GeoBox((height, width), corner @ Affine.scale(side / width, -side / height), "EPSG:3857")


FOLDER = Published("folder", FACTS, _open)
