"""What the batch norms of an exported graph divide by, which a graph shows where it was exported with it (export.py).

The graph is OpenVINO's, but nothing here imports it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]

MEANS, VARIANCES = "statistics.mean", "statistics.variance"
"""Nodes that hold them, all layers one after the other."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """Means and variances (channel,) of all batch norms of a graph, layer after layer."""

    means: F32
    variances: F32


def named(model: Any, name: str) -> Any:
    """The node of a graph with that name; None where there is none."""
    return next((node for node in model.get_ops() if node.get_friendly_name() == name), None)


def statistics_of(model: Any) -> Statistics | None:
    """Those that a graph was exported with; None where it has no batch norm or does not show it."""
    found = []
    for node in (named(model, name) for name in (MEANS, VARIANCES)):
        if node is None:
            return None
        while node.get_type_name() != "Constant":  # kept in half precision, and converted
            node = node.input_value(0).get_node()
        found.append(np.array(node.data, np.float32))
    return Statistics(*found)


def restate(library: Any, model: Any, statistics: Statistics) -> None:
    """Puts other statistics into a graph."""
    for name, values in ((MEANS, statistics.means), (VARIANCES, statistics.variances)):
        fresh, old = library.opset13.constant(values), named(model, name)
        old.output(0).replace(fresh.output(0))
        old.set_friendly_name(f"{name}.before")
        fresh.set_friendly_name(name)
