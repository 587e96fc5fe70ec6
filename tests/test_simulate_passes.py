"""Several radar passes about one event, and its inventory: persistent land, fresh speckle, a head for each slide that shows."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from click.testing import CliRunner
from scipy import ndimage

from aftermap import features
from aftermap.cli import main
from aftermap.raster import facts
from aftermap.simulate import landslide

SIZE, SEED = 320, 3


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("passes")
    landslide.simulate(out, size=SIZE, seed=SEED, sensor="sentinel-1", passes=3)
    return out


def _db(path: Path) -> npt.NDArray[np.float64]:
    with rasterio.open(path) as file:
        return np.asarray(file.read(), np.float64)


def test_passes_lie_twelve_days_apart_outward_from_the_event(scene: Path) -> None:
    order = ("before-3", "before-2", "before", "after", "after-2", "after-3")
    times = [datetime.fromisoformat(facts(scene / f"{name}.tif").tags["ACQUISITION_DATETIME"]) for name in order]
    assert [(later - earlier).days for earlier, later in pairwise(times)] == [12, 12, 48, 12, 12]
    assert {f.grid for f in map(facts, scene.glob("*.tif"))} == {facts(scene / "after.tif").grid}


def test_one_pass_is_what_it_was_and_the_first_of_several(scene: Path, tmp_path: Path) -> None:
    landslide.simulate(tmp_path, size=SIZE, seed=SEED, sensor="sentinel-1")
    for name in ("before", "after", "truth", "dem"):
        np.testing.assert_array_equal(_db(tmp_path / f"{name}.tif"), _db(scene / f"{name}.tif"))
    assert not list(tmp_path.glob("*-2.tif"))
    assert "passes" not in facts(tmp_path / "after.tif").tags["SIMULATED"]


def test_the_land_persists_and_the_speckle_does_not(scene: Path) -> None:
    first, second, third = (_db(scene / f"before{k}.tif")[0] for k in ("", "-2", "-3"))
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.6
    # 4.9 looks leave 2.1 dB of speckle in each; of two means by two, less by the square root of two, and the weather
    assert 2.5 < (first - second).std() < 3.5
    assert 1.7 < ((first + second) / 2 - third).std() < (first - third).std()
    slid = _db(scene / "truth.tif")[0] == 1
    for k in ("", "-2", "-3"):
        assert (_db(scene / f"after{k}.tif") - _db(scene / f"before{k}.tif"))[1][slid].mean() < -1.2


def test_the_inventory_has_a_head_for_each_slide_that_shows(scene: Path) -> None:
    grid = facts(scene / "after.tif").grid
    heads = features.read_points(scene / "inventory.gpkg", grid)
    slid = _db(scene / "truth.tif")[0] == 1
    assert len(heads) > 20
    assert ((heads >= 0) & (heads < SIZE)).all()
    col, row = np.floor(heads).astype(int).T
    near = ndimage.binary_dilation(slid, iterations=6)
    assert near[row, col].mean() > 0.95
    patches, _ = ndimage.label(slid)
    heads_in = np.zeros_like(slid)
    heads_in[row, col] = True
    about = ndimage.binary_dilation(heads_in, iterations=6)
    large = [k for k, size in enumerate(np.bincount(patches.ravel())) if k and size > 15]
    assert np.mean([about[patches == k].any() for k in large]) > 0.8


def test_the_inventory_is_the_same_bytes_again_and_optical_scenes_have_one(tmp_path: Path) -> None:
    words = ["simulate", "landslide", "--size", "64", "--seed", "3", "--quiet"]
    for name in ("one", "two"):
        result = CliRunner().invoke(main, [*words, "-o", str(tmp_path / name)])
        assert result.exit_code == 0, result.output
        assert "inventory.gpkg" in result.output
    one, two = ((tmp_path / name / "inventory.gpkg").read_bytes() for name in ("one", "two"))
    assert one == two
    assert not [p for p in (tmp_path / "one").iterdir() if p.name.startswith(".")]
