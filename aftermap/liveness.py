"""What a network's graph holds at once while one tile is computed: counted from its operations, before any memory is taken.

Each value lives from the operation that makes it to the last that reads it, as an engine that uses memory again has it. Values
that do not depend on the pixels are weights. The graph is OpenVINO's, but nothing here imports it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any


@dataclass(frozen=True)
class Held:
    """Numbers, not bytes: of the weights, and of all that lives at the worst moment of one tile."""

    weights: int
    values: int


USUAL_VALUES = 128
"""Per pixel, where OpenVINO is not there to count them: 66 (U-Net of ResNet-34) to 128 (SegFormer of ConvNeXt) were counted."""


def guessed(file_bytes: int, shape: tuple[int, ...]) -> Held:
    """Of a graph that nothing here can count, from the size of its file and of the pixels (n, band, y, x)."""
    return Held(file_bytes // 4, USUAL_VALUES * shape[-2] * shape[-1])


def held(graph: Any) -> Held:
    """Of a graph whose input has a fixed shape; what depends on other than the shape is taken as nothing."""
    order = list(graph.get_ordered_ops())
    place = {op.get_friendly_name(): n for n, op in enumerate(order)}
    fixed: set[str] = set()
    change, weights = [0] * (len(order) + 1), 0
    for n, op in enumerate(order):
        kind = op.get_type_name()
        sources = [value.get_node().get_friendly_name() for value in op.input_values()]
        if kind == "Constant":
            weights += prod(op.output(0).get_shape())
        if kind == "Constant" or (sources and fixed.issuperset(sources)):
            fixed.add(op.get_friendly_name())
            continue
        for value in op.outputs():
            shape = value.get_partial_shape()
            readers = [place[reader.get_node().get_friendly_name()] for reader in value.get_target_inputs()]
            size = prod(shape.to_shape()) if shape.is_static else 0
            change[n] += size
            change[max(readers, default=n) + 1] -= size
    return Held(weights, max(accumulate(change)))
