"""Chips from inventories: passes in order and averaged as power, ground as bands, points counted once, the published balance."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from aftermap import splits, vector
from aftermap.augment import Augment
from aftermap.chips import Chip
from aftermap.cli import main
from aftermap.cutting import Cut, cut
from aftermap.datasets.dataset import open_dataset
from aftermap.errors import BandError, InputRefusedError, UnknownNameError, UsageError
from aftermap.simulate import landslide
from aftermap.terrain import Ground
from tests import dataset_layouts
from tests.conftest import grid, write

SHAPE, SIZE = (160, 288), 32
"""5 x 9 chips."""
DAYS = {
    "before-3": "2024-04-01",
    "before-2": "2024-04-13",
    "before": "2024-05-03",
    "after": "2024-06-20",
    "after-2": "2024-07-02",
}
LEVELS = {"before-3": -30.0, "before-2": -20.0, "before": -10.0, "after": -8.0, "after-2": -18.0}
WATER_ROWS, HOLE = 20, np.s_[:, 70:75, 100:110]


def db(level: float) -> npt.NDArray[np.float32]:
    return np.stack([np.full(SHAPE, level, np.float32), np.full(SHAPE, level - 6, np.float32)])


def image(folder: Path, name: str, pixels: npt.NDArray[np.float32] | None = None, day: str = "") -> Path:
    tags = {"ACQUISITION_DATETIME": f"{day or DAYS[name]}T10:00:00Z"}
    return write(folder / f"{name}.tif", db(LEVELS[name]) if pixels is None else pixels, grid(SHAPE), ("VV", "VH"),
                 unit="dB", nodata=float("nan"), tags=tags)  # fmt: skip


def inventory(path: Path, heads: list[tuple[float, float]]) -> Path:
    """Points at these columns and rows, in another CRS than the images."""
    wgs84 = grid((10, 10), crs="EPSG:4326", gsd=0.01, origin=(13, 48))
    on = grid(SHAPE)
    moved = vector.reproject(vector.place(vector.points(heads), on.affine), "EPSG:32633", wgs84, "heads")
    with vector.GeoPackageWriter(path, wgs84, [vector.Layer("heads", "Point", {})]) as out:
        out.write("heads", moved, {})
    return path


@pytest.fixture
def event(tmp_path: Path) -> dict[str, Path]:
    """Five passes, the second after the event with a hole; landslides in some chips, and the sea in the last rows of the west."""
    after_2 = db(LEVELS["after-2"])
    after_2[HOLE] = np.nan
    found = {name: image(tmp_path, name, after_2 if name == "after-2" else None) for name in DAYS}
    truth = np.zeros((1, *SHAPE), np.uint8)
    for row, col in ((10, 40), (40, 200), (70, 105), (100, 20), (130, 250), (140, 10)):
        truth[0, row : row + 4, col : col + 6] = 1
    ramp = np.broadcast_to(10.0 * np.arange(SHAPE[1]) + 1, SHAPE).astype(np.float32)
    ramp[-WATER_ROWS:, :64] = -1
    found["truth"] = write(tmp_path / "truth.tif", truth, grid(SHAPE), ("class",))
    found["dem"] = write(tmp_path / "dem.tif", ramp[None], grid(SHAPE), ("elevation",), unit="metres")
    return found


def everything(event: dict[str, Path], **options: Any) -> Cut:
    passes: dict[str, Any] = {"before_pass": (event["before-2"], event["before-3"]), "after_pass": (event["after-2"],)}
    return Cut(
        (event["after"],), event["truth"], (event["before"],), **({**passes, "dem": (event["dem"],), "size": SIZE} | options)
    )


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "index.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_passes_and_ground_are_bands_of_a_chip(event: dict[str, Path], tmp_path: Path) -> None:
    cut(tmp_path / "chips", everything(event, size=80))
    found = open_dataset(tmp_path / "chips", passes=2, combine="stack")
    assert found.bands == (
        "VV", "VH", "before.VV", "before.VH", "before-2.VV", "before-2.VH", "after-2.VV", "after-2.VH",
        "dem.elevation", "dem.slope", "dem.aspect_sin", "dem.aspect_cos", "dem.curvature",
    )  # fmt: skip
    assert found.units == ("dB",) * 8 + ("metres", "degrees", "1", "1", "1/m")
    chip = found.read("after_000000_000080")
    # the ground rises a metre per metre to the east and faces west
    assert chip.pixels[:, 5, 7].tolist() == pytest.approx([-8, -14, -10, -16, -20, -26, -18, -24, 871, 45, -1, 0, 0], abs=0.02)
    sea = found.read("after_000080_000000").pixels[-5:, -3, 4].tolist()
    assert sea == [-1, 0, 0, 0, 0]


def test_where_slopes_face_turns_with_the_image() -> None:
    rng = np.random.default_rng(3)
    heights = np.cumsum(np.cumsum(rng.normal(size=(14, 19)), axis=0), axis=1)

    def ground(rimmed: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        sides = np.ones((rimmed.shape[0] - 2, rimmed.shape[1] - 2))
        found = Ground(rimmed.astype(np.float64), sides, sides)
        return np.concatenate([found.elevation[None], found.aspect_vector])

    bands = ("dem.elevation", "dem.aspect_sin", "dem.aspect_cos")
    pixels = ground(heights)
    chip = Chip(pixels, np.ones(pixels.shape[1:], bool), None, bands, ("metres", "1", "1"), "hill")
    for seed in range(12):
        turned = Augment(flip=0.5, turn=1, move=0)(chip, np.random.default_rng(seed)).pixels
        np.testing.assert_allclose(turned[1:, 1:-1, 1:-1], ground(turned[0])[1:], atol=1e-5)


def test_the_mean_is_of_power_and_of_passes_that_saw(event: dict[str, Path], tmp_path: Path) -> None:
    cut(tmp_path / "chips", everything(event, after_pass=(event["after-2"],), before_pass=(event["before-2"],), size=96))
    found = open_dataset(tmp_path / "chips", passes=2)
    assert found.bands[:4] == ("VV", "VH", "before.VV", "before.VH")
    chip = found.read("after_000000_000096")
    assert chip.pixels[2, 0, 0] == pytest.approx(10 * np.log10((0.1 + 0.01) / 2), abs=1e-4)
    assert chip.pixels[0, 0, 0] == pytest.approx(10 * np.log10((10**-0.8 + 10**-1.8) / 2), abs=1e-4)
    hole = np.isnan(chip.pixels[0])
    assert hole.sum() == 5 * 10
    assert hole[70:75, 4:14].all()
    one = open_dataset(tmp_path / "chips")
    assert one.read(chip.name).pixels[0].tolist() == db(-8)[0, :96, :96].tolist()
    assert open_dataset(tmp_path / "chips", passes=0).bands == found.bands
    with pytest.raises(InputRefusedError) as refused:
        open_dataset(tmp_path / "chips", passes=3)
    assert refused.value.code == "too-few-passes"


def test_passes_out_of_order_are_refused_and_both_times_named(event: dict[str, Path], tmp_path: Path) -> None:
    wrong: list[dict[str, Any]] = [
        {"before_pass": (event["before-3"], event["before-2"])},
        {"before_pass": (event["after-2"],)},
        {"after_pass": (event["before-3"],)},
        {"before_pass": (event["before"],)},
    ]
    for given_passes in wrong:
        with pytest.raises(InputRefusedError, match=r"\(2024-.*\) is not earlier than .*\(2024-") as refused:
            cut(tmp_path / "chips", everything(event, **{"after_pass": (), **given_passes}))
        assert refused.value.code == "pass-order"
    assert not (tmp_path / "chips").exists()
    with pytest.raises(UsageError, match="--before"):
        cut(tmp_path / "chips", Cut((event["after"],), event["truth"], before_pass=(event["before-2"],)))


def test_passes_of_other_bands_or_unit_are_refused(event: dict[str, Path], tmp_path: Path) -> None:
    swapped = write(tmp_path / "swapped.tif", db(-20), grid(SHAPE), ("VH", "VV"), unit="dB")
    with pytest.raises(BandError, match="VH, VV") as refused:
        cut(tmp_path / "chips", everything(event, before_pass=(swapped,)))
    assert refused.value.code == "band-missing"
    power = write(tmp_path / "power.tif", 10 ** (db(-20) / 10), grid(SHAPE), ("VV", "VH"), unit="power")
    with pytest.raises(BandError, match="power") as refused:
        cut(tmp_path / "chips", everything(event, before_pass=(power,)))
    assert refused.value.code == "unit-mismatch"


def test_points_are_counted_once_and_by_the_area_of_the_ground(event: dict[str, Path], tmp_path: Path) -> None:
    # one in the first chip, one on the corner of four, two at once, and one outside the image
    heads = inventory(tmp_path / "heads.gpkg", [(5, 5), (64.0, 32.0), (100.5, 40.2), (101.5, 41.2), (400, 10)])
    out = tmp_path / "chips"
    cut(out, Cut((event["after"],), points=heads, size=SIZE))
    of = {row["name"]: row for row in rows(out)}
    assert sum(int(row["points"]) for row in of.values()) == 4
    assert int(of["after_000032_000096"]["points"]) == 2
    # 32 px of 10 m in UTM are 0.1024 km2 to some parts in a thousand
    assert float(of["after_000032_000096"]["points_per_km2"]) == pytest.approx(2 / 0.1024, rel=2e-3)
    found = open_dataset(out)
    assert found.classes == ("landslide",)
    chip = found.read("after_000000_000000")
    assert (chip.truth, chip.target) == (None, (1,))
    assert sum(c.target == (1,) for c in found.chips()) in (3, 4)
    assert open_dataset(out, present_only=True).ids() == [n for n, row in of.items() if int(row["points"])]
    density = open_dataset(out, target="density", edges=(0, 15))
    assert density.classes == ("none", "up to 15 per km2", "over 15 per km2")
    assert [density.read(f"after_{at}").target for at in ("000064_000000", "000000_000000", "000032_000096")] == [0, 1, 2]


def test_points_elsewhere_and_no_labels_at_all_are_refused(event: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputRefusedError) as refused:
        cut(tmp_path / "chips", Cut((event["after"],), points=inventory(tmp_path / "far.gpkg", [(900, 900)]), size=SIZE))
    assert refused.value.code == "points-outside"
    with pytest.raises(UsageError, match="neither truth nor points"):
        cut(tmp_path / "chips", Cut((event["after"],)))
    with pytest.raises(UnknownNameError, match="curvature"):
        cut(tmp_path / "chips", everything(event, terrain="slope,curvatur"))
    cut(tmp_path / "chips", everything(event, size=96))
    with pytest.raises(UsageError, match="--points"):
        open_dataset(tmp_path / "chips", target="density")


def test_published_chips_are_whole_dry_and_half_of_them_have_landslides(event: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "chips"
    told = cut(out, everything(event, how="published"))
    found = open_dataset(out, target="presence", passes=0)
    # of the six one lies under the hole of the second pass, one by the sea
    assert told["chips"] == 8
    assert told["left_out"] == {"not wholly observed": 1, "water": 2, "without a landslide, not drawn": 42 - 8}
    assert sum(chip.target == (1,) for chip in found.chips()) == 4
    assert all(np.isfinite(chip.pixels).all() for chip in found.chips())
    assert not {"after_000064_000096", "after_000128_000000", "after_000128_000032"} & set(found.ids())
    assert cut(tmp_path / "one", everything(event, how="published", after_pass=(), dem=()))["chips"] == 12
    contradicting: list[dict[str, Any]] = [{"count": 5}, {"stride": 16}, {"least_valid": 0.5}]
    for wrong in contradicting:
        with pytest.raises(UsageError, match="published"):
            cut(tmp_path / "two", everything(event, how="published", **wrong))


def test_a_random_split_meets_its_numbers_and_is_hashed(event: dict[str, Path], tmp_path: Path) -> None:
    words = ["chips", "--after", event["after"], "--truth", event["truth"], "--size", SIZE, "--how", "published", "--quiet"]
    out, again = tmp_path / "chips", tmp_path / "again"
    for folder, seed in ((out, 0), (again, 1)):
        shares = ["--split", "random", "--shares", "pretrain=4,train=4,validation=2,test=2", "--seed", seed, "-o", folder]
        result = CliRunner().invoke(main, [*map(str, words), *map(str, shares)])
        assert result.exit_code == 0, result.output
        assert "neighbours" in result.stderr
    said, other = (json.loads((folder / "split.json").read_text()) for folder in (out, again))
    assert said["sides"] == {row["name"]: row["split"] for row in rows(out)}
    assert (said["protocol"], said["seed"], said["shares"]["test"]) == ("random", 0, 2)
    assert said["sha256"] == splits.digest(dict(reversed(said["sides"].items())))
    assert said["sha256"] != other["sha256"]
    found = open_dataset(out, target="presence")
    assert "neighbours" in found.facts.cautions[0]
    for side, count in said["shares"].items():
        assert len(found.ids(side)) == count
        assert sum(found.read(name).target == (1,) for name in found.ids(side)) == count / 2
    (out / "index.csv").write_text((out / "index.csv").read_text().replace(",test,", ",train,", 1))
    with pytest.raises(InputRefusedError) as refused:
        open_dataset(out)
    assert refused.value.code == "split-altered"


@settings(max_examples=100)
@given(st.lists(st.booleans(), min_size=4, max_size=300), st.integers(0, 9))
def test_every_side_of_a_random_split_has_its_part_of_the_landslides(having: list[bool], seed: int) -> None:
    sides = splits.at_random(having, np.random.default_rng(seed))
    assert len(sides) == len(having)
    for side in splits.PUBLISHED_SHARES:
        own = [h for h, s in zip(having, sides, strict=True) if s == side]
        assert abs(sum(own) - len(own) * np.mean(having)) < 1.5
    numbers = {"one": 2, "two": 1}
    dealt = splits.at_random(having, np.random.default_rng(seed), numbers)
    assert {k: dealt.count(k) for k in numbers} == numbers


def test_shares_that_cannot_be_are_refused(event: dict[str, Path], tmp_path: Path) -> None:
    for said in ("train", "train=0.5,test=0.6", "train=1,train=2", "train=0,test=1", "=3", "train=-1.0,test=2.0"):
        with pytest.raises(UsageError):
            splits.read_shares(said)
    with pytest.raises(UsageError) as refused:
        splits.at_random([True, False], np.random.default_rng(0), {"train": 2, "test": 1})
    assert refused.value.code == "too-few-chips"
    with pytest.raises(UsageError, match="blocks"):
        cut(tmp_path / "chips", everything(event, split="blocks", shares="train=3,test=2"))
    with pytest.raises(UsageError, match="split"):
        cut(tmp_path / "chips", everything(event, shares="train=0.5,test=0.5"))


def test_blocks_keep_their_gap_and_each_side_its_balance(event: dict[str, Path], tmp_path: Path) -> None:
    what = Cut((event["after"],), event["truth"], size=16, how="published", split="blocks", shares="train=0.5,test=0.5",
               block_px=64, seed=4)  # fmt: skip
    cut(tmp_path / "chips", what)
    said = json.loads((tmp_path / "chips" / "split.json").read_text())
    assert (said["protocol"], said["block_px"], said["gap_px"]) == ("blocks", 64, 16)
    found = open_dataset(tmp_path / "chips", target="presence")
    windows = {side: [found.members[n].place for n in found.ids(side)] for side in ("train", "test")}
    corners = {side: np.array([(int(p["row"]), int(p["col"])) for p in own]) for side, own in windows.items()}
    apart = np.abs(corners["train"][:, None] - corners["test"][None]).max(axis=2)
    assert apart.min() >= 16 + 16
    for side in windows:
        having = sum(found.read(n).target == (1,) for n in found.ids(side))
        assert having > 0
        assert len(found.ids(side)) == 2 * having


def test_from_a_simulated_storm_to_chips_with_density(tmp_path: Path) -> None:
    out, scene = tmp_path / "chips", tmp_path / "slides"
    landslide.simulate(scene, size=512, seed=3, sensor="sentinel-1", passes=3)
    words = ["chips", "--after", "after.tif", "--before", "before.tif", "--after-pass", "after-2.tif", "after-3.tif",
             "--before-pass", "before-2.tif", "before-3.tif", "--dem", "dem.tif", "--points", "inventory.gpkg"]  # fmt: skip
    files = [str(scene / w) if "." in w else w for w in words]
    more = ["--size", "64", "--how", "balanced", "--count", "16", "--split", "random", "--quiet", "-o", str(out)]
    result = CliRunner().invoke(main, [*files, *more])
    assert result.exit_code == 0, result.output
    found, single = open_dataset(out, passes=3), open_dataset(out)
    assert found.bands == single.bands == ("VV", "VH", "before.VV", "before.VH", "dem.elevation", "dem.slope",
                                           "dem.aspect_sin", "dem.aspect_cos", "dem.curvature")  # fmt: skip
    assert {side: len(found.ids(side)) for side in found.splits} == {"train": 10, "validation": 3, "test": 3}
    assert sum(chip.target == (1,) for chip in found.chips()) == 8
    for name in found.ids()[:3]:
        one, three = single.read(name).pixels[0], found.read(name).pixels[0]
        assert three.std() < one.std() - 0.3  # less speckle
    dense = open_dataset(out, target="density")
    assert dense.classes == ("none", "up to 25 per km2", "over 25 per km2")
    for chip in dense.chips():
        per_km2 = float(dense.members[chip.name].place["points_per_km2"])
        assert chip.target == (0 if per_km2 == 0 else 1 if per_km2 <= 25 else 2)
        assert chip.truth is None


def _take(made: Path, out: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["chips", "--data", str(made), "--quiet", "-o", str(out), *words])


def test_chips_of_a_cube_get_the_published_balance_and_a_split_of_their_own(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    made = dataset_layouts.sar_landslides(tmp_path / "cubes").folder
    settings_of = ["--set", "terrain=elevation", "--set", "passes=1"]
    result = _take(
        made, tmp_path / "chips", *settings_of, "--set", "size=8", "--how", "published", "--split", "random", "--seed", "1"
    )
    assert result.exit_code == 0, result.output
    assert "neighbours" in result.stderr
    assert "left out: water" in result.stderr
    found = open_dataset(tmp_path / "chips", target="presence")
    # all ground above the sea is a landslide, so that there is none without to draw
    every = open_dataset(made, "sar-landslides", size=8, complete=True)
    assert set(found.ids()) == set(every.ids())
    assert set(found.splits) == {"pretrain", "train", "validation", "test"}
    one = found.ids()[0]
    np.testing.assert_array_equal(found.read(one).pixels[:4], every.read(one).pixels)
    result = _take(
        made, tmp_path / "blocks", *settings_of, "--set", "size=12", "--split", "blocks", "--block-px", "36", "--gap-px", "1"
    )
    assert result.exit_code == 0, result.output
    assert "left out between splits" in result.output
    result = _take(
        made, tmp_path / "one", *settings_of, "--set", "size=24", "--split", "blocks", "--block-px", "99", "--gap-px", "0"
    )
    assert "no chip is left for" in result.stderr
    result = _take(made, tmp_path / "other", "--size", "64")
    assert result.exit_code == 2
    assert "--size" in result.stderr
