"""A network of one image on a pair: the hazard is what it finds after the event and did not find before."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from aftermap.card import Card
from aftermap.engine import Network
from aftermap.scorer import Bool, LayerBands, Scorer

if TYPE_CHECKING:
    from aftermap.calibration import Calibration
    from aftermap.normalise import F32
    from aftermap.scene import Scene

WHY = "its leave and its calibration are of single images, and this is a pair"


@dataclass(frozen=True)
class Since:
    """A method and scorer of the hazard; the plain fields are what run.json records of it."""

    name: str
    hazard: str
    precision: str
    sha256: str
    network: Network = field(repr=False)
    adapted: str = ""
    """As the network's."""

    @property
    def calibration(self) -> Calibration | None:
        """None: nothing says what the lesser of two scores is worth."""
        return None

    @property
    def card(self) -> Card:
        """The network's, without leave to lead."""
        own = self.network.card
        return replace(own, leads=False, why=WHY if own.leads else own.why)

    @property
    def inputs(self) -> tuple[LayerBands, ...]:
        """The network's after, and the same before."""
        return (*self.network.inputs, *_before(self.network))

    @property
    def classes(self) -> tuple[str, ...]:
        """The hazard itself: what was there before is not."""
        return (self.hazard,)

    @property
    def halo_px(self) -> int:
        """The network's."""
        return self.network.halo_px

    @property
    def multiple_of(self) -> int:
        """The network's."""
        return self.network.multiple_of

    def why_not(self, scene: Scene) -> str:
        """As the network's card says."""
        return self.network.why_not(scene)

    def memory_mb(self, tile: tuple[int, int], threads: int) -> float:
        """The network's, which sees the dates one after the other."""
        return self.network.memory_mb(tile, threads)

    def release(self) -> None:
        """The network's."""
        self.network.release()

    def prepare(self, scene: Scene) -> Scorer:
        """Itself, with the network prepared."""
        network = self.network.prepare(scene)
        assert isinstance(network, Network)
        return replace(self, network=network)

    def __call__(self, pixels: F32, valid: Bool) -> F32:
        """Scores (n, 1, y, x): the lesser of the score after and what the score before leaves."""
        after, before = (self.network(part, valid)[:, :1] for part in np.split(pixels, 2, axis=1))
        return np.minimum(after, 1 - before)


def on(scene: Scene, network: Network) -> Network | Since:
    """The network as it runs on a scene: on a pair of its own bands, one of a single image that finds more than the hazard
    ("water") as Since."""
    single = {one.layer for one in network.inputs} == {"after"} and network.classes[0] != scene.hazard
    if not single or any(scene.missing(one) for one in _before(network)):
        return network
    return Since(network.name, scene.hazard, network.precision, network.sha256, network)


def _before(network: Network) -> tuple[LayerBands, ...]:
    return tuple(replace(one, layer="before") for one in network.inputs)
