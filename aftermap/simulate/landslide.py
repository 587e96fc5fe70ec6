"""Landslides with known truth: mountains before and after a storm, in radar or optical pictures, and elevation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap.raster import BLOCK_PX
from aftermap.simulate import inventory, optical
from aftermap.simulate.files import DEM, Layer, Place, Progress, check_choice, check_ranges, truth, write_scene
from aftermap.simulate.model import Model, chosen_site
from aftermap.simulate.mountain import RANGES, Range, heights, mountain, mountain_land, slope_deg
from aftermap.simulate.relief import Skyline, Sun, radar_relief, skyline, sunlight
from aftermap.simulate.sar import (
    COHERENCE_PAIRS,
    POLARISATIONS,
    Surface,
    backscatter,
    coherent,
    estimated,
    incidence,
    speckled,
    texture,
)  # fmt: skip
from aftermap.simulate.slides import RANGE_RISES, REACH_M, TILE_M, Slopes, slides
from aftermap.simulate.strokes import paint, strokes_near
from aftermap.simulate.terrain import Cover, Field, Ground, Land, Terrain, fractal, noise, smoothstep

PLACES = {"alps": Place("EPSG:32632", 372_000, 5_148_000), "andes": Place("EPSG:32718", 776_000, 8_548_000)}
"""The upper Rhone in Valais; the eastern flank of the Cordillera near Machu Picchu."""
DATES = {"before": "2024-05-03T10:20:00Z", "after": "2024-06-20T10:20:00Z"}
MOST_PASSES, REVISIT_DAYS = 5, 12
"""Radar passes on each side of the event, and the days between two of one orbit of Sentinel-1."""
SKIES = {
    "before": optical.Sky(Sun(148, 47), haze=1.0, ripe=0.15, clouds=0.05, name="before"),
    "after": optical.Sky(Sun(142, 52), haze=1.4, ripe=0.30, clouds=0.07, name="after"),
}
SENSORS = {"sentinel-2": 10.0, "sentinel-1": 10.0, "rgb": 3.0}
"""Sensors and the pixel (m) that each scene has unless told otherwise."""
DENSITY = {"event": 0.34, "old": 0.06}
"""Shares of steep cells that fail where it rained hardest, in this storm and in those of earlier years."""
RIM_M = 36.0


@dataclass(frozen=True)
class Scars:
    """Fields (y, x): share of bare earth in a pixel, brightness of that earth, the slide's draw and place along it in [0, 1]."""

    bare: Field
    earth: Field
    draw: Field
    along: Field


@dataclass(frozen=True)
class _Site:
    """What both dates of a block share."""

    ground: Ground
    ter: Terrain
    sky: Skyline
    use: Land
    old: Scars
    new: Scars
    at: tuple[int, int]


def simulate(
    out: Path,
    *,
    size: int | None = None,
    seed: int = 0,
    sensor: str = "sentinel-2",
    terrain: str = "andes",
    looks: float = 4.9,
    gsd_m: float | None = None,
    coherence: bool = False,
    passes: int = 1,
    dem: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Writes before.tif, after.tif, truth.tif (landslide, permanent_water, hidden) and dem.tif (m) of size x size pixels.

    Beside them inventory.gpkg, a point with its area at the head of each slide of the event. `sensor` is "sentinel-2" (12 bands,
    reflectance x 10,000), "rgb" (8 bits) or "sentinel-1" (VV, VH in dB), to which `coherence` adds coherence.tif, and `passes`
    above 1 before-2.tif (the last but one before the event), after-2.tif (the second after it) and so on, 12 days apart. `dem`
    is a real elevation model: its slopes fail, on its grid, cut to `size`. `hidden` is under cloud or its shadow after the
    event; for radar in shadow or layover.
    """
    check_choice("sensor", sensor, tuple(SENSORS), "no such picture of slides is made")
    check_choice("terrain", terrain, tuple(RANGES), "slides need mountains")
    site = chosen_site(PLACES[terrain], dem, size=size, seed=seed, gsd_m=gsd_m, usual_m=SENSORS[sensor])
    check_ranges(looks=(looks, 0.5, 1e6), passes=(passes, 1, MOST_PASSES))
    if passes > 1:
        check_choice("sensor", sensor, ("sentinel-1",), "several passes need radar")
    layers = {name: _layer(sensor, date) for name, date in dates(passes).items()}
    layers |= {"truth": truth("landslide", "permanent_water", "hidden"), "dem": DEM}
    if coherence:
        check_choice("sensor", sensor, ("sentinel-1",), "coherence needs radar")
        layers["coherence"] = COHERENCE_PAIRS
    make = partial(block, seed, sensor=sensor, terrain=terrain, looks=looks, gsd_m=site.gsd_m, model=site.model, passes=passes)
    words = f"{f' passes={passes}' if passes > 1 else ''}{site.words}"
    made_by = f"aftermap landslide seed={seed} sensor={sensor} terrain={terrain} looks={looks}{words}"
    heads = inventory.Inventory(seed, _slopes(terrain, site.model), site.gsd_m, "event", DENSITY["event"])
    write_scene(
        out, layers, heads.watched(site.masked(make, layers)), grid=site.grid, made_by=made_by, progress=progress,
        beside={inventory.FILE: partial(heads.write, grid=site.grid)},
    )  # fmt: skip


def dates(passes: int) -> dict[str, str]:
    """Pass -> time of acquisition: before and after; with more, before-2 the last but one, after-2 the second, and so on."""
    found = dict(DATES)
    for k in range(2, passes + 1):
        for side, days in (("before", -REVISIT_DAYS), ("after", REVISIT_DAYS)):
            time = datetime.fromisoformat(DATES[side]) + timedelta(days=(k - 1) * days)
            found[f"{side}-{k}"] = time.strftime("%Y-%m-%dT%H:%M:%SZ")
    return found


def _slopes(terrain: str, model: Model | None) -> Slopes:
    return model.rises if model else RANGE_RISES[terrain]


def _layer(sensor: str, acquired: str) -> Layer:
    if sensor == "sentinel-1":
        return Layer(POLARISATIONS, unit="dB", acquired=acquired)
    return optical.layer(sensor, acquired)


def block(
    seed: int, row: int, col: int, *, sensor: str, terrain: str, looks: float, gsd_m: float, model: Model | None = None,
    skies: Mapping[str, optical.Sky] = SKIES, snow_line_m: float | None = None, passes: int = 1,
) -> Mapping[str, npt.NDArray[Any]]:  # fmt: skip
    """Layers (band, y, x) of the whole 512 px block at block position (row, col); no other block has a say in it.

    Optical pictures are of the dates that `skies` has, "after" the last; `snow_line_m` is the region's unless given. Radar has
    as many `passes` on each side.
    """
    ground = Ground(seed, row * BLOCK_PX, col * BLOCK_PX, BLOCK_PX, BLOCK_PX, gsd_m)
    region = RANGES[terrain] if snow_line_m is None else replace(RANGES[terrain], snow_line_m=snow_line_m)
    site = _site(ground, terrain, region, (row, col), model)
    made = _radar(site, looks, passes) if sensor == "sentinel-1" else _optical(site, sensor, skies)
    slid = (site.new.bare > 0.5) & ~site.ter.water
    codes = np.stack([slid, site.ter.water, made.pop("hidden") > 0.5]).astype(np.uint8)
    return {**made, "truth": codes, "dem": site.ter.elevation[None]}


def _site(ground: Ground, terrain: str, region: Range, at: tuple[int, int], model: Model | None) -> _Site:
    ter = model.terrain(ground) if model else mountain(ground, region)
    sky = skyline(ground, model.heights if model else partial(heights, region=region))
    use = mountain_land(ground, ter, region)
    old, new = (_scars(ground, use, _slopes(terrain, model), event) for event in ("old", "event"))
    return _Site(ground, ter, sky, use, old, new, at)


def _scars(ground: Ground, use: Land, slopes: Slopes, event: str) -> Scars:
    """One event's slides in a window: ragged at the rim, with tufts of turf left on the tongue."""

    def of_tile(row: int, col: int) -> Any:
        return slides(ground.seed, slopes, event, DENSITY[event], row, col)

    painted = paint(ground, strokes_near(ground, TILE_M, REACH_M, of_tile), rim_m=RIM_M)
    ragged = np.minimum(4 + 0.3 * painted.half_m, RIM_M / 2) * fractal(ground, f"{event}/rim", 70, 3, gain=0.7)
    rim = max(3.0, 0.4 * ground.gsd_m)
    bare = smoothstep(-rim, rim, painted.inside + np.where(np.isfinite(painted.inside), ragged, 0))
    bare *= 1 - 0.45 * smoothstep(0.9, 1.5, noise(ground, f"{event}/turf", 38)) * painted.along
    bare[np.isin(use.cover, (Cover.SNOW, Cover.WATER))] = 0
    earth = 1.12 - 0.30 * painted.along + 0.30 * (painted.draw - 0.5) + 0.07 * noise(ground, f"{event}/earth", 25)
    return Scars(bare, np.asarray(earth, np.float32), painted.draw, painted.along)


def _optical(site: _Site, sensor: str, skies: Mapping[str, optical.Sky]) -> dict[str, npt.NDArray[Any]]:
    """A picture for each sky, and what cloud hides in the last."""
    made: dict[str, npt.NDArray[Any]] = {}
    for date, sky in skies.items():
        flat = optical.surface(site.ground, site.use.cover, site.use.parcel, sky.ripe)
        # scars of earlier years have greened over by half
        flat = optical.mixed(flat, site.old.bare * (0.15 + 0.6 * site.old.draw), optical.EARTH, 0.9 * site.old.earth)
        if date == "after":
            flat = optical.mixed(flat, site.new.bare * np.float32(0.95), optical.EARTH, site.new.earth)
        light = sunlight(site.ground, site.ter, site.sky, sky.sun)
        made[date], made["hidden"] = optical.picture(site.ground, flat, light, sky, sensor, site.at)
    return made


def _radar(site: _Site, looks: float, passes: int) -> dict[str, npt.NDArray[Any]]:
    """The picture of each pass in dB, the coherence of the pairs, and what shadow and layover hide."""
    angle = incidence(site.ground)
    # rays are taken as parallel over a block
    relief_db, hidden = radar_relief(site.ground, site.ter, site.sky, float(angle.mean()))
    shared = texture(site.ground, site.use.cover, site.use.parcel) + relief_db
    still, made = np.zeros_like(shared), {}
    before = Surface(site.use.cover, still, np.asarray(shared, np.float32), still)
    after = _slid(site, before)
    for date in dates(passes):
        surface = _weathered(site, after if date.startswith("after") else before, date)
        powers = zip(backscatter(surface, angle, still), POLARISATIONS, strict=True)
        made[date] = np.stack([speckled(p, looks, site.ground.seed, f"{date}/{pol}", site.at) for p, pol in powers])
    return {**made, "coherence": _coherence(site, hidden), "hidden": hidden}


def _slid(site: _Site, before: Surface) -> Surface:
    """Woods gone and rubble in their place: less volume, rougher ground, each slide with its own blocks and wetness."""
    slid = site.new.bare > 0.5
    rubble = 2.6 + 3.5 * (site.new.draw - 0.5) + 1.3 * noise(site.ground, "rubble", 32)
    change = 0.4 * noise(site.ground, "moisture", 1500) + 0.3 * noise(site.ground, "season", 90)
    land_db = before.land_db + change + np.where(slid, rubble, 0)
    cover = np.where(slid, np.uint8(Cover.BARE), before.cover)
    return replace(before, cover=cover, land_db=land_db.astype(np.float32))


def _weathered(site: _Site, surface: Surface, date: str) -> Surface:
    """The land as a further pass finds it: as wet and as green as that day has it, the texture as ever."""
    if date in DATES:
        return surface
    change = 0.4 * noise(site.ground, f"{date}/moisture", 1500) + 0.2 * noise(site.ground, f"{date}/season", 90)
    return replace(surface, land_db=np.asarray(surface.land_db + change, np.float32))


def _coherence(site: _Site, hidden: npt.NDArray[np.bool_]) -> Field:
    """Sample coherence (2, y, x) of a pair before the event and of the pair across it; slides and hidden ground lose it."""
    seen = np.where(hidden, np.float32(0.15), np.float32(1))
    # steep slopes decorrelate along the baseline
    seen = seen * (1 - 0.25 * smoothstep(25, 55, slope_deg(site.ter)))
    kept = {"pre": seen, "co": seen * (1 - 0.9 * site.new.bare)}
    return np.stack([
        estimated(coherent(site.ground, site.use.cover, share), site.ground.seed, f"coherence/{pair}", site.at)
        for pair, share in kept.items()
    ])  # fmt: skip
