"""What a training costs: how much of the network learns, seconds for a step and a pass over the chips, peak memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from aftermap.journal import write_json
from aftermap.measured import peak_mb
from aftermap.torchdoor import nn, torch

COST = "log.json"
"""What differs between equal runs."""


@dataclass
class Clock:
    """Told of every step, as train.Said, and passes it on; validation, and what stands before the first step, are not counted."""

    said: Callable[[int, int], object]
    moments: list[tuple[float, bool]] = field(default_factory=list)
    """After each step: when, and whether it was validated then."""

    def __call__(self, step: int, steps: int, numbers: Mapping[str, float]) -> None:
        self.moments.append((time.perf_counter(), bool(numbers)))
        self.said(step, steps)

    @property
    def seconds(self) -> float | None:
        """Of a step, the median; None of fewer than two in a row."""
        pairs = zip(self.moments, self.moments[1:], strict=False)
        took = [now - before for (before, _), (now, validated) in pairs if not validated]
        return float(np.median(took)) if took else None


@dataclass(frozen=True)
class Cost:
    """Of one training on one machine."""

    trainable: int
    parameters: int
    seconds_per_step: float | None
    seconds_per_epoch: float | None
    peak_memory_mb: float | None
    """Of a GPU what tensors took; else the largest resident set of the process so far, torch itself in it. None on Windows."""

    @classmethod
    def of(cls, model: nn.Module, clock: Clock, chips: int, batch: int) -> Cost:
        """After the training of so many chips."""
        counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
        step = clock.seconds
        epoch = None if step is None else step * chips / batch
        return cls(sum(n for n, learns in counts if learns), sum(n for n, _ in counts), step, epoch, _peak_mb())

    def write(self, folder: Path) -> None:
        """Beside the log of a training."""
        write_json(folder / COST, asdict(self))


def _peak_mb() -> float | None:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return peak_mb()
