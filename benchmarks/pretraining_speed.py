"""How many chips a second each recipe without labels learns from here, in how much memory, and what a bare loop would reach.

The bare loop has the same network, objective, precision and batch, kept in memory: no reading, no clipping, no logs. Its ratio
to the training is what all of that costs. Recipes at the papers' sizes go a few steps with smaller batches.

Run:     python -m benchmarks.pretraining_speed --runs runs
Writes:  benchmarks/results/pretraining_speed.md
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from aftermap import recipe, unlabelled
from aftermap.datasets.dataset import open_dataset
from aftermap.samples import survey
from aftermap.torchdoor import torch
from aftermap.train import train
from benchmarks.pretraining_runs import KIND, REGIONS, scenes
from benchmarks.sar_landslides_table import measured, table

RESULTS = Path(__file__).parent / "results"
CASES = {
    "mae-small": (64, 64, 16, "s1"), "dino-small": (64, 64, 8, "s1"), "clip-small": (64, 64, 8, ""),
    "contrast-elevation-small": (64, 64, 8, ""), "mae": (448, 4, 2, "s1"), "dino": (224, 8, 2, "s1"),
    "contrast-elevation": (96, 16, 2, "rgb"), "clip": (448, 2, 2, ""),
}  # fmt: skip
"""Recipe -> px of a chip, chips of a batch, steps that are timed, image after."""


@dataclass(frozen=True)
class Speed:
    """Of one recipe, in a process of its own; medians over steps."""

    recipe: str
    parameters_m: float
    """Of all that learns, in millions."""
    chip_px: int
    batch: int
    steps: int
    precision: str
    chips_per_s: float
    bare_chips_per_s: float
    of_bare: float
    peak_gb: float
    """Largest resident set of the process, torch itself in it."""


def speed(name: str, runs: Path) -> Speed:
    """Trains for as many steps as CASES says after one to warm up, and the bare loop as long."""
    size, batch, steps, after = CASES[name]
    settings = {"size": size, "truth": "none"} | ({"after": after} if after else {})
    page = recipe.read(name, [
        f"data={{'kind': '{KIND}', 'settings': {settings}}}", f"chips.size={size}", "steps.0.train.epochs=0",
        f"steps.0.train.steps={steps + 2}", f"steps.0.train.every={steps + 2}", f"steps.0.train.batch={batch}",
        "steps.0.train.warmup=0",
    ])  # fmt: skip
    events = sorted(path.name for path in scenes(runs).iterdir() if path.name.startswith(REGIONS))
    split = {"train": events[::4], "validation": events[1:3]}
    samples = survey(
        open_dataset(scenes(runs), KIND, **settings), page.inputs, split=split, size=size, normalise=page.normalise,
        unlabelled=True,
    )  # fmt: skip
    made = unlabelled.prepare(page, samples, 0)
    told: list[float] = []
    with tempfile.TemporaryDirectory(prefix="aftermap-speed-") as folder:
        train(made.network, made.objective, made.training, made.validation, made.plan, Path(folder),
              said=lambda *_: told.append(time.perf_counter()))  # fmt: skip
    trained = _median(told[:-1])  # the last holds the validation
    bare = _median(_bare(made, steps + 1))
    count = sum(p.numel() for p in made.network.parameters() if p.requires_grad) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return Speed(name, count, size, batch, steps, made.plan.precision, batch / trained, batch / bare, bare / trained, peak)


def _median(moments: list[float]) -> float:
    return float(np.median(np.diff(moments)))


def _bare(made: unlabelled.Prepared, steps: int) -> list[float]:
    """Moments between steps of forward, backward and AdamW on one batch."""
    ((batch),) = [*made.training.training(range(1))]
    optimiser = torch.optim.AdamW((p for p in made.network.parameters() if p.requires_grad), lr=made.plan.lr)
    made.network.train()
    moments = []
    for _ in range(steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=made.plan.precision == "bf16"):
            loss = made.objective(made.network, batch)["loss"]
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        moments.append(time.perf_counter())
    return moments


def of_process(name: str, runs: Path) -> Speed:
    """In a process of its own, so that its memory is its own."""
    command = [sys.executable, "-m", "benchmarks.pretraining_speed", "--runs", str(runs), "--one", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Speed(**json.loads(done.stdout.splitlines()[-1]))


HEAD = """# How fast networks learn without labels

{measured} One process for each recipe, two threads, medians over steps. A bare loop: the same network, objective,
precision and batch, kept in memory, nothing else. Batches of the papers' recipes are as they fit; no GPU has been measured.
"""


@click.command()
@click.option("--runs", type=click.Path(path_type=Path), required=True)
@click.option("--one", default="", help="One recipe, in this process, as JSON.")
def main(runs: Path, one: str) -> None:
    """As the module says."""
    if one:
        click.echo(json.dumps(vars(speed(one, runs))))
        return
    rows = []
    for name in CASES:
        rows.append(of_process(name, runs))
        click.echo(rows[-1])
    names = {k: k.replace("_", " ") for k in Speed.__dataclass_fields__}
    out = [HEAD.format(measured=measured()), *table(rows, names), "", "`python -m benchmarks.pretraining_speed --runs RUNS`"]
    (RESULTS / "pretraining_speed.md").write_text("\n".join(out) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
