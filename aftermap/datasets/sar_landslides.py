"""SAR landslide datacubes (methods.md 14.5, B): Sentinel-1 passes before and after earthquakes, as zarr. The door to zarr.

The published loader takes `range(-1 - T, -1)` of the passes before and so skips the last one (trap 25); here the last pass
before the event, by its time, is the first to be used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap.chips import F32, U8, UNKNOWN, Chip
from aftermap.datasets import pixels
from aftermap.datasets.dataset import Dataset, Facts, Member, Published, extra_missing, not_laid_out
from aftermap.errors import InputRefusedError, UsageError
from aftermap.tiles import Window, blocks

FACTS = Facts(
    title="SAR landslide datacubes",
    licence="see the record (not read here)",
    citation="Boehm et al.: Deep Learning for Rapid Landslide Detection using SAR Datacubes, arXiv:2211.02869, 2022",
    home="https://doi.org/10.5281/zenodo.7248056",
    record="zenodo:7248056",
    cautions=(
        "published splits deal chips at random and leak space: split by blocks or by event",
        "water stands where the elevation is 0 or below",
    ),
)
QUAKES = {"hokkaido": "2018-09-05T18:07", "kaikoura": "2016-11-13T11:02"}
"""Times (UTC) of the earthquakes whose cubes are described; of others say when with `event_time`."""
TERRAIN = ("dem.elevation", "dem.slope")
_SINCE = re.compile(r"(days|hours|minutes|seconds|milliseconds|microseconds|nanoseconds) since (.+)")
_STEP = {
    "days": 86_400_000_000_000, "hours": 3_600_000_000_000, "minutes": 60_000_000_000, "seconds": 1_000_000_000,
    "milliseconds": 1_000_000, "microseconds": 1000, "nanoseconds": 1,
}  # fmt: skip
"""Nanoseconds in each."""


def _open(
    folder: Path, *, passes: int = 1, orbit: str = "d", terrain: bool = False, size: int = 128, event_time: str = ""
) -> Dataset:
    """The mean power of `passes` passes before and after, of one `orbit` ("d" or "a"), in chips of `size` px.

    `terrain` adds elevation (m) and slope (degrees). Raises InputRefusedError ("too-few-passes").
    """
    if passes < 1 or orbit not in ("d", "a"):
        raise UsageError(f"passes is {passes}, orbit {orbit!r}", repair="passes of 1 or more; orbit d or a")
    stores = sorted({p.parent for name in (".zgroup", "zarr.json") for p in folder.rglob(name) if _is_cube(p.parent)})
    if not stores:
        raise not_laid_out(folder, FACTS.title, "it holds zarr stores with vv, vh, timestep and landslides")
    members = {}
    for store in stores:
        event = store.stem
        cube = _cube(store)
        chosen = _passes(cube, _when(event, event_time), passes, orbit, event)
        shape = tuple(cube["landslides"].shape[_dims(cube["landslides"]).index(d)] for d in ("y", "x"))
        for window in blocks((shape[0], shape[1]), size):
            if window.height == window.width == size:
                name = f"{event}_{window.row:05d}_{window.col:05d}"
                members[name] = Member(name, "all", event, {"cube": store}, (window, *chosen))
    extra = TERRAIN if terrain else ()
    bands = ("before.VV", "before.VH", "VV", "VH", *extra)
    unit: str | tuple[str, ...] = (*("power",) * 4, "metres", "degrees") if terrain else "power"

    def load(member: Member) -> Chip:
        window, before, after = member.place
        cube = _cube(member.files["cube"])
        found = [_mean(cube[v], steps, window) for steps in (before, after) for v in ("vv", "vh")]
        if terrain:
            found += [_read(cube["dem"], window), np.degrees(_read(cube["dem_slope_radians"], window))]
        truth = _truth(_read(cube["landslides"], window))
        return pixels.chip(member, np.stack(found), truth, bands=bands, unit=unit, domain=f"sentinel-1/{orbit}", window=window)

    return Dataset("sar-landslides", folder, FACTS, bands, unit, ("no landslide", "landslide"), members, load)


def _is_cube(store: Path) -> bool:
    return all((store / name).is_dir() for name in ("vv", "vh", "timestep", "landslides"))


def _cube(store: Path) -> Any:
    try:
        import zarr
    except ImportError as error:
        raise extra_missing("zarr") from error
    return zarr.open_group(store, mode="r")


def _when(event: str, given: str) -> np.datetime64:
    known = next((time for place, time in QUAKES.items() if place in event.lower()), "")
    if not (given or known):
        raise UsageError(f"nothing says when the event of {event} was", repair="give event_time, for example 2018-09-05T18:07")
    return np.datetime64(given or known)


def _passes(cube: Any, event: np.datetime64, count: int, orbit: str, name: str) -> tuple[list[int], list[int]]:
    """Steps of the last `count` passes before the event and the first after it."""
    times = _times(cube["timestep"])
    states = [s.decode() if isinstance(s, bytes) else str(s) for s in np.asarray(cube["sat:orbit_state"][:]).tolist()]
    own = [i for i in np.argsort(times, kind="stable").tolist() if states[i].startswith(orbit)]
    before, after = [i for i in own if times[i] < event], [i for i in own if times[i] >= event]
    if min(len(before), len(after)) < count:
        raise InputRefusedError(
            f"{name} has {len(before)} passes before and {len(after)} after in orbit {orbit}; {count} of each are asked for",
            repair="ask for fewer passes, or the other orbit",
            code="too-few-passes",
        )
    return before[-count:], after[:count]


def _times(array: Any) -> npt.NDArray[np.datetime64]:
    """Times of a coordinate as xarray stores them: "hours since 2018-01-01"."""
    match = _SINCE.match(str(array.attrs.get("units", "")))
    values = np.asarray(array[:])
    if values.dtype.kind == "M":
        return values
    if match is None:
        raise ValueError(f"timestep has the units {array.attrs.get('units')!r}")
    start = np.datetime64(datetime.fromisoformat(match.group(2).strip()), "ns")
    return np.asarray(start + np.round(values * _STEP[match.group(1)]).astype("m8[ns]"))


def _dims(array: Any) -> Sequence[str]:
    names = array.attrs.get("_ARRAY_DIMENSIONS") or getattr(array.metadata, "dimension_names", None)
    if not names:
        raise ValueError(f"{array.name} does not name its dimensions")
    return list(names)


def _read(array: Any, window: Window, at: Mapping[str, int] | None = None) -> F32:
    """Values (y, x) of a window, at a step of each other dimension."""
    dims = _dims(array)
    rows, cols = window.slices
    index = tuple(rows if d == "y" else cols if d == "x" else (at or {})[d] for d in dims)
    found = np.asarray(array[index], np.float32)
    return found.T if dims.index("x") < dims.index("y") else found


def _mean(array: Any, steps: Sequence[int], window: Window) -> F32:
    """Mean power (y, x) over passes; NaN where one of them did not see the ground."""
    found = np.stack([_read(array, window, {"timestep": step}) for step in steps])
    found[found <= 0] = np.nan
    return np.asarray(found.mean(axis=0), np.float32)


def _truth(stored: F32) -> U8:
    codes = (stored > 0).astype(np.uint8)
    codes[np.isnan(stored)] = UNKNOWN
    return codes


SAR_LANDSLIDES = Published("sar-landslides", FACTS, _open)
