"""Toy networks of random weights, written as model folders: graphs by openvino's own operators, no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from aftermap.card import Card, Fit
from aftermap.journal import sha256
from aftermap.running import openvino
from aftermap.scorer import LayerBands

AFTER = (LayerBands("after", ("VV", "VH"), "dB"),)
MEAN, STD = {"VV": -11.0, "VH": -18.0}, {"VV": 4.0, "VH": 4.5}


def toy(
    folder: Path, *, inputs: tuple[LayerBands, ...] = AFTER, classes: tuple[str, ...] = ("flood",), name: str = "toy",
    depth: int = 0, sharp: float = 1.0, features: bool = False, **card: Any,
) -> Path:  # fmt: skip
    """A model folder: 3 x 3 convolutions and, `depth` times, halving before and doubling after; sees 3 * 2**(depth + 1) px.

    With `features` the graph shows its deepest, 8 bands; a card that gives an embedding has their means as the only output."""
    openvino()
    from openvino import Model, save_model
    from openvino import opset13 as ops

    rng = np.random.default_rng(4)
    bands = [band for one in inputs for band in one.bands]
    mean, std = [MEAN[b] for b in bands], [STD[b] for b in bands]
    raw = ops.parameter([1, len(bands), -1, -1], np.float32, name="pixels")
    centre, spread = (np.reshape(np.array(v, np.float32), (1, -1, 1, 1)) for v in (mean, std))
    known = ops.select(ops.is_nan(raw), ops.constant(centre), raw)
    node = ops.divide(ops.subtract(known, ops.constant(centre)), ops.constant(spread))
    skips, width = [], len(bands)

    def conv(given: Any, wide: int, out: int) -> Any:
        kernel = rng.normal(0, (2 / (9 * wide)) ** 0.5, (out, wide, 3, 3)).astype(np.float32)
        return ops.convolution(given, ops.constant(kernel), [1, 1], [1, 1], [1, 1], [1, 1])

    for _ in range(depth):
        node = ops.relu(conv(node, width, 8))
        skips.append(node)
        node, width = ops.avg_pool(node, [2, 2], [0, 0], [0, 0], [2, 2], True), 8
    node = ops.relu(conv(node, width, 8))
    node, width = ops.relu(conv(node, 8, 8)), 8
    deepest = node
    for skip in reversed(skips):
        upper = ops.interpolate(node, ops.constant(np.array([2.0, 2.0], np.float32)), "nearest", "scales", axes=[2, 3])
        node, width = ops.relu(conv(ops.concat([upper, skip], 1), width + 8, 8)), 8
    logits = ops.multiply(conv(node, width, len(classes)), ops.constant(np.float32(sharp)))
    score = ops.sigmoid(logits) if len(classes) == 1 else ops.softmax(logits, 1)
    folder.mkdir(parents=True)
    outputs = [score, deepest] if features else [score]
    if card.get("gives") == "embedding":
        outputs = [ops.reduce_mean(deepest, ops.constant(np.array([2, 3], np.int64)))]
    save_model(Model(outputs, [raw], name), str(folder / "graph.xml"), compress_to_fp16=True)
    facts: dict[str, Any] = {
        "halo_px": 3 * 2 ** (depth + 1), "multiple_of": 2**depth, "hazard": "flood", "training_data": "none: random weights",
        "licence": "Apache-2.0", "made_by": "tests/networks.py", "mean": tuple(mean), "std": tuple(std),
        "calibration": Fit(0.5, "nothing", temperature=2.0),
    }  # fmt: skip
    hashes = {f: sha256(folder / f) for f in ("graph.xml", "graph.bin")}
    Card(name=name, classes=classes, inputs=inputs, sha256=hashes, **{**facts, **card}).write(folder)
    return folder


PAINT = {"background": 30, "no-damage": 80, "minor-damage": 130, "major-damage": 180, "destroyed": 230}
"""Red after the event of each class that `painted` tells apart."""


def painted(folder: Path, **card: Any) -> Path:
    """A model folder: the class whose red is nearest to that of `after`, given with certainty; two dates of pictures are read."""
    openvino()
    from openvino import Model, save_model
    from openvino import opset13 as ops

    inputs = tuple(LayerBands(layer, ("red", "green", "blue"), "digital_number") for layer in ("after", "before"))
    raw = ops.parameter([1, 6, -1, -1], np.float32, name="pixels")
    known = ops.select(ops.is_nan(raw), ops.constant(np.float32(0)), raw)
    red = ops.slice(known, *(ops.constant(np.array([v], np.int64)) for v in (0, 1, 1, 1)))
    levels = ops.constant(np.reshape(np.array(list(PAINT.values()), np.float32), (1, -1, 1, 1)))
    apart = ops.multiply(ops.abs(ops.subtract(red, levels)), ops.constant(np.float32(-0.5)))
    folder.mkdir(parents=True)
    save_model(Model([ops.softmax(apart, 1)], [raw], folder.name), str(folder / "graph.xml"), compress_to_fp16=False)
    facts: dict[str, Any] = {
        "hazard": "building", "classes": tuple(PAINT), "hazard_classes": ("major-damage", "destroyed"), "halo_px": 0,
        "multiple_of": 1, "mean": (0.0,) * 6, "std": (1.0,) * 6, "training_data": "none", "licence": "Apache-2.0",
        "made_by": "tests/networks.py", "why": "painted",
    }  # fmt: skip
    hashes = {f: sha256(folder / f) for f in ("graph.xml", "graph.bin")}
    Card(name=folder.name, inputs=inputs, sha256=hashes, **{**facts, **card}).write(folder)
    return folder
