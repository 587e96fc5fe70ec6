"""The images of a target, whose labels score a network and do nothing else: mapped onto its bands and brought to its level."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from aftermap import bandmaps
from aftermap.adapt.crops import Picture
from aftermap.bandmaps import BandMap
from aftermap.card import Card
from aftermap.chips import F32, Chip
from aftermap.datasets.dataset import Dataset, open_dataset
from aftermap.engine import Network
from aftermap.errors import InputRefusedError
from aftermap.journal import digest
from aftermap.normalise import Normaliser, fit, fit_each, of_card
from aftermap.page import Target
from aftermap.samples import OFFICIAL
from aftermap.tiles import Window
from aftermap.transfer import reads_pictures


@dataclass(frozen=True)
class Images:
    """The images of a target, mapped onto the bands of a network, with their truth for scoring alone."""

    dataset: Dataset
    names: tuple[str, ...]
    band_map: BandMap | None
    """None: as they are."""
    hazard: str
    settings: Mapping[str, Any]
    """How the data set was opened."""
    reads: tuple[str, ...]
    """Bands of the network, as those of chips are called."""
    looked_at: tuple[str, ...]
    """Those that adaptation and statistics may see: `names`, or others."""

    @classmethod
    def of(cls, target: Target, folder: Path, card: Card) -> Images:
        """Those with known truth that a network can read. Raises InputRefusedError ("band-missing")."""
        dataset = open_dataset(folder, target.data.kind, **target.data.settings)
        reference = of_card(card)
        own = dict(zip(reference.bands, reference.unit, strict=True))
        fits = target.band_map == "auto" and own.items() <= dict(zip(dataset.bands, dataset.units, strict=True)).items()
        if not fits and not reads_pictures(card):
            what = f"the model {card.name} reads {card.reads}, and the target has {', '.join(dataset.bands)} in {dataset.unit}"
            raise InputRefusedError(what, repair="take a model of pictures of three bands", code="model-input")
        band_map = None if fits else bandmaps.of_bands(dataset.bands, str(dataset.unit), target.band_map)
        names = tuple(_some(dataset, target))
        halves = (names[1::2], names[::2]) if target.inductive else (names, names)
        return cls(dataset, halves[0], band_map, target.hazard, target.data.settings, tuple(own), halves[1])

    @property
    def sha256(self) -> str:
        """Of what is scored, but for pixels."""
        how = self.band_map.name if self.band_map else ""
        halved = [] if self.looked_at == self.names else [self.looked_at]
        return digest([self.dataset.name, dict(self.settings), self.hazard, self.names, how, *halved])

    def pixels(self, chip: Chip) -> F32:
        """(band, y, x) as the network reads them, NaN where not valid."""
        wanted = self.band_map.reads.bands if self.band_map else self.reads
        own = np.where(chip.valid, chip.pixels, np.float32(np.nan))[[chip.bands.index(band) for band in wanted]]
        return self.band_map(own[None])[0] if self.band_map else own

    def pictures(self, network: Network) -> list[Picture]:
        """The same without truth, on the network's level, for adaptation."""

        def read(name: str, window: Window) -> F32:
            return np.asarray(self.levelled(network, self.dataset.read(name))[:, *window.slices])

        return [Picture(name, shape, partial(read, name)) for name, shape in self._shapes.items()]

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, int]]:
        """From one pass, for every adaptation."""
        return {name: self.dataset.read(name).shape for name in self.looked_at}

    def levelled(self, network: Network, chip: Chip) -> F32:
        """As `pixels`, on the card's level where it asks for that: of the image alone, or of all images of its domain."""
        pixels, valid = self.pixels(chip), chip.valid
        if network.card.normalise == "all" or not valid.any():
            return pixels
        reference = of_card(network.card)
        own = self._domains[chip.domain] if network.card.normalise == "per_domain" else fit([self._as_read(chip)])
        return np.where(np.isfinite(pixels).all(axis=0), reference.invert(own.apply(pixels)), np.float32(np.nan))

    def _as_read(self, chip: Chip) -> Chip:
        """For statistics, which take no part of the unit."""
        pixels = self.pixels(chip)
        valid = np.asarray(np.isfinite(pixels).all(axis=0))
        return Chip(pixels, valid, None, self.reads, "digital_number", chip.name, domain=chip.domain)

    @cached_property
    def _domains(self) -> Mapping[str, Normaliser]:
        """Of all images that may be looked at (separated normalisation, methods.md C.2)."""
        return fit_each(self._as_read(self.dataset.read(name)) for name in self.looked_at).each


def _some(dataset: Dataset, target: Target) -> Iterator[str]:
    """All of those asked for, or of each event at most so many, evenly spread."""
    asked = [e for e in target.events if not e.startswith(OFFICIAL)]
    for split in (e.removeprefix(OFFICIAL) for e in target.events if e.startswith(OFFICIAL)):
        yield from dataset.ids(split)
    for event in asked if target.events else dataset.events:
        names, most = dataset.ids(events=[event]), target.most
        places = np.linspace(0, len(names) - 1, min(most or len(names), len(names)))
        yield from (names[k] for k in np.unique(places.round().astype(int)))
