"""What must not change a map does not, and what moves the images moves the map: on a real chip and on a simulated pair.

No truth is needed for these laws, so they hold of real images too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyogrio.raw
import pytest
import rasterio
import rasterio.warp
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

import aftermap as am
from aftermap import journal, raster
from aftermap.sensors import convert
from aftermap.simulate.flood import simulate
from aftermap.tiles import Window
from tests.conftest import shared, write

F32 = npt.NDArray[np.float32]
SIDE = 384
"""A multiple of 64, so that the tiles of a mirrored image are those of the image, mirrored."""
WHOLE = Window(0, 0, SIDE, SIDE)
HOLE = np.s_[:, 100:140, 60:120]
POLS = ("VV", "VH")
NAN = float("nan")


@dataclass(frozen=True)
class Event:
    """Backscatter in dB (2, y, x) by layer, NaN in a hole, and its grid."""

    pixels: Mapping[str, F32]
    grid: GeoBox

    def map(
        self,
        out: Path,
        *,
        on: GeoBox | None = None,
        change: Callable[[F32], F32] = lambda p: p,
        bands: tuple[str, ...] = POLS,
        unit: str = "dB",
        nodata: float = NAN,
        memory_mb: int = 1000,
    ) -> am.HazardMap:
        """The map of the images after a change, on another grid where one is given."""
        files: dict[str, Any] = {
            name: write(out / f"{name}.tif", np.ascontiguousarray(change(p)), on or self.grid, bands, unit=unit, nodata=nodata)
            for name, p in self.pixels.items()
        }
        return am.map(**files, out=out / "out", method="sar-threshold", options=am.Options(memory_mb=memory_mb))


def _cut(path: Path) -> tuple[F32, GeoBox]:
    facts = raster.facts(path)
    pixels = raster.read_window(path, WHOLE, [1, 2]).astype(np.float32)
    pixels[HOLE] = np.nan
    return pixels, facts.grid[WHOLE.slices]


@pytest.fixture(scope="module", params=["real", "simulated"])
def event(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Event:
    if request.param == "real":
        pixels, grid = _cut(shared("flood_sen1floods11") / "S1Hand" / "Nigeria_812045_S1Hand.tif")
        return Event({"after": pixels}, grid)
    folder = tmp_path_factory.mktemp("simulated")
    simulate(folder, size=SIDE, seed=2)
    cut = {name: _cut(folder / f"{name}.tif") for name in ("after", "before")}
    return Event({name: pixels for name, (pixels, _) in cut.items()}, cut["after"][1])


@pytest.fixture(scope="module")
def plain(event: Event, tmp_path_factory: pytest.TempPathFactory) -> am.HazardMap:
    mapped = event.map(tmp_path_factory.mktemp("plain"))
    assert 0.02 < (mapped.extent(WHOLE) == 1).mean() < 0.6
    assert (mapped.extent(WHOLE)[HOLE[1:]] == 255).all()
    return mapped


def rasters(mapped: am.HazardMap) -> tuple[npt.NDArray[np.uint8], ...]:
    return mapped.likelihood(WHOLE), mapped.extent(WHOLE), mapped.exclusion(WHOLE)


def same(one: am.HazardMap, other: am.HazardMap) -> None:
    for mine, its in zip(rasters(one), rasters(other), strict=True):
        np.testing.assert_array_equal(mine, its)


def numbers(mapped: am.HazardMap) -> Any:
    return mapped.made_by["methods"]["ran"]


def test_power_maps_like_db(event: Event, plain: am.HazardMap, tmp_path: Path) -> None:
    """Float32 powers round; so all but one pixel of ten thousand are alike, and none by more than a percent of likelihood."""
    other = event.map(tmp_path, change=lambda p: convert(p, "dB", "power"), unit="power")
    assert (plain.extent(WHOLE) == other.extent(WHOLE)).mean() > 0.9999
    near = np.abs(plain.likelihood(WHOLE).astype(int) - other.likelihood(WHOLE))
    assert near.max() <= 1


@pytest.mark.parametrize("nodata", [-9999.0, 0.0, 7.5])
def test_another_mark_of_nodata_changes_nothing(event: Event, plain: am.HazardMap, tmp_path: Path, nodata: float) -> None:
    other = event.map(tmp_path, change=lambda p: np.nan_to_num(p, nan=nodata), nodata=nodata)
    same(plain, other)
    assert numbers(plain) == numbers(other)


@pytest.mark.parametrize("memory_mb", [420, 3000])
def test_memory_changes_no_byte(event: Event, plain: am.HazardMap, tmp_path: Path, memory_mb: int) -> None:
    other = event.map(tmp_path, memory_mb=memory_mb)
    same(plain, other)
    for name in ("map.gpkg", "extent.tif", "likelihood.tif", "summary.csv"):
        assert journal.sha256(plain.folder / name) == journal.sha256(other.folder / name)


def test_the_order_of_bands_changes_nothing(event: Event, plain: am.HazardMap, tmp_path: Path) -> None:
    other = event.map(tmp_path, change=lambda p: p[::-1], bands=POLS[::-1])
    same(plain, other)
    assert numbers(plain) == numbers(other)


@pytest.mark.parametrize(
    "layout",
    [{}, {"compress": "lzw", "predictor": 3}, {"compress": "zstd", "tiled": True, "blockxsize": 64, "blockysize": 128}],
    ids=["none", "lzw", "zstd tiles"],
)
def test_how_a_file_is_stored_changes_nothing(event: Event, plain: am.HazardMap, tmp_path: Path, layout: dict[str, Any]) -> None:
    facts = {
        "driver": "GTiff", "count": 2, "height": SIDE, "width": SIDE, "dtype": "float32", "nodata": NAN,
        "crs": event.grid.crs, "transform": event.grid.affine,
    }  # fmt: skip
    files: dict[str, Any] = {name: tmp_path / f"{name}.tif" for name in event.pixels}
    for name, path in files.items():
        with rasterio.open(path, "w", **facts, **layout) as out:
            out.write(event.pixels[name])
            out.descriptions, out.units = POLS, ("dB", "dB")
    same(plain, am.map(**files, out=tmp_path / "out", method="sar-threshold"))


@pytest.mark.parametrize("axis", [1, 2], ids=["upside down", "mirrored"])
def test_a_mirrored_image_has_the_mirrored_map(event: Event, plain: am.HazardMap, tmp_path: Path, axis: int) -> None:
    other = event.map(tmp_path, change=lambda p: np.flip(p, axis))
    for mine, its in zip(rasters(plain), rasters(other), strict=True):
        np.testing.assert_array_equal(np.flip(mine, axis - 1), its)


def _outlines(mapped: am.HazardMap) -> npt.NDArray[Any]:
    _, _, wkb, _ = pyogrio.raw.read(mapped.folder / "map.gpkg", layer="observed_event", columns=[])
    return np.asarray(shapely.from_wkb(wkb))


def test_an_image_put_elsewhere_has_its_map_there(event: Event, tmp_path: Path) -> None:
    """100 pixels east and 40 north on one grid in metres: no pixel changes, and every outline moves by as much."""
    there = [GeoBox((SIDE, SIDE), Affine(10, 0, 420000 + 1000 * k, 0, -10, 5350000 + 400 * k), "EPSG:32633") for k in (0, 1)]
    one, other = (event.map(tmp_path / str(k), on=on) for k, on in enumerate(there))
    same(one, other)
    assert numbers(one) == numbers(other)
    moved = shapely.transform(_outlines(one), lambda xy: xy + np.array([1000, 400]))
    assert shapely.equals(moved, _outlines(other)).all()


def test_a_reprojected_image_has_the_reprojected_map(event: Event, plain: am.HazardMap, tmp_path: Path) -> None:
    """Into another CRS by nearest neighbour: pixels double and drop, so medians and tiles differ, and the outline with them.

    Back on the first grid, IoU of the two maps is above 0.88 where both saw (measured 0.997 on the real chip, 0.914 on the
    simulated pair), their shares of hazard differ by less than 1 % of the area, and their thresholds by less than 1 dB.
    """
    on = event.grid.to_crs("EPSG:3857")

    def warped(pixels: F32) -> F32:
        out = np.full((2, *on.shape), np.nan, np.float32)
        facts = {"src_transform": event.grid.affine, "src_crs": event.grid.crs, "dst_transform": on.affine, "dst_crs": on.crs}
        rasterio.warp.reproject(pixels, out, src_nodata=NAN, dst_nodata=NAN, init_dest_nodata=True, **facts)
        return out

    other = event.map(tmp_path, on=on, change=warped)
    back = raster.Reader(other.folder / "extent.tif", event.grid, [1], classes=True).read(WHOLE)[0]
    here = plain.extent(WHOLE)
    both = np.isfinite(back) & (here != 255)
    assert both.mean() > 0.9
    mine, its = here[both] == 1, back[both] == 1
    assert (mine & its).sum() / (mine | its).sum() > 0.88
    assert abs(mine.mean() - its.mean()) < 0.01
    levels = [numbers(m)["sar-threshold"]["after_db"] for m in (plain, other)]
    assert levels[0] == pytest.approx(levels[1], abs=1)
