"""Bidirectional adaptation: losses against numbers worked by hand, statistics of batch norm, what stops it, what never moves."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date
from functools import cache
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from aftermap.adapt import views
from aftermap.adapt.bidirectional import LITERAL, Adapted, Bidirectional, adapt
from aftermap.adapt.student import follow, networks, norms, observe
from aftermap.adapt.views import Crop
from aftermap.batches import Batches
from aftermap.chips import Chip
from aftermap.errors import InputRefusedError, UnknownNameError, UsageError
from aftermap.losses import Sum
from aftermap.model import Model, Spec, build
from aftermap.normalise import fit
from aftermap.objectives.bidirectional import Metadata, characteristics, closed_form, consistency, described, pooled, reverse
from aftermap.torchdoor import Tensor, nn, torch
from tests.learn_run import Ponds, network

torch.set_num_threads(1)
LOSS = Sum({"dice": 1, "focal": 10})
KNOWN = Metadata((48.2, 16.4), date(2020, 7, 1), "S1")


class Lit(Ponds):
    """Ponds under another light; those of a training may be inverted or have labels of whole chips."""

    def __init__(self, invert: bool = False, labels: bool = False):
        super().__init__()
        self.invert, self.labels = invert, labels

    def read(self, id: str) -> Chip:
        chip = super().read(id)
        assert chip.truth is not None
        truth = np.where(chip.truth == 255, 255, 1 - chip.truth).astype(np.uint8) if self.invert else chip.truth
        return replace(chip, truth=truth, target=int(id[-1]) % 2 if self.labels else None)


def source(split: str = "train", **options: Any) -> Batches:
    ponds = Lit(**options)
    return Batches(ponds, ponds.ids(split), fit(ponds.read(i) for i in ponds.ids("train")), 4, seed=3)


@cache
def crops() -> tuple[Crop, ...]:
    ponds, stats = Ponds(), source().normaliser
    chips = [ponds.read(i) for i in ponds.ids("test")]
    return tuple(((stats.of(c) * 0.7 + 0.8 * c.valid).astype(np.float32), c.valid) for c in chips)


def run(*, model: Model | None = None, from_: Batches | None = None, validation: Batches | None = None, **how: Any) -> Adapted:
    small = {"iterations": 3, "batch": 4, "every": 2}
    plan = Bidirectional(**(small | how))
    given = from_ or (source() if plan.needs_source else None)
    known = [KNOWN, Metadata(), *[KNOWN] * (len(crops()) - 2)]
    return adapt(model or network(), crops(), given, LOSS if given else None, plan, source_validation=validation, metadata=known)


def state(model: nn.Module, *, buffers: bool) -> Tensor:
    return torch.cat([v.flatten().double() for v in (model.buffers() if buffers else model.parameters())]).detach()


# Losses


def test_reversal_is_identity_and_turns_the_gradient() -> None:
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    y = reverse(x, 0.5)
    assert torch.equal(y, x)
    (y * torch.tensor([3.0, 4.0])).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad.tolist() == [-1.5, -2.0]


def test_consistency_by_hand() -> None:
    taught = torch.logit(torch.tensor([0.1, 0.2, 0.8, 0.9], dtype=torch.float64)).reshape(1, 1, 2, 2).requires_grad_()
    found = torch.logit(torch.tensor([0.3, 0.2, 0.6, 0.5], dtype=torch.float64)).reshape(1, 1, 2, 2).requires_grad_()
    valid = torch.tensor([[[True, True], [True, False]]])
    # the 95th percentile of 0.1, 0.2, 0.8 is at rank 1.9: 0.2 + 0.9 * 0.6 = 0.74. Within 0.1 of it is 0.8, and 0.9 is not valid.
    loss, certain = consistency(found, taught, valid, margin=0.1)
    assert loss.item() == pytest.approx(0.2**2 / 3, abs=1e-7)
    assert certain == pytest.approx(2 / 3)
    every, all_ = consistency(found, taught, valid, margin=0)
    assert every.item() == pytest.approx(2 * 0.2**2 / 3, abs=1e-7)
    assert all_ == 1
    every.backward()  # type: ignore[no-untyped-call]
    assert taught.grad is None
    assert found.grad is not None
    assert (found.grad.flatten() != 0).tolist() == [True, False, True, False]


def test_characteristics_by_hand_and_what_is_missing_is_left_out() -> None:
    known = [Metadata((0, 90), None, "S2"), Metadata((0, 0), None, None)]
    wanted = described(known)
    assert wanted["location"].numpy() == pytest.approx(np.array([[0, 1, 0], [1, 0, 0]]), abs=1e-7)
    assert torch.isnan(wanted["date"]).all()
    assert wanted["sensor"].tolist() == [1, -1]
    assert described([Metadata(day=date(2021, 4, 1))])["date"][0].tolist() == pytest.approx(
        [math.sin(2 * math.pi * 91 / 365.25), math.cos(2 * math.pi * 91 / 365.25)]
    )
    found = {"location": torch.tensor([[0.0, 2, 0], [0, 3, 0]]), "date": torch.randn(2, 2), "sensor": torch.zeros(2, 5)}
    # location: cosines 1 and 0, so 1 - cos is 0.5 in the mean; no date; the sensor of the one that has it
    assert characteristics(found, wanted).item() == pytest.approx((0.5 + 0 + math.log(5)) / 3)
    for name, values in found.items():
        values.requires_grad_()
        assert name in wanted
    characteristics(found, wanted).backward()  # type: ignore[no-untyped-call]
    assert found["date"].grad is not None
    assert found["sensor"].grad is not None
    assert not found["date"].grad.any()
    assert not found["sensor"].grad[1].any()


def test_the_cosine_loss_is_least_at_the_truth_and_that_of_paper_001_at_its_opposite() -> None:
    wanted = described([Metadata((48.2, 16.4))])
    right = {"location": wanted["location"], "date": torch.zeros(1, 2), "sensor": torch.zeros(1, 5)}
    wrong = right | {"location": -wanted["location"]}
    assert characteristics(right, wanted).item() == pytest.approx(0, abs=1e-6)
    assert characteristics(wrong, wanted).item() == pytest.approx(2 / 3, abs=1e-6)
    assert characteristics(wrong, wanted, distance=False) < characteristics(right, wanted, distance=False)


def test_closed_form_is_ridge_there_and_back() -> None:
    rng = np.random.default_rng(0)
    x, t = rng.normal(2, 1, (30, 4)), rng.normal(1, 2, (20, 4))
    y = x @ rng.normal(size=(4, 2)) + rng.normal(size=(30, 2))
    forth = Ridge(alpha=0.3 * 30).fit(x, y)
    back = Ridge(alpha=0.3 * 20).fit(t, forth.predict(t))
    found = closed_form(*(torch.from_numpy(v) for v in (x, y, t)), ridge=0.3)
    assert [f.item() for f in found] == pytest.approx([np.mean((p.predict(x) - y) ** 2) for p in (forth, back)])


def test_pooled_leaves_out_what_is_not_valid() -> None:
    features = torch.tensor([[[[1.0, 5.0]]]])
    valid = torch.zeros(1, 2, 4, dtype=torch.bool)
    valid[:, :, :2] = True
    valid[0, 0, 2] = True  # a quarter of the right place
    assert pooled(features, valid).item() == pytest.approx((1 + 0.25 * 5) / 1.25)
    assert pooled(features, torch.zeros_like(valid)).item() == 0


# Views


def test_views_share_geometry_and_what_is_not_valid_stays_so() -> None:
    ramp = np.arange(2 * 32 * 32, dtype=np.float32).reshape(2, 32, 32) / 1000 + 1
    valid = np.ones((32, 32), bool)
    valid[:, -3:] = False
    ramp[:, ~valid] = 0
    eight = {views.turned((ramp, valid), how)[0].numpy().tobytes() for how in range(8)}
    assert len(eight) == 8
    pixels, seen, places = views.weak([(ramp, valid)] * 3, 5, 2, 6)
    assert sorted(places) == [0, 0, 1, 1, 2, 2]
    assert torch.equal(pixels != 0, seen[:, None].expand_as(pixels))
    strong = views.strong(pixels, seen, torch.Generator().manual_seed(0))
    assert not strong.permute(0, 2, 3, 1)[~seen].any()
    for weak, other, there in zip(pixels, strong, seen, strict=True):
        kept = there & (other != 0).all(dim=0)
        assert 0.9 < kept.sum() / there.sum() <= 1
        assert np.corrcoef(weak[:, kept].flatten(), other[:, kept].flatten())[0, 1] > 0.9
    assert torch.equal(strong, views.strong(pixels, seen, torch.Generator().manual_seed(0)))


# Networks


def test_teacher_follows_by_the_decay() -> None:
    teacher, student = network(), build(network().spec, seed=2)
    for layer in norms(student):
        nn.init.constant_(layer.running_mean, 7.0)  # type: ignore[arg-type]
    before = state(teacher, buffers=False)
    for _ in range(3):
        follow(teacher, student, 0.9)
    by_hand = 0.9**3 * before + (1 - 0.9**3) * state(student, buffers=False)
    assert torch.allclose(state(teacher, buffers=False), by_hand, atol=1e-6)
    assert torch.equal(state(teacher, buffers=True), state(student, buffers=True))


def test_siblings_share_weights_and_no_statistics() -> None:
    nets = networks(network())
    first = state(nets.student, buffers=True)
    nets.source(torch.randn(4, 2, 64, 64) + 3)
    nets.target(torch.randn(4, 2, 64, 64) + 3)
    assert torch.equal(state(nets.student, buffers=True), first)
    assert not torch.equal(state(nets.source, buffers=True), first)
    observe(nets, torch.randn(4, 2, 64, 64) + 3)
    assert not torch.equal(state(nets.student, buffers=True), first)
    assert not nets.student.training
    assert all(a is b is c for a, b, c in zip(*(n.parameters() for n in (nets.student, nets.source, nets.target)), strict=True))


# The whole


def test_statistics_follow_the_target_alone() -> None:
    model = network()
    given = [state(model, buffers=b) for b in (True, False)]
    still = dict[str, Any](lr_encoder=0, lr_heads=0)
    alone = state(run(model=model, arms=(), replay=0).model, buffers=True)
    assert not torch.equal(alone, given[0])
    # with sources and every arm, weights held: not a bit of a source, of a strong view or of the arms in them
    both = run(model=model, arms=("forward", "backward", "aux", "bdi"), **still).model
    assert torch.equal(state(both, buffers=True), alone)
    frozen = run(model=model, batch_norm=False).model
    assert torch.equal(state(frozen, buffers=True), given[0])
    assert not torch.equal(state(frozen, buffers=False), given[1])
    assert [torch.equal(state(model, buffers=b), g) for b, g in zip((True, False), given, strict=True)] == [True, True]


@pytest.mark.parametrize("arms", [("forward",), ("aux",), ("forward", "aux"), ("backward",), ("bdi",)])
def test_each_arm_teaches_and_reports(arms: tuple[str, ...]) -> None:
    model = network()
    got = run(model=model, arms=arms, replay=0, forward_ramp=1)
    assert not torch.equal(state(got.model, buffers=False), state(model, buffers=False))
    assert [row["iteration"] for row in got.history] == [0, 2, 3]
    assert got.iterations == 3
    assert not got.stopped
    assert not got.model.training
    named = {"forward": "forward", "aux": "aux", "backward": "backward", "bdi": "bdi_backward"}
    assert all(math.isfinite(got.history[-1][named[arm]]) for arm in arms)


def test_same_seed_same_result() -> None:
    one, two, other = (run(seed=seed, iterations=2) for seed in (1, 1, 2))
    assert torch.equal(state(one.model, buffers=False), state(two.model, buffers=False))
    assert repr(one.history) == repr(two.history)
    assert not torch.equal(state(one.model, buffers=False), state(other.model, buffers=False))


def test_natural_or_artificial_is_read_from_chips_of_the_source() -> None:
    got = run(arms=("backward",), adversary="nat_art", from_=source(labels=True))
    assert 0 <= got.history[-1]["adversary_accuracy"] <= 1
    with pytest.raises(InputRefusedError, match="no label natural or artificial"):
        run(arms=("backward",), adversary="nat_art")


def test_several_classes_and_two_dates() -> None:
    spec = Spec("mobilenetv3_small_050", "unet_plain", (1, 1), outputs=2, fusion="siamese", widths=(8, 8, 8, 16, 16))
    got = run(model=build(spec), arms=("forward", "backward", "aux", "bdi"), validation=source("val"))
    assert not got.stopped
    assert math.isfinite(got.history[-1]["source_dice"])


def test_what_paper_001_prints_has_no_bottom_and_reversal_has() -> None:
    options = dict[str, Any](LITERAL) | {"arms": ("backward",), "batch": 4, "iterations": 24, "every": 8, "replay": 0}
    theirs = [row["backward"] for row in run(**options).history[1:]]
    ours = [row["backward"] for row in run(**options | {"literal": False}).history[1:]]
    assert theirs[0] < theirs[1] < theirs[2]
    assert theirs[2] > 50
    assert max(ours) < 2


def test_bfloat16_stays_near() -> None:
    full, half = (run(arms=("forward", "backward", "aux"), precision=precision).history[-1] for precision in ("fp32", "bf16"))
    assert half != full
    assert [half[k] for k in ("spread", "source", "backward")] == pytest.approx(
        [full[k] for k in ("spread", "source", "backward")], rel=0.05
    )


# What stops it


def test_scores_that_do_not_vary_stop_it() -> None:
    model = network()
    nn.init.zeros_(model.head.weight)  # type: ignore[arg-type]
    got = run(model=model, arms=(), replay=0)
    assert (got.stopped, got.iterations, len(got.history)) == ("score collapse", 0, 2)


def test_a_source_that_is_lost_stops_it_and_the_last_good_network_stays() -> None:
    model = network()
    taught = run(model=model, arms=(), iterations=30, every=30, lr_encoder=3e-3, lr_heads=3e-3, validation=source("val"))
    assert taught.history[-1]["source_dice"] > 0.8
    options = dict[str, Any](arms=(), iterations=30, every=10, lr_encoder=3e-3, lr_heads=3e-3, validation=source("val"))
    got = run(model=taught.model, from_=source(invert=True), **options)
    assert got.stopped == "source dice fell"
    assert got.iterations == got.history[-2]["iteration"] < 30


@pytest.mark.parametrize(
    "how", [{"lr_encoder": 1e30, "lr_heads": 1e30}, LITERAL | {"batch_norm": False, "batch": 2, "replay": 0.0}]
)
def test_what_is_not_finite_stops_it(how: dict[str, Any]) -> None:
    model = network()
    got = run(model=model, **how | {"iterations": 50, "every": 50})
    assert got.history[-1]["iteration"] < 50
    assert got.stopped == "not finite"
    assert torch.equal(state(got.model, buffers=False), state(model, buffers=False))
    assert torch.isfinite(state(got.model, buffers=True)).all()


# What is refused


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"arms": ("sideways",)}, "no arm is called 'sideways'"),
        ({"adversary": "cloud"}, "no adversary is called"),
        ({"decay": 1.5}, "decay is 1.5; give at least 0 and at most 1"),
        ({"batch": 1}, "batch is 1; give at least 2"),
        ({"replay": math.nan}, "replay is nan"),
    ],
)
def test_impossible_settings_are_refused(how: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Bidirectional(**how)


def test_what_is_lacking_is_refused() -> None:
    free = Bidirectional(arms=("forward",), replay=0, iterations=1)
    with pytest.raises(UsageError, match="the arm backward and replay cannot do without images of the source"):
        adapt(network(), crops(), None, LOSS, Bidirectional(arms=("backward",)))
    with pytest.raises(UsageError, match="replay wants the loss"):
        adapt(network(), crops(), source(), None, Bidirectional(arms=()))
    with pytest.raises(UsageError, match="nothing is known of where"):
        adapt(network(), crops(), None, None, replace(free, arms=("aux",)), metadata=[Metadata()] * len(crops()))
    with pytest.raises(UsageError, match="metadata of 1"):
        adapt(network(), crops(), None, None, free, metadata=[KNOWN])
    with pytest.raises(UsageError, match="no crop"):
        adapt(network(), [], None, None, free)
    with pytest.raises(InputRefusedError, match="multiples of 32"):
        adapt(network(), [(np.zeros((2, 48, 48), np.float32), np.ones((48, 48), bool))], None, None, free)
    with pytest.raises(InputRefusedError, match="no batch norm"):
        adapt(build(Spec("mit_b0", "unet_plain", (2,), widths=(8,) * 5)), crops(), None, None, free)
    with pytest.raises(UnknownNameError, match="no sensor is called 'S3'"):
        Metadata(sensor="S3")
    with pytest.raises(UsageError, match="no latitude"):
        Metadata((120, 10))
