"""Landslide4Sense's 14 bands from the data set to the map: colour is of light alone, and a stacked image has the ground in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aftermap.augment import Augment
from aftermap.card import Card
from aftermap.chips import Cutter, Labels
from aftermap.datasets.dataset import open_dataset
from aftermap.datasets.landslide4sense import BANDS, UNIT
from aftermap.layer import Declared
from aftermap.page import Data, Target
from aftermap.samples import survey
from aftermap.scene import open_scene
from aftermap.scorer import LayerBands
from aftermap.targets import Images
from aftermap.tiles import Window
from tests import dataset_layouts
from tests.conftest import grid, write

SHAPE = (40, 48)
LIGHT, GROUND = LayerBands("after", BANDS[:12], "digital_number"), LayerBands("after", BANDS[12:], "relative")


def card() -> Card:
    return Card(
        name="small", hazard="landslide", classes=("landslide",), inputs=(LIGHT, GROUND), halo_px=32, multiple_of=32,
        mean=(1.0,) * 14, std=(0.3,) * 14, training_data="none", licence="MIT", made_by="a test", sha256={}, normalise="scene",
    )  # fmt: skip


def stacked(folder: Path, bands: int = 14) -> tuple[np.ndarray, Path]:
    pixels = np.random.default_rng(0).uniform(0.5, 3, (bands, *SHAPE)).astype(np.float32)
    return pixels, write(folder / f"after-{bands}.tif", pixels, grid(SHAPE), BANDS[:bands])


def test_colour_is_of_light_alone(tmp_path: Path) -> None:
    made = dataset_layouts.landslide4sense(tmp_path)
    chip = open_dataset(made.folder).read("train_0010")
    assert chip.unit == UNIT
    lit = Augment(flip=0, turn=0, move=0, jitter=1)(chip, np.random.default_rng(0))
    np.testing.assert_array_equal(lit.pixels[12:], chip.pixels[12:])
    for before, after in zip(chip.pixels[:12], lit.pixels[:12], strict=True):
        slope = np.polyfit(before.ravel(), after.ravel(), 1)
        assert slope[0] != pytest.approx(1, abs=1e-3)
        np.testing.assert_allclose(np.polyval(slope, before), after, atol=1e-3)
    turned = Augment(flip=1, turn=0, move=0, jitter=0)(chip, np.random.default_rng(1))
    assert not np.array_equal(turned.pixels[13], chip.pixels[13]), "the ground turns with the image"


def test_all_fourteen_are_the_image_after(tmp_path: Path) -> None:
    dataset = open_dataset(dataset_layouts.landslide4sense(tmp_path).folder)
    samples = survey(dataset, ["after"], split={"train": ["official:train"]})
    assert samples.inputs == (LIGHT, GROUND)
    images = Images.of(Target("landslide", Data()), dataset.folder, card())
    assert images.band_map is None, "a network of 14 bands reads them as they are"


@pytest.mark.parametrize("declared", [None, Declared(bands=BANDS)], ids=["descriptions", "declared"])
def test_a_stacked_image_is_read_band_by_band(declared: Declared | None, tmp_path: Path) -> None:
    pixels, path = stacked(tmp_path)
    scene = open_scene({"after": [path]}, hazard="landslide", declared={"after": declared} if declared else None)
    assert card().why_not(scene) == ""
    window = Window(3, 5, 20, 30)
    found = np.concatenate([scene.read(one, window) for one in (LIGHT, GROUND)])
    np.testing.assert_array_equal(found, pixels[:, *window.slices])
    words = scene.missing(replace(LIGHT, bands=BANDS[:1], unit="reflectance"))
    assert words == "the after image is in digital number, not in reflectance"
    words = scene.missing(replace(GROUND, unit="metres"))
    assert words == "slope of the after image is in relative, not in metres"
    cutter = Cutter(
        scene, Labels(write(tmp_path / "truth.tif", np.ones((1, *SHAPE), np.uint8), grid(SHAPE), ("class",)), scene.grid)
    )
    assert cutter.chip(window).unit == UNIT


def test_light_alone_lacks_the_ground(tmp_path: Path) -> None:
    scene = open_scene(
        {"after": [stacked(tmp_path, 12)[1]]}, hazard="landslide", declared={"after": Declared(unit="digital_number")}
    )
    assert scene.layers["after"].sensor.name == "sentinel-2-l1c"
    assert "has no band slope, elevation" in card().why_not(scene)
