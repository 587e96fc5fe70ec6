"""What a radar cannot see, on ridges worked by hand; and ground that is declared insensitive."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from odc.geo.geobox import GeoBox

import aftermap as am
from aftermap import exclude
from aftermap.cli import main
from aftermap.errors import UsageError
from aftermap.hazardmap import LOW_SENSITIVITY, NOT_OBSERVED, RADAR, REFERENCE_WATER
from aftermap.scene import Scene, open_scene
from aftermap.sight import Look, look_of, unseen
from aftermap.tiles import Window, blocks
from tests.conftest import flood_pair, grid, write

SHAPE = (90, 110)
WHOLE = Window(0, 0, *SHAPE)
ON = grid(SHAPE, origin=(500000 - 550, 5350000))
"""About the zone's central meridian, where the grid's north is true north."""
WALL, HEIGHT = 50, 100.0


def scene(folder: Path, heights: np.ndarray, on: GeoBox = ON, tags: dict[str, str] | None = None) -> Scene:
    radar = np.random.default_rng(0).normal(-12, 1, (2, *heights.shape)).astype(np.float32)
    after = write(folder / "after.tif", radar, on, ("VV", "VH"), unit="dB", tags=tags)
    dem = write(folder / "dem.tif", heights.astype(np.float32)[None], on, ("elevation",), unit="m", nodata=float("nan"))
    return open_scene({"after": [after], "dem": [dem]}, hazard="flood")


def wall(across: bool) -> np.ndarray:
    """A wall of 100 m, one pixel thick, along column 50, or along row 50."""
    z = np.full(SHAPE, 200.0)
    z[(WALL, slice(None)) if across else (slice(None), WALL)] += HEIGHT
    return z


@pytest.mark.parametrize(("azimuth", "across", "away"), [(90, False, 1), (270, False, -1), (180, True, 1), (0, True, -1)])
@pytest.mark.parametrize("incidence", [33.0, 57.0])
def test_a_wall_throws_its_height_times_the_tangent_and_lays_over_as_much_the_other_way(
    tmp_path: Path, azimuth: float, across: bool, away: int, incidence: float
) -> None:
    shadow, layover = unseen(scene(tmp_path, wall(across)), WHOLE, Look(incidence, azimuth, "declared"))
    line = (shadow[:, 55], layover[:, 55]) if across else (shadow[45], layover[45])
    tangent = math.tan(math.radians(incidence))
    long, short = int(HEIGHT * tangent / 10), int(HEIGHT / tangent / 10)  # pixels of 10 m
    assert sorted(np.flatnonzero(line[0])) == sorted(WALL + away * k for k in range(1, long + 1))
    assert sorted(np.flatnonzero(line[1])) == sorted(WALL - away * k for k in range(short + 1))


def test_slopes_beyond_the_rays_are_hidden_and_gentler_ones_are_not(tmp_path: Path) -> None:
    """Facing slopes steeper than the incidence lie over, back slopes steeper than its complement are in shadow (looking east)."""
    x = np.arange(SHAPE[1]) * 10.0

    def plane(rise: float) -> tuple[float, float]:
        folder = tmp_path / f"{rise}"
        parts = unseen(scene(folder, np.broadcast_to(2000 + rise * x, SHAPE)), Window(30, 40, 20, 30), Look(40, 90, "declared"))
        return tuple(float(p.mean()) for p in parts)  # type: ignore[return-value]

    assert plane(math.tan(math.radians(39))) == (0, 0)
    assert plane(math.tan(math.radians(41))) == (0, 1)
    assert plane(-math.tan(math.radians(49))) == (0, 0)
    assert plane(-math.tan(math.radians(51))) == (1, 0)


@pytest.mark.parametrize("on", [ON, grid(SHAPE, crs="EPSG:4326", gsd=2e-4, origin=(10, 60))], ids=["metres", "degrees"])
def test_windows_see_what_the_whole_sees(tmp_path: Path, on: GeoBox) -> None:
    rng = np.random.default_rng(3)
    rough = 130 * np.abs(np.sin(np.arange(SHAPE[1]) / 9)) + rng.normal(0, 5, SHAPE)
    rough[60:64, 20:30] = np.nan
    made, look = scene(tmp_path, rough, on), Look(38, 283, "declared")
    whole = np.stack(unseen(made, WHOLE, look))
    assert 0.01 < whole[0].mean() < 0.9
    assert 0.01 < whole[1].mean() < 0.9
    assert not whole[:, 60:64, 20:30].any()
    for window in blocks(SHAPE, 37):
        np.testing.assert_array_equal(np.stack(unseen(made, window, look)), whole[(slice(None), *window.slices)])


def test_shadows_are_long_in_metres_whatever_the_grid(tmp_path: Path) -> None:
    """At 60 degrees north a pixel is half as wide as high: eastward shadows cover twice the pixels."""
    on = grid(SHAPE, crs="EPSG:4326", gsd=1e-4, origin=(10, 60))
    made = scene(tmp_path, np.where(np.arange(SHAPE[1]) == WALL, 100.0, 0.0) * np.ones(SHAPE), on)
    shadow, _ = unseen(made, WHOLE, Look(45, 90, "declared"))
    assert shadow[45].sum() == int(100 / (111_412.9 * math.cos(math.radians(60)) * 1e-4 * 1.0011))


def test_the_angles_come_from_the_tags_or_from_the_user(tmp_path: Path) -> None:
    tagged = scene(tmp_path / "t", wall(False), tags={"view_incidence_angle": "39.5", "LOOK_AZIMUTH": "78"})
    assert look_of(tagged, None, None) == Look(39.5, 78, "tags")
    assert look_of(tagged, 30, None) == Look(30, 78, "declared")
    plain = scene(tmp_path / "p", wall(False))
    assert look_of(plain, None, None) is None
    for angles in ((30.0, None), (None, 78.0), (30.0, 400.0), (89.0, 78.0)):
        with pytest.raises(UsageError) as refused:
            look_of(plain, *angles)
        assert refused.value.repair
    with pytest.raises(UsageError, match="--dem"):
        look_of(open_scene({"after": [tmp_path / "p" / "after.tif"]}, hazard="flood"), 30.0, 78.0)


def test_a_map_says_what_the_radar_did_not_see(tmp_path: Path) -> None:
    scene(tmp_path, wall(False))
    command = ("map", "--after", tmp_path / "after.tif", "--dem", tmp_path / "dem.tif", "--hazard", "flood", "--quiet")
    result = CliRunner().invoke(main, [str(a) for a in (*command, "-o", tmp_path / "out", "--incidence", 45.5, "--look", 90)])
    assert result.exit_code == 0, result.output
    mapped = am.HazardMap(tmp_path / "out")
    codes = mapped.exclusion(WHOLE)
    assert (codes == RADAR).sum(axis=1).tolist() == [9 + 1 + 10] * SHAPE[0]
    assert (mapped.extent(WHOLE)[codes == RADAR] == 255).all()
    assert mapped.made_by["parameters"]["radar_look"] == {
        "incidence_deg": 45.5, "azimuth_deg": 90.0, "source": "declared", "reach_m": 3000.0, "reach_px": 512,
    }  # fmt: skip
    assert any("incidence of 45.5 degrees" in said for said in mapped.made_by["assumptions"])
    assert any(r["reason"] == "radar shadow or layover" for r in mapped.summary)


def box(path: Path) -> Path:
    west, north = ON.affine.c + 300, ON.affine.f - 100
    ring = [[west, north], [west + 400, north], [west + 400, north - 500], [west, north - 500], [west, north]]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]}))
    return path


def test_insensitive_ground_by_raster_or_polygons_is_the_same(tmp_path: Path) -> None:
    _, pixels, _ = flood_pair(SHAPE)
    pixels[:, 10:14, 60:] = np.nan
    after = write(tmp_path / "after.tif", pixels, ON, ("VV", "VH"), unit="dB", nodata=float("nan"))
    inside = np.zeros((1, *SHAPE), np.uint8)
    inside[0, 10:60, 30:70] = 1
    raster = write(tmp_path / "low.tif", inside, ON, ("",))
    water = np.zeros((1, *SHAPE), np.uint8)
    water[0, :, :40] = 1
    reference = write(tmp_path / "water.tif", water, ON, ("",))
    runs = [
        am.map(after, out=tmp_path / name, reference_water=reference, low_sensitivity=given)
        for name, given in (("raster", raster), ("polygons", box(tmp_path / "low.json")))
    ]
    wanted = np.where(inside[0] == 1, LOW_SENSITIVITY, 0)
    wanted[:, :40] = REFERENCE_WATER
    wanted[10:14, 60:] = NOT_OBSERVED
    for mapped in runs:
        np.testing.assert_array_equal(mapped.exclusion(WHOLE), wanted)
        assert {r["reason"] for r in mapped.summary} >= {"low sensitivity", "reference water"}
        assert any("low-sensitivity" in said for said in mapped.made_by["assumptions"])
    assert runs[0].made_by["inputs"]["low_sensitivity"]["files"][0]["name"] == "low.tif"
    assert runs[1].made_by["low_sensitivity"]["polygons"] == 1
    assert runs[0].made_by["key"] != runs[1].made_by["key"]


def test_an_optical_image_has_no_radar_shadow(tmp_path: Path) -> None:
    made = scene(tmp_path, wall(False))
    look = Look(45, 90, "declared")
    assert (exclude.Exclusions(made, ("after",), look=look).codes(WHOLE) == RADAR).any()
    assert not (exclude.Exclusions(made, ("dem",), look=look).codes(WHOLE) == RADAR).any()
