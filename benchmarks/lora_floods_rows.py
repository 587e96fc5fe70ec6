"""The rows of benchmarks/lora_floods.py: scores in groups held out and in groups seen, tests over groups, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from aftermap import recipe, stats
from aftermap.errors import UsageError
from aftermap.metrics import Counts, Ranking
from aftermap.model import spec_of
from aftermap.scored import Scored
from benchmarks.label_efficiency_runs import MAPPED
from benchmarks.lora import learning
from benchmarks.lora_floods_runs import CHOSEN, EVERY, SEEN, STUDIES, WAYS, One, memory_path, without

REGIONS = ("held out", "seen")
"""Groups that no label was of, and pictures of groups whose other pictures were learned from."""
PLAIN, EVERYTHING, ALL, FROZEN = "method without training", "everything", "all", "frozen"
Key = tuple[int, tuple[str, ...], str]
"""Seed, fold and group."""


@dataclass(frozen=True)
class Group:
    """One way in one group by one training."""

    ap: float | None
    counts: Counts
    """Above a score of 0.5."""
    tuned: Counts
    """Above the threshold that does best where it is chosen; as `counts` where none is."""


Groups = Mapping[Key, Group]


@dataclass(frozen=True)
class Line:
    """One way of one encoder and region: IoU and F1 of all pixels, a mean over seeds; average precision a mean over groups."""

    study: str
    region: str
    encoder: str
    way: str
    seeds: int
    groups: int
    iou: float
    f1: float
    iou_tuned: float
    ap: float
    ap_low: float
    ap_high: float
    gain_over_frozen: float | None = None
    """In average precision of a group, as the next."""
    frozen_low: float | None = None
    frozen_high: float | None = None
    frozen_p: float | None = None
    """One-sided, exact signed rank over groups; None where so few groups can never reach alpha."""
    frozen_p_holm: float | None = None
    gain_over_all: float | None = None
    all_low: float | None = None
    all_high: float | None = None
    all_p: float | None = None
    all_p_holm: float | None = None

    @property
    def precision(self) -> str:
        """In words, as the next two."""
        return _words(self.ap, self.ap_low, self.ap_high)

    @property
    def over_frozen(self) -> str:
        """Gain, interval and Holm's p."""
        return _words(self.gain_over_frozen, self.frozen_low, self.frozen_high, self.frozen_p_holm)

    @property
    def over_all(self) -> str:
        """The same."""
        return _words(self.gain_over_all, self.all_low, self.all_high, self.all_p_holm)


def _words(value: float | None, low: float | None, high: float | None, p: float | None = None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f} ({low:.3f} to {high:.3f})" + ("" if p is None else f", p {p:.4f}")


def lines(study: str, runs: Path, data: Path, seeds: Sequence[int]) -> list[Line]:
    """Of what was trained, and beside each encoder what needs no labels, on the same pictures."""
    found: list[Line] = []
    for region in REGIONS if not STUDIES[study].chosen else REGIONS[:1]:
        own: list[Line] = []
        for encoder, ways in STUDIES[study].ways.items():
            of = {way: each for way in ways if (each := _groups(study, encoder, way, region, runs, seeds))}
            if of:
                of |= _untaught(study, region, max(of.values(), key=len), runs, data)
            own += [_line(study, region, encoder, way, each, of) for way, each in of.items()]
        found += _adjusted(own)
    return found


def _groups(study: str, encoder: str, way: str, region: str, runs: Path, seeds: Sequence[int]) -> dict[Key, Group]:
    """Of the seeds of which every fold is there."""
    found: dict[Key, Group] = {}
    for seed in seeds:
        folders = {held: One(study, encoder, way, held, seed).folder(runs) for held in STUDIES[study].folds}
        for held, folder in folders.items():
            if folder is not None and None not in folders.values():
                tested, threshold = Scored.read(folder / MAPPED), _threshold(Scored.read(folder / CHOSEN))
                found |= {(seed, held, name): one for name, one in _of(tested, region, threshold)}
    return found


def _of(tested: Scored, region: str, threshold: int | None) -> Iterator[tuple[str, Group]]:
    for event in sorted(set(tested.events)):
        if event.startswith(SEEN) == (region == REGIONS[1]):
            places = np.flatnonzero(np.asarray(tested.events) == event)
            counts, levels = tested.of(places), tested.levels[places].sum(axis=0).astype(np.int64)
            ap = Ranking(levels).average_precision if levels.sum(axis=1).all() else None
            yield event.removeprefix(SEEN), Group(ap, counts, counts if threshold is None else _above(levels, threshold))


def _threshold(chosen: Scored) -> int | None:
    """The level from which on marking gives the best IoU; None without both classes."""
    levels = chosen.levels.sum(axis=0).astype(np.int64)
    if not levels.sum(axis=1).all():
        return None
    return int(np.argmax([_above(levels, k).iou or 0.0 for k in range(levels.shape[1])]))


def _above(levels: np.ndarray, threshold: int) -> Counts:
    (tn, fn), (fp, tp) = levels[:, :threshold].sum(axis=1).tolist(), levels[:, threshold:].sum(axis=1).tolist()
    return Counts(tp, fp, fn, tn)


def _untaught(study: str, region: str, like: Groups, runs: Path, data: Path) -> dict[str, dict[Key, Group]]:
    """What needs no labels, on the pictures of each group: of those seen, on the ones that are tested."""
    whole = without(study, runs, data)
    found: dict[str, dict[Key, Group]] = {PLAIN: {}, EVERYTHING: {}}
    for seed, held, name in like:
        places = [k for k, event in enumerate(whole.events) if event == name]
        if region == REGIONS[1]:
            places = places[1::EVERY]
        for words, scored in ((PLAIN, whole), (EVERYTHING, whole.everything())):
            names, events = tuple(whole.names[k] for k in places), (name,) * len(places)
            ((_, one),) = _of(Scored(names, events, scored.counts[places], scored.levels[places]), REGIONS[0], None)
            found[words][seed, held, name] = one
    return found


def _line(study: str, region: str, encoder: str, way: str, each: Groups, of: Mapping[str, Groups]) -> Line:
    seeds = sorted({seed for seed, _, _ in each}) if way in WAYS else [min(seed for seed, _, _ in each)]
    by_seed = [[one for (s, _, _), one in each.items() if s == seed] for seed in seeds]
    counts, tuned = ([sum((getattr(one, kind) for one in own), Counts()) for own in by_seed] for kind in ("counts", "tuned"))
    line = Line(
        study, region, encoder, way, len(seeds) if way in WAYS else 0, len({name for _, _, name in each}),
        fmean(c.iou or 0.0 for c in counts), fmean(c.f1 or 0.0 for c in counts), fmean(c.iou or 0.0 for c in tuned),
        *interval(_by_group(each)),
    )  # fmt: skip
    for kind, other in (("frozen", FROZEN), ("all", ALL)):
        if way != other and other in of:
            names = (f"gain_over_{kind}", f"{kind}_low", f"{kind}_high", f"{kind}_p")
            told: dict[str, Any] = dict(zip(names, compared(each, of[other]), strict=True))
            line = replace(line, **told)
    return line


def _by_group(each: Groups, among: Sequence[Key] | None = None) -> dict[str, float]:
    """Average precision of each group that has both classes, a mean over seeds and folds."""
    values: dict[str, list[float]] = {}
    for key in each if among is None else among:
        if (ap := each[key].ap) is not None:
            values.setdefault(key[2], []).append(ap)
    return {name: fmean(own) for name, own in sorted(values.items())}


def interval(by_group: Mapping[str, float]) -> tuple[float, float, float]:
    """Mean over groups, and 95 % by resampling them."""
    found = stats.interval(list(by_group.values()), lambda one: float(np.mean(one)), np.random.default_rng(0))
    return found.value, found.low, found.high


def compared(ours: Groups, theirs: Groups) -> tuple[float, float, float, float | None]:
    """Mean gain over groups on the trainings that both have, its interval, and p where it can reach alpha."""
    shared = [key for key in ours if key in theirs]
    first, second = _by_group(ours, shared), _by_group(theirs, shared)
    gains = {name: first[name] - second[name] for name in first}
    try:
        p: float | None = stats.signed_rank_over_images(list(first.values()), list(second.values())).p
    except UsageError:
        p = None
    return *interval(gains), p


def _adjusted(own: list[Line]) -> list[Line]:
    """With Holm's p over the rows of one region and comparison."""
    for kind in ("frozen", "all"):
        tested = [k for k, one in enumerate(own) if getattr(one, f"{kind}_p") is not None and one.way != EVERYTHING]
        for k, p in zip(tested, stats.holm([getattr(own[k], f"{kind}_p") for k in tested]), strict=True):
            told: dict[str, Any] = {f"{kind}_p_holm": p}
            own[k] = replace(own[k], **told)
    return own


@dataclass(frozen=True)
class Learns:
    """What of a network learns and what that costs; in a process of its own, time of one core."""

    study: str
    encoder: str
    way: str
    trainable: float
    """Share of the parameters of the network."""
    effective_rank: float | None
    seconds_per_epoch: float
    peak_mb: float
    before_mb: float
    """Peak of the process before its training began."""


def learns(study: str, runs: Path, seeds: Sequence[int]) -> list[Learns]:
    """Of every way that was measured, of encoders of which any way was trained."""
    found = []
    for encoder, ways in STUDIES[study].ways.items():
        each = (One(study, encoder, way, held, s).folder(runs) for s in seeds for way in ways for held in STUDIES[study].folds)
        any_of = next((folder for folder in each if folder is not None), None)
        for way in ways:
            if (path := memory_path(study, encoder, way, runs)).exists() and any_of is not None:
                told, page = json.loads(path.read_text(encoding="utf-8")), recipe.read(any_of / "page.toml", WAYS[way].overrides)
                costs = (told[name] for name in ("seconds_per_epoch", "peak_mb", "before_mb"))
                found.append(Learns(study, encoder, way, *learning(page, spec_of(any_of / "model")), *costs))
    return found
