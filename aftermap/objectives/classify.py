"""Class per chip: one of several, or several at once; scores from counts of all chips pooled.

A network of one logit is a yes or no, against 0: cross entropy on a single logit over the batch would be a softmax over the batch
(methods.md section 16, trap 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aftermap.losses import Sum, known
from aftermap.metrics import Counts
from aftermap.torchdoor import Tensor, functional, nn, torch

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Classify:
    """Targets (n,) of class codes, 255 unknown; or (n, class) of 0 and 1 where classes do not exclude one another."""

    loss: Sum
    classes: int = 2

    def __call__(self, model: nn.Module, batch: Batch) -> Batch:
        """{"loss": scalar}."""
        logits, target = model(batch["pixels"]), batch["target"]
        if target.ndim == 2:
            return {"loss": functional.binary_cross_entropy_with_logits(logits.float(), target.float())}
        return {"loss": self.loss(logits, target)}

    def sums(self, model: nn.Module, batch: Batch) -> Tensor:
        """TP, FP, FN, TN of each class, one after the other."""
        logits, target = model(batch["pixels"]), batch["target"]
        if target.ndim == 2:
            mapped, true = logits > 0, target > 0
        else:
            flat, code = known(logits, target)
            mapped, true = (functional.one_hot(c, self.classes).bool() for c in (flat.argmax(dim=1), code))
        cells = [mapped & true, mapped & ~true, ~mapped & true, ~mapped & ~true]
        return torch.stack([c.sum(dim=0) for c in cells], dim=1).flatten().double()  # (class 4,)

    def scores(self, sums: npt.NDArray[np.float64]) -> dict[str, float]:
        """Macro F1 over classes that the truth has, and accuracy (where classes do not exclude one another, their mean)."""
        each = [Counts(*map(int, four)) for four in sums.reshape(-1, 4).round()]
        f1 = [c.f1 for c in each if c.tp + c.fn and c.f1 is not None]
        total = sum(c.total for c in each)
        exclusive = sum(c.tp + c.fn for c in each) == each[0].total == sum(c.tp + c.fp for c in each)
        right = sum(c.tp if exclusive else c.tp + c.tn for c in each) / max(1, each[0].total if exclusive else total)
        return {"macro_f1": float(np.mean(f1)) if f1 else float("nan"), "accuracy": right if total else float("nan")}
