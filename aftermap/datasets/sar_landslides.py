"""SAR landslide datacubes (methods.md 14.5, B): Sentinel-1 passes before and after earthquakes, as zarr.

The published loader takes `range(-1 - T, -1)` of the passes before and so skips the last one (trap 25); here the last pass
before the event, by its time, is the first to be used. It also takes logarithms before NaN is handled, statistics over the
test chips, and the same four bands in every ablation (methods.md B2); none of that is done here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap import limits
from aftermap.chips import F32, U8, UNKNOWN, Chip
from aftermap.datasets import pixels, zarrs
from aftermap.datasets.dataset import Dataset, Facts, Member, Published, not_laid_out
from aftermap.errors import InputRefusedError, UnknownNameError, UsageError
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
TERRAIN = {
    "elevation": (("dem.elevation",), ("metres",)), "slope": (("dem.slope",), ("degrees",)),
    "aspect": (("dem.aspect_sin", "dem.aspect_cos"), ("1", "1")), "curvature": (("dem.curvature",), ("relative",)),
}  # fmt: skip
"""Bands of the cube's own variables, and their units. These have RichDEM's names, whose aspect is in degrees clockwise from north
and whose curvature is on a scale of its own (minus the Laplacian, times 100)."""
MOST_WATER = 0.2
"""Share of a chip at an elevation of 0 or below (methods.md 14.5)."""
_SINCE = re.compile(r"(days|hours|minutes|seconds|milliseconds|microseconds|nanoseconds) since (.+)")
_STEP = {
    "days": 86_400_000_000_000, "hours": 3_600_000_000_000, "minutes": 60_000_000_000, "seconds": 1_000_000_000,
    "milliseconds": 1_000_000, "microseconds": 1000, "nanoseconds": 1,
}  # fmt: skip
"""Nanoseconds in each."""


@dataclass(frozen=True)
class _Use:
    """What of a cube becomes a chip, and which chips count."""

    passes: int
    combine: str
    orbit: str
    terrain: tuple[str, ...]
    complete: bool
    present_only: bool

    def __post_init__(self) -> None:
        if self.passes < 1 or self.orbit not in ("d", "a") or self.combine not in ("mean", "stack"):
            raise UsageError(
                f"passes is {self.passes}, orbit {self.orbit!r}, combine {self.combine!r}",
                repair="passes of 1 or more; orbit d or a; combine mean or stack",
            )
        for name in self.terrain:
            if name not in TERRAIN:
                raise UnknownNameError("terrain", name, TERRAIN)

    def runs(self, before: Sequence[int], after: Sequence[int]) -> list[tuple[str, list[int]]]:
        """Prefix of the bands, and the steps that each is made of: before, after; or each pass, from the event outward."""
        if self.combine == "mean":
            return [("before.", list(before)), ("", list(after))]
        named = [(f"before-{k}." if k > 1 else "before.", [s]) for k, s in enumerate(reversed(before), 1)]
        return named + [(f"after-{k}." if k > 1 else "", [s]) for k, s in enumerate(after, 1)]

    @property
    def prefixes(self) -> list[str]:
        """Of the bands of the passes."""
        return [prefix for prefix, _ in self.runs(range(self.passes), range(self.passes))]

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of all bands."""
        own = (f"{prefix}{pol}" for prefix in self.prefixes for pol in ("VV", "VH"))
        return (*own, *(band for name in self.terrain for band in TERRAIN[name][0]))

    @property
    def unit(self) -> str | tuple[str, ...]:
        """One for all bands, or one for each."""
        more = tuple(unit for name in self.terrain for unit in TERRAIN[name][1])
        return (*("power",) * (2 * len(self.prefixes)), *more) if more else "power"

    def __call__(self, member: Member) -> Chip:
        window, before, after = member.place
        cube = zarrs.opened(member.files["cube"])
        found = [_mean(zarrs.held(cube, v), steps, window) for _, steps in self.runs(before, after) for v in ("vv", "vh")]
        found += [band for name in self.terrain for band in _GROUND[name](cube, window)]
        truth = _truth(_read(zarrs.held(cube, "landslides"), window))
        domain = f"sentinel-1/{self.orbit}"
        return pixels.chip(member, np.stack(found), truth, bands=self.bands, unit=self.unit, domain=domain, window=window)

    def counting(self, members: Mapping[str, Member]) -> tuple[dict[str, Member], tuple[str, ...]]:
        """The chips that count, each read once, and how many do not, in words."""
        kept, unseen, water, free = {}, 0, 0, 0
        for name, member in members.items():
            cube, window = zarrs.opened(member.files["cube"]), member.place[0]
            if self.complete and not self(member).valid.all():
                unseen += 1
            elif self.complete and "dem" in cube and (_read(zarrs.held(cube, "dem"), window) <= 0).mean() > MOST_WATER:
                water += 1
            elif self.present_only and not (_truth(_read(zarrs.held(cube, "landslides"), window)) == 1).any():
                free += 1
            else:
                kept[name] = member
        said = {"not wholly observed": unseen, "water": water, "without a landslide": free}
        return kept, tuple(f"{n} chips left out: {reason}" for reason, n in said.items() if n)


def _open(
    folder: Path, *, passes: int = 1, combine: str = "mean", orbit: str = "d", terrain: bool | str = False, size: int = 128,
    event_time: str = "", complete: bool = False, present_only: bool = False,
) -> Dataset:  # fmt: skip
    """`passes` passes before and after, of one `orbit` ("d" or "a"), their mean power or each by itself, in chips of `size` px.

    `terrain` adds bands of the ground: all, or those named ("elevation,slope"). With `complete` only chips count that were
    wholly observed in these passes and are no water, with `present_only` those with a landslide; the facts say how many do not.
    Raises InputRefusedError ("too-few-passes").
    """
    ground = tuple(TERRAIN) if terrain is True else tuple(n.strip() for n in terrain.split(",")) if terrain else ()
    use = _Use(passes, combine, orbit, ground, complete, present_only)
    stores = sorted({p.parent for name in (".zgroup", "zarr.json") for p in folder.rglob(name) if _is_cube(p.parent)})
    if not stores:
        raise not_laid_out(folder, FACTS.title, "it holds zarr stores with vv, vh, timestep and landslides")
    members = {m.name: m for store in stores for m in _members(store, use, size, event_time)}
    left: tuple[str, ...] = ()
    if complete or present_only:
        members, left = use.counting(members)
    facts = replace(FACTS, cautions=(*FACTS.cautions, *left))
    return Dataset("sar-landslides", folder, facts, use.bands, use.unit, ("no landslide", "landslide"), members, use)


def _members(store: Path, use: _Use, size: int, event_time: str) -> Iterator[Member]:
    """The whole windows of a cube, with the steps to use."""
    event, cube = store.stem, zarrs.opened(store)
    chosen = _passes(cube, _when(event, event_time), use.passes, use.orbit, event)
    labels = zarrs.held(cube, "landslides")
    shape = tuple(labels.shape[_dims(labels).index(d)] for d in ("y", "x"))
    limits.refuse_above("ARRAY_BYTES", shape[0] * shape[1] * labels.dtype.itemsize, f"landslides of {event}")
    for window in blocks((shape[0], shape[1]), size):
        if window.height == window.width == size:
            name = f"{event}_{window.row:05d}_{window.col:05d}"
            yield Member(name, "all", event, {"cube": store}, (window, *chosen))


def _is_cube(store: Path) -> bool:
    return all((store / name).is_dir() for name in ("vv", "vh", "timestep", "landslides"))


def _when(event: str, given: str) -> np.datetime64:
    known = next((time for place, time in QUAKES.items() if place in event.lower()), "")
    if not (given or known):
        raise UsageError(f"nothing says when the event of {event} was", repair="give event_time, for example 2018-09-05T18:07")
    return np.datetime64(given or known)


def _passes(cube: Any, event: np.datetime64, count: int, orbit: str, name: str) -> tuple[list[int], list[int]]:
    """Steps of the last `count` passes before the event and the first after it."""
    times = _times(zarrs.held(cube, "timestep"))
    states = [
        s.decode() if isinstance(s, bytes) else str(s)
        for s in np.asarray(zarrs.whole(zarrs.held(cube, "sat:orbit_state"))).tolist()
    ]
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
    values = np.asarray(zarrs.whole(array))
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


def _facing(cube: Any, window: Window) -> list[F32]:
    """Sine and cosine (y, x) of the aspect, both 0 where the slope is."""
    slope, aspect = (
        _read(zarrs.held(cube, "dem_slope_radians"), window),
        np.radians(_read(zarrs.held(cube, "dem_aspect"), window)),
    )
    return [np.where(slope == 0, np.float32(0), of(aspect)).astype(np.float32) for of in (np.sin, np.cos)]


_GROUND: dict[str, Callable[[Any, Window], list[F32]]] = {
    "elevation": lambda cube, window: [_read(zarrs.held(cube, "dem"), window)],
    "slope": lambda cube, window: [np.degrees(_read(zarrs.held(cube, "dem_slope_radians"), window))],
    "aspect": _facing,
    "curvature": lambda cube, window: [_read(zarrs.held(cube, "dem_curvature"), window)],
}


def _truth(stored: F32) -> U8:
    codes = (stored > 0).astype(np.uint8)
    codes[np.isnan(stored)] = UNKNOWN
    return codes


SAR_LANDSLIDES = Published("sar-landslides", FACTS, _open)
