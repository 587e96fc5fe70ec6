"""Networks on hazards that they never saw, before and after batch norm is estimated anew; figure 1 of Jakubik et al. anew.

Run:     python -m benchmarks.unseen --runs runs [--data ../shared/data] [--pretask DIR] [--seeds 0,1,2,3,4,5,6] [--only RECIPE]
Writes:  benchmarks/results/unseen.md, unseen.csv and unseen.jpg; RUNS/RECIPE holds models and scores, and what is there is not
         made again. PRETASK holds the chips of benchmarks/pretask.py: building and mixed. Some hours on two cores.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from aftermap import experiment, recipe, unseen_table
from aftermap.adapt.decide import SHOTS
from aftermap.card import Card
from aftermap.engine import Network
from aftermap.figures import draw_unseen
from aftermap.journal import digest
from aftermap.model import Spec, build, save
from aftermap.scorer import LayerBands
from aftermap.targets import Images
from aftermap.unseen import Known, Variant
from aftermap.unseen_table import Line

RESULTS = Path(__file__).parent / "results"
TARGETS = {
    "floods-s11": "flood_sen1floods11", "floods-ombria-s1": "flood_ombria", "floods-ombria-s2": "flood_ombria",
    "fractures": "glacier_fracture_antarctica", "fractures-unsaturated": "glacier_fracture_antarctica",
    "landslides-l4s": "landslide_l4s_rgb", "landslides-bijie": "landslide_bijie",
    "landslides-tianshui": "landslide_tianshui",
}  # fmt: skip
STUDIES = {"building-pretask-small": "building", "mixed-hazards": "mixed", "bidirectional": "mixed"}
"""Recipe -> the chips that it learns from."""
BACKBONES = ("seresnext50", "dpn92")
"""Larger encoders of the paper, one seed each, tried on `LARGE`; SENet-154 was not run: hours on two cores."""
LARGE = ("floods-s11", "fractures", "landslides-l4s")
OBJECTS = 21
"""Classes of Pascal VOC, the background first."""
HEAD = """# Networks on hazards that they never saw

{made}. No label of a target was used but to score: not for training, adapting, choosing a threshold or a checkpoint.

- **BA at 95 %**: balanced accuracy of all pixels pooled, the top 5 % of every image marked, which is the paper's rule.
  *Ceiling*: the best that rule could reach on these labels. *Best percentile* is chosen with the labels, to show what
  thresholding costs.
- **BA even**, **BA Otsu**: thresholds without labels, one for all images of a target (`aftermap map --cut`).
- **gain of AP**: over the same network as it was trained, mean over seeds, 95 % when other images are drawn.
  *Of other images*: the same on images that gave no crop.
- **p (Holm)**: that the balanced accuracy per image is no better than noise or than the network before training, the
  larger of both, corrected over all lines; a star where it is at most 0.01 uncorrected, as in the paper.
- *without training*: what `aftermap map` takes without a network. *untrained*: first weights, batch norm as it begins.
- Published (trained on xBD with ImageNet weights, other images: no yardstick to the digit): balanced accuracy of
  ResNet-34 with 0, 1, 5, 50 crops: floods 0.53, 0.54, 0.57, -; fractures 0.64, 0.66, 0.66, 0.71; landslides 0.61, 0.61,
  0.62, 0.63.
"""


AUTO = """The rule looks at bands alone: radar and grey made into pictures of three are adapted to, pictures in colour are
not. It was formed on seeds 0 to 2 of `building-pretask-small` and 0 to 1 of `mixed-hazards`, on all targets but Tianshui,
which had no part in it, nor had the later seeds. An earlier rule, by whether the scores part better after adaptation, lost
less than 0.01 too but left out most of the gain, and was dropped."""


def decisions(found: Sequence[Line]) -> Iterator[str]:
    """What --adapt auto came to, beside knowing for each target whether ten crops help."""
    yield from (
        "## When to adapt",
        "",
        AUTO,
        "",
        "| recipe | targets adapted | worst | sum of gains of AP | of the best choice |",
    )
    yield "|---|---|---|---|---|"
    of = {(one.recipe, one.target, one.variant): one for one in found}
    for name in dict.fromkeys(one.recipe for one in found if one.variant == "auto"):
        targets = [one.target for one in found if (one.recipe, one.variant) == (name, "auto")]
        gains = [of[name, target, "auto"].gain_ap or 0.0 for target in targets]
        best = [max(0.0, of[name, target, f"bn-ema-{SHOTS}"].gain_ap or 0.0) for target in targets]
        taken = sum(of[name, target, "auto"].crops > 0 for target in targets)
        share = f"{sum(gains):+.3f} | {sum(best):+.3f} ({100 * sum(gains) / sum(best):.0f} %)"
        yield f"| {name} | {taken} of {len(targets)} | {min(gains):+.3f} | {share} |"
    yield ""


def write(found: Sequence[Line]) -> None:
    """The tables and the figure of what is there."""
    made = f"{date.today()}, {platform.machine()}, 2 cores, `python -m benchmarks.unseen`"
    text = HEAD.format(made=made) + "\n![balanced accuracy and AP by crops](unseen.jpg)\n\n"
    text += "\n".join([*decisions(found), "", "## Every target", "", unseen_table.table(found)])
    unseen_table.write(RESULTS, found)
    (RESULTS / "unseen.md").write_text(text, encoding="utf-8")
    shown = [one for one in found if one.recipe in list(STUDIES)[:2] or one.variant == "classical"]
    draw_unseen(RESULTS / "unseen.jpg", shown)


def natural(runs: Path, data: Path, seeds: Sequence[int]) -> None:
    """DeepLabV3 with 21 classes, hazard being any but the background (methods.md A.7); weights of COCO were not here: random."""
    page = recipe.read("building-pretask-small")
    for seed in seeds:
        out = runs / "deeplabv3" / f"deeplabv3-seed{seed}-random"
        with TemporaryDirectory() as folder:
            classes = ("background", *(f"object {k}" for k in range(1, OBJECTS)))
            card = Card(
                name="deeplabv3", hazard="building", classes=classes, hazard_classes=classes[1:],
                inputs=(LayerBands("after", ("red", "green", "blue"), "digital_number"),), mean=(127.5,) * 3, std=(127.5,) * 3,
                halo_px=64, multiple_of=32, training_data="none: random weights", licence="Apache-2.0", made_by="benchmarks",
                sha256={}, seed=seed,
            )  # fmt: skip
            save(Path(folder), build(Spec("resnet18", "deeplabv3", (3,), OBJECTS), seed=seed), card)
            network = Network.open(Path(folder))
            for name, place in TARGETS.items():
                images = Images.of(page.targets[name], data / place, network.card)
                known = Known(out / experiment.UNSEEN / name, digest([seed, images.sha256]))
                known.once("source", lambda: nullcontext(([network], Variant("source"))), images)  # noqa: B023


@click.command(help=__doc__)
@click.option("--data", type=click.Path(exists=True, path_type=Path), default=Path("../shared/data"))
@click.option("--pretask", type=click.Path(path_type=Path), default=Path("pretask"))
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"))
@click.option("--seeds", default="0,1,2,3,4,5,6")
@click.option("--only", multiple=True, help="Recipes; by default all.")
@click.option("--no-training", is_flag=True, help="Only the tables of what is there.")
def main(data: Path, pretask: Path, runs: Path, seeds: str, only: tuple[str, ...], no_training: bool) -> None:
    """As the module says."""
    chosen = [int(s) for s in seeds.split(",")]
    targets = {name: data / folder for name, folder in TARGETS.items()}
    for name, chips in STUDIES.items():
        if not no_training and (not only or name in only):
            experiment.run(name, pretask / chips, runs / name, seeds=chosen, targets=targets)
    for encoder in () if no_training or only else BACKBONES:
        large, out = {name: targets[name] for name in LARGE}, runs / f"large-{encoder}"
        said = [f"model.encoder={encoder}"]
        experiment.run("building-pretask-small", pretask / "building", out, seeds=[0], overrides=said, targets=large)
    if not no_training and (not only or "deeplabv3" in only):
        natural(runs, data, chosen)
    write(unseen_table.lines(unseen_table.gather(runs)))


if __name__ == "__main__":
    main()
