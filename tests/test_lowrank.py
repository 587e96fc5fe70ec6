"""Low-rank updates: nothing changes at step 0, the base never, merging gives the same; ranks counted; biases alone; recipes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")

from aftermap import experiment, lowrank
from aftermap.cost import COST
from aftermap.errors import InputRefusedError, UsageError
from aftermap.model import Model, Spec, build, load
from aftermap.page import LowRank
from aftermap.recipe import read
from aftermap.torchdoor import nn, torch

SPECS = (
    Spec("vit_micro8", "upward", (2,), side=32, widths=(16,)), Spec("resnet18_half", "unet", (2,)),
    Spec("resnet18_half", "unet", (2, 2), fusion="siamese"),
)  # fmt: skip
HOW = {"rank": 3, "alpha": 6, "root": False, "dropout": 0.1, "layers": "all"}


def pixels(spec: Spec) -> torch.Tensor:
    return torch.randn(3, sum(spec.bands), 32, 32, generator=torch.Generator().manual_seed(1))


def learned(model: Model, spec: Spec, steps: int = 3) -> None:
    """A few steps towards anything."""
    moving = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
    for _ in range(steps):
        moving.zero_grad()
        (model.train()(pixels(spec)) - 1).square().mean().backward()
        moving.step()


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.encoder}-{s.fusion}")
def test_nothing_changes_before_a_step_and_only_updates_and_decoder_do_after(spec: Spec) -> None:
    plain, model = build(spec, seed=0).eval(), build(spec, seed=0)
    facts = lowrank.put(model, **HOW)  # type: ignore[arg-type]
    torch.testing.assert_close(model.eval()(pixels(spec)), plain(pixels(spec)), rtol=0, atol=0)
    learned(model, spec)
    after = {k.replace(".base_layer", ""): v for k, v in model.state_dict().items()}
    changed = {k for k, v in plain.state_dict().items() if not torch.equal(v, after[k])}
    assert not [k for k in changed if k.startswith("encoder.")]  # weights, biases, statistics of norms
    assert [k for k in changed if k.startswith(("decoder.", "head."))]
    for name, one in model.encoder.named_parameters():
        assert one.requires_grad == ("lora_" in name)
        assert one.requires_grad or one.grad is None
    assert facts.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert facts.parameters == sum(p.numel() for p in plain.parameters())


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.encoder}-{s.fusion}")
def test_merging_gives_the_same_network_without_updates(spec: Spec) -> None:
    model = build(spec, seed=0)
    lowrank.put(model, **HOW)  # type: ignore[arg-type]
    learned(model, spec)
    expected = model.eval()(pixels(spec))
    made = lowrank.merged(model)
    torch.testing.assert_close(made(pixels(spec)), expected, rtol=1e-5, atol=1e-5)
    assert made.state_dict().keys() == build(spec).state_dict().keys()
    torch.testing.assert_close(model.eval()(pixels(spec)), expected, rtol=0, atol=0)  # the model itself goes on


def test_updates_drop_in_training_alone() -> None:
    spec = SPECS[0]
    model = build(spec, seed=0)
    lowrank.put(model, rank=4, dropout=0.5)
    learned(model, spec)
    assert all(part.training for part in model.encoder.modules() if isinstance(part, nn.Dropout) and part.p)
    model.eval()
    torch.testing.assert_close(model(pixels(spec)), model(pixels(spec)), rtol=0, atol=0)
    model.encoder.train()
    assert not torch.equal(model(pixels(spec)), model(pixels(spec)))


def test_updates_are_drawn_by_their_seed_alone() -> None:
    def drawn(seed: int) -> torch.Tensor:
        torch.rand(seed + 1)  # whatever was drawn before
        model = build(SPECS[0], seed=0)
        lowrank.put(model, rank=2, seed=seed)
        return torch.cat([v.flatten() for k, v in model.state_dict().items() if "lora_A" in k])

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


def test_a_rank_as_large_as_a_side_is_no_low_rank() -> None:
    of_attention = lowrank.put(build(SPECS[0]), rank=16, layers="attention")
    assert (of_attention.layers, of_attention.effective_rank, of_attention.not_low_rank) == (8, 16, 0)
    every = lowrank.put(build(SPECS[0]), rank=1024)
    assert every.layers == every.not_low_rank == 17
    assert every.effective_rank == pytest.approx(128)  # all sides of a ViT of 128, patches of two bands and 64 px among them
    assert every.trainable > every.parameters
    with pytest.raises(UsageError) as refused:
        lowrank.put(build(SPECS[1]), rank=4, layers="attention")
    assert refused.value.code == "no-layers"


def test_of_biases_alone_weights_and_statistics_stay() -> None:
    spec = SPECS[1]
    plain, model = build(spec, seed=0), build(spec, seed=0)
    facts = lowrank.only_biases(model)
    learned(model, spec)
    changed = {k for k, v in plain.state_dict().items() if not torch.equal(v, model.state_dict()[k])}
    assert {k.rpartition(".")[2] for k in changed if k.startswith("encoder.")} == {"bias"}
    assert facts.layers == 0
    assert 0 < facts.trainable < facts.parameters


def test_what_is_written_is_the_network_again_on_the_one_that_it_began_with(tmp_path: Path) -> None:
    spec = SPECS[0]
    model = build(spec, seed=0)
    lowrank.put(model, **HOW)  # type: ignore[arg-type]
    learned(model, spec)
    path = lowrank.write(tmp_path, model, HOW)
    again = lowrank.read(path, build(spec, seed=0), HOW).eval()
    torch.testing.assert_close(again(pixels(spec)), model.eval()(pixels(spec)), rtol=0, atol=0)
    assert path.stat().st_size < 4 * sum(p.numel() for p in build(spec).parameters())
    with pytest.raises(UsageError, match="is not of resnet18_half"):
        lowrank.read(path, build(SPECS[1]), HOW)


PAGE = """hazard = "flood"
inputs = ["after"]
data = { kind = "ombria", settings = { image = "s1" } }
split = { train = ["C"], validation = ["D"], test = ["A+B+H"] }
chips = { size = 32 }
model = { encoder = "vit_micro8", decoder = "upward", widths = [16] }
surgery = ["lora"]
lora = { rank = 2, dropout = 0.1 }
[[steps]]
train = { objective = "segment", losses = { ce = 1, dice = 1 }, steps = 4, batch = 4, lr = 1e-2, encoder_lr = 1e-3, every = 2 }
"""


def test_a_recipe_delivers_a_merged_network_and_its_updates(tmp_path: Path) -> None:
    from tests import dataset_layouts

    page = tmp_path / "page.toml"
    page.write_text(PAGE.replace('"D"', '"C2"'), encoding="utf-8")
    made = dataset_layouts.ombria(tmp_path / "data")
    listed = (made.folder / "groups_inferred.csv").read_text().replace("0002,test,H", "0002,test,C2")
    (made.folder / "groups_inferred.csv").write_text(listed)
    (row,) = experiment.run(page, made.folder, tmp_path / "runs")
    (folder,) = (tmp_path / "runs").glob("page-*/model")
    network, card = load(folder)
    assert not lowrank.adapted(network)
    assert row["learning"]["layers"] == 17
    assert row["learning"]["effective_rank"] == 2
    assert lowrank.ADAPTER in {p.name for p in folder.iterdir()}
    cost = json.loads((folder / "training" / "step-0" / COST).read_text())
    assert cost["trainable"] == row["learning"]["trainable"]
    assert cost["seconds_per_epoch"] > 0
    own = read(page)
    again = lowrank.merged(lowrank.read(folder / lowrank.ADAPTER, build(network.spec, seed=0), asdict(own.lora)))
    x = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(again(x), network(x), rtol=1e-5, atol=1e-5)
    assert card.hazard == "flood"
    assert np.isfinite(json.loads((folder.parent / "row.json").read_text())["scores"]["iou"] or 0)


def test_a_recipe_without_updates_keeps_its_hash_whatever_they_would_be(tmp_path: Path) -> None:
    page = tmp_path / "page.toml"
    page.write_text(PAGE.replace('surgery = ["lora"]\n', ""), encoding="utf-8")
    assert read(page).sha256 == read(page, ["lora.rank=64"]).sha256
    page.write_text(PAGE, encoding="utf-8")
    assert read(page).sha256 != read(page, ["lora.rank=64"]).sha256
    for wrong in ("lora.rank=0", "lora.layers=some", "lora.dropout=1.0", 'surgery=["lora", "bitfit"]'):
        with pytest.raises((InputRefusedError, UsageError)):
            read(page, [wrong])
    assert LowRank().rank == 16


def test_a_rate_of_the_encoder_alone_changes_the_hash_where_it_is_said(tmp_path: Path) -> None:
    page, rate = tmp_path / "page.toml", "steps.0.train.encoder_lr"
    page.write_text(PAGE.replace(" encoder_lr = 1e-3,", ""), encoding="utf-8")
    assert read(page).sha256 == read(page, [f"{rate}=0.0"]).sha256 != read(page, [f"{rate}=1e-4"]).sha256
    for wrong in ([f"{rate}=-1.0"], [f"{rate}=1e-4", "steps.0.train.objective=mae", "steps.0.train.losses={}"]):
        with pytest.raises(UsageError, match="encoder_lr"):
            read(page, wrong)
