"""The verb `probe`: embeddings once for every encoder and area, fits by the hundred thousand, and what they say (methods.md H).

Every file says what it was made of; what is there and the same is not made again, so a probe that was cut short goes on.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from aftermap import figures, tables
from aftermap.areas import Encoder, Place, embed, reread
from aftermap.errors import InputRefusedError
from aftermap.journal import digest, not_shared, write_json
from aftermap.probe import ARMS, Area, Cells, Left, Plan, cells
from aftermap.probed import Cube, balanced, cube, decisions, explained, gap
from aftermap.samples import Progress
from aftermap.workers import Workers, here

CELLS, EMBEDDINGS, SUMMARY = "cells", "embeddings", "probe.json"


def probe(
    place: Place, encoders: Sequence[Encoder], plan: Plan, out: Path, *, progress: Progress = lambda *_: None,
    workers: Workers = here, about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Embeds, fits and asks; writes `out` and gives what probe.json holds, `about` first.

    Each area is a unit of work for `workers`, to embed and to fit in. Raises InputRefusedError ("no-cells") where no area has
    enough chips of any task.
    """
    each: dict[str, Cells] = {}
    left: list[Left] = []
    skipped: dict[str, str] = {}
    for number, encoder in enumerate(encoders):
        found, without = _embedded(place, encoder, out.resolve(), workers, partial(progress, f"embed {encoder.name}"))
        skipped |= without
        each[encoder.name], own = _fitted(encoder, place, found, plan, out.resolve(), workers, progress)
        left += own if not number else []  # for they are of the chips, whatever sees them
    if not any(map(len, each.values())):
        whys = sorted({*(one.why for one in left), *skipped.values()})
        what = f"no task has {plan.least_mixed} mixed chips in an area: {'; '.join(whys)}"
        raise InputRefusedError(what, repair="join areas, lower --least-mixed, or give fewer labels", code="no-cells")
    facts = {**(about or {}), **_facts(each, place, plan, left, skipped)}
    _write(out, facts, {arm: cube(each, arm) for arm in ARMS}, cube(each, ARMS[1], "rmse"))
    return facts


def _embedded(
    place: Place, encoder: Encoder, out: Path, workers: Workers, told: Callable[[int, int], None]
) -> tuple[dict[str, Path], dict[str, str]]:  # fmt: skip
    """Areas as an encoder sees them, in files, and those that cannot be used, with the reason."""
    files = {name: out / EMBEDDINGS / _file(encoder.name) / f"{_file(name)}.parquet" for name in place.areas}
    skipped = {}
    every = workers(_embed, [(place, encoder, name, path) for name, path in files.items()])
    for done, (name, why) in enumerate(zip(files, every, strict=True), 1):
        if why:
            skipped[name] = why
        elif not files[name].is_file():
            raise not_shared(files[name])
        told(done, len(files))
    return {name: path for name, path in files.items() if name not in skipped}, skipped


def _embed(place: Place, encoder: Encoder, name: str, path: Path) -> str:
    """Into `path`; why an area cannot be used."""
    try:
        embed(place, encoder, name, path)
    except InputRefusedError as error:
        if error.code != "no-chips":
            raise
        return error.what
    return ""


def _file(name: str) -> str:
    """A name as that of a file, itself where that can be."""
    plain = "".join(c if c.isalnum() or c in "-_.+" else "_" for c in name).strip(".") or "_"
    return plain if plain == name else f"{plain}-{digest([name])[:8]}"


def _fitted(
    encoder: Encoder, place: Place, found: Mapping[str, Path], plan: Plan, out: Path, workers: Workers, progress: Progress
) -> tuple[Cells, list[Left]]:  # fmt: skip
    key = digest([place.key, encoder.key, asdict(plan), sorted(found)])
    files = {name: out / CELLS / _file(encoder.name) / f"{_file(name)}.parquet" for name in found}
    every = workers(_fit, [(path, key, name, tuple(found.items()), plan) for name, path in files.items()])
    for done, _ in enumerate(every, 1):
        progress(f"fit {encoder.name}", done, len(files))
    parts = []
    for path in files.values():
        if (kept := _kept(path, key)) is None:
            raise not_shared(path)
        parts.append(kept)
    return Cells.joined([own for own, _ in parts]), [one for _, left in parts for one in left]


def _fit(path: Path, key: str, name: str, embedded: tuple[tuple[str, Path], ...], plan: Plan) -> None:
    """All that is fitted in one area into `path`, where it is not there."""
    if _kept(path, key) is not None:
        return
    areas = _areas(key, embedded, plan.tasks)
    own, left = cells(areas[name], [*areas.values()], plan)
    columns = {f.name: list(v) if (v := getattr(own, f.name)).dtype.kind == "U" else v for f in fields(own)}
    tables.write(path, columns, {"key": key, "left": [asdict(one) for one in left]})


@lru_cache(maxsize=1)
def _areas(key: str, embedded: tuple[tuple[str, Path], ...], tasks: tuple[str, ...]) -> Mapping[str, Area]:
    """Read once for all areas that are fitted in; `key` tells what the files hold."""
    return {name: reread(path, name, tasks) for name, path in embedded}


def _kept(path: Path, key: str) -> tuple[Cells, list[Left]] | None:
    found = tables.read(path)
    if found is None or found[1].get("key") != key:
        return None
    table, about = found
    columns = (np.asarray(table.column(f.name).to_pylist() if f.name in _WORDS else table.column(f.name)) for f in fields(Cells))
    return Cells(*columns), [Left(**one) for one in about["left"]]


_WORDS = ("task", "train", "test", "arm")


def _facts(
    each: Mapping[str, Cells], place: Place, plan: Plan, left: Sequence[Left], skipped: Mapping[str, str]
) -> dict[str, Any]:  # fmt: skip
    facts: dict[str, Any] = {
        "data": place.dataset.name, "areas": list(place.areas), "tasks": list(place.tasks), "encoders": list(each),
        "size_px": place.size, "labels": list(plan.budgets), "repeats": plan.repeats, "seed": plan.seed,
        "cells": sum(map(len, each.values())), "skipped_areas": dict(skipped), "left_out": [asdict(one) for one in left],
        "explained": {},
    }  # fmt: skip
    for arm in ARMS:
        whole, gone = balanced(cube(each, arm))
        facts["explained"][arm] = {"shares": explained(whole, plan.repeats), "without": list(gone)}
    return facts


def _write(out: Path, facts: dict[str, Any], by_r: Mapping[str, Cube], by_rmse: Cube) -> None:
    """decisions.csv, matrix.csv, matrix.png; probe.json last, which says that all is there."""
    told = [(score, *vars(d).values()) for score, found, larger in (("r", by_r[ARMS[1]], True), ("rmse", by_rmse, False))
            for d in decisions(found, larger=larger)]  # fmt: skip
    head = ("score", "encoder", "task", "area", "best_foreign", "foreign", "own", "needed")
    _csv(out / "decisions.csv", head, told)
    matrices = {name: gap(by_r[ARMS[1]], name) for name in facts["encoders"]}
    rows = [(name, train, test, round(float(values[i, j]), 4)) for name, (areas, values) in matrices.items()
            for i, train in enumerate(areas) for j, test in enumerate(by_r[ARMS[1]].axes["test"])]  # fmt: skip
    _csv(out / "matrix.csv", ("encoder", "train", "test", "r"), rows)
    figures.draw_matrices(out / "matrix.png", {name: values for name, (_, values) in matrices.items()},
                          by_r[ARMS[1]].axes["train"], by_r[ARMS[1]].axes["test"])  # fmt: skip
    write_json(out / SUMMARY, facts)


def _csv(path: Path, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)


def query(out: Path, sql: str) -> list[dict[str, Any]]:
    """Rows of SQL about `cells`: every fit of a finished probe, with its encoder.

    Raises InputRefusedError ("no-cells"), UsageError ("extra-missing", "query-invalid").
    """
    if not (out / SUMMARY).is_file():
        raise InputRefusedError(f"{out} holds no finished probe", repair="run aftermap probe to its end", code="no-cells")
    facts = json.loads((out / SUMMARY).read_text(encoding="utf-8"))
    files = {name: [path for area in facts["areas"] if (path := out / CELLS / _file(name) / f"{_file(area)}.parquet").is_file()]
             for name in facts["encoders"]}  # fmt: skip
    return tables.query(sql, "cells", "encoder", {name: own for name, own in files.items() if own})


def words(facts: dict[str, Any], out: Path) -> list[str]:
    """Lines for a reader."""
    counted = ", ".join(f"{len(facts[name])} {name}" for name in ("encoders", "tasks", "areas"))
    lines = [f"{facts['cells']:,} fits: {counted} of {facts['data']}, squares of {facts['size_px']} px"]
    for name, why in facts["skipped_areas"].items():
        lines.append(f"  without {name}: {why}")
    counts: dict[str, int] = {}
    for one in facts["left_out"]:
        counts[one["task"] or f"{one['labels']} labels"] = counts.get(one["task"] or f"{one['labels']} labels", 0) + 1
    if counts:
        lines.append("  left out, too few chips: " + ", ".join(f"{what} ({n} cells of areas)" for what, n in counts.items()))
    for arm, told in facts["explained"].items():
        shares = sorted(told["shares"].items(), key=lambda one: -one[1])[:6]
        said = ", ".join(f"{name} {share:.0%}" for name, share in shares) or "too few areas have every task"
        lines.append(f"  r goes with ({arm}): {said}")
    return [*lines, f"matrices  {out / 'matrix.png'}, matrix.csv", f"decisions {out / 'decisions.csv'}: label here, or borrow",
            f"every fit {out / CELLS}"]  # fmt: skip
