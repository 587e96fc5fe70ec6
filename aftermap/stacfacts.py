"""What items of a STAC catalog say of their pixels: bands by asset, unit, offset, orbit, time, cloud. Facts, no guesses.

Known are the collections of open catalogs (Planetary Computer, Earth Search, CDSE) and others that name them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap.errors import InputRefusedError

Item = Mapping[str, Any]
"""A STAC item as plain JSON."""
Pixels = npt.NDArray[Any]

S2_ADDED = -1000.0
"""What Sentinel-2 numbers carry too much of from processing baseline 04.00 on, as the number to add (BOA_ADD_OFFSET)."""
WATER_PERCENT = 75
"""Share of observations with water from which it is normal there (HYDRAFloods takes JRC's occurrence above 75 %)."""
BLIND_COVER = (10, 50, 95)
"""Trees, built-up and mangroves of ESA WorldCover: a radar sees no flood below them (GFM's exclusion mask)."""


@dataclass(frozen=True)
class Kind:
    """One kind of pixels: how it is asked for, read and kept."""

    name: str
    sensor: str
    """Of sensors.SENSORS."""
    assets: Mapping[str, tuple[str, ...]]
    """Band -> names of its asset in the catalogs."""
    dtype: str
    nodata: float
    """As kept here."""
    gsd_m: float
    unit: str = ""
    stored_nodata: float | None = None
    """As catalogs keep it, where their files need not say; None for `nodata`."""
    classes: frozenset[str] = frozenset()
    """Bands of codes, which are never interpolated."""
    optional: frozenset[str] = frozenset()
    made: Callable[[Pixels], Pixels] | None = None
    """What is kept instead of stored values; None for these."""
    from_made: str = ""
    """What that is, in words."""

    def unseen(self, kept: Pixels) -> npt.NDArray[np.bool_]:
        """True where nothing was observed, of pixels as kept."""
        return np.asarray(np.isnan(kept) if np.isnan(self.nodata) else kept == self.nodata)


def _mask(pixels: Pixels, true: Pixels, nodata: float) -> Pixels:
    return np.where(pixels == nodata, np.uint8(255), true.astype(np.uint8)).astype(np.uint8)


def _normal_water(pixels: Pixels) -> Pixels:
    return _mask(pixels, pixels >= WATER_PERCENT, 255)


def _blind(pixels: Pixels) -> Pixels:
    return _mask(pixels, np.isin(pixels, BLIND_COVER), 0)


RADAR = Kind(
    "radar", "sentinel-1", {p: (p.lower(), p) for p in ("VV", "VH", "HH", "HV")}, "float32", float("nan"), 10, "power", -32768.0,
    optional=frozenset({"VV", "VH", "HH", "HV"}),
)  # fmt: skip
OPTICAL = Kind(
    "optical", "sentinel-2-l2a",
    {
        "B02": ("B02", "blue", "B02_10m"), "B03": ("B03", "green", "B03_10m"), "B04": ("B04", "red", "B04_10m"),
        "B08": ("B08", "nir", "B08_10m"), "B11": ("B11", "swir16", "B11_20m"), "B12": ("B12", "swir22", "B12_20m"),
        "SCL": ("SCL", "scl", "SCL_20m"),
    },
    "uint16", 0.0, 10, classes=frozenset({"SCL"}),
)  # fmt: skip
DEM = Kind("dem", "copernicus-dem", {"elevation": ("data",)}, "float32", float("nan"), 30, "metres")
WATER = Kind(
    "reference_water", "mask", {"mask": ("occurrence",)}, "uint8", 255.0, 30, "class", 255.0, frozenset({"mask"}),
    made=_normal_water, from_made=f"water in at least {WATER_PERCENT} % of observations (JRC global surface water)",
)  # fmt: skip
COVER = Kind(
    "low_sensitivity", "mask", {"mask": ("map",)}, "uint8", 255.0, 10, "class", 0.0, frozenset({"mask"}),
    made=_blind, from_made="trees, built-up ground and mangroves (ESA WorldCover): radar sees no flood below them",
)  # fmt: skip
COLLECTIONS: dict[str, Kind] = {
    "sentinel-1-rtc": RADAR, "sentinel-2-l2a": OPTICAL, "sentinel-2-c1-l2a": OPTICAL, "sentinel-2-pre-c1-l2a": OPTICAL,
    "cop-dem-glo-30": DEM, "esa-worldcover": COVER, "jrc-gsw": WATER,
}  # fmt: skip
"""Sentinel-1 GRD is not here: its numbers are neither calibrated nor on the ground's place."""
KINDS = {kind.name: kind for kind in COLLECTIONS.values()}
IMAGES = (RADAR.name, OPTICAL.name)


def kind_of(item: Item) -> Kind:
    """Of the item's collection. Raises InputRefusedError ("stac-collection")."""
    collection = str(item.get("collection"))
    if collection not in COLLECTIONS:
        what = f"the item {item['id']} is of {collection}, of which it is not known what its pixels are"
        raise InputRefusedError(what, repair=f"known: {', '.join(COLLECTIONS)}", code="stac-collection")
    return COLLECTIONS[collection]


def assets(item: Item) -> dict[str, str]:
    """Band -> name of its asset. Raises InputRefusedError ("stac-asset") where a band is not there."""
    kind, held = kind_of(item), item["assets"]
    found = {band: next((n for n in names if n in held), "") for band, names in kind.assets.items()}
    lacking = [band for band, name in found.items() if not name and band not in kind.optional]
    found = {band: name for band, name in found.items() if name}
    if lacking or not found:
        what = f"the item {item['id']} has no asset of {', '.join(lacking) or 'any band'} (it has {', '.join(held)})"
        raise InputRefusedError(what, repair="leave the item out", code="stac-asset")
    return found


def when(item: Item) -> datetime:
    """Time of acquisition, the start of an interval. Raises InputRefusedError ("stac-time")."""
    properties = item["properties"]
    said = properties.get("datetime") or properties.get("start_datetime")
    try:
        found = datetime.fromisoformat(str(said).replace("Z", "+00:00"))
    except ValueError as error:
        what = f"the item {item['id']} does not say when it was taken: {said}"
        raise InputRefusedError(what, repair="leave it out", code="stac-time") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def stamp(moment: datetime) -> str:
    """A time of UTC to the second, ISO 8601."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def orbit(item: Item) -> tuple[str, int | None]:
    """Direction, "" where nothing says, and relative orbit."""
    properties = item["properties"]
    number = properties.get("sat:relative_orbit")
    return str(properties.get("sat:orbit_state") or ""), None if number is None else int(number)


def cloud(item: Item) -> float | None:
    """Percent of the item; None where it does not say, as of radar."""
    said = item["properties"].get("eo:cloud_cover")
    return None if said is None else float(said)


def added(item: Item) -> float | None:
    """What is to be added to Sentinel-2 numbers for those without offset; None where neither item nor baseline says.

    An offset that a catalog has applied counts as none, whatever else the item states beside it.
    """
    properties = item["properties"]
    if properties.get("earthsearch:boa_offset_applied"):
        return 0.0
    stated = {
        float(band["offset"]) / float(band.get("scale", 1.0))
        for name in assets(item).values() if name.lower() != "scl"
        for band in _bands(item["assets"][name]) if "offset" in band
    }  # fmt: skip
    if len(stated) == 1:
        return float(round(next(iter(stated))))
    baseline = properties.get("s2:processing_baseline") or properties.get("processing:version")
    try:
        return S2_ADDED if float(str(baseline)) >= 4 else 0.0
    except ValueError:
        return None


def _bands(asset: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """What STAC 1.0 says in raster:bands, and 1.1 in bands or of the asset itself."""
    spelt = [{k.removeprefix("raster:"): v for k, v in band.items()} for band in (asset, *asset.get("bands", ()))]
    return [*asset.get("raster:bands", ()), *spelt]
