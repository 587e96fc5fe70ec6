"""Scores of what is more than one hazard: several classes of pixels as the network maps them, and labels of whole chips.

No map shows labels of chips, so there it is the network in torch that is scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap.batches import Batches
from aftermap.confusion import Confusion
from aftermap.engine import Network
from aftermap.losses import UNKNOWN, Sum
from aftermap.metrics import Errors, aucs_one_vs_rest, macro
from aftermap.model import load
from aftermap.objectives.classify import Classify
from aftermap.samples import Samples
from aftermap.torchdoor import Tensor, nn, torch

BATCH = 16
PRESENCE = ("absent", "present")
"""Of a label that says whether a chip has any of the hazard."""
I64 = npt.NDArray[np.int64]
Names = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Classed:
    """All samples of a split pooled; by event what adds up to it: cells of a confusion matrix, or sums of errors."""

    scores: dict[str, Any]
    trivial: dict[str, Any]
    """Scores of an answer that looks at nothing."""
    by_event: dict[str, Any]
    whole: Confusion | None = None
    """All events together, where classes exclude one another."""


def score(folder: Path, samples: Samples, split: str) -> Classed:
    """The saved network on every sample of a split, those of unknown truth left out."""
    if not samples.of_chips:
        return _of_pixels(folder, samples, split)
    outputs, targets, gives = _outputs(folder, samples, split)
    events = np.array([samples.dataset.members[samples.places[n][0]].event for n in samples.ids(split)])
    if gives == "number":
        return _numbers(outputs[:, 0].double().numpy(), targets.double().numpy(), events)
    if gives == "classes":
        return _several(outputs, targets, len(samples.classes))
    code, known = targets.numpy(), targets.numpy() != UNKNOWN
    if outputs.shape[1] == 1:  # one logit against 0
        outputs = torch.cat([torch.zeros_like(outputs), outputs], dim=1)
    mapped, classes = outputs.argmax(dim=1).numpy(), samples.classes or PRESENCE
    each = [(str(e), known & (events == e)) for e in np.unique(events)]
    found = _pooled({e: Confusion.of(classes, code[here], mapped[here]) for e, here in each}, classes)
    likely = outputs.double().softmax(dim=1).numpy()[known]
    assert found.whole is not None
    commonest = found.trivial["commonest"] | _ranked(np.zeros_like(likely), code[known], found.whole.commonest())
    return replace(found, scores=found.scores | _ranked(likely, code[known], found.whole), trivial={"commonest": commonest})


def _ranked(likely: npt.NDArray[np.float64], code: I64, whole: Confusion) -> dict[str, Any]:
    """Scores of probabilities (n, class) of known chips: ROC area of each class against the others in their order, the mean of
    those that are defined, and the kappa of classes that have an order; by no other are they in the row."""
    areas = aucs_one_vs_rest(likely, code)
    return {"macro_auc": macro(areas), "auc_per_class": list(areas), "qwk": whole.qwk}


def _of_pixels(folder: Path, samples: Samples, split: str) -> Classed:
    """The likeliest class of each pixel by the exported graph."""
    network = Network.open(folder, precision="f32")
    of_event: dict[str, Confusion] = {}
    for name in samples.ids(split):
        chip = samples.read(name)
        assert chip.truth is not None
        mapped = network(samples.as_mapped(chip)[None], chip.valid[None])[0, network.places].argmax(axis=0)  # (y, x)
        found = Confusion.of(samples.classes, chip.truth[chip.labelled], mapped[chip.labelled])
        of_event[chip.event] = of_event.get(chip.event, Confusion.none(samples.classes)) + found
    return _pooled(of_event, samples.classes)


def _pooled(of_event: dict[str, Confusion], classes: Sequence[str]) -> Classed:
    whole = sum(of_event.values(), start=Confusion.none(classes))
    cells = {event: one.cells.tolist() for event, one in sorted(of_event.items())}
    return Classed(whole.scores(), {"commonest": whole.commonest().scores()}, cells, whole)


@torch.no_grad()
def _outputs(folder: Path, samples: Samples, split: str) -> tuple[Tensor, Tensor, str]:
    """Logits (n, output) and targets (n,) or (n, class) of whole chips, and what the model gives."""
    model, card = load(folder)
    batches = list(Batches(samples, samples.ids(split), samples.normaliser, BATCH).once())
    outputs = torch.cat([model(batch["pixels"]) for batch in batches])
    return outputs, torch.cat([batch["target"] for batch in batches]), card.gives


def _numbers(found: npt.NDArray[np.float64], truth: npt.NDArray[np.float64], events: Names) -> Classed:
    of_event = {str(e): Errors.of(found[events == e], truth[events == e]) for e in np.unique(events)}
    whole = sum(of_event.values(), start=Errors())
    mean = {"mean": {"rmse": whole.deviation, "r2": 0.0}}
    return Classed({"rmse": whole.rmse, "r2": whole.r2}, mean, {event: vars(one) for event, one in of_event.items()})


def _several(outputs: Tensor, targets: Tensor, classes: int) -> Classed:
    """Where a chip has several classes no matrix says which was taken for which."""
    objective = Classify(Sum({"ce": 1}), classes)

    def of(logits: Tensor) -> dict[str, Any]:
        found = objective.scores(objective.sums(nn.Identity(), {"pixels": logits, "target": targets}).numpy())
        return {name: None if np.isnan(value) else value for name, value in found.items()}  # no row can hold NaN

    return Classed(of(outputs), {"no_class": of(torch.full_like(outputs, -1.0))}, {})
