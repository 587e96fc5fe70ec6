"""Class per pixel, of one hazard or several classes: losses on logits, scores from one confusion matrix of all known pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aftermap.confusion import Confusion
from aftermap.losses import UNKNOWN, Sum
from aftermap.metrics import Ranking
from aftermap.torchdoor import Tensor, nn, torch

Batch = dict[str, Tensor]
LEVELS = 1000
"""Steps of the score that average precision tells apart, to choose a checkpoint by."""


@dataclass(frozen=True)
class Segment:
    """`classes` counts the background: 2 for one hazard, whose network has one logit."""

    loss: Sum
    classes: int = 2
    shares: tuple[float, ...] = ()
    """Weight of the loss of each domain, by its number; empty: one loss of the whole batch."""
    by_domain: bool = False
    """Whether the network is told the domain of each chip (domainnorm.py)."""

    def __call__(self, model: nn.Module, batch: Batch) -> Batch:
        """{"loss": scalar}; truth of pixels that are not valid is never read."""
        logits, truth = self._logits(model, batch), _truth(batch)
        if not self.shares:
            return {"loss": self.loss(logits, truth)}
        domain = batch["domain"]
        each = [
            share * self.loss(logits[own], truth[own])
            for number, share in enumerate(self.shares)
            if (own := domain == number).any()
        ]
        return {"loss": torch.stack(each).sum()}

    def _logits(self, model: nn.Module, batch: Batch) -> Tensor:
        found: Tensor = model(batch["pixels"], batch["domain"]) if self.by_domain else model(batch["pixels"])
        return found

    def sums(self, model: nn.Module, batch: Batch) -> Tensor:
        """Confusion matrix (truth, mapped) as a vector of float64; of one hazard also pixels by truth and score (2, level)."""
        logits, truth = self._logits(model, batch), _truth(batch)
        mapped = (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(dim=1)  # (n, y, x)
        kept = truth != UNKNOWN
        cells = truth[kept] * self.classes + mapped[kept]
        matrix = torch.bincount(cells, minlength=self.classes**2)
        if logits.shape[1] > 1:
            return matrix.double()
        level = (torch.sigmoid(logits[:, 0].float()) * LEVELS).round().long()
        ranks = torch.bincount(truth[kept] * (LEVELS + 1) + level[kept], minlength=2 * (LEVELS + 1))
        return torch.cat([matrix, ranks]).double()

    def scores(self, sums: npt.NDArray[np.float64]) -> dict[str, float]:
        """Macro IoU and F1 over the classes that the truth has (methods.md 0.1), accuracy; of one hazard its IoU, F1 and AP.

        What has no denominator is NaN.
        """
        names = tuple(map(str, range(self.classes)))
        matrix, ranks = np.split(sums.round().astype(np.int64), [self.classes**2])
        found_in = Confusion(names, matrix.reshape(self.classes, self.classes))
        found = {k: _or_nan(getattr(found_in, k)) for k in ("macro_iou", "macro_f1", "accuracy")}
        if self.classes == 2:
            hazard = found_in.each[1]
            found |= {
                "iou": _or_nan(hazard.iou),
                "f1": _or_nan(hazard.f1),
                "balanced_accuracy": _or_nan(hazard.balanced_accuracy),
            }
        if len(ranks):
            found["ap"] = _or_nan(Ranking(ranks.reshape(2, -1)).average_precision)
        return found


def _truth(batch: Batch) -> Tensor:
    return batch["truth"].masked_fill(~batch["valid"], UNKNOWN)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
