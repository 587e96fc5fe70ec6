"""Progressive label refinement: domains kept apart, labels only from probabilities, rounds that resume, no truth ever read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from aftermap import card as cards
from aftermap import recipe
from aftermap.adapt.selftrain import ROUNDS, TARGET, Labelled, Round, SelfTrain, pseudo_labels, self_train, shares
from aftermap.card import Card
from aftermap.chips import UNKNOWN, Chip
from aftermap.cli import main
from aftermap.domainnorm import Domained
from aftermap.engine import Network
from aftermap.errors import InputRefusedError, UnknownNameError, UsageError
from aftermap.losses import Sum, hardest
from aftermap.model import Model, Spec, build, save
from aftermap.normalise import Normaliser, fit
from aftermap.page import Data, Target
from aftermap.scorer import LayerBands
from aftermap.targets import Images
from aftermap.torchdoor import Tensor, nn, torch
from tests.conftest import grid, write
from tests.learn_run import Ponds, network
from tests.test_recipe import folder, ran

torch.set_num_threads(1)
HOME = Path(cards.__file__).parent / "models"


@cache
def level() -> Normaliser:
    ponds = Ponds()
    return fit(ponds.read(i) for i in ponds.ids("train"))


def source() -> Labelled:
    return Labelled(Ponds(), level(), "ponds")


def target() -> list[Chip]:
    """Ponds in another light, with a truth that nobody may read."""
    ponds = Ponds()
    chips = [ponds.read(i) for i in ponds.ids("test")]
    return [replace(c, pixels=c.pixels * np.float32(0.8), truth=np.full_like(c.truth, 1)) for c in chips]


def bent() -> Model:
    """A network whose batch norm has seen something."""
    model = network()
    torch.manual_seed(0)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None
            part.running_mean.normal_(0, 0.1)
    return model.eval()


def pixels(n: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(n, 2, 64, 64, generator=torch.Generator().manual_seed(seed))


def buffers(model: nn.Module, *, others: bool) -> Tensor:
    """Statistics of domain 0, or of the others."""
    own = [b.flatten() for name, b in model.named_buffers() if ("others" in name) == others and "tracked" not in name]
    return torch.cat(own).clone()


# Domains


def test_one_domain_is_plain_batch_norm() -> None:
    plain, apart = bent(), Domained(bent(), 1)
    assert torch.equal(plain(pixels()), apart(pixels()))
    plain.train(), apart.train()
    torch.testing.assert_close(plain(pixels()), apart(pixels()), rtol=0, atol=0)
    torch.testing.assert_close(torch.cat([b.flatten().float() for b in plain.buffers()]),
                               torch.cat([b.flatten().float() for b in apart.buffers()]), rtol=0, atol=0)  # fmt: skip


def test_another_domain_is_batch_norm_too_and_leaves_the_source_alone() -> None:
    """Trap 14 of methods.md: source statistics untouched by target batches; those of the target as plain batch norm has them."""
    plain, apart = bent().train(), Domained(bent()).train()
    before = buffers(apart, others=False)
    torch.testing.assert_close(plain(pixels()), apart(pixels(), 1), rtol=1e-4, atol=1e-5)
    assert torch.equal(before, buffers(apart, others=False))
    torch.testing.assert_close(buffers(plain, others=False), buffers(apart.folded(1), others=False))
    assert not torch.equal(buffers(apart.folded(0), others=False), buffers(apart.folded(1), others=False))
    apart.eval()
    assert not torch.allclose(apart(pixels()), apart(pixels(), 1))


def test_no_call_leaves_its_domain_behind() -> None:
    apart = Domained(bent()).train()
    apart(pixels(), 1)
    apart.eval()
    first = apart(pixels())
    with pytest.raises(RuntimeError):
        apart(pixels()[:, :1], 1)
    assert torch.equal(apart(pixels()), first)
    with pytest.raises(ValueError, match="domain 2 of 2"):
        apart(pixels(), 2)


def test_a_batch_of_two_domains_is_two_batches() -> None:
    """Never a mean over both (methods.md C.4); and gamma and beta learn from each."""
    apart, by_hand = Domained(bent()).train(), Domained(bent()).train()
    given, domain = pixels(), torch.tensor([1, 0, 1, 0])
    found = apart(given, domain)
    assert torch.equal(found[[1, 3]], by_hand(given[[1, 3]], 0))
    assert torch.equal(found[[0, 2]], by_hand(given[[0, 2]], 1))
    norm = next(m for m in apart.modules() if isinstance(m, nn.BatchNorm2d))
    grads = []
    for part in ([1, 3], [0, 2]):
        apart.zero_grad()
        found[part].sum().backward(retain_graph=True)
        assert norm.weight.grad is not None
        grads.append(norm.weight.grad.abs().sum().item())
    assert min(grads) > 0


def test_folded_network_maps_through_the_engine_as_its_domain(tmp_path: Path) -> None:
    apart = Domained(bent().half().float()).train()
    apart(pixels(), 1)
    apart.eval()
    folded = apart.folded(1)
    assert isinstance(folded, Model)
    card = Card(
        name="n", hazard="flood", classes=("flood",), inputs=(LayerBands("after", ("VV", "VH"), "dB"),), mean=(0.0, 0.0),
        std=(1.0, 1.0), halo_px=64, multiple_of=32, training_data="none", licence="none", made_by="tests", sha256={},
    )  # fmt: skip
    save(tmp_path, folded, card)
    scores = Network.open(tmp_path, precision="f32")(pixels().numpy(), np.ones((4, 64, 64), bool))
    torch.testing.assert_close(torch.from_numpy(scores), apart(pixels(), 1).sigmoid().detach(), rtol=0, atol=1e-3)


def test_a_network_without_batch_norm_has_no_domains() -> None:
    with pytest.raises(InputRefusedError) as error:
        Domained(nn.Conv2d(1, 1, 1))
    assert error.value.code == "no-batch-norm"


# Labels


def test_labels_are_of_probabilities_that_sum_to_one() -> None:
    """Trap 13 of methods.md: raw logits, averaged or not, are refused; and the threshold is read."""
    p = np.array([0.95, 0.75, 0.65, 0.5, 0.2, 0.1], np.float32).reshape(1, 1, 1, 6)
    scores, seen = np.concatenate([1 - p, p], axis=1), np.ones((1, 1, 6), bool)
    seen[..., -1] = False
    assert pseudo_labels(scores, seen)[0, 0].tolist() == [1, 1, UNKNOWN, UNKNOWN, 0, UNKNOWN]
    assert pseudo_labels(scores, seen, keep=0.9)[0, 0].tolist() == [1, *[UNKNOWN] * 5]
    assert shares(pseudo_labels(scores, seen), seen) == {"labelled": 3 / 5, "prevalence": 2 / 3}
    for logits in (np.log(scores), scores * 2):
        with pytest.raises(ValueError, match="sum to one"):
            pseudo_labels(logits, seen)


def test_balanced_labels_keep_the_same_share_of_each_class() -> None:
    rng = np.random.default_rng(0)
    p = np.where(
        rng.random((1, 1, 100, 100)) < 0.05, rng.uniform(0.5, 0.7, (1, 1, 100, 100)), rng.uniform(0, 0.2, (1, 1, 100, 100))
    )
    scores, seen = np.concatenate([1 - p, p], axis=1).astype(np.float32), np.ones((1, 100, 100), bool)
    assert (pseudo_labels(scores, seen) == 1).mean() < 1e-4, "a plain threshold leaves the rare class out"
    found = pseudo_labels(scores, seen, balanced=0.1)
    for code in (0, 1):
        assert (found == code).sum() == pytest.approx(0.1 * (scores.argmax(axis=1) == code).sum(), abs=2)


def test_hardest_pixels_by_hand() -> None:
    """Cross entropies ln 4, ln 2, ln(4/3): of three known pixels the two largest stay, the unknown one stays unknown."""
    logits = torch.tensor([[-np.log(3), 0, np.log(3), -9.0]]).reshape(1, 1, 2, 2).float()
    truth = torch.tensor([1, 1, 1, UNKNOWN]).reshape(1, 2, 2)
    assert hardest(logits, truth, 0.67).flatten().tolist() == [1, 1, UNKNOWN, UNKNOWN]
    assert Sum({"ce": 1}, hard_pixels=0.67)(logits, truth).item() == pytest.approx((np.log(4) + np.log(2)) / 2, abs=1e-6)
    with pytest.raises(UsageError):
        Sum({"ce": 1}, hard_pixels=0)


# Rounds


def rounds(
    out: Path, *models: Model, given: list[Chip] | None = None, from_: Labelled | None = None, **how: Any
) -> Iterator[Round]:
    small: dict[str, Any] = {"rounds": 2, "steps": 2, "batch": 2, "keep": 0.5, "drift": 1e9}
    return self_train(models or (bent(),), given or target(), level(), from_, SelfTrain(**(small | how)), out)


def weights(one: Round) -> Tensor:
    return torch.cat([v.flatten().double() for m in one.models for v in m.state_dict().values()])


@pytest.mark.parametrize("how", [{}, {"separate": False}, {"source_free": True}, {"start": "scratch", "balanced": 0.2}], ids=str)
def test_rounds_learn_leave_the_network_alone_and_resume(tmp_path: Path, how: dict[str, Any]) -> None:
    mine = bent()
    kept = deepcopy(mine.state_dict())
    whole = list(rounds(tmp_path / "whole", mine, from_=source(), **how))
    assert [one.number for one in whole] == [0, 1, 2]
    assert all(torch.equal(kept[k], v) for k, v in mine.state_dict().items())
    assert not torch.equal(weights(whole[1]), weights(whole[2]))
    for row in (one.row for one in whole[1:]):
        assert 0 < row["labelled"] <= 1
        assert set(row["networks"][0]) == {"loss", "label_f1" if how.get("source_free") else "source_f1"}
    cut = rounds(tmp_path / "cut", mine, from_=source(), **how)
    next(cut), next(cut)  # one round, then the process is gone
    cut.close()  # type: ignore[attr-defined]
    again = list(rounds(tmp_path / "cut", mine, from_=source(), **how))
    assert all(torch.equal(weights(a), weights(b)) for a, b in zip(whole, again, strict=True))
    assert (tmp_path / "cut" / ROUNDS).read_bytes() == (tmp_path / "whole" / ROUNDS).read_bytes()
    with pytest.raises(UsageError) as error:
        list(rounds(tmp_path / "cut", mine, from_=source(), **how, lr=1e-2))
    assert error.value.code == "other-run"


def test_no_truth_of_the_target_is_read(tmp_path: Path) -> None:
    blind = [replace(c, truth=None) for c in target()]
    a, b = (list(rounds(tmp_path / name, from_=source(), given=g))[-1] for name, g in (("a", target()), ("b", blind)))
    assert torch.equal(weights(a), weights(b))
    assert {c.domain for c in target()} != {TARGET}


def test_several_networks_label_by_their_mean(tmp_path: Path) -> None:
    """One is sure of hazard, the other as sure of none: nothing is left to learn from, and that is said, not hidden."""
    for_it, against = bent(), bent()
    with torch.no_grad():
        for model, bias in ((for_it, 9.0), (against, -9.0)):
            model.head.weight.zero_()  # type: ignore[operator]
            model.head.bias.fill_(bias)  # type: ignore[operator]
    found = list(rounds(tmp_path / "both", for_it, against, keep=0.7))
    assert [one.number for one in found] == [0]
    held = json.loads((tmp_path / "both" / ROUNDS).read_text())["rounds"]
    assert held[0]["labelled"] == 0
    assert "stopped" in held[0]
    assert len(list(rounds(tmp_path / "one", for_it, keep=0.7))) == 3


def test_labels_that_drift_end_the_rounds(tmp_path: Path) -> None:
    found = list(rounds(tmp_path, from_=source(), rounds=5, drift=1.0))  # not the least change is let pass
    assert 1 < len(found) < 6
    held = json.loads((tmp_path / ROUNDS).read_text())["rounds"]
    assert held[-1]["stopped"].startswith("stopped before it")
    assert len(list(rounds(tmp_path, from_=source(), rounds=5, drift=1.0))) == len(found), "nor does a rerun pass"


def test_settings_are_judged() -> None:
    with pytest.raises(UnknownNameError):
        SelfTrain(start="hot")
    with pytest.raises(UsageError):
        SelfTrain(keep=0.3)
    with pytest.raises(UsageError):
        list(self_train((bent(),), [], level(), None, SelfTrain(), Path("nowhere")))


# Targets, recipes, the command line


def test_separated_normalisation_is_of_what_may_be_looked_at(tmp_path: Path) -> None:
    """Trap 15 of methods.md: statistics of the target are its own, and inductively not of the images that are scored."""
    data = folder(tmp_path / "data", ("a", "b"), side=64)
    save(tmp_path / "m", build(Spec("mobilenetv3_small_050", "unet", (2,), widths=(4, 4, 8, 8, 16))), Card(
        name="n", hazard="flood", classes=("flood",), inputs=(LayerBands("after", ("VV", "VH"), "dB"),), mean=(3.0, 4.0),
        std=(2.0, 5.0), halo_px=64, multiple_of=32, training_data="none", licence="none", made_by="tests", sha256={},
        normalise="per_domain",
    ))  # fmt: skip
    network = Network.open(tmp_path / "m")
    own = Target("flood", Data("folder", {"unit": "dB", "event": "^([a-z]+)"}))
    every, half = (Images.of(t, data, network.card) for t in (own, replace(own, inductive=True)))
    assert set(half.names).isdisjoint(half.looked_at)
    assert {*half.names, *half.looked_at} == set(every.names)
    assert {p.name for p in half.pictures(network)} == set(half.looked_at)
    for images in (every, half):
        seen = [images.levelled(network, images.dataset.read(n)) for n in images.looked_at]
        flat = np.concatenate([one[:, np.isfinite(one).all(axis=0)] for one in seen], axis=1)
        np.testing.assert_allclose(flat.mean(axis=1), (3, 4), atol=1e-3)
        np.testing.assert_allclose(flat.std(axis=1), (2, 5), rtol=1e-3)
    of_a = Images.of(replace(own, events=("a",)), data, network.card)
    assert {of_a.dataset.members[n].event for n in of_a.names} == {"a"}
    assert len({every.sha256, half.sha256, of_a.sha256}) == 3


RECIPE = """
hazard = "flood"
inputs = ["after"]
data = { kind = "folder", settings = { unit = "dB", event = "^([a-z]+)" } }
split = { train = ["a", "b"], validation = ["c"], test = ["d"] }
normalise = "per_domain"
surgery = ["domain_norm"]
model = { encoder = "mobilenetv3_small_050", decoder = "unet", widths = [4, 4, 8, 8, 16] }
ensemble = [{ encoder = "mobilenetv3_small_075", decoder = "unet", widths = [4, 4, 8, 8, 16] }]
chips = { size = 32 }
[[steps]]
train = { losses = { soft_ce = 1, lovasz = 1 }, hard_pixels = 0.5, steps = 2, every = 1, keep = 2, batch = 2 }
[[steps]]
adapt = { method = "self-train", rounds = 1, keep = 0.5, settings = { steps = 2, batch = 2, drift = 1000 } }
[targets.d]
hazard = "flood"
data = { kind = "folder", settings = { unit = "dB", event = "^([a-z]+)" } }
events = ["d"]
"""


ALONE = ("",)
BOTH = ("", ".0-mobilenetv3_small_050", ".1-mobilenetv3_small_075")


@pytest.mark.parametrize("members", [ALONE, pytest.param(BOTH, marks=pytest.mark.full)], ids=["one", "two"])
def test_a_recipe_refines_on_a_target(tmp_path: Path, members: tuple[str, ...]) -> None:
    page = RECIPE if members == BOTH else "".join(line for line in RECIPE.splitlines(True) if not line.startswith("ensemble"))
    (tmp_path / "r.toml").write_text(page)
    data, out = folder(tmp_path / "data"), tmp_path / "runs"
    words = ("run", tmp_path / "r.toml", "--on", data, "-o", out, "--target", f"d={data}", "--quiet")
    ran(*words)
    facts = next(out.glob("r-seed0-*/unseen/d/facts.json"))
    variants = json.loads(facts.read_text())["variants"]
    names = ("source", "unseparated", "untrained", "self-train-round-0", "self-train-round-1")
    assert set(variants) == {f"{name}{member}" for name in names for member in members}
    assert len(list(out.glob("r*-seed0-*/row.json"))) == max(1, len(members) - 1), "each network has a row of its own"
    before = facts.read_bytes()
    ran(*words)
    assert facts.read_bytes() == before
    model = next(out.glob("r*-seed0-*/model"))
    best, next_best = Card.read(model), Card.read(model / "checkpoints/2")
    assert next_best.name == f"{best.name}-2"
    assert best.sha256["model.safetensors"] != next_best.sha256["model.safetensors"]
    ran("report", out)
    assert "self-train-round-1" in (out / "unseen.md").read_text()


def test_adapt_self_train_by_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundled model, which has its weights; source-free."""
    monkeypatch.setattr(cards, "BUNDLED", HOME)
    rng = np.random.default_rng(0)
    image = rng.integers(30, 90, (3, 160, 192)).astype(np.uint8)
    image[:, 40:90, 60:120] += 60
    write(tmp_path / "a.tif", image, grid((160, 192)), ("red", "green", "blue"))
    words = ("adapt", "landslide-rgb", "--to", tmp_path / "a.tif", "--method", "self-train", "--rounds", 1, "--steps", 2)
    said = ran(*words, "-o", tmp_path / "mine")
    assert "model" in said
    card = Card.read(tmp_path / "mine")
    assert "self-training" in card.training_data
    assert (card.leads, card.calibration, card.scores) == (False, None, ())
    assert json.loads((tmp_path / "mine" / ROUNDS).read_text())["rounds"]
    assert {p.name for p in (tmp_path / "mine").iterdir()} == {
        "model.toml", "graph.xml", "graph.bin", "model.safetensors", ROUNDS
    }  # fmt: skip
    Network.open(tmp_path / "mine")
    assert "--balanced=0.5" in card.made_by
    for wrong, code in (
        (["--mode", "ema"], "--mode is of --method bn"),
        (["--with", "landslide-rgb"], "two models are called landslide-rgb"), (["--keep", "0.2"], "keep is 0.2"),
    ):  # fmt: skip
        result = CliRunner().invoke(main, [str(w) for w in (*words, *wrong, "-o", tmp_path / "no")])
        assert result.exit_code == UsageError.exit_code
        assert code in result.output
        assert not (tmp_path / "no" / "model.toml").exists()


def test_what_a_recipe_cannot_do_on_targets_is_said_before_it_trains(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE)
    data, out = folder(tmp_path / "data"), tmp_path / "runs"
    for target, said, code in (
        (tmp_path / "nowhere", "x=1", "missing-file"), (data, "steps.1.adapt.keep=0.2", "keep is 0.2"),
        (data, "steps.1.adapt.settings.stps=3", "unknown-setting"),
    ):  # fmt: skip
        words = ("run", tmp_path / "r.toml", "--on", data, "-o", out, "--target", f"d={target}", "--quiet")
        result = CliRunner().invoke(main, [str(w) for w in (*words, *(["--set", said] if said != "x=1" else []))])
        assert result.exit_code != 0
        assert code in result.output
        assert not out.exists()


def test_recipes_of_the_paper_and_ours() -> None:
    paper, small = (recipe.read(n) for n in ("label-refinement", "label-refinement-small"))
    assert (paper.normalise, paper.surgery, paper.chips.upsample) == ("per_domain", ("domain_norm",), 4)
    assert len(paper.members) == 4
    assert len({m.sha256 for m in paper.members}) == 4
    step = paper.steps[0].train
    assert step is not None
    assert (step.steps, step.batch, step.hard_pixels) == (20000, 16, 0.5)
    assert small.members == (small.source,)
