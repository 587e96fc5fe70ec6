"""A number per chip or per pixel; RMSE and R2 of the whole set, from sums, never a mean of batches (methods.md 16, trap 19)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aftermap.losses import Sum
from aftermap.metrics import Errors
from aftermap.torchdoor import Tensor, nn, torch

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Regress:
    """Targets (n,) or (n, y, x), NaN unknown; the network has one output."""

    loss: Sum

    def __call__(self, model: nn.Module, batch: Batch) -> Batch:
        """{"loss": scalar}."""
        return {"loss": self.loss(model(batch["pixels"]), _target(batch))}

    def sums(self, model: nn.Module, batch: Batch) -> Tensor:
        """n, sum of squared errors, sum of y, sum of y squared."""
        target = _target(batch)
        kept = torch.isfinite(target)
        y = target[kept].double()
        error = model(batch["pixels"]).reshape(target.shape)[kept].double() - y
        return torch.stack([kept.sum().double(), (error**2).sum(), y.sum(), (y**2).sum()])

    def scores(self, sums: npt.NDArray[np.float64]) -> dict[str, float]:
        """RMSE and R2 = 1 - SSE / SST; NaN where undefined."""
        n, squared, total, squares = map(float, sums)
        whole = Errors(int(n), squared, total, squares)
        return {k: float("nan") if (v := getattr(whole, k)) is None else v for k in ("rmse", "r2")}


def _target(batch: Batch) -> Tensor:
    target = batch["target"].float()
    return target.masked_fill(~batch["valid"], torch.nan) if target.ndim == 3 else target
