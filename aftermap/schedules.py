"""The learning rate as a function of the step alone, as a factor in [0, 1]: nothing to store, nothing to lose on resuming."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from aftermap.errors import UnknownNameError

SCHEDULES = ("constant", "milestones", "poly", "cosine", "one_cycle")
ONE_CYCLE_START, ONE_CYCLE_RISE, ONE_CYCLE_END = 1 / 25, 0.3, 1e-4 / 25
"""First factor, share of steps that rise, last factor (Smith and Topin 2018, with torch's numbers)."""


def schedule(
    name: str, steps: int, *, warmup: int = 0, milestones: Sequence[int] = (), factor: float = 0.5, power: float = 0.9
) -> Callable[[int], float]:
    """Factor of a step in [0, steps). `warmup` steps rise from 0 first, except in one_cycle, which rises by itself.

    milestones: `factor` at each (methods.md A.4 halves). poly: (1 - t)^power. cosine: half a wave to 0.
    """
    if name not in SCHEDULES:
        raise UnknownNameError("schedule", name, SCHEDULES)

    def at(step: int) -> float:
        if name == "one_cycle":
            return _one_cycle(step / max(1, steps - 1))
        if step < warmup:
            return (step + 1) / warmup
        t = (step - warmup) / max(1, steps - warmup)
        if name == "milestones":
            return float(factor ** sum(step >= m for m in milestones))
        if name == "poly":
            return float((1 - t) ** power)
        return (1 + math.cos(math.pi * t)) / 2 if name == "cosine" else 1.0

    return at


def _one_cycle(t: float) -> float:
    """Half a wave up from the first factor to 1, and half a wave down to the last."""
    rising = t < ONE_CYCLE_RISE
    start, end = (ONE_CYCLE_START, 1.0) if rising else (1.0, ONE_CYCLE_END)
    part = t / ONE_CYCLE_RISE if rising else (t - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE)
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2
