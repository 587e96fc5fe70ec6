"""Grades of damage by a network of several classes on simulated towns that it has not seen, and on the pair of Joplin.

Run:     python -m benchmarks.damage --model MODEL [--data ../shared/data] [--folder KEPT]
MODEL:   aftermap simulate building -o town --size 4096 --seed 1
         aftermap chips --after town/after.tif --before town/before.tif --truth town/truth.tif --band 4 --size 128
             --classes background,no-damage,minor-damage,major-damage,destroyed --split blocks --block-px 512 -o chips
         aftermap run building-damage-small --on chips -o runs       (MODEL is the folder `model` in it)
Writes:  benchmarks/results/damage.csv (a row per footprint) and damage.md (the tables)
"""

from __future__ import annotations

import csv
import json
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import click
import numpy as np
import shapely

import aftermap as am
from aftermap import pieces, raster, vector
from aftermap.card import Card
from aftermap.confusion import Confusion
from aftermap.products.buildings import DAMAGE, UNGRADED
from benchmarks.buildings import NORTH_EAST, RGB, SEEDS, SIZE, graded, outlines

RESULTS = Path(__file__).parent / "results"
WORDS = (*DAMAGE, UNGRADED)
NETWORK, OWN, CLASSICAL, TRIVIAL = "network", "network, outlines of its own", "building-change", "all undamaged"
COLUMNS = ("data", "scene", "method", "actual", "grade", "score")
MATCH = 0.5
"""Intersection over union from which an outline is that of a building."""
Row = Mapping[str, Any]


def options(model: Path | None) -> am.Options:
    """Of a map by the network alone, or by the methods without training."""
    return am.Options(model=str(model), baseline=False) if model else am.Options()


def towns(model: Path, scratch: Path) -> Iterator[Row]:
    """Every footprint of the towns by each method; of the network's own outlines those that meet a building, and the others."""
    for seed in SEEDS:
        scene = scratch / f"town-{seed}"
        actual = _town(scene, seed)
        files: Any = {"after": scene / "after.tif", "before": scene / "before.tif", "hazard": "building"}
        for name, asked in ((NETWORK, model), (CLASSICAL, None)):
            am.map(**files, out=scene / name, footprints=scene / "footprints.gpkg", options=options(asked))
            shapes, columns = graded(scene / name)
            assert len(shapes) == len(actual), "a footprint has no row"
            yield from _rows("towns", seed, name, actual, columns)
        yield from _rows("towns", seed, TRIVIAL, actual, {"damage_gra": [DAMAGE[0]] * len(actual), "score": [None] * len(actual)})
        am.map(**files, out=scene / "own", options=options(model))
        mine, own = graded(scene / "own")
        found, of = _matched(mine, shapes)
        grades = [own["damage_gra"][k] if k >= 0 else "missed" for k in found]
        yield from _rows("towns", seed, OWN, actual, {"damage_gra": grades, "score": [None] * len(grades)})
        false = [g for g, k in zip(own["damage_gra"], of, strict=True) if k < 0]
        yield from _rows("towns", seed, OWN, [-1] * len(false), {"damage_gra": false, "score": [None] * len(false)})


def _town(scene: Path, seed: int) -> list[int]:
    """The grade of each footprint of a town, which is made where it is not there: other footprints would be another run."""
    known = scene / "grades.json"
    if not known.exists():
        pieces.load("simulate", "building")(scene, size=SIZE, seed=seed)
        known.write_text(json.dumps(outlines(scene)))
    return [int(grade) for grade in json.loads(known.read_text())]


def _matched(mine: Any, true: Any) -> tuple[list[int], list[int]]:
    """For each true building the outline (-1: none) that it shares at least MATCH with, and the other way round."""
    found, of = [-1] * len(true), [-1] * len(mine)
    tree = shapely.STRtree(mine)
    for t, m in zip(*tree.query(true, predicate="intersects"), strict=True):
        common = shapely.area(shapely.intersection(true[t], mine[m]))
        if common >= MATCH * (shapely.area(true[t]) + shapely.area(mine[m]) - common):
            found[t], of[m] = int(m), int(t)
    return found, of


def joplin(model: Path, data: Path, scratch: Path) -> Iterator[Row]:
    """The pair of Joplin; `actual` is by eye: 0 upright outside the path, 2 in it."""
    folder = data / "building_joplin"
    after, before = (next((folder / "input" / one).glob("*.tif")) for one in ("post", "pre"))
    for name, asked in ((NETWORK, model), (CLASSICAL, None)):
        am.map(
            after, before, out=scratch / name, hazard="building", footprints=folder / "misc" / "joplin.geojson",
            declared={"after": RGB, "before": RGB}, options=options(asked),
        )  # fmt: skip
        shapes, columns = graded(scratch / name)
        with raster.open_raster(after) as src:
            col, row = shapely.get_coordinates(shapely.centroid(vector.place(shapes, ~src.transform))).T
        upright = (col > NORTH_EAST[0]) & (row < NORTH_EAST[1])
        yield from _rows("Joplin", 0, name, [0 if u else 2 for u in upright], columns)


def _rows(data: str, scene: int, method: str, actual: Sequence[int], columns: Mapping[str, Any]) -> Iterator[Row]:
    for a, grade, score in zip(actual, columns["damage_gra"], columns["score"], strict=True):
        told = "" if score is None or score != score else round(float(score), 4)
        yield dict(zip(COLUMNS, (data, scene, method, a, grade, told), strict=True))


def confusion(rows: Sequence[Row]) -> Confusion:
    """Of footprints; what was not graded is a class that no truth has, so that it counts as missed."""
    truth = np.array([int(r["actual"]) for r in rows])
    mapped = np.array([WORDS.index(r["grade"]) if r["grade"] in WORDS else len(DAMAGE) for r in rows])
    return Confusion.of(WORDS, truth, mapped)


def _cells(name: str, rows: Sequence[Row]) -> list[str]:
    real = [r for r in rows if int(r["actual"]) >= 0]
    whole = confusion(real)
    of_town = [confusion([r for r in real if int(r["scene"]) == seed]).macro_f1 or 0.0 for seed in SEEDS]
    damaged = whole.hazard(DAMAGE[2:])
    each = [f"{c.f1 or 0:.2f}" for c in whole.each[: len(DAMAGE)]]
    graded_ = sum(r["grade"] in DAMAGE for r in real)
    spread = f"{min(of_town):.3f} to {max(of_town):.3f}"
    scores = (f"{whole.accuracy or 0:.3f}", f"**{whole.macro_f1 or 0:.3f}**", spread, *each, f"{damaged.f1 or 0:.3f}")
    return [name, f"{len(real)} ({graded_})", *scores]


HEAD = ("method", "footprints (graded)", "accuracy", "macro F1", "of single towns", *(f"F1 {w.lower()}" for w in DAMAGE))
NOTES = (
    f"Simulated towns of {SIZE} px, seeds {SEEDS[0]} to {SEEDS[-1]}; the network was trained on one town of 4096 px of seed 1,",
    "the levels of building-change were chosen on seeds 1 to 4. The same simulator made all of them: the network has learnt what",
    "it draws, building-change has not, and nothing here says how either does on real images. Footprints are the true ones; one",
    f"not graded counts as missed. Outlines of its own: a building is found where one shares {MATCH:.0%} with it (IoU).",
)


JOPLIN = (
    "No labels: *path* are the houses in the path of the tornado, *upright* the few outside it, told by eye; the footprints are",
    "of 2020, after rebuilding. Looked at on 2026-11-21: the network fails here. Fields of rubble and houses blown to heaps are",
    "Possibly damaged; its own outlines are whole blocks, parking lots, and pieces of street, and miss standing roofs. It must",
    "not lead a map, and its grades on real images mean nothing until it has learnt from some.",
)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _matrix(rows: Sequence[Row]) -> list[str]:
    words = [*WORDS, *({"missed"} & {r["grade"] for r in rows})]
    lines = [_line(["", *words]), _line(["---"] * (len(words) + 1))]
    for code, name in enumerate(("none", "minor", "major", "destroyed")):
        own = [r["grade"] for r in rows if int(r["actual"]) == code]
        lines.append(_line([name, *(str(own.count(w)) for w in words)]))
    return lines


def tables(rows: Sequence[Row], card: Card) -> str:
    """Markdown of everything."""
    of = {m: [r for r in rows if r["method"] == m and r["data"] == "towns"] for m in (NETWORK, CLASSICAL, TRIVIAL, OWN)}
    body = [_cells(name, own) for name, own in of.items()]
    false = sum(int(r["actual"]) < 0 for r in of[OWN])
    made = f"{date.today().isoformat()}, {platform.machine()}, {platform.system()}, `python -m benchmarks.damage --model MODEL`."
    weights = (
        f"Network: `{card.made_by}`, {card.encoder}, {card.decoder}, weights sha256 `{card.sha256['model.safetensors'][:16]}`."
    )
    head = [*HEAD, "F1 damaged or destroyed"]
    lines = ["# Grades of damage by a network", "", made, weights, "", *NOTES, "", _line(head), _line(["---"] * len(head))]
    lines += [_line(cells) for cells in body]
    lines += ["", f"{false} of the outlines of its own meet no building.", ""]
    for name in (NETWORK, CLASSICAL, OWN):
        lines += [f"True grade (rows) and grade given by {name}:", "", *_matrix(of[name]), ""]
    lines += [
        "## Joplin",
        "",
        "No labels: *path* are the houses in the path of the tornado, *upright* the few outside it, told by eye;",
    ]
    lines += ["footprints are of 2020, after rebuilding.", "", _line(["method", "", *WORDS]), _line(["---"] * (len(WORDS) + 2))]
    for method in (NETWORK, CLASSICAL):
        for words, code in (("upright", 0), ("path", 2)):
            own = [r["grade"] for r in rows if (r["data"], r["method"], int(r["actual"])) == ("Joplin", method, code)]
            lines.append(_line([method, words, *(str(own.count(w)) for w in WORDS)]))
    return "\n".join([*lines, ""])


@click.command()
@click.option("--model", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--data", type=click.Path(path_type=Path, exists=True), default=Path("../shared/data"), show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Keep towns and maps here; what is there is not made again.")
def main(model: Path, data: Path, folder: Path | None) -> None:
    """Grade everything and write the tables."""
    with tempfile.TemporaryDirectory() as scratch:
        kept = folder or Path(scratch)
        rows = [*towns(model, kept), *joplin(model, data, kept / "joplin")]
    with (RESULTS / "damage.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    text = tables(rows, Card.read(model))
    (RESULTS / "damage.md").write_text(text)
    click.echo(text)


if __name__ == "__main__":
    main()
