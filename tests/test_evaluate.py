"""Scores against truth: by hand on a tiny map, on polygons, on events pooled; what was not analysed is left out and said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import aftermap as am
from aftermap.cli import main
from aftermap.errors import InputRefusedError, UsageError
from aftermap.evaluate import evaluate, write_scores
from aftermap.hazardmap import HazardMap
from aftermap.metrics import Counts
from aftermap.tiles import Window
from tests.conftest import flood_pair, grid, write

SHAPE = (180, 260)


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> HazardMap:
    folder = tmp_path_factory.mktemp("evaluate")
    before, after, flooded = flood_pair(SHAPE)
    after[:, :30, :50] = np.nan
    paths = [
        write(folder / f"{k}.tif", p, grid(SHAPE), ("VV", "VH"), unit="dB", nodata=float("nan"))
        for k, p in (("b", before), ("a", after))
    ]
    truth = flooded.astype(np.int16)
    truth[-20:] = -1
    write(folder / "truth.tif", truth[None], grid(SHAPE), ("flood",))
    return am.map(paths[1], paths[0], out=folder / "out", options=am.Options(keep_scores=True))


def test_counts_are_those_of_the_pixels(mapped: HazardMap) -> None:
    result = evaluate(mapped, mapped.folder.parent / "truth.tif")
    extent = mapped.extent(Window(0, 0, *SHAPE))
    _, _, flooded = flood_pair(SHAPE)
    scored = extent != 255
    scored[-20:] = False
    assert result.counts == Counts.of(extent[scored] == 1, flooded[scored])
    assert result.truth_px == 160 * 260
    assert result.not_analysed_px == 30 * 50
    assert result.ranked_on == "score"
    row = result.row()
    assert row["iou"] > 0.8
    assert row["average_precision"] > 0.9
    assert 0 <= row["expected_calibration_error"] < 0.2


def test_polygons_are_truth_too(mapped: HazardMap, tmp_path: Path) -> None:
    ring = [[420000, 5350000], [421000, 5350000], [421000, 5349000], [420000, 5349000], [420000, 5350000]]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    path = tmp_path / "truth.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]}))
    result = evaluate(mapped, path)
    assert result.hazard_px == 100 * 100
    assert result.hazard_not_analysed_px == 30 * 50


def test_a_hazard_code_of_its_own(mapped: HazardMap, tmp_path: Path) -> None:
    truth = np.where(flood_pair(SHAPE)[2], 255, 0).astype(np.uint8)[None]
    path = write(tmp_path / "mask.tif", truth, grid(SHAPE), ("mask",))
    assert evaluate(mapped, path, hazard_code=255).counts.iou == pytest.approx(0.85, abs=0.15)


def test_truth_elsewhere_is_refused(mapped: HazardMap, tmp_path: Path) -> None:
    path = write(tmp_path / "far.tif", np.zeros((1, 9, 9), np.uint8), grid((9, 9), origin=(900000, 5350000)), ("t",))
    with pytest.raises(InputRefusedError, match="knows the truth of no pixel"):
        evaluate(mapped, path)
    with pytest.raises(UsageError, match="no band 7"):
        evaluate(mapped, path, band=7)
    ring = [[1, 1], [2, 1], [2, 2], [1, 2], [1, 1]]
    far = tmp_path / "far.geojson"
    far.write_text(json.dumps({"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}))
    with pytest.raises(InputRefusedError, match="knows the truth of no pixel"):
        evaluate(mapped, far)


def test_events_pool_and_files_are_written(mapped: HazardMap, tmp_path: Path) -> None:
    truth = mapped.folder.parent / "truth.tif"
    one, two = evaluate(mapped, truth, event="one"), evaluate(mapped, truth, event="two")
    pooled = write_scores(tmp_path, [one, two])
    assert pooled.counts == one.counts + two.counts
    assert pooled.row()["average_precision"] == pytest.approx(one.row()["average_precision"])
    rows = json.loads((tmp_path / "scores.json").read_text())
    assert [r["event"] for r in rows] == ["one", "two", "pooled over pixels"]
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 4


def test_the_command_prints_and_draws(mapped: HazardMap, tmp_path: Path) -> None:
    truth = mapped.folder.parent / "truth.tif"
    result = CliRunner().invoke(main, ["evaluate", str(mapped.folder), "--truth", str(truth), "-o", str(tmp_path / "scores")])
    assert result.exit_code == 0, result.output
    assert "iou 0." in result.output
    assert "not analysed" in result.output
    assert (tmp_path / "scores" / "scores.png").stat().st_size > 10_000
    wrong = CliRunner().invoke(main, ["evaluate", str(mapped.folder), str(mapped.folder), "--truth", str(truth)])
    assert wrong.exit_code == 2
