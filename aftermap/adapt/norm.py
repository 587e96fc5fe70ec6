"""Batch norm of an exported network estimated anew from unlabelled crops of a target, through the engine: no torch, no gradient.

methods.md A.6, after Jakubik et al. (arXiv 2301.09318): weights stay, the means and variances that batch norm divides by are
those of the target, or part of the way there. Crops pass one by one, each normalised by its own statistics as in training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap import running
from aftermap.adapt.crops import SIDE_PX, Crop, Place, crops, picture_of
from aftermap.adapt.decide import depends
from aftermap.batchnorm import MEANS, VARIANCES, Statistics, named, statistics_of
from aftermap.engine import Network
from aftermap.errors import InputRefusedError, UnknownNameError, UsageError
from aftermap.journal import digest
from aftermap.scene import Scene
from aftermap.scorer import Scorer
from aftermap.since import Since
from aftermap.transfer import Transferred

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

MODES = ("ema", "reset", "prior", "batch")


NOT_ADAPTED = "not adapted"
"""Begins what is said of a network that a scene has no crop for, which is a warning of the map."""


@dataclass(frozen=True)
class Adaptation:
    """How statistics are estimated anew."""

    shots: int
    """Crops; fewer where the target has fewer that are half observed."""
    mode: str = "ema"
    """ema: each crop moves them by `momentum`, so that (1 - momentum)^k of the source is left. reset: the mean over the crops.
    prior: the source counts as `prior` crops (Schneider et al. 2020). batch: those of all crops as one batch."""
    momentum: float = 0.1
    prior: float = 16.0
    seed: int = 0
    """Of the order of crops; those of k are the first of those of more."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UnknownNameError("mode", self.mode, MODES)
        if self.shots < 1 or not 0 < self.momentum <= 1 or self.prior < 0:
            what = f"shots is {self.shots}, momentum {self.momentum}, prior {self.prior}"
            raise UsageError(what, repair="give at least one shot, a momentum above 0 up to 1, and a prior of at least 0")


@dataclass(frozen=True)
class Batch:
    """Of the pixels that entered each batch norm: means, variances without Bessel's correction, and how many, by channel."""

    means: F64
    variances: F64
    pixels: F64

    @property
    def unbiased(self) -> F64:
        """Variances as torch stores them."""
        return self.variances * self.pixels / np.maximum(self.pixels - 1, 1)


@dataclass(frozen=True)
class Norms:
    """The batch norm of a model folder's graph."""

    graph: Path
    statistics: Statistics
    """As exported."""
    _layers: tuple[tuple[int, int], ...] = field(repr=False, default=())
    """First channel and one past the last of each."""

    @classmethod
    def open(cls, folder: Path) -> Norms:
        """Raises InputRefusedError ("no-batch-norm") where the network has none, or its graph keeps it to itself."""
        if (graph := folder / "graph.xml").is_file():
            model = running.openvino().Core().read_model(graph)
            if (known := statistics_of(model)) is not None:
                return cls(graph, known, tuple(sorted(_slices(named(model, MEANS)))))
        what = f"the graph of {folder} has no batch norm whose statistics could be estimated anew"
        raise InputRefusedError(what, repair="take a model with batch norm, exported by this version", code="no-batch-norm")

    def of_batch(self, pixels: F32) -> Batch:
        """Statistics of pixels (n, band, y, x), NaN where not observed; every layer reads what the ones before it normalised."""
        means, variances, counts = (np.array(v, np.float64) for v in self._run(pixels).values())
        return Batch(means, variances, np.repeat(counts, [end - start for start, end in self._layers]))

    @cached_property
    def _run(self) -> Any:
        library = running.openvino()
        model = library.Core().read_model(self.graph)
        _by_batch(library, model)
        settings = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
        return library.Core().compile_model(model, "CPU", settings)


def estimate(norms: Norms, crops: Iterable[F32], how: Adaptation) -> Statistics:
    """Statistics (channel,) after crops (band, y, x) of one size. Raises UsageError ("no-chips") where there is none."""
    source, count = norms.statistics, 0
    means, variances = source.means.astype(np.float64), source.variances.astype(np.float64)
    if how.mode == "batch":
        every = list(crops)
        if len({one.shape for one in every}) > 1:
            what = "the crops of one batch differ in size, for some images are smaller than a crop"
            raise InputRefusedError(what, repair="take another mode, or images of one size", code="chip-sizes")
        crops = [np.stack(every)] if every else []
    for crop in crops:
        count, one = count + 1, norms.of_batch(crop.reshape(-1, *crop.shape[-3:]))
        if how.mode == "batch":
            return Statistics(one.means.astype(np.float32), one.variances.astype(np.float32))
        share = how.momentum if how.mode == "ema" else 1 / count
        means += share * (one.means - means)
        variances += share * (one.unbiased - variances)
    if not count:
        raise UsageError("there is no crop to adapt to", repair="give scenes with observed ground", code="no-chips")
    if how.mode == "prior":
        kept = how.prior / (how.prior + count)
        means, variances = kept * source.means + (1 - kept) * means, kept * source.variances + (1 - kept) * variances
    return Statistics(means.astype(np.float32), variances.astype(np.float32))


@dataclass(frozen=True)
class AtHand:
    """A network that maps a scene with the statistics of that scene: a method. Its calibration does not hold any more."""

    network: Network | Since | Transferred
    how: Adaptation
    auto: bool = False
    """Adapted only to another kind of sensor (decide.py)."""

    @property
    def name(self) -> str:
        """The network's."""
        return self.network.name

    def why_not(self, scene: Scene) -> str:
        """As the network says."""
        return self.network.why_not(scene)

    def prepare(self, scene: Scene) -> Scorer:
        """The network, adapted. Raises InputRefusedError ("no-batch-norm"), UsageError ("no-chips", "engine-missing")."""
        given = self.network.levelled(scene) if isinstance(self.network, Transferred) else self.network.prepare(scene)
        try:
            found = self._adapted(given, scene)
        except UsageError as error:
            if error.code != "no-chips":
                raise
            found = replace(given, adapted=f"{NOT_ADAPTED}: no crop of {SIDE_PX} px is half observed")  # type: ignore[type-var]
        prepared: Scorer = found.with_cut(scene) if isinstance(found, Transferred) else found
        return prepared

    def _adapted(self, given: Any, scene: Scene) -> Any:
        """What was prepared, with statistics of the scene where there is a reason."""
        mapped, inner = isinstance(given, Transferred), given if isinstance(given, Network) else given.network
        picture = picture_of(scene, given.inputs if mapped else inner.inputs, given.as_read if mapped else lambda pixels: pixels)
        found: Iterable[Crop] = crops([picture], self.how.shots, self.how.seed, multiple_of=inner.multiple_of)
        why = ""
        if self.auto and (found := list(found)):
            wanted, why = depends(crop.pixels for crop in found)
            if not wanted:
                return replace(given, adapted=why)
        network, _ = adapted(inner, found, self.how)
        words = "; ".join([network.adapted, why]) if why else network.adapted
        if isinstance(given, Network):
            return replace(network, adapted=words)
        return replace(given, network=network, adapted=words)


def adapted(network: Network, found: Iterable[Crop], how: Adaptation) -> tuple[Network, list[Place]]:
    """The network with statistics of crops that are on its own level or brought there by itself, and where those are.

    Raises InputRefusedError ("no-batch-norm"), UsageError ("no-chips", "engine-missing").
    """
    if network.engine != "openvino":
        raise UsageError(f"{network.engine} cannot adapt a network", repair="map with --engine openvino", code="engine-missing")
    taken: list[Place] = []

    def levelled() -> Iterator[F32]:
        for crop in found:
            taken.append(crop.place)
            yield network.levelled(crop.pixels[None])[0]

    statistics = estimate(Norms.open(network.folder), levelled(), how)
    key = digest([statistics.means.tolist(), statistics.variances.tolist()])[:16]
    words = f"{how.mode} over {len(taken)} crops of {SIDE_PX} px at {_places(taken)}; statistics {key}"
    return replace(network, statistics=statistics, adapted=words), taken


def _places(taken: Sequence[Place]) -> str:
    """Of one picture (row, column), of many how many."""
    names = dict.fromkeys(place.picture for place in taken)
    if len(names) > 1:
        return f"places in {len(names)} pictures"
    return "(row, column) " + ", ".join(f"({c.window.row}, {c.window.col})" for c in taken)


def _slices(node: Any) -> dict[tuple[int, int], Any]:
    """Channels (first, one past the last) of each layer -> the statistics of that layer as (1, channel, 1, 1)."""
    found = {}
    for target in node.output(0).get_target_inputs():
        part = target.get_node()
        first, end = (int(part.input_value(k).get_node().get_vector()[0]) for k in (1, 2))
        (shaped,) = part.output(0).get_target_inputs()
        found[first, end] = shaped.get_node()
    return found


def _by_batch(library: Any, model: Any) -> None:
    """Makes every batch norm of a graph use the statistics of what enters it, and gives them out in place of the scores."""
    ops = library.opset13
    means, variances = (_slices(named(model, name)) for name in (MEANS, VARIANCES))
    axes, out = ops.constant(np.array([0, 2, 3], np.int64)), ([], [], [])  # type: tuple[Any, tuple[list[Any], list[Any], list[Any]]]
    for layer in sorted(means):
        (subtract,) = (t.get_node() for t in means[layer].output(0).get_target_inputs())
        features = subtract.input_value(0)
        mean = ops.reduce_mean(features, axes, keep_dims=True)
        centred = ops.subtract(features, mean)
        variance = ops.reduce_mean(ops.multiply(centred, centred), axes, keep_dims=True)
        sizes = ops.gather(ops.shape_of(features), axes, ops.constant(np.int64(0)))
        pixels = ops.reduce_prod(sizes, ops.constant(np.array([0], np.int64)), keep_dims=True)
        for kept, value in zip(out, (mean, variance, ops.convert(pixels, "f32")), strict=True):
            kept.append(ops.reshape(value, ops.constant(np.array([-1], np.int64)), special_zero=False))
        means[layer].output(0).replace(mean.output(0))
        variances[layer].output(0).replace(variance.output(0))
    results = [ops.result(ops.concat(each, axis=0)) for each in out]
    model.add_results(results)
    for old in model.get_results()[: -len(results)]:
        model.remove_result(old)
