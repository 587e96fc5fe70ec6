"""density.tif and priority cells: right by hand, whatever the windows, on a grid that fits, in QGIS's colours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from rio_cogeo.cogeo import cog_validate

import aftermap as am
from aftermap import finish, vector
from aftermap.area import pixel_area_m2
from aftermap.errors import UsageError
from aftermap.outline import Classes, outlines, take_census
from aftermap.products import density
from aftermap.products.density import Cells, Density, Priority
from aftermap.tiles import Window, blocks
from tests.conftest import grid

SHAPE = (53, 71)
Pair = Callable[..., tuple[Path, Path]]


def density_of(codes: np.ndarray, on: GeoBox, cells: Cells, side: int, folder: Path) -> tuple[np.ndarray, Priority]:
    """Density (2, y, x) of codes (1 hazard, 0 none, 9 not analysed) read by windows of `side`."""
    classes = Classes(
        lambda w: codes[w.slices], list(blocks(codes.shape, side)), codes.shape, lambda w: pixel_area_m2(on, w), frozenset({0})
    )
    made = Density(cells, on, folder, what="landslide", counted=True)
    for found in outlines(classes, take_census(classes), on.affine):
        lowest = vector.lowest_pixels(found.outlines.only(1).geometry, on.affine)
        made.add(found.window, found.codes == 1, found.codes != 9, classes.area(found.window), lowest)
    made.finish(folder / "density.tif")
    with rasterio.open(folder / "density.tif") as src:
        return src.read(), made.priority


def some_codes() -> np.ndarray:
    rng = np.random.default_rng(3)
    codes = np.repeat(np.repeat(rng.choice(np.array([0, 0, 1, 9], np.uint8), (14, 18)), 4, 0), 4, 1)[
        : SHAPE[0], : SHAPE[1]
    ].copy()
    codes[16:24, 8:16] = 9
    return codes


def test_a_cell_holds_its_share_and_count(tmp_path: Path) -> None:
    codes = np.zeros((16, 16), np.uint8)
    codes[0:2, 0:4], codes[2:9, 8:10], codes[8:, :8] = 1, 1, 9
    found, priority = density_of(codes, grid((16, 16)), Cells(8, 8), 5, tmp_path)
    np.testing.assert_allclose(found[0], [[8 / 64, 12 / 64], [np.nan, 2 / 64]], rtol=1e-6)
    km2 = pixel_area_m2(grid((16, 16)), Window(0, 0, 1, 1))[0, 0] * 64 / 1e6
    np.testing.assert_allclose(found[1], [[1 / km2, 0], [np.nan, 1 / km2]], rtol=1e-6)  # the long one ends in the lower cell
    assert list(zip(priority.row, priority.col, strict=True)) == [(0, 1), (0, 0), (1, 1)]


@pytest.mark.parametrize("side", [7, 16, 33])
def test_windows_change_nothing(tmp_path: Path, side: int) -> None:
    on = GeoBox(SHAPE, Affine(0.01, 0, 13, 0, -0.008, 48), "EPSG:4326")
    codes, cells = some_codes(), Cells(8, 8)
    (tmp_path / "parts").mkdir()
    whole, first = density_of(codes, on, cells, 100, tmp_path)
    parts, second = density_of(codes, on, cells, side, tmp_path / "parts")
    np.testing.assert_array_equal(parts, whole)
    assert np.isnan(whole[0]).any()
    assert (tmp_path / "density.tif").read_bytes() == (tmp_path / "parts" / "density.tif").read_bytes()
    for name in ("row", "col", "affected_m2", "analysed_m2"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_cells_fit_the_grid() -> None:
    assert Cells.nearest(grid(SHAPE), 104) == Cells(10, 10)
    assert Cells(10, 10).of(grid(SHAPE)).shape == (6, 8)
    assert Cells(10, 10).of(grid(SHAPE)).affine == Affine(100, 0, 420000, 0, -100, 5350000)
    north = GeoBox(SHAPE, Affine(1e-4, 0, 13, 0, -1e-4, 60), "EPSG:4326")
    assert Cells.nearest(north, 100) == Cells(9, 18)  # a degree of longitude is half as long there
    with pytest.raises(UsageError, match="less than 4 pixels"):
        Cells.nearest(grid(SHAPE), 30)
    with pytest.raises(UsageError, match="how large a pixel"):
        Cells.nearest(grid(SHAPE, crs=None), 100)
    assert Cells.nearest(grid(SHAPE, crs=None), 100, gsd_m=10) == Cells(10, 10)


def test_priority_is_bounded_and_ranked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = density_of(some_codes(), grid(SHAPE), Cells(8, 8), 16, tmp_path)[1]
    monkeypatch.setattr(density, "MOST_PRIORITY", 5)
    first = density_of(some_codes(), grid(SHAPE), Cells(8, 8), 16, tmp_path)[1]
    np.testing.assert_array_equal(first.row, whole.row[:5])
    assert (np.diff(whole.affected_m2) <= 0).all()
    assert (whole.affected_m2 > 0).all()


def test_the_lowest_pixel_of_a_polygon() -> None:
    on = grid(SHAPE)
    shapes = vector.place(
        np.array([shapely.box(3, 2, 9, 7), shapely.Polygon([(0, 0), (4, 0), (4, 5), (2, 5), (2, 3), (0, 3)])]), on.affine
    )
    rows, cols = vector.lowest_pixels(shapes, on.affine)
    assert (rows.tolist(), cols.tolist()) == ([6, 4], [3, 2])
    assert vector.lowest_pixels(shapes[:0], on.affine)[0].shape == (0,)


def test_a_map_with_density(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = pair()
    options = am.Options(density_m=250)
    mapped = am.map(after, before, out=tmp_path / "out", options=options)
    assert mapped.made_by["parameters"]["density"] == {"asked_m": 250, "cell_px": [25, 25]}
    assert cog_validate(tmp_path / "out" / "density.tif", strict=True)[0]
    with rasterio.open(tmp_path / "out" / "density.tif") as src:
        share = src.read()
    assert share.shape == (1, 8, 11)
    first = mapped.extent(Window(0, 0, 25, 25))
    assert share[0, 0, 0] == pytest.approx((first == 1).mean(), abs=1e-3)
    meta, _, wkb, columns = pyogrio.raw.read(tmp_path / "out" / "map.gpkg", layer="priority")
    assert meta["fields"].tolist() == ["rank", "share", "affected_ha", "analysed_ha"]
    assert columns[0].tolist() == list(range(1, (share > 0).sum() + 1))
    total = next(float(r["value"]) for r in mapped.summary if r["quantity"] == "affected_area")
    assert columns[2].sum() == pytest.approx(total, abs=1e-3)
    assert shapely.total_bounds(shapely.from_wkb(wkb))[0] >= 420000
    assert (tmp_path / "out" / "styles" / "density.qml").exists()
    assert {"density.tif", "styles/density.qml"} <= set(json.loads((tmp_path / "out" / "item.json").read_text())["assets"])
    monkeypatch.setattr(finish, "WINDOW_PX", 64)
    am.map(after, before, out=tmp_path / "small", options=options)
    assert (tmp_path / "small" / "density.tif").read_bytes() == (tmp_path / "out" / "density.tif").read_bytes()


def test_no_density_unasked(pair: Pair, tmp_path: Path) -> None:
    am.map(*reversed(pair()), out=tmp_path / "out")
    assert not (tmp_path / "out" / "density.tif").exists()
    assert "priority" not in pyogrio.list_layers(tmp_path / "out" / "map.gpkg")[:, 0]
