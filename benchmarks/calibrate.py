"""What a score is worth: isotonic regression on simulated scenes per method and kind of sensor, judged on real chips.

Run:     python -m benchmarks.calibrate [--data ../shared/data]
Writes:  benchmarks/results/calibration.csv (a row per method and event), calibration.md (the table), calibration.json (every
         table from score to likelihood), and aftermap/static/calibration.json: those that bring real chips nearer the truth
"""

from __future__ import annotations

import csv
import json
import platform
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from aftermap import calibration, pieces, raster
from aftermap.beside import kind_of
from aftermap.layer import Declared
from aftermap.scene import open_scene
from aftermap.seamless import Tiling, score_window
from aftermap.tiles import Window
from benchmarks import classical_real, flood_real

RESULTS = Path(__file__).parent / "results"
LEVELS, BINS, LEAST_EVENTS = 1000, 15, 2
SIZE, SEEDS = 768, (100, 101, 102)
SCENES: dict[str, tuple[dict[str, Any], ...]] = {
    "flood": tuple(
        {"sensor": s, "terrain": t} for s in ("sentinel-1", "sentinel-2") for t in ("plain", "hills", "alps", "andes")
    ),
    "landslide": tuple({"sensor": s, "terrain": t} for s in ("sentinel-1", "sentinel-2", "rgb") for t in ("alps", "andes")),
    "fracture": ({},),
    "building": ({},),
}
"""Hazard -> arguments of its simulator; each is made with every seed, and mapped as a pair and by its after image alone."""
MEANT = {"water": (0, 1), "bright surface": (2,), "rough surface": (2,)}
"""Class of a scorer -> bands of the simulated truth that it is meant to find; else the first."""
F64 = npt.NDArray[np.float64]
Histograms = dict[calibration.Key, dict[str, F64]]
"""Key -> event -> pixels (2, level): those without and with the hazard, by score."""


def scored(hazard: str, files: Mapping[str, Any], declared: Mapping[str, Declared]) -> Iterator[tuple[calibration.Key, Any]]:
    """The scores (y, x) of every method that these images allow."""
    scene = open_scene({k: [f] for k, f in files.items()}, hazard=hazard, declared=declared)
    whole = Window(0, 0, *scene.shape)
    for name in pieces.PIECES[hazard]:
        method = pieces.load(hazard, name)()
        if not method.why_not(scene):
            scorer = method.prepare(scene)
            pixels = np.concatenate([scene.read(i, whole) for i in scorer.inputs])
            kind = kind_of(next(iter(scene.seen(scorer.inputs).values())))

            def read(window: Window, pixels: Any = pixels) -> Any:
                return pixels[(..., *window.slices)]

            scores = score_window(scorer, read, whole, scene.shape, Tiling.of(scorer))[0]
            yield calibration.Key(hazard, name, kind, scorer.classes[0]), scores


def histogram(scores: Any, truth: Any) -> F64:
    """Pixels (2, level) where scored."""
    known = np.isfinite(scores)
    level = np.rint(scores[known].astype(np.float64) * LEVELS).astype(np.intp)
    return np.stack([np.bincount(level[truth[known] == t], minlength=LEVELS + 1) for t in (False, True)]).astype(np.float64)


def simulated() -> Histograms:
    """Histograms by key and scene."""
    found: Histograms = defaultdict(dict)
    for hazard, variants in SCENES.items():
        for arguments in variants:
            for seed in SEEDS:
                with tempfile.TemporaryDirectory() as folder:
                    _add_simulated(found, hazard, Path(folder), seed, arguments)
    return found


def _add_simulated(found: Histograms, hazard: str, folder: Path, seed: int, arguments: dict[str, Any]) -> None:
    pieces.load("simulate", hazard)(folder, size=SIZE, seed=seed, **arguments)
    with raster.open_raster(folder / "truth.tif") as src:
        bands = src.read() == 1
    both = {k: folder / f"{k}.tif" for k in ("after", "before")}
    for files in (both, {"after": both["after"]}):
        for key, scores in scored(hazard, files, {}):
            truth = np.logical_or.reduce([bands[k] for k in MEANT.get(key.finds, (0,))])
            found[key][" ".join([*map(str, arguments.values()), f"seed {seed}"])] = histogram(scores, truth)


def real(data: Path) -> Histograms:
    """Histograms by key and event."""
    found: Histograms = defaultdict(dict)
    for chip in flood_real.chips(data):
        if chip.truth is not None:
            with raster.open_raster(chip.truth) as src:
                labels = src.read(1)
            for given, _ in chip.trials:
                files = {k: given[k] for k in ("after", "before") if k in given}
                scores = scored("flood", files, given.get("declared", {}))
                _add(found, f"{chip.data} {chip.event}", scores, labels == chip.code, labels >= 0)
    for pictures in (classical_real.landslides, classical_real.fractures, classical_real.buildings):
        for picture in pictures(data):
            if np.isinf(picture.below):
                grid = open_scene({"after": [picture.after]}, hazard=picture.hazard, declared={"after": picture.declared}).grid
                truth = picture.truth(grid)
                found_here = scored(picture.hazard, {"after": picture.after}, {"after": picture.declared})
                # zoom levels of one town and tiles of one mosaic are no events of their own
                event = f"{picture.data} {picture.region}" if picture.hazard == "landslide" else picture.data
                _add(found, event, found_here, truth, np.ones_like(truth))
    return found


def _add(found: Histograms, event: str, scores: Iterator[tuple[calibration.Key, Any]], truth: Any, known: Any) -> None:
    for key, values in scores:
        added = histogram(np.where(known, values, np.nan), truth)
        found[key][event] = found[key].get(event, 0) + added


def error(counts: F64, knots: tuple[Sequence[float], Sequence[float]] | None = None) -> float:
    """Expected calibration error in 15 bins, of the scores or of what the knots make of them."""
    likelihood = np.arange(LEVELS + 1) / LEVELS
    likelihood = likelihood if knots is None else np.interp(likelihood, *knots)
    place = np.minimum((likelihood * BINS).astype(np.intp), BINS - 1)
    pixels = counts.sum(axis=0)
    gaps = np.bincount(place, pixels * likelihood - counts[1], minlength=BINS)
    return float(np.abs(gaps).sum() / max(pixels.sum(), 1))


def iou(counts: F64, knots: tuple[Sequence[float], Sequence[float]] | None = None) -> float:
    """IoU of what lies above 0.5 in score, or in what the knots make of it."""
    likelihood = np.arange(LEVELS + 1) / LEVELS
    above = (likelihood if knots is None else np.interp(likelihood, *knots)) > 0.5
    return float(counts[1, above].sum() / max(counts[1].sum() + counts[0, above].sum(), 1))


def rows_of(made: Histograms, chips: Histograms) -> Iterator[dict[str, Any]]:
    """A row per method and event, and one pooled for the simulated scenes and for the real chips of each."""
    for key, scenes in made.items():
        knots = calibration.isotonic(np.sum(list(scenes.values()), axis=0))
        for where, events in (("simulated", scenes), ("real", chips.get(key, {}))):
            pooled = {"pooled": np.sum(list(events.values()), axis=0)} if events else {}
            for event, counts in {**events, **pooled}.items():
                yield {
                    **key._asdict(), "where": where, "event": event, "events": len(events), "pixels": int(counts.sum()),
                    "hazard_share": round(float(counts[1].sum() / max(counts.sum(), 1)), 4),
                    "ece_score": round(error(counts), 4), "ece_calibrated": round(error(counts, knots), 4),
                    "iou_score": round(iou(counts), 4), "iou_calibrated": round(iou(counts, knots), 4),
                }  # fmt: skip


def verdict(events: Sequence[Mapping[str, Any]], pooled: Mapping[str, Any] | None) -> str:
    """Why a table is not used, in words; empty where it is: nearer the truth pooled and in most of several events."""
    if pooled is None:
        return "no real chips"
    if len(events) < LEAST_EVENTS:
        return f"real chips of {len(events)} event{'s' * (len(events) > 1)} only"
    better = sum(e["ece_calibrated"] < e["ece_score"] for e in events)
    if pooled["ece_calibrated"] >= pooled["ece_score"]:
        return "worse on real chips"
    return "" if 2 * better > len(events) else f"better in {better} of {len(events)} events only"


def tables(rows: Sequence[Mapping[str, Any]], made: Histograms) -> tuple[str, list[dict[str, Any]]]:
    """Markdown, and a table with its facts for each method; `unused` says why it is not used."""
    lines, entries = [], []
    for key, scenes in made.items():
        own = [r for r in rows if all(r[k] == v for k, v in key._asdict().items())]
        pooled = {r["where"]: r for r in own if r["event"] == "pooled"}
        events = [r for r in own if r["where"] == "real" and r["event"] != "pooled"]
        why, fit, chips = verdict(events, pooled.get("real")), pooled["simulated"], pooled.get("real")
        scores, likelihoods = calibration.isotonic(np.sum(list(scenes.values()), axis=0))
        cells = [key.hazard, key.method, key.kind, key.finds, str(len(scenes)), f"{fit['hazard_share']:.3f}",
                 f"{fit['ece_score']:.3f}", f"{fit['ece_calibrated']:.3f}"]  # fmt: skip
        there = ["–"] * 5 if chips is None else [
            str(len(events)), f"{chips['hazard_share']:.3f}", f"{chips['ece_score']:.3f}", f"{chips['ece_calibrated']:.3f}",
            f"{chips['iou_score']:.3f}, {chips['iou_calibrated']:.3f}",
        ]  # fmt: skip
        lines.append([*cells, *there, why or "**calibrated**"])
        entries.append({
            **key._asdict(), "scenes": len(scenes), "seeds": list(SEEDS), "ece_simulated": fit["ece_calibrated"],
            "events": len(events), "ece_real": chips and chips["ece_calibrated"],
            "ece_real_uncalibrated": chips and chips["ece_score"], "unused": why, "scores": scores, "likelihoods": likelihoods,
        })  # fmt: skip
    head = ("hazard", "method", "sensor", "finds", "scenes", "hazard share", "ECE of score", "ECE calibrated", "real events",
            "hazard share", "ECE of score", "ECE calibrated", "IoU at 0.5 of score, of likelihood", "used")  # fmt: skip
    body = "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))
    words = f"""# Calibration

{date.today().isoformat()}, {platform.machine()}, {platform.system()}, `python -m benchmarks.calibrate`.
Isotonic regression of truth on score over simulated scenes of {SIZE} px, seeds {SEEDS[0]} to {SEEDS[-1]}, at most
{calibration.MOST_KNOTS} knots; its expected calibration error (ECE, {BINS} bins) on those scenes and on real chips, pixels of all
events pooled. A table is used only where it lowers the ECE on real chips of at least {LEAST_EVENTS} events, pooled and in most
of them; else likelihood is the score, and says that it is uncalibrated. Which tables are used was decided on these chips:
they are not unseen data.

{body}
"""
    return words, entries


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), default=Path("../shared/data"), show_default=True)
def main(data: Path) -> None:
    """Simulates, fits, judges on real chips and writes all three files."""
    made, chips = simulated(), real(data)
    rows = list(rows_of(made, chips))
    with (RESULTS / "calibration.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    words, entries = tables(rows, made)
    (RESULTS / "calibration.md").write_text(words)
    for path, shown in ((RESULTS / "calibration.json", entries), (calibration.FILE, [e for e in entries if not e["unused"]])):
        made_by = {"command": "python -m benchmarks.calibrate", "date": date.today().isoformat(), "size_px": SIZE}
        lines = ",\n".join(json.dumps(e) for e in shown)
        path.write_text(f'{{"made_by": {json.dumps(made_by)},\n"tables": [\n{lines}\n]}}\n')
    click.echo(words)


if __name__ == "__main__":
    main()
