"""Chips without labels: of an event, of a folder of images, and as samples; what is no use is counted, and no label gets in."""

from __future__ import annotations

import csv
import tomllib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from aftermap.chips import CONSTANT, UNSEEN, unfit
from aftermap.cli import main
from aftermap.cutting import TOO_SMALL, Cut, cut
from aftermap.datasets.dataset import open_dataset
from aftermap.errors import InputRefusedError, UsageError
from aftermap.journal import sha256
from aftermap.manyscenes import cut_scenes, find
from aftermap.samples import Samples, survey
from tests.conftest import grid, shared, write

SHAPE = (100, 140)
SPLIT = {"train": ["a"], "validation": ["b"]}


def radar(path: Path, seed: int = 0, *, crs: str | None = "EPSG:32633", bands: tuple[str, ...] = ("VV", "VH")) -> Path:
    """Noise with a hole of 20 x 40 px in the north-west and a constant band in the 30 px of the east."""
    pixels = np.random.default_rng(seed).uniform(-20, -5, (len(bands), *SHAPE)).astype(np.float32)
    pixels[:, :20, :40], pixels[-1, :, -30:] = np.nan, -12
    return write(path, pixels, grid(SHAPE, crs=crs), bands, unit="dB", nodata=float("nan"))


def ran(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, [*map(str, words), "--quiet"])
    assert result.exit_code == code, result.output
    return result.output


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "index.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_reasons_worked_by_hand() -> None:
    pixels = np.arange(32, dtype=np.float32).reshape(2, 4, 4)
    valid = np.ones((4, 4), bool)
    assert unfit(pixels, valid, 16) == ""
    valid[0] = False
    assert (unfit(pixels, valid, 12), unfit(pixels, valid, 13)) == ("", UNSEEN)
    pixels[1, 1:] = 7  # what was not observed does not vary the band
    assert unfit(pixels, valid, 12) == CONSTANT
    assert unfit(pixels, np.zeros((4, 4), bool), 0) == UNSEEN


def test_one_event_is_cut_and_what_is_no_use_is_counted(tmp_path: Path) -> None:
    after = radar(tmp_path / "after.tif")
    said = ran("chips", "--after", after, "--unlabelled", "--size", 20, "-o", tmp_path / "chips")
    # 5 x 7 windows: two lie in the hole, and the east has five whose VH is constant (the last column alone is wholly so)
    assert f"2 left out: {UNSEEN}" in said
    assert f"5 left out: {CONSTANT}" in said
    assert "28 all" in said
    facts = tomllib.loads((tmp_path / "chips" / "facts.toml").read_text())
    assert facts["unlabelled"]
    assert facts["left_out"] == [{"reason": UNSEEN, "chips": 2}, {"reason": CONSTANT, "chips": 5}]
    assert [row["mask"] for row in rows(tmp_path / "chips")] == [""] * 28
    found = open_dataset(tmp_path / "chips")
    assert (found.name, found.classes, found.bands, len(found.ids())) == ("folder", (), ("VV", "VH"), 28)
    for chip in found.chips():
        assert (chip.truth, chip.target, chip.unit) == (None, None, "dB")
        assert unfit(chip.pixels, chip.valid, 0.9 * chip.valid.size) == ""
    assert "28 members, 0 corrupt" in ran("data", "check", tmp_path / "chips")
    assert "all: 28 chips" in ran("data", "stats", tmp_path / "chips")


def test_labels_are_never_left_out_unasked(tmp_path: Path) -> None:
    after, truth = (
        radar(tmp_path / "after.tif"),
        write(tmp_path / "t.tif", np.ones((1, *SHAPE), np.uint8), grid(SHAPE), ("flood",)),
    )
    for wrong in (
        Cut((after,)), Cut((after,), truth, unlabelled=True), Cut((after,), unlabelled=True, how="balanced"),
        Cut((after,), unlabelled=True, classes=("a", "b")),
    ):  # fmt: skip
        with pytest.raises(UsageError):
            cut(tmp_path / "x", wrong)
    assert not (tmp_path / "x").exists()
    labelled = cut(tmp_path / "y", Cut((after,), truth, size=20))
    assert (labelled["chips"], labelled["left_out"]) == (33, {}), "a constant band is no reason where labels tell"
    assert "unlabelled" not in tomllib.loads((tmp_path / "y" / "facts.toml").read_text())


def test_a_folder_of_images_is_as_many_events(tmp_path: Path) -> None:
    scenes = tmp_path / "scenes"
    for name, crs in (("one.tif", "EPSG:32633"), ("two.tif", None), ("three/after.tif", "EPSG:32718")):
        radar(scenes / name, len(name), crs=crs)
    write(scenes / "tiny.tif", np.full((2, 9, 9), -9, np.float32), grid((9, 9)), ("VV", "VH"), unit="dB")
    (scenes / "README.md").write_text("no image")
    assert find(scenes).aside == ("README.md",)
    words = ("chips", "--scenes", scenes, "--unlabelled", "--size", 20)
    said = ran(*words, "-o", tmp_path / "chips")
    assert f"1 left out: {TOO_SMALL}" in said
    assert "no image, and not read: README.md" in said
    assert "84 all of 4 events" in said
    assert {row["event"] for row in rows(tmp_path / "chips")} == {"one", "two", "three"}
    assert len(tomllib.loads((tmp_path / "chips" / "facts.toml").read_text())["sources"]) == 4
    assert open_dataset(tmp_path / "chips").sizes() == {"one": 28, "two": 28, "three": 28}
    for out in ("r1", "r2"):
        ran(*words, "--how", "random", "--count", 5, "--seed", 3, "-o", tmp_path / out)
    assert open_dataset(tmp_path / "r1").sizes() == {"one": 5, "two": 5, "three": 5}
    assert sha256(tmp_path / "r1" / "index.csv") == sha256(tmp_path / "r2" / "index.csv")
    ran(*words, "--split", "blocks", "--block-px", 40, "-o", tmp_path / "split")
    assert set(open_dataset(tmp_path / "split").splits) == {"train", "validation", "test"}


def test_one_scene_of_a_folder_is_cut_as_by_itself(tmp_path: Path) -> None:
    after = radar(tmp_path / "scenes" / "one.tif")
    what = Cut((), size=20, unlabelled=True)
    cut_scenes(tmp_path / "a", tmp_path / "scenes", what)
    cut(tmp_path / "b", Cut((after,), size=20, unlabelled=True, event="one"))
    assert sha256(tmp_path / "a" / "index.csv") == sha256(tmp_path / "b" / "index.csv")


def test_other_bands_are_refused_with_both_sides_named(tmp_path: Path) -> None:
    radar(tmp_path / "s" / "a.tif")
    radar(tmp_path / "s" / "b.tif", bands=("VV",))
    with pytest.raises(UsageError, match="b has VV in dB; a has VV, VH in dB"):
        cut_scenes(tmp_path / "out", tmp_path / "s", Cut((), size=20, unlabelled=True))
    assert not (tmp_path / "out").exists()
    radar(tmp_path / "s" / "a" / "after.tif")
    with pytest.raises(UsageError, match="two scenes called a"):
        find(tmp_path / "s")
    for folder in (tmp_path / "nowhere", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(InputRefusedError):
            find(folder)
    out = ran("chips", "--scenes", tmp_path / "s", "-o", tmp_path / "out", code=2)
    assert "say --unlabelled" in out
    out = ran("chips", "--scenes", tmp_path / "s", "--unlabelled", "--event", "x", "-o", tmp_path / "out", code=2)
    assert "--event with --scenes" in out


def labelled(path: Path) -> Path:
    """Images with masks of two events, one of them half unknown."""
    for number, event in enumerate("ab"):
        radar(path / "images" / f"{event}-0.tif", number)
        mask = np.zeros((1, *SHAPE), np.uint8)
        mask[:, 64:] = 255
        mask[:, 32:50] = 1
        write(path / "masks" / f"{event}-0.tif", mask, grid(SHAPE), ("class",))
    return path


def surveyed(folder: Path, size: int = 32, *, unlabelled: bool, of_chips: bool = False, classes: tuple[str, ...] = ()) -> Samples:
    dataset = open_dataset(folder, "folder", event="^(.)", unit="dB")
    return survey(dataset, ["after"], split=SPLIT, size=size, unlabelled=unlabelled, of_chips=of_chips, classes=classes)


def test_samples_without_labels_take_what_varies_and_no_label(tmp_path: Path) -> None:
    folder = labelled(tmp_path)
    free, told = surveyed(folder, unlabelled=True), surveyed(folder, unlabelled=False)
    # 4 x 5 squares of 32 px: the last row has 4 px and the last column 12, too few; the last but one has no constant band yet
    assert {side: len(free.ids(side)) for side in ("train", "validation")} == {"train": 11, "validation": 11}
    assert free.skipped == {UNSEEN: 18}
    assert (told.skipped, len(told.ids("train"))) == ({}, 10)
    for name in free.ids("train"):
        chip = free.read(name)
        assert (chip.truth, chip.target) == (None, None)
    assert all(np.asarray(told.read(n).labelled).any() for n in told.ids("train"))
    assert free.reference == told.reference, "of the same chips of training"
    narrow = surveyed(folder, 20, unlabelled=True)
    assert narrow.skipped == {UNSEEN: 4, CONSTANT: 10}
    asked = surveyed(folder, unlabelled=True, of_chips=True, classes=("absent", "present"))
    assert (asked.of_chips, asked.classes, asked.ids("train")) == (False, (), free.ids("train")), "whatever else is asked for"
    (folder / "masks" / "a-0.tif").unlink()
    write(folder / "masks" / "a-0.tif", np.ones((1, *SHAPE), np.uint8), grid(SHAPE), ("class",))
    assert surveyed(folder, unlabelled=True).sha256 == free.sha256 != surveyed(folder, unlabelled=False).sha256


def test_samples_of_chips_without_labels(tmp_path: Path) -> None:
    for name in "abcd":
        radar(tmp_path / "s" / f"{name}.tif", ord(name))
    cut_scenes(tmp_path / "chips", tmp_path / "s", Cut((), size=32, unlabelled=True))
    dataset = open_dataset(tmp_path / "chips")
    samples = survey(dataset, ["after"], unlabelled=True)
    assert samples.unseen
    assert len(samples.places) == len(dataset.ids())
    with pytest.raises(InputRefusedError, match=r"no chip of .* with labels"):
        survey(dataset, ["after"])


def test_nothing_fit_to_learn_from_is_said(tmp_path: Path) -> None:
    for name in "ab":
        flat = np.full((1, *SHAPE), 3, np.float32)
        write(tmp_path / "images" / f"{name}.tif", flat, grid(SHAPE), ("VV",), unit="dB")
        write(tmp_path / "masks" / f"{name}.tif", flat.astype(np.uint8) * 0, grid(SHAPE), ("class",))
    with pytest.raises(
        InputRefusedError, match=f"fit to learn from is left for train; 24 squares left out: {CONSTANT}"
    ) as refused:
        surveyed(tmp_path, unlabelled=True)
    assert refused.value.code == "no-chips"


@pytest.mark.parametrize(
    ("folder", "pattern", "bands"),
    [
        ("scenes_sentinel", "chittagong_s2_*.tif", "blue,green,red,nir"),
        ("scenes_sentinel", "S1A*.tif", ""),
        ("dem", "[or]*_dem*.tif", "elevation"),
        ("scenes_landsat_naip", "pucallpa*.tif", "swir1,nir,red,green"),
        ("flood_ombria/OmbriaS1/test/AFTER", "*_00*.png", "VV"),
    ],
)
def test_real_images(folder: str, pattern: str, bands: str, tmp_path: Path) -> None:
    for path in shared(folder).glob(pattern):
        (tmp_path / "scenes").mkdir(exist_ok=True)
        (tmp_path / "scenes" / path.name).symlink_to(path)
    what = Cut((), size=64, how="random", count=4, bands=bands, unit="metres" if bands == "elevation" else "", unlabelled=True)
    told = cut_scenes(tmp_path / "chips", tmp_path / "scenes", what)
    assert told["chips"] == 4 * told["events"] > 0
    for chip in open_dataset(tmp_path / "chips").chips():
        assert (chip.truth, unfit(chip.pixels, chip.valid, 0.9 * 64**2)) == (None, "")
