"""Varied scenes: one seed is one scene, no two are alike, what is there stays, and the truth is what was asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from aftermap import raster
from aftermap.cli import main
from aftermap.datasets.dataset import Dataset, open_dataset
from aftermap.errors import InputRefusedError, UnknownNameError, UsageError
from aftermap.journal import sha256
from aftermap.simulate.vary import VARIED, simulate
from aftermap.tiles import Window

WHOLE = Window(0, 0, 512, 512)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes 7 to 9 of each hazard."""
    root = tmp_path_factory.mktemp("varied")
    for hazard in VARIED:
        simulate(hazard, root / hazard, range(7, 10))
    return root


@pytest.mark.parametrize("hazard", VARIED)
def test_a_seed_is_a_scene_and_what_is_there_stays(made: Path, tmp_path: Path, hazard: str) -> None:
    kept = sha256(made / hazard / f"{hazard}-000008" / "after.tif")
    (made / hazard / f"{hazard}-000007" / "truth.tif").rename(tmp_path / "truth.tif")  # as a kill leaves it
    stamp = (made / hazard / f"{hazard}-000008" / "after.tif").stat().st_mtime_ns
    assert simulate(hazard, made / hazard, range(7, 10)) == 3
    assert (made / hazard / f"{hazard}-000008" / "after.tif").stat().st_mtime_ns == stamp
    assert sha256(made / hazard / f"{hazard}-000007" / "truth.tif") == sha256(tmp_path / "truth.tif")
    simulate(hazard, tmp_path, [8])
    assert sha256(tmp_path / f"{hazard}-000008" / "after.tif") == kept
    assert len({sha256(p) for p in (made / hazard).glob("*/after.tif")}) == 3


def test_seeds_are_dealt_to_splits_by_scene(made: Path) -> None:
    found = open_dataset(made / "flood")
    assert (found.name, found.splits, len(found.ids())) == ("simulated", ("train", "validation", "test"), 48)
    assert {found.members[n].event for n in found.ids("test")} == {"flood-000009"}


def everything(dataset: Dataset, scene: str) -> np.ndarray:
    """The truth of a scene, put together again from its squares."""
    out = np.zeros((512, 512), np.uint8)
    for name, member in dataset.members.items():
        if member.event == scene:
            chip = dataset.read(name)
            assert chip.window is not None
            assert chip.truth is not None
            out[chip.window.slices] = chip.truth
    return out


def test_truth_is_what_was_asked_for(made: Path) -> None:
    flood, standing, hidden = raster.read_window(made / "flood/flood-000007/truth.tif", WHOLE, [1, 2, 3])
    water = everything(open_dataset(made / "flood"), "flood-000007")
    np.testing.assert_array_equal(water == 255, hidden == 1)
    np.testing.assert_array_equal(water == 1, ((flood == 1) | (standing == 1)) & (hidden == 0))
    any_water = everything(open_dataset(made / "flood", truth="any-water"), "flood-000007")
    np.testing.assert_array_equal(any_water == 1, (flood == 1) | (standing == 1))
    _, grade, house = raster.read_window(made / "building/building-000008/truth.tif", WHOLE, [1, 2, 3])
    damage = everything(open_dataset(made / "building", truth="damage"), "building-000008")
    np.testing.assert_array_equal(damage, np.where(house, grade + 1, 0))


def test_slides_are_in_the_later_picture_and_houses_in_both(made: Path) -> None:
    scenes = [made / f"landslide/landslide-{seed:06d}" for seed in (7, 8, 9)]
    slid, water, built = (np.stack([raster.read_window(p / "truth.tif", WHOLE, [1, 2, 3])[k] for p in scenes]) for k in range(3))
    assert 0.01 < slid.mean() < 0.4, "one of eight has none; these have some"
    assert not (slid * (water + built)).any()
    for scene, where in zip(scenes, slid == 1, strict=True):
        after, before = (raster.read_window(scene / f"{date}.tif", WHOLE, [1])[0].astype(float) for date in ("after", "before"))
        changed = np.abs(after - before)
        assert not where.any() or changed[where].mean() > changed[~where].mean()


def test_both_dates_carry_their_names(made: Path) -> None:
    both = open_dataset(made / "building", image="both")
    assert both.bands == ("before.red", "before.green", "before.blue", "red", "green", "blue")
    chip, before = both.read(both.ids()[0]), open_dataset(made / "building", image="before").read(both.ids()[0])
    np.testing.assert_array_equal(chip.pixels[:3], before.pixels)
    grey = open_dataset(made / "fracture")
    holes = [grey.read(n) for n in grey.ids()]
    assert any(not c.valid.all() for c in holes), "0 is off the shelf, and not observed"


def test_one_folder_of_two_hazards_says_what_is_artificial(made: Path, tmp_path: Path) -> None:
    for hazard in ("building", "landslide", "fracture"):
        for scene in (made / hazard).iterdir():
            (tmp_path / scene.name).symlink_to(scene)
    with pytest.raises(InputRefusedError, match="no bands or no truth in common"):
        open_dataset(tmp_path, "simulated")
    for scene in tmp_path.glob("fracture-*"):
        scene.unlink()
    found = open_dataset(tmp_path, "simulated", image="before")
    assert (found.classes, found.bands, len(found.ids())) == (("artificial",), ("red", "green", "blue"), 96)
    chips = [found.read(name) for name in found.ids()]
    assert {chip.domain for chip in chips} == {"simulated-building", "simulated-landslide"}
    for chip in chips:
        assert chip.window is not None
        built = raster.read_window(tmp_path / chip.event / "truth.tif", chip.window, [3])[0]
        assert (chip.target, chip.truth) == ((int(built.mean() > 0.05),), None)
    assert {chip.target for chip in chips if chip.domain == "simulated-building"} == {(0,), (1,)}, (
        "not the generator alone decides"
    )


def test_wrong_words_are_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="truth"):
        open_dataset(made / "flood", "simulated", truth="watr")
    with pytest.raises(UsageError, match="image is 'later'"):
        open_dataset(made / "flood", "simulated", image="later")
    with pytest.raises(UnknownNameError, match="landslide"):
        simulate("landslip", tmp_path, [0])
    for wrong in (["--vary", "5"], ["--vary", "0-1", "--size", "64"]):
        assert CliRunner().invoke(main, ["simulate", "flood", "-o", str(tmp_path / "x"), *wrong]).exit_code == 2
    done = CliRunner().invoke(main, ["simulate", "flood", "-o", str(tmp_path / "y"), "--vary", "0-0", "--quiet"])
    assert (done.exit_code, "1 scenes in" in done.output) == (0, True)
