"""Simulated floods: the truth is what it says, the picture follows from it, and windows and sizes have no say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from aftermap.errors import UsageError
from aftermap.raster import facts, read_window
from aftermap.simulate.flood import block, simulate
from aftermap.simulate.sar import Surface, backscatter, speckled
from aftermap.simulate.terrain import Cover, Ground, land, noise, terrain
from aftermap.tiles import Window

SIZE = 1024
FILES = {"before": (1, 2), "after": (1, 2), "truth": (1, 2), "dem": (1,)}


def _read(folder: Path, size: int = SIZE) -> dict[str, npt.NDArray[Any]]:
    return {name: read_window(folder / f"{name}.tif", Window(0, 0, size, size), bands) for name, bands in FILES.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("flood") / "new" / "folder"
    simulate(out, size=SIZE, seed=1)
    return out


@pytest.fixture(scope="module")
def scene(folder: Path) -> dict[str, npt.NDArray[Any]]:
    return _read(folder)


def test_four_files_and_nothing_else(folder: Path) -> None:
    assert sorted(p.name for p in folder.iterdir()) == ["after.tif", "before.tif", "dem.tif", "truth.tif"]


def test_files_say_what_they_are(folder: Path) -> None:
    of = {name: facts(folder / f"{name}.tif") for name in FILES}
    assert len({f.grid for f in of.values()}) == 1
    assert of["dem"].grid.crs == "EPSG:32633"
    assert of["dem"].grid.resolution.x == 10
    for name, date in (("before", "2024-05-01T05:00:00Z"), ("after", "2024-05-13T05:00:00Z")):
        assert (of[name].dtype, of[name].descriptions, of[name].units) == ("float32", ("VV", "VH"), ("dB", "dB"))
        assert of[name].tags["ACQUISITION_DATETIME"] == date
        assert of[name].tags["SIMULATED"].startswith("aftermap flood seed=1 looks=4.9")
        assert np.isnan(np.array(of[name].nodata, float)).all()
    assert (of["truth"].dtype, of["truth"].descriptions) == ("uint8", ("flood", "permanent_water"))
    assert (of["dem"].dtype, of["dem"].descriptions) == ("float32", ("elevation",))


def test_same_seed_same_bytes_other_seed_other_scene(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        simulate(tmp_path / name, size=600, seed=seed)
    for file in FILES:
        a, b, c = ((tmp_path / name / f"{file}.tif").read_bytes() for name in "abc")
        assert a == b
        assert a != c


def test_a_block_on_its_own_equals_the_files_block(scene: Mapping[str, npt.NDArray[Any]]) -> None:
    alone = block(1, 1, 1, looks=4.9, gsd_m=10, stage_m=2.5)
    for name in FILES:
        np.testing.assert_array_equal(getattr(alone, name), scene[name][:, 512:, 512:])


def test_a_smaller_scene_is_the_corner_of_a_larger_one(scene: Mapping[str, npt.NDArray[Any]], tmp_path: Path) -> None:
    simulate(tmp_path, size=700, seed=1)
    for name, pixels in _read(tmp_path, 700).items():
        np.testing.assert_array_equal(pixels, scene[name][:, :700, :700])


def test_windows_meet_without_seams() -> None:
    whole, part = (terrain(Ground(5, row, 300, 640 - row, 400, 10)) for row in (100, 333))
    for name in ("elevation", "rise_east", "hand", "valley"):
        # the first-order distance divides by a gradient of rounded metres, hence not to the last bit
        assert np.quantile(np.abs(getattr(whole, name)[233:] - getattr(part, name)), 0.9999) < 0.02
    assert np.mean(whole.water[233:] != part.water) < 1e-4


def test_noise_has_mean_0_and_std_1() -> None:
    field = noise(Ground(0, 0, 0, 512, 512, 10), "any", 40)
    assert abs(field.mean()) < 0.05
    assert abs(field.std() - 1) < 0.05


def test_flood_and_permanent_water_are_disjoint(scene: Mapping[str, npt.NDArray[Any]]) -> None:
    flood, permanent = scene["truth"]
    assert set(np.unique(scene["truth"])) == {0, 1}
    assert not (flood & permanent).any()


@pytest.mark.parametrize("seed", range(4))
def test_between_3_and_17_percent_is_flooded(seed: int) -> None:
    shares = [block(seed, row, col, looks=4.9, gsd_m=20, stage_m=2.5).truth[0].mean() for row in (0, 1) for col in (0, 1)]
    assert 0.03 < np.mean(shares) < 0.17


def test_a_higher_stage_floods_more_and_never_less() -> None:
    low, high = (block(1, 0, 1, looks=4.9, gsd_m=10, stage_m=stage).truth for stage in (1.5, 3))
    assert (low[0] <= high[0]).all()
    assert high[0].sum() > low[0].sum()
    np.testing.assert_array_equal(low[1], high[1])


def test_open_land_darkens_under_flood_and_woods_and_towns_do_not(scene: Mapping[str, npt.NDArray[Any]]) -> None:
    ground = Ground(1, 0, 0, SIZE, SIZE, 10)
    cover = land(ground, terrain(ground)).cover
    flooded = (scene["truth"][0] == 1) & np.isfinite(scene["before"] + scene["after"]).all(0)
    change = scene["after"] - scene["before"]
    standing = np.isin(cover, (Cover.FOREST, Cover.URBAN))
    assert (np.median(change[:, flooded & ~standing], axis=1) < -3).all()
    assert np.median(change[0, flooded & standing]) > 1
    assert 0.01 < np.mean(standing[flooded]) < 0.35


def test_dry_land_and_permanent_water_hardly_change(scene: Mapping[str, npt.NDArray[Any]]) -> None:
    flood, permanent = scene["truth"] == 1
    change = scene["after"] - scene["before"]
    assert (np.abs(np.nanmedian(change[:, ~flood & ~permanent], axis=1)) < 1).all()
    assert (np.abs(np.nanmedian(change[:, permanent], axis=1)) < 1).all()


def test_backscatter_lies_where_sentinel_1_lies(scene: Mapping[str, npt.NDArray[Any]]) -> None:
    water = scene["truth"].any(0)
    # Sen1Floods11 chips: land VV -10.2, VH -16.6; calm water VV -17.6 to -20.3, VH -25.2 to -29.5, at nearer range than here
    vv, vh = np.nanmedian(scene["before"][:, ~water], axis=1)
    assert -12.5 < vv < -8.5
    assert -19 < vh < -14.5
    vv, vh = np.nanmedian(scene["before"][:, scene["truth"][1] == 1], axis=1)
    assert -23 < vv < -17
    assert -29 < vh < -24


@pytest.mark.parametrize("looks", [1, 4.9, 20])
def test_speckle_has_the_looks_that_were_asked_for(looks: float) -> None:
    power = 10 ** (speckled(np.full((512, 512), 0.1, np.float32), looks, 7, "after/VV", (0, 0)).astype(float) / 10)
    assert power.mean() == pytest.approx(0.1, rel=0.01)
    assert power.mean() ** 2 / power.var() == pytest.approx(looks, rel=0.03)


def test_the_files_carry_that_speckle_independent_between_dates_and_bands() -> None:
    noisy, calm = (block(1, 0, 1, looks=looks, gsd_m=10, stage_m=2.5) for looks in (4.9, 1e6))
    ratio = np.concatenate([10 ** ((getattr(noisy, d) - getattr(calm, d)).astype(float) / 10) for d in ("before", "after")])
    assert ratio.mean() ** 2 / ratio.var() == pytest.approx(4.9, rel=0.15)
    assert np.abs(np.corrcoef(ratio.reshape(4, -1)) - np.eye(4)).max() < 0.02


def test_backscatter_falls_with_incidence_and_with_slopes_that_turn_away() -> None:
    dry = np.zeros((1, 6), np.float32)
    surface = Surface(np.arange(6, dtype=np.uint8)[None], dry, dry, dry)
    near, far = (backscatter(surface, np.full((1, 1), deg, np.float32), dry) for deg in (31, 45))
    for n, f in zip(near, far, strict=True):
        assert (n > f).all()
    away = backscatter(surface, np.full((1, 1), 31, np.float32), dry + np.float32(0.1))
    assert (away[0][0, 1:] < near[0][0, 1:]).all()
    assert away[0][0, Cover.WATER] == near[0][0, Cover.WATER]


def test_the_swath_edge_is_nan_in_both_bands_and_differs_between_dates(scene: Mapping[str, npt.NDArray[Any]]) -> None:
    unseen = {name: np.isnan(scene[name]) for name in ("before", "after")}
    for bands in unseen.values():
        np.testing.assert_array_equal(bands[0], bands[1])
        assert bands[0, 0, 0]
        assert 0.001 < bands[0].mean() < 0.02
    assert (unseen["after"] & ~unseen["before"]).any()
    assert np.isfinite(scene["dem"]).all()


def test_terrain_rises_from_its_drainage() -> None:
    ter = terrain(Ground(2, 0, 0, SIZE, SIZE, 10))
    assert ter.hand.min() >= 0
    assert np.median(ter.hand[ter.valley > 2000]) > 10 * np.median(ter.hand[ter.valley < 250])
    assert ter.hand[ter.water & (ter.valley < 150)].max() < 0.5


def test_any_size_and_progress(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    simulate(tmp_path, size=513, seed=0, progress=lambda done, total: heard.append((done, total)))
    assert heard == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert facts(tmp_path / "truth.tif").grid.shape == (513, 513)


@pytest.mark.parametrize("wrong", [{"size": 63}, {"seed": -1}, {"looks": 0.0}, {"gsd_m": 0.0}, {"stage_m": float("nan")}])
def test_arguments_out_of_range_are_named_before_anything_is_written(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))) as caught:
        simulate(tmp_path / "out", **wrong)
    assert caught.value.repair
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(UsageError, match="taken"):
        simulate(tmp_path / "taken", size=64)


def test_a_scene_cut_short_leaves_no_files(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path, size=64, progress=stop)
    assert list(tmp_path.iterdir()) == []
