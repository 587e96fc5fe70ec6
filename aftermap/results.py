"""The rows of a folder of trainings as one table: means over seeds, intervals over events and over images, tests that may refuse.

Folds of one seed are taken together: every sample of the data set is tested once, by a network that never saw its event.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap.confusion import Confusion
from aftermap.errors import InputRefusedError, UsageError
from aftermap.experiment import EACH, ROW
from aftermap.journal import write_json
from aftermap.metrics import Counts, Ranking
from aftermap.scored import Scored
from aftermap.stats import interval, signed_rank_over_images

_RANKED = ("average_precision", "auc")
METRICS = ("iou", "f1", "balanced_accuracy", "macro_iou", *_RANKED)
LEAST = 5
"""Events below which no interval is claimed, but their range is told: two drawn again and again say nothing of a third."""
_RESAMPLES = 1000
Places = Sequence[int] | npt.NDArray[np.intp]


@dataclass(frozen=True)
class Line:
    """One metric of one recipe on one data set; None where undefined."""

    recipe: str
    page_sha256: str
    data: str
    metric: str
    seeds: int
    folds: int
    events: int
    images: int
    unseen: bool
    """Whether every event was neither trained on nor chosen by."""
    mean: float | None
    """Over seeds, each of all pixels pooled."""
    std: float | None
    """Over seeds, of one training to the next."""
    each: tuple[float | None, ...]
    per_image: float | None
    """Mean over images in which it is defined, and over seeds."""
    low: float | None
    high: float | None
    interval: str
    """What the 95 % interval is of, or that it is a range, or why there is none."""
    image_low: float | None
    image_high: float | None
    """The same, other images drawn in place of other events."""
    everything: float | None
    """Of marking everything."""
    untrained: float | None
    """Of the network before it was trained, mean over seeds."""
    without_training: float | None
    """Of the methods without training, on the same pixels."""
    methods: str
    """Those methods."""
    p: float | None
    test: str
    """One-sided, image by image against the methods without training, or against marking everything; or why it was refused."""


def gather(folder: Path) -> list[dict[str, Any]]:
    """Every row below a folder, in order of their paths, with its own `folder`. Raises InputRefusedError ("no-rows")."""
    paths = sorted(folder.rglob(ROW))
    if not paths:
        raise InputRefusedError(f"{folder} holds no results", repair="give the -o of aftermap run", code="no-rows")
    return [json.loads(path.read_text(encoding="utf-8")) | {"folder": str(path.parent)} for path in paths]


def lines(rows: Sequence[Mapping[str, Any]]) -> list[Line]:
    """Rows grouped by recipe and data, folds and seeds together, one line for each metric."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["scores"] is not None and row["untrained"] is not None:  # labels of whole chips have none
            groups.setdefault((row["recipe"], row["page_sha256"], row["data"]), []).append(row)
    return [line for group in groups.values() for line in _Group.of(group).lines()]


def write(folder: Path, rows: Sequence[Mapping[str, Any]], found: Sequence[Line]) -> None:
    """report.md, report.csv and report.json; every row is in the last."""
    (folder / "report.md").write_text(table(rows, found), encoding="utf-8")
    plain = [{k: v for k, v in row.items() if k != "folder"} for row in rows]
    write_json(folder / "report.json", {"lines": [vars(one) for one in found], "rows": plain})
    write_csv(folder / "report.csv", found)


def write_csv(path: Path, found: Sequence[Line], *, end: str = "\r\n") -> None:
    """A row per line."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator=end)
        writer.writerow([*Line.__dataclass_fields__])
        writer.writerows([" ".join(map(str, v)) if isinstance(v, tuple) else v for v in vars(one).values()] for one in found)


_HEAD = (
    *(
        "recipe",
        "data",
        "metric",
        "mean ± std of seeds",
        "95 % over events, or their range",
        "95 % over images",
        "mean of images",
    ),
    *("without training", "untrained network", "marking everything", "seeds", "events (images)", "unseen", "test"),
)

_NOTES = (
    "Unseen: no event that is scored was trained on or chosen by. No test split chose anything. Marking nothing has an IoU",
    "and F1 of 0 and a balanced accuracy of 0.5. Macro IoU: the mean of that of the hazard and that of all else.",
)


def table(rows: Sequence[Mapping[str, Any]], found: Sequence[Line]) -> str:
    """The lines in Markdown, and below them how each came about."""
    out = ["# Results", "", f"| {' | '.join(_HEAD)} |", "|" + " --- |" * len(_HEAD)]
    for one in found:
        cells = (
            f"{one.recipe} `{one.page_sha256[:8]}`", one.data, one.metric,
            f"{_number(one.mean)}{'' if one.std is None else f' ± {one.std:.3f}'}",
            f"{_number(one.low)} to {_number(one.high)}, {one.interval}" if one.low is not None else one.interval,
            f"{_number(one.image_low)} to {_number(one.image_high)}" if one.image_low is not None else "–",
            _number(one.per_image), f"{_number(one.without_training)} {one.methods}".strip(), _number(one.untrained),
            _number(one.everything), str(one.seeds), f"{one.events} ({one.images})", "yes" if one.unseen else "no",
            f"p = {one.p:.3g}, {one.test}" if one.p is not None else one.test,
        )  # fmt: skip
        out.append(f"| {' | '.join(cells)} |")
    made = [f"- `{row['made_by']}`{'' if row['scores'] else ': not scored, it has no test split'}" for row in rows]
    return "\n".join([*out, "", *_NOTES, "", *dict.fromkeys(made)]) + "\n"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


@dataclass(frozen=True)
class _Group:
    """The rows of one line, and what every sample came to."""

    first: Mapping[str, Any]
    folds: int
    trained: tuple[Scored, ...]
    """One per seed."""
    first_weights: tuple[Mapping[str, float | None], ...]
    """Scores of the untrained network of each seed."""
    beside: Scored | None
    """Of the methods without training."""
    methods: str

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> _Group:
        seeds = sorted({row["seed"] for row in rows})
        of_seed = [[row for row in rows if row["seed"] == seed] for seed in seeds]
        if len({tuple(sorted(str(row["fold"]) for row in own)) for own in of_seed}) > 1:
            what = f"the seeds of {rows[0]['recipe']} were not tested on the same folds"
            raise InputRefusedError(what, repair="finish aftermap run", code="folds-unfinished")
        trained = tuple(Scored.joined([Scored.read(Path(row["folder"]) / EACH) for row in own]).of_images() for own in of_seed)
        told = [row["without_training"] for row in of_seed[0] if row.get("without_training")]
        beside = [Scored.read(Path(row["folder"]).parent / row["without_training"]["folder"] / EACH)
                  for row in of_seed[0] if row.get("without_training")]  # fmt: skip
        first_weights = tuple(_untrained([row["untrained"] for row in own]) for own in of_seed)
        methods = ", ".join(sorted({m for one in told for m in one["methods"]}))
        return cls(
            rows[0], len(of_seed[0]), trained, first_weights, Scored.joined(beside).of_images() if beside else None, methods
        )

    def lines(self) -> list[Line]:
        return [self._line(metric) for metric in METRICS]

    def _line(self, metric: str) -> Line:
        one = self.trained[0]
        every = np.arange(len(one.names))
        events = [np.flatnonzero(np.asarray(one.events) == e) for e in sorted(set(one.events))]
        each = tuple(_metric(seed, metric, every) for seed in self.trained)
        known = [v for v in each if v is not None]
        everything = one.everything()
        low, high, words = self._interval(metric, events, "events")
        image_low, image_high, _ = self._interval(metric, [np.asarray([k]) for k in every], "images")
        p, test = self._tested(metric, every, everything)
        of_images = self._per_image(metric, every)
        return Line(
            self.first["recipe"], self.first["page_sha256"], self.first["data"], metric, len(self.trained), self.folds,
            len(events), len(every), self.first["unseen"], _mean(each),
            float(np.std(known, ddof=1)) if len(known) == len(each) > 1 else None, each,
            float(np.nanmean(of_images)) if np.isfinite(of_images).any() else None,
            low, high, words, image_low, image_high, _metric(everything, metric, every),
            _mean([one[metric] for one in self.first_weights]),
            None if self.beside is None else _metric(self.beside, metric, every), self.methods, p, test,
        )  # fmt: skip

    def _per_image(self, metric: str, every: Places) -> npt.NDArray[np.float64]:
        """(image,), mean over seeds; NaN where undefined."""
        of_seeds = [[_or_nan(_metric(seed, metric, [k])) for k in every] for seed in self.trained]
        return np.asarray(np.mean(of_seeds, axis=0), np.float64)

    def _interval(self, metric: str, parts: Sequence[npt.NDArray[np.intp]], what: str) -> tuple[float | None, float | None, str]:
        if len(parts) < 2:
            return None, None, f"none: one of {what}"
        if len(parts) < LEAST:
            each = [_mean([_metric(seed, metric, own) for seed in self.trained]) for own in parts]
            ends = sorted(v for v in each if v is not None)
            return (ends[0], ends[-1], f"range of {len(parts)} {what}") if ends else (None, None, "none: undefined")
        score: Callable[[Sequence[Any]], float | None] = lambda drawn: _mean(  # noqa: E731
            [_metric(seed, metric, np.concatenate(drawn)) for seed in self.trained]
        )
        found = interval(parts, score, np.random.default_rng(0), resamples=_RESAMPLES)
        if not np.isfinite([found.low, found.high]).all():
            return None, None, "none: undefined in resamples"
        return found.low, found.high, f"{found.method} over {found.events} {what}"

    def _tested(self, metric: str, every: Places, everything: Scored) -> tuple[float | None, str]:
        other = self.beside or everything
        against = self.methods or "marking everything"
        baseline = [_or_nan(_metric(other, metric, [k])) for k in every]
        try:
            tested = signed_rank_over_images(self._per_image(metric, every), baseline)
        except UsageError as refused:
            return None, f"refused: {refused.what}"
        return tested.p, f"{tested.test}, {tested.pairs}, against {against}"


def _untrained(folds: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Of the counts of all folds; the ranks are means of theirs, for no histogram was kept."""
    counts = sum((Counts(*(one[k] for k in ("tp", "fp", "fn", "tn"))) for one in folds), Counts())
    ranked = {m: _mean([one.get(m) for one in folds]) for m in _RANKED}
    return {m: _of_counts(counts, m) for m in METRICS if m not in ranked} | ranked


def _metric(one: Scored, metric: str, places: Places) -> float | None:
    if metric in _RANKED:
        found: float | None = getattr(Ranking(one.levels[places].sum(axis=0, dtype=np.int64)), metric)
        return found
    return _of_counts(one.of(places), metric)


def _of_counts(counts: Counts, metric: str) -> float | None:
    if metric == "macro_iou":
        return Confusion(("clear", "hazard"), np.array([[counts.tn, counts.fp], [counts.fn, counts.tp]])).macro_iou
    value: float | None = getattr(counts, metric)
    return value


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None
