"""The rows of benchmarks/label_efficiency.py: by labels, against twins, distance and failure, places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap import distances, stats
from aftermap.card import Card
from aftermap.datasets.dataset import open_dataset
from aftermap.engine import Network
from aftermap.familiarity import FAR
from aftermap.known import Known
from aftermap.metrics import Ranking
from aftermap.samples import survey
from aftermap.scored import LEVELS, Scored, score
from aftermap.untrained import Untrained
from benchmarks.label_efficiency_runs import (
    SHARES,
    SIZE,
    STARTS,
    STUDIES,
    TWIN,
    One,
    features,
    learned,
    names_of,
    squares,
    surveyed,
)
from benchmarks.pretraining_probes import F64, adjusted, by_image, compared, drawn, needed, r2, ridge

DRAWS = 20
REGIONS = ("seen", "unseen")
LEVEL = np.arange(LEVELS + 1) / LEVELS


def _within(scored: Scored, events: Sequence[str]) -> npt.NDArray[np.intp]:
    return np.flatnonzero(np.isin(scored.events, events))


def ap(scored: Scored, events: Sequence[str]) -> float:
    """Average precision over the pixels of events, of LEVELS thresholds."""
    found = Ranking(scored.levels[_within(scored, events)].sum(axis=0).astype(np.int64)).average_precision
    return float("nan") if found is None else found


def brier(scored: Scored) -> F64:
    """Mean squared difference of score and truth of each square (n,)."""
    wrong = scored.levels[:, 0] @ LEVEL**2 + scored.levels[:, 1] @ (1 - LEVEL) ** 2
    return np.asarray(wrong / np.maximum(scored.levels.sum(axis=(1, 2)), 1), np.float64)


def of_pictures(scored: Scored, events: Sequence[str]) -> tuple[list[str], F64]:
    """Average precision of each picture of events that has both classes, by its name."""
    whole = scored.of_images()
    names, values = [], []
    for k in _within(whole, events):
        found = Ranking(whole.levels[k].astype(np.int64)).average_precision
        if found is not None and whole.levels[k].sum(axis=1).all():
            names.append(whole.names[k])
            values.append(found)
    return names, np.array(values)


@dataclass(frozen=True)
class Tuned:
    """A network that learned from a share of the labelled squares: means over seeds."""

    study: str
    region: str
    start: str
    share: float
    labels: int
    seeds: int
    ap: float
    ap_std: float | None
    iou: float | None


def tuned(runs: Path, data: Path, seeds: Sequence[int]) -> list[Tuned]:
    """All that there are, and beside them what needs no labels."""
    lines = []
    for study, own in STUDIES.items():
        if not _any(study, runs, seeds):
            continue
        whole = len(surveyed(study, data).ids("train"))
        for region in REGIONS:
            events = getattr(own, region)
            for start in STARTS:
                for share in SHARES:
                    found = _scores(study, start, share, runs, seeds)
                    if found:
                        lines.append(_tuned(study, region, start, share, max(4, round(share * whole)), found, events))
            for words, scored in without(study, runs, data).items():
                lines.append(_tuned(study, region, words, 0.0, 0, [scored], events))
    return lines


def _any(study: str, runs: Path, seeds: Sequence[int]) -> bool:
    return any(One(study, start, share, seed).folder(runs) for start in STARTS for share in SHARES for seed in seeds)


def _scores(study: str, start: str, share: float, runs: Path, seeds: Sequence[int]) -> list[Scored]:
    return [one for seed in seeds if (one := One(study, start, share, seed).scored(runs)) is not None]


def _tuned(
    study: str, region: str, start: str, share: float, labels: int, found: Sequence[Scored], events: Sequence[str]
) -> Tuned:
    each = [ap(one, events) for one in found]
    ious = [iou for one in found if (iou := one.of(_within(one, events)).iou) is not None]
    std = float(np.std(each, ddof=1)) if len(each) > 1 else None
    return Tuned(
        study, region, start, share, labels, len(found), float(np.mean(each)), std, float(np.mean(ious)) if ious else None
    )


def without(study: str, runs: Path, data: Path) -> dict[str, Scored]:
    """What a responder has without labels, on both dates where there are two; and marking everything."""
    own, path = STUDIES[study], runs / "labels" / study / "without.npz"
    made = "method without training"
    if not path.exists():
        opened = open_dataset(data / own.folder, own.kind, **own.settings)
        layers = ["before", "after"] if any(band.startswith("before.") for band in opened.bands) else ["after"]
        split = {"train": own.labelled, "validation": own.chosen, "test": own.seen + own.unseen}
        both = survey(opened, layers, split=split, size=SIZE)
        score(both.whole("test", lambda *_: None, ""), Untrained(own.hazard))[1].write(path)
    found = Scored.read(path)
    return {made: found, "everything": found.everything()}


@dataclass(frozen=True)
class Better:
    """Pretrained against its twin on the pictures of a region: AP of each, means over seeds; one-sided signed-rank test."""

    study: str
    region: str
    start: str
    share: float
    seeds: int
    pictures: int
    gain: float
    low: float
    high: float
    p: float
    p_holm: float = float("nan")


def better(runs: Path, seeds: Sequence[int]) -> list[Better]:
    """At every share that both were trained at, by the seeds that both have."""
    lines = []
    for study, own in STUDIES.items():
        for region in REGIONS:
            for start, twin in TWIN.items():
                for share in SHARES:
                    pairs = [(a, b) for s in seeds if (a := One(study, start, share, s).scored(runs)) is not None
                             and (b := One(study, twin, share, s).scored(runs)) is not None]  # fmt: skip
                    if pairs:
                        ours, theirs = (
                            np.array([of_pictures(pair[k], getattr(own, region))[1] for pair in pairs]) for k in (0, 1)
                        )
                        lines.append(Better(study, region, start, share, len(pairs), *compared(ours, theirs)))
    return adjusted(lines)


@dataclass(frozen=True)
class Frozen:
    """Ridge regression of the share of a square that is hazard, on embeddings of a network that learned without labels.

    `gain` is how much less a picture is wrong by than with the other features, mean over pictures, with all labels.
    """

    study: str
    region: str
    features: str
    seeds: int
    rank_of_1: float
    """Spearman's correlation of found and true share over squares, with 1, 10 and all percent of the labels."""
    rank_of_10: float
    rank: float
    r2: float
    against: str
    other_rank: float
    other_r2: float
    pictures: int
    gain: float
    low: float
    high: float
    p: float
    p_holm: float = float("nan")


def frozen(runs: Path, data: Path, seeds: Sequence[int]) -> list[Frozen]:
    """Every network against its first weights, and against statistics of bands; R2 with 1, 10 and 100 % of the labels."""
    lines = []
    for study, own in STUDIES.items():
        for start, twin in TWIN.items():
            for other in (twin, "statistics"):
                pairs = [(a, b) for s in seeds if (a := features(study, start, s, runs, data)) is not None
                         and (b := features(study, other, s if other == twin else 0, runs, data)) is not None]  # fmt: skip
                for region in REGIONS if pairs else ():
                    lines.append(_frozen(study, region, start, other, pairs, getattr(own, region), own.labelled, data))
    return adjusted(lines)


def _frozen(
    study: str, region: str, start: str, other: str, pairs: Sequence[tuple[F64, F64]], events: Sequence[str],
    labelled: Sequence[str], data: Path,
) -> Frozen:  # fmt: skip
    told = squares(study, data)
    wanted, train, test = told.hazard, told.at(labelled, "train"), told.at(events, "test")
    train, test = (places[np.isfinite(wanted[places])] for places in (train, test))
    found = [[ridge(z[train], wanted[train], z[test]) for z in pair] for pair in pairs]
    few, more = (
        float(np.mean([_rank(ridge(z[d], wanted[d], z[test]), wanted[test]) for z, _ in pairs for d in draws]))
        for draws in ([drawn(train, max(8, round(share * len(train))), k) for k in range(DRAWS)] for share in (0.01, 0.1))
    )
    errors = np.array([[by_image(told.picture[test], -np.abs(made - wanted[test])) for made in pair] for pair in found])
    rank, whole = (np.array([[of(made, wanted[test]) for made in pair] for pair in found]).mean(axis=0) for of in (_rank, r2))
    return Frozen(
        study, region, start, len(pairs), few, more, float(rank[0]), float(whole[0]), other, float(rank[1]), float(whole[1]),
        *compared(errors[:, 0], errors[:, 1]),
    )  # fmt: skip


def _rank(found: F64, wanted: F64) -> float:
    return distances.rank_correlation(found, wanted) or 0.0


@dataclass(frozen=True)
class Ratio:
    """Labels that the twin takes for the average precision that the pretrained has with a tenth of them."""

    study: str
    region: str
    start: str
    labels: int
    ap: float
    twin: str
    times: str


def ratios(lines: Sequence[Tuned]) -> list[Ratio]:
    """Between shares by the logarithm."""
    found = []
    for one in (one for one in lines if one.start in TWIN and one.share == 0.1):
        other = [k for k in lines if (k.study, k.region, k.start) == (one.study, one.region, TWIN[one.start])]
        if len(other) > 1:
            need = needed([k.labels for k in other], [k.ap for k in other], one.ap)
            words = (f"over {other[-1].labels}", f"over {other[-1].labels / one.labels:.0f}") if need is None else (
                f"at most {need:.0f}" if need <= other[0].labels else f"{need:.0f}", f"{need / one.labels:.1f}")  # fmt: skip
            found.append(Ratio(one.study, one.region, one.start, one.labels, one.ap, *words))
    return found


@dataclass(frozen=True)
class Failing:
    """Does a network that was taught with all labels fail where it is far from what it knows? Of one seed's test squares."""

    study: str
    start: str
    seed: int
    squares: int
    spearman: float
    """Of the distance to what it knows and the Brier score of a square."""
    low: float
    high: float
    events: int
    by_event: float | None
    """The same of means over events, and the p of a permutation."""
    p: float | None
    far: str
    """Events whose median square is less familiar than FAR percent."""
    worst: str
    """The third of the events with the largest Brier score."""


def failing(runs: Path, data: Path, seeds: Sequence[int]) -> list[Failing]:
    """Of every network that there is."""
    lines = []
    for study in STUDIES:
        for start in STARTS:
            for seed in seeds:
                one = One(study, start, 1.0, seed)
                folder, scored = one.folder(runs), one.scored(runs)
                if folder is not None and scored is not None:
                    lines.append(_failing(one, scored, *_far(folder / "model", study, scored, data)))
    return lines


def _far(model: Path, study: str, scored: Scored, data: Path) -> tuple[F64, F64]:
    """Distance of each square to what a network knows, and its familiarity in percent."""
    known, samples = Known.of(model, Card.read(model)), surveyed(study, data)
    assert known is not None
    network = Network.open(model, precision="f32", engine="openvino")
    z = np.concatenate([network.embeddings(samples.as_mapped(samples.read(name))[None]) for name in scored.names])
    return known.distances(z), 100 * known.familiarity(z)


def _failing(one: One, scored: Scored, far: F64, familiar: F64) -> Failing:
    wrong, events = brier(scored), np.array([event.rstrip("0123456789") for event in scored.events])
    names = sorted(set(events))
    units = [np.flatnonzero(events == name) for name in names]
    pictures = [name.partition("@")[0] for name in scored.names]
    drawn_by = units if len(units) > 4 else [np.flatnonzero(np.array(pictures) == name) for name in sorted(set(pictures))]

    def related(drawn: Sequence[Any]) -> float | None:
        own = np.concatenate(drawn)
        return distances.rank_correlation(far[own], wrong[own])

    found = stats.interval(drawn_by, related, np.random.default_rng(0))
    means = [np.array([values[unit].mean() for unit in units]) for values in (far, wrong)]
    several = len(units) > 3
    worst = [names[k] for k in np.argsort(-means[1])[: max(1, len(names) // 3)]]
    flagged = [name for name, unit in zip(names, units, strict=True) if np.median(familiar[unit]) < FAR]
    return Failing(
        one.study, one.start, one.seed, len(wrong), found.value, found.low, found.high, len(names),
        distances.rank_correlation(*means) if several else None,
        distances.permuted(means[0], means[1], np.random.default_rng(0)) if several else None,
        ", ".join(flagged) or "none", ", ".join(worst),
    )  # fmt: skip


@dataclass(frozen=True)
class Place:
    """How often an embedding tells which of two regions a square is of, before and after the network learned the hazard."""

    study: str
    start: str
    seed: int
    regions: str
    before: float
    after: float


def places(runs: Path, data: Path, seed: int = 0) -> list[Place]:
    """Of the regions with labels against those that were seen without, and against those that were not seen."""
    lines = []
    for study, own in STUDIES.items():
        for start in STARTS:
            first, then = learned(study, start, seed, runs), One(study, start, 1.0, seed).folder(runs)
            if first is None or then is None:
                continue
            told = squares(study, data)
            made = [features(study, start, seed, runs, data), _embedded(then / "model", study, data)]
            for region in REGIONS:
                rng = np.random.default_rng(seed)
                sides = [told.at(own.labelled, "train"), told.at(getattr(own, region), "test")]
                least = min(map(len, sides))
                sides = [rng.permutation(side)[:least] for side in sides]
                found = [
                    distances.told_apart(z[sides[0]], z[sides[1]], np.random.default_rng(seed)) for z in made if z is not None
                ]
                lines.append(Place(study, start, seed, f"labelled and {region}", found[0].accuracy, found[1].accuracy))
    return lines


def _embedded(model: Path, study: str, data: Path) -> F64:
    """Of every square, in the order of `squares`, by a network that maps."""
    network, samples = Network.open(model, precision="f32", engine="openvino"), surveyed(study, data)
    return np.concatenate([network.embeddings(samples.as_mapped(samples.read(name))[None]) for name in names_of(samples)])
