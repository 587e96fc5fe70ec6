"""The command line of training: `aftermap train`, `run`, `report` and `export`; arguments only."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from aftermap.cli_words import names, number
from aftermap.errors import UsageError
from aftermap.manyfiles import ManyFiles
from aftermap.pieces import HAZARDS
from aftermap.progress import Progress

_FILES = click.Path(path_type=Path)
_SET = click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of the data set, as docs/data.md lists."
)
_OWN = {
    "bn": ("mode", "momentum", "prior"), "self-train": ("rounds", "keep", "balanced", "steps"),
    "bidirectional": ("arms", "iterations"), "labels": ("lr", "steps"),
}  # fmt: skip
"""Method of adaptation -> its own options, as the card of the model tells them."""
_BLIND = ("bn", "self-train", "bidirectional")
_SHARED = {
    "source": ("self-train", "bidirectional"), "beside": ("self-train",), "steps": ("self-train", "labels"), "method": _BLIND,
    "shots": _BLIND, "kind": _BLIND, "settings": _BLIND, "before": ("labels",),
}  # fmt: skip
"""Further options -> methods that have them; "labels" is what --labels does."""
_SPELT = {"beside": "--with", "settings": "--set"}
_SHOWN = ("iou", "f1", "precision", "recall", "balanced_accuracy")
_OF_SEVERAL = ("macro_iou", "macro_f1", "accuracy", "localisation_f1", "damage_f1", "xview2", "rmse", "r2")
_TRIVIAL = {
    "all_hazard": "marking everything", "commonest": "always the commonest class", "no_class": "never any class",
    "mean": "always the mean",
}  # fmt: skip


@click.command()
@click.option(
    "--data", type=_FILES, required=True, help="Folder of images and masks, of `aftermap chips`, or a published data set."
)
@click.option(
    "--hazard", type=click.Choice(HAZARDS), required=True, help="What label 1 (and above) is, unless --classes names it."
)
@click.option("-o", "--out", type=_FILES, required=True, help="Folder for the model; goes on with an unfinished training in it.")
@click.option("--kind", default="", help="Name of the data set, where its layout does not tell.")
@_SET
@click.option("--classes", default="", help="Classes of the labels to tell apart, by name.  [default: the hazard from all else]")
@click.option("--inputs", default="", help="Layers or bands, for example after,before or after.VV.  [default: all layers]")
@click.option("--encoder", default="resnet18", show_default=True, help="Any encoder of timm, or mit_b0 to mit_b5.")
@click.option("--decoder", default="unet", show_default=True, help="unet, unet_plain, fpn, segformer, upernet, deeplabv3 or ocr.")
@click.option("--weights", default="none", show_default=True, help="hub: those of the encoder's publisher, fetched once.")
@click.option("--epochs", default=30.0, show_default=True, help="Passes over the chips.")
@click.option("--batch", default=16, show_default=True, help="Chips per step.")
@click.option("--lr", default=1e-3, show_default=True, help="Largest learning rate.")
@click.option(
    "--size", default=0, help="Side of what is trained on, in px, a multiple of 32.  [default: the chips', at most 256]"
)
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the row of results as JSON.")
@click.option("--quiet", is_flag=True, help="No progress.")
def train(data: Path, out: Path, kind: str, settings: Sequence[str], as_json: bool, quiet: bool, **given: Any) -> None:
    """Train a model on your own images and masks; `aftermap map --model` then maps with it."""
    from aftermap import experiment
    from aftermap.page import Chips, Data, Network, Step, Train
    from aftermap.recipe import Recipe
    from aftermap.strict import setting

    inputs = names(given["inputs"])
    classes = names(given["classes"])
    own = Data(kind, dict(map(setting, settings)))
    network = Network(given["encoder"], given["decoder"], weights=given["weights"])
    step = Step(Train({"dice": 1, "focal": 10}, epochs=given["epochs"], batch=given["batch"], lr=given["lr"]))
    page = Recipe(
        hazard=given["hazard"], inputs=inputs or experiment.layers(data, own), model=network, steps=(step,), data=own,
        classes=classes, chips=Chips(given["size"]), name="train",
    )  # fmt: skip
    words = {"--data": data.name, "--kind": kind} | {f"--{k}": v for k, v in given.items()}
    made_by = shlex.join(["aftermap", "train", *(f"{k}={v}" for k, v in words.items() if v not in ("", 0) or k == "--seed"),
                          *(f"--set={one}" for one in settings)])  # fmt: skip
    with Progress(quiet) as progress:
        row = experiment.train_own(page, data, out, seed=given["seed"], made_by=made_by, progress=progress)
    if as_json:
        click.echo(json.dumps(row))
        return
    _say(row)
    click.echo(f"model  {out}; aftermap map --model {out} --hazard {given['hazard']} --after IMAGE -o MAP")


@click.command()
@click.argument("recipe")
@click.option("--on", "data", type=_FILES, required=True, help="Folder of the data set.")
@click.option("-o", "--out", type=_FILES, required=True, help="Folder for models and rows; what is there is not made again.")
@click.option("--seeds", default="0", show_default=True, help="One training each: 0,1,2.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="In place of what the recipe says: steps.0.train.lr=1e-4."
)
@click.option(
    "--target", "targets", multiple=True, metavar="NAME=FOLDER", help="Images of a target of the recipe, which it never saw."
)
@click.option("--pretrain-on", type=_FILES, help="Data of the recipe's pretraining, where that is not --on.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows of results as JSON.")
@click.option("--quiet", is_flag=True, help="No progress.")
def run(
    recipe: str, data: Path, out: Path, seeds: str, overrides: Sequence[str], targets: Sequence[str],
    pretrain_on: Path | None, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Train and score a RECIPE, or ask what it probes: a name of docs/train.md, or a TOML file."""
    from aftermap import asked, experiment

    names = [s.strip() for s in seeds.split(",")]
    if not all(s.isdigit() for s in names):
        raise UsageError(f"--seeds is {seeds!r}", repair="give whole numbers with commas: 0,1,2")
    if wrong := [one for one in targets if "=" not in one]:
        raise UsageError(f"--target {wrong[0]} has no folder", repair="say --target NAME=FOLDER")
    folders = {name: Path(folder) for name, _, folder in (one.partition("=") for one in targets)}
    if asked.asks(recipe):
        if targets or pretrain_on:
            raise UsageError(f"{recipe} trains nothing", repair="leave --target and --pretrain-on out")
        _ask(recipe, data, out, [int(s) for s in names], overrides, as_json, quiet)
        return
    with Progress(quiet) as progress:
        rows = experiment.run(
            recipe, data, out, seeds=[int(s) for s in names], overrides=overrides, targets=folders, pretrain_on=pretrain_on,
            progress=progress,
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        _say(row)
    click.echo(f"rows   {out}; aftermap report {out}")


def _ask(
    recipe: str, data: Path, out: Path, seeds: Sequence[int], overrides: Sequence[str], as_json: bool, quiet: bool
) -> None:  # fmt: skip
    from aftermap import asked, probing

    with Progress(quiet) as progress:
        found = asked.run(recipe, data, out, seeds=seeds, overrides=overrides, progress=progress)
    lines = [line for folder, facts in found.items() for line in probing.words(facts, folder)]
    click.echo(json.dumps([*found.values()]) if as_json else "\n".join(lines))


def _say(row: dict[str, Any]) -> None:
    sides = ", ".join(f"{n} {side}" for side, n in row["samples"].items() if n)
    click.echo(f"{row['recipe']}, seed {row['seed']}: {sides} samples")
    if row["validation_dealt"]:
        click.echo("  no event was left to choose the checkpoint by: chips of the same events as those of training did")
    if told := row.get("pretraining"):
        click.echo(f"  loss {told['first_loss']:.3f}, then {told['loss']:.3f}; spread of embeddings {told['spread']:.3f}")
        for why, n in row["skipped"].items():
            click.echo(f"  {n} squares left out: {why}")
        return
    if row["scores"] is None:
        click.echo("  not scored: no event was left to test on; give train/ and test/, or three events")
        return
    seen = "events it has not seen" if row["unseen"] else "chips of events it has also seen"
    for shown in (_SHOWN, _OF_SEVERAL):
        if words := [f"{w} {number(row['scores'][w])}" for w in shown if w in row["scores"]]:
            click.echo(f"  {'  '.join(words)}; on {seen}")
    for rule, words_of in _TRIVIAL.items():
        told = {k: v for k, v in row["trivial"].get(rule, {}).items() if isinstance(v, float | int) and " of " not in k}
        if told:
            click.echo(f"  {words_of}: " + ", ".join(f"{k} {v:.3f}" for k, v in told.items()))


@click.command()
@click.argument("folder", type=_FILES)
@click.option("--json", "as_json", is_flag=True, help="Print the lines as JSON.")
@click.option("--pdf", is_flag=True, help="Of a delivered map: one page to print, FOLDER/map.pdf.")
def report(folder: Path, as_json: bool, pdf: bool) -> None:
    """Table and figure of all trainings in a FOLDER: report.md, report.csv, report.json and report.png; unseen.md, unseen.csv and
    unseen.png of the targets that they were tried on. With --pdf, FOLDER is a delivered map."""
    if pdf:
        _print(folder)
        return
    from aftermap import results, unseen_table
    from aftermap.figures import draw_results, draw_unseen

    rows = results.gather(folder)
    found = results.lines(rows)
    results.write(folder, rows, found)
    if found:
        draw_results(folder / "report.png", found)
    if tried := unseen_table.lines(unseen_table.gather(folder)):
        unseen_table.write(folder, tried)
        draw_unseen(folder / "unseen.png", tried)
    click.echo(json.dumps([vars(one) for one in found]) if as_json else results.table(rows, found), nl=as_json)
    if tried and not as_json:
        click.echo(f"\ntargets  {folder / 'unseen.md'}")


def _print(folder: Path) -> None:
    from aftermap.hazardmap import HazardMap
    from aftermap.printmap import write_pdf

    write_pdf(HazardMap(folder), folder / "map.pdf")
    click.echo(f"to print  {folder / 'map.pdf'}")


@click.command()
@click.argument("model")
@click.option("--format", "kind", default="openvino", show_default=True, help="openvino (graph.xml) or onnx (graph.onnx).")
def export(model: str, kind: str) -> None:
    """Make the graph that maps from the weights of a MODEL (name or folder), and enter it in its card."""
    from aftermap import card
    from aftermap.model import add_graph

    folder = card.find(model)
    add_graph(folder, kind)
    click.echo(f"graph  {folder}, as {kind}; its card has the checksum")


@click.command(cls=ManyFiles)
@click.argument("model")
@click.option(
    "--to", multiple=True, type=_FILES, help="Unlabelled images, or folders of data sets. Of --labels: maps too; else beside it."
)
@click.option("-o", "--out", type=_FILES, required=True, help="Folder for the adapted model.")
@click.option("--labels", type=_FILES, help="corrections.gpkg of a map of --to: taught by these labels, in place of --method.")
@click.option("--before", multiple=True, type=_FILES, help="Of --labels: the images before, one for each of --to.")
@click.option("--lr", default=3e-4, show_default=True, help="Of --labels: learning rate.")
@click.option(
    "--method",
    type=click.Choice(["bn", "self-train", "bidirectional"]),
    default="bn",
    show_default=True,
    help="As docs/adapt.md has it.",
)
@click.option("--shots", default=50, show_default=True, help="Crops to take, fewer where there are not so many.")
@click.option("--mode", default="ema", show_default=True, help="ema, reset, prior or batch.")
@click.option("--source", type=_FILES, help="Of self-train, bidirectional: the labelled data set that the model was trained on.")
@click.option(
    "--arms", default="forward", show_default=True, help="Of bidirectional: forward,backward,bdi; the last two need --source."
)
@click.option("--with", "beside", multiple=True, help="Of self-train: a further model that labels and learns too; repeatable.")
@click.option("--rounds", default=3, show_default=True, help="Of self-train: how often labels are made anew.")
@click.option("--keep", type=float, help="Of self-train, in place of --balanced: least probability of a label; 0.7 in the paper.")
@click.option(
    "--balanced", default=0.5, show_default=True, help="Of self-train: of the pixels called a class the surest share is labels."
)
@click.option("--steps", default=200, show_default="200; 20", help="Of self-train: of each round. Of --labels: at most so many.")
@click.option("--iterations", default=1000, show_default=True, help="Of bidirectional.")
@click.option("--momentum", default=0.1, show_default=True, help="Of ema: how far each crop moves the statistics.")
@click.option("--prior", default=16.0, show_default=True, help="Of prior: how many crops the training counts as.")
@click.option("--seed", default=0, show_default=True, help="Of the order of crops.")
@click.option("--band-map", default="auto", show_default=True, help="How bands become the model's, where it reads others.")
@click.option("--bands", default="", help="Names of the bands of image files in file order.")
@click.option("--sensor", default="", help="Sensor of image files, where they do not say.")
@click.option("--unit", default="", help="Unit of image files, where they do not say.")
@click.option("--kind", default="", help="Name of the data set of a folder, where its layout does not tell.")
@_SET
def adapt(model: str, to: Sequence[Path], out: Path, settings: Sequence[str], **given: Any) -> None:
    """Adapt a MODEL (name or folder) to unlabelled images, or teach it by corrections, for `aftermap map --model`."""
    from aftermap import readapt
    from aftermap.adapt.norm import Adaptation
    from aftermap.layer import Declared
    from aftermap.page import Data
    from aftermap.strict import setting

    bands = names(given["bands"])
    _refuse_options("labels" if given["labels"] else given["method"])
    if given["labels"]:
        _teach(model, to or (given["labels"].parent,), out, given)
        return
    if not to:
        raise UsageError("there is nothing to adapt to", repair="give unlabelled images: --to after.tif")
    told = ("method", "shots", "seed", "bands", *_OWN[given["method"]])
    said = {f"--{k}": given[k] for k in told if given[k] not in (None, "")}
    declared = Declared(bands=bands, sensor=given["sensor"], unit=given["unit"])
    unlabelled = readapt.Unlabelled(to, given["band_map"], declared, Data(given["kind"], dict(map(setting, settings))))
    made_by = shlex.join(["aftermap", "adapt", Path(model).name, *(f"--to={one.name}" for one in to),
                          *(f"{k}={v}" for k, v in said.items())])  # fmt: skip
    if given["method"] == "bn":
        how = Adaptation(given["shots"], given["mode"], given["momentum"], given["prior"], given["seed"])
        card = readapt.readapt(model, unlabelled, out, how, made_by=made_by)
    elif given["method"] == "self-train":
        refined = {"rounds": given["rounds"], "steps": given["steps"], "balanced": given["balanced"]}
        if given["keep"] is not None:
            refined |= {"keep": given["keep"], "balanced": 0.0}
        made = readapt.refine(
            [model, *given["beside"]], unlabelled, out, given["shots"], refined, source=given["source"], seed=given["seed"],
            made_by=made_by, said=_say_round,
        )  # fmt: skip
        card = made[0]
    else:
        own = {"arms": [name.strip() for name in given["arms"].split(",")], "iterations": given["iterations"]}
        card = readapt.reteach(
            model, unlabelled, out, given["shots"], own, source=given["source"], seed=given["seed"], made_by=made_by
        )
    click.echo(f"model  {out}; {card.training_data.rpartition('; adapted without labels: ')[2]}")


def _refuse_options(method: str) -> None:
    """Raises UsageError for an option of another method, which would do nothing."""
    of = {name: (owner,) for owner, names in _OWN.items() for name in names} | _SHARED
    context = click.get_current_context()
    for name, owners in of.items():
        if method not in owners and context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            ways = " or ".join("--labels" if one == "labels" else f"--method {one}" for one in owners)
            raise UsageError(f"{_SPELT.get(name, f'--{name}')} is of {ways}", repair="leave it out, or choose what it is of")


def _teach(model: str, to: Sequence[Path], out: Path, given: Mapping[str, Any]) -> None:
    from aftermap.experiment import refuse_without_extra
    from aftermap.layer import Declared

    refuse_without_extra()
    from aftermap import corrected

    source = click.get_current_context().get_parameter_source("steps")
    steps = given["steps"] if source is click.core.ParameterSource.COMMANDLINE else corrected.Teaching().steps
    how = corrected.Teaching(steps, given["lr"], seed=given["seed"])
    declared = Declared(bands=names(given["bands"]), sensor=given["sensor"], unit=given["unit"])
    made_by = shlex.join(["aftermap", "adapt", Path(model).name, *(f"--to={one.name}" for one in to),
                          *(f"--before={one.name}" for one in given["before"]), f"--labels={given['labels'].name}",
                          f"--steps={steps}", f"--lr={how.lr}", f"--seed={how.seed}"])  # fmt: skip
    images = corrected.Images(to, given["before"], given["band_map"], declared)
    with Progress(quiet=False) as progress:
        card = corrected.teach(model, images, given["labels"], out, how, made_by=made_by, progress=progress)
    click.echo("\n  ".join([f"model  {out}", *card.why.split("; ")]))
    click.echo(f"to map with it: {images.command(out, card.hazard)} -o ANOTHER")


def _say_round(row: Mapping[str, Any]) -> None:
    of = [(name.replace("_", " "), one[name]) for one in row.get("networks", []) for name in one if name != "loss"]
    scores = [f"{name} {number(value)}" for name, value in of]
    barren = [] if row["prevalence"] else ["so it learns that there is none"]
    ended = [row["stopped"]] if "stopped" in row else []
    found = f"{row['labelled']:.1%} of pixels labelled, {row['prevalence']:.1%} of them hazard"
    click.echo(f"round {row['round']}  {found}; {', '.join([*scores, *barren, *ended])}")


@click.command(cls=ManyFiles)
@click.argument("model")
@click.option("--to", multiple=True, type=_FILES, required=True, help="Images, or folders of data sets, whose labels score.")
@click.option("--from", "source", multiple=True, type=_FILES, help="The same to measure from.  [default: what MODEL knows]")
@click.option("-o", "--out", type=_FILES, help="Folder for drift.json, drift.csv (a row per chip) and drift.txt.")
@click.option("--most", default=512, show_default=True, help="Chips of each side.")
@click.option("--seed", default=0, show_default=True, help="Of the chips, directions and permutations drawn.")
@click.option("--band-map", default="auto", show_default=True, help="How bands become the model's, where it reads others.")
@click.option("--bands", default="", help="Names of the bands of image files in file order.")
@click.option("--sensor", default="", help="Sensor of image files, where they do not say.")
@click.option("--unit", default="", help="Unit of image files, where they do not say.")
@click.option("--kind", default="", help="Name of the data set of --to, where its layout does not tell.")
@_SET
@click.option("--from-kind", default="", help="The same of --from.")
@click.option("--from-set", "from_settings", multiple=True, metavar="KEY=VALUE", help="A setting of the data set of --from.")
@click.option("--json", "as_json", is_flag=True, help="Print the distances as JSON.")
@click.option("--quiet", is_flag=True, help="No progress.")
def drift(
    model: str, to: Sequence[Path], source: Sequence[Path], out: Path | None, most: int, seed: int, as_json: bool, quiet: bool,
    settings: Sequence[str], from_settings: Sequence[str], **given: Any,
) -> None:  # fmt: skip
    """How far the images of one set lie from another, or from what a MODEL (name or folder) knows, and whether its errors grow
    with that."""
    from aftermap import drift as drifting
    from aftermap.layer import Declared
    from aftermap.page import Data
    from aftermap.strict import setting

    bands = names(given["bands"])
    declared = Declared(bands=bands, sensor=given["sensor"], unit=given["unit"])
    sides = [
        drifting.Seen(paths, Data(kind, dict(map(setting, own))), given["band_map"], declared) if paths else None
        for paths, kind, own in ((to, given["kind"], settings), (source, given["from_kind"], from_settings))
    ]
    assert sides[0] is not None
    with Progress(quiet) as progress:
        facts, rows = drifting.drift(model, sides[0], sides[1], most=most, seed=seed, progress=progress)
    if out is not None:
        drifting.write(out, facts, rows)
    click.echo(json.dumps(facts) if as_json else "\n".join(drifting.words(facts)))
