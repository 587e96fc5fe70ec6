"""Few labels on real images: what learning without labels is worth beside the same network from its first weights.

Landslide4Sense pictures and OMBRIA radar; labels are of some regions, and asked for in others, which were seen without labels or
not at all. Whole networks learn ("fine-tuned"), or a ridge regression on what a network makes of a square ("frozen").

Run:     python -m benchmarks.label_efficiency --runs runs [--data ../shared/data] [--seeds 0,1] [--no-training]
Writes:  benchmarks/results/label_efficiency.md, label_efficiency*.csv and .jpg; RUNS holds what was trained, and what is there is
         not made again. Some hours on two cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks import label_efficiency_rows as rows
from benchmarks.label_efficiency_runs import BATCH, SIZE, STARTS, STUDIES, TUNED_STEPS, TWIN, every, learn, unlabelled
from benchmarks.sar_landslides_table import measured, table, write_csv

RESULTS = Path(__file__).parent / "results"
HEAD = """# Few labels on real images

{measured} Squares of {size} px. Learned without labels: {learned} steps of 64 squares. Then {steps} steps of {batch} with labels
of {labelled}. "Seen" regions ({seen}) were learned from without labels, "unseen" ({unseen}) not at all; no label is of either.
`mae` and `dino` are a ViT of four layers, their twin "scratch"; `glcnet` is half a ResNet-18, its twin "scratch-resnet". Seeds
{seeds}. OMBRIA is VV after the flood; what needs no training is given VV before it too, and
`clip` learned from VV beside the optical picture.
"""
TUNED_HEAD = """## Fine-tuned

Average precision of pixels (one number for all of a region) and IoU above 0.5. Shares between:
[label_efficiency_tuned.csv](label_efficiency_tuned.csv).

![average precision by labels](label_efficiency.jpg)
"""
BETTER_HEAD = """### Against the twin

Mean gain in average precision of a picture over the twin with the same labels and seed, interval by resampling pictures,
one-sided signed rank over pictures, and Holm's p over all rows of the table.
"""
RATIO_HEAD = """### Labels that are saved

For the average precision that it has with a tenth of the labels, its twin takes so many.
"""
FROZEN_HEAD = """## Frozen

Ridge regression of the share of a square that is hazard: Spearman's correlation with the true share over squares with 1, 10 and
all percent of the labels, and R2 with all (below 0: the level of another region is not that of the labelled one). How much less
the mean picture is wrong by than with the other features; tests as above.
"""
FAILING_HEAD = """## Does a network fail where it is far from what it knows?

Fine-tuned on all labels; Spearman's correlation of the distance to the nearest embeddings of training with the Brier score over
squares (interval by resampling events, of Landslide4Sense pictures), and over events. "Far": the median square of the event is
below 5 % familiar, where `map` warns. "Worst": the third of the events with the largest error.
"""
PLACE_HEAD = """## Does an embedding tell the region, before and after fine-tuning?

Share of squares that logistic regression puts into the right one of two sets of regions, as many of each; 0.5 is chance. The
images have no coordinates, so regions stand for places.
"""


def draw(lines: Sequence[rows.Tuned], path: Path) -> None:
    """Average precision by labels, a panel for each study and region."""
    from matplotlib.figure import Figure

    studies = list(dict.fromkeys(one.study for one in lines))
    figure = Figure(figsize=(12, 4 * len(studies)), layout="constrained")
    axes = figure.subplots(len(studies), 2, squeeze=False)
    for at, (study, region) in zip(axes.flat, ((s, r) for s in studies for r in rows.REGIONS), strict=True):
        for k, start in enumerate(STARTS):
            own = [o for o in lines if (o.study, o.region, o.start) == (study, region, start)]
            if own:
                error = [o.ap_std or 0 for o in own]
                style = "--" if start not in TWIN else "-"
                at.errorbar([o.labels for o in own], [o.ap for o in own], yerr=error, fmt=f"o{style}", color=f"C{k}", label=start)
        for k, words in enumerate(dict.fromkeys(o.start for o in lines if not o.labels)):
            level = next(o.ap for o in lines if (o.study, o.region, o.start) == (study, region, words))
            at.axhline(level, color="grey", ls=(":", "-.")[k], label=words)
        at.set(title=f"{study}, {region}", xscale="log", xlabel="squares with labels", ylabel="average precision")
        at.legend(fontsize=7)
        at.grid(alpha=0.3)
    figure.savefig(path, dpi=90)


def write(runs: Path, data: Path, seeds: Sequence[int]) -> None:
    """The tables of what is there."""
    tuned = rows.tuned(runs, data, seeds)
    sections: tuple[tuple[str, str, Sequence[Any]], ...] = (
        ("tuned", TUNED_HEAD, tuned), ("better", BETTER_HEAD, rows.better(runs, seeds)),
        ("ratio", RATIO_HEAD, rows.ratios(tuned)), ("frozen", FROZEN_HEAD, rows.frozen(runs, data, seeds)),
        ("failing", FAILING_HEAD, rows.failing(runs, data, seeds)),
        ("place", PLACE_HEAD, rows.places(runs, data)),
    )  # fmt: skip
    out = [HEAD.format(
        measured=measured(), size=SIZE, steps=TUNED_STEPS, batch=BATCH, seeds=", ".join(map(str, seeds)),
        learned=", ".join(f"{name} {one.steps}" for name, one in STARTS.items() if one.steps),
        labelled=_each("labelled"), seen=_each("seen"), unseen=_each("unseen"),
    )]  # fmt: skip
    for name, head, lines in sections:
        if lines:
            shown = [o for o in lines if getattr(o, "share", 1) in (0, 0.01, 0.1, 1)]
            out += [head, *table(shown, {k: k.replace("_", " ") for k in type(lines[0]).__dataclass_fields__}), ""]
            write_csv(RESULTS / f"label_efficiency_{name}.csv", lines)
    draw(tuned, RESULTS / "label_efficiency.jpg")
    out.append("`python -m benchmarks.label_efficiency --runs RUNS`")
    (RESULTS / "label_efficiency.md").write_text("\n".join(out) + "\n", encoding="utf-8")


def _each(what: str) -> str:
    said = {name: dict.fromkeys(e.rstrip("0123456789") for e in getattr(study, what)) for name, study in STUDIES.items()}
    return "; ".join(f"{name} {', '.join(own)}" for name, own in said.items())


@click.command()
@click.option("--runs", type=click.Path(path_type=Path), required=True)
@click.option("--data", type=click.Path(path_type=Path, exists=True), default=Path("../shared/data"), show_default=True)
@click.option("--seeds", default="0,1", show_default=True)
@click.option("--no-training", is_flag=True, help="Tables of what is there.")
def main(runs: Path, data: Path, seeds: str, no_training: bool) -> None:
    """As the module says."""
    numbers = [int(s) for s in seeds.split(",")]
    for study, start, seed in () if no_training else unlabelled(numbers):
        learn(study, start, seed, runs, data)
        click.echo(f"seed {seed}: {study}, {start}")
    for one in () if no_training else every(numbers):
        one.train(runs, data)
        click.echo(f"seed {one.seed}: {one.study}, {one.start}, {one.share:.0%} of the labels")
    write(runs, data, numbers)


if __name__ == "__main__":
    main()
