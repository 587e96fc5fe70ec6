"""What training and adaptation cost beside the least that they could: a bare loop on one batch, and forward passes alone.

The bare loop has the same network, losses, precision and batch, kept in memory: no reading, no augmentation, no logs. Loading is
timed by itself, on the processor that also trains. Compiled is the bare loop through torch.compile, what it takes to compile
apart. Every row has a process of its own; medians over steps.

Run:     python -m benchmarks.training [--folder DIR]
Writes:  benchmarks/results/training.md
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import click
import numpy as np

from aftermap import learn
from aftermap.adapt.norm import Adaptation, Norms, estimate
from aftermap.batches import Batches
from aftermap.card import BUNDLED
from aftermap.chips import F32
from aftermap.engine import Network
from aftermap.experiment import train_own
from aftermap.recipe import read
from aftermap.torchdoor import nn, torch
from aftermap.train import Objective, Plan, Result, fast_precision, train
from benchmarks.network import aftermap
from benchmarks.sar_landslides_table import measured, table

RESULTS = Path(__file__).parent / "results"
SCENE_PX, CHIP_PX, BATCH, STEPS = 1024, 128, 16, 12
CASES = (("resnet18_half", "unet_plain"), ("resnet34", "unet"))
SHOTS, SIDE_PX, REPEATS = (10, 50), 256, 5
MOST_PASSES = 1.1


class Speed(NamedTuple):
    """Of one network in one precision."""

    network: str
    precision: str
    chips_per_s: float
    bare: float
    of_bare: float
    loading: float
    """Chips a second that reading and augmentation alone come to."""
    share_loading: float
    """Of a step."""
    compiled: float
    compile_s: float
    peak_gb: float


def speed(encoder: str, decoder: str, precision: str, chips: Path) -> Speed:
    """Trains as `aftermap run` does, and times what `train` is given there."""
    page = read("flood-s1", [
        "data={}", f"chips.size={CHIP_PX}", f"steps.0.train.steps={STEPS}", f"steps.0.train.every={STEPS}",
        f"steps.0.train.batch={BATCH}", "steps.0.train.schedule=constant", f"steps.0.train.precision={precision}",
        f"model={{'encoder': '{encoder}', 'decoder': '{decoder}', 'weights': 'none'}}", "steps.0.train.augment=true",
    ])  # fmt: skip
    found: list[Speed] = []

    def timed(
        model: nn.Module, objective: Objective, training: Batches, validation: Batches, plan: Plan, folder: Path, **more: Any
    ) -> Result:
        told: list[float] = []
        ended = train(model, objective, training, validation, plan, folder, said=lambda *_: told.append(time.perf_counter()))
        step = _between(told[:-1])  # the last holds the validation
        loads = [time.perf_counter(), *(time.perf_counter() for _ in training.training(range(STEPS)))]
        bare = partial(_bare, objective=objective, training=training, plan=plan)
        plain, began = _between(bare(model)), time.perf_counter()
        compiled = bare(torch.compile(model))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        found.append(Speed(
            f"{encoder}, {decoder}", plan.precision, BATCH / step, BATCH / plain, plain / step, BATCH / _between(loads),
            _between(loads) / step, BATCH / _between(compiled), compiled[0] - began, peak,
        ))  # fmt: skip
        return ended

    vars(learn)["train"] = timed
    with tempfile.TemporaryDirectory(prefix="aftermap-speed-") as out:
        train_own(page, chips, Path(out) / "model", seed=0, made_by="benchmarks.training")
    return found[0]


def _between(moments: Sequence[float]) -> float:
    return median(later - sooner for sooner, later in pairwise(moments))


def _bare(model: Any, *, objective: Objective, training: Batches, plan: Plan) -> list[float]:
    """Moments after steps of forward, backward and AdamW on one batch, the first of which compiles."""
    ((batch),) = [*training.training(range(1))]
    batch["pixels"] = batch["pixels"].contiguous(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=plan.lr)
    model.train()
    moments = []
    for _ in range(STEPS):
        with torch.autocast("cpu", torch.bfloat16, enabled=plan.precision == "bf16"):
            loss = objective(model, batch)["loss"]
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        moments.append(time.perf_counter())
    return moments


class Passes(NamedTuple):
    """Batch norm estimated anew from so many crops, in processor seconds, beside the same crops mapped by the same engine."""

    network: str
    shots: int
    adapting: float
    mapping: float
    passes: float


def passes(name: str) -> list[Passes]:
    """Of a bundled network, on noise: pixels decide nothing here."""
    network, norms = Network.open(BUNDLED / name, precision="f32"), Norms.open(BUNDLED / name)
    rng, found = np.random.default_rng(0), []
    std, mean = (np.reshape(v, (-1, 1, 1)) for v in (network.card.std, network.card.mean))
    crops: list[F32] = [
        np.asarray(rng.normal(size=(len(std), SIDE_PX, SIDE_PX)) * std + mean, np.float32) for _ in range(max(SHOTS))
    ]
    estimate(norms, crops[:1], Adaptation(1))
    network.probabilities(crops[0][None])  # compiles
    for shots in SHOTS:
        own = crops[:shots]
        adapting = _least(partial(estimate, norms, own, Adaptation(shots)))
        mapping = _least(lambda own=own: [network.probabilities(one[None]) for one in own])  # type: ignore[misc]
        found.append(Passes(name, shots, adapting, mapping, adapting / mapping))
    return found


def _least(act: Callable[[], Any]) -> float:
    took = []
    for _ in range(REPEATS):
        began = time.process_time()
        act()
        took.append(time.process_time() - began)
    return min(took)


def chips(folder: Path) -> Path:
    """A data set of chips, made unless it is there."""
    if not (folder / "chips" / "facts.toml").exists():
        scene = folder / "scene"
        aftermap("simulate", "flood", "-o", scene, "--size", str(SCENE_PX), "--quiet")
        args = ("--after", scene / "after.tif", "--truth", scene / "truth.tif", "--size", str(CHIP_PX), "--split", "blocks")
        aftermap("chips", *args, "-o", folder / "chips", "--quiet")
    return folder / "chips"


HEAD = f"""# What training and adaptation cost

{{measured}} `python -m benchmarks.training`. Chips of {CHIP_PX} px, two bands, batches of {BATCH}, {STEPS} steps, two threads.
Chips a second; "of bare" is what the loop reaches of a bare one on one batch in memory, "share loading" what reading and
augmenting take of a step, in the process that trains.
"""
ADAPTING = f"""## Batch norm estimated anew

Crops of {SIDE_PX} px, fp32, processor seconds, the least of {REPEATS}; {MOST_PASSES} forward passes are wanted at most.
"""


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), help="Where the chips are kept.")
@click.option("--one", default="", help="One row, in this process, as JSON.")
def main(folder: Path | None, one: str) -> None:
    """As the module says."""
    if one:
        encoder, decoder, precision = one.split(",")
        assert folder is not None
        click.echo(json.dumps(speed(encoder, decoder, precision, chips(folder))))
        return
    with tempfile.TemporaryDirectory(prefix="aftermap-training-") as scratch:
        rows = _rows(folder or Path(scratch))
    adapting = [row for name in ("flood-s1", "building-rgb") for row in passes(name)]
    out = [
        HEAD.format(measured=measured()), *table(rows, {k: k.replace("_", " ") for k in Speed._fields}), "", ADAPTING,
        *table(adapting, {k: k for k in Passes._fields}), "",
    ]  # fmt: skip
    (RESULTS / "training.md").write_text("\n".join(out), encoding="utf-8")
    click.echo("\n".join(out))


def _rows(folder: Path) -> list[Speed]:
    chips(folder)
    found = []
    for encoder, decoder in CASES:
        for precision in dict.fromkeys(("fp32", fast_precision())):
            command = [sys.executable, "-m", "benchmarks.training", "--folder", str(folder), "--one"]
            done = subprocess.run([*command, f"{encoder},{decoder},{precision}"], check=True, capture_output=True, text=True)
            found.append(Speed(*json.loads(done.stdout.splitlines()[-1])))
            click.echo(found[-1], err=True)
    return found


if __name__ == "__main__":
    main()
