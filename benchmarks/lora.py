"""Few parameters or all: a small transformer that learned without labels, fine-tuned for floods and landslides with all labels.

Run:     python -m benchmarks.lora --runs runs [--data ../shared/data] [--seeds 0,1] [--no-training]
Writes:  benchmarks/results/lora.md and lora.csv; RUNS is that of benchmarks/label_efficiency.py, whose trainings
         without labels and of all parameters are used
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np

from aftermap import lowrank, recipe
from aftermap.model import Spec, build, spec_of
from aftermap.surgery import freeze
from benchmarks.label_efficiency_rows import REGIONS, ap, of_pictures, without
from benchmarks.label_efficiency_runs import ARMS, BATCH, STUDIES, TUNED_STEPS, One
from benchmarks.pretraining_probes import adjusted, compared
from benchmarks.sar_landslides_table import measured, table, write_csv

RESULTS = Path(__file__).parent / "results"
START = "mae"
HEAD = """# Low-rank updates, biases, or all of it

{measured} A ViT of four layers, 128 wide, that learned without labels (`mae-small`), then {steps} steps of {batch} squares of
64 px with all labels of some regions; tested on regions that were seen without labels ("seen") and not at all ("unseen").
`lora-R`: updates of rank R of the layers of attention. Average precision of pixels, means over seeds {seeds}; gain over all of
it per picture, interval by resampling pictures, one-sided signed rank, Holm over the table. Rank 256 is no low rank here: a layer
has 128 on its smaller side. Published (Clay, WorldFloods): F1 84.2 frozen, 90.9 with rank 256; elsewhere 41.1, with 1024 48.6.
"""


@dataclass(frozen=True)
class Line:
    """One arm of one study and region."""

    study: str
    region: str
    arm: str
    seeds: int
    trainable: float | None
    """Share of all parameters."""
    effective_rank: float | None
    ap: float
    ap_std: float | None
    iou: float | None
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    p: float = 1.0
    p_holm: float | None = None


def lines(runs: Path, data: Path, seeds: Sequence[int]) -> list[Line]:
    """Of what was trained, and what needs no labels beside."""
    found: list[Line] = []
    for study, own in STUDIES.items():
        for region in REGIONS:
            events = getattr(own, region)
            for arm in ARMS:
                each = {s: k for s in seeds if (k := One(study, START, 1.0, s, arm).scored(runs)) is not None}
                whole = {s: k for s in each if (k := One(study, START, 1.0, s).scored(runs)) is not None}
                if not each:
                    continue
                told: dict[str, float] = {}
                if arm and whole:
                    ours, theirs = (np.array([of_pictures(k[s], events)[1] for s in whole]) for k in (each, whole))
                    told = dict(zip(("gain", "low", "high", "p"), compared(ours, theirs)[1:], strict=True))
                aps = [ap(one, events) for one in each.values()]
                std = float(np.std(aps, ddof=1)) if len(aps) > 1 else None
                ious = [one.of([k for k, e in enumerate(one.events) if e in events]).iou or 0.0 for one in each.values()]
                folder = One(study, START, 1.0, next(iter(each)), arm).folder(runs)
                assert folder is not None
                learns = learning(recipe.read(folder / "page.toml", ARMS[arm]), spec_of(folder / "model"))
                found.append(
                    Line(study, region, arm or "all", len(aps), *learns, float(np.mean(aps)), std, float(np.mean(ious)), **told)
                )
            for words, scored in without(study, runs, data).items() if any(o.study == study for o in found) else ():
                found.append(Line(study, region, words, 0, None, None, ap(scored, events), None, None))
    tested = iter(adjusted([one for one in found if one.gain is not None]))
    return [next(tested) if one.gain is not None else one for one in found]


def learning(page: recipe.Recipe, spec: Spec) -> tuple[float, float | None]:
    """Share of parameters that learn of a network of the page, and the effective rank."""
    model = build(spec)
    if "lora" in page.surgery:
        facts = lowrank.put(model, **asdict(page.lora))
        return facts.trainable / facts.parameters, facts.effective_rank
    if "bitfit" in page.surgery:
        lowrank.only_biases(model)
    elif page.surgery:
        freeze(model.encoder)
    counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, learns in counts if learns) / sum(n for n, _ in counts), None


@click.command()
@click.option("--runs", type=click.Path(path_type=Path), required=True)
@click.option("--data", type=click.Path(path_type=Path, exists=True), default=Path("../shared/data"), show_default=True)
@click.option("--seeds", default="0,1", show_default=True)
@click.option("--no-training", is_flag=True, help="Tables of what is there.")
def main(runs: Path, data: Path, seeds: str, no_training: bool) -> None:
    """As the module says."""
    numbers = [int(s) for s in seeds.split(",")]
    for one in [One(study, START, 1.0, s, arm) for s in numbers for study in STUDIES for arm in ARMS if not no_training]:
        one.train(runs, data)
        click.echo(f"seed {one.seed}: {one.study}, {one.arm or 'all'}")
    found = lines(runs, data, numbers)
    head = HEAD.format(measured=measured(), steps=TUNED_STEPS, batch=BATCH, seeds=", ".join(map(str, numbers)))
    rows = table(found, {k: k.replace("_", " ") for k in Line.__dataclass_fields__ if k != "p"})
    (RESULTS / "lora.md").write_text(
        "\n".join([head, *rows, "", "`python -m benchmarks.lora --runs RUNS`"]) + "\n", encoding="utf-8"
    )
    write_csv(RESULTS / "lora.csv", found)


if __name__ == "__main__":
    main()
