"""density.tif and priority cells: right by hand, whatever the windows, on a grid that fits, in QGIS's colours."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
from affine import Affine
from click.testing import CliRunner
from odc.geo.geobox import GeoBox
from odc.geo.geom import point
from rio_cogeo.cogeo import cog_validate

import aftermap as am
from aftermap import finish, vector
from aftermap.area import pixel_area_m2
from aftermap.cli import main
from aftermap.errors import UsageError
from aftermap.evaluate import evaluate, write_scores
from aftermap.journal import verify
from aftermap.outline import Classes, outlines, take_census
from aftermap.products import priority as priorities
from aftermap.products.density import Cells, Density
from aftermap.products.priority import Priority
from aftermap.tiles import Window, blocks
from tests.conftest import UTM, grid, write

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
        likelihood = np.where(found.codes == 9, 255, some_likelihood(codes.shape)[found.window.slices]).astype(np.uint8)
        made.add(found.window, found.codes == 1, found.codes != 9, classes.area(found.window), lowest, likelihood)
    made.finish(folder)
    with rasterio.open(folder / "density.tif") as src:
        return src.read(), made.priority


def some_likelihood(shape: tuple[int, int]) -> np.ndarray:
    """Percent (y, x), more to the right."""
    return np.broadcast_to((100 * np.arange(shape[1])) // shape[1], shape)


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
    for name in (f.name for f in fields(Priority)):
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
    monkeypatch.setattr(priorities, "MOST_PRIORITY", 5)
    first = density_of(some_codes(), grid(SHAPE), Cells(8, 8), 16, tmp_path)[1]
    np.testing.assert_array_equal(first.row, whole.row[:5])
    assert (np.diff(whole.affected_m2) <= 0).all()
    assert len(whole.row) == 7 * 9 - 1, "all but the one cell that was not analysed"


def test_where_nothing_is_mapped_likelihood_orders(tmp_path: Path) -> None:
    codes = np.zeros((16, 24), np.uint8)
    codes[:8, 16:], codes[9, 1] = 9, 1
    codes[14:, 16:] = 9
    found = density_of(codes, grid((16, 24)), Cells(8, 8), 5, tmp_path)[1]
    assert list(zip(found.row, found.col, strict=True)) == [(1, 0), (1, 2), (0, 1), (1, 1), (0, 0)]
    np.testing.assert_allclose(found.likelihood[[1, 2]], [100 * 19.5 // 1 / 24, 100 * 11.5 / 24], atol=2)
    assert found.affected_m2[1:].max() == 0


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
    said = {"asked_m": 250, "cell_px": [25, 25], "rule": "asked for", "model": None}
    assert mapped.made_by["parameters"]["density"] == said
    assert cog_validate(tmp_path / "out" / "density.tif", strict=True)[0]
    with rasterio.open(tmp_path / "out" / "density.tif") as src:
        share = src.read()
    assert share.shape == (1, 8, 11)
    first = mapped.extent(Window(0, 0, 25, 25))
    assert share[0, 0, 0] == pytest.approx((first == 1).mean(), abs=1e-3)
    meta, _, wkb, columns = pyogrio.raw.read(tmp_path / "out" / "map.gpkg", layer="priority")
    assert meta["fields"].tolist() == [
        "rank", "share", "affected_ha", "analysed_ha", "polygons_per_km2", "likelihood_mean", "expected_per_km2", "density_class",
        "by",
    ]  # fmt: skip
    assert columns[0].tolist() == list(range(1, np.isfinite(share).sum() + 1))
    rows = listed(tmp_path / "out")
    assert [float(r["affected_ha"]) for r in rows] == pytest.approx(columns[2].round(4).tolist())
    assert {r["by"] for r in rows} == {mapped.made_by["methods"]["lead"]}
    total = next(float(r["value"]) for r in mapped.summary if r["quantity"] == "affected_area")
    assert columns[2].sum() == pytest.approx(total, abs=1e-3)
    assert shapely.total_bounds(shapely.from_wkb(wkb))[0] >= 420000
    assert (tmp_path / "out" / "styles" / "density.qml").exists()
    assert {"density.tif", "styles/density.qml"} <= set(json.loads((tmp_path / "out" / "item.json").read_text())["assets"])
    monkeypatch.setattr(finish, "WINDOW_PX", 64)
    am.map(after, before, out=tmp_path / "small", options=options)
    for name in ("density.tif", "priority.csv"):
        assert (tmp_path / "small" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def listed(out: Path) -> list[dict[str, str]]:
    with (out / "priority.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def slides(folder: Path, shape: tuple[int, int] = (96, 132), *, crs: str | None = UTM) -> tuple[Path, Path, Path]:
    """Before, after (VV, VH in dB) and truth of ground on which two patches of VH fell by 9 dB."""
    rng = np.random.default_rng(2)
    level = np.array([[[-9]], [[-16]]], np.float32)
    before, after = (level + rng.normal(0, 0.7, (2, *shape)).astype(np.float32) for _ in range(2))
    truth = np.zeros((1, *shape), np.uint8)
    truth[0, 50:62, 70:90], truth[0, 8:16, 10:18] = 1, 1
    after[1] -= 9 * truth[0]
    on = grid(shape, crs=crs)
    images = (write(folder / f"{n}.tif", p, on, ("VV", "VH"), unit="dB") for n, p in (("before", before), ("after", after)))
    old, new = images
    return old, new, write(folder / "truth.tif", truth, on, ("landslide",))


def test_landslides_have_a_list_unasked(tmp_path: Path) -> None:
    before, after, truth = slides(tmp_path)
    mapped = am.map(after, before, out=tmp_path / "out", hazard="landslide")
    said = mapped.made_by["parameters"]["density"]
    assert (said["cell_px"], said["asked_m"], said["model"]) == ([24, 24], None, None), "a quarter of 96 px"
    assert "1280 m" in said["rule"]
    rows = listed(tmp_path / "out")
    assert list(rows[0]) == list(priorities.COLUMNS)
    assert len(rows) == 4 * 6
    assert [(r["row"], r["col"]) for r in rows[:3]] == [("2", "3"), ("0", "0"), ("2", "2")], "where the patches lie"
    assert float(rows[0]["x"]) == 420000 + 10 * (3 * 24 + 12)
    assert rows[-1]["share"] == "0.0"
    likely = [float(r["likelihood_mean"]) * float(r["analysed_ha"]) for r in rows if float(r["share"]) == 0]
    assert likely == sorted(likely, reverse=True)
    lon, lat = (float(rows[0][k]) for k in ("lon", "lat"))
    x, y = (float(rows[0][k]) for k in "xy")
    assert xy_of(lon, lat) == pytest.approx((x, y), abs=0.02)
    assert {r["by"] for r in rows} == {mapped.made_by["methods"]["lead"]}
    assert "priority.csv" in json.loads((tmp_path / "out" / "item.json").read_text())["assets"]
    scored = evaluate(mapped, truth).row()
    assert scored["found_top10"] == scored["found_top10_best"] > 0.85
    assert scored["found_top10_chance"] == pytest.approx(3 / 24)
    bare = am.map(after, before, out=tmp_path / "bare", hazard="landslide", options=am.Options(density_m=0))
    both = write_scores(tmp_path / "scores", [evaluate(bare, truth), evaluate(mapped, truth)]).row()
    assert {k: both[k] for k in scored if k.startswith("found")} == {k: scored[k] for k in scored if k.startswith("found")}
    assert (tmp_path / "scores" / "scores.csv").read_text().splitlines()[1].endswith(",,,"), "a map without a list has none"
    told = CliRunner().invoke(main, ["evaluate", str(mapped.folder), "--truth", str(truth), "-o", str(tmp_path / "told")])
    assert "top 10 % of cells: 100 %" in told.output
    assert "any order 12 %" in told.output
    (tmp_path / "out" / "priority.csv").write_text("rank\n")
    assert verify(tmp_path / "out") == ["priority.csv has changed since it was delivered"]


def xy_of(lon: float, lat: float) -> tuple[float, float]:
    return point(lon, lat, "EPSG:4326").to_crs(UTM).coords[0]


def test_scenes_without_a_scale_and_those_who_want_none(tmp_path: Path) -> None:
    before, after, _ = slides(tmp_path, crs=None)
    mapped = am.map(after, before, out=tmp_path / "none", hazard="landslide")
    assert mapped.made_by["parameters"]["density"] is None
    assert not (tmp_path / "none" / "priority.csv").exists()
    am.map(after, before, out=tmp_path / "out", hazard="landslide", options=am.Options(gsd_m=10))
    assert [listed(tmp_path / "out")[0][k] for k in ("x", "y", "lon", "lat")] == ["84.0", "-60.0", "", ""]
    am.map(after, before, out=tmp_path / "zero", hazard="landslide", options=am.Options(gsd_m=10, density_m=0))
    assert not (tmp_path / "zero" / "density.tif").exists()


def test_the_usual_cells() -> None:
    assert Cells.usual(grid((1000, 2000))) == Cells(128, 128)
    assert Cells.usual(grid((200, 2000))) == Cells(50, 50)
    assert Cells.usual(grid((9, 2000))) == Cells(4, 4)
    assert Cells.usual(grid((1000, 2000), gsd=500)) == Cells(4, 4), "of coarse pixels the fewest"
    assert Cells.usual(grid((9, 9), crs=None)) is None


def test_no_density_unasked(pair: Pair, tmp_path: Path) -> None:
    am.map(*reversed(pair()), out=tmp_path / "out")
    assert not (tmp_path / "out" / "density.tif").exists()
    assert "priority" not in pyogrio.list_layers(tmp_path / "out" / "map.gpkg")[:, 0]
