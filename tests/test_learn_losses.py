"""Losses against numbers worked by hand and against the library; what is unknown never counts; frozen is frozen."""

from __future__ import annotations

import copy
import hashlib
import math
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import r2_score

from aftermap import losses
from aftermap.errors import UnknownNameError
from aftermap.losses import LOSSES, Sum
from aftermap.objectives.classify import Classify
from aftermap.objectives.regress import Regress
from aftermap.objectives.segment import Segment
from aftermap.surgery import freeze, thaw
from aftermap.torchdoor import Tensor, nn, smp, torch

torch.set_num_threads(1)

P = [0.8, 0.4, 0.3, 0.9]
Y = [1, 1, 0, 0]
BINARY = torch.logit(torch.tensor(P, dtype=torch.float64)).float().reshape(1, 1, 2, 2)
TRUTH = torch.tensor(Y).reshape(1, 2, 2)
SEGMENT = [name for name in LOSSES if name not in ("mse", "huber", "batch_softmax")]


def entropy(p: float, y: int, e: float = 0.0) -> float:
    """Cross entropy of one pixel with its label smoothed over two classes."""
    target = (1 - e) * y + e / 2
    return -target * math.log(p) - (1 - target) * math.log(1 - p)


EACH = [entropy(p, y) for p, y in zip(P, Y, strict=True)]
PT = [0.8, 0.4, 0.7, 0.1]
GOLDEN: dict[str, tuple[float, dict[str, Any]]] = {
    "ce": (sum(EACH) / 4, {}),
    "soft_ce": (sum(entropy(p, y, 0.1) for p, y in zip(P, Y, strict=True)) / 4, {}),
    # weights 1 and 3: the mean is over the weights, as torch has it
    "ce weighted": ((3 * EACH[0] + 3 * EACH[1] + EACH[2] + EACH[3]) / 8, {"weights": (1.0, 3.0)}),
    # the larger half: pixels 4 (p 0.9, no hazard) and 2 (p 0.4, hazard)
    "ohem": ((-math.log(0.1) - math.log(0.4)) / 2, {}),
    # 1 - (2 (0.8 + 0.4) + e) / (2.4 + 2 + e)
    "dice": (1 - 2.4 / 4.4, {}),
    "focal": (sum(-((1 - q) ** 2) * math.log(q) for q in PT) / 4, {}),
    # classes' errors alike: 0.9 (no hazard), 0.6 (hazard), 0.3, 0.2. Hazard: J = 1/3, 2/3, 3/4, 1, steps 1/3, 1/3, 1/12, 1/4.
    # Background: 0.9 (is background), 0.6, 0.3 (is), 0.2: J = 1/2, 2/3, 1, 1, steps 1/2, 1/6, 1/3, 0.
    "lovasz": (
        (0.9 / 3 + 0.6 / 3 + 0.3 / 12 + 0.2 / 4 + 0.9 / 2 + 0.6 / 6 + 0.3 / 3) / 2,
        {},
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str) -> None:
    expected, options = GOLDEN[name]
    assert LOSSES[name.split()[0]](BINARY, TRUTH, **options).item() == pytest.approx(expected, abs=5e-6)


def test_golden_hinge_and_numbers() -> None:
    # z = 2, -0.5, -1, 1 with y = 1, 1, 0, 0: errors -1, 1.5, 0, 2; sorted 2 (y 0), 1.5 (y 1), 0, -1
    # Jaccard along them 1/3, 2/3, 3/4, 1: 2 / 3 + 1.5 / 3
    z = torch.tensor([2.0, -0.5, -1.0, 1.0]).reshape(1, 1, 2, 2)
    assert losses.lovasz_hinge(z, TRUTH).item() == pytest.approx(2 / 3 + 0.5)
    found, target = torch.tensor([[1.0], [4.0], [9.0]]), torch.tensor([1.5, 1.0, math.nan])
    assert losses.mse(found, target).item() == pytest.approx((0.25 + 9) / 2)
    assert losses.huber(found, target).item() == pytest.approx((0.125 + 2.5) / 2)


def test_against_the_library() -> None:
    logits = torch.randn(2, 3, 8, 9, generator=torch.Generator().manual_seed(0))
    truth = torch.randint(0, 3, (2, 8, 9), generator=torch.Generator().manual_seed(1))
    truth[0, :2] = 255
    theirs = smp.losses.LovaszLoss("multiclass", ignore_index=255)(logits, truth)
    assert losses.lovasz_softmax(logits, truth).item() == pytest.approx(theirs.item(), abs=1e-6)
    theirs = smp.losses.DiceLoss("multiclass", ignore_index=255, smooth=1e-6)(logits, truth)
    assert losses.dice(logits, truth).item() == pytest.approx(theirs.item(), abs=1e-6)
    theirs = smp.losses.FocalLoss("binary", ignore_index=255)(logits[:, :1], truth.clamp(max=1).where(truth != 255, 255))
    assert losses.focal(logits[:, :1], truth.clamp(max=1).where(truth != 255, 255)).item() == pytest.approx(
        theirs.item(), abs=1e-5
    )


@pytest.mark.parametrize(("name", "outputs"), [(n, k) for n in SEGMENT for k in (1, 3) if k == 1 or n != "lovasz_hinge"])
def test_contract(name: str, outputs: int) -> None:
    truth = torch.tensor([[[0, 1, 255], [1, 0, 255]]])
    shares: dict[str, float] = {name: 1.0}
    right = (
        torch.stack([(truth == c) * 60.0 - 30.0 for c in range(outputs)], dim=1)
        if outputs > 1
        else (truth[:, None] == 1) * 60.0 - 30
    )
    assert name == "soft_ce" or Sum(shares)(right, truth).item() < 1e-3
    logits = torch.full((1, outputs, 2, 3), 40.0).requires_grad_()
    loss = Sum(shares)(logits, truth)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(gradient).all()
    assert not gradient[..., 2].any(), "unknown pixels have no gradient"
    moved = logits.detach().clone()
    moved[..., 2] = -7
    assert Sum(shares)(moved, truth) == loss, "unknown pixels do not count"
    for absent in (torch.full_like(truth, 255), torch.zeros_like(truth)):
        (gradient,) = torch.autograd.grad(Sum(shares)(logits, absent), logits)
        assert torch.isfinite(gradient).all()


def test_one_logit_is_no_softmax_over_the_batch() -> None:
    target = torch.tensor([1, 0, 1])
    base = losses.cross_entropy(torch.zeros(3, 1), target)
    assert losses.cross_entropy(torch.full((3, 1), 5.0), target) != base


def test_sums_add_up_and_unknown_names_have_neighbours() -> None:
    both = Sum({"dice": 1, "focal": 10})(BINARY, TRUTH).item()
    assert both == pytest.approx(GOLDEN["dice"][0] + 10 * GOLDEN["focal"][0], abs=5e-5)
    with pytest.raises(UnknownNameError, match="dice"):
        Sum({"dise": 1})


class Given(nn.Module):
    """Gives its pixels back."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels


def test_scores_are_of_all_samples_pooled() -> None:
    rng = np.random.default_rng(0)
    truth = torch.from_numpy(rng.integers(0, 3, (6, 5, 7)))
    truth[:, 0] = 255
    valid = torch.ones(6, 5, 7, dtype=torch.bool)
    valid[:, :, 0] = False
    logits = torch.from_numpy(rng.normal(size=(6, 3, 5, 7)))
    segment = Segment(Sum({"ce": 1}), 3)
    parts = [
        segment.sums(Given(), {"pixels": logits[i], "truth": truth[i], "valid": valid[i]}) for i in (slice(0, 1), slice(1, 6))
    ]
    kept = valid & (truth != 255)
    mapped = logits.argmax(1)[kept]
    expected = [float(((mapped == c) & (truth[kept] == c)).sum() / ((mapped == c) | (truth[kept] == c)).sum()) for c in range(3)]
    assert segment.scores((parts[0] + parts[1]).numpy())["macro_iou"] == pytest.approx(np.mean(expected))
    loud = logits.clone()
    loud[~kept[:, None].expand_as(loud)] = 99
    batch = {"pixels": loud, "truth": truth, "valid": valid}
    assert segment(Given(), batch)["loss"] == segment(Given(), batch | {"pixels": logits})["loss"]

    found, target = rng.normal(size=(7, 1)), rng.normal(size=7)
    regress = Regress(Sum({"mse": 1}))
    sums = sum(
        regress.sums(Given(), {"pixels": torch.tensor(found[i]), "target": torch.tensor(target[i])})
        for i in (slice(0, 2), slice(2, 7))
    )
    scores = regress.scores(sums.numpy())  # type: ignore[union-attr]
    assert scores["rmse"] == pytest.approx(np.sqrt(np.mean((found[:, 0] - target) ** 2)), rel=1e-5)
    assert scores["r2"] == pytest.approx(r2_score(target, found[:, 0]), rel=1e-4)


def test_classes_of_chips() -> None:
    classify = Classify(Sum({"ce": 1}), 3)
    batch = {"pixels": torch.tensor([[2.0, 0, 0], [0, 2, 0], [0, 2, 0], [9, 0, 0]]), "target": torch.tensor([0, 1, 2, 255])}
    scores = classify.scores(classify.sums(Given(), batch).numpy())
    assert scores == pytest.approx({"accuracy": 2 / 3, "macro_f1": (1 + 2 / 3 + 0) / 3})
    several = {"pixels": torch.tensor([[2.0, -1, 3], [1, 1, -1]]), "target": torch.tensor([[1, 0, 1], [0, 1, 0]])}
    assert classify.scores(classify.sums(Given(), several).numpy())["accuracy"] == pytest.approx(5 / 6)


def hashed(module: nn.Module) -> str:
    return hashlib.sha256(b"".join(v.numpy().tobytes() for v in module.state_dict().values())).hexdigest()


def test_frozen_keeps_batch_norm_too() -> None:
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1), nn.BatchNorm2d(1))
    part = freeze(net[:2])
    before, free = hashed(part), hashed(net[3])
    net.train()
    for inner in part.children():
        inner.train()
    optimiser = torch.optim.AdamW(net.parameters(), 0.1, weight_decay=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        net(torch.randn(2, 2, 8, 8)).square().mean().backward()
        optimiser.step()
    assert hashed(part) == before
    assert hashed(net[3]) != free
    assert not any(m.training for m in copy.deepcopy(part).train().modules())
    thaw(part).train()(torch.randn(2, 2, 8, 8))
    assert hashed(part) != before
