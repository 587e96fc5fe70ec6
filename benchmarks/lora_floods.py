"""Few parameters or all, for floods in places without labels: encoders of our own that learned without labels, groups held out.

Run:     python -m benchmarks.lora_floods --runs runs [--data ../shared/data] [--seeds 0,1] [--no-training]
Writes:  benchmarks/results/lora_floods.md, lora_floods.csv and lora_floods_cost.csv; RUNS holds what was trained, below
         lora-floods/, and what is there is not made again. A training takes a minute of one core.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from aftermap.journal import write_json
from benchmarks.label_efficiency_runs import SIZE
from benchmarks.lora_floods_rows import Learns, Line, learns, lines
from benchmarks.lora_floods_runs import BATCH, EVERY, STEPS, STUDIES, One, costs_of, every, memory_path
from benchmarks.sar_landslides_table import measured, table, write_csv

RESULTS = Path(__file__).parent / "results"
HEAD = """# Few parameters or all, for floods in places without labels

{measured} Steps: {steps} of {batch} squares of {size} px, cross entropy + dice, AdamW, weight decay 0.01, cosine, 5 %
warm-up; decoder and head at 1e-3, what learns of the encoder at 1e-4 ("one rate": at 1e-3 too). Nothing is chosen but a
threshold. `vit`: four layers, 128 wide, patches of 8 px, learned by `mae` without labels, deconvolution decoder, updates of
attention. `cnn`: half a ResNet-18, learned by contrast without labels, U-Net, updates of all convolutions. `lora-R`: updates
of rank R; `all`: all parameters. Seeds {seeds}; in each table fewer where it says so.

Average precision (AP): a mean over groups, with 95 % by resampling groups. IoU and F1: of all pixels together, above 0.5;
"tuned": above the threshold that does best on pictures kept for that. Gains are in AP of a group; p: one-sided exact signed
rank over groups, Holm over the rows of one table, but for `everything`; "–": too few groups to reach 0.01. "Method without
training": what `aftermap map` does without a network.
"""
ABOUT = {
    "OMBRIA": f"""\
Sentinel-1 VV after the flood, 8-bit pictures; what needs no training is given VV before it too. Twelve groups, two held out
at a time, so that each was once; the networks learn from the other ten. "Held out": no image of the group was learned from,
nor was one by the encoder without labels, which knows seven others (one such training for four groups held out and for all
seeds). "Seen": one picture in {EVERY} of each group that was learned from, unlabelled images of which were seen too, and
which touch pictures that were learned from.""",
    "Sen1Floods11": """\
Sentinel-1 VV and VH in dB; all water, not flood alone. Six events of one or two chips of 512 px, each held out in turn; 11
chips are all there are here. The encoder learned from simulated radar alone. Pictures of seen events cannot be kept out of so
few.""",
}
PUBLISHED = """## Published, beside

Clay (ViT, patches of 8 px) on WorldFloods in Sentinel-1, 50 epochs, deconvolution decoder: frozen F1 84.2, IoU 0.72; rank 256
F1 90.9, IoU 0.83; all of it did not fit 40 GB. Another country (Luxembourg 2021): frozen F1 41.1; rank 1024, which is no low
rank, F1 48.6, IoU 0.32 (arXiv 2409.09907). Other data, thousands of images, an encoder a hundred times as large: not to be
compared with the numbers here, but for their order.
"""
COLUMNS = {
    "encoder": "encoder", "way": "what learns", "seeds": "seeds", "groups": "groups", "iou": "IoU", "f1": "F1",
    "iou_tuned": "IoU, tuned", "precision": "AP", "over_frozen": "gain over frozen", "over_all": "gain over all",
}  # fmt: skip
COSTS = {
    "study": "study", "encoder": "encoder", "way": "what learns", "trainable": "trainable", "effective_rank": "effective rank",
    "seconds_per_epoch": "s per epoch", "peak_mb": "peak MB", "before_mb": "of these before",
}  # fmt: skip
COSTS_HEAD = """## What learns, and what it costs

Share of all parameters that learn, decoder and head with them; a process of its own for each, one core, bfloat16: processor
seconds for a pass over the squares (of a shared machine: the same network twice differs by a tenth), and the largest resident
set, of which so much was there before training (torch, data).
"""


def page(found: Sequence[Line], costs: Sequence[Learns], seeds: Sequence[int]) -> str:
    """The whole, of what there is."""
    said = ", ".join(map(str, seeds))
    text = [HEAD.format(measured=measured(), steps=STEPS, batch=BATCH, size=SIZE, seeds=said)]
    for study, about in ABOUT.items():
        own = [one for one in found if one.study == study]
        text += [f"## {study}", "", about, ""] if own else []
        for region in dict.fromkeys(one.region for one in own):
            text += [f"### {region.capitalize()}", "", *table([one for one in own if one.region == region], COLUMNS), ""]
    there = {(one.study, one.encoder, one.way) for one in found}
    planned = [(study, e, way) for study, own in STUDIES.items() for e, ways in own.ways.items() for way in ways]
    absent = [" ".join(one) for one in planned if one not in there]
    text += [f"Planned and not finished, so in no table above: {'; '.join(absent)}.", ""] if absent else []
    text += [COSTS_HEAD, *table(costs, COSTS), "", PUBLISHED, "`python -m benchmarks.lora_floods --runs RUNS`"]
    return "\n".join(text) + "\n"


def measure(one: One, runs: Path, data: Path) -> None:
    """What a training costs, in a process of its own, where that is not known."""
    path = memory_path(one.study, one.encoder, one.way, runs)
    if not path.exists():
        words = ["--runs", str(runs), "--data", str(data), "--alone", one.study, one.encoder, one.way]
        command = [sys.executable, "-m", "benchmarks.lora_floods", *words]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, json.loads(done.stdout.splitlines()[-1]))


@click.command()
@click.option("--runs", type=click.Path(path_type=Path), required=True)
@click.option("--data", type=click.Path(path_type=Path, exists=True), default=Path("../shared/data"), show_default=True)
@click.option("--seeds", default="0,1", show_default=True)
@click.option("--studies", default=",".join(STUDIES), show_default=True)
@click.option("--no-training", is_flag=True, help="Tables of what is there.")
@click.option("--alone", nargs=3, help="STUDY ENCODER WAY: prints what its training costs.")
def main(runs: Path, data: Path, seeds: str, studies: str, no_training: bool, alone: tuple[str, str, str] | None) -> None:
    """As the module says."""
    if alone:
        click.echo(json.dumps(costs_of(One(*alone, STUDIES[alone[0]].folds[0], 0), runs, data)))
        return
    numbers, names = [int(s) for s in seeds.split(",")], studies.split(",")
    for one in () if no_training else every(numbers, names):
        one.train(runs, data)
        click.echo(f"seed {one.seed}: {one.study}, {one.encoder}, {one.way}, without {', '.join(one.held)}")
        measure(one, runs, data)
    found = [line for name in names for line in lines(name, runs, data, numbers)]
    costs = [line for name in names for line in learns(name, runs, numbers)]
    (RESULTS / "lora_floods.md").write_text(page(found, costs, numbers), encoding="utf-8")
    write_csv(RESULTS / "lora_floods.csv", found)
    write_csv(RESULTS / "lora_floods_cost.csv", costs)


if __name__ == "__main__":
    main()
