"""A simulated flood, published with its passes, pictures and maps as catalogs would have it; the right choices are known."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from aftermap.raster import BLOCK_PX
from aftermap.simulate import flood
from aftermap.simulate.flood import PLACE
from aftermap.simulate.optical import BANDS
from aftermap.simulate.terrain import Cover
from tests.conftest import write
from tests.stac_scenes import (
    S1A_ORBITS_PER_DAY,
    S2_BANDS,
    Pixels,
    cop_dem,
    jrc_water,
    sentinel1_rtc,
    sentinel2_l2a,
    worldcover,
)
from tests.stac_search import Item

EVENT = datetime(2024, 5, 12, 17, 0)
AFTER = datetime(2024, 5, 13, 5, 0, 25)
_ORBIT = 53819
"""Absolute orbit of the pass after the event; it is relative orbit 22, which descends over the place."""
_WORLDCOVER = {Cover.WATER: 80, Cover.CROP: 40, Cover.GRASS: 30, Cover.BARE: 60, Cover.FOREST: 10, Cover.URBAN: 50}
_CLASSES = {Cover.WATER: 6, Cover.CROP: 4, Cover.GRASS: 4, Cover.BARE: 5, Cover.FOREST: 4, Cover.URBAN: 5}
"""Scene classes of Sentinel-2: 4 vegetation, 5 bare, 6 water, 9 cloud."""


@dataclass(frozen=True)
class FloodWorld:
    """What `flood_world` made. Ids are of items; the same catalog has the wrong choices under the names in `traps`."""

    folder: Path
    items: list[Item]
    event: datetime
    """UTC, without a zone."""
    bbox: tuple[float, float, float, float]
    """West, south, east, north in degrees, inside what every right choice covers."""
    grid: GeoBox
    after: str
    before: str
    """Same relative orbit, 12 days earlier."""
    slices: tuple[str, str]
    """Same relative orbit, 24 days earlier: one datatake, the northern slice first."""
    traps: dict[str, str]
    """"other_direction" (before, closer in time), "same_day" (the event's date, before its hour), "partial" (after, 40 %),
    "cloudy" (Sentinel-2 after, 90 %)."""
    optical_before: tuple[str, ...]
    optical_after: tuple[str, ...]
    """One of each flavour, in their order."""
    truth: Path
    """flood and permanent_water, uint8, on `grid`."""
    dem: tuple[str, ...]
    worldcover: tuple[str, ...]
    jrc: tuple[str, ...]

    def catalog(self, flavour: str) -> list[Item]:
        """Items as one publisher has them: Sentinel-2 of that flavour alone, and all the others."""
        return [i for i in self.items if not i["collection"].startswith("sentinel-2") or _flavour(i) == flavour]


def flood_world(
    folder: Path, *, size: int = 768, seed: int = 0, flavours: tuple[str, ...] = ("planetary-computer",)
) -> FloodWorld:  # fmt: skip
    """Simulates a flood of size x size pixels of 10 m east of Linz, across the border of two tiles of 1 degree, and publishes it.

    `size` is even and at least 512: more of the world is to the south-east. Sentinel-2 is published in each of the flavours.
    """
    sim = _simulated(size, seed)
    grid = PLACE.grid(size, 10)
    rng = np.random.default_rng([seed, 1])
    dry, wet = 10 ** (sim["before"] / 10), 10 ** (sim["after"] / 10)
    rows, cols = np.mgrid[:size, :size]
    # Tracks lean: what a pass has seen ends on a slant, as in the catalogs.
    west, north = cols + 0.2 * rows < 0.5 * size, rows - 0.2 * cols < 0.4 * size

    def again(power: Pixels) -> Pixels:
        """The same ground in other speckle."""
        return np.asarray(power * rng.gamma(4.9, 1 / 4.9, power.shape), np.float32)

    def taken(power: Pixels, when: datetime, seen: npt.NDArray[np.bool_] | None = None, **said: Any) -> Item:
        absolute = _ORBIT + round((when - AFTER).total_seconds() / 86400 * S1A_ORBITS_PER_DAY)
        keep, on = (slice(None), slice(None)), grid
        if seen is not None:
            lines = np.flatnonzero(seen.any(axis=1))
            keep = (slice(int(lines[0]), int(lines[-1]) + 1), slice(None))
            power, on = np.where(seen, power, np.nan), grid[keep]
        vv, vh = (band[keep] for band in power)
        return sentinel1_rtc(folder, vv, vh, on, when, absolute_orbit=absolute, **said)

    def days(count: float, **more: float) -> datetime:
        return AFTER + timedelta(days=count, **more)

    after, before = taken(wet, AFTER), taken(dry, days(-12))
    slices = (
        taken(again(dry), days(-24, seconds=-12.5), north, slice_number=5),
        taken(again(dry), days(-24, seconds=12.5), ~north, slice_number=6),
    )
    traps = {
        "other_direction": taken(1.3 * again(dry), datetime(2024, 5, 10, 16, 50, 12), orbit_state="ascending"),
        "same_day": taken(again(dry), datetime(2024, 5, 12, 5, 8, 31)),
        "partial": taken(again(wet), datetime(2024, 5, 12, 17, 7, 3), west, orbit_state="ascending"),
    }
    pictures = {
        "before": (sim["optical_before"], datetime(2024, 5, 3, 10, 0, 31), 3.1, 122),
        "after": (sim["optical_after"], datetime(2024, 5, 16, 10, 10, 21), 12.4, 22),
        "cloudy": (_clouded(sim["optical_after"], rng), datetime(2024, 5, 13, 10, 0, 31), 90.2, 122),
    }
    classes = _recoded(sim["cover"], _CLASSES)
    optical = {
        name: [
            sentinel2_l2a(
                folder, dict(zip(S2_BANDS, bands, strict=False)), np.where(bands[0] > 2500, 9, classes), grid, when,
                cloud_cover=cover, relative_orbit=orbit, flavour=flavour,
            )
            for flavour in flavours
        ]
        for name, (bands, when, cover, orbit) in pictures.items()
    }  # fmt: skip
    traps["cloudy"] = optical["cloudy"][0]
    ground = cop_dem(folder, sim["dem"][0], grid)
    cover = worldcover(folder, _recoded(sim["cover"], _WORLDCOVER), grid)
    water = jrc_water(folder, np.where(sim["truth"][1] > 0, 96, 0), grid)
    radar = [after, before, *slices, *traps.values()]
    truth = write(folder / "truth.tif", sim["truth"], grid, ("flood", "permanent_water"), nodata=255)
    inner = grid.pad(-16).geographic_extent.boundingbox
    return FloodWorld(
        folder=folder,
        items=[
            *radar,
            *(one for name in ("before", "after") for one in optical[name]),
            *optical["cloudy"][1:],
            *ground,
            *cover,
            *water,
        ],
        event=EVENT,
        bbox=(inner.left, inner.bottom, inner.right, inner.top),
        grid=grid,
        after=after["id"],
        before=before["id"],
        slices=(slices[0]["id"], slices[1]["id"]),
        traps={name: one["id"] for name, one in traps.items()},
        optical_before=_ids(optical["before"]),
        optical_after=_ids(optical["after"]),
        truth=truth,
        dem=_ids(ground),
        worldcover=_ids(cover),
        jrc=_ids(water),
    )


def _flavour(item: Item) -> str:
    return next(str(asset["href"]).partition("/")[0] for asset in item["assets"].values())


def _ids(items: list[Item]) -> tuple[str, ...]:
    return tuple(one["id"] for one in items)


def _simulated(size: int, seed: int) -> dict[str, Pixels]:
    """Layers (band, y, x) of one world; its first column of blocks, which the swath's edge crosses, is left out."""
    count = -(-size // BLOCK_PX)
    layers: dict[str, list[list[Pixels]]] = {}
    for row in range(count):
        for col in range(1, count + 1):
            radar, optical = (
                flood.block(seed, row, col, looks=4.9, gsd_m=10, stage_m=2.5, sensor=sensor)
                for sensor in ("sentinel-1", "sentinel-2")
            )  # fmt: skip
            assert radar.cover is not None
            made = {"before": radar.before, "after": radar.after, "truth": radar.truth, "dem": radar.dem, "cover": radar.cover}
            made |= {"optical_before": _picked(optical.before), "optical_after": _picked(optical.after)}
            for name, pixels in made.items():
                layers.setdefault(name, [[] for _ in range(count)])[row].append(pixels)
    return {name: np.block(rows)[..., :size, :size] for name, rows in layers.items()}


def _picked(bands: Pixels) -> Pixels:
    """Those that are published, of the twelve."""
    return bands[[BANDS.index(name) for name in S2_BANDS if name != "SCL"]]


def _clouded(bands: Pixels, rng: np.random.Generator) -> Pixels:
    """With nine tenths under cloud: all but a lopsided hole."""
    size = bands.shape[1]
    y, x = np.mgrid[:size, :size] / size
    hole = (x - 0.3) ** 2 + 2 * (y - 0.7) ** 2 < 0.0459
    return np.where(hole, bands, rng.integers(5500, 6800, bands.shape)).astype(bands.dtype)


def _recoded(cover: npt.NDArray[np.uint8], codes: dict[Cover, int]) -> npt.NDArray[np.uint8]:
    return np.array([codes.get(kind, 0) for kind in Cover], np.uint8)[cover]
