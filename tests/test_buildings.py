"""Footprints graded one by one: counted by hand, whatever the windows; what was not seen is never called undamaged."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyogrio.raw
import pytest
import shapely
from click.testing import CliRunner

import aftermap as am
from aftermap.cli import main
from aftermap.coregister import Shift
from aftermap.errors import InputRefusedError
from aftermap.products.buildings import DAMAGE, REACHED, UNGRADED, Buildings, rule_for
from aftermap.products.exposure import AFFECTED, CLEAR, NOT_ANALYSED, OUTSIDE
from aftermap.scene import Scene, open_scene
from aftermap.tiles import Window, blocks
from tests.conftest import grid, write
from tests.test_exposure import save

SHAPE = (40, 60)
Pair = Callable[..., tuple[Path, Path]]


def states() -> npt.NDArray[np.uint8]:
    """Hazard in columns 20-29, not analysed in 40-49, outside the area of interest from row 30 on."""
    found = np.full(SHAPE, CLEAR, np.uint8)
    found[:, 20:30], found[:, 40:50], found[30:] = AFFECTED, NOT_ANALYSED, OUTSIDE
    return found


def likelihood() -> npt.NDArray[np.uint8]:
    return np.where(states() == AFFECTED, 90, 10).astype(np.uint8)


def graded(path: Path, scratch: Path, windows: list[Window], hazard: str = "flood") -> list[tuple[Any, ...]]:
    """Rows (grade, damage, observed, unknown, score) in the order of the file."""
    scene = Scene("a", hazard, "", grid(SHAPE), {})
    buildings = Buildings(path, scene, scratch, found=hazard)
    for window in windows:
        buildings.add(window, states()[window.slices], likelihood()[window.slices])
    rows = [columns for _, columns in buildings.rows()]
    assert sum(r["value"] for r in buildings.summary() if r["quantity"] == "buildings") == sum(len(r["score"]) for r in rows)
    return [row for columns in rows for row in zip(*columns.values(), strict=True)]


def by_hand() -> dict[Any, tuple[Any, ...] | None]:
    """Footprint in pixels -> its row; None where it has none."""
    nan = float("nan")
    return {
        shapely.box(2, 2, 6, 6): (REACHED[0], 0, 100, 0, 0.1),
        shapely.box(22, 2, 26, 6): (REACHED[2], 100, 100, 0, 0.9),
        shapely.box(17, 10, 21, 14): (REACHED[1], 25, 100, 0, 0.3),
        shapely.box(20.4, 16.4, 20.5, 16.5): (REACHED[2], 100, 100, 0, 0.9),  # smaller than a pixel
        shapely.box(41, 2, 45, 6): (UNGRADED, nan, 0, 100, nan),
        shapely.box(37, 10, 47, 12): (UNGRADED, 0, 30, 70, nan),  # its seen part is clear, most of it was not seen
        shapely.box(4, 28, 6, 32): (REACHED[0], 0, 50, 50, 0.1),  # half outside the area of interest
        shapely.box(58, 2, 66, 4): (UNGRADED, 0, 25, 75, nan),  # most of it outside the image
        shapely.box(14, 15, 18, 18): (REACHED[0], 0, 100, 0, 0.1),  # where four windows of 16 px meet
        shapely.box(4, 34, 6, 36): None,
        shapely.LineString([(20.5, 25.2), (29, 25.4)]).buffer(0.04, cap_style="flat"): (
            REACHED[2],
            100,
            100,
            0,
            0.9,
        ),  # no centre
        shapely.MultiPolygon([shapely.box(5, 20, 7, 22), shapely.box(21, 20, 23, 22)]): (REACHED[2], 50, 100, 0, 0.5),
    }


def test_footprints_by_hand(tmp_path: Path) -> None:
    expected = by_hand()
    found = graded(save(tmp_path / "f.gpkg", list(expected)), tmp_path, list(blocks(SHAPE, 1024)))
    for row, hand in zip(found, filter(None, expected.values()), strict=True):
        assert row[0] == hand[0]
        assert row[1:] == pytest.approx(hand[1:], abs=2e-3, nan_ok=True)


def test_windows_and_their_order_change_no_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    at = rng.uniform(-3, 63, (80, 2)) * (1, 0.7)
    shapes = [*by_hand(), *(shapely.Point(p).buffer(r) for p, r in zip(at, rng.uniform(0.1, 9, 80), strict=True))]
    path = save(tmp_path / "f.gpkg", shapes)
    whole = graded(path, tmp_path, list(blocks(SHAPE, 1024)))
    for windows in (list(blocks(SHAPE, 16)), list(blocks(SHAPE, 7))[::-1]):
        np.testing.assert_equal(graded(path, tmp_path, windows), whole)


def test_no_map_says_more_than_it_can_tell() -> None:
    assert rule_for("building", "bright surface", None).words == ()
    assert rule_for("building", "change", None).words == DAMAGE[:2]
    assert rule_for("flood", "water", None).words == REACHED[:2]
    assert rule_for("landslide", "landslide", None).words == REACHED


TOWN = (96, 128)
ROOFS = {(r, c): (r // 24 + c // 32) % 4 for r in range(4, 96, 24) for c in range(6, 128, 32)}
"""First pixel of 16 x 20 px roofs, and which of four fates each had: stands, stands, rubble, swept away."""


def town(tmp_path: Path, *, exposure: float = 1.3, seed: int = 0) -> tuple[Path, Path, Path]:
    """before.tif, after.tif in another light, and the outlines of the roofs."""
    rng = np.random.default_rng(seed)
    roof = np.repeat(np.repeat(rng.uniform(60, 200, (4, 5)), 4, 0), 4, 1)
    before = 90 + 20 * np.repeat(np.repeat(rng.random((24, 32)), 4, 0), 4, 1)
    after = before.copy()
    for (r, c), fate in ROOFS.items():
        before[r : r + 16, c : c + 20] = roof
        after[r : r + 16, c : c + 20] = (roof, roof, rng.uniform(30, 230, (16, 20)), 100)[fate]
    paths = []
    for name, image in (("before", before), ("after", after / exposure)):
        pixels = np.stack([image + rng.normal(0, 2, TOWN) for _ in range(3)]).round().clip(1, 255).astype(np.uint8)
        if name == "after":
            pixels[:, :20, :26] = 0
        on = grid(TOWN, gsd=0.5)
        paths.append(write(tmp_path / f"{name}.tif", pixels, on, ("red", "green", "blue"), nodata=0, unit="digital_number"))
    shapes = [shapely.box(c, r, c + 20, r + 16) for r, c in ROOFS]
    placed = shapely.transform(np.array(shapes), lambda xy: xy * (0.5, -0.5) + (420000, 5350000))
    path = tmp_path / "roofs.gpkg"
    pyogrio.raw.write(path, shapely.to_wkb(placed), [], [], driver="GPKG", geometry_type="Polygon", crs="EPSG:32633")
    return paths[0], paths[1], path


def built_up(folder: Path) -> dict[str, Any]:
    meta, _, _, columns = pyogrio.raw.read(folder / "map.gpkg", layer="built_up")
    return dict(zip(meta["fields"], columns, strict=True))


def test_roofs_are_graded_on_a_pair_in_any_light(tmp_path: Path) -> None:
    before, after, roofs = town(tmp_path)
    mapped = am.map(after, before, out=tmp_path / "out", hazard="building", footprints=roofs)
    columns, fates = built_up(tmp_path / "out"), list(ROOFS.values())
    assert list(columns) == ["damage_gra", "damage_pct", "observed_pct", "unknown_pct", "score"]
    assert columns["damage_gra"][0] == UNGRADED  # the first roof lies where nothing was observed after
    for grade, fate in list(zip(columns["damage_gra"], fates, strict=True))[1:]:
        assert (grade in DAMAGE[2:]) if fate >= 2 else (grade == DAMAGE[0])
    rows = {r["class"]: float(r["value"]) for r in mapped.summary if r["quantity"] == "buildings"}
    assert rows[UNGRADED] == 1
    assert (
        sum(rows.values()) == len(fates) == next(float(r["value"]) for r in mapped.summary if r["quantity"] == "buildings_total")
    )
    assert mapped.made_by["footprints"][0]["name"] == "roofs.gpkg"
    assert mapped.made_by["buildings"]["graded_by"] == "each roof compared on both images"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "No visible damage" in page
    assert "each roof compared" in page
    with closing(sqlite3.connect(tmp_path / "out" / "map.gpkg")) as file:
        (qml,) = file.execute("SELECT styleQML FROM layer_styles WHERE f_table_name = 'built_up'").fetchone()
    assert all(f'value="{word}"' in qml for word in (*DAMAGE, *REACHED, UNGRADED))


def test_roofs_on_one_image_or_an_unlike_pair_are_not_graded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after, roofs = town(tmp_path)
    am.map(after, out=tmp_path / "one", hazard="building", footprints=roofs)
    noise = np.random.default_rng(1).integers(1, 256, (3, *TOWN)).astype(np.uint8)
    unlike = write(tmp_path / "noise.tif", noise, grid(TOWN, gsd=0.5), ("red", "green", "blue"), unit="digital_number")
    am.map(after, unlike, out=tmp_path / "two", hazard="building", footprints=roofs)
    monkeypatch.setattr("aftermap.indices.footprint.shift_of", lambda *_: Shift(3.0, 0.0, 25, 25))
    am.map(after, before, out=tmp_path / "three", hazard="building", footprints=roofs)
    for name, why in (("one", "give an image from before"), ("two", "differ everywhere"), ("three", "lie 3.0 px apart")):
        assert set(built_up(tmp_path / name)["damage_gra"]) == {UNGRADED}
        assert why in (tmp_path / name / "report.html").read_text()


def test_roofs_across_windows_are_compared_whole(tmp_path: Path) -> None:
    before, after, roofs = town(tmp_path)
    scene, found = open_scene({"after": [after], "before": [before]}, hazard="building"), []
    for windows in (blocks(TOWN, 1024), reversed(list(blocks(TOWN, 11)))):
        buildings = Buildings(roofs, scene, tmp_path, found="change")
        for window in windows:
            nothing = np.zeros((window.height, window.width), np.uint8)
            buildings.add(window, nothing, nothing)
        found.append([columns for _, columns in buildings.rows()])
    np.testing.assert_equal(found[0], found[1])
    assert set(found[0][0]["damage_gra"]) > {DAMAGE[0]}


def test_the_same_bytes_again_and_in_another_memory(tmp_path: Path) -> None:
    before, after, roofs = town(tmp_path)
    for name, memory_mb in (("a", 1000), ("b", 420)):
        options = am.Options(memory_mb=memory_mb)
        am.map(after, before, out=tmp_path / name, hazard="building", footprints=roofs, options=options)
    for name in ("map.gpkg", "summary.csv", "run.json", "report.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_a_flood_says_what_it_reached_and_footprints_change_the_key(pair: Pair, tmp_path: Path) -> None:
    before, after = pair()
    shapes = [shapely.box(c, r, c + 3, r + 3) for r in range(10, 170, 20) for c in range(10, 250, 20)]
    first, second = save(tmp_path / "a.gpkg", shapes), save(tmp_path / "b.gpkg", shapes[1:])
    keys = [am.map(after, before, out=tmp_path / p.stem, footprints=p).made_by["key"] for p in (first, second)]
    assert keys[0] != keys[1]
    assert len(built_up(tmp_path / "a")["score"]) == len(shapes)
    assert {*REACHED} >= set(built_up(tmp_path / "a")["damage_gra"]) > {REACHED[0]}


def test_unusable_footprints_are_refused_before_anything_is_written(pair: Pair, tmp_path: Path) -> None:
    before, after = pair()
    far, points = save(tmp_path / "far.gpkg", [shapely.box(5000, 5, 5001, 6)]), tmp_path / "points.gpkg"
    pyogrio.raw.write(
        points, shapely.to_wkb([shapely.Point(0, 0)]), [], [], driver="GPKG", geometry_type="Point", crs="EPSG:4326"
    )
    mixed = save(tmp_path / "mixed.gpkg", [shapely.Point(5, 5)])
    codes = {far: "footprints-outside", points: "no-polygons", mixed: "footprints-outside", tmp_path / "none": "missing-file"}
    for path, code in codes.items():
        with pytest.raises(InputRefusedError) as refused:
            am.map(after, before, out=tmp_path / "out", footprints=path)
        assert refused.value.code == code
        assert refused.value.repair
        assert not (tmp_path / "out").exists()
    given = ["map", "--after", str(after), "--before", str(before), "--hazard", "flood", "-o", str(tmp_path / "out")]
    assert CliRunner().invoke(main, [*given, "--footprints", str(far)]).exit_code == 3
