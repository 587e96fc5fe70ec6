"""The verb `adapt`: a model, or several, and unlabelled images in, models adapted to them out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aftermap import transfer
from aftermap.adapt.crops import Picture, crops, picture_of
from aftermap.adapt.keep import card_of, fresh, keep
from aftermap.adapt.norm import Adaptation, adapted
from aftermap.card import Card, find
from aftermap.datasets.dataset import open_dataset
from aftermap.engine import Network
from aftermap.errors import InputRefusedError, UsageError
from aftermap.experiment import refuse_without_extra
from aftermap.journal import write_json
from aftermap.layer import Declared
from aftermap.page import Data, Target
from aftermap.samples import survey
from aftermap.scene import Scene, open_scene
from aftermap.targets import Images

if TYPE_CHECKING:
    from aftermap.adapt.teach import Source

REPLAYED = {"dice": 1.0, "focal": 10.0}
"""Losses on the source."""
IMAGES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
RULE = "even"
"""No threshold is looked for here; a network on a scene has to have some rule."""


@dataclass(frozen=True)
class Unlabelled:
    """What a model is adapted to: images, folders of images, and data sets, whose labels are not read for anything."""

    to: Sequence[Path]
    band_map: str = "auto"
    declared: Declared = field(default_factory=Declared)
    """What files do not say of themselves."""
    data: Data = field(default_factory=Data)
    """Which data set a folder is."""

    def pictures(self, network: Network) -> list[Picture]:
        """On the level of the network. Raises InputRefusedError ("band-missing", "model-input")."""
        return [one for path in self.to for one in self._of(path, network)]

    def _of(self, path: Path, network: Network) -> list[Picture]:
        images = sorted(p for p in path.glob("*") if p.suffix.lower() in IMAGES) if path.is_dir() else []
        if images and not self.data.kind:
            return [one for image in images for one in self._of(image, network)]
        if path.is_dir():
            target = Target(network.card.hazard, self.data, self.band_map)
            return Images.of(target, path, network.card).pictures(network)
        scene = open_scene({"after": [path]}, hazard=network.card.hazard, declared={"after": self.declared})
        return [seen_as(scene, network, self.band_map)]


def seen_as(scene: Scene, network: Network, band_map: str) -> Picture:
    """A scene as a network reads it, on its level. Raises InputRefusedError ("band-missing", "model-input")."""
    own = transfer.on(scene, network, RULE, band_map).levelled(scene)
    return picture_of(scene, own.inputs, lambda pixels: own.network.levelled(own.as_read(pixels)))


def readapt(model: str, unlabelled: Unlabelled, out: Path, how: Adaptation, *, made_by: str = "aftermap adapt") -> Card:
    """Batch norm of a model (name or folder) estimated anew.

    Raises UsageError ("other-run", "no-chips"), InputRefusedError ("no-batch-norm", "band-missing").
    """
    network = Network.open(find(model), engine="openvino")
    with fresh(out):
        own = crops(unlabelled.pictures(network), how.shots, how.seed, multiple_of=network.multiple_of)
        found, _ = adapted(network, own, how)
        return keep(found, out, made_by)


def reteach(
    model: str, unlabelled: Unlabelled, out: Path, shots: int, settings: Mapping[str, Any], *, source: Path | None = None,
    seed: int = 0, made_by: str = "aftermap adapt",
) -> Card:  # fmt: skip
    """Bidirectional adaptation of a model, which needs torch and its weights; `source` is the labelled data set that it was
    trained on, without which nothing is replayed. Raises also UsageError ("extra-missing") and the errors of
    adapt.teach."""
    refuse_without_extra()
    from aftermap.adapt.teach import teach
    from aftermap.model import save

    network = Network.open(find(model), engine="openvino")
    with fresh(out):
        pictures = unlabelled.pictures(network)
        found, taken = teach(network.folder, pictures, shots, settings, _source(source, network.card, unlabelled.data), seed=seed)
        stopped = f", stopped early: {found.stopped}" if found.stopped else ""
        words = f"bidirectional, {found.iterations} iterations over {len(taken)} crops{stopped}"
        return save(out, found.model, card_of(network.card, out.resolve().name, words, made_by))


def refine(
    models: Sequence[str], unlabelled: Unlabelled, out: Path, shots: int, settings: Mapping[str, Any],
    *, source: Path | None = None, seed: int = 0, made_by: str = "aftermap adapt", said: Callable[[Mapping[str, Any]], None],
) -> list[Card]:  # fmt: skip
    """Self-training of models that label together, which needs torch and their weights; a run that was cut short goes on.

    One model is written to `out`, several to folders of their names in it; rounds.json there has what every round came to, and
    `said` is told as each ends. Raises UsageError ("other-run", "extra-missing"), the errors of adapt.teach.
    """
    refuse_without_extra()
    from aftermap.adapt import teach
    from aftermap.adapt.selftrain import ROUNDS
    from aftermap.model import save

    networks = [Network.open(find(model), engine="openvino") for model in models]
    names = [one.name for one in networks]
    if len(set(names)) < len(names):
        raise UsageError(f"two models are called {max(names, key=names.count)}", repair="give each once, or a name of its own")
    work = out / "rounds"
    with nullcontext() if work.is_dir() else fresh(out):
        pictures = unlabelled.pictures(networks[0])
    last = None
    folders = [one.folder for one in networks]
    labelled = _source(source, networks[0].card, unlabelled.data)
    for last, taken in teach.refine(folders, pictures, shots, settings, labelled, work, seed=seed):  # noqa: B007
        if last.number:
            said(last.row)
    assert last is not None
    held = json.loads((work / ROUNDS).read_text(encoding="utf-8"))
    if "stopped" in (ended := held["rounds"][-1]):
        said(ended)
    if not last.number:
        shutil.rmtree(work)
        repair = "lower --keep, or give --balanced 0.5, more images, or a model that finds something there"
        raise InputRefusedError("no pixel is sure enough to be a label", repair=repair, code="no-labels")
    words = f"self-training, {last.number} rounds over {len(taken)} crops, {'with' if source else 'without'} its source"
    cards = []
    for network, model in zip(networks, last.models, strict=True):
        own = out if len(networks) == 1 else out / network.name
        cards.append(save(own, model, card_of(network.card, own.resolve().name, words, made_by)))
    write_json(out / ROUNDS, held)
    shutil.rmtree(work)
    return cards


def _source(folder: Path | None, card: Card, how: Data) -> Source | None:
    """Chips of the source, opened as the data set of the images, and read as the network reads them."""
    if folder is None:
        return None
    from aftermap.adapt.teach import Source

    inputs = [f"{one.layer}.{band}" for one in card.inputs for band in one.bands]
    normalise = "chip" if card.normalise == "scene" else card.normalise
    return Source(survey(open_dataset(folder, how.kind, **how.settings), inputs, normalise=normalise), REPLAYED)
