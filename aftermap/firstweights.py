"""Networks that learned nothing, as model folders of embeddings: what stands beside those that learned. Needs torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from aftermap.areas import Place
from aftermap.card import FILE, Card
from aftermap.chips import Chip
from aftermap.model import Spec, build, save
from aftermap.normalise import fit
from aftermap.pieces import NO_HAZARD
from aftermap.samples import as_layers
from aftermap.vit import NAMES as VITS


def made(place: Place, encoders: Sequence[str], bands: tuple[str, ...], out: Path, seed: int) -> dict[str, Path]:
    """Name -> folder below `out` of each encoder with the first weights of the seed, in which those that are there stay.

    Bands are brought to mean 0 and std 1 of all images. Raises UnknownNameError ("unknown-encoder") and the errors of Spec.
    """
    found = {f"untrained-{encoder}": out / encoder for encoder in encoders}
    lacking = {encoder: folder for encoder, folder in zip(encoders, found.values(), strict=True) if not (folder / FILE).is_file()}
    if not lacking:
        return found
    levels, inputs = fit(_seen(place, bands)), as_layers(bands, [place.units[band] for band in bands])
    counts = tuple(len(one.bands) for one in inputs)
    for encoder, folder in lacking.items():
        spec = Spec(encoder, "mean", counts, fusion="early" if len(counts) > 1 else "single", gives="embedding",
                    side=place.size if encoder in VITS else 0)  # fmt: skip
        card = Card(
            name=f"untrained-{encoder}", hazard=NO_HAZARD, classes=("embedding",), inputs=inputs, mean=levels.mean,
            std=levels.std, halo_px=0, multiple_of=1, training_data=f"none; mean and std of {place.dataset.name}", licence="none",
            made_by=f"first weights, seed {seed}", sha256={}, gives="embedding", chip_px=place.size, seed=seed,
        )  # fmt: skip
        save(folder, build(spec, seed=seed).eval(), card)
    return found


def _seen(place: Place, bands: tuple[str, ...]) -> Iterator[Chip]:
    """Images with these bands alone."""
    for name in place.dataset.members:
        chip = place.dataset.read(name)
        own = chip.pixels[[chip.bands.index(band) for band in bands]]
        unit = tuple(place.units[band] for band in bands)
        valid = chip.valid & np.isfinite(own).all(axis=0)
        yield replace(chip, pixels=own, valid=valid, bands=bands, unit=unit[0] if len(set(unit)) == 1 else unit)
