"""SAR landslides, after Boehm et al. 2022: does a network that learned to classify chips help to segment few of them?

No labelled SAR landslides are at hand: two simulated mountain regions stand for Hokkaido and Kaikoura. The same idea on real
pictures: Landslide4Sense (classified in region A, few chips of B) and OMBRIA (other groups).

Run:     python -m benchmarks.sar_landslides --runs runs [--data ../shared/data] [--only STUDY] [--seeds 0,1,2] [--no-training]
Writes:  benchmarks/results/sar_landslides.md, .csv and .jpg; RUNS holds regions, chips, models and scores, and what is there is
         not made again. Some hours on two cores.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import click
import numpy as np
from scipy import ndimage

from aftermap import experiment, raster, recipe
from aftermap.card import Card
from aftermap.cutting import Cut, cut
from aftermap.datasets import pixels
from aftermap.datasets.dataset import open_dataset
from aftermap.features import read_points
from aftermap.journal import write_json
from aftermap.model import load
from aftermap.samples import Samples, survey
from aftermap.scored import Scored, write_arrays
from aftermap.simulate import landslide
from aftermap.torchdoor import torch
from benchmarks import sar_landslides_table as table

SIZE, PASSES = 64, 5
SHARES = "pretrain=0.55,train=0.2,validation=0.1,test=0.15"
"""By ground, in blocks of 2 km with a chip between two sides, in place of the published 60/20/10/10 at random."""


RESULTS = Path(__file__).parent / "results"
SIDES, GSD_M = ("pretrain", "train", "validation", "test"), 10.0
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
    "study": "study", "arm": "beside", "against": "against", "chips": "chips", "false_pixels": "false px per free chip, less",
    "false_low": "from", "false_high": "to", "p": "p", "ap": "AP, more", "ap_low": "from", "ap_high": "to",
}  # fmt: skip
HEAD = """# SAR landslides: chips classified first, few segmented then

After Boehm et al. 2022 (papers/002), in the exact layers of the released code. {measured} Seeds {seeds}.

**The two radar regions are simulated**: no labelled SAR landslides are at hand. Chips of 64 px (10 m), half of them with a
landslide, sides dealt by blocks of 2 km with a chip between two. Cut against the paper: 1,000 steps of 16 chips in stage 1 (400
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
pictures); p is one-sided, chip by chip over free chips (signed rank), not corrected for the number of rows."""
FIGURE = """Figure A1: 20 chips, ensembles, above one half; above the chip without a landslide in which most is marked, below
the one with most landslide."""
COMMAND = "`python -m benchmarks.sar_landslides --runs RUNS`"


@dataclass(frozen=True)
class Region:
    """One simulated mountain region."""

    terrain: str
    seed: int
    looks: float
    size: int = 3072


REGIONS = {"andes": Region("andes", 11, 4.9), "alps": Region("alps", 12, 3.5)}
"""Where few chips are segmented, and the other region."""
STEPS, LARGE, LARGE_STEPS, BATCH, KEPT = 60, 110, 120, 8, 3
"""Steps of a training on few chips, and on all of the published budget; chips in a step at most; checkpoints kept of four."""
QUICK = (
    f"chips.size={SIZE}", "pretrain.train.epochs=0", "pretrain.train.steps=400", "pretrain.train.every=80",
    "pretrain.train.batch=16", "pretrain.train.patience=0", "steps.0.train.epochs=0", "steps.0.train.patience=0",
    f"steps.0.train.keep={KEPT}",
)  # fmt: skip
ARMS = {
    "none": ("pretrain.use=none",),
    "same": (),
    "other": (),
    "random": ("pretrain.use=untrained",),
    "wide": ("pretrain.use=none", "model.encoder=conv8_wide"),
    "simple": ("pretrain.model.encoder=conv8_embedding",),
}
"""What stands beside the network: nothing; one that classified chips of the same region, or of the other; one that learned
nothing; nothing, but as many parameters; a plain CNN that classified."""
FEW, AT_LARGE = (2, 5, 10, 20), ("none", "same", "random")
L4S = (
    "data={'kind': 'landslide4sense-rgb', 'settings': {'runs': 4}}", "inputs=['after']", "normalise=chip", "model.fusion=single",
    "pretrain.split={'train': ['A1', 'A2', 'A3'], 'validation': ['A4']}",
    "split={'train': ['B1'], 'validation': ['B2'], 'test': ['B3', 'B4']}", "pretrain.model.fusion=single",
)  # fmt: skip
FLOODS = (
    "hazard=flood", "data={'kind': 'ombria', 'settings': {'image': 's1'}}",
    "pretrain.split={'train': ['A+B+H', 'C', 'D'], 'validation': ['J']}",
    "split={'train': ['M'], 'validation': ['N'], 'test': ['E', 'I', 'L']}",
)  # fmt: skip


@dataclass(frozen=True)
class Study:
    """Where few chips are segmented, with what beside, and what differs from the recipe."""

    arms: tuple[str, ...]
    budgets: tuple[int, ...]
    overrides: tuple[str, ...] = ()
    data: str = ""
    """Below --data; empty: the simulated region."""


LONG = ("pretrain.train.steps=1000", "pretrain.train.every=100")
"""Some 30 passes over the chips of a region, which are harder to tell apart than real pictures."""
STUDIES = {
    "simulated": Study(tuple(ARMS), FEW, LONG),
    "large": Study(AT_LARGE, (LARGE,), LONG),
    "l4s": Study(AT_LARGE, (20,), L4S, "landslide_l4s_rgb"),
    "ombria": Study(AT_LARGE, (20,), FLOODS, "flood_ombria"),
    "five-passes": Study(("none", "same"), (20,), (*LONG, f"data.settings={{'passes': {PASSES}}}")),
    "fc": Study(("same",), (20,), (*LONG, "pretrain.model.decoder=fc")),
    "faults": Study(("same",), (20,), (*LONG, "fidelity=['norm_bug', 'batch_softmax', 'bn_leak']")),
}  # fmt: skip


def chips(runs: Path, name: str) -> Path:
    """The chips of a region, simulated and cut where they are not there."""
    scene, out, region = runs / "regions" / name, runs / f"chips-{name}", REGIONS[name]
    if not (scene / "truth.tif").exists():
        landslide.simulate(
            scene, size=region.size, seed=region.seed, sensor="sentinel-1", terrain=region.terrain, looks=region.looks,
            passes=PASSES,
        )  # fmt: skip
    if not (out / "index.csv").exists():
        more = range(2, PASSES + 1)
        cut(
            out,
            Cut(
                (scene / "after.tif",), scene / "truth.tif", (scene / "before.tif",),
                after_pass=tuple(scene / f"after-{k}.tif" for k in more),
                before_pass=tuple(scene / f"before-{k}.tif" for k in more),
                dem=(scene / "dem.tif",), points=scene / "inventory.gpkg", size=SIZE, how="published", split="blocks",
                shares=SHARES, event=name,
            ),
        )  # fmt: skip
    return out


@dataclass(frozen=True)
class One:
    """One training of a study."""

    study: str
    arm: str
    budget: int
    seed: int

    @property
    def overrides(self) -> tuple[str, ...]:
        """What differs from the recipe sar-siamese."""
        steps, batch = STEPS if self.budget < LARGE else LARGE_STEPS, min(BATCH, self.budget)
        long = (f"steps.0.train.steps={steps}", f"steps.0.train.every={steps // 4}", f"steps.0.train.batch={batch}")
        return (*QUICK, *long, f"chips.most={self.budget}", *STUDIES[self.study].overrides, *ARMS[self.arm])

    def data(self, runs: Path, shared: Path) -> Path:
        """The folder it learns from."""
        own = STUDIES[self.study].data
        return shared / own if own else chips(runs, "andes")

    def folder(self, runs: Path) -> Path | None:
        """Where its model and rows are; None where it was not trained."""
        for path in sorted((runs / self.study).glob(f"*/{ABOUT}")):
            if json.loads(path.read_text(encoding="utf-8")) == asdict(self):
                return path.parent
        return None

    def train(self, runs: Path, shared: Path) -> None:
        """Trains and maps it, where that was not done."""
        if self.folder(runs):
            return
        data, out = self.data(runs, shared), runs / self.study
        elsewhere = chips(runs, "alps") if self.arm == "other" else None
        (row,) = experiment.run("sar-siamese", data, out, seeds=[self.seed], overrides=self.overrides, pretrain_on=elsewhere)
        rows = (path.parent for path in out.glob(f"sar-siamese-seed{self.seed}-*/row.json"))
        found = next(one for one in rows if _weights(one) == row["weights_sha256"])
        predict(found, self.samples(data))
        write_json(found / ABOUT, asdict(self))

    def samples(self, folder: Path) -> Samples:
        """The chips as the recipe reads them."""
        return _surveyed(
            folder, tuple(o for o in self.overrides if not o.startswith(("model", "steps", "pretrain", "chips.most")))
        )


ABOUT = "about.json"


def _weights(folder: Path) -> str:
    return str(json.loads((folder / "row.json").read_text(encoding="utf-8"))["weights_sha256"])


@cache
def _surveyed(folder: Path, overrides: tuple[str, ...]) -> Samples:
    page = recipe.read("sar-siamese", overrides)
    dataset = open_dataset(folder, page.data.kind, **page.data.settings)
    return survey(
        dataset, page.inputs, split=page.split, size=page.chips.size, normalise=page.normalise,
        norm_bug="norm_bug" in page.fidelity,
    )  # fmt: skip


@torch.no_grad()
def predict(folder: Path, samples: Samples) -> None:
    """Logits (checkpoint, chip, y, x) of the kept checkpoints on the test chips, in mapped.npz."""
    found, names = [], samples.ids("test")
    for model in (folder / "model", *sorted((folder / "model" / "checkpoints").glob("*"))):
        network = load(model)[0].to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        logits = []
        for first in range(0, len(names), 16):
            given = np.stack([samples.normaliser.of(samples.read(n)) for n in names[first : first + 16]])
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits.append(network(torch.from_numpy(given).contiguous(memory_format=torch.channels_last))[:, 0].float())
        found.append(torch.cat(logits).numpy().astype(np.float16))
    write_arrays(folder / "mapped.npz", names=np.asarray(names), logits=np.stack(found))


def every(only: str, seeds: Sequence[int]) -> Iterator[One]:
    """All trainings, the first seed of all before the second of any."""
    for seed in seeds:
        for name, study in STUDIES.items():
            if only in ("", name):
                yield from (One(name, arm, budget, seed) for budget in study.budgets for arm in study.arms)


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
        each = {(arm, n): mapped(name, arm, n, runs, shared, seeds) for n in study.budgets for arm in study.arms}
        found = {key: one for key, one in each.items() if one is not None}
        lines += [table.line(name, arm, n, one) for (arm, n), one in found.items()]
        if found:
            lines.append(table.nothing(name, next(iter(found.values())).truth))
        for path in sorted((runs / name).glob("without-training-*/facts.json")):
            methods = ", ".join(json.loads(path.read_text(encoding="utf-8"))["methods"])
            lines.append(table.classical(name, Scored.read(path.parent / "samples.npz"), methods))
        pairs = [(a, b) for a, b in CLAIMED if {a, b} <= {*study.arms}]
        claims += [
            table.claim(name, a, b, n, found[a, n], found[b, n])
            for a, b in pairs for n in study.budgets if {(a, n), (b, n)} <= found.keys()
        ]  # fmt: skip
        if name == "simulated":
            shown = {arm: m for (arm, n), m in found.items() if n == FEW[-1]}
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
    out += ["## Stage 1: does a chip hold a landslide?", "", *stage_one(runs), ""]
    out += [
        "![maps of two chips](sar_landslides_chips.jpg)",
        "",
        "Figure A1: 20 chips, ensembles, above one half; above the chip",
    ]
    out += ["without a landslide in which most is marked, below the one with the most landslide.", "", COMMAND]
    return "\n".join(out) + "\n"


def regions(runs: Path) -> list[str]:
    """What the simulated regions are like, and table A1: how many chips are on each side."""
    rows = ["| region | relief | slope, 10th, 50th, 90th percentile | roughness | looks | woods | slides per km2 | chips: " +
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
            f" {100 * truth.mean():.2f} % slid | {heads / area_km2:.1f} | {counts} |"
        )
    return rows


def stage_one(runs: Path) -> list[str]:
    """Accuracy of what was pretrained, on the chips of the test side."""
    rows = ["| study | classifier | data | seed | accuracy | ROC area |", "|" + " --- |" * 6]
    for path in sorted(runs.glob("*/pretrained/*/row.json")):
        row, facts = json.loads(path.read_text(encoding="utf-8")), Card.read(path.parent / "model")
        if row["scores"]:
            area, study = row["scores"].get("macro_auc"), path.parents[2].name
            scores = f"{row['scores']['accuracy']:.2f} | {'–' if area is None else format(area, '.2f')}"
            where = ", ".join(row["events"]["train"])
            rows.append(f"| {study} | {facts.encoder}, {facts.decoder} | {row['data']}, {where} | {row['seed']} | {scores} |")
    return rows


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
