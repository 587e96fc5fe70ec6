"""Chips of a data set to a folder of chips: the published balance and splits, for datacubes and whatever else has windows."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from aftermap import chipfolder, published
from aftermap.chips import Candidate, Chip, counts
from aftermap.datasets.dataset import Dataset, open_dataset
from aftermap.dealing import NOT_DRAWN, Dealing, deal
from aftermap.errors import InputRefusedError
from aftermap.splits import LEAK
from aftermap.tiles import Window

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Recut:
    """What to take: a data set in `folder` and how it is opened, every chip of it or those `published`, and how to split."""

    folder: Path
    kind: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    published: bool = True
    split: str = "none"
    shares: str = ""
    block_px: int | None = None
    """Four chips by default, which at 10 m and 128 px are more than 2 km."""
    gap_px: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class _Read:
    """What one pass over a data set finds: candidates by name, those left out by reason, and the hash of all."""

    candidates: dict[str, Candidate]
    left_out: Counter[str]
    sha256: str


def recut(out: Path, what: Recut, *, progress: Progress | None = None) -> dict[str, Any]:
    """Writes the chips, in pixel space; returns the same as cutting.cut. Raises the errors of the data set's reader."""
    dataset = open_dataset(what.folder, what.kind, **what.settings)
    read = _read(dataset, what, progress)
    names = list(read.candidates)
    size = max((c.window.height for c in read.candidates.values()), default=1)
    how = Dealing(
        what.split,
        what.published,
        what.seed,
        what.block_px or 4 * size,
        size if what.gap_px is None else what.gap_px,
        what.shares,
    )
    events = [dataset.members[n].event for n in names]
    dealt = deal(list(read.candidates.values()), how, np.random.default_rng(what.seed), events)
    kept = {names[i]: side for i, side in dealt.sides.items() if side}
    left_out = {k: n for k, n in (read.left_out | Counter({NOT_DRAWN: dealt.not_drawn})).items() if n}

    def made() -> Iterator[tuple[Chip, str, GeoBox | None]]:
        for done, (name, side) in enumerate(kept.items(), 1):
            yield dataset.read(name), side, None
            if progress:
                progress("chips", done, len(kept))

    if kept:
        facts = _facts(dataset, what, read, left_out)
        chipfolder.write(out, made(), classes=dataset.classes, facts=facts, protocol=how.protocol)
    return how.told(dealt.sides, left_out)


def _read(dataset: Dataset, what: Recut, progress: Progress | None) -> _Read:
    found: dict[str, Candidate] = {}
    left_out, hashes = Counter[str](), hashlib.sha256()
    for done, chip in enumerate(dataset.chips(), 1):
        if chip.truth is None:
            raise InputRefusedError(
                f"{chip.name} of {dataset.name} has no labels by pixel",
                repair="choose a setting that gives a mask",
                code="no-chips",
            )
        hashes.update(chip.name.encode() + chip.pixels.tobytes() + chip.truth.tobytes())
        pixels = tuple(int(n) for n in counts(chip, len(dataset.classes)))
        if reason := _why_not(chip, pixels, what.published):
            left_out[reason] += 1
        else:
            found[chip.name] = Candidate(chip.window or Window(0, 0, *chip.shape), float(chip.valid.mean()), pixels)
        if progress:
            progress("reading", done, len(dataset.members))
    return _Read(found, left_out, hashes.hexdigest())


def _why_not(chip: Chip, pixels: tuple[int, ...], whole: bool) -> str:
    if not any(pixels):
        return "nothing observed and labelled"
    if whole and not chip.valid.all():
        return "not wholly observed"
    ground = chip.bands.index("dem.elevation") if "dem.elevation" in chip.bands else None
    if whole and ground is not None and (chip.pixels[ground] <= 0).mean() > published.MOST_WATER:
        return "water"
    return ""


def _facts(dataset: Dataset, what: Recut, read: _Read, left_out: Mapping[str, int]) -> dict[str, Any]:
    said: dict[str, Any] = {
        "title": f"chips of {dataset.facts.title}", "licence": dataset.facts.licence, "data": dataset.name,
        "settings": [f"{k}={v}" for k, v in sorted(what.settings.items())], "how": "published" if what.published else "regular",
        "split": what.split, "seed": what.seed, "data_sha256": read.sha256,
    }  # fmt: skip
    said |= {"caution": LEAK} if what.split == "random" else {}
    return said | ({"left_out": [{"reason": k, "chips": n} for k, n in left_out.items()]} if left_out else {})
