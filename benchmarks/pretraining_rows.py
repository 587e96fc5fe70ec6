"""The rows of benchmarks/pretraining.py: few labels, frozen and fine-tuned, against twins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aftermap.datasets.landcover import CLASSES
from benchmarks.pretraining_probes import (
    F64,
    Places,
    adjusted,
    balanced_draw,
    by_image,
    classified,
    compared,
    drawn,
    forest,
    needed,
    r2,
    ridge,
)  # fmt: skip
from benchmarks.pretraining_runs import FRACTIONS, SEEN, UNSEEN, chips, embedded, statistics, tuned

COUNTS, DRAWS, TREE_DRAWS = (10, 20, 50, 100, 200, 500, 1000, 2048), 20, 3
AT = ("andes", UNSEEN)
"""Regions where labels are asked for: one that was learned from without labels, and one that was not."""
MODALITIES = {
    "s1": ("mae", "dino", "clip", "untrained", "statistics"), "rgb": ("elevation", "glcnet", "simclr", "relative", "clip",
    "untrained-rgb", "statistics"), "coherence": ("dino-coherence", "clip", "untrained-coherence", "statistics"),
}  # fmt: skip
TWINS = {"s1": "untrained", "rgb": "untrained-rgb", "coherence": "untrained-coherence"}
"""Modality -> the network with its first weights."""
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
    for (task, region, modality, name), own in curves.items():
        if name == "statistics" or name.startswith("untrained"):
            continue
        at = next(k.ridge for k in own if k.labels == 100)
        words = []
        for twin in (TWINS[modality], "statistics"):
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
            own = own[:1] if name == "statistics" else own
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
class Classed:
    """The commonest of eleven classes of a chip: means over draws and seeds."""

    region: str
    modality: str
    features: str
    labels: int
    seeds: int
    accuracy: float
    macro_f1: float
    macro_f1_std: float


CLASS_COUNTS, CLASS_DRAWS = (20, 100, 500, 2048), 3


def classed(runs: Path, seeds: Sequence[int]) -> list[Classed]:
    """Logistic regression on frozen features; and naming the commonest class of the test every time."""
    told, lines = chips(runs), []
    wanted = told.labels["dominant"]
    for region in AT:
        train, test = told.at(region, "train"), told.at(region, "test")
        for modality, names in MODALITIES.items():
            for name in names:
                own = [one for seed in seeds if (one := features(name, modality, seed, runs)) is not None]
                own = own[:1] if name == "statistics" else own
                for count in CLASS_COUNTS if own else ():
                    draws = [drawn(train, count, k) for k in range(CLASS_DRAWS if count < len(train) else 1)]
                    each = np.array([classified(z, wanted, d, test) for z in own for d in draws])
                    lines.append(_classed(region, modality, name, min(count, len(train)), len(own), each))
        _, counts = np.unique(wanted[test], return_counts=True)
        most = float(counts.max() / counts.sum())
        lines.append(Classed(region, "none", "the commonest every time", 0, 0, most, 2 * most / (1 + most) / len(counts), 0.0))
    return lines


def _classed(region: str, modality: str, name: str, labels: int, seeds: int, each: F64) -> Classed:
    accuracy, macro_f1 = each.mean(axis=0)
    return Classed(region, modality, name, labels, seeds, float(accuracy), float(macro_f1), float(each[:, 1].std()))


@dataclass(frozen=True)
class Beats:
    """Ridge regression on all labels of the seen regions, asked in the one that was not: how much less the mean scene is wrong by
    than with other features. One-sided signed rank over scenes."""

    task: str
    modality: str
    features: str
    seeds: int
    r2: float
    against: str
    other_r2: float
    scenes: int
    gain: float
    low: float
    high: float
    p: float
    p_holm: float = float("nan")


def beats(runs: Path, seeds: Sequence[int]) -> list[Beats]:
    """Every network against its first weights and against statistics of bands; all scenes of the unseen region test."""
    told, lines = chips(runs), []
    train = np.flatnonzero(np.isin(told.region, SEEN) & (told.split == "train"))
    test = np.flatnonzero(told.region == UNSEEN)
    for task in ("vegetation", "built"):
        wanted = told.labels[task]
        for modality, names in MODALITIES.items():
            made: dict[str, dict[int, F64]] = {
                name: {s: ridge(z[train], wanted[train], z[test]) for s in (seeds[:1] if name == "statistics" else seeds)
                       if (z := features(name, modality, s, runs)) is not None}
                for name in names
            }  # fmt: skip
            for name, own in made.items():
                for other in (TWINS[modality], "statistics") if name not in (TWINS[modality], "statistics") else ():
                    theirs = made[other]
                    pairs = [
                        (own[s], theirs[0 if other == "statistics" else s]) for s in own if other == "statistics" or s in theirs
                    ]
                    if pairs:
                        lines.append(_beats(task, modality, name, other, pairs, wanted[test], told.scene[test]))
    return adjusted(lines)


def _beats(
    task: str, modality: str, name: str, other: str, pairs: Sequence[tuple[F64, F64]], wanted: F64, scenes: npt.NDArray[np.str_]
) -> Beats:  # fmt: skip
    errors = np.array([[by_image(scenes, -np.abs(found - wanted)) for found in pair] for pair in pairs])
    whole = np.array([[r2(found, wanted) for found in pair] for pair in pairs]).mean(axis=0)
    found = compared(errors[:, 0], errors[:, 1])
    return Beats(task, modality, name, len(pairs), float(whole[0]), other, float(whole[1]), *found)


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
