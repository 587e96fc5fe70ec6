"""What makes numbers of a square for probes: networks of models, and what needs none to stand beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from aftermap.areas import Encoder, Place
from aftermap.chips import F32, Chip
from aftermap.engine import Network
from aftermap.errors import InputRefusedError, UnknownNameError, UsageError
from aftermap.journal import digest
from aftermap.page import Target
from aftermap.samples import choose_bands
from aftermap.targets import Images

BESIDE = ("statistics", "patches")
"""What needs no network."""
QUANTILES = (0.1, 0.5, 0.9)
PATCH_PX, COMPONENTS, PATCHES = 8, 32, 20_000


@dataclass(frozen=True, eq=False)
class Learned:
    """A network of a model folder."""

    name: str
    network: Network
    images: Images
    place: Place = field(repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """For other processes, which open the network themselves."""
        return Learned.of, (self.name, self.network.folder.resolve(), self.place)

    @classmethod
    def of(cls, name: str, folder: Path, place: Place) -> Learned:
        """Raises InputRefusedError ("model-input", "band-missing")."""
        network = Network.open(folder, precision="f32")
        target = Target(network.card.hazard, place.data, "auto")
        return cls(name, network, Images.of(target, place.folder, network.card), place)

    @property
    def key(self) -> str:
        """By its card, which holds the hashes of its files."""
        return digest(["network", self.network.sha256])

    def read(self, chip: Chip) -> F32:
        """On the network's level."""
        return self.images.levelled(self.network, chip)

    def __call__(self, pixels: F32) -> F32:
        """The network's embedding."""
        pad = ((0, 0), *((0, -side % self.network.multiple_of) for side in pixels.shape[1:]))
        return np.asarray(self.network.embeddings(np.pad(pixels, pad, constant_values=np.nan)[None])[0])


def read_by(networks: Sequence[Learned], known: Sequence[str]) -> tuple[str, ...]:
    """Bands of a data set that any of the networks reads; all, where there is no network, or one that maps bands on its own."""
    wanted = {band for one in networks for band in one.images.reads}
    found = tuple(band for band in known if band in wanted)
    return found if wanted and len(found) == len(wanted) else tuple(known)


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean, deviation and quantiles of each band: what needs no network."""

    bands: tuple[str, ...]
    name: str = "statistics"

    @property
    def key(self) -> str:
        """By the bands."""
        return digest(["statistics", self.bands])

    def read(self, chip: Chip) -> F32:
        """As they are."""
        return _observed(chip, self.bands)

    def __call__(self, pixels: F32) -> F32:
        """(5 bands,)."""
        own = pixels.reshape(len(pixels), -1)
        parts = (np.nanmean(own, axis=1), np.nanstd(own, axis=1), *np.nanquantile(own, QUANTILES, axis=1))
        return np.concatenate(parts).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Patches:
    """Principal components of patches of all areas: mean and deviation of each over a square."""

    bands: tuple[str, ...]
    mean: F32 = field(repr=False)
    """(band,); of each band."""
    std: F32 = field(repr=False)
    axes: F32 = field(repr=False)
    """(component, band x PATCH_PX x PATCH_PX)."""
    name: str = "patches"

    @property
    def key(self) -> str:
        """By the components."""
        return digest(["patches", self.bands, self.mean.tolist(), self.std.tolist(), self.axes.tolist()])

    @classmethod
    def of(cls, place: Place, bands: tuple[str, ...]) -> Patches:
        """Of squares that are fitted on, of all areas that are not one image, without their labels. Raises InputRefusedError."""
        patches: list[F32] = []
        share = max(1, PATCHES // len(place.areas))
        for name in (area for area in place.areas if not place.alone(area)):
            own: list[F32] = []
            for chip, windows, held in place.squares(name):
                if not held and sum(map(len, own)) < share:
                    own += [_patches(_observed(chip, bands)[(..., *window.slices)]) for window in windows]
            patches += own
        if not patches:
            what = f"{place.folder} has no area of two images with squares of {place.size} px"
            raise InputRefusedError(what, repair="join areas, or give a smaller --size", code="no-chips")
        whole = np.concatenate(patches)
        of_band = whole.reshape(len(whole), len(bands), -1)
        mean, std = of_band.mean(axis=(0, 2)), np.maximum(of_band.std(axis=(0, 2)), np.finfo(np.float32).tiny)
        every = (whole - np.repeat(mean, PATCH_PX**2)) / np.repeat(std, PATCH_PX**2)
        values, vectors = np.linalg.eigh(every.T @ every)
        return cls(bands, mean, std, vectors[:, np.argsort(-values)[:COMPONENTS]].T.astype(np.float32))

    def read(self, chip: Chip) -> F32:
        """As they are."""
        return _observed(chip, self.bands)

    def __call__(self, pixels: F32) -> F32:
        """(2 components,)."""
        own = (_patches(pixels) - np.repeat(self.mean, PATCH_PX**2)) / np.repeat(self.std, PATCH_PX**2)
        along = own @ self.axes.T
        return np.concatenate([along.mean(axis=0), along.std(axis=0)]).astype(np.float32)


def chosen(place: Place, models: Mapping[str, Path], beside: Sequence[str], inputs: Sequence[str]) -> list[Encoder]:
    """Networks of model folders by name, and those of BESIDE, which see the inputs; without any what the networks read, or all.

    Raises UnknownNameError ("unknown-encoder", "unknown-input"), UsageError ("no-encoder") and as Learned.of.
    """
    for name in beside:
        if name not in BESIDE:
            raise UnknownNameError("encoder", name, BESIDE)
    if not models and not beside:
        raise UsageError("nothing is asked", repair="name a model, or --beside statistics", code="no-encoder")
    networks = [Learned.of(name, folder, place) for name, folder in models.items()]
    bands = choose_bands(place.dataset.bands, inputs) or read_by(networks, place.dataset.bands)
    found: list[Encoder] = [*networks]
    found += [Statistics(bands)] if "statistics" in beside else []
    return [*found, Patches.of(place, bands)] if "patches" in beside else found


def named(models: Sequence[str]) -> dict[str, str]:
    """Models by the shortest ends of their paths that tell them apart."""
    parts = {model: own[:-1] if (own := Path(model).parts)[-1] == "model" and len(own) > 1 else own for model in models}
    depth = 1
    while len({parts[m][-depth:] for m in parts}) < len(parts):
        depth += 1
    return {"-".join(own[-depth:]).strip("/"): model for model, own in parts.items()}


def _observed(chip: Chip, bands: tuple[str, ...]) -> F32:
    return np.where(chip.valid, chip.pixels[[chip.bands.index(band) for band in bands]], np.float32(np.nan))


def _patches(pixels: F32) -> F32:
    """Those that were wholly observed (n, band x y x x)."""
    bands, height, width = pixels.shape
    rows, cols = height // PATCH_PX, width // PATCH_PX
    own = pixels[:, : rows * PATCH_PX, : cols * PATCH_PX].reshape(bands, rows, PATCH_PX, cols, PATCH_PX)
    flat = own.transpose(1, 3, 0, 2, 4).reshape(rows * cols, -1)
    return np.asarray(flat[np.isfinite(flat).all(axis=1)], np.float32)
