"""Simulated slides, fractures and damaged towns: truth that the picture follows, physical values, and no seams."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

from aftermap import pieces
from aftermap.cli import main
from aftermap.errors import UsageError
from aftermap.raster import facts, read_window
from aftermap.simulate import building, flood, fracture, landslide
from aftermap.simulate.optical import BANDS
from aftermap.tiles import Window

Layers = Mapping[str, npt.NDArray[Any]]

BLOCKS: dict[str, Callable[[int, int, int], Layers]] = {
    "landslide": partial(landslide.block, sensor="sentinel-2", terrain="andes", looks=4.9, gsd_m=10),
    "landslide-radar": partial(landslide.block, sensor="sentinel-1", terrain="andes", looks=4.9, gsd_m=10),
    "fracture": partial(fracture.block, gsd_m=125),
    "building": partial(building.block, gsd_m=0.5),
}
SCENES: dict[str, tuple[str, dict[str, Any]]] = {
    "landslide": ("landslide", {}),
    "landslide-radar": ("landslide", {"sensor": "sentinel-1", "coherence": True}),
    "fracture": ("fracture", {}),
    "building": ("building", {}),
}
SEED, SIZE = 1, 200


@pytest.fixture(scope="module")
def made() -> dict[str, Layers]:
    """Block (0, 0) of each kind, on its own."""
    return {name: make(SEED, 0, 0) for name, make in BLOCKS.items()}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A scene of each kind on disk, a cut block."""
    out = tmp_path_factory.mktemp("scenes")
    for name, (kind, options) in SCENES.items():
        pieces.load("simulate", kind)(out / name, size=SIZE, seed=SEED, **options)
    return {name: out / name for name in SCENES}


def _near(truth: npt.NDArray[np.bool_], margin: int) -> npt.NDArray[np.bool_]:
    """The mask grown by `margin` pixels."""
    grown = truth.copy()
    for axis in (0, 1):
        grown = np.logical_or.reduce([np.roll(grown, k, axis) for k in range(-margin, margin + 1)])
    return grown


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_on_its_own_is_the_files_block(name: str, made: dict[str, Layers], folders: dict[str, Path]) -> None:
    files = {p.stem for p in folders[name].glob("*.tif")}
    assert {"before", "after", "truth", "dem"} <= files
    for layer in files:
        block = made[name][layer]
        bands = tuple(range(1, len(block) + 1))
        written = read_window(folders[name] / f"{layer}.tif", Window(0, 0, SIZE, SIZE), bands)
        np.testing.assert_array_equal(written, block[:, :SIZE, :SIZE], err_msg=layer)


@pytest.mark.parametrize("name", BLOCKS)
def test_the_world_goes_on_across_the_edge_of_a_block(name: str, made: dict[str, Layers]) -> None:
    east = BLOCKS[name](SEED, 0, 1)
    for layer in ("truth", "dem"):
        left, right = (b[layer].astype(float) for b in (made[name], east))
        across = np.abs(right[:, :, 0] - left[:, :, -1]).mean()
        within = np.abs(np.diff(np.concatenate([left, right], axis=2), axis=2)).mean()
        assert across <= 4 * within + 0.02, layer


@pytest.mark.parametrize("name", BLOCKS)
def test_files_say_what_they_are(name: str, folders: dict[str, Path]) -> None:
    of = {p.stem: facts(p) for p in folders[name].glob("*.tif")}
    assert len({f.grid for f in of.values()}) == 1
    assert all(f.tags["SIMULATED"].startswith(f"aftermap {SCENES[name][0]} seed={SEED}") for f in of.values())
    assert of["dem"].units == ("metres",)
    assert (of["truth"].dtype, of["truth"].nodata[0]) == ("uint8", 255)
    assert of["before"].tags["ACQUISITION_DATETIME"] < of["after"].tags["ACQUISITION_DATETIME"]
    expected = {
        "landslide": (BANDS, "uint16", "reflectance"),
        "landslide-radar": (("VV", "VH"), "float32", "dB"),
        "fracture": (("grey",), "uint16", "digital_number"),
        "building": (("red", "green", "blue"), "uint8", "digital_number"),
    }[name]
    for date in ("before", "after"):
        assert (of[date].descriptions, of[date].dtype, of[date].units[0]) == expected


@pytest.mark.parametrize(
    ("name", "row", "least", "most"),
    [("landslide", 1, 0.004, 0.06), ("fracture", 1, 0.005, 0.1), ("building", 5, 0.01, 0.10)],
)
def test_truth_is_as_rare_as_in_the_field(name: str, row: int, least: float, most: float) -> None:
    shares = [BLOCKS[name](seed, at, 0)["truth"][0].mean() for seed in (1, 2) for at in (0, row)]
    assert least < np.mean(shares) < most


def test_other_seed_other_scene_same_seed_same_scene(made: dict[str, Layers]) -> None:
    again, other = (BLOCKS["fracture"](seed, 0, 0)["after"] for seed in (SEED, SEED + 1))
    np.testing.assert_array_equal(again, made["fracture"]["after"])
    assert (again != other).mean() > 0.9


def test_slides_lie_on_slopes_and_bare_the_ground(made: dict[str, Layers]) -> None:
    scene = made["landslide"]
    slid, water, hidden = scene["truth"] == 1
    down, right = np.gradient(scene["dem"][0], 10.0)
    slope = np.degrees(np.arctan(np.hypot(down, right)))
    assert np.median(slope[slid]) > 22
    assert not (slid & water).any()
    seen = ~hidden
    index = {}
    for date in ("before", "after"):
        red, nir, swir = (scene[date][BANDS.index(b)].astype(float) for b in ("B04", "B08", "B11"))
        index[date] = ((nir - red) / (nir + red), red, swir)
    fall = index["after"][0] - index["before"][0]
    assert np.median(fall[slid & seen]) < -0.3
    assert abs(np.median(fall[~_near(slid, 3) & seen])) < 0.08
    assert np.median((index["after"][1] / index["before"][1])[slid & seen]) > 2


def test_reflectance_lies_where_sentinel_2_lies(made: dict[str, Layers]) -> None:
    before = made["landslide"]["before"].astype(float) / 10_000
    assert before.min() > 0
    medians = dict(zip(BANDS, np.median(before.reshape(12, -1), axis=1), strict=True))
    assert 0.015 < medians["B04"] < 0.12
    assert 0.12 < medians["B08"] < 0.40
    assert medians["B05"] < medians["B06"] < medians["B08"]


def test_radar_sees_slides_by_vh_and_coherence(made: dict[str, Layers]) -> None:
    scene = made["landslide-radar"]
    slid, _, hidden = scene["truth"] == 1
    change = scene["after"] - scene["before"]
    vv, vh = change[:, slid].mean(1)
    assert -4 < vh < -0.8
    assert vh < vv
    assert (np.abs(change[:, ~slid].mean(1)) < 0.3).all()
    pre, co = scene["coherence"]
    assert co[slid & ~hidden].mean() < pre[slid & ~hidden].mean() - 0.05
    assert abs(co[~slid].mean() - pre[~slid].mean()) < 0.01
    # facing slopes are bright: elevation falls eastward, toward the radar
    east = np.gradient(scene["dem"][0], 10.0, axis=1)
    assert np.median(scene["before"][0][east < -0.3]) > np.median(scene["before"][0][east > 0.3]) + 3


def test_fractures_are_linear_bright_and_more_than_before(made: dict[str, Layers]) -> None:
    scene = made["fracture"]
    fracture_, new = scene["truth"] == 1
    shelf = scene["after"][0] > 0
    assert not (fracture_ & ~shelf).any()
    assert (fracture_ >= new).all()
    assert 0.1 < new.sum() / fracture_.sum() < 0.6
    grey = scene["after"][0].astype(float)
    assert np.median(grey[fracture_]) > np.median(grey[shelf & ~fracture_]) + 3000
    rim = _near(fracture_, 3) & ~fracture_ & shelf
    assert np.percentile(grey[rim], 5) < np.percentile(grey[shelf & ~_near(fracture_, 6)], 5) - 3000
    change = np.abs(grey - scene["before"][0])
    assert change[new].mean() > 3 * change[shelf & ~_near(fracture_, 8)].mean()


def test_every_house_has_one_grade_and_graver_means_more_change() -> None:
    scene = next(s for s in (BLOCKS["building"](3, row, 0) for row in range(9)) if len(np.unique(s["truth"][1])) == 4)
    damaged, grade, house, _ = scene["truth"]
    np.testing.assert_array_equal(damaged == 1, grade >= 2)
    assert (house[grade > 0] == 1).all()
    inside = ~_near(house == 0, 1)  # houses of two lots never touch
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        pair = inside[one] & inside[other]
        assert (grade[one][pair] == grade[other][pair]).all()
    change = np.abs(scene["after"].astype(float) - scene["before"]).mean(0)
    spared, minor, *grave = (change[inside & (grade == g)].mean() for g in range(4))
    assert spared < minor
    assert spared + 10 < min(grave)


@pytest.mark.parametrize("terrain", ["hills", "alps"])
def test_floods_have_optical_pictures_and_other_terrain(terrain: str) -> None:
    scene = flood.block(1, 0, 1, looks=4.9, gsd_m=10, stage_m=2.5, sensor="sentinel-2", terrain=terrain, coherence=True)
    wet, permanent = scene.truth == 1
    assert 0 < wet.mean() < 0.3
    green, swir = (scene.after[BANDS.index(b)].astype(float) for b in ("B03", "B11"))
    water = (green - swir) / (green + swir)
    assert np.median(water[wet]) > np.median(water[~wet & ~permanent]) + 0.15
    assert scene.coherence is not None
    assert scene.coherence[1][wet].mean() < scene.coherence[0][wet].mean()


@pytest.mark.parametrize(
    ("kind", "wrong", "named"),
    [
        ("landslide", {"terrain": "plain"}, "mountains"),
        ("landslide", {"sensor": "sentinel-3"}, "sensor"),
        ("landslide", {"coherence": True}, "radar"),
        ("landslide", {"passes": 2}, "radar"),
        ("landslide", {"sensor": "sentinel-1", "passes": 6}, "passes"),
        ("flood", {"terrain": "moon"}, "terrain"),
        ("fracture", {"gsd_m": 1.0}, "gsd_m"),
        ("building", {"size": 10}, "size"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_written(
    kind: str, wrong: dict[str, Any], named: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=named) as caught:
        pieces.load("simulate", kind)(tmp_path / "out", **wrong)
    assert caught.value.repair
    assert not (tmp_path / "out").exists()


def test_the_command_makes_each_kind_and_names_options_that_a_kind_lacks(tmp_path: Path) -> None:
    out = str(tmp_path / "rgb")
    args = ["simulate", "landslide", "-o", out, "--size", "64", "--sensor", "rgb", "--terrain", "alps", "--quiet"]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 0, result.output
    assert facts(tmp_path / "rgb" / "after.tif").descriptions == ("red", "green", "blue")
    result = CliRunner().invoke(main, ["simulate", "fracture", "-o", out, "--looks", "3", "--quiet"])
    assert result.exit_code == 2
    assert "--looks" in result.stderr
