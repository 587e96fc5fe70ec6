"""SAR landslides, after Boehm et al. 2022: does a network that learned to classify chips help to segment few of them?

No labelled SAR landslides are at hand: two simulated mountain regions stand for Hokkaido and Kaikoura. The same idea on real
pictures: Landslide4Sense (classified in region A, few chips of B) and OMBRIA (other groups).

Run:     python -m benchmarks.sar_landslides --runs runs [--data ../shared/data] [--only STUDY] [--seeds 0,1,2] [--no-training]
Writes:  benchmarks/results/sar_landslides.md, .csv and .jpg; RUNS holds regions, chips, models and scores, and what is there is
         not made again. Some hours on two cores.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
from scipy import ndimage

from aftermap import raster, recipe
from aftermap.card import Card
from aftermap.datasets import pixels
from aftermap.datasets.dataset import open_dataset
from aftermap.features import read_points
from aftermap.metrics import aucs_one_vs_rest
from aftermap.model import load
from aftermap.samples import survey
from aftermap.scored import Scored
from aftermap.torchdoor import torch
from benchmarks import sar_landslides_table as table
from benchmarks.sar_landslides_runs import ARMS, FEW, GSD_M, REGIONS, SIZE, STUDIES, One, every

RESULTS = Path(__file__).parent / "results"
SIDES = ("pretrain", "train", "validation", "test")
CLAIMED = (("same", "random"), ("other", "random"), ("same", "none"), ("same", "wide"), ("same", "simple"))
TITLES = {
    "simulated": "Simulated region, few chips", "large": "Simulated region, 110 chips", "l4s": "Landslide4Sense RGB, region B",
    "ombria": "OMBRIA, radar", "five-passes": "Simulated region, five passes averaged", "fc": "The head of the paper's text",
    "faults": "The faults of the released code",
}  # fmt: skip
COLUMNS = {
    "arm": "beside", "chips": "chips", "seeds": "seeds", "ap": "AP", "ap_error": "± error", "ap_together": "AP, ensemble",
    "l1": "ΔL1", "l1_mean": "ΔL1, mean", "l1_soft": "ΔL1, soft", "count_hazard": "Δcount, landslides",
    "count_hazard_soft": "soft", "count_free": "Δcount, free", "count_free_soft": "soft",
    "false_per_free_chip": "false px per free chip",
}  # fmt: skip
CLAIMS = {
    "study": "study", "arm": "beside", "against": "against", "chips": "chips", "seeds": "seeds",
    "false_pixels": "false px per free chip, less", "false_low": "from", "false_high": "to", "p": "p", "ap": "AP, more",
    "ap_low": "from", "ap_high": "to",
}  # fmt: skip
HEAD = """# SAR landslides: chips classified first, few segmented then

After Boehm et al. 2022 (papers/002), in the exact layers of the released code. {measured} Seeds {seeds}.

**The two radar regions are simulated**: no labelled SAR landslides are at hand. Chips of 64 px (10 m), half of them with a
landslide, sides dealt by blocks of 2 km with a chip between two. Cut against the paper: 500 steps of 16 chips in stage 1 (400
on real pictures), 60 steps of at most 8 chips in stage 2 (120 on 110 chips), three checkpoints of four kept in place of five,
chips of 64 px in place of 128.
"""
WORDS = """AP is that of each checkpoint, meaned over the checkpoints of a seed, then over seeds; ± is their standard
deviation over the root of their number (the paper's code divides by their number). Counts are of the ensemble of all logits at
one half, medians over chips, in pixels of a chip of 4,096. Published AP on Hokkaido (128 px, 10 m), without, pretrained there, on
Kaikoura: 2 chips 0.048, 0.046, 0.048; 5 0.080, 0.088, 0.075; 10 0.132, 0.169, 0.146; 20 0.184, 0.180, 0.181; 110 0.324, 0.338,
0.338."""
CLAIM = """Does what was learned by classifying cut false alarms on chips without a landslide beyond what an untrained network
beside does, and does it rank pixels better? Means over seeds and checkpoints, with 95 % over blocks of ground (of pictures: over
pictures); p is one-sided, chip by chip over free chips (signed rank), not corrected for the number of rows. None of it says how
another training of the first stage would have turned out: seeds differ more than blocks do."""
STAGE_ONE = """Published: accuracy 0.60 with one pass, 0.80 with the mean of five. The published head ends in a leaky ReLU whose
mean is the logit: it hardly falls below zero, so that at zero nearly every chip is called a landslide, whatever the network has
learned. The last column sets the threshold on the validation side."""
FIGURE = """Figure A1: 20 chips, ensembles, above one half; above the chip without a landslide in which most is marked, below
the one with most landslide."""
COMMAND = "`python -m benchmarks.sar_landslides --runs RUNS`"


def mapped(study: str, arm: str, budget: int, runs: Path, shared: Path, seeds: Sequence[int]) -> table.Mapped | None:
    """What is there of an arm at a budget; None where nothing is."""
    ones = [One(study, arm, budget, seed) for seed in seeds]
    folders = [folder for one in ones if (folder := one.folder(runs))]
    return table.Mapped.of(_truth(ones[0], runs, shared), folders) if folders else None


def _truth(one: One, runs: Path, shared: Path) -> table.Truth:
    key = (one.study, one.data(runs, shared))
    if key not in _TRUTHS:
        _TRUTHS[key] = table.Truth.of(one.samples(key[1]))
    return _TRUTHS[key]


_TRUTHS: dict[tuple[str, Path], table.Truth] = {}


def write(runs: Path, shared: Path, seeds: Sequence[int]) -> None:
    """The tables of what is there."""
    lines: list[table.Line] = []
    claims: list[table.Claim] = []
    for name, study in STUDIES.items():
        each = {(arm, n): mapped(name, arm, n, runs, shared, seeds) for n in sorted(study.budgets) for arm in study.arms}
        found = {key: one for key, one in each.items() if one is not None}
        lines += [table.line(name, arm, n, one) for (arm, n), one in found.items()]
        if found:
            truth = next(iter(found.values())).truth
            lines.append(table.nothing(name, truth))
            for path in sorted((runs / name).glob("without-training-*/facts.json")):
                methods = ", ".join(json.loads(path.read_text(encoding="utf-8"))["methods"])
                lines.append(table.classical(name, Scored.read(path.parent / "samples.npz"), methods, len(truth.names)))
        pairs = [(a, b) for a, b in CLAIMED if {a, b} <= {*study.arms}]
        claims += [
            table.claim(name, a, b, n, found[a, n], found[b, n])
            for a, b in pairs for n in study.budgets if {(a, n), (b, n)} <= found.keys()
        ]  # fmt: skip
        if name == "simulated":
            shown = {arm: m for (arm, n), m in found.items() if n == FEW[0]}
            if shown:
                table.draw_chips(RESULTS / "sar_landslides_chips.jpg", shown)
    drawn = [replace(one, study="") for one in lines if one.study in ("simulated", "large")]
    table.draw(RESULTS / "sar_landslides.jpg", drawn, dict(zip(ARMS, ("black", "C0", "C2", "C1", "C3", "C4"), strict=True)))
    table.write_csv(RESULTS / "sar_landslides.csv", lines)
    (RESULTS / "sar_landslides.md").write_text(page(lines, claims, runs, seeds), encoding="utf-8")


def page(lines: Sequence[table.Line], claims: Sequence[table.Claim], runs: Path, seeds: Sequence[int]) -> str:
    """The Markdown."""
    out = [HEAD.format(measured=table.measured(), seeds=", ".join(map(str, seeds)))]
    out += ["## Regions", "", *regions(runs), "", "## Figures 2 and 3: few chips segmented by hand", ""]
    out += ["![average precision and counting errors by chips](sar_landslides.jpg)", "", WORDS, ""]
    for name in STUDIES:
        if own := [one for one in lines if one.study == name]:
            out += [f"### {TITLES[name]}", "", *table.table(own, COLUMNS), ""]
    out += ["## The claim", "", CLAIM, "", *table.table(claims, CLAIMS), ""]
    out += ["## Stage 1: does a chip hold a landslide?", "", STAGE_ONE, "", *stage_one(runs), ""]
    out += [
        "![maps of two chips](sar_landslides_chips.jpg)",
        "",
        "Figure A1: 20 chips, ensembles, above one half; above the chip",
    ]
    out += ["without a landslide in which most is marked, below the one with the most landslide.", "", COMMAND]
    return "\n".join(out) + "\n"


def regions(runs: Path) -> list[str]:
    """What the simulated regions are like, and table A1: how many chips are on each side."""
    rows = ["| region | relief | slope, 10th, 50th, 90th percentile | roughness | looks | slid | slides per km2 | chips: " +
            ", ".join(SIDES) + " |", "|" + " --- |" * 8]  # fmt: skip
    for name, region in REGIONS.items():
        if not (runs / f"chips-{name}" / "split.json").exists():
            continue
        dem, truth = (pixels.stored(runs / "regions" / name / file)[0].astype(np.float64) for file in ("dem.tif", "truth.tif"))
        slope = np.degrees(np.arctan(np.hypot(*np.gradient(dem, GSD_M))))
        rough = dem - ndimage.uniform_filter(dem, 11)
        scene = runs / "regions" / name
        heads = len(read_points(scene / "inventory.gpkg", raster.facts(scene / "dem.tif").grid))
        sides = list(json.loads((runs / f"chips-{name}" / "split.json").read_text(encoding="utf-8"))["sides"].values())
        counts = ", ".join(str(sides.count(side)) for side in SIDES)
        percentiles = ", ".join(f"{v:.0f}" for v in np.percentile(slope, (10, 50, 90)))
        area_km2 = dem.size * (GSD_M / 1000) ** 2
        rows.append(
            f"| {name} | {np.ptp(dem):.0f} m | {percentiles} degrees | {rough.std():.1f} m in 110 m | {region.looks} |"
            f" {100 * truth.mean():.2f} % | {heads / area_km2:.1f} | {counts} |"
        )
    return rows


def stage_one(runs: Path) -> list[str]:
    """What was pretrained, on the chips of the test side."""
    rows = [
        "| study | classifier | learned in | passes | seed | ROC area | accuracy | at its own threshold |",
        "|" + " --- |" * 8,
    ]
    studies = (name for name in STUDIES if name != "large")  # whose first stages are those of "simulated"
    for path in sorted(path for name in studies for path in (runs / name).glob("pretrained/*/row.json")):
        row, facts = json.loads(path.read_text(encoding="utf-8")), Card.read(path.parent / "model")
        if (where := row["events"]["train"][0]) in REGIONS:
            scores = [f"{v:.2f}" for v in judged(path.parent / "model", row, runs / f"chips-{where}")]
            kind, passes = f"{facts.encoder}, {facts.decoder}", str(row["settings"].get("passes", 1))
            rows.append(f"| {' | '.join((path.parents[2].name, kind, where, passes, str(row['seed']), *scores))} |")
    return rows


@torch.no_grad()
def judged(model: Path, row: dict[str, Any], data: Path) -> tuple[float, float, float]:
    """ROC area, and accuracy with the logit's threshold at 0 and at what is best on the validation side."""
    words = shlex.split(row["made_by"])
    page = recipe.read("sar-siamese", [after for said, after in pairwise(words) if said == "--set"]).pretraining
    assert page is not None
    samples = survey(
        open_dataset(data, page.data.kind, **page.data.settings), page.inputs, split=page.split, size=SIZE, of_chips=True,
        presence=True, norm_bug="norm_bug" in page.fidelity,
    )  # fmt: skip
    network, found = load(model)[0], {}
    for side in ("validation", "test"):
        read = [samples.read(name) for name in samples.ids(side)]
        pixels = torch.from_numpy(np.stack([samples.normaliser.of(chip) for chip in read]))
        found[side] = network(pixels)[:, 0].numpy(), np.array([chip.target for chip in read])
    logits, truth = found["validation"]
    best = max(logits, key=lambda edge: float(((logits >= edge) == truth).mean()))
    logits, truth = found["test"]
    area = aucs_one_vs_rest(np.stack([-logits, logits], axis=1), truth)[1]
    return area or float("nan"), float(((logits > 0) == truth).mean()), float(((logits >= best) == truth).mean())


@click.command()
@click.option("--runs", type=click.Path(path_type=Path), required=True)
@click.option("--data", "shared", type=click.Path(path_type=Path), default=Path("../shared/data"), show_default=True)
@click.option("--only", default="", help="One study.")
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--no-training", is_flag=True, help="Tables of what is there.")
@click.option("--no-tables", is_flag=True, help="Trainings alone.")
def main(runs: Path, shared: Path, only: str, seeds: str, no_training: bool, no_tables: bool) -> None:
    """As the module says."""
    numbers = [int(s) for s in seeds.split(",")]
    for one in () if no_training else every(only, numbers):
        one.train(runs, shared)
        click.echo(f"{one}")
    if not no_tables:
        write(runs, shared, numbers)


if __name__ == "__main__":
    main()
