"""An adapted network as a model folder of its own: other statistics in the graph that maps, and in the weights where torch is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from aftermap import running
from aftermap.batchnorm import Statistics, restate
from aftermap.card import FILE, WEIGHTS, Card
from aftermap.engine import Network
from aftermap.errors import UsageError
from aftermap.journal import sha256

WHY = "it was adapted without labels, and nothing was measured since"


def card_of(source: Card, name: str, words: str, made_by: str) -> Card:
    """The card of a network after adaptation: what was fitted to the source, or measured of it, does not hold any more."""
    return replace(
        source, name=name, training_data=f"{source.training_data}; adapted without labels: {words}", made_by=made_by, sha256={},
        licence=f"of the model: {source.licence}; of the images that it was adapted to: theirs, not recorded",
        calibration=None, scores=(), leads=False, why=WHY,
    )  # fmt: skip


def keep(network: Network, out: Path, made_by: str) -> Card:
    """Writes a network whose batch norm was estimated anew into a folder, the card last."""
    assert network.statistics is not None
    library = running.openvino()
    graph = library.Core().read_model(running.graph_of(network.folder, "openvino"))
    restate(library, graph, network.statistics)
    library.save_model(graph, out / "graph.xml", compress_to_fp16=True)
    files = [out / "graph.xml", out / "graph.bin"]
    if (network.folder / WEIGHTS).is_file() and find_spec("torch"):
        files.append(_weights(network.folder, network.statistics, out))
    card = replace(card_of(network.card, out.resolve().name, network.adapted, made_by), sha256={f.name: sha256(f) for f in files})
    card.write(out)
    return card


@contextmanager
def fresh(out: Path) -> Iterator[None]:
    """A folder for a model, which goes again where nothing comes of it. Raises UsageError ("other-run", "unwritable")."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        held = next(out.iterdir(), None)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error}", repair="choose another -o", code="unwritable") from error
    if held is not None:
        what = "a model" if (out / FILE).exists() else held.name
        raise UsageError(f"{out} already holds {what}", repair="choose another -o", code="other-run")
    try:
        yield
    finally:
        if next(out.iterdir(), None) is None:
            out.rmdir()


def _weights(source: Path, statistics: Statistics, out: Path) -> Path:
    from aftermap import model, surgery

    network, _ = model.load(source)
    surgery.restate(network, statistics.means, statistics.variances)
    return model.save_weights(out, network)
