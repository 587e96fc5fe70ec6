"""Simulated land cover: classes follow from what stands on a pixel, and radar, coherence and light from the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

from aftermap.cli import main
from aftermap.datasets import worldcover
from aftermap.datasets.dataset import Dataset, open_dataset
from aftermap.datasets.landcover import BANDS, TRUTHS
from aftermap.errors import UnknownNameError, UsageError
from aftermap.journal import sha256
from aftermap.raster import facts, read_window
from aftermap.samples import survey
from aftermap.simulate.files import write_scene
from aftermap.simulate.landcover import LAYERS, REGIONS, block, many, simulate
from aftermap.simulate.vegetation import Class
from aftermap.tiles import Window
from aftermap.untrained import Untrained

Layers = Mapping[str, npt.NDArray[Any]]
SEED = 3


@pytest.fixture(scope="module")
def made() -> dict[str, Layers]:
    """A block of each region."""
    return {name: block(SEED, 3, 1, terrain=name, looks=4.9, gsd_m=10) for name in REGIONS}


@pytest.fixture(scope="module")
def folder(made: dict[str, Layers], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Corners of blocks as scenes that train, validate and test."""
    root = tmp_path_factory.mktemp("landcover")
    for name, seed in (("plain", 7), ("hills", 8), ("alps", 9)):
        grid = REGIONS[name].place.grid(128, 10)
        write_scene(root / f"{name}-{seed:06d}", LAYERS, lambda *_, own=made[name]: own, grid=grid, made_by="a test")
    return root


def test_classes_are_those_of_worldcover() -> None:
    words = {Class.TREES: "tree", Class.SHRUBS: "shrub", Class.BUILT: "built", Class.MOSS: "moss", Class.MANGROVES: "mangrove"}
    names = list(worldcover.CLASSES.values())
    assert len(Class) == len(names)
    assert all(names[kind].startswith(word) for kind, word in words.items())


def test_trees_make_the_class_from_a_tenth_on(made: dict[str, Layers]) -> None:
    for layers in made.values():
        kind, trees = layers["truth"]
        np.testing.assert_array_equal(kind == Class.TREES, trees >= 10)
        assert trees.max() <= 100


def test_each_region_has_its_own_mixture_and_none_has_mangroves(made: dict[str, Layers]) -> None:
    shares = {name: np.bincount(layers["truth"][0].ravel(), minlength=11) / 512**2 for name, layers in made.items()}
    seen = np.stack(list(shares.values())) > 0.001
    assert seen.any(axis=0).tolist() == [kind != Class.MANGROVES for kind in range(11)]
    assert shares["plain"][Class.CROP] > shares["alps"][Class.CROP]
    assert shares["andes"][Class.TREES] > shares["plain"][Class.TREES]
    assert shares["hills"][Class.SHRUBS] > 2 * shares["plain"][Class.SHRUBS]
    assert {n for n in shares if shares[n][Class.MOSS] > 0} == {n for n in shares if shares[n][Class.SNOW] > 0} == {"alps"}


def test_amplitude_tells_regions_apart_and_coherence_goes_by_cover_alone(made: dict[str, Layers]) -> None:
    def of(name: str, layer: str, band: int) -> float:
        layers = made[name]
        return float(layers[layer][band][layers["truth"][0] == Class.GRASS].mean())

    for names in (("plain", "hills"), ("hills", "andes")):
        apart = abs(of(names[0], "s1", 0) - of(names[1], "s1", 0))
        assert apart > 0.5, "dB, of grass alone"
    levels = [of(name, "coherence", 0) for name in REGIONS]
    assert max(levels) - min(levels) < 0.05


def test_trees_are_in_backscatter_and_in_pictures(made: dict[str, Layers]) -> None:
    layers = made["hills"]
    kind, trees = layers["truth"]
    woods = kind == Class.TREES
    thin, thick = woods & (trees < 40), woods & (trees > 60)
    assert np.mean(layers["s1"][1][thick]) - np.mean(layers["s1"][1][thin]) > 0.4
    assert np.mean(layers["rgb"][0][thick]) < np.mean(layers["rgb"][0][thin]) - 3
    assert np.mean(layers["coherence"][0][thick]) < np.mean(layers["coherence"][0][thin])
    wet, grass = kind == Class.WETLAND, kind == Class.GRASS
    assert np.mean(layers["coherence"][0][wet]) < np.mean(layers["coherence"][0][grass])


def test_files_are_the_blocks_and_say_what_they_are(made: dict[str, Layers], tmp_path: Path) -> None:
    simulate(tmp_path, size=300, seed=SEED, terrain="alps")
    assert {p.stem for p in tmp_path.iterdir()} == set(LAYERS)
    corner = block(SEED, 0, 0, terrain="alps", looks=4.9, gsd_m=10)
    for name, layer in LAYERS.items():
        said = facts(tmp_path / f"{name}.tif")
        assert (said.descriptions, said.dtype, said.units[0]) == (layer.bands, layer.dtype, layer.unit)
        assert said.tags["SIMULATED"].startswith(f"aftermap landcover seed={SEED} terrain=alps")
        read = read_window(tmp_path / f"{name}.tif", Window(0, 0, 300, 300), range(1, len(layer.bands) + 1))
        np.testing.assert_array_equal(read, corner[name][:, :300, :300])
        assert np.isfinite(read).all()
    assert not np.array_equal(corner["dem"], made["alps"]["dem"])
    for wrong in ({"terrain": "moon"}, {"size": 20}, {"looks": 0.0}):
        with pytest.raises(UsageError):
            simulate(tmp_path / "x", **wrong)


def test_many_are_a_scene_of_each_region_and_what_is_there_stays(tmp_path: Path) -> None:
    words = ["simulate", "landcover", "--vary", "8-8", "-o", str(tmp_path), "--quiet"]
    first = CliRunner().invoke(main, words)
    assert (first.exit_code, first.output) == (0, f"4 scenes in {tmp_path}\n")
    assert {p.name for p in tmp_path.iterdir()} == {f"{name}-000008" for name in REGIONS}
    one = tmp_path / "hills-000008"
    kept, stamp = sha256(one / "s1.tif"), (one / "s1.tif").stat().st_mtime_ns
    assert many(tmp_path, [8]) == 4
    assert (one / "s1.tif").stat().st_mtime_ns == stamp
    assert kept != sha256(tmp_path / "plain-000008" / "s1.tif")
    found = open_dataset(tmp_path)
    assert (found.name, found.splits, len(found.ids())) == ("simulated-landcover", ("validation",), 4 * 64)


def whole(dataset: Dataset, name: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Truth of the squares of a chip's scene as stored: classes and tree cover."""
    member = dataset.members[name]
    kind, trees = read_window(member.files["truth"], member.place, (1, 2))
    return kind, trees


def test_chips_are_layers_of_modalities_with_the_truth_that_was_asked_for(folder: Path) -> None:
    by_pixel = open_dataset(folder)
    assert by_pixel.bands == BANDS
    assert BANDS[:3] == ("s1.VV", "s1.VH", "coherence.pair_1")
    assert by_pixel.units == ("dB", "dB", "1", "1", *["digital_number"] * 3, "metres")
    assert (set(by_pixel.splits), len(by_pixel.ids())) == ({"test", "train", "validation"}, 12)
    for name in by_pixel.ids():
        kind, trees = whole(by_pixel, name)
        chip = by_pixel.read(name)
        np.testing.assert_array_equal(chip.truth, kind)
        assert (chip.domain, chip.event, chip.target) == (chip.event.partition("-")[0], chip.event, None)
        labels = {truth: open_dataset(folder, truth=truth).read(name) for truth in TRUTHS if truth != "landcover"}
        assert all(one.truth is None for one in labels.values())
        assert labels["vegetation"].target == pytest.approx(trees.mean() / 100)
        assert labels["built"].target == pytest.approx((kind == Class.BUILT).mean())
        assert labels["dominant"].target == np.bincount(kind.ravel()).argmax()
        assert labels["none"].target is None


def test_regions_and_words_are_chosen(folder: Path) -> None:
    assert open_dataset(folder, regions="alps").events == ("alps-000009",)
    for wrong in ({"regions": "andes"}, {"truth": "height"}):
        with pytest.raises(UnknownNameError):
            open_dataset(folder, "simulated-landcover", **wrong)
    with pytest.raises(UsageError, match="size is 200"):
        open_dataset(folder, "simulated-landcover", size=200)


@pytest.mark.parametrize(("truth", "of_chips"), [("landcover", False), ("vegetation", True), ("built", True), ("dominant", True)])
def test_it_is_surveyed_for_every_objective(folder: Path, truth: str, of_chips: bool) -> None:
    dataset = open_dataset(folder, truth=truth)
    samples = survey(
        dataset, ["s1", "coherence.pair_2", "dem"], classes=dataset.classes if not of_chips else (), of_chips=of_chips
    )
    assert [(one.layer, one.bands, one.unit) for one in samples.inputs] == [
        ("s1", ("VV", "VH"), "dB"), ("coherence", ("pair_2",), "1"), ("dem", ("elevation",), "metres"),
    ]  # fmt: skip
    assert {side: len(samples.ids(side)) for side in ("train", "validation", "test")} == dict.fromkeys(
        ("train", "validation", "test"), 4
    )
    assert samples.unseen


def test_methods_without_training_refuse_what_has_no_image_after(folder: Path) -> None:
    dataset, mapped = open_dataset(folder), Untrained("flood")
    chip = dataset.read(dataset.ids()[0])
    assert np.isnan(mapped(chip)).all()
    assert "has no image after an event, but s1, coherence, rgb, dem" in mapped.refused[chip.name]


@pytest.mark.parametrize("truth", TRUTHS)
def test_the_commands_check_and_stats_read_it(folder: Path, truth: str) -> None:
    for verb in ("check", "stats"):
        words = ["data", verb, str(folder), "--set", f"truth={truth}", "--set", "regions=plain", "--quiet"]
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, done.output
