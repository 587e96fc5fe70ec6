"""Whether an adaptation without labels goes wrong: what the target's scores and the source's truth show of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from aftermap.adapt.student import Networks, live, norms
from aftermap.adapt.views import Crop, turned
from aftermap.batches import Batches
from aftermap.losses import Sum
from aftermap.objectives.bidirectional import probabilities
from aftermap.objectives.segment import Segment
from aftermap.torchdoor import torch

COLLAPSED, DICE_FALL = 1e-3, 0.05
"""Least standard deviation of the target's scores, and most that the Dice of the source may fall (methods.md A'.2)."""
MEASURED = 16
"""Crops of the target that are looked at, spread over all of them."""


@torch.no_grad()
def measure(nets: Networks, target: Sequence[Crop], validation: Batches | None) -> dict[str, float]:
    """`spread`, the standard deviation of scores over valid pixels, of several classes the largest; `disagreement`, the mean
    |student - teacher|; `source_dice` of hard maps of the source by its own statistics, NaN without."""
    scores, apart = [], []
    for place in np.unique(np.linspace(0, len(target) - 1, min(len(target), MEASURED)).round().astype(int)):
        pixels, valid = (part[None].to(nets.device) for part in turned(target[place], 0))
        mine, theirs = (probabilities(nets.run(net, pixels)).movedim(1, -1)[valid] for net in (nets.student, nets.teacher))
        scores.append(mine)
        apart.append((mine - theirs).abs().flatten())
    spread = torch.cat(scores).std(dim=0, correction=0).max()
    return {"spread": float(spread), "disagreement": float(torch.cat(apart).mean()), "source_dice": _dice(nets, validation)}


def _dice(nets: Networks, validation: Batches | None) -> float:
    """Over all pixels together; of several classes the mean."""
    if validation is None:
        return math.nan
    learning, outputs = any(layer.training for layer in norms(nets.source)), nets.source.spec.outputs
    live(nets.source, False)
    scored = Segment(Sum({}), max(outputs, 2))
    sums = [scored.sums(nets.source, {k: v.to(nets.device) for k, v in batch.items()}).cpu() for batch in validation.once()]
    live(nets.source, learning)
    return scored.scores(torch.stack(sums).sum(dim=0).numpy())["f1" if outputs == 1 else "macro_f1"]


def failure(row: dict[str, float], first: dict[str, float]) -> str:
    """Why to stop, by what was measured now and before anything; empty where there is no reason."""
    if not math.isfinite(row["spread"]):
        return "not finite"
    if row["spread"] < COLLAPSED:
        return "score collapse"
    return "source dice fell" if first["source_dice"] - row["source_dice"] > DICE_FALL else ""
