"""Learning without forgetting (Li & Hoiem 2018, arXiv 1606.09282): labels where there are some, elsewhere what was said before.

A few labels of what a network has wrong tell nothing of what it has right: learned alone, they turn it over everywhere. What it
said before is no truth: the labels' loss never sees a pixel without a label, and the scores are those of labels alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from aftermap.losses import UNKNOWN
from aftermap.objectives.segment import Segment
from aftermap.torchdoor import Tensor, functional, nn, torch

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Anchored:
    """A network of one logit that learns labels, and is held to another on valid pixels without any."""

    labels: Segment
    before: nn.Module = field(repr=False)
    """In eval; it learns nothing."""
    hold: float = 1.0
    """Weight of the cross entropy to what `before` says, a mean over pixels; 0: labels alone."""

    def __call__(self, model: nn.Module, batch: Batch) -> Batch:
        """{"loss": scalar}."""
        found = model(batch["pixels"])
        loss = self.labels(lambda _: found, batch)["loss"]  # type: ignore[arg-type]  # one pass serves both terms
        free = batch["valid"] & (batch["truth"] == UNKNOWN)
        if not self.hold or not bool(free.any()):
            return {"loss": loss}
        with torch.no_grad():
            said = torch.sigmoid(self.before.to(batch["pixels"].device)(batch["pixels"])[:, 0].float())[free]
        held = functional.binary_cross_entropy_with_logits(found[:, 0].float()[free], said)
        return {"loss": loss + self.hold * held}

    def sums(self, model: nn.Module, batch: Batch) -> Tensor:
        """Of labels alone, as Segment."""
        return self.labels.sums(model, batch)

    def scores(self, sums: npt.NDArray[np.float64]) -> dict[str, float]:
        """As Segment."""
        return self.labels.scores(sums)
