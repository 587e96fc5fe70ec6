"""Batch norm estimated anew through the engine: as torch has it, by how much it says, and only where there is batch norm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import aftermap as am
from aftermap import running
from aftermap.adapt.norm import Adaptation, Norms, estimate
from aftermap.batchnorm import Statistics
from aftermap.card import Card
from aftermap.engine import Network
from aftermap.errors import InputRefusedError, UsageError
from aftermap.export import Graph
from aftermap.model import Model, Spec, build, save
from aftermap.scorer import LayerBands
from aftermap.surgery import Stated
from aftermap.tiles import Window
from aftermap.torchdoor import nn, torch
from tests.conftest import grid, write
from tests.networks import toy

torch.set_num_threads(1)
F32 = npt.NDArray[np.float32]
MEAN, STD = (1.0, 2.0, 3.0), (2.0, 2.0, 4.0)


def saved(folder: Path, encoder: str, finds: str = "flood") -> Model:
    """A network whose batch norm has seen something."""
    model = build(Spec(encoder, "unet", (3,), widths=(8, 8, 16, 16, 16)), seed=0).eval()
    torch.manual_seed(1)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 2)
    model.half().float()  # as the graph will keep it, so that what differs is the estimate
    inputs = (LayerBands("after", ("red", "green", "blue"), "digital_number"),)
    card = Card(
        name="n", hazard="flood", classes=(finds,), inputs=inputs, mean=MEAN, std=STD, halo_px=64, multiple_of=32,
        training_data="none", licence="none", made_by="tests", sha256={},
    )  # fmt: skip
    save(folder, model, card)
    return model


def crops(count: int) -> list[F32]:
    found = [np.random.default_rng(k).normal(3 + k, 2, (3, 96, 96)).astype(np.float32) for k in range(count)]
    found[0][:, :20] = np.nan
    return found


def by_torch(model: Model, given: list[F32], momentum: float | None) -> tuple[Graph, Statistics]:
    """The same in torch: batch norm in training, everything else as it maps; momentum None is torch's cumulative mean."""
    graph = Graph(model, MEAN, STD).eval()
    for part in graph.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.train()
            part.momentum = momentum
            if momentum is None:
                part.reset_running_stats()
    with torch.no_grad():
        for crop in given:
            graph(torch.from_numpy(crop[None]))
    stated = Stated(graph.eval())
    return graph, Statistics(stated.means.numpy(), stated.variances.numpy())


@pytest.mark.parametrize("encoder", ["resnet18_half", "mobilenetv3_small_050"])
def test_the_engine_estimates_as_torch_does(tmp_path: Path, encoder: str) -> None:
    model, given = saved(tmp_path / "model", encoder), crops(3)
    norms = Norms.open(tmp_path / "model")
    network = Network.open(tmp_path / "model", precision="f32")
    before = network(given[1][None], np.ones((1, 96, 96), bool))
    for mode, momentum in (("ema", 0.1), ("reset", None)):
        found = estimate(norms, given, Adaptation(3, mode))
        graph, wanted = by_torch(model, given, momentum)
        np.testing.assert_allclose(found.means, wanted.means, atol=1e-3)
        np.testing.assert_allclose(found.variances, wanted.variances, rtol=1e-3)
        scores = replace(network, statistics=found)(given[1][None], np.ones((1, 96, 96), bool))
        with torch.no_grad():
            expected = graph(torch.from_numpy(given[1][None])).numpy()
        assert np.abs(scores - expected).max() < 1e-3
        assert np.abs(scores - before).max() > 1e-3, "it changes the map"


def test_what_is_left_of_the_source(tmp_path: Path) -> None:
    """After k crops of one kind (1 - m)^k of the way is left; the prior counts as so many crops; one batch is all target."""
    saved(tmp_path / "model", "resnet18_half")
    norms = Norms.open(tmp_path / "model")
    crop = crops(2)[1]
    target = norms.of_batch(crop[None])
    way = target.means - norms.statistics.means
    far = np.abs(way) > 1e-3
    for k in (1, 5):
        left = (target.means - estimate(norms, [crop] * k, Adaptation(k)).means)[far] / way[far]
        np.testing.assert_allclose(left, 0.9**k, atol=1e-3)
        left = (target.means - estimate(norms, [crop] * k, Adaptation(k, "prior", prior=8)).means)[far] / way[far]
        np.testing.assert_allclose(left, 8 / (8 + k), atol=1e-3)
    whole = estimate(norms, [crop, crop], Adaptation(2, "batch"))
    np.testing.assert_allclose(whole.means, target.means, atol=1e-5)
    np.testing.assert_allclose(whole.variances, target.variances, rtol=1e-4)


def test_a_network_without_batch_norm_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputRefusedError, match="no batch norm") as caught:
        Norms.open(toy(tmp_path / "toy"))
    assert caught.value.code == "no-batch-norm"
    assert running.graph_of(tmp_path / "toy", "openvino").is_file()


def test_a_map_with_the_statistics_of_its_scene(tmp_path: Path) -> None:
    """Other scores, uncalibrated, the crops on record; what has no batch norm, and a map without a network, are refused."""
    saved(tmp_path / "model", "resnet18_half")
    after = write(tmp_path / "after.tif", crops(1)[0][:, :, :90], grid((96, 90)), ("red", "green", "blue"))
    maps = []
    for adapt in (0, 5):
        options = am.Options(model=str(tmp_path / "model"), baseline=False, adapt=adapt, keep_scores=True)
        declared = {"after": am.Declared(sensor="vhr-rgb", unit="digital_number")}
        maps.append(am.map(after, out=tmp_path / str(adapt), hazard="flood", options=options, declared=declared))
    (told,) = (m.made_by["methods"]["ran"]["n"]["adapted"] for m in maps[1:])
    assert "ema over 1 crops" in told
    assert maps[1].made_by["parameters"]["adapt"] == [5, "ema"]
    whole = Window(0, 0, 96, 90)
    assert np.nanmax(np.abs(maps[0].score(whole) - maps[1].score(whole))) > 1e-3
    with pytest.raises(UsageError, match="none runs here"):
        am.map(
            after, out=tmp_path / "none", hazard="landslide", declared=declared, options=am.Options(adapt=1), method="bare-soil"
        )


def test_a_network_of_one_image_on_a_pair_says_how_it_was_adapted(tmp_path: Path) -> None:
    saved(tmp_path / "model", "resnet18_half", finds="water")
    after, before = (
        write(tmp_path / f"{n}.tif", pixels[:, :, :90], grid((96, 90)), ("red", "green", "blue"))
        for n, pixels in zip(("after", "before"), crops(2), strict=True)
    )
    own = am.Declared(sensor="vhr-rgb", unit="digital_number")
    options = am.Options(model=str(tmp_path / "model"), baseline=False, adapt=1)
    found = am.map(after, before, out=tmp_path / "map", hazard="flood", options=options, declared={"after": own, "before": own})
    assert "ema over 1 crops" in found.made_by["methods"]["ran"]["n"]["adapted"]
