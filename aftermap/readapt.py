"""The verb `adapt`: a model and unlabelled images in, a model adapted to them out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aftermap import transfer
from aftermap.adapt.crops import Picture, picture_of
from aftermap.adapt.keep import keep, refuse_taken
from aftermap.adapt.norm import Adaptation, adapted
from aftermap.card import Card, find
from aftermap.engine import Network
from aftermap.layer import Declared
from aftermap.recipe import Data, Target
from aftermap.scene import open_scene
from aftermap.unseen import Images

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


def _pictures(network: Network, path: Path, band_map: str, declared: Declared, data: Data) -> list[Picture]:
    if path.is_dir():
        target = Target(network.card.hazard, data, band_map)
        return Images.of(target, path, network.card).pictures(network)
    scene = open_scene({"after": [path]}, hazard=network.card.hazard, declared={"after": declared})
    own = transfer.on(scene, network, RULE, band_map).levelled(scene)
    return [picture_of(scene, own.inputs, lambda pixels: own.network.levelled(own.as_read(pixels)))]
