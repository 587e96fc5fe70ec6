"""What scores on real images come to: whether a network may lead, the rows of its card, and the tables of models.md."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from aftermap.card import BUNDLED, Card
from aftermap.metrics import Counts

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("model", "data", "region", "image", "method", "seen", "tp", "fp", "fn", "tn", "iou", "f1", "ap")
BY_IMAGE = ("Sen1Floods11",)
"""Data sets whose table has a line per image."""
SINGLE = ("Sen1Floods11", "Antarctica", "Antarctica below 65535")
"""Data sets whose images, not regions, are averaged: a region there is a country of one or two chips, or the whole mosaic."""
Row = Mapping[str, Any]


def counts(rows: Sequence[Row]) -> Counts:
    """All pixels of these rows."""
    return sum((Counts(*(int(r[k]) for k in ("tp", "fp", "fn", "tn"))) for r in rows), start=Counts())


def scorable(rows: Sequence[Row]) -> list[Row]:
    """Images that hold both classes, and that the network has not trained on."""
    return [r for r in rows if int(r["tp"]) + int(r["fn"]) and int(r["fp"]) + int(r["tn"]) and not int(r["seen"])]


def of(rows: Sequence[Row], **wanted: str) -> list[Row]:
    """Rows with these values."""
    return [r for r in rows if all(r[k] == v for k, v in wanted.items())]


def pooled_and_mean(rows: Sequence[Row]) -> tuple[float, float]:
    """IoU of all pixels, and its mean over images or regions."""
    key = "image" if rows[0]["data"] in SINGLE else "region"
    places = dict.fromkeys((r["data"], r[key]) for r in rows)
    each = [counts([r for r in rows if (r["data"], r[key]) == p]).iou or 0.0 for p in places]
    return counts(rows).iou or 0.0, float(np.mean(each))


def leave(name: str, rows: Sequence[Row]) -> tuple[bool, str]:
    """Whether the network is no worse than the best method without training in pooled IoU and in the mean, and why in words."""
    said, leads = [], True
    known = scorable(rows)
    for data in dict.fromkeys(r["data"] for r in known):
        mine = of(known, data=data, method=name)
        rivals = {m: of(known, data=data, method=m) for m in dict.fromkeys(r["method"] for r in known) if m != name}
        found = {m: pooled_and_mean(r) for m, r in rivals.items() if r}
        if not mine:
            said.append(f"{data}: cannot run there")
            continue
        pooled, mean = pooled_and_mean(mine)
        best = [max(found.items(), key=lambda kv: kv[1][k]) for k in (0, 1)]
        leads &= pooled >= best[0][1][0] and mean >= best[1][1][1]
        said.append(
            f"{data}: IoU pooled {pooled:.3f} against {best[0][1][0]:.3f} ({best[0][0]}), mean {mean:.3f} against "
            f"{best[1][1][1]:.3f} ({best[1][0]})"
        )
    return leads and bool(said), "; ".join(said)


def summaries(rows: Sequence[Row], name: str, errors: Mapping[str, tuple[float, float]]) -> list[dict[str, Any]]:
    """Rows of the card: per data set and method IoU pooled and mean, F1; of the network also its calibration errors."""
    found: list[dict[str, Any]] = []
    for data in dict.fromkeys(r["data"] for r in rows):
        for method in dict.fromkeys(r["method"] for r in rows):
            if own := scorable(of(rows, data=data, method=method)):
                pooled, mean = pooled_and_mean(own)
                facts = {"data": data, "method": method, "images": len(own), "iou": round(pooled, 4), "iou_mean": round(mean, 4)}
                facts["f1"] = round(counts(own).f1 or 0.0, 4)
                if method == name:
                    facts |= {"ece_score": round(errors[data][0], 4), "ece": round(errors[data][1], 4)}
                found.append(facts)
    return found


def _n(value: float | str | None) -> str:
    return "–" if value in (None, "") else f"{float(value):.3f}"


def _lines(rows: Sequence[Row], key: str) -> list[list[str]]:
    """A line per data set and place, a column per method; what lacks a class shows the share mapped."""
    methods = list(dict.fromkeys(r["method"] for r in rows))
    body = []
    for data in dict.fromkeys(r["data"] for r in rows):
        here = of(rows, data=data)
        for place in dict.fromkeys(r[key] for r in here):
            own = [[r for r in of(here, method=m) if r[key] == place] for m in methods]
            seen = " (trained on)" if any(int(r["seen"]) for each in own for r in each) else ""
            body.append([f"{data} {place}{seen}", str(max(map(len, own))), *map(_cell, own)])
        known = [scorable(of(here, method=m)) for m in methods]
        if any(known):
            both = [pooled_and_mean(k) if k else None for k in known]
            body.append([f"**{data} pooled**", str(max(map(len, known))), *(f"**{b[0]:.3f}**" if b else "" for b in both)])
            body.append([f"{data} mean", "", *(f"{b[1]:.3f}" if b else "" for b in both)])
    return [["data", "images", *methods], ["---"] * (2 + len(methods)), *body]


def _cell(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    c = counts(rows)
    if not c.total:
        return "not observed"
    return _n(c.iou) if c.tp + c.fn else f"no hazard; {100 * c.fp / c.total:.2f} % mapped"


def tables(rows: Sequence[Row]) -> str:
    """Markdown of all models."""
    lines = [
        "# Bundled models on real images", "",
        f"{date.today().isoformat()}, {platform.machine()}, {platform.system()}, `python -m benchmarks.bundle NAME`.",
        "IoU at the score 0.5, fp32. *Pooled* adds the pixels of images that hold both classes and that the network has not",
        "trained on; *mean* averages images (Sen1Floods11, Antarctica) or regions. A network leads where neither is worse than",
        "the best method without training. The methods' defaults were chosen on these images; the networks have not seen them,",
        "but for the region marked.", "",
    ]  # fmt: skip
    for name in dict.fromkeys(r["model"] for r in rows):
        own = of(rows, model=name)
        key = "image" if own[0]["data"] in BY_IMAGE else "region"
        card = Card.read(BUNDLED / name)
        lines += [f"## {name}", "", *(f"| {' | '.join(line)} |" for line in _lines(own, key)), ""]
        lines += [f"{'Leads' if card.leads else 'Runs beside'}: {card.why}.", ""]
        ece = [f"{s['data']} {s['ece_score']:.3f} to {s['ece']:.3f}" for s in card.scores if "ece_score" in s]
        lines += [f"Calibration error, before and after: {', '.join(ece)}.", ""] if ece else []
    return "\n".join(lines)
