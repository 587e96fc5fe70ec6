"""What training on a GPU reaches beside a bare loop on one batch that lies there, and beside what its matrices could.

Chips are made up in memory and changed as training changes them: pixels decide nothing here. The bare loop has the same network,
losses, precision and batch, and never asks how it went. Read by one: the process that trains reads too; read beside: processes
read for it, as `aftermap train` has it. Compiled is the bare loop through torch.compile. The card is waited for at both ends of
what is timed.

Run:     python -m benchmarks.gpu
Writes:  benchmarks/results/gpu.md
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import click
import numpy as np
from torch.utils.flop_counter import FlopCounterMode

from aftermap.augment import Augment
from aftermap.batches import Batches, readers
from aftermap.chips import Chip
from aftermap.losses import Sum
from aftermap.model import Model, Spec, build
from aftermap.normalise import fit
from aftermap.objectives.segment import Segment
from aftermap.surgery import bands_last
from aftermap.torchdoor import torch
from aftermap.train import LOG, Plan, fabric_for, fast_precision, train

RESULTS = Path(__file__).parent / "results"
CHIP_PX, BATCH, CHIPS = 256, 32, 64
WARM, STEPS, PARTS = 20, 60, 3
"""Steps before the clock, while it runs, and the parts of them of which the median counts."""
CASES = (("resnet18_half", "unet_plain"), ("resnet34", "unet"))
GEMM_PX = 8192
MANY = 10**6
"""Chips that a whole training reads."""


@dataclass(frozen=True)
class Noise:
    """Chips of two bands in dB with a disc in each; the last column was not observed."""

    side: int = CHIP_PX

    def ids(self, split: str) -> list[str]:
        """As many of either side as there are."""
        return [f"{split} {n}" for n in range(CHIPS if split == "train" else BATCH)]

    def read(self, id: str) -> Chip:
        """The same whenever it is asked for."""
        if (known := _KEPT.get(id)) is None:
            known = _KEPT[id] = self._made(int(id.split()[1]))
        return known

    def _made(self, number: int) -> Chip:
        rng = np.random.default_rng(number)
        y, x = np.mgrid[: self.side, : self.side] - rng.uniform(self.side / 4, 3 * self.side / 4, 2)[:, None, None]
        wet = np.hypot(y, x) < rng.uniform(self.side / 8, self.side / 4)
        mean = np.stack([np.where(wet, -19.0, -9.0), np.where(wet, -26.0, -15.0)])
        pixels = np.asarray(mean + rng.normal(0, 2, mean.shape), np.float32)
        pixels[:, :, -1] = np.nan
        return Chip(
            pixels, np.asarray(np.isfinite(pixels).all(axis=0)), wet.astype(np.uint8), ("VV", "VH"), "dB", f"{number}", ""
        )


_KEPT: dict[str, Chip] = {}
"""Of this process, as samples.py keeps what it read."""


class Speed(NamedTuple):
    """Chips a second."""

    network: str
    precision: str
    bare: float
    share_of_matrices: float
    """What the bare loop's convolutions come to, of what large matrices reach in that precision."""
    read_by_one: float
    read_beside: float
    of_bare: float
    """Of the one that is read beside."""
    compiled: float
    compile_s: float
    peak_gb: float
    """What tensors took of the card while it trained."""


def network(encoder: str, decoder: str) -> Model:
    """With weights of its seed."""
    return build(Spec(encoder, decoder, (2,)), seed=0)


def batches(split: str, workers: int = 0) -> Batches:
    """Changed at random where they train."""
    source = Noise()
    level = fit(source.read(name) for name in source.ids("val")[:4])
    return Batches(source, source.ids(split), level, BATCH, augment=Augment() if split == "train" else None, workers=workers)


def speed(encoder: str, decoder: str, precision: str, limit: float) -> Speed:
    """Everything of one network in one precision."""
    alone = _trained(network(encoder, decoder), precision, 0)
    torch.cuda.reset_peak_memory_stats()
    helped = _trained(network(encoder, decoder), precision, readers(MANY))
    peak = torch.cuda.max_memory_allocated() / 2**30
    model = network(encoder, decoder).cuda()
    bare, flop = _bare(model, model, precision)[0], _flop(model)
    compiled, compile_s = _bare(torch.compile(model), model, precision) if precision == "bf16" else (float("nan"),) * 2
    return Speed(
        f"{encoder}, {decoder}", precision, bare, bare * flop / limit, alone, helped, helped / bare, compiled, compile_s, peak
    )


def _trained(model: Model, precision: str, workers: int) -> float:
    told: list[float] = []

    def said(step: int, _: int, numbers: dict[str, float]) -> None:
        if step >= WARM and (step - WARM) % (STEPS // PARTS) == 0 and not numbers:
            torch.cuda.synchronize()
            told.append(time.perf_counter())

    plan = Plan(WARM + STEPS + 1, every=WARM + STEPS + 1, precision=precision)
    with tempfile.TemporaryDirectory() as out:
        train(model, _objective(), batches("train", workers), batches("val"), plan, Path(out), said=said)
    return _chips_a_second(told)


def _objective() -> Segment:
    return Segment(Sum({"dice": 1, "focal": 10}))


def _chips_a_second(moments: list[float]) -> float:
    return BATCH * (STEPS // PARTS) / median(later - sooner for sooner, later in pairwise(moments))


def _bare(model: Any, weights: Model, precision: str) -> tuple[float, float]:
    """Chips a second, and what the first step took."""
    batch = {name: value.cuda() for name, value in next(iter(batches("train").training(range(1)))).items()}
    batch["pixels"] = batch["pixels"].contiguous(memory_format=torch.channels_last)
    bands_last(weights)
    weights.train()
    optimiser, objective, moments = torch.optim.AdamW(weights.parameters(), lr=1e-4), _objective(), []
    began = time.perf_counter()
    for step in range(WARM + STEPS + 1):
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
            loss = objective(model, batch)["loss"]
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if step == 0:
            torch.cuda.synchronize()
            first = time.perf_counter() - began
        if step >= WARM and (step - WARM) % (STEPS // PARTS) == 0:
            torch.cuda.synchronize()
            moments.append(time.perf_counter())
    return _chips_a_second(moments), first


def _flop(model: Model) -> float:
    """Of the convolutions and products of a chip, forward and backward."""
    with FlopCounterMode(display=False) as counted:
        model(torch.zeros(1, 2, CHIP_PX, CHIP_PX, device="cuda")).sum().backward()
    return float(counted.get_total_flops())


def matrices(dtype: Any) -> float:
    """FLOP/s of large products, as fp32 is multiplied by convolutions: in TF32."""
    torch.backends.cuda.matmul.allow_tf32 = True
    a, b = (torch.randn(GEMM_PX, GEMM_PX, device="cuda", dtype=dtype) for _ in range(2))
    took = []
    for _ in range(10):
        torch.cuda.synchronize()
        began = time.perf_counter()
        _ = a @ b
        torch.cuda.synchronize()
        took.append(time.perf_counter() - began)
    return 2 * GEMM_PX**3 / median(took[3:])


class StoppedError(Exception):
    """Stands for a process that was killed."""


def resumed() -> str:
    """How far weights of a training that was cut lie from those of one that was not, and two that were not from each other."""
    plan = replace(Plan(12, lr=3e-3, every=4, schedule="cosine"), seed=7)

    def weights(folder: Path, said: Callable[..., None] = lambda *_: None) -> dict[str, Any]:
        model = network(*CASES[0])
        train(model, _objective(), batches("train"), batches("val"), plan, folder, said=said, fabric=fabric_for())
        return model.state_dict()

    def stop(step: int, _: int, __: dict[str, float]) -> None:
        if step == 6:
            raise StoppedError

    with tempfile.TemporaryDirectory() as scratch:
        whole, again = weights(Path(scratch) / "a"), weights(Path(scratch) / "b")
        try:
            weights(Path(scratch) / "c", stop)
        except StoppedError:
            assert (Path(scratch) / "c" / LOG).exists()
        cut = weights(Path(scratch) / "c")
    apart = partial(_apart, whole)
    return (
        f"Twelve steps, the largest difference of a weight: between two runs {apart(again):.1e}; between one that was cut after "
        f"six and resumed, and one that was not, {apart(cut):.1e}."
    )


def _apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    return max(float((one[k].double() - other[k].double()).abs().max()) for k in one)


HEAD = """# Training on a GPU

{when:%-d %B %Y}, {card}, torch {torch}, {cores} cores beside it. `python -m benchmarks.gpu`. Chips of {px} px, two bands,
batches of {batch}; chips a second, medians of {parts} times {steps} steps. Large matrices reach {bf16:.0f} TFLOP/s in bf16 and
{f32:.0f} in TF32. Read beside: {readers} processes.
"""


@click.command()
def main() -> None:
    """As the module says."""
    limits = {"fp32": matrices(torch.float32), "bf16": matrices(torch.bfloat16)}
    rows = []
    for row in _rows(limits):
        click.echo(row)
        rows.append(row)
    head = HEAD.format(
        when=date.today(), card=torch.cuda.get_device_name(), torch=torch.__version__, cores=os.cpu_count(), px=CHIP_PX,
        batch=BATCH, parts=PARTS, steps=STEPS // PARTS, bf16=limits["bf16"] / 1e12, f32=limits["fp32"] / 1e12,
        readers=readers(MANY),
    )  # fmt: skip
    names = [name.replace("_", " ") for name in Speed._fields]
    table = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names), *map(_line, rows)]
    text = "\n".join([head, *table, "", resumed(), ""])
    (RESULTS / "gpu.md").write_text(text, encoding="utf-8")
    click.echo(text)


def _line(row: Speed) -> str:
    said = [one if isinstance(one, str) else f"{one:.0f}" if one >= 10 else f"{one:.2f}" for one in row]
    return "| " + " | ".join("-" if one == "nan" else one for one in said) + " |"


def _rows(limits: dict[str, float]) -> Iterator[Speed]:
    for encoder, decoder in CASES:
        for precision in dict.fromkeys(("fp32", fast_precision())):
            yield speed(encoder, decoder, precision, limits[precision])


if __name__ == "__main__":
    main()
