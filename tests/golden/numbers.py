"""The numbers of the maps of tests/real_scenes.py, end to end, and how they differ from those that are kept.

Exact is what local methods decide: hashes of the rasters' pixels, counts. Networks and filters in float32 may round otherwise on
another processor; theirs are near, as NEAR has it.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import aftermap as am
from aftermap import raster
from aftermap.tiles import Window
from tests.real_scenes import REAL, Given, Real

KEPT = Path(__file__).parent / "numbers.json"
LIBRARIES = ("numpy", "scipy", "rasterio", "odc-geo", "shapely", "pyogrio", "pyproj", "openvino")
NEAR = {"area": 0.005, "iou": 0.005, "likelihood_mean": 0.1, "polygons": 3, "thresholds": 1e-4}
"""By how much a number may differ on another machine: areas by this share, the others by as much."""
EXACT = ("radar", "optical", "landslide")
"""Scenes whose rasters are the same to the last pixel wherever they are mapped."""


def environment() -> dict[str, str]:
    """What moves a map beside our code."""
    own = {"python": platform.python_version(), "gdal": raster.GDAL_VERSION, "machine": platform.machine()}
    return own | {name: version(name) for name in LIBRARIES}


def of(real: Real, out: Path) -> dict[str, Any]:
    """The numbers of one map."""
    mapped = Given.of(real).map(out)
    whole = Window(0, 0, *mapped.shape)
    extent, likelihood = mapped.extent(whole), mapped.likelihood(whole)
    rows = {row["quantity"]: row for row in reversed(mapped.summary) if not row["reason"]}
    known = real.known()
    both = (extent != 255) & (known != 255)
    hit, either = (extent == 1) & (known == 1) & both, ((extent == 1) | (known == 1)) & both
    return {
        "answer": mapped.answer, "method": mapped.made_by["methods"]["lead"],
        "area": float(rows["affected_area"]["value"]), "area_unit": rows["affected_area"]["unit"],
        "polygons": int(float(rows["polygons"]["value"])), "iou": round(float(hit.sum() / either.sum()), 4),
        "likelihood_mean": round(float(likelihood[extent != 255].mean()), 3), "thresholds": _thresholds(mapped),
        "extent_sha256": hashlib.sha256(extent.tobytes()).hexdigest(),
        "likelihood_sha256": hashlib.sha256(likelihood.tobytes()).hexdigest(),
    }  # fmt: skip


def _thresholds(mapped: am.HazardMap) -> dict[str, float]:
    """The numbers that the method found in the scene."""
    found = mapped.made_by["methods"]["ran"][mapped.made_by["methods"]["lead"]]
    plain = {k: v if isinstance(v, list) else [v] for k, v in found.items()}
    return {
        f"{k} {n}" if len(values) > 1 else k: round(float(v), 5)
        for k, values in plain.items() for n, v in enumerate(values) if isinstance(v, int | float) and not isinstance(v, bool)
    }  # fmt: skip


def measured(out: Path) -> dict[str, Any]:
    """Of every scene, and of what they were measured with."""
    return {"environment": environment(), "maps": {name: of(real, out / name) for name, real in REAL.items()}}


def kept() -> dict[str, Any]:
    """As they are in the repository."""
    return dict(json.loads(KEPT.read_text(encoding="utf-8")))


def differences(name: str, old: Mapping[str, Any], new: Mapping[str, Any], *, exact: bool) -> Iterator[str]:
    """What differs, in words: everything where it has to be `exact`, else what is farther than NEAR."""
    for key in sorted({*old, *new}):
        was, now = old.get(key), new.get(key)
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            for inner in sorted({*was, *now}):
                if not _near("thresholds", was.get(inner), now.get(inner), exact=False):
                    yield f"{name}: {key} {inner}: {was.get(inner)} is now {now.get(inner)}"
        elif not _near(key, was, now, exact=exact):
            yield f"{name}: {key}: {was} is now {now}"


def _near(key: str, was: Any, now: Any, *, exact: bool) -> bool:
    if was == now or (key.endswith("sha256") and not exact):
        return True
    if exact or key not in NEAR or was is None or now is None:
        return False
    return bool(np.abs(now - was) <= NEAR[key] * (abs(was) if key == "area" else 1))


def moved(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Every difference between two sets of numbers, and then which libraries differ."""
    names = sorted({*old["maps"], *new["maps"]})
    said = [
        words for name in names
        for words in differences(name, old["maps"].get(name, {}), new["maps"].get(name, {}), exact=name in EXACT)
    ]  # fmt: skip
    was, now = old["environment"], new["environment"]
    libraries = [f"{k} was {was.get(k)} and is {now.get(k)}" for k in sorted({*was, *now}) if was.get(k) != now.get(k)]
    return [*said, *libraries] if said else []
