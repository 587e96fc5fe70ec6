"""A network on a hazard or sensor that it was not made for: bands mapped onto its own, and scores cut without labels.

After Jakubik et al. (arXiv 2301.09318; methods.md A.5): nothing is learned here. What is of the whole scene, the level of its
pictures and the threshold, is settled in `prepare`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import scipy  # whose parts load when they are first used

from aftermap.bandmaps import BYTE, PICTURE, BandMap, of_scene
from aftermap.card import Card
from aftermap.cuts import BINS, CUTS, I64, counted
from aftermap.engine import Network
from aftermap.errors import InputRefusedError, UnknownNameError
from aftermap.normalise import of_pictures
from aftermap.scorer import F32, Bool, LayerBands, Scorer
from aftermap.tiles import spread

if TYPE_CHECKING:
    from aftermap.calibration import Calibration
    from aftermap.scene import Scene

SHOWS = {"flood": "water", "landslide": "bare soil"}
"""What one image shows of a hazard at best."""
SEEN_PX, MOST_SEEN = 512, 64
"""Squares that the threshold is taken from, evenly spread where a scene has more."""


@dataclass(frozen=True)
class Transferred:
    """A method and scorer of another hazard than the network's; the plain fields are what run.json records of it."""

    name: str
    hazard: str
    made_for: str
    precision: str
    sha256: str
    rule: str
    """Of cuts.CUTS."""
    band_map: str
    network: Network = field(repr=False)
    maps: BandMap | None = field(repr=False)
    """None where the scene has what the network reads."""
    odds: float = 0.0
    """Log odds of the network's score above which hazard begins."""
    threshold_source: str = ""
    adapted: str = ""
    """As the network's."""

    @property
    def calibration(self) -> Calibration | None:
        """None: nothing says what its score is worth here."""
        return None

    @property
    def card(self) -> Card:
        """The network's, without leave to lead."""
        mapped = f"its bands are mapped by {self.band_map}, " if self.maps else ""
        other = f"it was made for {self.made_for}, not {self.hazard}, " if self.made_for != self.hazard else ""
        why = f"{other}{mapped}it sees the image after the event alone, and its threshold is set without labels"
        return replace(self.network.card, leads=False, why=why)

    @property
    def inputs(self) -> tuple[LayerBands, ...]:
        """What is read of the scene."""
        return (self.maps.reads,) if self.maps else self.network.inputs

    @property
    def classes(self) -> tuple[str, ...]:
        """What one image shows of the hazard that is looked for."""
        return (SHOWS.get(self.hazard, self.hazard),)

    @property
    def halo_px(self) -> int:
        """The network's."""
        return self.network.halo_px

    @property
    def multiple_of(self) -> int:
        """The network's."""
        return self.network.multiple_of

    def why_not(self, scene: Scene) -> str:
        """As the network's card says, where no bands are mapped."""
        return "" if self.maps else self.network.why_not(scene)

    def memory_mb(self, tile: tuple[int, int], threads: int) -> float:
        """The network's."""
        return self.network.memory_mb(tile, threads)

    def release(self) -> None:
        """The network's."""
        self.network.release()

    def as_read(self, pixels: F32) -> F32:
        """Pixels (n, band, y, x) of the scene as the network reads them."""
        return self.maps(pixels) if self.maps else pixels

    def levelled(self, scene: Scene) -> Transferred:
        """Itself, its network knowing the scene's own mean and std where its card asks for them."""
        if self.maps is None or self.network.card.normalise == "all":
            network = self.network if self.maps else self.network.prepare(scene)
            assert isinstance(network, Network)
            return replace(self, network=network)
        own = of_pictures(scene, self.maps.reads, [b for one in self.network.inputs for b in one.bands], self.maps)
        return replace(self, network=replace(self.network, scene_mean=own.mean, scene_std=own.std))

    def prepare(self, scene: Scene) -> Scorer:
        """Itself with its threshold, from a pass over the scene."""
        return self.levelled(scene).with_cut(scene)

    def with_cut(self, scene: Scene) -> Transferred:
        """With the threshold of the rule, and where it finds none with the network's own."""
        found = CUTS[self.rule](counts_of(scene, replace(self, odds=0.0)))
        return replace(self, odds=found.value or 0.0, threshold_source=found.source)

    def __call__(self, pixels: F32, valid: Bool) -> F32:
        """Scores (n, 1, y, x): 0.5 at the threshold."""
        scores = self.network(self.as_read(pixels), valid)[:, :1].astype(np.float64)
        return scipy.special.expit(scipy.special.logit(np.clip(scores, 1e-7, 1 - 1e-7)) - self.odds).astype(np.float32)


def counts_of(scene: Scene, scorer: Scorer) -> I64:
    """Scores of a scorer's first class by log odds (bin,), over squares spread evenly."""
    counts = np.zeros(BINS, np.int64)
    for window in spread(scene.shape, SEEN_PX, MOST_SEEN):
        side = [-(-length // scorer.multiple_of) * scorer.multiple_of for length in (window.height, window.width)]
        pixels = np.full((sum(len(one.bands) for one in scorer.inputs), *side), np.nan, np.float32)
        pixels[:, : window.height, : window.width] = np.concatenate([scene.read(one, window) for one in scorer.inputs])
        valid = np.asarray(np.isfinite(pixels).all(axis=0))
        if valid.any():
            counts += counted(scorer(pixels[None], valid[None])[0, 0][valid])
    return counts


def on(scene: Scene, network: Network, rule: str, band_map: str = "auto") -> Transferred:
    """The network on a scene. Raises UnknownNameError, InputRefusedError ("band-missing", "model-input")."""
    if rule not in CUTS:
        raise UnknownNameError("cut", rule, CUTS)
    maps = None if band_map == "auto" and not network.why_not(scene) else of_scene(scene, band_map)
    if maps and not reads_pictures(network.card):
        what = f"the model {network.name} reads {network.card.reads}, which no band map makes"
        raise InputRefusedError(what, repair="take a model of pictures of three bands", code="model-input")
    return Transferred(
        network.name, scene.hazard, network.card.hazard, network.precision, network.sha256, rule,
        maps.name if maps else "", network, maps,
    )  # fmt: skip


def reads_pictures(card: Card) -> bool:
    """Whether a network reads three bands of 8 bits after the event."""
    bands = [(one.layer, one.unit, band) for one in card.inputs for band in one.bands]
    return len(bands) == PICTURE and {b[:2] for b in bands} == {("after", "digital_number")} and max(card.mean) <= BYTE
