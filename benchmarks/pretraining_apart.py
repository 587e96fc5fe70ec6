"""More rows of benchmarks/pretraining.py: something left out across modalities; regions apart, error, what a network keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aftermap import drift
from aftermap.distances import nearest, permuted, rank_correlation, told_apart
from benchmarks.pretraining_probes import F64, Places, drawn, r2, ridge, rmse
from benchmarks.pretraining_rows import AT, DRAWS, features
from benchmarks.pretraining_runs import REGIONS, chips, embedded, embedded_tuned


@dataclass(frozen=True)
class Left:
    """R2 of tree cover, ridge on 500 labels of the mean of all embeddings, with something left out where it is asked."""

    left_out: str
    region: str
    r2: float


def left_out(runs: Path, seed: int = 0) -> list[Left]:
    """With each modality and each band left out at inference; and with all labels."""
    parts = {m: embedded("clip", seed, runs, part=m) for m in ("s1", "coherence", "rgb")}
    if any(z is None for z in parts.values()):
        return []
    known = {m: unit(z) for m, z in parts.items() if z is not None}
    told, lines = chips(runs), []
    bands = {"s1": ("s1.VV", "s1.VH"), "coherence": ("coherence.pair_1", "coherence.pair_2")}
    for region in AT:
        wanted, train, test = told.labels["vegetation"], told.at(region, "train"), told.at(region, "test")
        draws = [drawn(train, 500, k) for k in range(DRAWS)]
        whole = _mean([*known.values()])

        lines += [
            Left("nothing, all labels", region, _probed(whole, whole, wanted, [train], test)),
            Left("nothing", region, _probed(whole, whole, wanted, draws, test)),
        ]
        for m in known:
            lines.append(Left(m, region, _probed(whole, _mean([z for k, z in known.items() if k != m]), wanted, draws, test)))
        for m, names in bands.items():
            for band in names:
                part = embedded("clip", seed, runs, part=m, without=band)
                assert part is not None
                given = _mean([unit(part) if k == m else z for k, z in known.items()])
                lines.append(Left(band, region, _probed(whole, given, wanted, draws, test)))
    return lines


def _probed(whole: F64, given: F64, wanted: F64, draws: Sequence[Places], test: Places) -> float:
    """R2 where all of `whole` taught and `given` is asked, mean over draws."""
    return float(np.mean([r2(ridge(whole[d], wanted[d], given[test]), wanted[test]) for d in draws]))


def unit(z: np.ndarray) -> F64:
    return np.asarray(z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12), np.float64)


def _mean(parts: Sequence[F64]) -> F64:
    return np.asarray(np.mean(parts, axis=0), np.float64)


@dataclass(frozen=True)
class Apart:
    """Two regions as a network sees them, and how a ridge regression of tree cover of the first does in the second."""

    features: str
    first: str
    second: str
    frechet: float
    whitened: float
    told_apart: float
    rmse_at_home: float
    rmse_away: float
    chip_correlation: float | None
    """Spearman, over chips of the second: distance to the nearest chips of training, and absolute error."""


PAIRED = {"dino": "s1", "dino-coherence": "coherence", "untrained": "s1", "untrained-coherence": "coherence", "mae": "s1"}
"""Network -> what it looks at."""


def apart(runs: Path, seed: int = 0) -> list[Apart]:
    """All pairs of regions for what was distilled from amplitude and from coherence, and for their first weights."""
    told, lines, rng = chips(runs), [], np.random.default_rng(seed)
    wanted = told.labels["vegetation"]
    for name, modality in PAIRED.items():
        z = features(name, modality, seed, runs)
        if z is None:
            continue
        for first in REGIONS:
            train, home = told.at(first, "train"), told.at(first, "test")
            for second in REGIONS:
                if first == second:
                    continue
                away = told.at(second, "test")
                found, own = (ridge(z[train], wanted[train], z[k]) for k in (away, home))
                clouds = [z[rng.permutation(k)[:256]].astype(np.float32) for k in (home, away)]
                far = drift.apart(clouds[0], clouds[1], seed)
                lines.append(Apart(
                    name, first, second, far["frechet"], far["whitened_means"], far["told_apart"]["accuracy"],
                    rmse(own, wanted[home]), rmse(found, wanted[away]),
                    rank_correlation(nearest(z[away], z[train]), np.abs(found - wanted[away])),
                ))  # fmt: skip
    return lines


@dataclass(frozen=True)
class Related:
    """Over the pairs of regions of one network: does distance go with the error that is added?"""

    features: str
    pairs: int
    distance: str
    spearman: float | None
    p: float | None
    told_apart: float
    """Mean accuracy of telling two regions apart."""


def related(lines: Sequence[Apart]) -> list[Related]:
    """By network and distance."""
    found = []
    for name in dict.fromkeys(one.features for one in lines):
        own = [one for one in lines if one.features == name]
        added = np.array([one.rmse_away - one.rmse_at_home for one in own])
        for distance in ("frechet", "whitened"):
            far = np.array([getattr(one, distance) for one in own])
            found.append(Related(
                name, len(own), distance, rank_correlation(far, added), permuted(far, added, np.random.default_rng(0)),
                float(np.mean([one.told_apart for one in own])),
            ))  # fmt: skip
    return found


@dataclass(frozen=True)
class Kept:
    """How often an embedding tells two regions apart before and after a network learned tree cover of one of them."""

    start: str
    taught: str
    seed: int
    first: str
    second: str
    before: float
    after: float


def kept(runs: Path, seed: int = 0) -> list[Kept]:
    """By logistic regression on test chips, as many of each region; 0.5 is chance. Scenes have no coordinates."""
    told, lines = chips(runs), []
    for start, first_weights in (("mae", "mae"), ("scratch", "untrained")):
        for taught in AT:
            then, first = embedded_tuned(start, taught, seed, runs), embedded(first_weights, seed, runs)
            for one, other in ((AT[0], AT[1]), ("plain", "hills")) if then is not None and first is not None else ():
                assert first is not None
                assert then is not None
                sides = [told.at(region, "test") for region in (one, other)]
                before, after = (
                    told_apart(z[sides[0]], z[sides[1]], np.random.default_rng(seed)).accuracy for z in (first, then)
                )
                lines.append(Kept(start, taught, seed, one, other, before, after))
    return lines
