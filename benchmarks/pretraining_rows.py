"""The rows of benchmarks/pretraining.py: few labels, what is left out, distance and error, fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aftermap import drift
from aftermap.datasets.landcover import CLASSES
from aftermap.distances import nearest, permuted, rank_correlation
from benchmarks.pretraining_probes import F64, Places, balanced_draw, classified, drawn, forest, needed, r2, ridge, rmse
from benchmarks.pretraining_runs import FRACTIONS, REGIONS, UNSEEN, chips, embedded, statistics, tuned

COUNTS, DRAWS, TREE_DRAWS = (10, 20, 50, 100, 200, 500, 1000, 2048), 20, 3
AT = ("andes", UNSEEN)
"""Regions where labels are asked for: one that was learned from without labels, and one that was not."""
MODALITIES = {
    "s1": ("mae", "dino", "clip", "untrained", "statistics"), "rgb": ("elevation", "glcnet", "simclr", "relative", "clip",
    "untrained-rgb", "statistics"), "coherence": ("dino-coherence", "clip", "untrained-coherence", "statistics"),
}  # fmt: skip
FEW = 80
"""Chips with labels of Castano et al. 2023."""
CROPLAND = CLASSES.index("cropland")


def features(name: str, modality: str, seed: int, runs: Path) -> F64 | None:
    """Of every chip; None where a network was not trained."""
    if name == "statistics":
        return statistics(modality, runs).astype(np.float64)
    found = embedded(name, seed, runs, part=modality if name == "clip" else "")
    return None if found is None else found.astype(np.float64)


@dataclass(frozen=True)
class Few:
    """R2 with so many labels, mean over draws and seeds, and its standard deviation over draws."""

    task: str
    region: str
    modality: str
    features: str
    labels: int
    seeds: int
    ridge: float
    ridge_std: float
    forest: float | None


def few(runs: Path, seeds: Sequence[int]) -> list[Few]:
    """Every curve that there is."""
    told, lines = chips(runs), []
    for task in ("vegetation", "built"):
        wanted = told.labels[task]
        for region in AT:
            train, test = told.at(region, "train"), told.at(region, "test")
            for modality, names in MODALITIES.items():
                for name in names:
                    own = [one for seed in seeds if (one := features(name, modality, seed, runs)) is not None]
                    own = own[:1] if name == "statistics" else own
                    for count in COUNTS if own else ():
                        lines.append(_few(task, region, modality, name, count, own, wanted, train, test))
    return lines


def _few(
    task: str, region: str, modality: str, name: str, count: int, own: Sequence[F64], wanted: F64, train: Places, test: Places
) -> Few:  # fmt: skip
    draws = [drawn(train, count, k) for k in range(DRAWS if count < len(train) else 1)]
    by_ridge = np.array([[r2(ridge(z[d], wanted[d], z[test]), wanted[test]) for d in draws] for z in own])
    grown = [r2(forest(z[d], wanted[d], z[test], k), wanted[test]) for z in own for k, d in enumerate(draws[:TREE_DRAWS])] if (
        task == "vegetation" and count <= 500) else []  # fmt: skip
    return Few(
        task, region, modality, name, min(count, len(train)), len(own), float(by_ridge.mean()), float(by_ridge.std()),
        float(np.mean(grown)) if grown else None,
    )  # fmt: skip


@dataclass(frozen=True)
class Ratio:
    """How many labels what needs no pretraining takes for the R2 that pretrained features have with 100."""

    task: str
    region: str
    modality: str
    features: str
    r2_of_100: float
    untrained: str
    statistics: str


def ratios(lines: Sequence[Few]) -> list[Ratio]:
    """Of every curve with a twin."""
    found = []
    curves: dict[tuple[str, str, str, str], list[Few]] = {}
    for one in lines:
        curves.setdefault((one.task, one.region, one.modality, one.features), []).append(one)
    twins = {"s1": "untrained", "rgb": "untrained-rgb", "coherence": "untrained-coherence"}
    for (task, region, modality, name), own in curves.items():
        if name == "statistics" or name.startswith("untrained"):
            continue
        at = next(k.ridge for k in own if k.labels == 100)
        words = []
        for twin in (twins[modality], "statistics"):
            other = curves.get((task, region, modality, twin))
            need = None if other is None else needed([k.labels for k in other], [k.ridge for k in other], at)
            words.append("–" if other is None else f"over {other[-1].labels}" if need is None else f"{need:.0f}")
        found.append(Ratio(task, region, modality, name, at, *words))
    return found


@dataclass(frozen=True)
class Eighty:
    """Cropland against all else from colour, 80 labels: means over draws and seeds."""

    region: str
    features: str
    seeds: int
    accuracy: float
    accuracy_std: float
    macro_f1: float
    macro_f1_std: float


def eighty(runs: Path, seeds: Sequence[int]) -> list[Eighty]:
    """After Castano et al. 2023; in the region that has most cropland beside others."""
    told, lines = chips(runs), []
    yes = told.labels["dominant"] == CROPLAND
    for region in ("plain", "hills"):
        train, test = told.at(region, "train"), told.at(region, "test")
        for name in MODALITIES["rgb"]:
            own = [one for seed in seeds if (one := features(name, "rgb", seed, runs)) is not None]
            if not own:
                continue
            each = np.array([classified(z, yes, balanced_draw(train, yes, FEW, k), test) for z in own for k in range(DRAWS)])
            lines.append(Eighty(region, name, len(own), *(float(v) for pair in zip(each.mean(0), each.std(0), strict=True)
                                                          for v in pair)))  # fmt: skip
        share = float(yes[test].mean())
        most = max(share, 1 - share)
        lines.append(Eighty(region, "the commoner every time", 0, most, 0.0, most / (1 + most), 0.0))
    return lines


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
class Tuned:
    """RMSE and R2 of tree cover, the whole network learning from a share of a region's chips; means over seeds."""

    region: str
    start: str
    share: float
    seeds: int
    rmse: float
    r2: float
    r2_std: float | None


def all_tuned(runs: Path, seeds: Sequence[int], *, training: bool) -> list[Tuned]:
    """Every row that there is, or is made."""
    lines = []
    for seed in seeds if training else ():
        for share in FRACTIONS:
            for region in AT:
                for start in ("scratch", "mae"):
                    tuned(start, region, share, seed, runs, training=True)
    for region in AT:
        for start in ("scratch", "mae"):
            for share in FRACTIONS:
                each = [k for seed in seeds if (k := tuned(start, region, share, seed, runs, training=False)) is not None]
                if each:
                    scores = np.array(each)
                    std = float(scores[:, 1].std(ddof=1)) if len(each) > 1 else None
                    lines.append(
                        Tuned(region, start, share, len(each), float(scores[:, 0].mean()), float(scores[:, 1].mean()), std)
                    )
    return lines
