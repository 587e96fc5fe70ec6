"""Label here, or borrow from where: linear probes of networks of our own beside what needs none, on real and simulated areas.

Floods of twelve groups of OMBRIA in radar, and eleven classes of land cover in four simulated regions (methods.md H, with our own
encoders, for none of others' weights can be had here). Networks learned without labels, in benchmarks/label_efficiency.py and
benchmarks/pretraining.py; those named "first" have their first weights.

Run:     python -m benchmarks.linear_probe --runs runs [--data ../shared/data]
Writes:  benchmarks/results/linear_probe.md, linear_probe_decisions.csv and .jpg; RUNS holds embeddings and fits
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from aftermap import tables
from aftermap.areas import Encoder, Place
from aftermap.looks import Learned, Patches, Statistics
from aftermap.page import Data
from aftermap.probe import ARMS, Plan
from aftermap.probing import probe, words
from aftermap.samples import choose_bands
from benchmarks.label_efficiency_runs import STUDIES, learned
from benchmarks.pretraining_runs import KIND, folder_of, scenes
from benchmarks.sar_landslides_table import measured

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Study:
    """A data set in areas, and what is asked."""

    title: str
    inputs: str
    plan: Plan
    pattern: str = ""
    most: int = 4000


FLOODS = Study("OMBRIA: share of flood", "after", Plan(("flood",), (10, 20, 40, 80), 15, least_mixed=30))
COVER = Study("Simulated land cover: share of each class", "after", Plan((), (50, 100, 250, 500, 1000), 15), r"(\w+)-")
NAMES = {
    "mae": "mae",
    "dino": "dino",
    "glcnet": "glcnet",
    "scratch": "first-vit",
    "scratch-resnet": "first-resnet",
}
SIMULATED = {"mae": "mae", "dino": "dino", "untrained": "first-vit"}
SEEDS = range(5)


def flood_encoders(place: Place, runs: Path) -> Iterator[Encoder]:
    """All that were trained on OMBRIA without labels, by name and seed, and what needs no network."""
    for name, words_of in NAMES.items():
        for seed in SEEDS:
            if (folder := learned("OMBRIA", name, seed, runs)) is not None:
                yield Learned.of(f"{words_of}-{seed}", folder, place)
    yield from _plain(place, FLOODS.inputs)


def cover_encoders(place: Place, runs: Path) -> Iterator[Encoder]:
    """The same of simulated radar."""
    for name, words_of in SIMULATED.items():
        for seed in SEEDS:
            if (folder := folder_of(name, seed, runs)) is not None:
                yield Learned.of(f"{words_of}-{seed}", folder, place)
    yield from _plain(place, COVER.inputs)


def _plain(place: Place, inputs: str) -> Iterator[Encoder]:
    bands = choose_bands(place.dataset.bands, (inputs,))
    yield from (Statistics(bands), Patches.of(place, bands))


@dataclass(frozen=True)
class Line:
    """Mean r by ridge with the most labels, over tasks and areas: fitted where it is asked, and elsewhere."""

    encoder: str
    own: float
    foreign: float
    rmse_own: float
    rmse_foreign: float
    least_squares_own: float


def line(name: str, folder: Path, most: int) -> Line:
    """Of the fits in a folder."""
    found = [tables.read(path) for path in sorted(folder.glob("*.parquet"))]
    rows: list[Mapping[str, Any]] = [
        row for one in found if one is not None for row in one[0].to_pylist() if row["labels"] == most
    ]

    def mean(score: str, arm: str, *, home: bool) -> float:
        own = [row[score] for row in rows if row["arm"] == arm and (row["train"] == row["test"]) == home]
        return float(np.mean(np.nan_to_num(own))) if own else float("nan")

    return Line(name, mean("r", ARMS[1], home=True), mean("r", ARMS[1], home=False), mean("rmse", ARMS[1], home=True),
                mean("rmse", ARMS[1], home=False), mean("r", ARMS[0], home=True))  # fmt: skip


def section(study: Study, facts: Mapping[str, Any], out: Path) -> list[str]:
    """Of one probe."""
    most = max(one for one in study.plan.budgets if _used(out, one))
    head = ("encoder", "r, own area", "r, another", "RMSE, own", "RMSE, another", "r, own, least squares")
    text = [f"## {study.title}", "", *(f"{one.strip()}  " for one in words(dict(facts), out)[:-3]), ""]
    text += [f"Mean r and RMSE over classes and areas, ridge with {most} labels; in the last column least squares.", ""]
    text += [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for name in facts["encoders"]:
        one = line(name, out / "cells" / name, most)
        cells = (one.own, one.foreign, one.rmse_own, one.rmse_foreign, one.least_squares_own)
        text.append(f"| {name} | {' | '.join(f'{value:.3f}' for value in cells)} |")
    return [*text, "", *_decided(out), ""]


def _used(out: Path, labels: int) -> bool:
    found = tables.read(next((out / "cells").rglob("*.parquet")))
    return found is not None and labels in found[0].column("labels").to_pylist()


def _decided(out: Path) -> list[str]:
    """How often the best foreign area does better, and how many own labels reach it."""
    rows = list(csv.DictReader((out / "decisions.csv").read_text(encoding="utf-8").splitlines()))
    text = []
    for score in ("r", "rmse"):
        own = [row["needed"] for row in rows if row["score"] == score]
        counts = {needed: own.count(needed) for needed in sorted(set(own), key=lambda n: (n.startswith("over"), len(n), n))}
        said = ", ".join(f"{needed} labels {count}" for needed, count in counts.items())
        lead = f"Own labels that do as well as all of the best other area, by {score} ({len(own)} cases)"
        text.append(f"{lead}: {said}.  ")
    return text


@click.command()
@click.option("--runs", type=click.Path(path_type=Path), required=True)
@click.option("--data", type=click.Path(path_type=Path, exists=True), default=Path("../shared/data"), show_default=True)
def main(runs: Path, data: Path) -> None:
    """As the module says."""
    own = STUDIES["OMBRIA"]
    floods = Place(data / own.folder, Data(own.kind, own.settings), pattern=FLOODS.pattern)
    cover = Place(scenes(runs), Data(KIND, {"truth": "landcover", "after": "s1"}), pattern=COVER.pattern, most=COVER.most)
    about = f"{measured()} `python -m benchmarks.linear_probe --runs RUNS`; [what it is](../../docs/probe.md)."
    text = [
        "# Label here, or borrow",
        "",
        about,
        "No weights of others can be had here: encoders are our own, small, shortly trained.",
        "",
    ]
    decisions: list[str] = []
    for name, study, place, encoders in (("floods", FLOODS, floods, flood_encoders), ("cover", COVER, cover, cover_encoders)):
        out = runs / "probes" / name
        plan = Plan(place.tasks, study.plan.budgets, study.plan.repeats, least_mixed=study.plan.least_mixed)
        facts = probe(place, [*encoders(place, runs)], plan, out)
        text += section(study, facts, out)
        Image.open(out / "matrix.png").convert("RGB").resize(_half(out / "matrix.png")).save(
            RESULTS / f"linear_probe_{name}.jpg", quality=80
        )
        text += [f"![fitted in, asked in](linear_probe_{name}.jpg)", ""]
        own_rows = (out / "decisions.csv").read_text(encoding="utf-8").splitlines()
        decisions += [*([f"study,{own_rows[0]}"] if not decisions else []), *(f"{name},{row}" for row in own_rows[1:])]
    (RESULTS / "linear_probe.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    (RESULTS / "linear_probe_decisions.csv").write_text("\n".join(decisions) + "\n", encoding="utf-8")


def _half(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.width // 2, image.height // 2


if __name__ == "__main__":
    main()
