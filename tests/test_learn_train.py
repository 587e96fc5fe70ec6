"""The loop: killed and resumed equals undisturbed, machines share one metric, batches are a function of seed and step."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aftermap import checkpoint
from aftermap.augment import Augment
from aftermap.batches import Batches
from aftermap.chips import Chip
from aftermap.cost import Clock, Cost
from aftermap.errors import AftermapError, UnknownNameError
from aftermap.losses import Sum
from aftermap.normalise import fit, fit_each
from aftermap.objectives.segment import Segment
from aftermap.schedules import SCHEDULES, schedule
from aftermap.surgery import freeze
from aftermap.torchdoor import nn, torch
from aftermap.train import LAST, LOG, Plan, fabric_for, measure, rows, train
from tests.learn_run import Ponds, batches, digest, network, run

torch.set_num_threads(1)


def chip(
    unit: str | tuple[str, ...] = "dB", bands: tuple[str, ...] = ("VV", "VH"), seed: int = 0, shape: tuple[int, int] = (20, 30)
) -> Chip:
    """Noise with an unobserved corner; truth says where each pixel came from."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(-12, 3, (len(bands), *shape)).astype(np.float32)
    pixels[:, :3, :4] = np.nan
    truth = (np.arange(np.prod(shape)) % 250).reshape(shape).astype(np.uint8)
    return Chip(pixels, np.asarray(np.isfinite(pixels).all(axis=0)), truth, bands, unit, f"c{seed}", domain=f"d{seed % 2}")


def test_statistics_in_one_pass_and_back() -> None:
    chips = [replace(chip(seed=s), pixels=chip(seed=s).pixels * (s + 1) + 1000 * s) for s in range(5)]
    seen = np.concatenate([c.pixels[:, c.valid] for c in chips], axis=1).astype(np.float64)
    found = fit(chips)
    np.testing.assert_allclose(found.mean, seen.mean(axis=1))
    np.testing.assert_allclose(found.std, seen.std(axis=1))
    normal = found.of(chips[3])
    assert not normal[:, ~chips[3].valid].any()
    np.testing.assert_allclose(found.invert(normal)[:, chips[3].valid], chips[3].pixels[:, chips[3].valid], rtol=1e-5)
    separate = fit_each(chips, by="per_domain")
    assert separate.each["d1"] == fit([chips[1], chips[3]])
    both = np.concatenate([separate.of(c)[:, c.valid] for c in (chips[1], chips[3])], axis=1)
    np.testing.assert_allclose([both.mean(), both.std()], [0, 1], atol=1e-3)
    with pytest.raises(AftermapError, match="power"):
        found.of(replace(chips[0], unit="power"))
    with pytest.raises(AftermapError, match="no chip"):
        fit([])


def test_geometry_is_shared() -> None:
    ramp = np.arange(20 * 30, dtype=np.float32).reshape(20, 30) % 250
    bands = ("VV", "VH", "before.VV")
    given = Chip(np.stack([ramp, ramp, ramp]), np.ones((20, 30), bool), ramp.astype(np.uint8), bands, "metres", "ramp")
    shapes = set()
    for seed in range(12):
        for augment in (Augment(move=0), Augment(flip=0, turn=0, move=1, scale=0)):
            found = augment(given, np.random.default_rng(seed))
            shapes.add(found.shape)
            assert found.truth is not None
            known = found.valid & (found.truth != 255)
            assert known.any()
            error = np.abs(found.pixels[:, known] - found.truth[known])
            # a shift by part of a pixel blends neighbours, whose values differ by 1 and 30, and wrap at 250
            assert np.median(error) <= (16 if augment.move else 0)
            np.testing.assert_array_equal(found.pixels[0], found.pixels[2])
    assert shapes == {(20, 30), (30, 20)}


def test_radiometry_knows_the_sensor() -> None:
    still = Augment(flip=0, turn=0, move=0, speckle=1, gain=1, jitter=1)
    rng = np.random.default_rng
    db = chip()
    changed = (still(db, rng(1)).pixels - db.pixels)[:, db.valid]
    assert 0.3 < changed.std() < 2, "speckle of 20 looks is about 1 dB"
    gain = replace(still, speckle=0)
    steps = (gain(db, rng(1)).pixels - db.pixels)[:, db.valid]
    assert np.ptp(steps) < 1e-5, "dB is never stretched"
    assert 0 < abs(steps.mean()) <= 1
    power = replace(db, pixels=np.asarray(10 ** (db.pixels / 10), np.float32), unit="power")
    np.testing.assert_allclose(10 * np.log10(gain(power, rng(1)).pixels), gain(db, rng(1)).pixels, atol=1e-4)
    rgb = chip("reflectance", ("red", "green", "blue"))
    lit = still(rgb, rng(1)).pixels[:, rgb.valid]
    slope = np.polyfit(rgb.pixels[0, rgb.valid], lit[0], 1)
    assert slope[0] != pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(np.polyval(slope, rgb.pixels[0, rgb.valid]), lit[0], atol=1e-3)
    heights = chip("metres", ("dem.elevation", "dem.slope"))
    np.testing.assert_array_equal(still(heights, rng(1)).pixels, heights.pixels)


def flat(found: Any) -> list[dict[str, np.ndarray[Any, Any]]]:
    return [{k: v.numpy() for k, v in one.items()} for one in found]


def same(a: Any, b: Any) -> None:
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def test_batches_are_a_function_of_seed_and_step() -> None:
    some = batches("train")
    whole = flat(some.training(range(6)))
    assert whole[0]["pixels"].shape == (4, 2, 64, 64)
    assert {k: v.dtype for k, v in whole[0].items()} == {
        "pixels": np.float32, "valid": np.bool_, "domain": np.int64, "truth": np.int64,
    }  # fmt: skip
    same(flat(some.training(range(3, 6))), whole[3:])
    halves = [flat(some.training(range(2), rank=r, world=2)) for r in (0, 1)]
    np.testing.assert_array_equal(
        np.concatenate([halves[0][1]["pixels"], halves[1][1]["pixels"]]), whole[1]["pixels"][[0, 2, 1, 3]]
    )
    other = flat(replace(some, seed=4).training(range(1)))
    assert not np.array_equal(other[0]["pixels"], whole[0]["pixels"])
    drawn = [some._places(step) for step in range(5)]
    assert sorted(place for places in drawn for place in places) == sorted([*range(10)] * 2), "two whole passes"
    once = [flat(batches("val", size=2).once(rank=r, world=2)) for r in (0, 1)]
    assert sum(len(b["pixels"]) for part in once for b in part) == 5


@pytest.mark.full
def test_batches_do_not_depend_on_workers() -> None:
    same(flat(batches("train", workers=2).training(range(3))), flat(batches("train").training(range(3))))


def test_domains_are_mixed_evenly() -> None:
    few = [f"train{i}" for i in (0, 2, 4, 6, 8, 1)]
    domains = {i: Ponds().read(i).domain for i in few}
    mixed = Batches(Ponds(), few, batches("train").normaliser, 4, domains=domains)
    for step in range(4):
        names = [domains[few[place]] for place in mixed._places(step)]
        assert names.count("d0") == names.count("d1") == 2
    assert {few[p] for step in range(3) for p in mixed._places(step)} == set(few)


def test_chips_of_two_sizes_are_refused() -> None:
    class Two(Ponds):
        def read(self, id: str) -> Chip:
            return chip(shape=(20, 30) if id == "a" else (30, 20))

    with pytest.raises(AftermapError, match="cut chips of one size"):
        list(Batches(Two(), ["a", "b"], fit([chip()]), 2).once())


def test_schedules() -> None:
    steps = 100
    ends = {name: (schedule(name, steps)(0), schedule(name, steps)(steps - 1)) for name in SCHEDULES}
    assert ends["constant"] == ends["milestones"] == (1.0, 1.0)
    assert ends["poly"] == pytest.approx((1, 0.01**0.9))
    assert ends["cosine"] == pytest.approx((1, (1 + math.cos(math.pi * 0.99)) / 2))
    assert ends["one_cycle"] == pytest.approx((1 / 25, 1e-4 / 25))
    assert [schedule("milestones", 60, milestones=(5, 11))(s) for s in (4, 5, 10, 11)] == [1, 0.5, 0.5, 0.25]
    assert [schedule("poly", 10, warmup=4)(s) for s in (0, 3, 4)] == [0.25, 1, 1]
    with pytest.raises(UnknownNameError, match="cosine"):
        schedule("cosin", 10)


def learn(folder: Path, *arguments: int) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[1]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "tests.learn_run", str(folder), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment, check=False)


def test_killed_and_resumed_equals_undisturbed(tmp_path: Path) -> None:
    whole, broken = run(tmp_path / "whole"), tmp_path / "broken"
    killed = learn(broken, 1, 26)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert killed.stdout.split() == ["4"], "two steps past the checkpoint"
    resumed = run(broken)
    assert resumed.history == whole.history
    files = sorted(p.name for p in (tmp_path / "whole").glob("*.*"))
    assert files == sorted(p.name for p in broken.glob("*.*"))
    assert LOG in files
    assert [digest(tmp_path / "whole" / f) for f in files] == [digest(broken / f) for f in files]
    assert list(rows(broken)) == whole.history
    events = list((broken / "tensorboard").glob("events*"))
    assert events


def test_it_learns_and_keeps_the_best(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    best = max(result.history, key=lambda row: row["iou"])
    assert result.kept[0].name == f"step-{int(best['step']):08d}.safetensors"
    assert len(list(tmp_path.glob("step-*"))) == 2
    model = network()
    checkpoint.read(result.kept[0], model)
    again = measure(model, Segment(Sum({"dice": 1, "focal": 10})), batches("val", size=2), fabric_for(accelerator="cpu"))
    assert again == pytest.approx({k: best[k] for k in again})
    with pytest.raises(AftermapError, match="another training"):
        small(tmp_path, Plan(5, seed=8), network())


def small(tmp_path: Path, plan: Plan, model: nn.Module, precision: str = "fp32") -> Any:
    fabric = fabric_for(accelerator="cpu", precision=precision)
    return train(model, Segment(Sum({"ce": 1})), batches("train"), batches("val"), plan, tmp_path, fabric=fabric)


def test_patience_half_precision_and_frozen_parts(tmp_path: Path) -> None:
    model = network()
    freeze(model.encoder)
    before = {k: v.clone() for k, v in model.encoder.state_dict().items()}
    # Without a rate nothing improves: the first validation stays the best, and two more end it.
    plan = Plan(20, lr=0.0, weight_decay=0.0, every=1, patience=2)
    result = small(tmp_path, plan, model, "bf16")
    assert result.stopped
    assert result.steps == 3
    assert result.kept[0].name == "step-00000001.safetensors"
    assert all(torch.equal(v, before[k]) for k, v in model.encoder.state_dict().items())
    assert small(tmp_path, plan, network_frozen(), "bf16").history == result.history, "a finished run is not run again"


@pytest.mark.parametrize("decay", ["all", "matrices"])
def test_the_encoder_has_its_own_rate(tmp_path: Path, decay: str) -> None:
    """The first step of Adam is as long as its rate, whatever the gradient."""
    model, before = network(), network().state_dict()
    small(tmp_path, Plan(1, lr=1e-2, encoder_lr=1e-4, weight_decay=0.0, decay=decay), model)
    longest = {"encoder": 0.0, "other": 0.0}
    for name, one in model.named_parameters():
        whose = "encoder" if name.startswith("encoder.") else "other"
        longest[whose] = max(longest[whose], float((one.detach() - before[name]).abs().max()))
    assert longest == pytest.approx({"encoder": 1e-4, "other": 1e-2}, rel=0.01)


def test_what_a_step_costs_leaves_validation_out(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[int] = []
    clock = Clock(lambda step, _: said.append(step))
    monkeypatch.setattr("aftermap.cost.time.perf_counter", iter([10.0, 12.0, 90.0, 92.5, 95.0]).__next__)
    for step in range(1, 6):
        clock(step, 5, {"loss": 1.0} if step == 3 else {})
    assert said == [1, 2, 3, 4, 5]
    assert clock.seconds == 2.5  # of 2, 2.5 and 2.5; the third holds a validation
    model = network_frozen()
    cost = Cost.of(model, clock, chips=40, batch=4)
    assert cost.seconds_per_epoch == 25
    assert 0 < cost.trainable < cost.parameters == sum(p.numel() for p in model.parameters())
    assert Clock(lambda *_: None).seconds is None


def network_frozen() -> nn.Module:
    model = network()
    freeze(model.encoder)
    return model


def test_what_cannot_go_on(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="iou"):
        small(tmp_path / "a", Plan(1, metric="iuo"), network())
    model = network()
    with torch.no_grad():
        next(model.head.parameters()).fill_(math.nan)
    with pytest.raises(AftermapError, match="learning rate") as caught:
        small(tmp_path / "b", Plan(1), model)
    assert caught.value.code == "not-finite"
    assert not (tmp_path / "b" / LAST).exists()
    steep = network()
    next(steep.head.parameters()).register_hook(lambda gradient: gradient + math.inf)  # type: ignore[no-untyped-call]
    with pytest.raises(AftermapError, match="gradient") as caught:
        small(tmp_path / "c", Plan(1), steep)
    assert caught.value.code == "not-finite"


@pytest.mark.full
def test_two_machines_share_one_metric(tmp_path: Path) -> None:
    both = learn(tmp_path / "two", 2)
    assert both.returncode == 0, both.stderr
    history = list(rows(tmp_path / "two"))
    assert [row["step"] for row in history] == [4, 8, 12]
    model = network()
    kept = checkpoint.read(tmp_path / "two" / LAST, model)["history"]
    alone = measure(model, Segment(Sum({"dice": 1, "focal": 10})), batches("val", size=2), fabric_for(accelerator="cpu"))
    confusion = {k: alone[k] for k in ("iou", "macro_iou", "accuracy", "f1")}
    assert confusion == pytest.approx({k: kept[-1][k] for k in confusion}, abs=1e-9)
