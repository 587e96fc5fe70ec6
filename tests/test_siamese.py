"""Classify first, then segment (methods.md B): exact layers, a frozen network beside, label budgets, and the published faults."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from aftermap import experiment, learn, recipe
from aftermap.card import Card
from aftermap.cli import main
from aftermap.datasets.dataset import open_dataset
from aftermap.engine import Network
from aftermap.errors import UnknownNameError, UsageError
from aftermap.losses import Sum, batch_softmax, cross_entropy
from aftermap.model import Spec, build, load
from aftermap.normalise import misapplied
from aftermap.objectives.segment import Segment
from aftermap.samples import survey
from aftermap.torchdoor import nn, torch
from tests.quakes import radar_chip, written

torch.set_num_threads(1)
FIRST = Spec("unet_depth1", "conv_mean", (2, 2), fusion="siamese", gives="class")
SECOND = Spec("conv8", "conv8", (2, 2), fusion="early", beside=FIRST)
RECIPE = "sar-siamese"
SHORT = (
    "chips.size=32", "pretrain.train.epochs=2", "pretrain.train.every=1", "steps.0.train.epochs=0", "steps.0.train.steps=3",
    "steps.0.train.every=1", "steps.0.train.batch=4", "steps.0.train.keep=2", "pretrain.train.batch=4",
)  # fmt: skip


def learning(network: nn.Module) -> int:
    """Parameters that receive a gradient (trap 3)."""
    network.train()
    x = torch.randn(2, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    network(x).sum().backward()
    return sum(p.numel() for p in network.parameters() if p.grad is not None)


def test_parameters_that_learn() -> None:
    first = build(FIRST)
    assert sum(p.numel() for p in first.encoder.parameters()) == 43_424
    assert learning(first) == 43_424 + 4_099
    assert learning(build(SECOND)) == 1_133_193
    assert learning(build(replace(SECOND, beside=None))) == 342_473
    wide = learning(build(replace(SECOND, encoder="conv8_wide", beside=None)))
    assert wide == pytest.approx(1_133_193, rel=0.003), "no capacity is confounded (trap 5)"


def test_shapes_and_padding() -> None:
    first, second = build(FIRST).eval(), build(SECOND).eval()
    x = torch.randn(2, 4, 32, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        embedded = first.features(x)[-1]
        assert embedded.shape == (2, 64, 32, 48), "of both dates, side by side"
        assert second(x).shape == (2, 1, 32, 48)
        assert build(replace(FIRST, decoder="fc", widths=(32,))).eval()(x).shape == (2, 1)
        pad = next(m for m in second.encoder.modules() if isinstance(m, nn.ZeroPad2d))
        seen = pad(torch.ones(1, 4, 32, 48))
    assert seen.shape[2:] == (32 + 7, 48 + 7)
    rows = seen[0, 0, :, 24]
    assert (rows[:3] == 0).all()
    assert rows[3] == 1
    assert (rows[-4:] == 0).all(), "an even kernel has its odd row at the end"


def test_the_mean_is_over_where_the_kernel_fits() -> None:
    model = build(FIRST).eval()
    features = [torch.randn(1, 64, 16, 16, generator=torch.Generator().manual_seed(0))]
    head: nn.Sequential = model.decoder.one  # type: ignore[assignment]
    with torch.no_grad():
        assert head(features[-1]).shape == (1, 1, 9, 9)
        torch.testing.assert_close(model.decoder(features), head(features[-1]).mean().reshape(1, 1))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder": "resnet10t"}, "own grid"),
        ({"decoder": "unet"}, "own grid"),
        ({"beside": replace(FIRST, bands=(3, 3))}, "beside reads 6 bands"),
        ({"beside": Spec("resnet10t", "pool", (4,))}, "own grid"),
        ({"decoder": "conv_mean", "outputs": 3}, "one logit"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        replace(SECOND, **changes)


def test_a_pool_over_the_own_grid_is_no_mistake() -> None:
    assert build(replace(FIRST, decoder="pool")).eval()(torch.zeros(1, 4, 32, 32)).shape == (1, 1)


def state(network: nn.Module) -> str:
    return hashlib.sha256(b"".join(v.numpy().tobytes() for v in network.state_dict().values())).hexdigest()


def test_what_is_frozen_stays_and_the_leak_is_named() -> None:
    model, x = build(SECOND), torch.randn(2, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    assert model.beside is not None
    before = state(model.beside)
    model.train()
    model(x).sum().backward()
    assert state(model.beside) == before, "a frozen network with live batch norm (trap 4)"
    learn.leak(model.beside)
    model.train()
    model(x).sum().backward()
    assert state(model.beside) != before
    assert not any(p.requires_grad for p in model.beside.parameters())


def test_softmax_over_the_batch_is_no_cross_entropy() -> None:
    logits, truth = torch.tensor([[2.0], [-1.0], [0.5]]), torch.tensor([1, 0, 1])
    # softmax of (2, -1, .5): e^2 = 7.38906, e^-1 = .36788, e^.5 = 1.64872; sum 9.40566
    expected = -(np.log(7.38906 / 9.40566) + np.log(1.64872 / 9.40566))
    assert batch_softmax(logits, truth).item() == pytest.approx(expected, abs=1e-4)
    assert batch_softmax(logits + 7, truth).item() == pytest.approx(expected, abs=1e-4), "a constant changes nothing (trap 1)"
    assert cross_entropy(logits + 7, truth).item() != pytest.approx(cross_entropy(logits, truth).item(), abs=1e-2)
    assert batch_softmax(logits[:, :1], torch.full((3,), 255)).item() == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chips with the four sides of the paper, half of each with a slide."""
    return written(tmp_path_factory.mktemp("chips"))


def test_statistics_of_power_on_decibels() -> None:
    rng = np.random.default_rng(3)
    chips = [radar_chip(str(k), rng, slid=False) for k in range(3)]
    found, power = misapplied(chips), 10 ** (np.concatenate([c.pixels.reshape(4, -1) for c in chips], axis=1) / 10)
    applied = found.of(chips[0])
    by_hand = (chips[0].pixels / 10 - power.mean(axis=1)[:, None, None]) / power.std(axis=1)[:, None, None]
    np.testing.assert_allclose(applied, by_hand, rtol=1e-3)
    assert abs(applied.mean()) > 0.5, "what the guard of trap 2 would catch"


def test_presence_is_a_label_of_each_square(folder: Path) -> None:
    dataset = open_dataset(folder)
    split = {"train": ["official:pretrain"], "validation": ["official:validation"]}
    samples = survey(dataset, ("before", "after"), split=split, of_chips=True, presence=True, size=32)
    read = [samples.read(name) for name in samples.ids("train")]
    assert [chip.target for chip in read] == [1, 0] * 4
    assert all(chip.truth is None for chip in read), "no pixel is told"


def run(folder: Path, out: Path, *more: str, seeds: tuple[int, ...] = (0,)) -> dict[str, object]:
    return experiment.run(RECIPE, folder, out, seeds=seeds, overrides=[*SHORT, *more])[-1]


def test_both_stages_run_and_map(folder: Path, tmp_path: Path) -> None:
    row = run(folder, tmp_path)
    assert row["samples"] == {"train": 6, "validation": 4, "test": 4}
    first = next((tmp_path / "pretrained").glob("*/model"))
    second = next(tmp_path.glob("sar-siamese-seed0-*/model"))
    stage, card = load(second)
    assert stage.beside is not None
    assert state(stage.beside) == state(load(first)[0].encoder), "the network of the first stage, to the last bit"
    assert Card.read(first).gives == "class"
    assert (second / "checkpoints" / "2" / "model.toml").is_file()
    assert card.reads == "before VV, VH in dB and after VV, VH in dB"
    chip = open_dataset(folder).read("test-0")
    pixels = chip.pixels[:4]  # the network reads no ground
    network = Network.open(second, precision="f32")
    with torch.no_grad():
        mean, std = (torch.tensor(v).reshape(1, -1, 1, 1) for v in (card.mean, card.std))
        own = torch.sigmoid(stage((torch.from_numpy(pixels)[None] - mean) / std))
    np.testing.assert_allclose(network(pixels[None], chip.valid[None]), own.numpy(), atol=2e-3)
    assert json.loads(next((tmp_path / "pretrained").glob("*/row.json")).read_text())["scores"]["accuracy"] >= 0


def test_arms_and_faults_are_told_apart(folder: Path, tmp_path: Path) -> None:
    every = [(), ("pretrain.use=untrained",), ('fidelity=["norm_bug", "batch_softmax", "bn_leak"]',)]
    for more in every:
        run(folder, tmp_path, "chips.most=2", *more)
    assert len([*tmp_path.glob("sar-siamese-seed0-*")]) == len(every)
    assert len([*(tmp_path / "pretrained").iterdir()]) == 2, "the untrained arm pretrains nothing"


def test_budgets_are_nested_and_drawn_by_the_seed(folder: Path) -> None:
    page = recipe.read(RECIPE)
    samples = survey(open_dataset(folder), page.inputs, split=page.split, size=32)

    def chosen(most: int, seed: int) -> set[str]:
        return set(learn.learned(samples, replace(page, chips=replace(page.chips, most=most)), seed))

    assert chosen(0, 0) == set(samples.ids("train"))
    assert [len(chosen(n, 0)) for n in (2, 5, 99)] == [2, 5, 6]
    assert chosen(2, 0) < chosen(5, 0)
    assert len({frozenset(chosen(2, seed)) for seed in range(6)}) > 1


def test_the_command_says_what_is_wrong(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pretrains nothing"):
        experiment.run("flood-folder", folder, tmp_path, pretrain_on=folder)
    with pytest.raises(UnknownNameError, match="norm_bug"):
        recipe.read(RECIPE, ["fidelity=['norm-bug']"])
    result = CliRunner().invoke(main, ["run", RECIPE, "--on", str(folder), "-o", str(tmp_path), "--set", "pretrain.use=frozen"])
    assert result.exit_code == 2
    with pytest.raises(UsageError, match="objective classify"):
        recipe.read(RECIPE, ["steps.0.train.target=presence"])


def test_average_precision_chooses_a_checkpoint() -> None:
    segment = Segment(Sum({"dice": 1}))

    class Given(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels

    # scores .9, .8, .3, .1 with truth 1, 0, 1, 0: AP = 1/2 * 1 + 1/2 * 2/3
    p = torch.tensor([0.9, 0.8, 0.3, 0.1])
    batch = {
        "pixels": torch.log(p / (1 - p)).reshape(1, 1, 2, 2), "truth": torch.tensor([1, 0, 1, 0]).reshape(1, 2, 2),
        "valid": torch.ones(1, 2, 2, dtype=torch.bool),
    }  # fmt: skip
    assert segment.scores(segment.sums(Given(), batch).numpy())["ap"] == pytest.approx(5 / 6)
