"""Scores of networks that label whole chips: a class, several classes, or a number. No map shows these, so it is the network in
torch that is scored, on every chip of a split, pooled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap.batches import Batches
from aftermap.confusion import Confusion
from aftermap.losses import UNKNOWN, Sum
from aftermap.metrics import Errors
from aftermap.model import load
from aftermap.objectives.classify import Classify
from aftermap.samples import Samples
from aftermap.torchdoor import Tensor, torch

BATCH = 16
Scored = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]
"""Scores, those of a trivial answer, and what they come from by event."""


@torch.no_grad()
def score(folder: Path, samples: Samples, split: str) -> Scored:
    """The saved network on a split: accuracy, macro F1 and F1 of each class, or RMSE and R2; chips of unknown label left out."""
    model, card = load(folder)
    names = samples.ids(split)
    batches = Batches(samples, names, samples.normaliser, BATCH)
    found, known = [], []
    for batch in batches.once():
        found.append(model(batch["pixels"]))
        known.append(batch["target"])
    outputs, targets = torch.cat(found), torch.cat(known)
    events = np.array([samples.dataset.members[samples.places[n][0]].event for n in names])
    if card.gives == "number":
        return _numbers(outputs[:, 0].double().numpy(), targets.double().numpy(), events)
    if card.gives == "classes":
        return _several(outputs, targets, samples.classes)
    return _classes(outputs.argmax(dim=1).numpy(), targets.numpy(), events, samples.classes)


def _classes(
    mapped: npt.NDArray[np.int64], truth: npt.NDArray[np.int64], events: npt.NDArray[np.str_], classes: tuple[str, ...]
) -> Scored:
    known = truth != UNKNOWN
    of_event = {
        str(e): Confusion.of(classes, truth[known & (events == e)], mapped[known & (events == e)]) for e in np.unique(events)
    }
    whole = sum(of_event.values(), start=Confusion.none(classes))
    cells = {"confusion": {event: c.cells.tolist() for event, c in of_event.items()}}
    return whole.scores(), {"commonest": whole.commonest().scores()}, cells


def _numbers(found: npt.NDArray[np.float64], truth: npt.NDArray[np.float64], events: npt.NDArray[np.str_]) -> Scored:
    of_event = {str(e): Errors.of(found[events == e], truth[events == e]) for e in np.unique(events)}
    whole = sum(of_event.values(), start=Errors())
    sums = {"errors": {event: list(vars(one).values()) for event, one in of_event.items()}}
    return {"rmse": whole.rmse, "r2": whole.r2}, {"mean": {"rmse": whole.deviation, "r2": 0.0}}, sums


def _several(outputs: Tensor, targets: Tensor, classes: tuple[str, ...]) -> Scored:
    """No matrix of truth and mapped exists where a chip has several classes."""
    objective = Classify(Sum({"ce": 1}), len(classes))
    batch = {"pixels": outputs, "target": targets}
    nothing = {"pixels": torch.full_like(outputs, -1.0), "target": targets}
    same = torch.nn.Identity()
    scores, beside = (objective.scores(objective.sums(same, one).numpy()) for one in (batch, nothing))
    return dict(scores), {"no_class": dict(beside)}, {}
