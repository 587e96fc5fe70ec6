"""Several passes of radar and the ground: landslides by pixel (arXiv 2211.02869) and by density of chips (arXiv 2211.10338).

On simulated regions, plainly: no labelled SAR landslides are at hand.

Run:     python -m benchmarks.datacubes --runs runs [--only pixels|density] [--seeds 0,1,2] [--no-training]
Writes:  benchmarks/results/datacubes.md and datacubes.csv; RUNS holds regions, chips, models and rows, and what is there is not
         made again. About an hour on two cores.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

import aftermap as am
from aftermap import arrays, recipe
from aftermap.chipdensity import middles
from aftermap.cutting import cut
from aftermap.datasets.dataset import open_dataset
from aftermap.metrics import Inspection, Ranking, aucs_one_vs_rest, macro
from aftermap.model import load
from aftermap.samples import Samples, survey
from aftermap.scored import Scored, read_arrays
from aftermap.simulate import landslide
from aftermap.stats import interval
from aftermap.torchdoor import torch
from benchmarks import finished, sar_landslides_runs
from benchmarks.sar_landslides_table import measured, table, write_csv

RESULTS = Path(__file__).parent / "results"
F64 = npt.NDArray[np.float64]
SIDE_PX, CHIP_PX, BLOCK_PX, PASSES = 5120, 128, 512, 3
"""Of the region of densities: chips of 1.28 km, dealt by blocks of 5.12 km."""
SHARES = "train=0.6,validation=0.2,test=0.2"
RESAMPLES = 1000
EDGE = 2
"""Landslides per km2 between two classes: in the simulated region none of the chips has the published 25."""
SAR, GROUND = '"before", "after"', '"dem"'
SHORT = ("steps.0.train.epochs=0", "steps.0.train.batch=16")
PIXELS = (
    *SHORT, "chips.size=64", "model.encoder=resnet18", "model.widths=[8, 16, 32, 64, 128]", "steps.0.train.steps=150",
    "steps.0.train.every=50", "steps.0.train.lr=1e-3",
)  # fmt: skip
DENSITY = (*SHORT, "model.encoder=resnet18", "steps.0.train.steps=400", "steps.0.train.every=80")


@dataclass(frozen=True)
class Arm:
    """One choice of what is looked at."""

    study: str
    name: str
    overrides: tuple[str, ...]


def _pixels(name: str, inputs: str, passes: int) -> Arm:
    settings = f"data.settings={{'passes': {passes}}}"
    return Arm("pixels", name, (*PIXELS, f"inputs=[{inputs}]", settings))


def _density(name: str, inputs: str, passes: int) -> Arm:
    settings = f"data.settings={{'passes': {passes}, 'combine': 'stack', 'target': 'density', 'edges': (0, {EDGE})}}"
    return Arm("density", name, (*DENSITY, f"inputs=[{inputs}]", settings))


_STACKED = ", ".join(f'"{side}-{k}"' for side in ("before", "after") for k in range(2, PASSES + 1))
ARMS = (
    _density("the ground", GROUND, 1), _density("radar, 1 pass", SAR, 1),
    _density("radar, 3 passes, and the ground", f"{SAR}, {_STACKED}, {GROUND}", 3),
    _density("radar, 3 passes", f"{SAR}, {_STACKED}", 3), _density("radar, 1 pass, and the ground", f"{SAR}, {GROUND}", 1),
    *(_pixels(f"VV and VH, {t} pass{'es' if t > 1 else ''}", SAR, t) for t in (1, 4)),
    _pixels("VV and VH, 4 passes, and the ground", f"{SAR}, {GROUND}", 4), _pixels("the ground", GROUND, 1),
    *(_pixels(f"VV and VH, {t} passes", SAR, t) for t in (2, 3)),
    _pixels("VV, 4 passes", '"before.VV", "after.VV"', 4), _pixels("VH, 4 passes", '"before.VH", "after.VH"', 4),
    _pixels("VV and VH after alone, 4 passes", '"after"', 4),
)  # fmt: skip
"""What tells most first."""
RECIPES = {"pixels": "sar-datacube", "density": "landslide-density"}


def chips(runs: Path, study: str) -> Path:
    """The chips of a study, simulated and cut where they are not there."""
    if study == "pixels":
        return sar_landslides_runs.chips(runs, "andes")
    scene, out = runs / "regions" / "wide", runs / "chips-wide"
    if not (scene / "truth.tif").exists():
        landslide.simulate(scene, size=SIDE_PX, seed=13, sensor="sentinel-1", terrain="andes", passes=PASSES)
    if not (out / "index.csv").exists():
        how = sar_landslides_runs.event_of(scene, PASSES)
        cut(out, replace(how, size=CHIP_PX, split="blocks", shares=SHARES, block_px=BLOCK_PX, gap_px=0, event="wide"))
    return out


def folder_of(arm: Arm, seed: int, runs: Path) -> Path | None:
    """Where its model and rows are; None where it was not trained."""
    return finished.find(runs / f"datacubes-{arm.study}", asdict(arm) | {"seed": seed})


def train(arm: Arm, seed: int, runs: Path) -> None:
    """Trains and scores it, where that was not done."""
    data = chips(runs, arm.study)

    def graded(found: Path) -> None:
        if arm.study == "density":
            grade(found, _samples(arm, data))

    about = asdict(arm) | {"seed": seed}
    out = runs / f"datacubes-{arm.study}"
    finished.train(RECIPES[arm.study], data, out, about, seed=seed, overrides=arm.overrides, then=graded)


def _samples(arm: Arm, data: Path) -> Samples:
    page = recipe.read(RECIPES[arm.study], arm.overrides)
    return survey(
        open_dataset(data, page.data.kind, **page.data.settings), page.inputs, split=page.split, size=CHIP_PX, of_chips=True
    )


@torch.no_grad()
def grade(folder: Path, samples: Samples) -> None:
    """Probabilities (chip, class) of the test chips, in graded.npz."""
    network, names = load(folder / "model")[0], samples.ids("test")
    read = [samples.read(name) for name in names]
    found = [network(torch.from_numpy(samples.normaliser.of(chip))[None]).softmax(dim=1)[0].numpy() for chip in read]
    arrays.write(folder / "graded.npz", names=np.asarray(names), likely=np.stack(found), code=np.array([c.target for c in read]))


@dataclass(frozen=True)
class ByPixel:
    """One arm of the segmentation; means over seeds."""

    inputs: str
    seeds: int
    ap: float
    ap_std: float | None
    f1: float
    ap_slid: float
    """On chips with a landslide alone, as published."""
    slid_prevalence: float


def by_pixel(name: str, each: Sequence[Scored]) -> ByPixel:
    """As the class says; of several seeds."""
    every = [_ap(one.levels) for one in each]
    slid = [one.levels[one.levels[:, 1].sum(axis=1) > 0] for one in each]
    f1 = [one.of(np.arange(len(one.names))).f1 or 0.0 for one in each]
    share = slid[0][:, 1].sum() / slid[0].sum()
    std = float(np.std(every, ddof=1)) if len(every) > 1 else None
    return ByPixel(name, len(each), float(np.mean(every)), std, float(np.mean(f1)), float(np.mean([_ap(s) for s in slid])), share)


def _ap(levels: npt.NDArray[np.int32]) -> float:
    return Ranking(levels.sum(axis=0, dtype=np.int64)).average_precision or float("nan")


@dataclass(frozen=True)
class ByChip:
    """One arm of the densities, or another order of cells; means over seeds, 95 % over blocks of ground."""

    inputs: str
    seeds: int
    auc: float | None
    auc_low: float | None
    auc_high: float | None
    auc_each: str
    """Of each class against the others."""
    found: float
    """Share of slid pixels in the first tenth of the cells."""
    found_low: float
    found_high: float


@dataclass(frozen=True)
class Ground:
    """The test chips: slid pixels (chip,), density codes, and the blocks of ground that they lie in."""

    names: tuple[str, ...]
    slid: F64
    code: npt.NDArray[np.int64]

    @property
    def blocks(self) -> list[npt.NDArray[np.intp]]:
        """Places of the chips of each block."""
        at = [tuple(int(v) // BLOCK_PX for v in name.partition("@")[0].rsplit("_", 2)[1:]) for name in self.names]
        return [np.flatnonzero([own == one for own in at]) for one in sorted(set(at))]

    def ordered(self, name: str, expected: Sequence[F64], likely: Sequence[F64] = ()) -> ByChip:
        """Of an order by what is expected (chip,), the most first, and of probabilities (chip, class), of each seed."""

        def found(drawn: Sequence[Any]) -> float:
            places = np.concatenate(drawn)
            each = [Inspection.of(self.slid[places], np.argsort(-one[places], kind="stable")) for one in expected]
            return float(np.mean([one.found / one.affected for one in each if one.affected]))

        def auc(drawn: Sequence[Any]) -> float | None:
            places = np.concatenate(drawn)
            each = [macro(aucs_one_vs_rest(one[places], self.code[places])) for one in likely]
            return float(np.mean([one for one in each if one is not None]))

        rng = np.random.default_rng
        tenth = interval(self.blocks, found, rng(0), resamples=RESAMPLES)
        area = interval(self.blocks, auc, rng(0), resamples=RESAMPLES) if likely else None
        by_class = [np.asarray(aucs_one_vs_rest(one, self.code), np.float64) for one in likely]
        words = ", ".join(f"{v:.2f}" for v in np.mean(by_class, axis=0)) if by_class else ""
        value, low, high = (area.value, area.low, area.high) if area else (None, None, None)
        return ByChip(name, len(expected), value, low, high, words, tenth.value, tenth.low, tenth.high)


def listed(runs: Path, names: Sequence[str]) -> F64:
    """How early each chip (chip,) stands in the list of a map of the whole region, whose cells are the chips."""
    scene, out = runs / "regions" / "wide", runs / "map-wide"
    if not (out / "priority.csv").exists():
        options = am.Options(density_m=CHIP_PX * sar_landslides_runs.GSD_M)
        am.map(scene / "after.tif", scene / "before.tif", out=out, hazard="landslide", options=options)
    with (out / "priority.csv").open(newline="", encoding="utf-8") as stream:
        rank = {(int(row["row"]), int(row["col"])): int(row["rank"]) for row in csv.DictReader(stream)}
    cells = [tuple(int(v) // CHIP_PX for v in name.partition("@")[0].rsplit("_", 2)[1:]) for name in names]
    return np.array([-rank[row, col] for row, col in cells], np.float64)


def densities(runs: Path, seeds: Sequence[int]) -> tuple[list[ByChip], str]:
    """All arms that are there beside the methods without training, and what the chips are like, in words."""
    arms = [(arm, [f for seed in seeds if (f := folder_of(arm, seed, runs))]) for arm in ARMS if arm.study == "density"]
    arms = [(arm, folders) for arm, folders in arms if folders]
    if not arms:
        return [], ""
    names, _, code = read_arrays(arms[0][1][0] / "graded.npz", "names", "likely", "code")
    masks = open_dataset(chips(runs, "density"))
    read = [masks.read(str(name).partition("@")[0]) for name in names]
    slid = np.array([np.count_nonzero(chip.truth == 1) for chip in read], np.float64)
    ground, worth = Ground(tuple(map(str, names)), slid, code.astype(np.int64)), np.asarray(middles(CLASSES))
    lines = []
    for arm, folders in arms:
        likely = [read_arrays(folder / "graded.npz", "likely")[0].astype(np.float64) for folder in folders]
        lines.append(ground.ordered(arm.name, [one @ worth for one in likely], likely))
    lines.append(ground.ordered("priority.csv without training", [listed(runs, ground.names)]))
    lines.append(ground.ordered("the best order", [slid]))
    lines.append(ground.ordered("any order", [np.random.default_rng(k).random(len(slid)) for k in range(100)]))
    counts = ", ".join(f"{int((code == k).sum())} {name}" for k, name in enumerate(CLASSES))
    return lines, f"{len(names)} test chips in {len(ground.blocks)} blocks: {counts}."


CLASSES = ("none", f"up to {EDGE} per km2", f"over {EDGE} per km2")
PIXEL_COLUMNS = {
    "inputs": "inputs", "seeds": "seeds", "ap": "AP", "ap_std": "std", "f1": "F1", "ap_slid": "AP, chips with landslides",
    "slid_prevalence": "share of landslide there",
}  # fmt: skip
CHIP_COLUMNS = {
    "inputs": "inputs, or order", "seeds": "seeds", "auc": "macro ROC area", "auc_low": "from", "auc_high": "to",
    "auc_each": "of none, up to 2, over 2", "found": "found in a tenth of the cells", "found_low": "from", "found_high": "to",
}  # fmt: skip
HEAD = """# Datacubes: several passes and the ground

{measured} **Simulated regions**: no labelled SAR landslides are at hand.
"""
PIXELS_HEAD = """## By pixel

After arXiv 2211.02869: U-Net++ on passes averaged before and after, on the chips of [sar_landslides.md](sar_landslides.md), dealt
by ground. Cut: ResNet-18 and a narrow decoder, 150 steps of 16 chips. Published: AP above 0.7 with more passes, on chips that all
hold landslides.
"""
DENSITY_HEAD = """## By density of chips

After arXiv 2211.10338: heads of landslides per km2 of chips of 1.28 km. {words} The published classes end at 25 per km2, which
no simulated chip has. Cut: ResNet-18, 400 steps of 16 chips.
Published: ROC area 0.814 in Puerto Rico. Intervals: 95 % over blocks of 5.12 km. The last column is the share of all slid pixels
that lie in the tenth of the chips looked at first.
"""


def write(runs: Path, seeds: Sequence[int]) -> None:
    """The tables of what is there."""
    arms = [(arm, [f for seed in seeds if (f := folder_of(arm, seed, runs))]) for arm in ARMS if arm.study == "pixels"]
    pixels = [by_pixel(arm.name, [Scored.read(f / "samples.npz") for f in folders]) for arm, folders in arms if folders]
    beside: dict[str, str] = {}
    for row in (json.loads((f / "row.json").read_text(encoding="utf-8")) for _, folders in arms for f in folders):
        told = row["without_training"]
        if told and told["methods"]:
            beside.setdefault(
                told["folder"], f"{', '.join(told['methods'])} without training, passes: {row['settings']['passes']}"
            )
    without = {words: Scored.read(runs / "datacubes-pixels" / name / "samples.npz") for name, words in beside.items()}
    pixels += [by_pixel(words, [one]) for words, one in without.items()]
    pixels += [by_pixel("all marked", [one.everything()]) for one in [*without.values()][:1]]
    cells, words = densities(runs, seeds)
    out = [HEAD.format(measured=measured())]
    if pixels:
        out += [PIXELS_HEAD, *table(pixels, PIXEL_COLUMNS), ""]
        write_csv(RESULTS / "datacubes_pixels.csv", pixels)
    if cells:
        out += [DENSITY_HEAD.format(words=words), *table(cells, CHIP_COLUMNS), ""]
        write_csv(RESULTS / "datacubes_density.csv", cells)
    out.append("`python -m benchmarks.datacubes --runs RUNS`")
    (RESULTS / "datacubes.md").write_text("\n".join(out) + "\n", encoding="utf-8")


@click.command()
@click.option("--runs", type=click.Path(path_type=Path), required=True)
@click.option("--only", type=click.Choice(["", *RECIPES]), default="", help="One study.")
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--no-training", is_flag=True, help="Tables of what is there.")
@click.option("--no-tables", is_flag=True, help="Trainings alone.")
def main(runs: Path, only: str, seeds: str, no_training: bool, no_tables: bool) -> None:
    """As the module says."""
    numbers = [int(s) for s in seeds.split(",")]
    for seed in () if no_training else numbers:
        for arm in (one for one in ARMS if only in ("", one.study)):
            train(arm, seed, runs)
            click.echo(f"seed {seed}: {arm.study}, {arm.name}")
    if not no_tables:
        write(runs, numbers)


if __name__ == "__main__":
    main()
