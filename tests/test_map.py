"""The main job on small synthetic floods: products, honest answers, laws of the whole, bad input, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import aftermap as am
from aftermap import journal
from aftermap.cli import main
from aftermap.errors import InputRefusedError, UnknownNameError, UsageError
from aftermap.tiles import Window
from tests.conftest import flood_pair, grid, write

Pair = Callable[..., tuple[Path, Path]]
SHAPE = (180, 260)
WHOLE = Window(0, 0, *SHAPE)
PRODUCTS = {
    "likelihood.tif", "extent.tif", "exclusion.tif", "agreement.tif", "map.gpkg", "summary.csv", "item.json", "report.html",
    "run.json", "log.json",
}  # fmt: skip


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(main, [str(a) for a in args])


def same(one: am.HazardMap, other: am.HazardMap) -> None:
    np.testing.assert_array_equal(one.likelihood(WHOLE), other.likelihood(WHOLE))
    np.testing.assert_array_equal(one.extent(WHOLE), other.extent(WHOLE))
    np.testing.assert_array_equal(one.exclusion(WHOLE), other.exclusion(WHOLE))


def test_a_pair_becomes_a_map(pair: Pair, tmp_path: Path) -> None:
    before, after = pair()
    mapped = am.map(after=after, before=before, hazard="flood", out=tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} >= PRODUCTS
    assert not (tmp_path / "out" / journal.WORK).exists()
    _, _, flooded = flood_pair(SHAPE)
    extent = mapped.extent(WHOLE) == 1
    assert (extent & flooded).sum() / (extent | flooded).sum() > 0.8
    assert mapped.answer == "found"
    assert mapped.classes == ("flood",)
    assert mapped.grid == grid(SHAPE)
    assert am.verify(tmp_path / "out") == []


def test_summary_polygons_and_raster_agree(pair: Pair, tmp_path: Path) -> None:
    import pyogrio.raw

    before, after = pair()
    mapped = am.map(after, before, out=tmp_path / "out")
    value = {(r["quantity"], r["reason"]): float(r["value"]) for r in mapped.summary}
    pixels = int((mapped.extent(WHOLE) == 1).sum())
    assert value["affected_area", ""] == pytest.approx(pixels * 0.01, rel=2e-3)
    _, _, _, columns = pyogrio.raw.read(tmp_path / "out" / "map.gpkg", layer="observed_event", columns=["area_ha", "area_px"])
    assert columns[1].sum() == pixels
    assert columns[0].sum() == pytest.approx(value["affected_area", ""], abs=1e-3)
    assert len(columns[0]) == value["polygons", ""]
    assert (columns[1] >= 10).all()


def test_one_date_maps_water_and_says_so(pair: Pair, tmp_path: Path) -> None:
    _, after = pair()
    mapped = am.map(after, out=tmp_path / "out")
    assert mapped.classes == ("water",)
    assert "permanent water not separated" in mapped.made_by["maps"]
    assert "permanent water not separated" in (tmp_path / "out" / "report.html").read_text()


def test_reference_water_is_excluded_and_turns_water_into_flood(pair: Pair, tmp_path: Path) -> None:
    _, after = pair()
    water = np.zeros((1, *SHAPE), np.uint8)
    water[0, :, :90] = 1
    reference = write(tmp_path / "water.tif", water, grid(SHAPE), ("",))
    mapped = am.map(after, out=tmp_path / "out", reference_water=reference)
    assert mapped.classes == ("flood",)
    assert (mapped.exclusion(WHOLE)[:, :90] == 2).all()
    assert (mapped.extent(WHOLE)[:, :90] == 255).all()
    assert {r["reason"] for r in mapped.summary if r["quantity"] == "not_analysed_area"} == {"", "reference water"}


def test_the_area_of_interest_bounds_everything(pair: Pair, tmp_path: Path) -> None:
    before, after = pair()
    west, north = 420000 + 300, 5350000 - 200
    ring = [[west, north], [west + 1000, north], [west + 1000, north - 900], [west, north - 900], [west, north]]
    aoi = tmp_path / "aoi.geojson"
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    aoi.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]}))
    mapped = am.map(after, before, out=tmp_path / "out", aoi=aoi)
    inside = np.zeros(SHAPE, bool)
    inside[20:110, 30:130] = True
    np.testing.assert_array_equal(mapped.exclusion(WHOLE) == 7, ~inside)
    total = next(float(r["value"]) for r in mapped.summary if r["quantity"] == "area_of_interest")
    assert total == pytest.approx(inside.sum() * 0.01, rel=2e-3)


def test_unseen_pixels_change_no_area(pair: Pair, tmp_path: Path) -> None:
    """Law: what is not observed neither raises nor lowers the affected area elsewhere."""

    def blind(pixels: np.ndarray) -> np.ndarray:
        pixels = pixels.copy()
        pixels[:, 120:, 200:] = np.nan
        return pixels

    seen = am.map(*reversed(pair()), out=tmp_path / "seen", method="sar-drop")
    part = am.map(*reversed(pair(change=blind)), out=tmp_path / "part", method="sar-drop")
    far = (slice(0, 110), slice(0, 190))
    np.testing.assert_array_equal(seen.extent(WHOLE)[far], part.extent(WHOLE)[far])
    assert (part.extent(WHOLE)[120:, 200:] == 255).all()
    assert (part.exclusion(WHOLE)[120:, 200:] == 1).all()
    assert (part.exclusion(WHOLE) == 1).sum() == 60 * 60


def test_no_crs_is_mapped_in_pixels(pair: Pair, tmp_path: Path) -> None:
    before, after = pair(crs=None)
    mapped = am.map(after, before, out=tmp_path / "out")
    assert mapped.made_by["area_unit"] == "px"
    assert "no-crs" in {w["code"] for w in mapped.made_by["warnings"]}
    assert json.loads((tmp_path / "out" / "item.json").read_text())["geometry"] is None
    value = {r["quantity"]: r for r in mapped.summary if not r["reason"]}
    assert value["affected_area"]["unit"] == "px"
    assert float(value["affected_area"]["value"]) == (mapped.extent(WHOLE) == 1).sum()
    with_scale = am.map(after, before, out=tmp_path / "scaled", options=am.Options(gsd_m=10))
    assert next(r["unit"] for r in with_scale.summary if r["quantity"] == "affected_area") == "ha"
    same(mapped, with_scale)


def test_a_before_image_on_another_grid_is_warped_and_said(tmp_path: Path) -> None:
    before, after, flooded = flood_pair(SHAPE)
    wide = grid((200, 300), origin=(420000 - 200, 5350000 + 100))
    padded = np.full((2, 200, 300), -10, np.float32)
    padded[:, 10:190, 20:280] = before
    old = write(tmp_path / "old.tif", padded, wide, ("VV", "VH"), unit="dB")
    new = write(tmp_path / "new.tif", after, grid(SHAPE), ("VV", "VH"), unit="dB")
    mapped = am.map(new, old, out=tmp_path / "out")
    assert mapped.made_by["inputs"]["before"]["resampling"] == "nearest"
    assert any("resampled" in said for said in mapped.made_by["assumptions"])
    extent = mapped.extent(WHOLE) == 1
    assert (extent & flooded).sum() / (extent | flooded).sum() > 0.8


def test_nothing_found_is_an_answer(tmp_path: Path) -> None:
    dry = np.random.default_rng(1).normal([[[-10]], [[-16]]], 1, (2, *SHAPE)).astype(np.float32)
    paths = [write(tmp_path / f"{k}.tif", dry, grid(SHAPE), ("VV", "VH"), unit="dB") for k in ("before", "after")]
    result = run("map", "--after", paths[1], "--before", paths[0], "--hazard", "flood", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "no flood found" in result.output
    assert am.HazardMap(tmp_path / "out").answer == "nothing found"


def test_nothing_seen_is_another(tmp_path: Path) -> None:
    blind = np.full((2, *SHAPE), np.nan, np.float32)
    path = write(tmp_path / "after.tif", blind, grid(SHAPE), ("VV", "VH"), unit="dB", nodata=float("nan"))
    result = run("map", "--after", path, "--hazard", "flood", "-o", tmp_path / "out")
    assert result.exit_code == 4, result.output
    assert "could not be analysed" in result.output
    assert am.HazardMap(tmp_path / "out").answer == "not analysed"
    again = run("map", "--after", path, "--hazard", "flood", "-o", tmp_path / "out")
    assert again.exit_code == 4


def test_wrong_use(pair: Pair, tmp_path: Path) -> None:
    _, after = pair()
    with pytest.raises(UnknownNameError, match="sar-threshold"):
        am.map(after, out=tmp_path / "out", method="sar-treshold")
    with pytest.raises(UnknownNameError):
        am.map(after, out=tmp_path / "out", hazard="meteorite")
    with pytest.raises(UsageError):
        am.Options(threshold=1.5)
    with pytest.raises(InputRefusedError, match="before"):
        am.map(after, out=tmp_path / "out", method="sar-drop")
    with pytest.raises(UsageError, match="memory"):
        am.map(after, out=tmp_path / "out", options=am.Options(memory_mb=10))
    with pytest.raises(UsageError):
        am.Options(min_area_m2=float("nan"))
    with pytest.raises(UsageError):
        am.Options(gsd_m=-1.0)
    with pytest.raises(UsageError, match="no date"):
        am.Declared(acquired="yesterday")
    with pytest.raises(UsageError, match="gsd-m"):
        am.map(after, out=tmp_path / "out", options=am.Options(gsd_m=10))
    assert not (tmp_path / "out").exists()
    assert run("map", "--after", after, "--hazard", "flood").exit_code == 2


def test_8_bit_radar_warns_and_is_mapped(tmp_path: Path) -> None:
    before, after, flooded = flood_pair(SHAPE)
    scaled = [np.clip((p[:1] + 30) * 7, 1, 250).astype(np.uint8) for p in (before, after)]
    paths = [write(tmp_path / f"{k}.png.tif", p, grid(SHAPE, crs=None), ("VV",)) for k, p in zip("ba", scaled, strict=True)]
    mapped = am.map(paths[1], paths[0], out=tmp_path / "out")
    assert {"sar-8bit", "no-crs"} <= {w["code"] for w in mapped.made_by["warnings"]}
    assert list(mapped.made_by["methods"]["ran"]) == ["sar-darker", "log-ratio"]
    extent = mapped.extent(WHOLE) == 1
    assert (extent & flooded).sum() / (extent | flooded).sum() > 0.6


def test_another_run_is_not_overwritten_unasked(pair: Pair, tmp_path: Path) -> None:
    before, after = pair()
    am.map(after, before, out=tmp_path / "out")
    seal = (tmp_path / "out" / journal.SEAL).read_bytes()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="another run"):
        am.map(after, out=tmp_path / "out")
    assert (tmp_path / "out" / journal.SEAL).read_bytes() == seal
    mapped = am.map(after, out=tmp_path / "out", options=am.Options(overwrite=True))
    assert mapped.classes == ("water",)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    assert am.verify(tmp_path / "out") == []


def test_verify_says_what_changed(pair: Pair, tmp_path: Path) -> None:
    before, after = pair()
    am.map(after, before, out=tmp_path / "out")
    assert run("verify", tmp_path / "out").exit_code == 0
    with (tmp_path / "out" / "summary.csv").open("a") as stream:
        stream.write("x")
    (tmp_path / "out" / "agreement.tif").unlink()
    result = run("verify", tmp_path / "out")
    assert result.exit_code == 1
    assert "summary.csv has changed" in result.output
    assert "agreement.tif is missing" in result.output
    rebuilt = am.map(after, before, out=tmp_path / "out")
    assert am.verify(rebuilt.folder) == []


def test_many_files_after_one_option(tmp_path: Path) -> None:
    _, after, _ = flood_pair(SHAPE)
    paths = [
        write(tmp_path / f"scene_{b}.tif", after[k : k + 1], grid(SHAPE), ("",), unit="dB") for k, b in enumerate(("VV", "VH"))
    ]
    result = run("map", "--after", *paths, "--hazard", "flood", "-o", tmp_path / "out", "--quiet", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["answer"] == "found"


def test_another_nodata_or_area_of_interest_is_another_run(pair: Pair, tmp_path: Path) -> None:
    """Whatever changes a pixel is in the key by which a run is known as the same."""
    before, after = pair()
    am.map(after, before, out=tmp_path / "out")
    declared = {"after": am.Declared(nodata=-11.5)}
    with pytest.raises(UsageError, match="another run"):
        am.map(after, before, out=tmp_path / "out", declared=declared)
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    places = []
    for k in range(2):
        west, north = 420100 + 300 * k, 5349900
        ring = [[west, north], [west + 900, north], [west + 900, north - 900], [west, north - 900], [west, north]]
        feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
        places.append(tmp_path / f"aoi{k}.geojson")
        places[k].write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]}))
    am.map(after, before, out=tmp_path / "there", aoi=places[0])
    with pytest.raises(UsageError, match="another run"):
        am.map(after, before, out=tmp_path / "there", aoi=places[1])


def test_two_runs_do_not_share_a_folder(pair: Pair, tmp_path: Path) -> None:
    before, after = pair()
    seen: list[str] = []

    def intrude(stage: str, done: int, whole: int) -> None:
        if stage == "map" and not seen:
            seen.append(stage)
            with pytest.raises(UsageError, match="another run is using"):
                am.map(after, before, out=tmp_path / "out")

    am.map(after, before, out=tmp_path / "out", progress=intrude)
    assert seen
    assert am.verify(tmp_path / "out") == []


def test_outputs_that_cannot_be_written(pair: Pair, tmp_path: Path) -> None:
    _, after = pair()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="cannot be written"):
        am.map(after, out=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_footprint_over_the_antimeridian_is_split(tmp_path: Path) -> None:
    on = grid(SHAPE, crs="EPSG:32701", origin=(164000, 7900000), gsd=300)
    path = write(tmp_path / "a.tif", flood_pair(SHAPE)[1], on, ("VV", "VH"), unit="dB")
    item = json.loads((am.map(path, out=tmp_path / "out").folder / "item.json").read_text())
    west, _, east, _ = item["bbox"]
    assert item["geometry"]["type"] == "MultiPolygon"
    assert west > 0 > east


def test_check_reports_findings(pair: Pair, tmp_path: Path) -> None:
    _, after = pair(crs=None)
    (tmp_path / "bad.tif").write_text("no image")
    result = run("check", after, tmp_path / "bad.tif")
    assert result.exit_code == 3
    assert "[no-crs]" in result.output
    assert "[unreadable]" in result.output
    good = run("check", after)
    assert good.exit_code == 0
    assert "sentinel-1, VV VH, dB (tags)" in good.output


def test_the_unosat_profile_adds_its_layer(pair: Pair, tmp_path: Path) -> None:
    import pyogrio.raw

    before, after = pair()
    command = ("map", "--after", after, "--before", before, "--hazard", "flood", "-o", tmp_path / "out", "--quiet")
    assert run(*command, "--profile", "unosat", "--event-code", "FL20240513AUT").exit_code == 0
    _, _, _, areas = pyogrio.raw.read(tmp_path / "out" / "map.gpkg", layer="observed_event", columns=["area_ha"])
    meta, _, _, columns = pyogrio.raw.read(tmp_path / "out" / "map.gpkg", layer="unosat")
    named = dict(zip(meta["fields"], columns, strict=True))
    np.testing.assert_array_equal(named["Area_ha"], areas[0])
    assert set(named["EventCode"]) == {"FL20240513AUT"}
    assert set(named["Water_Clas"]) == {"Flooded area"}
    with pytest.raises(UsageError, match="field of the UNOSAT profile"):
        am.Options(event_code="FL20240513AUT")
    with pytest.raises(UnknownNameError, match="profile"):
        am.Options(profile="unesat")
    with pytest.raises(UsageError, match="for floods"):
        am.map(after, before, out=tmp_path / "slide", hazard="landslide", options=am.Options(profile="unosat"))


def test_what_is_favoured_sets_the_threshold(pair: Pair, tmp_path: Path) -> None:
    before, after = pair()
    areas = {}
    for favour in ("precision", "balanced", "recall"):
        mapped = am.map(after, before, out=tmp_path / favour, options=am.Options(favour=favour))
        areas[mapped.made_by["parameters"]["threshold"]] = int((mapped.extent(WHOLE) == 1).sum())
    assert list(areas) == [0.8, 0.5, 0.2]
    assert list(areas.values()) == sorted(areas.values())
    assert areas[0.8] < areas[0.2]
    with pytest.raises(UsageError, match="both set"):
        am.Options(favour="recall", threshold=0.5)
    with pytest.raises(UnknownNameError, match="operating point"):
        am.Options(favour="recal")
    assert run("map", "--after", after, "--hazard", "flood", "-o", tmp_path / "a", "--favour", "best").exit_code == 2


def test_rasters_alone_are_those_of_the_whole_map(pair: Pair, tmp_path: Path) -> None:
    before, after = pair()
    whole = am.map(after, before, out=tmp_path / "whole", options=am.Options(min_area_m2=0.0))
    args = ("map", "--after", after, "--before", before, "--hazard", "flood", "--quiet")
    result = run(*args, "-o", tmp_path / "two", "--only", "likelihood,extent")
    assert (result.exit_code, "likelihood.tif" in result.stdout) == (0, True)
    assert {p.name for p in (tmp_path / "two").rglob("*.*")} == {
        "likelihood.tif", "extent.tif", "summary.csv", "item.json", "run.json", "log.json", "likelihood.qml", "extent.qml",
    }  # fmt: skip
    alone = am.HazardMap(tmp_path / "two")
    np.testing.assert_array_equal(alone.likelihood(WHOLE), whole.likelihood(WHOLE))
    np.testing.assert_array_equal(alone.extent(WHOLE), whole.extent(WHOLE))
    drawn = ("polygons", "largest_polygon")
    assert alone.summary == [row for row in whole.summary if row["quantity"] not in drawn]
    for wrong in (("--only", "polygons"), ("--only", "extent", "--density-m", "500"), ("--only", "extent", "--assets", after)):
        assert run(*args, "-o", tmp_path / "none", *wrong).exit_code == 2
