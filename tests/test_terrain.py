"""Slope, aspect and curvature against planes worked by hand, in any CRS and tiling; drainage against a queue and closed form."""

from __future__ import annotations

import heapq
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from aftermap import pieces
from aftermap.area import pixel_area_m2, pixel_spacing_m
from aftermap.drainage import ELEVATION, accumulate, coarsening, drain, follow, receive
from aftermap.layer import Declared
from aftermap.scene import Scene, open_scene
from aftermap.simulate.terrain import Ground as SimulatedGround
from aftermap.simulate.terrain import terrain
from aftermap.terrain import Ground, read_ground
from aftermap.tiles import Window, blocks
from tests.conftest import grid, shared, write

F32 = npt.NDArray[np.float32]
SHAPE = (70, 90)


def plane(east: float, south: float, *, across: float = 10.0, down: float = 10.0) -> Ground:
    """Ground that rises by `east` m per m to the right and `south` m per m downward."""
    y, x = np.mgrid[: SHAPE[0] + 2, : SHAPE[1] + 2].astype(float)
    return Ground(east * across * x + south * down * y, np.full(SHAPE, across), np.full(SHAPE, down))


def scene(tmp_path: Path, heights: F32, on: GeoBox | None = None) -> Scene:
    """A scene whose dem is `heights` (y, x) in m, NaN where not known."""
    on = on or grid(heights.shape)
    after = write(tmp_path / "after.tif", np.full((1, *heights.shape), -10, np.float32), on, ("VV",), unit="dB")
    dem = write(tmp_path / "dem.tif", heights[None], on, ("elevation",), nodata=float("nan"))
    return open_scene({"after": [after], "dem": [dem]}, hazard="flood")


def rough(shape: tuple[int, int], seed: int) -> F32:
    y, x = np.mgrid[: shape[0], : shape[1]]
    noise = np.random.default_rng(seed).normal(0, 2, shape)
    return np.asarray(50 + 0.5 * y + 20 * np.sin(x / 9) * np.cos(y / 7) + noise, np.float32)


@pytest.mark.parametrize(
    ("east", "south", "slope", "aspect"),
    [(0.5, 0, 26.565, 270), (0, 1, 45, 0), (-1, 0, 45, 90), (0, -0.1, 5.711, 180), (0.3, 0.4, 26.565, 323.130)],
)
def test_a_plane_has_its_slope_and_faces_downhill(east: float, south: float, slope: float, aspect: float) -> None:
    ground = plane(east, south, across=30, down=7)
    np.testing.assert_allclose(ground.slope_deg, slope, atol=1e-3)
    np.testing.assert_allclose(ground.aspect_deg, aspect, atol=1e-3)
    np.testing.assert_allclose(ground.curvature, 0, atol=1e-9)


def test_flat_ground_faces_nowhere_and_a_bowl_is_hollow() -> None:
    assert np.isnan(plane(0, 0).aspect_deg).all()
    y, x = np.mgrid[: SHAPE[0] + 2, : SHAPE[1] + 2].astype(float)
    bowl = Ground(0.01 * (100 * x**2 + 25 * y**2), np.full(SHAPE, 10.0), np.full(SHAPE, 5.0))
    np.testing.assert_allclose(bowl.curvature, -0.04)  # z = 0.01 (X^2 + Y^2) in metres


def test_slope_is_true_in_degrees_and_in_mercator(tmp_path: Path) -> None:
    """The same cone-free ramp of 10 % northward at 60 N, in three CRS."""
    slopes = []
    for crs, step, north in (("EPSG:32633", 30.0, 6651411.0), ("EPSG:4326", 0.0003, 60.0), ("EPSG:3857", 60.0, 8399737.9)):
        origin = {"EPSG:32633": 500000.0, "EPSG:4326": 15.0, "EPSG:3857": 1669792.4}[crs]
        on = GeoBox(SHAPE, Affine(step, 0, origin, 0, -step, north), crs)
        _, down = pixel_spacing_m(on, Window(0, 0, *SHAPE))
        (tmp_path / crs[5:]).mkdir()
        made = scene(tmp_path / crs[5:], (1000 - 0.1 * np.cumsum(down, axis=0)).astype(np.float32), on)
        slopes.append(read_ground(made, Window(0, 0, *SHAPE)).slope_deg)
        np.testing.assert_allclose(slopes[-1], np.degrees(np.arctan(0.1)), rtol=2e-3)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32633", "EPSG:3857", "EPSG:3031"])
def test_spacing_multiplies_to_area(crs: str) -> None:
    step, x, y = {
        "EPSG:4326": (1e-3, 10, -70), "EPSG:32633": (30, 420000, 5350000),
        "EPSG:3857": (30, 2e6, 8e6), "EPSG:3031": (90, -1e6, 9e5),
    }[crs]  # fmt: skip
    on, window = GeoBox((400, 600), Affine(step, 0, x, 0, -step, y), crs), Window(130, 40, 200, 300)
    across, down = pixel_spacing_m(on, window)
    np.testing.assert_allclose(across * down, pixel_area_m2(on, window), rtol=1e-5)
    whole = pixel_spacing_m(on, Window(0, 0, 400, 600))
    np.testing.assert_array_equal(across, whole[0][window.slices])
    np.testing.assert_array_equal(down, whole[1][window.slices])


def test_ground_is_the_same_tiled_or_whole_and_voids_stay_void(tmp_path: Path) -> None:
    heights = rough(SHAPE, 1)
    heights[20:23, 30:40] = np.nan
    made = scene(tmp_path, heights, GeoBox(SHAPE, Affine(3e-4, 0, 12, 0, -3e-4, 47), "EPSG:4326"))
    whole = read_ground(made, Window(0, 0, *SHAPE))
    assert np.isnan(whole.slope_deg).sum() == 5 * 12
    for window in blocks(SHAPE, 23):
        part = read_ground(made, window)
        for name in ("elevation", "slope_deg", "aspect_deg", "curvature"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[window.slices])


def spill_levels(heights: F32) -> F32:
    """The least height (y, x) that must be climbed to leave the grid, by a priority queue (Barnes 2014), voids being outside."""
    levels = np.full(heights.shape, np.inf, np.float32)
    known = np.pad(np.isfinite(heights), 1)
    edge = [c for c in np.argwhere(known[1:-1, 1:-1]) if not known[c[0] : c[0] + 3, c[1] : c[1] + 3].all()]
    queue = [(float(heights[y, x]), int(y), int(x)) for y, x in edge]
    heapq.heapify(queue)
    while queue:
        level, y, x = heapq.heappop(queue)
        if level >= levels[y, x]:
            continue
        levels[y, x] = level
        for v in range(max(y - 1, 0), min(y + 2, heights.shape[0])):
            for u in range(max(x - 1, 0), min(x + 2, heights.shape[1])):
                if np.isfinite(heights[v, u]):
                    heapq.heappush(queue, (max(level, float(heights[v, u])), v, u))
    return levels


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(0, 3), st.booleans())
def test_water_leaves_over_the_lowest_pass(seed: int, decimals: int, holed: bool) -> None:
    """Law: from everywhere the receivers lead out, and climb no higher on the way than a queue finds necessary."""
    heights = np.round(rough((23, 31), seed), decimals - 1).astype(np.float32)  # rounded to 10 m: mostly flats
    if holed:
        heights[9:12, 14:17] = np.nan
    one = np.full((23, 1), 10.0)
    receivers = receive(heights, one, one)
    climbed, here = heights.ravel().copy(), np.arange(heights.size, dtype=np.int32)
    for _ in range(heights.size):
        here = receivers[here]
        climbed = np.fmax(climbed, heights.ravel()[here])
    np.testing.assert_array_equal(here, follow(receivers))
    seen = np.isfinite(heights.ravel())
    np.testing.assert_array_equal(climbed[seen], spill_levels(heights).ravel()[seen])
    catchment = accumulate(receivers, np.full((23, 1), 2.0))
    assert catchment[receivers == np.arange(heights.size)].sum() == 2 * heights.size


def test_a_valley_by_hand(tmp_path: Path) -> None:
    """A V-shaped valley falling southward: height above drainage is height above the thalweg of the row or one below it."""
    y, x = np.mgrid[:120, :81]
    made = scene(tmp_path, (500 - 0.1 * y + 2.0 * np.abs(x - 40)).astype(np.float32))
    whole = Window(0, 0, 120, 81)
    drainage = drain(made, channel_km2=0.05)
    hand = drainage.hand(read_ground(made, whole).elevation, whole)
    np.testing.assert_allclose(hand[12:, :], 2.0 * np.abs(x - 40)[12:], atol=0.15)
    part = Window(50, 20, 30, 41)
    np.testing.assert_array_equal(drainage.hand(read_ground(made, part).elevation, part), hand[part.slices])


def test_flow_that_leaves_before_drainage_is_unknown(tmp_path: Path) -> None:
    y, x = np.mgrid[:60, :80]
    made = scene(tmp_path, (900 - 3.0 * np.hypot(y - 30, x - 40)).astype(np.float32))  # a cone sheds everywhere
    assert np.isnan(drain(made, channel_km2=1.0).elevation).all()
    blind = scene(tmp_path, np.full(SHAPE, np.nan, np.float32))
    assert np.isnan(drain(blind).elevation).all()


def test_coarsening_is_bounded() -> None:
    assert coarsening((2000, 2000)) == 1
    assert coarsening((2001, 2000)) == 2
    assert coarsening((25000, 17000)) == 11
    assert -(-25000 // 11) * -(-17000 // 11) <= 4_000_000


@pytest.mark.parametrize("most", [4_000_000, 40_000])
def test_height_above_drainage_follows_the_simulators_closed_form(tmp_path: Path, most: int) -> None:
    pieces.load("simulate", "flood")(tmp_path, size=512, seed=3)
    made = open_scene({"after": [tmp_path / "after.tif"], "dem": [tmp_path / "dem.tif"]}, hazard="flood")
    whole = Window(0, 0, 512, 512)
    drainage = drain(made, most=most)
    assert drainage.factor == (1 if most > 1e6 else 3)
    hand = drainage.hand(made.read(ELEVATION, whole)[0], whole)
    true = terrain(SimulatedGround(3, 0, 0, 512, 512, 10.0)).hand
    known = np.isfinite(hand)
    assert known.mean() > 0.7
    assert np.corrcoef(hand[known], true[known])[0, 1] > 0.75
    assert (hand[known] <= true[known] + 15).mean() > 0.97  # rather too low: what might be flooded is not excluded


@pytest.mark.parametrize("name", ["rome_30m_dem.tif", "olinda_dem_utm25s.tif", "lidar_dtm_2m.tif", "texas_3arcsec_dem.tif"])
def test_real_elevation_models(name: str) -> None:
    path = shared("dem") / name
    made = open_scene({"after": [path], "dem": [path]}, hazard="flood", declared={"after": Declared(bands=("elevation",))})
    slope = read_ground(made, Window(0, 0, *made.shape)).slope_deg
    assert np.isfinite(slope).mean() > 0.5
    assert 0 < np.nanmedian(slope) < 35
    drainage = drain(made, channel_km2=0.02)
    assert np.isfinite(drainage.elevation).mean() > 0.1
