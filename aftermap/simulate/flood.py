"""A flood with known truth: Sentinel-1 before and after, flood and permanent water, and elevation."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from affine import Affine
from odc.geo.geobox import GeoBox

from aftermap.errors import UsageError
from aftermap.raster import BLOCK_PX, Writer
from aftermap.simulate.sar import POLARISATIONS, Surface, backscatter, incidence, speckled, texture
from aftermap.simulate.terrain import Cover, Field, Ground, Land, Terrain, land, noise, smoothstep, terrain, uniform
from aftermap.tiles import blocks

CRS = "EPSG:32633"
ORIGIN_M = (420_000.0, 5_350_000.0)
"""Easting and northing of the scenes' north-west corner: the Danube's plain east of Linz."""
DATES = {"before": "2024-05-01T05:00:00Z", "after": "2024-05-13T05:00:00Z"}
SWATH_EDGE_M = {"before": 400.0, "after": 460.0}
"""Where the swath's edge meets the north border; no pass repeats another's edge exactly."""
SWATH_LEAN = 0.21
"""Metres west per metre south: the ground track of a descending pass at mid latitudes."""
LEAST_PX = 64
UNKNOWN = 255
"""Truth where nobody knows; a simulation knows everywhere, so it is declared and never written."""


@dataclass(frozen=True)
class Block:
    """One window of a scene: `before`, `after` (band, y, x) in dB, `truth` (2, y, x) uint8, `dem` (1, y, x) in metres."""

    before: Field
    after: Field
    truth: npt.NDArray[np.uint8]
    dem: Field


Make = Callable[[int, int], Block]
"""Block row and column to block."""
Progress = Callable[[int, int], None]
"""Hears blocks done and blocks in all."""


def simulate(
    out: Path,
    *,
    size: int = 2048,
    seed: int = 0,
    looks: float = 4.9,
    gsd_m: float = 10.0,
    stage_m: float = 2.5,
    progress: Progress | None = None,
) -> None:
    """Writes before.tif, after.tif (VV, VH in dB), truth.tif (flood, permanent_water) and dem.tif (m) of size x size pixels.

    A seed is one world: a smaller scene is the north-west corner of a larger one.
    """
    _check(size, seed, looks, gsd_m, stage_m)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write into {out}: {error.strerror}", repair="name a folder that can be created") from error
    scratch = {name: out / f".{name}.tif.part" for name in ("before", "after", "truth", "dem")}
    try:
        made_by = f"aftermap flood seed={seed} looks={looks} stage_m={stage_m}"
        _write(scratch, size, gsd_m, made_by, partial(block, seed, looks=looks, gsd_m=gsd_m, stage_m=stage_m), progress)
        for name, path in scratch.items():
            os.replace(path, out / f"{name}.tif")
    finally:
        for path in scratch.values():
            path.unlink(missing_ok=True)


def _check(size: int, seed: int, looks: float, gsd_m: float, stage_m: float) -> None:
    """Raises UsageError for the first argument outside its range."""
    ranges = {
        "size": (size, LEAST_PX, 100_000), "seed": (seed, 0, 2**32 - 1), "looks": (looks, 0.5, 1e6),
        "gsd_m": (gsd_m, 2, 60), "stage_m": (stage_m, 0.1, 20),
    }  # fmt: skip
    for name, (given, least, most) in ranges.items():
        if not least <= given <= most:
            raise UsageError(f"{name} is {given}", repair=f"give a {name} from {least:,} to {most:,}", code="bad-value")


def _write(scratch: dict[str, Path], size: int, gsd_m: float, made_by: str, make: Make, progress: Progress | None) -> None:
    """Every block of the scene into its four scratch files, north-west first."""
    grid = GeoBox((size, size), Affine(gsd_m, 0, ORIGIN_M[0], 0, -gsd_m, ORIGIN_M[1]), CRS)
    windows = list(blocks((size, size), BLOCK_PX))
    with ExitStack() as stack:
        writers = {name: stack.enter_context(_writer(name, path, grid, made_by)) for name, path in scratch.items()}
        for done, window in enumerate(windows, start=1):
            made = make(window.row // BLOCK_PX, window.col // BLOCK_PX)
            for name, writer in writers.items():
                writer.write(getattr(made, name)[:, : window.height, : window.width], window)
            if progress is not None:
                progress(done, len(windows))


def _writer(name: str, path: Path, grid: GeoBox, made_by: str) -> Writer:
    """An open file of the right type; the caller closes it."""
    tags = {"SIMULATED": made_by}
    if name == "truth":
        names = ("flood", "permanent_water")
        return Writer(path, grid, dtype="uint8", descriptions=names, nodata=UNKNOWN, unit="class", tags=tags)
    if name == "dem":
        return Writer(path, grid, dtype="float32", descriptions=("elevation",), nodata=np.nan, unit="metres", tags=tags)
    tags["ACQUISITION_DATETIME"] = DATES[name]
    return Writer(path, grid, dtype="float32", descriptions=POLARISATIONS, nodata=np.nan, unit="dB", tags=tags)


def block(seed: int, row: int, col: int, *, looks: float, gsd_m: float, stage_m: float) -> Block:
    """The whole 512 px block at block position (row, col): no other block, and no scene size, has a say in it."""
    ground = Ground(seed, row * BLOCK_PX, col * BLOCK_PX, BLOCK_PX, BLOCK_PX, gsd_m)
    ter = terrain(ground)
    use = land(ground, ter)
    depth = _depth(ground, ter, stage_m)
    truth = np.stack([depth > 0, ter.water]).astype(np.uint8)
    shared = texture(ground, use.cover, use.parcel)
    states = {"before": _before(ground, use, shared), "after": _after(ground, use, shared, depth)}
    before, after = (_image(ground, surface, ter.rise_east, date, looks, (row, col)) for date, surface in states.items())
    return Block(before, after, truth, ter.elevation[None])


def _image(ground: Ground, surface: Surface, rise_east: Field, date: str, looks: float, at: tuple[int, int]) -> Field:
    """One date's picture (band, y, x) in dB of the block `at` (row, column), NaN beyond the swath's edge."""
    power = backscatter(surface, incidence(ground), rise_east)
    image = np.stack([speckled(p, looks, ground.seed, f"{date}/{pol}", at) for p, pol in zip(power, POLARISATIONS, strict=True)])
    image[:, ground.east_m + SWATH_LEAN * ground.south_m < SWATH_EDGE_M[date]] = np.nan
    return image


def _depth(ground: Ground, ter: Terrain, stage_m: float) -> Field:
    """Metres of flood water (y, x), 0 where dry or permanent: the stage falls up the tributaries, height above drainage rises."""
    stage = stage_m * (0.15 + 0.85 * np.exp(-ter.valley / 1500)) + 0.15 * noise(ground, "stage", 3000)
    return np.where(ter.water, np.float32(0), np.maximum(stage - ter.hand, np.float32(0))).astype(np.float32)


def _before(ground: Ground, use: Land, shared: Field) -> Surface:
    """A dry spring day."""
    return Surface(use.cover, np.zeros_like(shared), shared, _waves(ground, "before"))


def _after(ground: Ground, use: Land, shared: Field, depth: Field) -> Surface:
    """Twelve days and a storm later: wetter soil, some lots harvested or grazed, and water over what lay low."""
    # stalks and ridges stand out of the first 40 cm
    flooded = smoothstep(-0.1, 0.4, depth) * (depth > 0)
    change = 0.6 + 0.5 * noise(ground, "moisture", 1500) + 0.45 * noise(ground, "season", 60)
    change -= np.float32(3) * (uniform(use.parcel, "harvest") < 0.05)
    change[use.cover == Cover.WATER] = 0
    change[use.cover == Cover.URBAN] *= np.float32(0.3)
    return Surface(use.cover, flooded, shared + change, _waves(ground, "after"))


def _waves(ground: Ground, date: str) -> Field:
    """What wind adds to open water in VV (dB): gusts roughen patches of it, more rarely by as much as hides it."""
    return 6 * smoothstep(0.9, 2.2, noise(ground, f"wind/{date}", 1400))
