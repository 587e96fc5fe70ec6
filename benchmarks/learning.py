"""Networks trained here on published data, beside the methods without training, on events that they never saw.

Run:     python -m benchmarks.learning [--data ../shared/data] [--runs runs]
Writes:  benchmarks/results/learning.csv (every line of aftermap report) and learning.md (the tables); RUNS holds models and rows,
         and what is there is not made again. Some hours on two cores; several processes may share RUNS with --only and --seeds.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import click
import numpy as np

from aftermap import experiment, results
from aftermap.metrics import Counts
from aftermap.results import Line

RESULTS = Path(__file__).parent / "results"
SHOWN = ("f1", "iou", "average_precision", "auc", "macro_iou")


@dataclass(frozen=True)
class Study:
    """One recipe on one data set, as often as its seeds."""

    name: str
    recipe: str
    data: str
    seeds: int
    overrides: tuple[str, ...] = ()
    published: str = ""


STUDIES = (
    Study("landslide-rgb", "landslide-rgb", "landslide_l4s_rgb", 5),
    Study("ombria-s1", "ombria", "flood_ombria", 3, ("data.settings.image=s1",), "macro IoU .551, one date"),
    Study(
        "ombria-s2",
        "ombria",
        "flood_ombria",
        3,
        ("data.settings.image=s2", "normalise=all"),
        "macro IoU .579 with one date, .632 with two",
    ),
    Study("ombria-both", "ombria", "flood_ombria", 3, ("data.settings.image=both",), "macro IoU .705"),
    Study(
        "fractures-absent", "antarctic-fractures", "glacier_fracture_antarctica", 3, ("data.settings.empty=absent",), "AUC .986"
    ),
    Study(
        "fractures-unknown", "antarctic-fractures", "glacier_fracture_antarctica", 3, ("data.settings.empty=unknown",), "AUC .986"
    ),
)
NOTES = """
Every score is of pixels that were observed and labelled, pooled, by the exported graph in fp32 at a threshold of 0.5
that nothing was tuned for. No labels of a tested event or tile trained a network or chose a checkpoint. *Without
training*: the map that `aftermap map` makes of the same pixels with no network. *p*: one-sided signed rank over
images, the network against that map; images of one event are alike, so it speaks for these events alone. Marking
nothing has an F1 and IoU of 0.

- **Landslides**: trained on region A of Landslide4Sense (RGB pictures, each stretched by itself), a tenth of A's
  pictures chose the checkpoint, scored on regions B and C. Regions were inferred from the pictures.
- **OMBRIA**: five folds of whole groups of scenes (`groups_inferred.csv`; A, B and H are one). Published are means
  over the images of the official test, 68 of whose 70 tiles touch a tile of its training: they are no yardstick for
  new events, and so no claim is made against them. The mean over images of the macro IoU is the column to lay beside
  them.
- **Fractures**: trained on the 26 tiles of the official training, scored on the six of its validation, which border
  on them; two of the six masks are wholly empty. *absent* takes empty masks as they are, *unknown* leaves them out of
  training and scores. Published AUC on these six tiles: .986.
"""


def counts(rows: Sequence[Mapping[str, Any]], event: str) -> list[Counts]:
    """Of one event, seed by seed."""
    return [Counts(**row["counts"][event]) for row in rows if event in row["counts"]]


def of_events(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A table of IoU by event: mean over seeds, and without training."""
    yield from ("| event | hazard share | network, IoU | without training, IoU |", "|" + " --- |" * 4)
    for event in sorted({e for row in rows for e in row["counts"]}):
        own = counts(rows, event)
        beside = counts([row["without_training"] for row in rows], event)[0]
        ious = [c.iou for c in own if c.iou is not None]
        share = (own[0].tp + own[0].fn) / own[0].total
        yield f"| {event} | {share:.3f} | {np.mean(ious):.3f} | {'–' if beside.iou is None else format(beside.iou, '.3f')} |"


def _ends(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _n(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


HEAD = (
    "metric",
    "mean ± std of seeds",
    "over events",
    "95 % over images",
    "mean of images",
    "without training",
    "untrained",
    "all",
    "p",
)


def table(found: Sequence[Line]) -> Iterator[str]:
    """The lines of one study."""
    yield from (f"| {' | '.join(HEAD)} |", "|" + " --- |" * len(HEAD))
    for one in found:
        if one.metric in SHOWN:
            cells = (
                one.metric, f"{_n(one.mean)} ± {_n(one.std)}", f"{_ends(one.low, one.high)} ({one.interval})",
                _ends(one.image_low, one.image_high), _n(one.per_image), _n(one.without_training), _n(one.untrained),
                _n(one.everything), "–" if one.p is None else f"{one.p:.2g}",
            )  # fmt: skip
            yield f"| {' | '.join(cells)} |"


def write(runs: Path) -> None:
    """The tables of what is there."""
    made = f"{date.today()}, {platform.machine()}, 2 cores; `python -m benchmarks.learning`; networks of 3.6 M"
    out = ["# Networks on events that they never saw", "", made]
    out += ["parameters (`resnet18_half`, plain U-Net decoder) from random weights."]
    every: list[Line] = []
    for study in STUDIES:
        folder = runs / study.name
        if not folder.is_dir() or not list(folder.rglob(experiment.ROW)):
            continue
        rows = results.gather(folder)
        found = results.lines(rows)
        every += found
        first = found[0]
        title = f"## {study.name}: {first.seeds} seeds, {first.events} events, {first.images} images"
        said = f"Without training: {first.methods}." + (f" Published: {study.published}." if study.published else "")
        out += ["", title, "", said, "", *table(found), "", *of_events(rows)]
    (RESULTS / "learning.md").write_text("\n".join(out) + "\n" + NOTES, encoding="utf-8")
    results.write_csv(RESULTS / "learning.csv", every, end="\n")


@click.command(help=__doc__)
@click.option("--data", type=click.Path(exists=True, path_type=Path), default=Path("../shared/data"))
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"))
@click.option("--only", multiple=True, help="Names of studies; by default all.")
@click.option("--seeds", default="", help="Of these seeds alone: 0,1.")
@click.option("--no-training", is_flag=True, help="Only the tables of what is there.")
def main(data: Path, runs: Path, only: tuple[str, ...], seeds: str, no_training: bool) -> None:
    """As the module says."""
    for study in (s for s in STUDIES if not only or s.name in only):
        chosen = [int(s) for s in seeds.split(",")] if seeds else list(range(study.seeds))
        if not no_training:
            experiment.run(study.recipe, data / study.data, runs / study.name, seeds=chosen, overrides=study.overrides)
    write(runs)


if __name__ == "__main__":
    main()
