"""A network as it maps: a graph that reads raw sensor units, NaN where nothing was observed, and gives probabilities.

OpenVINO's own format is what maps by default; graph.onnx is for ONNX Runtime, and for other programs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from math import lcm
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from aftermap import running
from aftermap.batchnorm import MEANS, VARIANCES
from aftermap.card import Card
from aftermap.enlarging import DEEPEST
from aftermap.errors import UsageError
from aftermap.surgery import Stated
from aftermap.torchdoor import Tensor, functional, nn, torch

FREE = {0: "n", 2: "y", 3: "x"}
"""Axes of the graph that may have any length."""


@runtime_checkable
class Featured(Protocol):
    """A network that also shows the features its logits are made of, the deepest last."""

    def features(self, pixels: Tensor) -> list[Tensor]: ...
    def logits(self, features: list[Tensor]) -> Tensor: ...


class Graph(nn.Module):
    """The network with its normalisation and the handling of NaN inside.

    A pixel that lacks any band counts as the mean of every band, as in training (batches.py); with the fusion "each" as the mean
    of that band alone.
    """

    def __init__(self, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...], gives: str = "map"):
        super().__init__()
        self.model, self.gives = model, gives
        self.apart = getattr(getattr(model, "spec", None), "fusion", "") == "each"
        self.mean = nn.Buffer(torch.tensor(mean).reshape(1, -1, 1, 1))
        self.std = nn.Buffer(torch.tensor(std).reshape(1, -1, 1, 1))

    def forward(self, raw: Tensor) -> Tensor:
        """(n, band, y, x) -> (n, class, y, x) in [0, 1]; (n, class) or (n, 1) of whole chips; (n, d) of a network that embeds."""
        return self.outputs(raw)[0]

    def outputs(self, raw: Tensor) -> tuple[Tensor, ...]:
        """As `forward`, and beside scores the deepest features of the encoder (n, channel, y, x)."""
        missing = torch.isnan(raw)
        if not self.apart:
            missing = missing.any(dim=1, keepdim=True)  # (n, 1, y, x)
        normal = (torch.where(missing, self.mean, raw) - self.mean) / self.std
        if self.gives == "embedding" or not isinstance(self.model, Featured):
            return (self._scores(self.model(normal)),)
        features = self.model.features(normal)
        return self._scores(self.model.logits(features)), features[-1]

    def _scores(self, logits: Tensor) -> Tensor:
        if self.gives in ("number", "embedding"):
            return logits
        alone = logits.shape[1] == 1 or self.gives == "classes"
        return torch.sigmoid(logits) if alone else functional.softmax(logits, dim=1)


class _Traced(Graph):
    """A graph with all of its outputs."""

    def forward(self, raw: Tensor) -> Any:
        """As `outputs`."""
        return self.outputs(raw)


def export(model: nn.Module, folder: Path, card: Card, *, fp16: bool = True) -> Path:
    """Writes graph.xml and graph.bin (OpenVINO IR, any batch and size, weights in half precision) and gives the first.

    `model` is left in the mode it was in. The mean and std are the card's. Batch norm's statistics are nodes of their own
    (batchnorm.py), so that they can be replaced without torch; an engine folds them in, and is no slower for it.
    """
    library = running.openvino()
    with _traceable(model, card) as (graph, example):
        stated = Stated(graph)
        own = (stated.means, stated.variances) if len(stated.means) else ()
        shapes = [[-1, example.shape[1], -1, -1], *[[-1]] * len(own)]
        made = library.convert_model(stated if own else graph, example_input=(example, *own), input=shapes)
    for parameter, name, values in zip(made.get_parameters()[1:], (MEANS, VARIANCES), own, strict=False):
        constant = library.opset13.constant(values.cpu().numpy())
        constant.set_friendly_name(name)  # by which batchnorm.py finds it
        parameter.output(0).replace(constant.output(0))
        made.remove_parameter(parameter)
    folder.mkdir(parents=True, exist_ok=True)
    library.save_model(made, folder / "graph.xml", compress_to_fp16=fp16)
    return folder / "graph.xml"


def export_onnx(model: nn.Module, folder: Path, card: Card) -> Path:
    """Writes graph.onnx (any batch and size, weights as they are) and gives its path. Raises UsageError ("extra-missing").

    By torch's older, tracing exporter: it needs onnx alone, and agrees with the network to rounding (test_export.py).
    """
    if find_spec("onnx") is None:
        raise UsageError(
            "onnx, which writes graph.onnx, is not installed", repair='pip install "aftermap[train]"', code="extra-missing"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "graph.onnx"
    names = ["scores", *(["features"] if card.gives != "embedding" and isinstance(model, Featured) else [])]
    with _traceable(model, card) as (graph, example):
        torch.onnx.export(
            graph, (example,), path, dynamo=False, input_names=["pixels"], output_names=names,
            dynamic_axes=dict.fromkeys(["pixels", *names], FREE),
        )  # fmt: skip
    return path


EXPORTS: dict[str, Callable[[nn.Module, Path, Card], Path]] = {"openvino": export, "onnx": export_onnx}
"""Format -> what writes it."""


@contextmanager
def _traceable(model: nn.Module, card: Card) -> Iterator[tuple[_Traced, Tensor]]:
    """The graph in the mode it maps in, and pixels to trace it with; afterwards `model` is in the mode it was in."""
    training = model.training
    side = 2 * lcm(DEEPEST, card.multiple_of)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # both libraries trace; torch would rather be exported
            warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]  # of shapes that the decoders look at
            yield _Traced(model, card.mean, card.std, card.gives).eval(), torch.zeros(1, len(card.mean), side, side)
    finally:
        model.train(training)
