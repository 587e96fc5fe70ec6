"""A trained network into the package: graph and weights in half precision, calibrated on data that training did not see, its
scores on real chips beside every method without training, and whether it may lead, all in its card.

Run:     python -m benchmarks.bundle flood-s1 --from RUN/model [--unseen SIM-FOLDER] [--data ../shared/data]
         or `make models`, which trains first; with --known FOLDER it writes what the network knows from the chips there, and
         no more
Writes:  aftermap/models/NAME/ (model.toml, graph.xml, graph.bin, model.safetensors, known.npz), benchmarks/results/models.csv
         (a row per model, method and image) and models.md (the tables)
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from aftermap import calibration, learn, pieces, raster
from aftermap import recipe as recipes
from aftermap.card import BUNDLED, KNOWN, Card, Fit
from aftermap.datasets.dataset import open_dataset
from aftermap.engine import Network
from aftermap.export import export
from aftermap.journal import sha256
from aftermap.layer import Declared
from aftermap.metrics import Counts, Ranking
from aftermap.model import load, save_weights
from aftermap.samples import Samples, survey
from aftermap.scene import Scene, open_scene
from aftermap.tiles import Window
from aftermap.untrained import scores_of
from benchmarks import calibrate, classical_real, flood_real
from benchmarks.models_table import COLUMNS, RESULTS, leave, summaries, tables

LEVELS = calibrate.LEVELS
CLASSES = {"flood-s1": "water"}
"""What a network finds, where that is not its hazard."""
SEEN = {"landslide-rgb": ("A_taiwan_like",)}
"""Regions of the real pictures that a network has trained on."""
Truth = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Real:
    """A real image: where it is from, the scene, and its truth (y, x): 1, 0, or -1 unknown or left out."""

    data: str
    region: str
    image: str
    scene: Scene
    truth: Truth


def floods(data: Path) -> Iterator[Real]:
    """All chips of Sen1Floods11; a region is a country."""
    for chip in flood_real.chips(data):
        if chip.data == "sen1floods11" and chip.truth is not None:
            scene = open_scene({"after": [chip.trials[0][0]["after"]]}, hazard="flood", declared={"after": Declared(unit="dB")})
            truth = raster.read_window(chip.truth, Window(0, 0, *scene.shape), [1])[0].astype(np.int8)
            yield Real("Sen1Floods11", chip.event, chip.name, scene, truth)


def others(data: Path, hazard: str) -> Iterator[Real]:
    """The pictures of benchmarks/classical_real.py."""
    sources = {"landslide": classical_real.landslides, "fracture": classical_real.fractures, "building": classical_real.buildings}
    for picture in sources[hazard](data):
        scene = open_scene({"after": [picture.after]}, hazard=hazard, declared={"after": picture.declared})
        truth = picture.truth(scene.grid).astype(np.int8)
        if np.isfinite(picture.below):
            truth[raster.read_window(picture.after, Window(0, 0, *scene.shape), [1])[0] >= picture.below] = -1
        yield Real(picture.data, picture.region, picture.name, scene, truth)


def methods(hazard: str, network: Network) -> dict[str, Any]:
    """The network, then every method without training."""
    return {network.name: network} | {n: pieces.load(hazard, n)() for n in pieces.PIECES[hazard]}


def scored(real: Real, method: Any) -> npt.NDArray[np.float32]:
    """Scores (y, x) as a map would have them."""
    return scores_of(real.scene, method.prepare(real.scene))


def rows(data: Path, network: Network) -> Iterator[tuple[dict[str, Any], npt.NDArray[np.float64]]]:
    """A row per image and method that can run on it, with its pixels (2, level) of known truth by score.

    What benchmarks/classical_real.py has measured of a method is taken from there, without its pixels.
    """
    hazard, known = network.card.hazard, measured()
    for real in floods(data) if hazard == "flood" else others(data, hazard):
        about = {"model": network.name, "data": real.data, "region": real.region, "image": real.image}
        seen = int(real.region in SEEN.get(network.name, ()))
        for name, method in methods(hazard, network).items():
            if row := known.get((real.data, real.region, real.image, name)):
                c = classical_real.counts(row)
                yield {**about, "method": name, "seen": seen, **_numbers(c), "ap": row["ap"]}, np.zeros((2, LEVELS + 1))
            elif not method.why_not(real.scene):
                scores = scored(real, method)
                there, ranking = np.isfinite(scores) & (real.truth >= 0), Ranking()
                ranking.add(scores[there], real.truth[there] == 1)
                c = Counts.of(scores[there] > 0.5, real.truth[there] == 1)
                row = {**about, "method": name, "seen": seen, **_numbers(c), "ap": ranking.average_precision}
                yield row, calibrate.histogram(np.where(there, scores, np.nan), real.truth == 1)


def measured() -> dict[tuple[str, ...], Mapping[str, Any]]:
    """The rows of classical_real.csv, by data, region, image and method."""
    with (RESULTS / "classical_real.csv").open() as stream:
        return {(r["data"], r["region"], r["image"], r["method"]): r for r in csv.DictReader(stream)}


def _numbers(c: Counts) -> dict[str, Any]:
    return {"tp": c.tp, "fp": c.fp, "fn": c.fn, "tn": c.tn, "iou": c.iou, "f1": c.f1}


def unseen_samples(folder: Path, card: Card) -> Samples:
    """The test scenes of the simulator's folder, read as in training."""
    recipe = recipes.read(card.name)
    dataset = open_dataset(folder, recipe.data.kind, **recipe.data.settings)
    return survey(dataset, recipe.inputs, size=recipe.chips.size, normalise=recipe.normalise)


def fitted(network: Network, folder: Path) -> tuple[Fit, dict[str, Any]]:
    """Isotonic regression on the test scenes, whose ECE is that of a fit to every other scene, and the scores there."""
    samples = unseen_samples(folder, network.card)
    halves = np.zeros((2, 2, LEVELS + 1))
    order = {event: k % 2 for k, event in enumerate(samples.events["test"])}
    for name in samples.ids("test"):
        chip = samples.read(name)
        assert chip.truth is not None
        scores = np.where(chip.labelled, network(samples.as_mapped(chip)[None], chip.valid[None])[0, 0], np.nan)
        halves[order[chip.event]] += calibrate.histogram(scores, chip.truth == 1)
    pooled = halves.sum(axis=0)
    left = (
        sum(calibrate.error(halves[1 - k], calibration.isotonic(halves[k])) * halves[1 - k].sum() for k in (0, 1)) / pooled.sum()
    )
    knots = calibration.isotonic(pooled)
    on = f"{len(order)} simulated scenes that neither trained it nor chose its checkpoint"
    fit = Fit(round(float(left), 4), on, scores=tuple(knots[0]), likelihoods=tuple(knots[1]))
    there = {"images": len(order), "iou": round(calibrate.iou(pooled), 4), "ece_score": round(calibrate.error(pooled), 4)}
    return fit, {**there, "ece": fit.ece}


def bundled(run: Path, name: str) -> Card:
    """Writes graph and card, not yet calibrated and without leave, into the package."""
    model, card = load(run)
    folder = BUNDLED / name
    shutil.rmtree(folder, ignore_errors=True)
    graph = export(model, folder, card)
    weights = save_weights(folder, model, half=True)
    files = {f.name: sha256(f) for f in (graph, graph.with_suffix(".bin"), weights)}
    card = replace(card, name=name, classes=(CLASSES.get(name, card.hazard),), sha256=files, scores=(), leads=False, why="")
    card.write(folder)
    return card


def remembered(name: str, data: Path) -> Card:
    """Writes known.npz from the chips of a folder: of the simulator scenes that the network has not seen, every third of which is
    for comparison; of real data the chips of training, and those that chose the checkpoint."""
    recipe = recipes.read(name)
    dataset = open_dataset(data, recipe.data.kind, **recipe.data.settings)
    events = dataset.events
    fresh = {"train": [e for k, e in enumerate(events) if k % 3], "validation": events[::3]}
    split = fresh if dataset.name == "simulated" else recipe.split
    samples = survey(dataset, recipe.inputs, split=split, size=recipe.chips.size, normalise=recipe.normalise)
    return learn.remember(BUNDLED / name, samples, seed=0)


@click.command()
@click.argument("name")
@click.option(
    "--from", "run", type=click.Path(path_type=Path, exists=True), help="The run's model folder; else only scores anew."
)
@click.option(
    "--unseen", type=click.Path(path_type=Path, exists=True), help="Simulated scenes; else the run's calibration stays."
)
@click.option("--known", type=click.Path(path_type=Path, exists=True), help="Chips that it is to know; then nothing is scored.")
@click.option("--data", type=click.Path(path_type=Path, exists=True), default=Path("../shared/data"), show_default=True)
def main(name: str, run: Path | None, unseen: Path | None, known: Path | None, data: Path) -> None:
    """Bundles a network, then writes the tables of all that are bundled."""
    if known is not None:
        click.echo(f"{name} knows {known}: {remembered(name, known).sha256[KNOWN]}")
        return
    card = bundled(run, name) if run else Card.read(BUNDLED / name)
    network = Network.open(BUNDLED / name, precision="f32")
    simulated: list[Mapping[str, Any]] = []
    if unseen is not None:
        fit, there = fitted(network, unseen)
        card, simulated = replace(card, calibration=fit), [{"data": "simulated", "method": name, **there}]
    found = list(rows(data, network))
    leads, why = leave(name, [row for row, _ in found])
    summary = summaries([row for row, _ in found], name, _calibrated(name, card, found))
    replace(card, leads=leads, why=why, scores=(*summary, *simulated)).write(BUNDLED / name)
    path = RESULTS / "models.csv"
    kept = [r for r in csv.DictReader(path.open()) if r["model"] != name] if path.exists() else []
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted([*kept, *(row for row, _ in found)], key=lambda r: r["model"]))
    with path.open() as stream:
        (RESULTS / "models.md").write_text(tables(list(csv.DictReader(stream))))
    click.echo(f"{name} leads: {leads}; {why}")


def _calibrated(
    name: str, card: Card, found: Sequence[tuple[Mapping[str, Any], npt.NDArray[np.float64]]]
) -> dict[str, tuple[float, float]]:
    """Data set -> calibration error on it of the network's scores, and of its likelihoods."""
    errors = {}
    for data in dict.fromkeys(str(row["data"]) for row, _ in found):
        own = [pixels for row, pixels in found if (row["data"], row["method"]) == (data, name) and not row["seen"]]
        if own:
            table = card.calibration.table() if card.calibration else None
            knots = (table.scores, table.likelihoods) if table else None
            errors[data] = (calibrate.error(sum(own)), calibrate.error(sum(own), knots))  # type: ignore[arg-type]
    return errors


if __name__ == "__main__":
    main()
