"""Assets counted by hand: affected, not analysed and total, whatever the windows; nothing unseen is called safe."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import pyproj
import pytest
import shapely
from odc.geo.geobox import GeoBox

import aftermap as am
from aftermap import features
from aftermap.area import pixel_area_m2
from aftermap.products.exposure import AFFECTED, CLEAR, NOT_ANALYSED, OUTSIDE, Exposure
from aftermap.tiles import blocks
from tests.conftest import grid

SHAPE = (40, 60)
Pair = Callable[..., tuple[Path, Path]]


def states() -> np.ndarray:
    """Hazard in columns 20-29, not analysed in 40-49, outside the area of interest from row 30 on."""
    found = np.full(SHAPE, CLEAR, np.uint8)
    found[:, 20:30], found[:, 40:50], found[30:] = AFFECTED, NOT_ANALYSED, OUTSIDE
    return found


def save(path: Path, shapes: list[Any], crs: str | None = "EPSG:32633") -> Path:
    """Shapes in pixels (column, row) as a file in the world."""
    placed = shapely.transform(np.array([*shapes, None], dtype=object)[:-1], lambda xy: xy * (10, -10) + (420000, 5350000))
    pyogrio.raw.write(path, shapely.to_wkb(placed), [], [], layer="a", driver="GPKG", geometry_type="Unknown", crs=crs)
    return path


def exposed(path: Path, scratch: Path, on: GeoBox, side: int = 1024) -> dict[tuple[str, str, str], float]:
    exposure, found = Exposure(path, on, scratch), states()
    for window in blocks(SHAPE, side):
        exposure.add(window, found[window.slices], pixel_area_m2(on, window))
    return {(r["quantity"].removeprefix("assets_"), r["class"], r["unit"]): r["value"] for r in exposure.rows()}


def counts(found: dict[tuple[str, str, str], float], kind: str) -> tuple[float, ...]:
    return tuple(found[q, kind, "count"] for q in ("total", "affected", "not_analysed"))


def test_points_by_their_pixel(tmp_path: Path) -> None:
    at = [(5.5, 5.5), (20.0, 3), (25, 3), (45, 3), (45, 35), (25, 35), (70, 3)]
    found = exposed(save(tmp_path / "a.gpkg", [shapely.Point(p) for p in at]), tmp_path, grid(SHAPE))
    assert counts(found, "points") == (4, 2, 1)


def test_lines_by_their_length(tmp_path: Path) -> None:
    shapes = [
        shapely.LineString([(2, 5), (30, 5)]),  # into the hazard
        shapely.LineString([(31, 5), (45, 5)]),  # into what was not analysed
        shapely.LineString([(2, 25), (2, 35)]),  # out of the area of interest
        shapely.LineString([(52, 2), (58, 10)]),
        shapely.LineString([(52, 5), (70, 5)]),  # out of the image
    ]
    found = exposed(save(tmp_path / "a.gpkg", shapes), tmp_path, grid(SHAPE))
    assert counts(found, "lines") == (5, 1, 3)
    assert found["total", "lines", "km"] == pytest.approx(0.28 + 0.14 + 0.05 + 0.1 + 0.08, rel=2e-3)
    assert found["affected", "lines", "km"] == pytest.approx(0.1, rel=2e-3)
    assert found["not_analysed", "lines", "km"] == pytest.approx(0.05, rel=2e-3)


def test_polygons_by_their_share(tmp_path: Path) -> None:
    shapes = [
        shapely.box(19.5, 5, 20.5, 5.5),  # a hut half in the hazard, with no pixel's centre
        shapely.box(5.2, 5.2, 5.4, 5.4),  # a clear one
        shapely.box(39.9, 5, 41, 6),  # partly not analysed
        shapely.box(10, 10, 60, 28),  # a large one through everything
        shapely.box(50.2, 1, 59.9, 9.5),  # a large clear one that hardly touches what was not analysed beside it
    ]
    found = exposed(save(tmp_path / "a.gpkg", shapes), tmp_path, grid(SHAPE))
    assert counts(found, "polygons") == (5, 2, 1)
    assert found["affected", "polygons", "ha"] == pytest.approx((0.25 + 10 * 18) / 100, rel=2e-3)
    assert found["not_analysed", "polygons", "ha"] == pytest.approx((1 + 10 * 18) / 100, rel=2e-3)


def mixed(rng: np.random.Generator) -> list[Any]:
    at = rng.uniform(-5, 65, (60, 2)) * (1, 0.7)
    return [
        *(shapely.Point(p) for p in at[:20]),
        *(shapely.LineString(at[k : k + 3]) for k in range(20, 40, 4)),
        *(shapely.Point(p).buffer(r) for p, r in zip(at[40:], rng.uniform(0.2, 9, 20), strict=True)),
        shapely.MultiPoint([(5, 5), (45, 5)]),
    ]


@pytest.mark.parametrize("side", [7, 16])
def test_windows_change_nothing(tmp_path: Path, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.gpkg", mixed(np.random.default_rng(4)))
    whole = exposed(path, tmp_path, grid(SHAPE))
    monkeypatch.setattr(features, "_BATCH", 7)
    parts = exposed(path, tmp_path, grid(SHAPE), side)
    assert parts == pytest.approx(whole, abs=2e-4)
    assert {k: v for k, v in parts.items() if k[2] == "count"} == {k: v for k, v in whole.items() if k[2] == "count"}


def test_assets_in_another_crs(tmp_path: Path) -> None:
    path = save(tmp_path / "a.gpkg", mixed(np.random.default_rng(4)))
    _, _, wkb, _ = pyogrio.raw.read(path)
    move = pyproj.Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    degrees = shapely.transform(shapely.from_wkb(wkb), lambda xy: np.stack(move.transform(*xy.T), 1))
    other = tmp_path / "b.gpkg"
    pyogrio.raw.write(other, shapely.to_wkb(degrees), [], [], driver="GPKG", geometry_type="Unknown", crs="EPSG:4326")
    first, second = exposed(path, tmp_path, grid(SHAPE)), exposed(other, tmp_path, grid(SHAPE))
    assert second == pytest.approx(first, rel=2e-3, abs=4e-3)


def test_no_asset_in_the_image_is_said(tmp_path: Path) -> None:
    path = save(tmp_path / "a.gpkg", [shapely.Point(5000, 5)])
    assert set(exposed(path, tmp_path, grid(SHAPE)).values()) == {0}


def test_without_scale_only_counts(tmp_path: Path) -> None:
    shape = shapely.transform(shapely.box(19, 5, 21, 7), lambda xy: xy * (1, -1))
    path = tmp_path / "a.gpkg"
    with pytest.warns(UserWarning, match="crs"):
        pyogrio.raw.write(path, shapely.to_wkb(np.array([shape])), [], [], driver="GPKG", geometry_type="Polygon")
    on = grid(SHAPE, crs=None)
    assert {k[2] for k in exposed(path, tmp_path, on)} == {"count"}


def test_a_map_with_assets(pair: Pair, tmp_path: Path) -> None:
    before, after = pair()
    path = save(tmp_path / "roads.gpkg", [shapely.LineString([(5, 5), (100, 170)]), shapely.box(20, 20, 200, 160)])
    mapped = am.map(after, before, out=tmp_path / "out", assets=path)
    rows = {(r["quantity"], r["unit"], r["class"]): float(r["value"]) for r in mapped.summary}
    assert rows["assets_affected", "count", "lines"] == 1
    assert 0 < rows["assets_affected", "ha", "polygons"] < rows["assets_total", "ha", "polygons"]
    assert rows["assets_total", "ha", "polygons"] == pytest.approx(252, rel=2e-3)
    assert mapped.made_by["assets"][0]["name"] == "roads.gpkg"
    assert str(tmp_path) not in json.dumps(mapped.made_by)
    assert "Assets affected" in (tmp_path / "out" / "report.html").read_text()
