"""Pretraining without labels: what is learned from images alone is worth with few labels, in regions seen and not.

After four systems of papers/003 (methods.md D to G), on simulated land cover of four regions, plainly; one of them, alps, no
network has seen before its labels are asked for. What needs no network, and what has its first weights, stand beside.

Run:     python -m benchmarks.pretraining --runs runs [--seeds 0,1] [--only learn|tune] [--no-training]
Writes:  benchmarks/results/pretraining.md, pretraining*.csv and .jpg; RUNS holds scenes, models, embeddings and rows, and what is
         there is not made again. Some hours on two cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import matplotlib as mpl
import numpy as np

from aftermap.datasets.landcover import CLASSES
from benchmarks.pretraining_apart import Kept, Left, Related, apart, kept, left_out, related, unit
from benchmarks.pretraining_rows import (
    AT,
    DRAWS,
    MODALITIES,
    Beats,
    Classed,
    Eighty,
    Few,
    Ratio,
    Tuned,
    all_tuned,
    beats,
    classed,
    eighty,
    few,
    ratios,
)  # fmt: skip
from benchmarks.pretraining_runs import LEARNED, REGIONS, SEEN, TUNED_STEPS, UNSEEN, Chips, chips, embedded, folder_of, learn
from benchmarks.sar_landslides_table import measured, table, write_csv

mpl.use("Agg")
RESULTS = Path(__file__).parent / "results"


def draw(lines: Sequence[Few], path: Path) -> None:
    """R2 by labels, a panel for each region and modality."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(AT), len(MODALITIES), figsize=(13, 7), sharex=True, sharey=True, squeeze=False)
    for row, region in enumerate(AT):
        for col, modality in enumerate(MODALITIES):
            at = axes[row, col]
            for k, name in enumerate(MODALITIES[modality]):
                own = [o for o in lines if (o.task, o.region, o.modality, o.features) == ("vegetation", region, modality, name)]
                if own:
                    dashed = "--" if name.startswith(("untrained", "statistics")) else "-"
                    at.plot([o.labels for o in own], [o.ridge for o in own], dashed, color=f"C{k}", marker=".", label=name)
            seen = "not seen before" if region == UNSEEN else "seen without labels"
            at.set(title=f"{region}, {seen}: {modality}", xscale="log", ylim=(-0.2, 1))
            at.legend(fontsize=7)
            at.grid(alpha=0.3)
    for at in axes[:, 0]:
        at.set_ylabel("R2 of tree cover")
    for at in axes[-1]:
        at.set_xlabel("chips with labels")
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def draw_space(told: Chips, runs: Path, path: Path, seed: int = 0) -> None:
    """The two axes along which embeddings across modalities differ most, by commonest class and by modality."""
    from matplotlib import pyplot as plt

    parts = {m: z for m in ("s1", "coherence", "rgb") if (z := embedded("clip", seed, runs, part=m)) is not None}
    if not parts:
        return
    test = np.concatenate([told.at(region, "test") for region in REGIONS])
    every = np.concatenate([unit(z[test]) for z in parts.values()])
    _, _, axes_of = np.linalg.svd(every - every.mean(axis=0), full_matrices=False)
    figure, axes = plt.subplots(1, len(parts), figsize=(13, 4.5), sharex=True, sharey=True)
    for at, (name, z) in zip(axes, parts.items(), strict=True):
        placed = (unit(z[test]) - every.mean(axis=0)) @ axes_of[:2].T
        for k, word in enumerate(CLASSES):
            own = told.labels["dominant"][test] == k
            if own.any():
                at.scatter(*placed[own].T, s=5, color=f"C{k}" if k < 10 else "black", label=word.split(" ")[0])
        at.set_title(name)
    axes[-1].legend(fontsize=7, markerscale=2)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


HEAD = """# Pretraining without labels

{measured} **Simulated land cover** ([what it is](../../docs/simulated.md#land-cover)): four regions, 40 scenes of each, chips
of 64 px. Networks learn without labels from {seen}; {unseen} none has seen. Scenes that test lie in no training. Four layers of
128 wide (ResNet-18 of half the channels for contrast); {steps} steps of 64 chips. Seeds {seeds}.
"""
FEW_HEAD = """## Few labels, frozen embeddings

Ridge regression of the mean tree cover of a chip, R2 over test scenes, means over {draws} draws of labels (and seeds). All
numbers, random forests and built-up shares: [pretraining_few.csv](pretraining_few.csv).

![R2 by labels](pretraining.jpg)
"""
RATIO_HEAD = """### Labels that are saved

How many labels the twin with its first weights, and plain statistics of the bands (mean, deviation, three quantiles), take for
the R2 that pretrained features have with 100.
"""
BEATS_HEAD = """## In a region that it never saw

Ridge regression on all labels of {seen}, asked in {unseen}: R2, and how much less the mean scene is wrong by than with other
features (mean absolute error of its chips), interval by resampling scenes, one-sided signed rank over scenes, Holm over all.
"""
CLASSED_HEAD = """## Eleven classes of land cover

The commonest class of a chip by logistic regression, means over 3 draws of labels (and seeds).
"""
EIGHTY_HEAD = """## Eighty labels: cropland or not, from colour

After Castano et al. 2023 (elevation as a second question above contrast alone, in accuracy and macro F1). Logistic regression on
frozen features.
"""
LEFT_HEAD = """## Across modalities, something left out

`clip`: mean of the embeddings that are there; ridge regression on 500 labels, R2 of tree cover. Published: 500 labels near all.
"""
APART_HEAD = """## Distance and error

A ridge regression of tree cover on all labels of one region, asked in another: twelve pairs. Does the distance of the clouds of
embeddings go with the error that is added? p of a permutation of pairs, which share regions and are not independent.
All pairs: [pretraining_apart.csv](pretraining_apart.csv). Published: amplitude tells regions apart, coherence less.
"""
KEPT_HEAD = """## Does a network still tell regions apart after it was taught?

Share of test chips that logistic regression puts into the right one of two regions, by what a network gives before and after all
of it learned tree cover from all labels of a region.
"""
TUNED_HEAD = """## Fine-tuned

The whole network learns tree cover from a share of the chips of a region, {steps} steps, from its first weights ("scratch")
or from `mae`.
"""


def write(runs: Path, seeds: Sequence[int]) -> None:
    """The tables of what is there."""
    found = [name for name in LEARNED if any(folder_of(name, seed, runs) for seed in seeds)]
    steps = ", ".join(f"{name} {LEARNED[name].steps}" for name in found if not LEARNED[name].untrained)
    lines, across = few(runs, seeds), apart(runs)
    out = [HEAD.format(measured=measured(), seen=", ".join(SEEN), unseen=UNSEEN, steps=steps, seeds=", ".join(map(str, seeds)))]
    shown = [o for o in lines if o.task == "vegetation" and o.labels in (20, 100, 500)]
    out += [
        FEW_HEAD.format(draws=DRAWS),
        *table(shown, {k: k.replace("_", " ") for k in Few.__dataclass_fields__ if k != "task"}),
        "",
    ]
    tuned_rows = all_tuned(runs, seeds, training=False)
    sections: tuple[tuple[str, Sequence[Any], Any], ...] = (
        (RATIO_HEAD, ratios(lines), Ratio), (BEATS_HEAD.format(seen=", ".join(SEEN), unseen=UNSEEN), beats(runs, seeds), Beats),
        (CLASSED_HEAD, classed(runs, seeds), Classed), (EIGHTY_HEAD, eighty(runs, seeds), Eighty),
        (LEFT_HEAD, left_out(runs), Left),
        (APART_HEAD, related(across), Related), (TUNED_HEAD.format(steps=TUNED_STEPS), tuned_rows, Tuned),
        (KEPT_HEAD, kept(runs), Kept),
    )  # fmt: skip
    for head, rows, kind in sections:
        if rows:
            out += [head, *table(rows, {k: k.replace("_", " ") for k in kind.__dataclass_fields__}), ""]
    out += ["![embeddings by land cover](pretraining_space.jpg)", "", "`python -m benchmarks.pretraining --runs RUNS`"]
    each: dict[str, Sequence[Any]] = {"few": lines, "apart": across, "tuned": tuned_rows}
    for name, rows in each.items():
        if rows:
            write_csv(RESULTS / f"pretraining_{name}.csv", rows)
    draw(lines, RESULTS / "pretraining.jpg")
    draw_space(chips(runs), runs, RESULTS / "pretraining_space.jpg")
    (RESULTS / "pretraining.md").write_text("\n".join(out) + "\n", encoding="utf-8")


@click.command()
@click.option("--runs", type=click.Path(path_type=Path), required=True)
@click.option("--seeds", default="0,1", show_default=True)
@click.option("--only", type=click.Choice(["", "learn", "tune"]), default="")
@click.option("--no-training", is_flag=True, help="Tables of what is there.")
@click.option("--no-tables", is_flag=True, help="Trainings alone.")
def main(runs: Path, seeds: str, only: str, no_training: bool, no_tables: bool) -> None:
    """As the module says."""
    numbers = [int(s) for s in seeds.split(",")]
    for seed in () if no_training else numbers:
        for name in LEARNED if only in ("", "learn") else ():
            learn(name, seed, runs)
            click.echo(f"seed {seed}: {name}")
    if only in ("", "tune") and not no_training:
        all_tuned(runs, numbers, training=True)
    if not no_tables:
        write(runs, numbers)


if __name__ == "__main__":
    main()
