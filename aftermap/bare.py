"""Encoders as they come, with first or with published weights, as model folders of embeddings. Needs torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from aftermap import foundation
from aftermap.areas import Place
from aftermap.card import FILE, Card
from aftermap.chips import Chip
from aftermap.encoders import Weights, asked
from aftermap.foundation import FOUNDATIONS
from aftermap.model import PATCHES, Spec, build, save
from aftermap.normalise import Normaliser, fit
from aftermap.pieces import NO_HAZARD
from aftermap.samples import as_layers, choose_codes, narrowed
from aftermap.scorer import LayerBands


def made(
    place: Place, untrained: Sequence[str], weights: Mapping[str, str], bands: tuple[str, ...], out: Path, seed: int
) -> dict[str, Path]:
    """Name -> folder below `out` of each encoder, with the first weights of the seed or those of its page of facts ("hub": its
    publisher's); folders that are there stay.

    Bands are brought to mean 0 and std 1 of all images; those of a foundation model with weights to what it was trained with,
    where that is known. Raises UnknownNameError ("unknown-encoder") and the errors of Spec, Weights and Borrowed.
    """
    every = {f"untrained-{name}": (name, "") for name in untrained} | {name: (name, of) for name, of in weights.items()}
    lacking = {name: own for name, own in every.items() if not (out / name / FILE).is_file()}
    if lacking:
        levels, inputs = fit(_seen(place, bands)), as_layers(bands, [place.units[band] for band in bands])
        for name, (encoder, of) in lacking.items():
            _save(out / name, name, _spec(encoder, inputs, place.size), asked(encoder, of), levels, inputs, place, seed)
    return {name: out / name for name in every}


def _spec(encoder: str, inputs: tuple[LayerBands, ...], size: int) -> Spec:
    counts = tuple(len(one.bands) for one in inputs)
    reads = foundation.reads(inputs, each_date=False) if encoder in FOUNDATIONS else ()
    return Spec(encoder, "mean", counts, fusion="early" if len(counts) > 1 else "single", gives="embedding",
                side=size if encoder in PATCHES else 0, reads=reads)  # fmt: skip


def _save(
    folder: Path, name: str, spec: Spec, weights: Weights | None, levels: Normaliser, inputs: tuple[LayerBands, ...],
    place: Place, seed: int,
) -> None:  # fmt: skip
    if weights and spec.encoder in FOUNDATIONS and foundation.reading(spec.encoder, *foundation.told(spec.reads)).statistics:
        levels, scaled = foundation.normaliser(spec.encoder, levels, inputs, each_date=False), "its own mean and std"
    else:
        scaled = f"mean and std of {place.dataset.name}"
    card = Card(
        name=name, hazard=NO_HAZARD, classes=("embedding",), inputs=inputs, mean=levels.mean, std=levels.std, halo_px=0,
        multiple_of=1, training_data=f"{weights.source if weights else 'none'}; {scaled}", gives="embedding",
        licence=f"of the encoder's weights: {weights.licence}" if weights else "none",
        made_by=f"weights {weights.sha256}" if weights else f"first weights, seed {seed}", sha256={}, chip_px=place.size,
        seed=seed,
    )  # fmt: skip
    save(folder, build(spec, seed=seed, weights=weights).eval(), card)


def _seen(place: Place, bands: tuple[str, ...]) -> Iterator[Chip]:
    """Images with these bands alone."""
    codes = choose_codes(place.dataset.classes, ())
    yield from (narrowed(place.dataset.read(name), bands, codes) for name in place.dataset.members)
