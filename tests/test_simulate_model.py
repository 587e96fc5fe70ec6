"""Scenes simulated on real elevation models: on their grid, water low, slides on steep slopes, nothing where nothing is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

from aftermap import raster
from aftermap.cli import main
from aftermap.errors import UsageError
from aftermap.simulate import flood, landslide
from aftermap.simulate.model import read_model
from aftermap.simulate.terrain import Ground
from tests.conftest import grid, shared, write


def ranges(path: Path, shape: tuple[int, int] = (300, 420), gsd: float = 20.0) -> Path:
    """Two valleys that fall southward between ridges of 35 degrees, with a void at the north-east."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    across = np.abs((x + 10 * np.sin(y / 30)) % 200 - 100) * gsd
    z = 400 - 0.01 * gsd * y + 4e-4 * np.minimum(across, 400) * 1.0 + 0.7 * np.maximum(across - 400, 0)
    z = z + np.random.default_rng(0).normal(0, 0.3, shape)
    z[:40, -60:] = np.nan
    on = grid(shape, gsd=gsd, origin=(400000, 5200000))
    return write(path, z.astype(np.float32)[None], on, ("elevation",), unit="m", nodata=float("nan"))


def read(folder: Path, name: str) -> np.ndarray:
    with rasterio.open(folder / f"{name}.tif") as src:
        return np.asarray(src.read())


def test_a_flood_stands_low_on_the_given_ground(tmp_path: Path) -> None:
    dem = ranges(tmp_path / "given.tif")
    flood.simulate(tmp_path, dem=dem, seed=1)
    model = read_model(dem)
    heights, truth, radar = read(tmp_path, "dem")[0], read(tmp_path, "truth"), read(tmp_path, "after")
    np.testing.assert_array_equal(heights, np.where(model.known, model.whole.elevation, np.nan))
    for name in ("before", "after", "truth", "dem"):
        assert raster.facts(tmp_path / f"{name}.tif").grid == model.grid
    void = ~model.known
    assert (truth[:, void] == 255).all()
    assert np.isnan(radar[:, void]).all()
    flooded, river = truth[0] == 1, truth[1] == 1
    assert (0.005 < flooded.mean() < 0.4, river.any(), (flooded & river).any()) == (True, True, False)
    assert model.whole.hand[flooded].max() < 2.5 + 0.7  # no higher above the drainage than the stage and its noise
    middle = np.broadcast_to(np.nanmedian(heights, axis=1, keepdims=True), heights.shape)
    assert (heights < middle)[flooded].mean() > 0.98  # every row has its valleys and its ridges


def test_slides_lie_on_steep_slopes_of_the_given_ground(tmp_path: Path) -> None:
    dem = ranges(tmp_path / "given.tif")
    landslide.simulate(tmp_path, dem=dem, seed=1, size=280)
    whole = read_model(dem).whole
    slid = read(tmp_path, "truth")[0] == 1
    assert slid.shape == (280, 280)
    slope = np.degrees(np.arctan(np.hypot(whole.rise_east, whole.rise_south)))[:280, :280]
    assert slid.sum() > 100
    assert np.median(slope[slid]) > 25
    assert (slope[slid] > 15).mean() > 0.8


def test_slopes_are_true_on_a_model_in_degrees(tmp_path: Path) -> None:
    """A plane that rises one in ten eastward, where a degree of longitude is half of one of latitude."""
    metres = 111_320 * np.cos(np.radians(60)) * 1e-3
    on = grid((70, 90), crs="EPSG:4326", gsd=1e-3, origin=(10, 60))
    plane = np.broadcast_to(100 + 0.1 * metres * np.arange(90), (1, 70, 90)).astype(np.float32)
    model = read_model(write(tmp_path / "dem.tif", plane, on, ("",), unit="m"))
    assert model.whole.rise_east[35, 45] == pytest.approx(0.1, rel=5e-3)
    wide = Ground(0, -2, -2, 10, 10, model.gsd_m / 2)
    assert model.rises(wide)[1][0, 0] == 0
    assert model.rises(wide)[1][5, 5] == pytest.approx(0.1, rel=1e-2)


def test_real_models_make_scenes(tmp_path: Path) -> None:
    dem = shared("dem") / "rome_30m_dem.tif"
    result = CliRunner().invoke(main, ["simulate", "flood", "--dem", str(dem), "-o", str(tmp_path), "--size", "256", "--quiet"])
    assert result.exit_code == 0, result.output
    truth, heights = read(tmp_path, "truth"), read(tmp_path, "dem")[0]
    assert truth.shape == (2, 256, 256)
    with rasterio.open(dem) as src, rasterio.open(tmp_path / "truth.tif") as made:
        assert made.transform == src.transform
        assert made.crs == src.crs
        np.testing.assert_array_equal(heights, src.read(1)[:256, :256])
    flooded = truth[0] == 1
    assert 0.001 < flooded.mean() < 0.5
    assert np.median(heights[flooded]) < np.median(heights[~flooded])


@pytest.mark.parametrize("how", ["rotated", "small", "feet", "empty", "no CRS"])
def test_models_that_no_scene_is_made_on(tmp_path: Path, how: str) -> None:
    on = grid((50 if how == "small" else 80, 80), crs=None if how == "no CRS" else "EPSG:32633", gsd=10)
    if how == "rotated":
        on = type(on)(on.shape, on.affine.rotation(5) @ on.affine, on.crs)
    z = np.full((1, *on.shape), np.nan if how == "empty" else 5, np.float32)
    dem = write(tmp_path / "dem.tif", z, on, ("",), unit="ft" if how == "feet" else "m", nodata=float("nan"))
    with pytest.raises(UsageError) as refused:
        flood.simulate(tmp_path / "out", dem=dem)
    assert refused.value.repair
    assert not (tmp_path / "out").exists()


def test_what_has_no_ground_refuses_a_model(tmp_path: Path) -> None:
    dem = ranges(tmp_path / "dem.tif")
    for kind in ("fracture", "building"):
        result = CliRunner().invoke(main, ["simulate", kind, "--dem", str(dem), "-o", str(tmp_path / kind)])
        assert result.exit_code == 2
        assert f"{kind} has no --dem" in result.output
