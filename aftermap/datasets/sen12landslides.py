"""Sen12Landslides (methods.md 14.8): 15 dates of Sentinel-1 or -2 around landslides, as NetCDF-4. The door to h5py for it.

The files store (time, x, y): pixels are turned to (y, x) by the names of their dimensions, never by their place.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap import clouds, plain
from aftermap.chips import F32, Chip, recode
from aftermap.datasets import hdf5, pixels
from aftermap.datasets.dataset import Dataset, Facts, Member, Published, not_laid_out
from aftermap.errors import BandError, UsageError

FACTS = Facts(
    title="Sen12Landslides",
    licence="see the data set's card (not read here)",
    citation="Hoehn et al.: Sen12Landslides, Scientific Data 2025, doi:10.1038/s41597-025-06167-2",
    home="https://huggingface.co/datasets/paulhoehn/Sen12Landslides",
    record="hf:paulhoehn/Sen12Landslides",
    cautions=(
        "where a patch names no dates around an event, its first and last date are taken",
        "a patch without annotation is not proof of no landslide",
    ),
)
S2 = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
_BANDS = {"s1asc": ("VV", "VH"), "s1dsc": ("VV", "VH"), "s2": S2}
_SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


def _open(folder: Path, *, image: str = "s2", task: str = "S12LS-LD", unit: str = "dB") -> Dataset:
    """`image` is s2, s1asc or s1dsc; `unit` that of the radar: dB as harmonised, power as raw; `task` names the split files."""
    if image not in _BANDS or unit not in ("dB", "power"):
        raise UsageError(f"image is {image!r}, unit {unit!r}", repair=f"image: {', '.join(_BANDS)}; unit: dB or power")
    held = _held(folder, image)
    listed = _listed(folder / "tasks" / task / image / "splits.json")
    members = {p.stem: _member(p, image, listed) for p in sorted(held.glob("*.nc"))}
    own = _BANDS[image]
    bands = (*(f"before.{b}" for b in own), *own)
    given = "reflectance" if image == "s2" else unit

    def load(member: Member) -> Chip:
        found, truth = _read(member.files["cube"], own, image)
        if image != "s2":
            _refuse_unit(found, unit, member.name)
        codes = recode(truth, {0: 0, 1: 1}, member.name)
        return pixels.chip(
            member, found, codes, bands=bands, unit=given, domain="sentinel-2-l2a" if image == "s2" else "sentinel-1"
        )

    absent = tuple(f"{name}.nc" for name in listed if name not in members)
    return Dataset("sen12landslides", folder, FACTS, bands, given, ("no landslide", "landslide"), members, load, absent)


def _held(folder: Path, image: str) -> Path:
    """The folder with the patches of one sensor."""
    held = {k: p for k in _BANDS for inner in ("data", "") if (p := folder / inner / k).is_dir() and any(p.glob("*.nc"))}
    if not held:
        raise not_laid_out(folder, FACTS.title, f"it holds data/{image}/ with unpacked .nc files")
    if image not in held:
        raise UsageError(f"{folder} holds {', '.join(held)}, not {image}", repair=f"say image={next(iter(held))}")
    return held[image]


def _member(path: Path, image: str, listed: Mapping[str, str]) -> Member:
    return Member(path.stem, listed.get(path.stem, "unlisted"), path.stem.partition(f"_{image}_")[0], {"cube": path})


def _listed(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    lists = plain.read_json(path)
    return {Path(name).stem: _SPLITS[split] for split, names in lists.items() if split in _SPLITS for name in names}


def _read(path: Path, bands: tuple[str, ...], image: str) -> tuple[F32, npt.NDArray[Any]]:
    """Pixels (2 x band, y, x), before and after, and the mask (y, x) of the first date after."""
    with hdf5.opened(path) as cube:
        steps = _steps(cube.attrs, len(hdf5.held(cube, "time")))
        dates = []
        for step in steps:
            found = np.stack([_slice(hdf5.held(cube, b), step) for b in bands]).astype(np.float32)
            if image == "s2":
                codes = _slice(hdf5.held(cube, "SCL"), step).astype(np.float32)
                found *= pixels.REFLECTANCE
                found[:, clouds.hidden(codes, "SCL") | clouds.fill(codes, "SCL")] = np.nan
            dates.append(found)
        return np.concatenate(dates), _slice(hdf5.held(cube, "MASK"), steps[1])


def _steps(attributes: Mapping[str, Any], count: int) -> tuple[int, int]:
    said = attributes.get("pre_post_dates")
    said = said.decode() if isinstance(said, bytes) else said
    dates = ast.literal_eval(str(said)) if said is not None and str(said).startswith("{") else {}
    if dates.get("pre") is None or dates.get("post") is None:
        return 0, count - 1
    return int(dates["pre"]), int(dates["post"])


def _slice(array: Any, step: int) -> npt.NDArray[Any]:
    """Values (y, x) at a date."""
    names = [next(iter(d.values())).name.rpartition("/")[2] for d in array.dims]
    index = tuple(step if name == "time" else slice(None) for name in names)
    found = np.asarray(array[index])
    return found.T if names.index("x") < names.index("y") else found


def _refuse_unit(found: F32, unit: str, name: str) -> None:
    middle = float(np.nanmedian(found)) if np.isfinite(found).any() else float("nan")
    if (unit == "dB" and middle > 0) or (unit == "power" and middle < 0):
        raise BandError(
            f"the median of {name} is {middle:.3g}, which is no {unit} of land",
            repair=f"open it with unit={'power' if unit == 'dB' else 'dB'}",
            code="unit-impossible",
        )


SEN12LANDSLIDES = Published("sen12landslides", FACTS, _open)
