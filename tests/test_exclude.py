"""What is not analysed and why: every reason, their order, windows, and what a flood loses by them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import aftermap as am
from aftermap import exclude, pieces
from aftermap.drainage import drain
from aftermap.exclude import Limits, settle
from aftermap.hazardmap import ABOVE_DRAINAGE, CLOUD, NOT_OBSERVED, OUTSIDE_AOI, REFERENCE_WATER, SLOPE
from aftermap.palette import EXCLUSION
from aftermap.scene import Scene, open_scene
from aftermap.tiles import Window, blocks
from tests.conftest import grid, write

SHAPE = (130, 180)
WHOLE = Window(0, 0, *SHAPE)


def valley() -> npt.NDArray[np.float32]:
    """A plain that falls southward with a step of 8 m, a bank of 45 degrees and 140 m at its east, a plateau behind."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    east = np.clip((x - 100) * 10.0, 0, 140)
    return np.asarray(300 - 0.02 * y + 0.02 * np.abs(x - 50) + east + 8.0 * (x > 80), np.float32)


def scene(tmp_path: Path, *, hazard: str = "flood", crs: str | None = "EPSG:32633", aoi: bool = False) -> Scene:
    """Optical, so that there are clouds: SCL has a cloud at the top left and water lies along the left."""
    on = grid(SHAPE, crs=crs)
    codes = np.full(SHAPE, 4)
    codes[:20, :60] = 9
    pixels = np.random.default_rng(0).integers(300, 2500, (3, *SHAPE))
    after = write(
        tmp_path / "S2A_MSIL2A_a.tif", np.stack([*pixels, codes]).astype(np.uint16), on, ("B03", "B08", "B11", "SCL"), nodata=0
    )
    water = np.zeros((1, *SHAPE), np.uint8)
    water[0, :, :10] = 1
    layers = {
        "after": [after],
        "dem": [write(tmp_path / "dem.tif", valley()[None], on, ("elevation",), nodata=float("nan"))],
        "reference_water": [write(tmp_path / "w.tif", water, on, ("",))],
    }
    return open_scene(layers, hazard=hazard, area_of_interest=box(tmp_path / "aoi.json") if aoi else None)


def box(path: Path) -> Path:
    """All but the topmost ten rows."""
    x, y = (420000, 421800), (5348000, 5349900)
    ring = [[x[0], y[0]], [x[1], y[0]], [x[1], y[1]], [x[0], y[1]], [x[0], y[0]]]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]}))
    return path


def test_every_reason_in_its_order(tmp_path: Path) -> None:
    made = scene(tmp_path, aoi=True)
    exclusions = exclude.Exclusions(made, ("after",), Limits(), drain(made, channel_km2=0.05))
    codes = exclusions.codes(WHOLE)
    assert (codes[:10] == OUTSIDE_AOI).all()
    assert (codes[10:20, :60] == CLOUD).all()
    assert (codes[20:, :10] == REFERENCE_WATER).all()
    below = codes[30:60]  # farther down, water runs together on the last row that would leave the image
    assert (below[:, 10:100] == 0).all()  # the step of 8 m is steep, and low enough to be flooded
    assert (below[:, 103:112] == SLOPE).all()
    assert (below[:, 116:] == ABOVE_DRAINAGE).all()
    for window in blocks(SHAPE, 47):
        np.testing.assert_array_equal(exclusions.codes(window), codes[window.slices])
    assert set(np.unique(codes)) <= set(EXCLUSION)


def test_what_was_not_observed_is_so_whatever_else_it_is() -> None:
    codes = np.array([[0, REFERENCE_WATER, SLOPE, ABOVE_DRAINAGE, CLOUD, OUTSIDE_AOI]], np.uint8)
    np.testing.assert_array_equal(settle(codes, np.ones((1, 6), bool)), codes)
    unseen = [[NOT_OBSERVED] * 4 + [CLOUD, OUTSIDE_AOI]]
    np.testing.assert_array_equal(settle(codes, np.zeros((1, 6), bool)), unseen)


def test_the_ground_sets_limits_to_floods_only_and_needs_a_scale(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    assert exclude.limits_for(scene(tmp_path / "a")) == Limits(15.0, 15.0, 100.0, 1.0)
    assert exclude.limits_for(scene(tmp_path / "b", hazard="landslide")) is None
    nowhere = scene(tmp_path / "c", crs=None)
    assert exclude.limits_for(nowhere) is None
    assert exclude.limits_for(nowhere, gsd_m=10.0) == Limits()
    assert exclude.prepare(nowhere, ["after"]).drainage is None


def test_cloud_in_an_image_that_is_not_looked_at_excludes_nothing(tmp_path: Path) -> None:
    made = scene(tmp_path, hazard="landslide")
    assert (exclude.prepare(made, ["after"]).codes(WHOLE) == CLOUD).sum() == 20 * 60
    assert (exclude.prepare(made, []).codes(WHOLE) != CLOUD).all()


def test_a_map_with_elevation_says_what_it_leaves_out(tmp_path: Path) -> None:
    pieces.load("simulate", "flood")(tmp_path / "sim", size=300, seed=3)
    sim = tmp_path / "sim"
    mapped = am.map(sim / "after.tif", sim / "before.tif", dem=sim / "dem.tif", out=tmp_path / "with")
    plain = am.map(sim / "after.tif", sim / "before.tif", out=tmp_path / "without")
    assert mapped.made_by["parameters"]["exclusion"] == {"slope_deg": 15.0, "low_m": 15.0, "high_m": 100.0, "channel_km2": 1.0}
    assert plain.made_by["parameters"]["exclusion"] is None
    said = " ".join(mapped.made_by["assumptions"])
    for words in ("steeper than 15 degrees", "more than 100 m above", "routed on the elevation model", "radar shadow"):
        assert words in said
    whole = Window(0, 0, 300, 300)
    codes, before = mapped.exclusion(whole), plain.exclusion(whole)
    np.testing.assert_array_equal(codes == NOT_OBSERVED, before == NOT_OBSERVED)
    lost = np.isin(codes, (SLOPE, ABOVE_DRAINAGE))
    assert lost.any()
    assert (mapped.extent(whole)[lost] == 255).all()
    area = {(r["quantity"], r["reason"]): float(r["value"]) for r in mapped.summary}
    for code in set(np.unique(codes)) - {0}:
        assert area["not_analysed_area", EXCLUSION[code][0]] == pytest.approx((codes == code).sum() * 0.01, rel=2e-3)
    small = am.map(
        sim / "after.tif", sim / "before.tif", dem=sim / "dem.tif", out=tmp_path / "s", options=am.Options(memory_mb=420)
    )
    np.testing.assert_array_equal(small.exclusion(whole), codes)
