"""The one loop: a network, an objective and batches in; the best checkpoints, a log and a resumable run out.

On Lightning Fabric: one processor, one GPU or many, the same code. Everything random is drawn from (seed, step, machine), so that
a run killed at any moment and started again ends as one that was not, from its last checkpoint on.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from lightning_fabric import Fabric
from lightning_fabric.loggers.tensorboard import TensorBoardLogger

from aftermap import checkpoint
from aftermap.batches import Batch, Batches
from aftermap.errors import AftermapError, InputRefusedError, UnknownNameError
from aftermap.schedules import schedule
from aftermap.surgery import bands_last
from aftermap.torchdoor import Tensor, nn, torch

LAST, LOG = "last.safetensors", "log.csv"
DECAYS = ("all", "matrices")
"""matrices: not gains, biases and scales, which have one axis or none."""
LOOK = 50
"""Steps between looks at a loss on a GPU, which waits for each."""
_PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
Said = Callable[[int, int, dict[str, float]], None]
"""Told (step, steps, numbers) after every step; there are numbers where it was validated."""


class Objective(Protocol):
    """As objectives/ has them."""

    def __call__(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]: ...
    def sums(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor: ...
    def scores(self, sums: npt.NDArray[np.float64]) -> dict[str, float]: ...


@dataclass(frozen=True)
class Plan:
    """How a network is trained; with data, seed and first weights it determines the result."""

    steps: int
    lr: float = 1.5e-4
    encoder_lr: float = 0.0
    """Of what learns of the encoder; 0: as all else."""
    weight_decay: float = 1e-6
    clip: float = 0.999
    """Largest norm of the gradient (methods.md A.4)."""
    schedule: str = "constant"
    schedule_options: dict[str, Any] = field(default_factory=dict)
    """Of schedules.schedule."""
    every: int = 100
    """Steps between validations, each with a checkpoint."""
    metric: str = "loss"
    """What chooses checkpoints: "loss", the smallest, or a score of the objective."""
    smallest: bool = True
    keep: int = 1
    """How many of the best checkpoints stay."""
    patience: int = 0
    """Validations without a better one after which training stops; 0 for never."""
    seed: int = 0
    decay: str = "all"
    """Of DECAYS: of which parameters weights decay."""
    weight_decay_end: float | None = None
    """Where the decay ends, from weight_decay on, by half a cosine; None: it stays."""
    precision: str = "fp32"
    """ "bf16": the network's layers in bfloat16, weights and losses in fp32 (AMP)."""


@dataclass(frozen=True)
class Result:
    """Where a training ended."""

    steps: int
    kept: tuple[Path, ...]
    """The best checkpoints, as many as the plan keeps, the best first; its weights are in the network."""
    history: list[dict[str, float]]
    """One row per validation: step, loss, scores."""
    stopped: bool
    """Whether patience ended it early."""


def fabric_for(*, accelerator: str = "auto", devices: int | str = 1, precision: str = "fp32", strategy: str = "auto") -> Fabric:
    """Lightning's own words, but for the precision, which is that of Plan, and "auto", which is a GPU of CUDA or the processor:
    others have no float64, in which sums are kept."""
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    return Fabric(accelerator=accelerator, devices=devices, precision=_PRECISIONS[precision], strategy=strategy)  # type: ignore[arg-type]


def fast_precision() -> str:
    """ "bf16" where this machine multiplies it faster than fp32, else "fp32"."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported() else "fp32"


def train(
    model: nn.Module, objective: Objective, training: Batches, validation: Batches, plan: Plan, folder: Path,
    *, fabric: Fabric | None = None, said: Said = lambda *_: None,
) -> Result:  # fmt: skip
    """Trains `model` in place and leaves the best weights in it. A folder that holds the same run goes on where it stood.

    With several processes the caller has launched `fabric`; a batch has at least one chip for each.

    Raises InputRefusedError ("checkpoint-misfit") for a folder of another run, AftermapError ("not-finite").
    """
    fabric = fabric or fabric_for(precision=plan.precision)
    bands_last(model)
    folder.mkdir(parents=True, exist_ok=True)
    _refuse_few(training, validation, fabric)
    run = _identity(model, training, validation, plan, fabric.world_size)
    optimiser = torch.optim.AdamW(_groups(model, plan), lr=plan.lr)
    wrapped, moving = fabric.setup(model, optimiser)
    # After the weights went to their device: what they had moved by goes where they are.
    history = _resume(folder / LAST, run, model, optimiser)
    rate = schedule(plan.schedule, plan.steps, **plan.schedule_options)
    start, loss_sum = (int(history[-1]["step"]) if history else 0), torch.zeros((), dtype=torch.float64, device=fabric.device)
    board = TensorBoardLogger(folder, name="tensorboard", version="") if fabric.is_global_zero else None
    wrapped.train()
    stopped, look = _out_of_patience(history, plan), 1 if fabric.device.type == "cpu" else LOOK
    steps = range(start, start if stopped else plan.steps)
    for step, batch in zip(steps, training.training(steps, rank=fabric.global_rank, world=fabric.world_size), strict=True):
        torch.manual_seed(_seed(plan.seed, step, fabric.global_rank))  # dropout: as if nothing had come before
        _pace(moving, plan, rate(step), step)
        loss = objective(wrapped, _placed(fabric, batch))["loss"]
        moving.zero_grad()
        fabric.backward(loss)
        norm = fabric.clip_gradients(wrapped, moving, max_norm=plan.clip, error_if_nonfinite=False)
        moving.step()
        loss_sum += loss.detach()
        validating = (step + 1) % plan.every == 0 or step + 1 == plan.steps
        if validating or (step + 1) % look == 0:
            _refuse_endless(step, loss=loss_sum, gradient=norm)
        if not validating:
            said(step + 1, plan.steps, {})
            continue
        since = step + 1 - (int(history[-1]["step"]) if history else 0)
        row = {"step": float(step + 1), "lr": plan.lr * rate(step), "train_loss": _mean(fabric, float(loss_sum) / since)}
        _shared_statistics(model, fabric)
        history.append(row | measure(model, objective, validation, fabric))
        loss_sum.zero_()
        if fabric.is_global_zero:
            _keep(folder, run, model, optimiser, history, plan)
            assert board is not None
            board.log_metrics({k: v for k, v in history[-1].items() if k != "step"}, step + 1)
            board.save()
        said(step + 1, plan.steps, history[-1])
        fabric.barrier()
        if stopped := _out_of_patience(history, plan):
            break
    if board is not None:
        board.finalize("success")
    kept = tuple(folder / _name(row) for row in _ranked(history, plan)[: plan.keep])
    checkpoint.read(kept[0], model)
    model.to("cpu")  # where graphs are traced, whatever it was trained on
    return Result(int(history[-1]["step"]), kept, history, stopped)


def _refuse_few(training: Batches, validation: Batches, fabric: Fabric) -> None:
    """Raises InputRefusedError ("no-chips") where a process would have no chip of a batch."""
    if min(training.size, len(validation.ids)) < fabric.world_size:
        what = f"{fabric.world_size} processes share batches of {training.size} and {len(validation.ids)} chips to validate on"
        raise InputRefusedError(what, repair="take fewer processes", code="no-chips")


def _refuse_endless(step: int, **found: Tensor | None) -> None:
    """Raises AftermapError ("not-finite"): what once was not finite makes so all that is learned after it."""
    for name, value in ((name, float(one)) for name, one in found.items() if one is not None):
        if not math.isfinite(value):
            repair = "lower the learning rate, or look at the data"
            raise AftermapError(f"the {name} is {value} at step {step}", repair=repair, code="not-finite")


def _groups(model: nn.Module, plan: Plan) -> list[dict[str, Any]]:
    """Parameters that learn by rate and decay: the encoder's apart that has its own, and those whose weights do not decay."""
    if plan.decay not in DECAYS:
        raise UnknownNameError("decay", plan.decay, DECAYS)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, one in model.named_parameters():
        rate = plan.encoder_lr if plan.encoder_lr and name.startswith("encoder.") else plan.lr
        decay = 0.0 if plan.decay == "matrices" and one.ndim < 2 else plan.weight_decay
        if one.requires_grad:
            groups.setdefault((rate, decay), []).append(one)
    return [
        {"params": own, "lr": rate, "base": rate, "weight_decay": decay}
        for (rate, decay), own in sorted(groups.items(), key=lambda one: one[0], reverse=True)
    ]


def _pace(moving: Any, plan: Plan, rate: float, step: int) -> None:
    """Sets the rate and the decay of a step, for every group."""
    for group in moving.param_groups:
        group["lr"] = group["base"] * rate
        if plan.weight_decay_end is not None and group["weight_decay"]:
            group["weight_decay"] = _decayed(plan, step)


def _decayed(plan: Plan, step: int) -> float:
    assert plan.weight_decay_end is not None
    return plan.weight_decay_end + (plan.weight_decay - plan.weight_decay_end) * (1 + math.cos(math.pi * step / plan.steps)) / 2


@torch.no_grad()
def measure(model: nn.Module, objective: Objective, batches: Batches, fabric: Fabric) -> dict[str, float]:
    """Loss (a mean over chips) and the objective's scores, over all chips of all machines."""
    training = model.training
    model.eval()
    sums: Tensor | None = None
    for batch in batches.once(rank=fabric.global_rank, world=fabric.world_size):
        here = _placed(fabric, batch)
        n = len(here["pixels"])
        with fabric.autocast():
            loss, found = objective(model, here)["loss"].double() * n, objective.sums(model, here)
        fresh = torch.cat([loss.reshape(1), loss.new_tensor([n]), found.to(loss)])
        sums = fresh if sums is None else sums + fresh
    model.train(training)
    assert sums is not None
    total = np.asarray(fabric.all_reduce(sums, reduce_op="sum").cpu(), np.float64)  # type: ignore[union-attr]
    return {"loss": float(total[0] / total[1])} | objective.scores(total[2:])


def _placed(fabric: Fabric, batch: Batch) -> Batch:
    """A batch on the machine's device, its bands last in memory."""
    here: Batch = fabric.to_device(batch)
    return here | {"pixels": here["pixels"].contiguous(memory_format=torch.channels_last)}


def _shared_statistics(model: nn.Module, fabric: Fabric) -> None:
    """Batch norm has seen another share of the data on each machine: what is scored and kept is the mean."""
    for buffer in model.buffers():
        if fabric.world_size > 1 and buffer.is_floating_point():
            buffer.copy_(fabric.all_reduce(buffer, reduce_op="mean"))  # type: ignore[arg-type]


def _mean(fabric: Fabric, value: float) -> float:
    return float(fabric.all_reduce(torch.tensor(value, dtype=torch.float64, device=fabric.device), reduce_op="mean"))  # type: ignore[arg-type]


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _identity(model: nn.Module, training: Batches, validation: Batches, plan: Plan, world: int) -> str:
    """A hash of what determines the result, but for pixels and code."""
    weights = hashlib.sha256(b"".join(v.detach().cpu().numpy().tobytes() for v in model.state_dict().values())).hexdigest()
    sets = [[list(b.ids), b.size, b.seed, repr(b.augment), repr(b.normaliser), dict(b.domains)] for b in (training, validation)]
    said = {k: v for k, v in asdict(plan).items() if k != "encoder_lr" or v}  # without it as before there was one
    return hashlib.sha256(json.dumps([weights, sets, said, world], sort_keys=True).encode()).hexdigest()


def _resume(last: Path, run: str, model: nn.Module, optimiser: torch.optim.Optimizer) -> list[dict[str, float]]:
    """The history so far, the network and optimiser put back where it ended; empty at the start."""
    if not last.is_file():
        return []
    if checkpoint.facts(last)["run"] != run:
        raise InputRefusedError(f"{last.parent} holds another training", repair="choose another folder", code="checkpoint-misfit")
    history: list[dict[str, float]] = checkpoint.read(last, model, optimiser)["history"]
    return history


def _metric(row: dict[str, float], plan: Plan) -> float:
    """Smaller is better; what is undefined is worst."""
    if plan.metric not in row:
        raise UnknownNameError("metric", plan.metric, row)
    value = row[plan.metric]
    return math.inf if math.isnan(value) else value if plan.smallest else -value


def _ranked(history: list[dict[str, float]], plan: Plan) -> list[dict[str, float]]:
    """Rows from the best to the worst, the earlier first among equals."""
    return sorted(history, key=lambda row: (_metric(row, plan), row["step"]))


def _out_of_patience(history: list[dict[str, float]], plan: Plan) -> bool:
    if not plan.patience or not history:
        return False
    return len(history) - 1 - history.index(_ranked(history, plan)[0]) >= plan.patience


def _name(row: dict[str, float]) -> str:
    return f"step-{int(row['step']):08d}.safetensors"


def _keep(
    folder: Path, run: str, model: nn.Module, optimiser: torch.optim.Optimizer, history: list[dict[str, float]], plan: Plan
) -> None:
    """Writes the log, this checkpoint where it is among the best, and last; then removes those that no longer are."""
    best = {_name(row) for row in _ranked(history, plan)[: plan.keep]}
    facts = {"run": run, "history": history}
    if _name(history[-1]) in best:
        checkpoint.write(folder / _name(history[-1]), model, optimiser, facts)
    with (folder / LOG).open("w", newline="") as file:
        table = csv.DictWriter(file, list(history[0]))
        table.writeheader()
        table.writerows(history)
    checkpoint.write(folder / LAST, model, optimiser, facts)
    for path in set(folder.glob("step-*.safetensors")):
        if path.name not in best:
            path.unlink()


def rows(folder: Path) -> Iterator[dict[str, float]]:
    """The log of a training, row by row."""
    with (folder / LOG).open(newline="") as file:
        for row in csv.DictReader(file):
            yield {k: float(v) for k, v in row.items()}
