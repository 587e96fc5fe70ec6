"""The rows of a folder of trainings as one table: means over seeds, intervals over events, tests that may refuse to answer."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from aftermap.errors import InputRefusedError, UsageError
from aftermap.experiment import ROW
from aftermap.journal import write_json
from aftermap.metrics import Counts
from aftermap.stats import interval, signed_rank_over_images

METRICS = ("iou", "f1", "balanced_accuracy")


@dataclass(frozen=True)
class Line:
    """One metric of one recipe on one data set; None where undefined."""

    recipe: str
    recipe_sha256: str
    data: str
    metric: str
    seeds: int
    events: int
    unseen: bool
    """Whether every event was neither trained on nor chosen by."""
    mean: float | None
    """Over seeds, each of all pixels pooled."""
    each: tuple[float | None, ...]
    low: float | None
    high: float | None
    interval: str
    """What the 95 % interval is of, or why there is none."""
    trivial: float | None
    """Of marking everything."""
    p: float | None
    test: str
    """One-sided, event by event against marking everything; or why it was refused."""


def gather(folder: Path) -> list[dict[str, Any]]:
    """Every row below a folder, in order of their paths. Raises InputRefusedError ("no-rows")."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob(ROW))]
    if not found:
        raise InputRefusedError(f"{folder} holds no results", repair="give the -o of aftermap run", code="no-rows")
    return found


def lines(rows: Sequence[Mapping[str, Any]]) -> list[Line]:
    """Rows grouped by recipe and data, seeds together, one line for each metric."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["scores"] is not None and row["counts"]:  # labels of whole chips have no pixels to count
            groups.setdefault((row["recipe"], row["recipe_sha256"], row["data_sha256"]), []).append(row)
    return [_line(metric, group) for group in groups.values() for metric in METRICS]


def write(folder: Path, rows: Sequence[Mapping[str, Any]], found: Sequence[Line]) -> None:
    """report.md, report.csv and report.json; every row is in the last."""
    (folder / "report.md").write_text(table(rows, found), encoding="utf-8")
    write_json(folder / "report.json", {"lines": [vars(one) for one in found], "rows": list(rows)})
    with (folder / "report.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([*Line.__dataclass_fields__])
        writer.writerows([" ".join(map(str, v)) if isinstance(v, tuple) else v for v in vars(one).values()] for one in found)


def table(rows: Sequence[Mapping[str, Any]], found: Sequence[Line]) -> str:
    """The lines in Markdown, and below them how each came about."""
    head = "| recipe | data | metric | mean | 95 % interval | marking everything | seeds | events | unseen | test |"
    out = ["# Results", "", head, "|" + " --- |" * 10]
    for one in found:
        ends = f"{_number(one.low)} to {_number(one.high)}, {one.interval}" if one.low is not None else one.interval
        test = f"p = {one.p:.3g}, {one.test}" if one.p is not None else one.test
        out.append(
            f"| {one.recipe} `{one.recipe_sha256[:8]}` | {one.data} | {one.metric} | {_number(one.mean)} | {ends} "
            f"| {_number(one.trivial)} | {one.seeds} | {one.events} | {'yes' if one.unseen else 'no'} | {test} |"
        )
    out += ["", "Unseen: no event that is scored was trained on or chosen by. No test split chose anything.", ""]
    out += [f"- `{row['made_by']}`{'' if row['scores'] else ': not scored, it has no test split'}" for row in rows]
    return "\n".join(out) + "\n"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _line(metric: str, group: Sequence[Mapping[str, Any]]) -> Line:
    first = group[0]
    each = tuple(row["scores"][metric] for row in group)
    events = list(first["counts"])
    counted = [{event: Counts(**row["counts"][event]) for event in events} for row in group]
    everything = {e: Counts(tp=c.tp + c.fn, fp=c.fp + c.tn) for e, c in counted[0].items()}
    low, high, words = _interval(metric, counted, events)
    p, test = _tested(metric, counted, everything, events)
    return Line(
        first["recipe"], first["recipe_sha256"], first["data"], metric, len(group), len(events), first["unseen"],
        _mean(each), each, low, high, words, first["trivial"]["all_hazard"][metric], p, test,
    )  # fmt: skip


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def _pooled(counted: Sequence[Mapping[str, Counts]], metric: str, drawn: Sequence[str]) -> float | None:
    """Mean over seeds of the metric of these events together."""
    return _mean([getattr(sum((one[e] for e in drawn), Counts()), metric) for one in counted])


def _interval(
    metric: str, counted: Sequence[Mapping[str, Counts]], events: Sequence[str]
) -> tuple[float | None, float | None, str]:
    if len(events) < 2:
        return None, None, "none: one event"
    score: Callable[[Sequence[str]], float | None] = partial(_pooled, counted, metric)
    found = interval(events, score, np.random.default_rng(0))
    if not np.isfinite([found.low, found.high]).all():
        return None, None, "none: undefined in resamples"
    return found.low, found.high, f"{found.method} over {found.events} events"


def _tested(
    metric: str, counted: Sequence[Mapping[str, Counts]], everything: Mapping[str, Counts], events: Sequence[str]
) -> tuple[float | None, str]:
    def of(one: Mapping[str, Counts]) -> list[float]:
        return [np.nan if (v := getattr(one[e], metric)) is None else v for e in events]

    try:
        tested = signed_rank_over_images([of(one) for one in counted], of(everything))
    except UsageError as refused:
        return None, f"refused: {refused.what}"
    return tested.p, f"{tested.test} of {tested.pairs} events"
