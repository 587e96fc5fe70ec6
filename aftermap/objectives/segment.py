"""Class per pixel, of one hazard or several classes: losses on logits, scores from one confusion matrix of all known pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aftermap.losses import UNKNOWN, Sum
from aftermap.metrics import Counts
from aftermap.torchdoor import Tensor, nn, torch

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Segment:
    """`classes` counts the background: 2 for one hazard, whose network has one logit."""

    loss: Sum
    classes: int = 2

    def __call__(self, model: nn.Module, batch: Batch) -> Batch:
        """{"loss": scalar}; truth of pixels that are not valid is never read."""
        return {"loss": self.loss(model(batch["pixels"]), _truth(batch))}

    def sums(self, model: nn.Module, batch: Batch) -> Tensor:
        """Confusion matrix (truth, mapped) as a vector of float64."""
        logits, truth = model(batch["pixels"]), _truth(batch)
        mapped = (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(dim=1)  # (n, y, x)
        kept = truth != UNKNOWN
        cells = truth[kept] * self.classes + mapped[kept]
        return torch.bincount(cells, minlength=self.classes**2).double()

    def scores(self, sums: npt.NDArray[np.float64]) -> dict[str, float]:
        """Macro IoU over the classes that the truth has (methods.md 0.1), accuracy, and IoU and F1 of the hazard where it is one.

        What has no denominator is NaN.
        """
        matrix = sums.reshape(self.classes, self.classes).round().astype(np.int64)
        each = [_counts(matrix, c) for c in range(self.classes)]
        present = [c.iou for c in each if c.tp + c.fn and c.iou is not None]
        found = {
            "macro_iou": float(np.mean(present)) if present else float("nan"),
            "accuracy": float(np.trace(matrix) / matrix.sum()) if matrix.sum() else float("nan"),
        }
        if self.classes == 2:
            hazard = each[1]
            found |= {
                "iou": _or_nan(hazard.iou),
                "f1": _or_nan(hazard.f1),
                "balanced_accuracy": _or_nan(hazard.balanced_accuracy),
            }
        return found


def _truth(batch: Batch) -> Tensor:
    return batch["truth"].masked_fill(~batch["valid"], UNKNOWN)


def _counts(matrix: npt.NDArray[np.int64], c: int) -> Counts:
    tp, true, mapped = int(matrix[c, c]), int(matrix[c].sum()), int(matrix[:, c].sum())
    return Counts(tp, mapped - tp, true - tp, int(matrix.sum()) - mapped - true + tp)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
