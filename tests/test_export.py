"""Graphs and engines: OpenVINO and ONNX Runtime agree, either maps, and what a graph will hold is counted beforehand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import aftermap as am
from aftermap import engine, export
from aftermap.card import Card
from aftermap.cli import main
from aftermap.engine import Network
from aftermap.errors import UnknownNameError, UsageError
from aftermap.liveness import held
from aftermap.model import Spec, add_graph, build, save
from aftermap.running import openvino
from aftermap.tiles import Window
from tests.networks import AFTER, toy

Pair = Callable[..., tuple[Path, Path]]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved network with graph.xml and graph.onnx."""
    tmp_path = tmp_path_factory.mktemp("both")
    for library in ("onnx", "onnxruntime"):
        pytest.importorskip(library, reason=f"{library} is not installed")
    facts = Card(
        name="small", hazard="flood", classes=("flood",), inputs=AFTER, mean=(-11.0, -18.0), std=(4.0, 4.5), halo_px=64,
        multiple_of=32, training_data="none", licence="Apache-2.0", made_by="a test", sha256={},
    )  # fmt: skip
    model = build(Spec("mobilenetv3_small_050", "unet", (2,)), seed=2)
    model.head[0].weight.data *= 300  # type: ignore[index]  # so that scores spread
    save(tmp_path / "small", model, facts)
    said = CliRunner().invoke(main, ["export", str(tmp_path / "small"), "--format", "onnx"])
    assert said.exit_code == 0, said.output
    assert "graph.onnx" in Card.read(tmp_path / "small").sha256
    return tmp_path / "small"


def test_the_engines_agree(both: Path, pair: Pair, tmp_path: Path) -> None:
    networks = [Network.open(both, engine=name, precision="f32") for name in engine.ENGINES]
    pixels = np.random.default_rng(0).normal(-14, 5, (1, 2, 160, 224)).astype(np.float32)
    pixels[:, 0, 20:40, 30:90] = np.nan
    first, second = (one(pixels, np.asarray(np.isfinite(pixels).all(axis=1))) for one in networks)
    assert np.abs(first - second).max() < 1e-3
    assert first.std() > 0.05
    embedded = [one.embeddings(pixels) for one in networks]
    assert np.abs(embedded[0] - embedded[1]).max() < 0.05 * embedded[0].std()
    before, after = pair()
    found = [
        am.map(after, before, out=tmp_path / name, options=am.Options(
            model=str(both), engine=name, precision="f32", baseline=False, keep_scores=True
        ))
        for name in engine.ENGINES
    ]  # fmt: skip
    assert found[1].made_by["models"]["small"]["engine"].startswith("onnxruntime ")
    scores = [one.score(Window(0, 0, *one.grid.shape)) for one in found]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-3)


def test_a_graph_of_onnx_alone_maps(both: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("graph.onnx", "model.toml"):
        (alone / name).write_bytes((both / name).read_bytes())
    pixels = np.full((1, 2, 64, 64), -12, np.float32)
    first, second = (Network.open(alone, engine=e, precision="f32")(pixels, pixels[:, 0] < 0) for e in ("auto", "onnxruntime"))
    assert np.abs(first - second).max() < 1e-3


def test_export_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = toy(tmp_path / "toy")
    with pytest.raises(UnknownNameError, match="openvino"):
        add_graph(folder, "openvin")
    monkeypatch.setattr(export, "find_spec", lambda _: None)
    with pytest.raises(UsageError) as caught:
        export.export_onnx(build(Spec("mobilenetv3_small_050", "unet", (2,))), tmp_path, Card.read(folder))
    assert caught.value.code == "extra-missing"


def test_what_a_graph_holds_is_counted(tmp_path: Path) -> None:
    """Worked by hand: between the two inner convolutions 8 bands go in and 8 come out; 3 x 3 weights 2-8, 8-8, 8-1."""
    graph = openvino().Core().read_model(toy(tmp_path / "toy") / "graph.xml")
    graph.reshape({graph.input(0): [1, 2, 40, 50]})
    found = held(graph)
    assert found.values == (8 + 8) * 40 * 50
    assert 9 * (16 + 64 + 8) <= found.weights <= 9 * (16 + 64 + 8) + 12
    network = Network.open(tmp_path / "toy", precision="f32")
    more = network.memory_mb((512, 512), 3) - network.memory_mb((512, 512), 1)
    assert more == pytest.approx(2 * 4 * 16 * 512**2 / 1e6)


def test_a_network_that_has_mapped_holds_nothing(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let_go: list[bool] = []
    release = Network.release

    def noted(self: Network) -> None:
        let_go.append("_run" in vars(self))
        release(self)

    monkeypatch.setattr(Network, "release", noted)
    before, after = pair()
    options = am.Options(model=str(toy(tmp_path / "toy")), precision="f32", baseline=False)
    am.map(after, before, out=tmp_path / "out", options=options)
    assert let_go == [True]
    network = Network.open(tmp_path / "toy", precision="f32")
    pixels = np.zeros((1, 2, 32, 32), np.float32)
    once = network(pixels, pixels[:, 0] == 0)
    network.release()
    assert "_run" not in vars(network)
    np.testing.assert_array_equal(network(pixels, pixels[:, 0] == 0), once)
