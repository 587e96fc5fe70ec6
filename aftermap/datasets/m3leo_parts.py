"""The components of M3LEO as bands (methods.md 14.6, J.2): GeoTIFF and NetCDF-4 tiles of one name. The door to h5py for it.

NetCDF is read by the names of its dimensions and by its coordinates: seasons stand in the order summer, fall, winter, spring,
and latitude may rise. What was not observed stays NaN, where the published loader makes it 0 and so no coherence (J.2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap import limits, raster
from aftermap.chips import F32
from aftermap.datasets import hdf5, pixels
from aftermap.errors import BandError, UnknownNameError
from aftermap.sensors import UNITS
from aftermap.tiles import Window

SEASONS, PASSES = ("winter", "spring", "summer", "fall"), ("VV-ascending", "VV-descending", "VH-ascending", "VH-descending")
MONTHS = tuple(f"{month:02d}" for month in range(1, 13))
PUBLISHED = ("s1grd-2020", "s2rgbm-2020", "srtmdem", "gssic", "gunw_START_END")
DELTA_DAYS = 36
"""Of coherence, as the baselines have it; 12, 24 and 48 are there too."""
SPANS = ((0, 60), (72, 132), (140, 216))
"""Days between the passes of a pair; the first pair in the file that fits stands for each, the rule "far"."""
RANGE_DB = (-60, 30)
_SPELLED = {"srtmdem": ("srtmdem", "strmdem")}
"""One area spells its elevation model in another way."""
_GUNW = "science/grids/data"


@dataclass(frozen=True)
class Part:
    """One component as an input: its bands, and how a tile becomes pixels (band, y, x), NaN where not observed."""

    name: str
    layer: str
    bands: tuple[str, ...]
    """Without the layer."""
    unit: str
    read: Callable[[Path], F32]
    suffix: str = ".tif"


def part(name: str, roots: Sequence[Path], *, orbit: str = "", months: str = "") -> Part:
    """A published component, or any other folder of GeoTIFFs beside them. Raises UnknownNameError.

    `orbit` is "ascending" or "descending", `months` those of the colour images with commas; all by default.
    """
    if name == "s1grd-2020":
        return _radar(orbit)
    if name == "s2rgbm-2020":
        return _colour(months)
    if name == "srtmdem":
        return Part(name, "dem", ("elevation",), "metres", observed)
    if name == "gssic":
        return Part(name, "gssic", SEASONS, "1", coherence, ".nc")
    if name.startswith("gunw_"):
        return Part(name, "gunw", tuple(f"{first}-{last}" for first, last in SPANS), "radians", phase, ".nc")
    one = next((tile for root in roots for tile in sorted(folder(root, name).glob("*.tif"))), None)
    if one is None:
        raise UnknownNameError("input", name, [*PUBLISHED, *(p.name for root in roots for p in root.iterdir() if p.is_dir())])
    facts = raster.facts(one)
    bands = tuple(said or f"band-{k}" for k, said in enumerate(facts.descriptions, 1))
    return Part(name, name, bands, facts.units[0] if facts.units[0] in UNITS else "relative", observed)


def folder(root: Path, name: str) -> Path:
    """Where a component of an area lies, or would."""
    return next((root / s for s in _SPELLED.get(name, ()) if (root / s).is_dir()), root / name)


def _radar(orbit: str) -> Part:
    own = [one for one in PASSES if orbit in ("", one.partition("-")[2])]
    if not own:
        raise UnknownNameError("setting", orbit, ("ascending", "descending"))
    bands = [f"{season}-{one}" for season in SEASONS for one in PASSES]
    kept = [k for k, band in enumerate(bands) if band.partition("-")[2] in own]

    def read(path: Path) -> F32:
        return unwrap(pixels.stored(path), path.name)[kept]

    return Part("s1grd-2020", "s1grd", tuple(bands[k] for k in kept), "dB", read)


def _colour(months: str) -> Part:
    wanted = [month.strip() for month in months.split(",")] if months else list(MONTHS)
    for month in wanted:
        if month not in MONTHS:
            raise UnknownNameError("setting", month, MONTHS)

    def read(path: Path) -> F32:
        stored = pixels.image(path)
        return np.concatenate([pixels.blackened(stored[3 * k : 3 * k + 3]) for k in map(MONTHS.index, wanted)])

    bands = tuple(f"{month}-{colour}" for month in wanted for colour in ("red", "green", "blue"))
    return Part("s2rgbm-2020", "rgb", bands, "digital_number", read)


def observed(path: Path) -> F32:
    """Every band (band, y, x) of a GeoTIFF, NaN where it declares no data."""
    facts = raster.facts(path)
    limits.refuse_above("ARRAY_BYTES", 4 * len(facts.indexes) * int(np.prod(facts.grid.shape)), path.name)
    return raster.Reader(path, facts.grid, facts.indexes).read(Window(0, 0, *facts.grid.shape))


def unwrap(stored: npt.NDArray[Any], name: str) -> F32:
    """dB (band, y, x) of whole numbers stored modulo 65536. Raises BandError ("unit-impossible") outside -60 to 30 dB."""
    values = stored.astype(np.uint16).view(np.int16) if stored.dtype.kind in "ui" else stored
    _refuse_beyond(values, RANGE_DB, name, "dB")
    return values.astype(np.float32)


def _refuse_beyond(values: npt.NDArray[Any], span: tuple[float, float], name: str, unit: str) -> None:
    seen = values[np.isfinite(values)]
    if seen.size and not span[0] <= float(seen.min()) <= float(seen.max()) <= span[1]:
        raise BandError(
            f"{name} holds {float(seen.min()):g} to {float(seen.max()):g}, which are no {unit}",
            repair="fetch it again",
            code="unit-impossible",
        )


def coherence(path: Path) -> F32:
    """Coherence (season, y, x) in [0, 1] over DELTA_DAYS; stored are percent."""
    with hdf5.opened(path) as file:
        own, seasons, days = (hdf5.held(file, name) for name in ("coherence", "season", "deltadays"))
        seasons, days = _words(seasons), np.asarray(days).tolist()
        at = {season: {"season": seasons.index(season), "deltadays": days.index(DELTA_DAYS)} for season in SEASONS}
        found = np.stack([_plane(own, at[season]) for season in SEASONS])
    _refuse_beyond(found, (0, 100), path.name, "percent of coherence")
    return np.asarray(found / 100, np.float32)


def phase(path: Path) -> F32:
    """Unwrapped phase (span, y, x) in radians, NaN all over where the file has no pair of a span."""
    with hdf5.opened(path) as file:
        own = hdf5.held(file, f"{_GUNW}/unwrappedPhase")
        pairs = [_days(pair) for pair in _words(hdf5.held(file, f"{_GUNW}/datepair"))]
        firsts = [next((k for k, days in enumerate(pairs) if low <= days <= high), None) for low, high in SPANS]
        planes = [None if k is None else _plane(own, {"datepair": k}) for k in firsts]
        empty = np.full_like(_plane(own, {"datepair": 0}), np.nan)
    return np.stack([empty if plane is None else plane for plane in planes])


def _words(array: Any) -> list[str]:
    return [one.decode() if isinstance(one, bytes) else str(one) for one in np.asarray(array[:]).tolist()]


def _days(pair: str) -> int:
    """From the second date of "END_START" to the first."""
    end, start = (datetime.strptime(one, "%Y%m%d") for one in pair.split("_"))
    return (end - start).days


def _plane(array: Any, at: Mapping[str, int]) -> F32:
    """Values (y, x), north and west first, at places of the other dimensions; scaled and masked as its attributes say."""
    scales = [next(iter(dim.values())) for dim in array.dims]
    for scale in scales:
        hdf5.refuse_claims(scale)
    names = [scale.name.rpartition("/")[2] for scale in scales]
    stored = np.asarray(array[tuple(at.get(name, slice(None)) for name in names)])
    found, said = stored.astype(np.float32), array.attrs
    for attribute in ("_FillValue", "missing_value"):
        if attribute in said:
            found[stored == np.asarray(said[attribute]).ravel()[0]] = np.nan
    found = found * np.float32(np.ravel(said.get("scale_factor", 1))[0]) + np.float32(np.ravel(said.get("add_offset", 0))[0])
    left = {name: np.asarray(scale[:]) for name, scale in zip(names, scales, strict=True) if name not in at}
    if next(iter(left)).startswith(("x", "lon")):
        found = found.T
    for axis, prefixes, rising in ((0, ("y", "lat"), False), (1, ("x", "lon"), True)):
        way = next(values for name, values in left.items() if name.startswith(prefixes))
        if len(way) > 1 and (way[-1] > way[0]) != rising:
            found = np.flip(found, axis)
    return np.ascontiguousarray(found)


def fitted(found: F32, shape: tuple[int, int]) -> F32:
    """Means by area (band, y, x) on another grid over the same ground; NaN where less than half of a pixel was observed."""
    if found.shape[1:] == shape:
        return found
    down, across = (_shares(old, new) for old, new in zip(found.shape[1:], shape, strict=True))
    seen = np.isfinite(found)
    share = down @ seen.astype(np.float64) @ across.T
    total = down @ np.where(seen, found, 0).astype(np.float64) @ across.T
    return np.where(share >= 0.5, total / np.maximum(share, 0.5), np.nan).astype(np.float32)


def _shares(old: int, new: int) -> npt.NDArray[np.float64]:
    """Share (new, old) that each old pixel of an axis has in each new one."""
    first, start = np.arange(old) * new, np.arange(new)[:, None] * old
    covered = np.minimum(first + new, start + old) - np.maximum(first, start)
    return np.asarray(np.clip(covered, 0, None) / old, np.float64)
