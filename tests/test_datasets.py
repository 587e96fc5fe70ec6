"""Every data set in PIECES keeps one contract, tested by existing, on its official layout written small; and their traps."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from aftermap import pieces
from aftermap.bandstats import SplitStatistics, examine
from aftermap.chips import UNKNOWN
from aftermap.cli import main
from aftermap.datasets import m3leo_parts, worldcover
from aftermap.datasets.dataset import open_dataset, published
from aftermap.errors import AftermapError, BandError, InputRefusedError, UnknownNameError, UsageError
from tests import dataset_layouts
from tests.dataset_layouts import MAKERS, SIDE, Made

NAMES = list(pieces.PIECES["dataset"])


@pytest.fixture
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    return MAKERS[request.param](tmp_path)


def everyone() -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("made", "name"), [(n, n) for n in NAMES], indirect=["made"], ids=NAMES)


@everyone()
def test_chips_keep_the_contract(made: Made, name: str) -> None:
    found = open_dataset(made.folder, **made.settings)
    assert found.name == name
    assert (set(found.splits), set(found.events)) == (made.splits, made.events)
    assert sorted(n for s in found.splits for n in found.ids(s)) == sorted(found.ids())
    assert sum(found.sizes().values()) == len(found.ids())
    chips, held = found.chips(), set()
    for chip, member in zip(chips, found.ids(), strict=True):
        assert (chip.name, chip.bands, chip.unit) == (member, found.bands, found.unit)
        assert chip.event == found.members[member].event
        assert chip.domain
        np.testing.assert_array_equal(chip.valid, np.isfinite(chip.pixels).all(axis=0))
        assert chip.valid.any()
        if chip.truth is not None:
            assert set(np.unique(chip.truth)) <= {*range(len(found.classes)), UNKNOWN}
            held |= set(np.unique(chip.truth[chip.labelled]).tolist())
    assert len(held) > 1
    assert chips.corrupt == []
    there = pickle.loads(pickle.dumps(found))  # processes that read for one that trains get it so
    np.testing.assert_array_equal(there.read(chip.name).pixels, chip.pixels)
    facts = published(name).facts
    assert facts.title
    assert facts.licence
    assert facts.record or facts.access or facts.sources


@everyone()
def test_a_damaged_member_is_named_and_never_dropped(made: Made, name: str) -> None:
    whole = made.damage.read_bytes()
    made.damage.write_bytes(whole[: len(whole) // 2])
    found = open_dataset(made.folder, name, **made.settings)
    with pytest.raises(InputRefusedError, match=made.chip) as refused:
        list(found.chips())
    assert refused.value.code == "corrupt-member"
    chips = found.chips(on_corrupt="skip")
    read = [chip.name for chip in chips]
    assert made.chip not in read
    assert len(read) + len(chips.corrupt) == len(chips)
    assert any(made.chip in error.what for error in chips.corrupt)
    assert any(made.chip in error.what for error in examine(found).corrupt)


@everyone()
def test_a_missing_file_is_named(made: Made, name: str) -> None:
    if made.remove is None:
        pytest.skip("no list says what should be there")
    made.remove.unlink()
    found = open_dataset(made.folder, name, **made.settings)
    assert any(made.remove.stem in absent for absent in found.absent)


@pytest.mark.parametrize("name", NAMES)
def test_another_folder_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(InputRefusedError) as refused:
        open_dataset(tmp_path, name)
    assert refused.value.code == "dataset-layout"
    with pytest.raises(UnknownNameError):
        published(name)(tmp_path, colour="red")


def test_sen1floods11_leaves_unseen_what_the_baseline_fills_with_0_db(tmp_path: Path) -> None:
    made = dataset_layouts.sen1floods11(tmp_path)
    chip = open_dataset(made.folder).read("Ghana_1")
    assert chip.truth is not None
    assert chip.bands == ("VV", "VH")
    assert not chip.valid[-2:].any()
    assert np.isnan(chip.pixels[:, -2:]).all()
    assert (chip.truth[5:7, 3] == UNKNOWN).all()
    optical = open_dataset(made.folder, image="s2")
    assert optical.bands[8] == "B8A"
    assert 0.005 < float(np.nanmedian(optical.read("Ghana_1").pixels)) < 0.4


@pytest.mark.parametrize(("unclassified", "code"), [("unknown", UNKNOWN), ("no-damage", 1), ("background", 0)])
def test_xbd_unclassified_is_a_setting(unclassified: str, code: int, tmp_path: Path) -> None:
    made = dataset_layouts.xbd(tmp_path)
    truth = open_dataset(made.folder, unclassified=unclassified).read(made.chip).truth
    assert truth is not None
    assert [int(truth[row, 4]) for row in (1, 7, 13, 19, 23)] == [1, 4, code, 2, 0]
    assert truth[1, 1] == 0
    assert truth[1, 8] == 0  # x before y: the polygon spans columns 2 to 8


def test_xbd_labels_before_the_event_have_no_grade(tmp_path: Path) -> None:
    made = dataset_layouts.xbd(tmp_path)
    truth = open_dataset(made.folder, truth="building").read(made.chip).truth
    assert truth is not None
    assert truth.sum() == 24
    alone = open_dataset(made.folder, truth="building", image="before")
    assert alone.bands == ("red", "green", "blue")
    both = open_dataset(made.folder, truth="building").read(made.chip)
    np.testing.assert_array_equal(alone.read(made.chip).pixels, both.pixels[:3])
    after = made.folder / "train/labels/palu-tsunami_00000001_post_disaster.json"
    after.write_text(after.read_text().replace('"destroyed"', '"gone"'))
    with pytest.raises(InputRefusedError, match="gone"):
        open_dataset(made.folder).read(made.chip)


def test_hr_gldd_band_order_is_a_parameter(tmp_path: Path) -> None:
    made = dataset_layouts.hr_gldd(tmp_path)
    rgbn, bgrn = (open_dataset(made.folder, order=o) for o in ("rgbn", "bgrn"))
    one, other = rgbn.read("train_0002"), bgrn.read("train_0002")
    for name in ("green", "nir"):
        np.testing.assert_array_equal(one.pixels[one.bands.index(name)], other.pixels[other.bands.index(name)])
    np.testing.assert_array_equal(one.pixels[one.bands.index("red")], other.pixels[other.bands.index("blue")])


def test_landslide4sense_pairs_by_number_in_both_layouts(tmp_path: Path) -> None:
    made = dataset_layouts.landslide4sense(tmp_path / "official")
    found = open_dataset(made.folder)
    assert found.ids("train") == ["train_0002", "train_0010"]
    assert float(found.read("train_0010").pixels.max()) > float(found.read("train_0002").pixels.max())
    assert found.bands[-2:] == ("slope", "elevation")
    assert "B8A" not in found.bands
    assert found.read("validation_0002").truth is None
    mirror = tmp_path / "mirror"
    for inner, own in (("img", "images"), ("mask", "annotations")):
        (mirror / own).mkdir(parents=True)
        (made.folder / "TrainData" / inner).rename(mirror / own / "train")
    assert open_dataset(mirror).ids("train") == ["train_0002", "train_0010"]


def test_antarctic_ice_alone_counts(tmp_path: Path) -> None:
    made = dataset_layouts.antarctic_fractures(tmp_path)
    chip = open_dataset(made.folder).read("fracture_1x6")
    assert not chip.valid[:, :5].any()
    assert chip.valid[:, 5:].all()
    empty = open_dataset(made.folder, empty="unknown").read("fracture_3x4").truth
    assert empty is not None
    assert (empty == UNKNOWN).all()


def test_ombria_groups_that_may_be_one_country_stay_together(tmp_path: Path) -> None:
    made = dataset_layouts.ombria(tmp_path)
    found = open_dataset(made.folder)
    assert found.ids(events=["A+B+H"]) == ["0001", "0002"]
    assert found.bands == (
        "before.VV", "VV", "before.swir1", "before.nir", "before.green", "swir1", "nir", "green",
    )  # fmt: skip
    assert not found.read("0001").valid[:, -3:].any()
    apart = open_dataset(made.folder, image="after")
    assert apart.bands == ("s1.VV", "s2.swir1", "s2.nir", "s2.green")
    np.testing.assert_array_equal(apart.read("0001").pixels, found.read("0001").pixels[[1, 5, 6, 7]])


@pytest.mark.parametrize(("passes", "before", "after"), [(1, 4.0, 5.0), (2, 3.5, None)])
def test_the_last_pass_before_the_event_is_used(passes: int, before: float, after: float | None, tmp_path: Path) -> None:
    # methods.md trap 25. Passes d d d d | d a: of two descending after the event there is but one.
    made = dataset_layouts.sar_landslides(tmp_path)
    if after is None:
        with pytest.raises(InputRefusedError) as refused:
            open_dataset(made.folder, "sar-landslides", passes=passes, size=SIDE)
        assert refused.value.code == "too-few-passes"
        return
    found = open_dataset(made.folder, passes=passes, size=SIDE, terrain=True)
    assert len(found.ids()) == 6
    chip = found.read("hokkaido_japan_00000_00000")
    seen = [before, before / 10, after, after / 10, 100, 45, -1, 0, -0.5]
    assert chip.pixels[:, 5, 7].tolist() == pytest.approx(seen, abs=1e-6)
    assert chip.pixels[4:, -1, 0].tolist() == [0, 0, 0, 0, 0]  # flat: it faces nowhere
    assert not chip.valid[:3, :3].any()
    assert chip.valid[3:].all()


def test_passes_before_the_event_are_stacked_from_the_last_one_outward(tmp_path: Path) -> None:
    # as above, the event a day earlier: d d d | d d a
    made = dataset_layouts.sar_landslides(tmp_path)
    found = open_dataset(made.folder, "sar-landslides", passes=2, combine="stack", size=SIDE, event_time="2018-09-04T12:00")
    assert found.bands == ("before.VV", "before.VH", "before-2.VV", "before-2.VH", "VV", "VH", "after-2.VV", "after-2.VH")
    chip = found.read("hokkaido_japan_00000_00024")
    assert chip.pixels[::2, 5, 7].tolist() == [3, 2, 4, 5]
    mean = open_dataset(made.folder, "sar-landslides", passes=2, size=SIDE, event_time="2018-09-04T12:00")
    assert mean.read(chip.name).pixels[::2, 5, 7].tolist() == [2.5, 4.5]


def test_chips_of_a_cube_that_count_are_whole_dry_and_have_landslides(tmp_path: Path) -> None:
    # NaN in the first chip; two chips in three are at 0 m in their lower two thirds, and the second row wholly
    made = dataset_layouts.sar_landslides(tmp_path)
    every = open_dataset(made.folder, "sar-landslides", size=8)
    whole = open_dataset(made.folder, "sar-landslides", size=8, complete=True)
    assert set(whole.ids()) == {n for n in every.ids() if n.startswith("hokkaido_japan_00000_")} - {"hokkaido_japan_00000_00000"}
    assert f"{len(every.ids()) - len(whole.ids()) - 1} chips left out: water" in whole.facts.cautions
    assert "1 chips left out: not wholly observed" in whole.facts.cautions
    present = open_dataset(made.folder, "sar-landslides", size=8, present_only=True)
    assert {*present.ids()} == {*whole.ids(), "hokkaido_japan_00000_00000"}


def test_a_cube_of_another_event_needs_its_time(tmp_path: Path) -> None:
    made = dataset_layouts.sar_landslides(tmp_path)
    (made.folder / "hokkaido_japan.zarr").rename(made.folder / "elsewhere.zarr")
    with pytest.raises(UsageError, match="event_time"):
        open_dataset(made.folder, "sar-landslides", size=SIDE)
    two = open_dataset(made.folder, "sar-landslides", size=SIDE, event_time="2018-09-04T12:00")
    assert float(two.read("elsewhere_00000_00024").pixels[0, 0, 0]) == 3


def test_sen12landslides_turns_x_and_y_and_takes_the_dates_around_the_event(tmp_path: Path) -> None:
    chip = open_dataset(dataset_layouts.sen12landslides(tmp_path).folder).read("nepal_s2_3")
    assert chip.truth is not None
    assert chip.bands[:2] == ("before.B02", "before.B03")
    assert chip.pixels[:, 3, 5].tolist() == pytest.approx([0.1703] * 10 + [0.1803] * 10)
    assert chip.truth[: SIDE // 3].all()
    assert not chip.truth[SIDE // 3 :].any()
    assert not chip.valid[:, 0].any()  # cloud on the date after
    assert chip.valid[:, 1:].all()


def test_sen12landslides_refuses_a_radar_unit_that_cannot_be(tmp_path: Path) -> None:
    made = dataset_layouts.sen12landslides(tmp_path)
    (made.folder / "data/s2").rename(made.folder / "data/s1asc")
    h5py = pytest.importorskip("h5py")
    path = made.folder / "data/s1asc/italy_s2_1.nc"
    with h5py.File(path, "a") as cube:
        for band, name in (("B02", "VV"), ("B03", "VH")):
            cube.move(band, name)
    with pytest.raises(UsageError, match="s1asc"):
        open_dataset(made.folder)
    found = open_dataset(made.folder, image="s1asc")
    with pytest.raises(InputRefusedError, match="unit=power"):
        found.read("italy_s2_1")


def test_bigearthnet_has_both_labels_and_one_grid(tmp_path: Path) -> None:
    made = dataset_layouts.bigearthnet(tmp_path)
    chip = open_dataset(made.folder).read(made.chip)
    assert chip.truth is not None
    assert chip.shape == (120, 120)
    assert chip.unit == (*("dB",) * 2, *("reflectance",) * 12)
    assert isinstance(chip.target, tuple)
    assert [i for i, yes in enumerate(chip.target) if yes] == [9, 18]
    assert [int(chip.truth[row, 5]) for row in (0, 50, 70)] == [18, 0, 9]
    assert chip.truth[0, 0] == UNKNOWN  # bare rock is none of the 19
    coarse = chip.pixels[2, ::6, ::6]
    np.testing.assert_array_equal(chip.pixels[2], np.kron(coarse, np.ones((6, 6))))  # 60 m repeated, not interpolated


def test_bigearthnet_has_natural_and_artificial_chips(tmp_path: Path) -> None:
    made = dataset_layouts.bigearthnet(tmp_path)
    found = open_dataset(made.folder, image="s2", labels="artificial")
    chip = found.read(made.chip)
    assert (found.classes, chip.target, chip.truth) == (("artificial",), (0,), None), "the sea and a wood"
    parquet = __import__("pyarrow.parquet").parquet
    rows = parquet.read_table(tmp_path / "metadata.parquet").to_pylist()
    for row in rows:
        row["labels"] = ["Marine waters", "Industrial or commercial units"]
    parquet.write_table(__import__("pyarrow").Table.from_pylist(rows), tmp_path / "metadata.parquet")
    assert open_dataset(made.folder, image="s2", labels="artificial").read(made.chip).target == (1,)
    picture, optical = (open_dataset(made.folder, image=image, labels="artificial").read(made.chip) for image in ("rgb", "s2"))
    assert (picture.bands, picture.unit) == (("red", "green", "blue"), "digital_number")
    np.testing.assert_allclose(picture.pixels, np.clip(optical.pixels[[3, 2, 1]] / 0.3, 0, 1) * 255, rtol=1e-4)
    with pytest.raises(UsageError, match="labels is 'built'"):
        open_dataset(made.folder, labels="built")


def test_worldfloods_cloud_is_unknown_and_windows_cover(tmp_path: Path) -> None:
    made = dataset_layouts.worldfloods(tmp_path)
    found = open_dataset(made.folder, size=16)
    assert len(found.ids("train")) == 9
    truth = found.read("EMSR265_01A_DEL_v1_00000_00000").truth
    assert truth is not None
    assert (truth[:2] == UNKNOWN).all()
    assert (truth[2:13] == 1).all()
    assert (truth[13:] == 0).all()


def test_m3leo_labels_of_tiles_are_means_of_what_is_known_and_no_whole_numbers(tmp_path: Path) -> None:
    made = dataset_layouts.m3leo(tmp_path)
    trees = open_dataset(made.folder, "m3leo", truth="tree-cover")
    chip = trees.read(f"{0:013x}")
    side = chip.shape[0]
    known = 0.5 * (side - 2) * side / 2 + 0.1 * (side - 2) * side / 2  # of 2020; a row of water counts 0, one of fill not at all
    assert chip.target == pytest.approx(known / ((side - 1) * side))
    assert (chip.truth, trees.classes) == (None, ("tree cover",))
    assert open_dataset(made.folder, "m3leo", truth="biomass").read(f"{0:013x}").target == 12.75
    with pytest.raises(InputRefusedError) as refused:
        open_dataset(made.folder, "m3leo", truth="built")
    assert refused.value.code == "dataset-layout"
    with pytest.raises(UsageError, match="biomas"):
        open_dataset(made.folder, "m3leo", truth="biomas")


def test_m3leo_undoes_the_wrapped_db(tmp_path: Path) -> None:
    # methods.md trap 16: -12 dB is stored as 65524.
    made = dataset_layouts.m3leo(tmp_path)
    chip = open_dataset(made.folder).read(made.chip)
    assert -30 <= float(np.nanmin(chip.pixels)) <= float(np.nanmax(chip.pixels)) <= -5
    assert chip.bands[:2] == ("s1grd.winter-VV-ascending", "s1grd.winter-VV-descending")
    assert m3leo_parts.unwrap(np.array([[[65524]]], np.uint16), "x").item() == -12
    with pytest.raises(BandError):
        m3leo_parts.unwrap(np.array([[[65524]]], np.float32), "x")


def test_worldcover_versions_are_never_mixed(tmp_path: Path) -> None:
    made = dataset_layouts.worldcover(tmp_path)
    (tmp_path / "ESA_WorldCover_10m_2021_v200_N45E009_Map.tif").rename(tmp_path / "ESA_WorldCover_10m_2020_v100_N45E009_Map.tif")
    with pytest.raises(InputRefusedError) as refused:
        open_dataset(made.folder)
    assert refused.value.code == "mixed-versions"
    assert open_dataset(made.folder, version="v100").events == ("N45E009",)
    truth = open_dataset(made.folder, version="v100").read("N45E009_00000_00000").truth
    assert truth is not None
    assert [int(truth[row, 0]) for row in (0, 5, 15, 30)] == [UNKNOWN, 9, 5, 0]  # no data is never tree (trap 17)
    assert len(worldcover.CLASSES) == 11


def test_a_mask_of_0_and_255_alone_is_a_question(tmp_path: Path) -> None:
    dataset_layouts.png(tmp_path / "images/a.png", dataset_layouts.noise(3, 1, 255, np.uint8))
    dataset_layouts.png(tmp_path / "masks/a.png", dataset_layouts.half(255))
    with pytest.raises(InputRefusedError) as refused:
        list(open_dataset(tmp_path).chips(on_corrupt="skip"))
    assert refused.value.code == "truth-ambiguous"
    truth = open_dataset(tmp_path, hazard_code=255).read("a").truth
    assert truth is not None
    assert truth.sum() == SIDE * (SIDE // 3)


def test_an_extra_that_is_missing_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = dataset_layouts.landslide4sense(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(AftermapError, match=r"aftermap\[data\]") as refused:
        open_dataset(made.folder).read(made.chip)
    assert refused.value.code == "extra-missing"


def test_written_facts_are_toml(tmp_path: Path) -> None:
    import tomllib

    dataset_layouts.folder(tmp_path)
    said = tomllib.loads((tmp_path / "facts.toml").read_text(encoding="utf-8"))
    assert said["bands"] == ["before.VV", "VV"]
    assert said["sources"] == [{"name": 'a "b".tif', "sha256": ""}]
    assert json.dumps(said["classes"]) == '["absent", "present"]'


def test_a_picture_with_one_byte_wrong_is_corrupt(tmp_path: Path) -> None:
    made = dataset_layouts.ombria(tmp_path)
    whole = bytearray(made.damage.read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    made.damage.write_bytes(whole)
    with pytest.raises(InputRefusedError) as refused:
        open_dataset(made.folder).read("0001")
    assert refused.value.code == "corrupt-member"


def test_the_commands_list_check_and_say_what_is_wrong(tmp_path: Path) -> None:
    run = CliRunner()
    rows = json.loads(run.invoke(main, ["data", "list", "--json"]).output)
    assert [row["name"] for row in rows] == NAMES
    made = dataset_layouts.sen1floods11(tmp_path)
    whole = run.invoke(main, ["data", "check", str(tmp_path), "--quiet"])
    assert (whole.exit_code, "3 members, 0 corrupt, 0 files missing" in whole.output) == (0, True)
    made.damage.write_bytes(made.damage.read_bytes()[:900])
    assert made.remove is not None
    made.remove.unlink()
    wrong = run.invoke(main, ["data", "check", str(tmp_path), "--quiet"])
    assert wrong.exit_code == InputRefusedError.exit_code
    assert "corrupt: Ghana_1 of sen1floods11" in wrong.output
    assert "USA_3_S1Hand.tif" in wrong.output
    stopped = run.invoke(main, ["data", "stats", str(tmp_path), "--quiet"])
    assert (stopped.exit_code, "[corrupt-member]" in stopped.output) == (3, True)
    on = run.invoke(main, ["data", "stats", str(tmp_path), "--quiet", "--json", "--on-corrupt", "skip"])
    assert json.loads(on.stdout)["corrupt"][0].startswith("Ghana_1")
    optical = run.invoke(main, ["data", "stats", str(tmp_path), "--quiet", "--json", "--set", "image=s2"])
    assert len(json.loads(optical.stdout)["splits"][0]["bands"]) == 13
    typo = run.invoke(main, ["data", "stats", str(tmp_path), "--set", "imag=s2"])
    assert "did you mean image?" in typo.output


def test_statistics_are_those_of_all_pixels_and_add_in_any_order(tmp_path: Path) -> None:
    found = open_dataset(dataset_layouts.sen1floods11(tmp_path).folder)
    chips = list(found.chips())
    one, other = (SplitStatistics(found.bands, found.classes) for _ in range(2))
    for chip in chips:
        one.add(chip)
    for chip in reversed(chips):
        other.add(chip)
    values = np.concatenate([c.pixels[:, c.valid] for c in chips], axis=1).astype(np.float64)
    row, again = one.row("x"), other.row("x")
    for k, band in enumerate(found.bands):
        assert row["bands"][band]["mean"] == pytest.approx(values[k].mean(), rel=1e-12)
        assert row["bands"][band]["std"] == pytest.approx(values[k].std(), rel=1e-12)
        assert row["bands"][band]["p50"] == pytest.approx(float(np.median(values[k])), abs=1.5)  # of a sample
        assert row["bands"][band] == pytest.approx(again["bands"][band], rel=1e-12)
    labelled = np.concatenate([c.truth[c.labelled] for c in chips if c.truth is not None])
    assert row["classes"]["water"] == pytest.approx(float((labelled == 1).mean()))
    assert SplitStatistics(found.bands, found.classes).row("none")["bands"]["VV"]["mean"] is None
