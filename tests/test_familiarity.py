"""What a network knows, and how near new ground is to it: embeddings by hand, known.npz, familiarity.tif, `aftermap drift`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import aftermap as am
from aftermap import card as cards
from aftermap import familiarity, known
from aftermap.card import Card
from aftermap.cli import main
from aftermap.engine import Network
from aftermap.errors import InputRefusedError, UsageError
from aftermap.running import openvino
from aftermap.tiles import Window
from tests.conftest import UTM, flood_pair, grid, write
from tests.networks import toy

Pair = Callable[..., tuple[Path, Path]]
SIDE = 32


def chips(count: int, seed: int, lift: float = 0.0) -> list[npt.NDArray[np.float32]]:
    """Pixels (band, y, x) in dB of squares of simulated floods."""
    image = np.concatenate([flood_pair((160, 224), seed + k)[1] for k in range(4)], axis=1) + np.float32(lift)
    places = [(r, c) for r in range(0, 640, SIDE) for c in range(0, 224, SIDE)]
    order = np.random.default_rng(seed).permutation(len(places))[:count]
    return [image[:, r : r + SIDE, c : c + SIDE] for r, c in (places[k] for k in order)]


@pytest.fixture(scope="module")
def knowing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of random weights that knows simulated floods."""
    folder = toy(tmp_path_factory.mktemp("models") / "toy", features=True, depth=1)
    known.keep(Network.open(folder, precision="f32"), chips(80, 10), chips(60, 20), SIDE)
    return folder


def test_an_embedding_is_the_mean_of_the_deepest_features(tmp_path: Path) -> None:
    folder = toy(tmp_path / "toy", features=True, depth=1)
    pixels = np.stack(chips(2, 1))
    pixels[1, :, :5] = np.nan
    network = Network.open(folder, precision="f32")
    model = openvino().Core().compile_model(folder / "graph.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    both = [model(one[None]) for one in pixels]
    expected = np.concatenate([one[1].mean(axis=(2, 3)) for one in both])
    assert both[0][1].shape == (1, 8, SIDE // 2, SIDE // 2)
    np.testing.assert_allclose(network.embeddings(pixels), expected, rtol=1e-5)
    plain = Network.open(toy(tmp_path / "plain", depth=1), precision="f32")
    valid = np.asarray(np.isfinite(pixels).all(axis=1))
    np.testing.assert_array_equal(network(pixels, valid), plain(pixels, valid))
    assert network.memory_mb((512, 512), 2) == pytest.approx(plain.memory_mb((512, 512), 2), abs=0.02)
    with pytest.raises(InputRefusedError, match="gives scores alone") as caught:
        plain.embeddings(pixels)
    assert caught.value.code == "no-embedding"


def test_a_model_that_embeds_is_no_map(tmp_path: Path, pair: Pair) -> None:
    folder = toy(tmp_path / "embeds", depth=1, gives="embedding", chip_px=SIDE)
    pixels = np.stack(chips(3, 1))
    same = Network.open(toy(tmp_path / "toy", features=True, depth=1), precision="f32")
    np.testing.assert_allclose(Network.open(folder, precision="f32").embeddings(pixels), same.embeddings(pixels), rtol=1e-5)
    before, after = pair()
    with pytest.raises(UsageError, match="gives an embedding") as caught:
        am.map(after, before, out=tmp_path / "out", options=am.Options(model=str(folder)))
    assert caught.value.code == "model-hazard"


def test_what_is_known_is_kept_and_drawn_alike(knowing: Path, tmp_path: Path) -> None:
    card = Card.read(knowing)
    found = known.Known.of(knowing, card)
    assert found is not None
    assert (found.train.shape, found.validation.shape, found.chip_px) == ((80, 8), (60, 8), SIDE)
    again = found.write(_copy(knowing, tmp_path / "again"), card)
    assert again.sha256 == card.sha256
    share = found.familiarity(found.validation)
    np.testing.assert_allclose(np.sort(share), (1 + np.arange(1, 61)) / 61)
    unseen = np.stack(chips(1, 10))
    unseen[:, :, :8] = np.nan
    same = known.keep(Network.open(knowing, precision="f32"), [unseen[0]], chips(2, 3), SIDE)
    assert same == card, "nothing new where no chip was seen"
    names = [f"chip{k}" for k in range(900)]
    assert known.drawn(names, "train", 3) == known.drawn(names, "train", 3) != known.drawn(names, "train", 4)
    assert len(set(known.drawn(names, "validation", 3))) == 256
    assert known.drawn(names[:9], "train", 3) == names[:9]


def _copy(folder: Path, to: Path) -> Path:
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def test_a_broken_file_is_refused_and_a_stray_one_is_not_read(knowing: Path, tmp_path: Path) -> None:
    folder = _copy(knowing, tmp_path / "broken")
    (folder / cards.KNOWN).write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(InputRefusedError, match=r"known\.npz is not the file") as caught:
        Card.read(folder)
    assert caught.value.code == "model-changed"
    card = Card.read(knowing)
    with pytest.raises(InputRefusedError, match="does not hold the embeddings"):
        known.Known.of(folder, card)
    np.savez(folder / cards.KNOWN, train=np.array([{}], object), validation=np.zeros((2, 8)), chip_px=32)
    with pytest.raises(InputRefusedError, match="does not hold the embeddings"):
        known.Known.of(folder, card)
    stray = Card(**{**vars(card), "sha256": {}})
    assert known.Known.of(folder, stray) is None


@given(st.integers(1, 30_000), st.integers(1, 30_000), st.sampled_from([32, 128, 512]))
def test_cells_are_few_and_cover_the_scene(height: int, width: int, chip: int) -> None:
    side = familiarity.cell_px((height, width), chip)
    rows, cols = -(-height // side), -(-width // side)
    assert side % chip == 0
    assert rows * cols <= familiarity.MOST_CELLS
    if side > chip:
        assert -(-height // (side - chip)) * -(-width // (side - chip)) > familiarity.MOST_CELLS
    window = familiarity._middle(Window((rows - 1) * side, (cols - 1) * side, 1, 1), side, chip, (height, width))
    assert 0 <= window.row <= window.stop_row <= height
    assert (window.height, window.width) == (min(chip, height), min(chip, width))


def test_the_map_says_where_a_network_is_at_home(knowing: Path, pair: Pair, tmp_path: Path) -> None:
    def dark_corner(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        pixels = pixels.copy()
        pixels[:, :70, :90] = np.nan
        pixels[:, 128:, 192:] += 25  # no ground is so bright
        return pixels

    _, after = pair((160, 224), change=dark_corner)
    options = am.Options(model=str(knowing), precision="f32")
    found = am.map(after, out=tmp_path / "map", options=options)
    near = found.familiarity(Window(0, 0, 160, 224))
    np.testing.assert_array_equal(near[found.exclusion(Window(0, 0, 160, 224)) == 1], 255)
    assert (near[:64, :64] == 255).all()
    assert near[150, 210] <= 2
    cells = near.reshape(5, 32, 7, 32)
    assert (cells[3:, :, :5] == cells[3:, :1, :5, :1]).all(), "a percentage a cell"
    facts = found.made_by["methods"]["familiarity"]
    assert (facts["of"], facts["cell_px"], facts["training_chips"], facts["nearest"]) == ("toy", SIDE, 80, 5)
    assert facts["median_percent"] == np.median(near[::32, ::32][near[::32, ::32] != 255])
    assert facts["median_percent"] > familiarity.FAR
    assert "unfamiliar" not in {w["code"] for w in found.made_by["warnings"]}
    item = json.loads((found.folder / "item.json").read_text())
    assert {"familiarity.tif", "styles/familiarity.qml"} <= set(item["assets"])
    assert "o-familiarity" in (found.folder / "report.html").read_text()
    again = am.map(after, out=tmp_path / "again", options=options)
    for name in ("familiarity.tif", "run.json", "report.html"):
        assert (again.folder / name).read_bytes() == (found.folder / name).read_bytes()


def test_a_scene_that_is_far_is_a_warning(knowing: Path, pair: Pair, tmp_path: Path) -> None:
    _, after = pair((160, 224), change=lambda p: p + np.float32(25))
    options = am.Options(model=str(knowing), precision="f32", only=("familiarity",), baseline=False)
    found = am.map(after, out=tmp_path / "map", options=options)
    assert sorted(p.name for p in found.folder.glob("*.tif")) == ["familiarity.tif"]
    (warned,) = [w for w in found.made_by["warnings"] if w["code"] == "unfamiliar"]
    assert "half of the scene lies farther from the training of toy than 95 %" in warned["what"]
    flipped = am.Options(model=str(knowing), precision="f32", flips=True, only=("familiarity",), baseline=False)
    same = am.map(after, out=tmp_path / "flipped", options=flipped)
    assert same.made_by["methods"]["familiarity"]["of"] == "ensemble"
    with pytest.raises(UsageError, match="--only familiarity is of a model"):
        am.map(after, out=tmp_path / "none", options=am.Options(only=("familiarity",)))
    plain = am.map(after, out=tmp_path / "plain")
    assert not plain.has_familiarity
    with pytest.raises(UsageError, match=r"no familiarity\.tif"):
        plain.familiarity(Window(0, 0, 1, 1))


def test_the_same_network_is_at_home_in_any_unit_of_level(tmp_path: Path) -> None:
    """One that is brought to the level of the scene does not see that a scene is brighter."""
    folder = toy(tmp_path / "levelled", features=True, depth=1, normalise="scene")
    network = Network.open(folder, precision="f32")
    known.keep(network, chips(40, 10), chips(30, 20), SIDE)
    medians = []
    for lift in (0, 10):
        path = write(tmp_path / f"lift{lift}.tif", flood_pair((160, 224), 3)[1] + np.float32(lift), grid((160, 224), crs=UTM),
                     ("VV", "VH"), unit="dB")  # fmt: skip
        made = am.map(path, out=tmp_path / f"map{lift}", options=am.Options(model=str(folder), precision="f32"))
        medians.append(made.made_by["methods"]["familiarity"]["median_percent"])
    assert medians[0] == pytest.approx(medians[1], abs=2)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three events of images and masks; the second is brighter than anything known."""
    folder = tmp_path_factory.mktemp("labelled")
    for event, lift in (("a", 0), ("b", 20), ("c", 0)):
        for k in range(2):
            _, image, wet = flood_pair((64, 96), 5 + k)
            name = f"{event}_{k}.tif"
            write(folder / "images" / name, image + np.float32(lift), grid((64, 96)), ("VV", "VH"), unit="dB")
            write(folder / "masks" / name, wet[None].astype(np.uint8), grid((64, 96)), ("label",))
    return folder


def test_drift_says_how_far_a_set_lies(knowing: Path, labelled: Path, tmp_path: Path) -> None:
    sets = ["--set", 'bands=["VV", "VH"]', "--set", "unit=dB", "--set", "event=([a-c])_"]
    command = ["drift", str(knowing), "--to", str(labelled), *sets, "-o", str(tmp_path / "out"), "--quiet"]
    said = CliRunner().invoke(main, command)
    assert said.exit_code == 0, said.output
    facts = json.loads((tmp_path / "out" / "drift.json").read_text())
    rows = list(csv.DictReader((tmp_path / "out" / "drift.csv").read_text().splitlines()))
    assert facts["chips"] == [80, 36]
    assert len(rows) == 36
    assert facts["frechet"] > 0
    assert facts["mmd"]["p"] < 0.05
    assert facts["told_apart"]["majority"] == pytest.approx(80 / 116)
    far = [float(r["nearest"]) for r in rows if r["event"] == "b"]
    near = [float(r["nearest"]) for r in rows if r["event"] == "a"]
    assert min(far) > max(near)
    assert {float(r["familiarity"]) for r in rows if r["event"] == "b"} == {round(1 / 61, 6)}
    for name in ("error_by_nearest", "error_by_mahalanobis"):
        assert facts[name]["low"] <= facts[name]["spearman"] <= facts[name]["high"]
        assert (facts[name]["resampled"], facts[name]["units"], facts[name]["chips"]) == ("events", 3, 36)
    assert "Spearman" in said.output
    assert (tmp_path / "out" / "drift.txt").read_text() == said.output
    scores = Network.open(knowing, precision="f32")
    first = rows[0]
    _, image, wet = flood_pair((64, 96), 5)
    pixels = image[None, :, :SIDE, :SIDE]
    brier = ((scores(pixels, np.ones((1, SIDE, SIDE), bool))[0, 0] - wet[:SIDE, :SIDE]) ** 2).mean()
    assert (first["name"], first["row"], first["col"]) == ("a_0", "0", "0")
    assert float(first["brier"]) == pytest.approx(brier, abs=1e-5)


def test_a_set_is_not_apart_from_itself(knowing: Path, labelled: Path, tmp_path: Path) -> None:
    images = str(labelled / "images")
    said = CliRunner().invoke(main, ["drift", str(knowing), "--from", images, "--to", images, "--json", "--quiet"])
    assert said.exit_code == 0, said.output
    facts = json.loads(said.output)
    assert facts["frechet"] == pytest.approx(0, abs=1e-6)
    assert facts["mmd"]["squared"] == pytest.approx(0, abs=1e-9)
    assert facts["error_by_nearest"] is None, "files have no truth"
    few = CliRunner().invoke(main, ["drift", str(knowing), "--to", images, "--most", "3", "--quiet"])
    assert few.exit_code == 3
    assert "no-chips" in few.output
    bare = toy(tmp_path / "bare", features=True)
    lost = CliRunner().invoke(main, ["drift", str(bare), "--to", images, "--quiet"])
    assert "has no known.npz" in lost.output
