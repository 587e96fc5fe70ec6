"""The verb `adapt`: a model and unlabelled images in, a model adapted to them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aftermap import transfer
from aftermap.adapt.crops import Picture, picture_of
from aftermap.adapt.keep import card_of, keep, refuse_taken
from aftermap.adapt.norm import Adaptation, adapted
from aftermap.card import Card, find
from aftermap.datasets.dataset import open_dataset
from aftermap.engine import Network
from aftermap.layer import Declared
from aftermap.recipe import Data, Target
from aftermap.samples import survey
from aftermap.scene import open_scene
from aftermap.unseen import Images

if TYPE_CHECKING:
    from aftermap.adapt.teach import Source

REPLAYED = {"dice": 1.0, "focal": 10.0}
"""Losses on the source."""
RULE = "even"
"""No threshold is looked for here; a network on a scene has to have some rule."""


def readapt(
    model: str, to: Sequence[Path], out: Path, how: Adaptation, *, band_map: str = "auto", declared: Declared | None = None,
    data: Data | None = None, made_by: str = "aftermap adapt",
) -> Card:  # fmt: skip
    """Estimates batch norm of a model (name or folder) anew from images, each a file, or from data sets, each a folder.

    `declared` says of files what they do not, `data` of folders which data set they are. The labels of data sets are not read
    for anything. Raises UsageError ("other-run", "no-chips"), InputRefusedError ("no-batch-norm", "band-missing").
    """
    refuse_taken(out)
    network = Network.open(find(model), engine="openvino")
    pictures = [one for path in to for one in _pictures(network, path, band_map, declared or Declared(), data or Data())]
    found, _ = adapted(network, pictures, how)
    return keep(found, out, made_by)


def reteach(
    model: str, to: Sequence[Path], out: Path, shots: int, settings: Mapping[str, Any], *, source: Path | None = None,
    seed: int = 0, band_map: str = "auto", declared: Declared | None = None, data: Data | None = None, made_by: str = "aftermap adapt",
) -> Card:  # fmt: skip
    """The same by bidirectional adaptation, which needs torch and the weights of the model.

    `source` is the labelled data set that it was trained on, without which nothing is replayed. Raises also the errors of
    adapt.teach.
    """
    from aftermap.adapt.teach import teach
    from aftermap.model import save

    refuse_taken(out)
    network = Network.open(find(model), engine="openvino")
    pictures = [one for path in to for one in _pictures(network, path, band_map, declared or Declared(), data or Data())]
    found, taken = teach(network.folder, pictures, shots, settings, _source(source, network.card), seed=seed)
    stopped = f", stopped early: {found.stopped}" if found.stopped else ""
    words = f"bidirectional, {found.iterations} iterations over {len(taken)} crops{stopped}"
    return save(out, found.model, card_of(network.card, out.resolve().name, words, made_by))


def _source(folder: Path | None, card: Card) -> Source | None:
    """Chips of the source, read as the network reads them."""
    if folder is None:
        return None
    from aftermap.adapt.teach import Source

    inputs = [f"{one.layer}.{band}" for one in card.inputs for band in one.bands]
    normalise = "all" if card.normalise == "all" else "chip"
    return Source(survey(open_dataset(folder), inputs, normalise=normalise), REPLAYED)


def _pictures(network: Network, path: Path, band_map: str, declared: Declared, data: Data) -> list[Picture]:
    if path.is_dir():
        target = Target(network.card.hazard, data, band_map)
        return Images.of(target, path, network.card).pictures(network)
    scene = open_scene({"after": [path]}, hazard=network.card.hazard, declared={"after": declared})
    own = transfer.on(scene, network, RULE, band_map).levelled(scene)
    return [picture_of(scene, own.inputs, lambda pixels: own.network.levelled(own.as_read(pixels)))]
