"""Whether a scene that a bundled network finds strange is one where it fails: familiarity and IoU of real images.

Run:     python -m benchmarks.familiarity [--data ../shared/data]
Writes:  benchmarks/results/familiarity.csv (a row per image) and familiarity.md (the table)
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from aftermap import familiarity, stats
from aftermap.card import BUNDLED
from aftermap.distances import rank_correlation
from aftermap.engine import Network
from aftermap.metrics import Counts
from aftermap.untrained import scores_of
from benchmarks import bundle
from benchmarks.models_table import RESULTS

EVERY = {"flood-s1": 1, "landslide-rgb": 12, "fracture-grey": 3, "building-rgb": 8}
"""Images are many and alike: one of so many is looked at."""
COLUMNS = ("model", "data", "region", "image", "familiarity", "far", "iou")


def rows(data: Path, name: str) -> Iterator[dict[str, Any]]:
    """A row per image that the network reads and that has a cell to judge."""
    network = Network.open(BUNDLED / name, precision="f32")
    hazard = network.card.hazard
    reals = bundle.floods(data) if hazard == "flood" else bundle.others(data, hazard)
    for place, real in enumerate(reals):
        if place % EVERY[name] or network.why_not(real.scene):
            continue
        ready = network.prepare(real.scene)
        by = familiarity.judge({name: ready}, [name])
        assert by is not None
        found = familiarity.of(real.scene, by)
        scores = scores_of(real.scene, ready)
        known = np.isfinite(scores) & (real.truth >= 0)
        iou = Counts.of(scores[known] > 0.5, real.truth[known] == 1).iou
        if found.median is not None:
            about = (name, real.data, real.region, real.image, found.median, int(found.far), "" if iou is None else round(iou, 4))
            yield dict(zip(COLUMNS, about, strict=True))


def table(every: Sequence[dict[str, Any]]) -> str:
    """Markdown: of each data set how familiar it is, and what IoU has to do with that."""
    lines = [
        "# Is a strange scene one where a network fails?", "",
        "`python -m benchmarks.familiarity`; median familiarity of an image in percent, far below 5; Spearman's correlation of",
        f"it with IoU, where that is defined, and its interval by resampling images. Of the images of {_looked_at()}.", "",
        "| model | data | images | median | far | IoU of far | IoU of the others | familiarity with IoU |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for model, data in dict.fromkeys((r["model"], r["data"]) for r in every):
        own = [r for r in every if (r["model"], r["data"]) == (model, data)]
        far, near = ([float(r["iou"]) for r in own if int(r["far"]) == side and r["iou"] != ""] for side in (1, 0))
        middle = float(np.median([float(r["familiarity"]) for r in own]))
        count = sum(int(r["far"]) for r in own)
        cells = (f"`{model}`", data, len(own), f"{middle:.0f}", count, _mean(far), _mean(near), _with_iou(own))
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def _looked_at() -> str:
    return ", ".join(f"{name} {'all' if step == 1 else f'one in {step}'}" for name, step in EVERY.items())


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f}" if values else "–"


def _with_iou(own: Sequence[dict[str, Any]]) -> str:
    pairs = [(float(r["familiarity"]), float(r["iou"])) for r in own if r["iou"] != ""]

    def score(drawn: Sequence[tuple[float, float]]) -> float | None:
        return rank_correlation(*zip(*drawn, strict=True))

    if len(pairs) < 5 or score(pairs) is None:
        return "–"
    found = stats.interval(pairs, score, np.random.default_rng(0))
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), default=Path("../shared/data"), show_default=True)
def main(data: Path) -> None:
    """Looks at every bundled network, then writes rows and table."""
    every = [row for name in EVERY for row in rows(data, name)]
    with (RESULTS / "familiarity.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(every)
    (RESULTS / "familiarity.md").write_text(table(every), encoding="utf-8")
    click.echo(table(every))


if __name__ == "__main__":
    main()
