"""An exported network as a Scorer and a Method: its graph on this machine's processor, in the precision that a trial allows.

numpy in, numpy out, no torch. Safe to call from several threads: each tile is computed by one thread on a request of its own, so
that a tile's scores depend on its pixels alone, never on how many others are at work. What holds of tilings is architecture.md's
rule 8: exact to the last digit of fp32 where the halo covers what the network sees, else within 0.02 on 99.9 % of pixels.
"""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from aftermap.batchnorm import Statistics
from aftermap.calibration import Calibration
from aftermap.card import FILE, Card
from aftermap.errors import InputRefusedError, UnknownNameError, UsageError
from aftermap.journal import cache_folder, digest, sha256, write_json
from aftermap.liveness import Held, guessed, held
from aftermap.normalise import of_scene
from aftermap.running import FEATURES, READS, SCORES, Run, alone, graph_of, opened, openvino
from aftermap.scorer import Bool, LayerBands, Scorer

if TYPE_CHECKING:
    from aftermap.scene import Scene

F32 = npt.NDArray[np.float32]

PRECISIONS = ("auto", "f32", "bf16")
ENGINES = tuple(READS)
ENGINE_MB, VALUES_KEPT = 130, {"openvino": 1.0, "onnxruntime": 1.7}
"""What an engine takes beside weights and values, and what it keeps for each value that lives at the worst moment: measured of
OpenVINO 2026.4.1 on four networks in two precisions (100 to 125 MB, 0.97 to 1.1), of ONNX Runtime 1.31.1 on two (1.3 to 1.65)."""
NEAR, SHARE = 0.02, 0.999
"""A faster precision has to be this near fp32 on this share of pixels (architecture.md, rule 8)."""
TRIAL_PX, TRIALS = 512, 3
_COMPILED = ("_run", "_embed")
"""What a network keeps of its graphs."""


@dataclass(frozen=True)
class Network:
    """A model's graph as a method that needs no look at the scene: `prepare` gives itself."""

    name: str
    engine: str
    precision: str
    precision_from: str
    """In words: asked for, or by trial."""
    training_data: str
    licence: str
    sha256: str
    """Of model.toml, which holds those of the graph."""
    folder: Path = field(repr=False, compare=False)
    card: Card = field(repr=False)
    scene_mean: tuple[float, ...] = ()
    """Of the scene at hand, per band, where the card asks for it."""
    scene_std: tuple[float, ...] = ()
    adapted: str = ""
    """How its batch norm was estimated anew, in words (adapt/norm.py), and the checksum of what came of it."""
    statistics: Statistics | None = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        """For other processes, which compile graphs themselves and may work in another folder."""
        return {k: v for k, v in vars(self).items() if k not in _COMPILED} | {"folder": self.folder.absolute()}

    @classmethod
    def open(cls, folder: Path, *, precision: str = "auto", engine: str = "auto") -> Network:
        """The network of a model folder. Raises the errors of Card.read, InputRefusedError ("model-graph") where the graph does
        not fit its card, and UsageError ("engine-missing") where nothing installed here can run it."""
        card = Card.read(folder)
        if precision not in PRECISIONS:
            raise UnknownNameError("precision", precision, PRECISIONS)
        engine = _engine(folder, engine)
        if engine == "openvino":
            _refuse_misfit(graph_of(folder, engine), card)
        found, words = _precision(folder, card, precision, engine)
        return cls(card.name, engine, found, words, card.training_data, card.licence, sha256(folder / FILE), folder, card)

    @property
    def inputs(self) -> tuple[LayerBands, ...]:
        """As the card has them."""
        return self.card.inputs

    @property
    def classes(self) -> tuple[str, ...]:
        """The hazard first, in words, then every class; but not once more the one that is called as the hazard."""
        return (self._found, *(self.card.classes[k] for k in self._others))

    @property
    def halo_px(self) -> int:
        """As the card has it."""
        return self.card.halo_px

    @property
    def multiple_of(self) -> int:
        """As the card has it."""
        return self.card.multiple_of

    @property
    def calibration(self) -> Calibration | None:
        """From score, bent as `_centred` has it, to likelihood; None where the card has none."""
        if self.card.calibration is None:
            return None
        table = self.card.calibration.table()
        knots = np.unique(np.asarray([*table.scores, self.card.threshold], np.float32))  # the bend is a knot of its own
        return Calibration(tuple(self._centred(knots).tolist()), tuple(table(knots).tolist()), table.words)

    def memory_mb(self, tile: tuple[int, int], threads: int) -> float:
        """Of its engine, its weights as they lie in the file and as they are used, and the values of each tile in work."""
        size, graph = 2 if self.precision == "bf16" else 4, graph_of(self.folder, self.engine)
        height, width = (-(-side // self.multiple_of) * self.multiple_of for side in tile)
        parts = _held(graph, graph.stat().st_mtime_ns, (1, len(self.card.mean), height, width))
        files = sum(f.stat().st_size for f in (graph, graph.with_suffix(".bin")) if f.is_file())
        values = threads * parts.values * VALUES_KEPT[self.engine]
        return ENGINE_MB + (files + size * (parts.weights + values)) / 1e6

    def release(self) -> None:
        """Lets go of the compiled graphs."""
        for name in _COMPILED:
            self.__dict__.pop(name, None)

    def why_not(self, scene: Scene) -> str:
        """As the card says."""
        return self.card.why_not(scene)

    def prepare(self, scene: Scene) -> Scorer:
        """Itself, knowing the scene's own mean and std where the card asks for them."""
        if self.card.normalise == "all":
            return self
        own = of_scene(scene, self.inputs)
        return replace(self, scene_mean=own.mean, scene_std=own.std)

    def __call__(self, pixels: F32, valid: Bool) -> F32:
        """Scores (n, class, y, x): of the hazard, 0.5 where it begins, and as they are of the other classes."""
        scores = self.probabilities(pixels)
        if scores.shape != (len(pixels), len(self.card.classes), *pixels.shape[2:]):
            raise _misfit(self.folder, f"gives {scores.shape} for {pixels.shape}", f"classes {', '.join(self.card.classes)}")
        lead = np.minimum(scores[:, self.card.lead].sum(axis=1, keepdims=True), 1)
        return np.concatenate([self._centred(lead), scores[:, self._others]], axis=1)

    def levelled(self, pixels: F32) -> F32:
        """Pixels (n, band, y, x) as the graph wants them: brought from the scene's level to the card's where it asks for that."""
        if not self.scene_mean:
            return pixels
        card, own = ([np.asarray(k, np.float32)[:, None, None] for k in pair] for pair in (
            (self.card.mean, self.card.std), (self.scene_mean, self.scene_std)))  # fmt: skip
        return np.asarray((pixels - own[0]) * (card[1] / own[1]) + card[0], np.float32)

    def probabilities(self, pixels: F32) -> F32:
        """What the graph says of pixels (n, band, y, x): (n, class, y, x), or (n, class) of whole chips."""
        return np.concatenate([self._run(one[None]) for one in self.levelled(pixels)])

    def embeddings(self, pixels: F32) -> F32:
        """Raw pixels of chips (n, band, y, x) to embeddings (n, d): the mean over each chip of the deepest features, or what a
        graph that embeds gives. Raises InputRefusedError ("no-embedding") where the graph keeps its features to itself."""
        found = np.concatenate([self._embed(one[None]) for one in self.levelled(pixels)])
        return found if found.ndim == 2 else np.asarray(found.mean(axis=(2, 3), dtype=np.float64), np.float32)

    @property
    def _found(self) -> str:
        if len(self.card.classes) == 1:
            return self.card.classes[0]
        return " or ".join(self.card.classes[k] for k in self.card.lead)

    @property
    def _others(self) -> list[int]:
        every = range(len(self.card.classes) if len(self.card.classes) > 1 else 0)
        return [k for k in every if self.card.hazard_classes or k not in self.card.lead]

    @property
    def places(self) -> tuple[int, ...]:
        """Of each class of the card among the scores."""
        return tuple(1 + self._others.index(k) if k in self._others else 0 for k in range(len(self.card.classes)))

    def _centred(self, scores: F32) -> F32:
        """Scores bent in two straight lines so that the card's threshold lies at 0.5, the methods' own."""
        if self.card.threshold == 0.5:
            return scores
        return np.interp(scores, [0, self.card.threshold, 1], [0, 0.5, 1]).astype(np.float32)

    @cached_property
    def _run(self) -> Run:
        return opened(self.folder, self.engine, self.precision, self.statistics)

    @cached_property
    def _embed(self) -> Run:
        """In fp32 whatever maps: what a chip is compared with was made so."""
        output = SCORES if self.card.gives == "embedding" else FEATURES
        return opened(self.folder, self.engine, "f32", self.statistics, output=output)


def _misfit(folder: Path, graph: str, card: str) -> InputRefusedError:
    what = f"the graph of {folder} {graph}, and its card says {card}"
    return InputRefusedError(what, repair="export the model again", code="model-graph")


def _refuse_misfit(path: Path, card: Card) -> None:
    """Refuses before anything is written a graph that states another number of bands or classes than its card."""
    try:
        graph = openvino().Core().read_model(path)
        ports = (graph.input(0).partial_shape, graph.output(0).partial_shape)
    except RuntimeError as error:
        raise _misfit(path.parent, f"cannot be read ({error})", "it is whole") from error
    gives = {"map": "n, {} classes, y, x", "embedding": "n, numbers"}.get(card.gives, "n, {} classes")
    axes = ("n, {} bands, y, x", gives)
    for shape, count, each in zip(ports, (len(card.mean), len(card.classes)), axes, strict=True):
        other = "{}" in each and shape.rank.is_static and shape[1].is_static and shape[1] != count
        if shape.rank.is_static and (len(shape) != len(each.split(",")) or other):
            raise _misfit(path.parent, f"has {shape}", f"({each.format(count)})")


def _engine(folder: Path, asked: str) -> str:
    """The first engine installed here that runs a graph of the folder, or the one asked for."""
    if asked not in ("auto", *ENGINES):
        raise UnknownNameError("engine", asked, ENGINES)
    graphs = [n for n in READS["openvino"] if (folder / n).is_file()]
    if not graphs:
        repair = "aftermap export makes it from the weights"
        raise InputRefusedError(f"{folder} holds no graph", repair=repair, code="model-graph")
    installed = [e for e in ENGINES if find_spec(e)]
    if asked != "auto" and asked in installed:
        graph_of(folder, asked)
        return asked
    able = [e for e in installed if set(READS[e]).intersection(graphs)]
    if asked != "auto" or not able:
        what = f"{asked if asked != 'auto' else 'nothing'} that is installed here can run {' or '.join(graphs)}"
        repair = "pip install openvino, or onnxruntime for a graph.onnx"
        raise UsageError(what, repair=repair, code="engine-missing")
    return able[0]


@lru_cache
def _held(graph: Path, _written_ns: int, shape: tuple[int, ...]) -> Held:
    """What the graph, as it was then, holds at once for pixels (n, band, y, x)."""
    if find_spec("openvino") is None:
        return guessed(graph.stat().st_size, shape)
    model = alone(openvino().Core().read_model(graph), SCORES)
    model.reshape({model.input(0): list(shape)})
    return held(model)


def _precision(folder: Path, card: Card, asked: str, engine: str) -> tuple[str, str]:
    """The precision and where it comes from, in words."""
    if asked != "auto":
        if asked == "bf16" and not (engine == "openvino" and has_bf16()):
            raise UsageError("this machine or engine has no bf16", repair="--precision f32", code="precision")
        return asked, "asked for"
    if engine != "openvino" or not has_bf16():
        return "f32", "no bf16 here"
    return _remembered(folder, card)


def has_bf16() -> bool:
    """Whether the processor computes in bf16 at all: with AMX several times as fast as fp32, without up to twice, or slower."""
    return "BF16" in openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _remembered(folder: Path, card: Card) -> tuple[str, str]:
    """The trial's outcome, tried once per graph, processor and library: a run that is resumed decides as it did."""
    machine = [openvino().Core().get_property("CPU", "FULL_DEVICE_NAME"), os.cpu_count(), version("openvino")]
    key = digest([card.sha256, card.mean, card.std, machine])
    path = cache_folder() / f"precision-{key[:24]}.json"
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return str(known["precision"]), str(known["from"])
    except (OSError, ValueError, KeyError):
        found, words = _tried(folder, card)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"precision": found, "from": words, "model": card.name})
    except OSError:
        words += ", not remembered"
    return found, words


def _tried(folder: Path, card: Card) -> tuple[str, str]:
    """bf16 where it is near enough to fp32 on one tile as the card has them, and faster."""
    side = -(-TRIAL_PX // card.multiple_of) * card.multiple_of
    tile = _likely(card, side)
    exact, took = _timed(opened(folder, "openvino", "f32"), tile)
    fast, quick = _timed(opened(folder, "openvino", "bf16"), tile)
    share = agreement(exact, fast)
    words = f"trial of one tile: bf16 within {NEAR} of f32 on {100 * share:.2f} % of pixels"
    if share < SHARE:
        return "f32", f"{words}, too few"
    return ("bf16", words) if quick < took else ("f32", f"{words}, but no faster")


def agreement(exact: F32, other: F32) -> float:
    """Share of scores that are as near as they have to be."""
    return float((np.abs(exact - other) <= NEAR).mean())


def _likely(card: Card, side: int) -> F32:
    """A tile (1, band, y, x) with the card's mean and deviation: patches of several sizes, and noise."""
    rng, tile = np.random.default_rng(0), np.zeros((len(card.mean), side, side))
    scales = [s for s in (1, 8, 64) if s <= side]
    for scale in scales:
        cells = rng.normal(size=(len(card.mean), -(-side // scale), -(-side // scale)))
        tile += np.kron(cells, np.ones((scale, scale)))[:, :side, :side] / np.sqrt(len(scales))
    std, mean = (np.reshape(values, (-1, 1, 1)) for values in (card.std, card.mean))
    return np.asarray(tile * std + mean, np.float32)[None]


def _timed(run: Run, tile: F32) -> tuple[F32, float]:
    """Scores, and the least processor seconds of some runs: what else runs here decides nothing."""
    scores, took = run(tile), []
    for _ in range(TRIALS):
        began = time.process_time()
        run(tile)
        took.append(time.process_time() - began)
    return scores, min(took)


def facts(network: Network) -> dict[str, Any]:
    """What of a network determines pixels, and what a reader of the map should know of it."""
    return {
        "sha256": network.sha256, "files": dict(network.card.sha256), "engine": f"{network.engine} {version(network.engine)}",
        "precision": network.precision, "precision_from": network.precision_from, "processor": platform.machine(),
        "licence": network.licence, "training_data": network.training_data, "made_by": network.card.made_by,
        "leads": network.card.leads, "why": network.card.why, "scores": [dict(row) for row in network.card.scores],
    }  # fmt: skip
