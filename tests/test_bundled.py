"""The networks that come with the package: whole, small, with their facts, and they map."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import aftermap as am
from aftermap import card as cards
from aftermap import pieces
from aftermap.card import Card
from aftermap.engine import Network
from tests.conftest import grid, write

HOME = Path(cards.__file__).parent / "models"
NAMES = sorted(p.parent.name for p in HOME.glob("*/model.toml"))
SIDE = 96


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundled models as they come, no others, and no cache but the test's."""
    monkeypatch.setattr(cards, "BUNDLED", HOME)
    monkeypatch.setenv("AFTERMAP_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_there_are_some() -> None:
    assert "flood-s1" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_folder_is_whole_small_and_says_what_it_is(name: str) -> None:
    found = Card.read(HOME / name)  # refuses what differs from its checksum
    assert (found.name, set(found.sha256)) == (name, {"graph.xml", "graph.bin", "model.safetensors", "known.npz"})
    assert {p.name for p in (HOME / name).iterdir()} == {*found.sha256, "model.toml"}
    assert sum(p.stat().st_size for p in (HOME / name).glob("graph.*")) <= 10e6
    assert (HOME / name / "model.safetensors").stat().st_size / 2 <= 4e6
    assert (HOME / name / "known.npz").stat().st_size <= 0.5e6
    assert (HOME / name / "graph.bin").stat().st_size / 2 <= 4e6, "half precision: two bytes a parameter"
    assert (
        'precision="FP16"' in (HOME / name / "graph.xml").read_text()
        or 'element_type="f16"' in (HOME / name / "graph.xml").read_text()
    )
    for fact in (found.training_data, found.licence, found.made_by, found.why, found.versions, found.scores, found.calibration):
        assert fact
    assert re.fullmatch(r"aftermap run \S+ .*--seeds \d+", found.made_by)
    real = [row for row in found.scores if row["data"] != "simulated"]
    assert {name} < {row["method"] for row in real}, "beside methods without training"


@pytest.mark.parametrize("name", NAMES)
def test_leave_to_lead_follows_from_the_scores(name: str) -> None:
    found, better = Card.read(HOME / name), True
    for data in {row["data"] for row in found.scores} - {"simulated"}:
        rows = [row for row in found.scores if row["data"] == data]
        own = [row for row in rows if row["method"] == name]
        for key in ("iou", "iou_mean"):
            better &= all(own[0][key] >= row[key] for row in rows) if own else True
    assert found.leads == better


@pytest.mark.parametrize("name", NAMES)
def test_it_maps_a_scene(name: str, tmp_path: Path) -> None:
    found = Card.read(HOME / name)
    (read,) = found.inputs
    rng = np.random.default_rng(0)
    pixels = np.stack([rng.normal(m, s, (SIDE, SIDE)) for m, s in zip(found.mean, found.std, strict=True)]).astype(np.float32)
    if read.unit == "digital_number":
        pixels = np.clip(pixels, 1, 255 if max(found.mean) < 255 else 65535).astype(
            np.uint8 if max(found.mean) < 255 else np.uint16
        )
    file = write(tmp_path / "after.tif", pixels, grid((SIDE, SIDE)), read.bands, unit=read.unit)
    said = am.Declared(
        unit=read.unit, bands=read.bands, sensor="" if read.unit == "dB" else "vhr-rgb" if len(pixels) == 3 else "modis-grey"
    )
    options = am.Options(model=name, precision="f32", keep_scores=True)
    made = am.map(file, out=tmp_path / "map", hazard=found.hazard, declared={"after": said}, options=options)
    assert name in made.made_by["methods"]["ran"]
    assert made.made_by["models"][name]["licence"] == found.licence
    network = Network.open(HOME / name, precision="f32")
    scores = network(pixels.astype(np.float32)[None], np.ones((1, SIDE, SIDE), bool))
    assert np.isfinite(scores).all()
    assert 0 <= scores.min() <= scores.max() <= 1


@pytest.mark.parametrize("memory_mb", [420, 610, 640, 700])
def test_no_room_for_a_network_that_nobody_asked_for_leaves_it_out(memory_mb: int, tmp_path: Path) -> None:
    """Whatever --memory is, from the least on: the map is made, with the network or by the methods alone."""
    pieces.load("simulate", "flood")(tmp_path, size=700, seed=0)
    found = am.map(
        tmp_path / "after.tif", tmp_path / "before.tif", hazard="flood", out=tmp_path / "out",
        options=am.Options(memory_mb=memory_mb, only=("extent",)),
    )  # fmt: skip
    skipped = found.made_by["methods"]["skipped"]
    assert ("flood-s1" in found.made_by["methods"]["ran"]) != ("--memory leaves less" in skipped.get("flood-s1", ""))
