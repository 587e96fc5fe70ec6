"""Radar and optical images of one flood: is the map of both better than that of either, and how should they be combined?

Run:     python -m benchmarks.calibrate, then python -m benchmarks.fusion [--data ../shared/data]
Writes:  benchmarks/results/fusion.csv (a row per event and way) and fusion.md (the table)
"""

from __future__ import annotations

import csv
import json
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from aftermap import raster
from aftermap.calibration import Key
from aftermap.layer import Declared
from aftermap.metrics import Counts, Reliability
from aftermap.simulate.flood import simulate
from benchmarks.calibrate import scored
from benchmarks.flood_real import chips, interval

RESULTS = Path(__file__).parent / "results"
SIZE, SEEDS, TERRAINS = 768, (10, 11), ("plain", "hills", "alps", "andes")
WAYS = (
    "radar alone", "optical alone", "mean of first radar and first optical", "the same, calibrated", "higher of the two",
    "mean of all methods",
)  # fmt: skip
F32 = npt.NDArray[np.float32]
Event = tuple[str, str, Mapping[Key, F32], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]
"""Data, event, scores (y, x) by method, truth (y, x), and where it is known."""


def ombria(data: Path) -> Iterator[Event]:
    """Both pictures of every tile."""
    for chip in chips(data):
        if chip.data != "ombria" or chip.truth is None:
            continue
        scores: dict[Key, F32] = {}
        for given, _ in chip.trials:
            scores.update(scored("flood", {k: given[k] for k in ("after", "before")}, given["declared"]))
        with raster.open_raster(chip.truth) as src:
            labels = src.read(1)
        yield "OMBRIA", chip.event, scores, labels == chip.code, np.ones(labels.shape, bool)


def spain(data: Path) -> Iterator[Event]:
    """The one chip of Sen1Floods11 that has both: water, one date."""
    name, folder = "Spain_7370579", data / "flood_sen1floods11"
    names = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")
    said = Declared(bands=names, sensor="sentinel-2-l1c", nodata=0)
    scores = dict(scored("flood", {"after": folder / "S1Hand" / f"{name}_S1Hand.tif"}, {}))
    scores.update(scored("flood", {"after": folder / "S2Hand" / f"{name}_S2Hand.tif"}, {"after": said}))
    with raster.open_raster(folder / "LabelHand" / f"{name}_LabelHand.tif") as src:
        labels = src.read(1)
    yield "Sen1Floods11", name, scores, labels == 1, labels >= 0


def simulated() -> Iterator[Event]:
    """Sentinel-1 and Sentinel-2 pairs of one world, clouds left in; seeds that no table was fitted on."""
    for terrain in TERRAINS:
        for seed in SEEDS:
            scores: dict[Key, F32] = {}
            with tempfile.TemporaryDirectory() as folder:
                for sensor in ("sentinel-1", "sentinel-2"):
                    out = Path(folder) / sensor
                    simulate(out, size=SIZE, seed=seed, sensor=sensor, terrain=terrain)
                    scores.update(scored("flood", {k: out / f"{k}.tif" for k in ("after", "before")}, {}))
                with raster.open_raster(out / "truth.tif") as src:
                    truth = src.read(1) == 1
            yield "simulated", f"{terrain} {seed}", scores, truth, np.ones(truth.shape, bool)


def ways(scores: Mapping[Key, F32], tables: Mapping[Key, Any]) -> dict[str, F32]:
    """Likelihoods (y, x) by way, where both kinds of image observed the ground."""
    firsts: dict[str, Key] = {}
    for key in scores:
        firsts.setdefault(key.kind, key)
    radar, optical = (scores[firsts[kind]] for kind in ("radar", "optical"))
    calibrated = [np.interp(scores[k], *tables[k]).astype(np.float32) for k in firsts.values()]
    every = np.mean(list(scores.values()), axis=0)
    found = (radar, optical, (radar + optical) / 2, (calibrated[0] + calibrated[1]) / 2, np.maximum(radar, optical), every)
    return dict(zip(WAYS, found, strict=True))


def rows_of(events: Iterator[Event], tables: Mapping[Key, Any]) -> Iterator[dict[str, Any]]:
    """A row per event and way; the tiles of an OMBRIA group are one event."""
    counts: dict[tuple[str, str, str], Counts] = {}
    errors: dict[tuple[str, str, str], Reliability] = {}
    for data, event, scores, truth, known in events:
        found = ways(scores, tables)
        common = known & np.logical_and.reduce([np.isfinite(v) for v in found.values()])
        for way, likelihood in found.items():
            key = data, event, way
            counts[key] = counts.get(key, Counts()) + Counts.of(likelihood[common] > 0.5, truth[common])
            errors.setdefault(key, Reliability()).add(likelihood[common], truth[common])
    for (data, event, way), c in counts.items():
        ece = errors[data, event, way].expected_calibration_error
        yield {"data": data, "event": event, "way": way, "tp": c.tp, "fp": c.fp, "fn": c.fn, "tn": c.tn, "iou": c.iou, "ece": ece}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown."""
    sets = list(dict.fromkeys(r["data"] for r in rows))
    head = ["way", *(f"{d}: IoU pooled (95 %), mean of events, ECE" for d in sets)]
    lines = [head, ["---"] * len(head)]
    for way in WAYS:
        cells = []
        for data in sets:
            own = [r for r in rows if (r["data"], r["way"]) == (data, way)]
            counts = [Counts(*(int(r[k]) for k in ("tp", "fp", "fn", "tn"))) for r in own]
            low, high = interval(counts)
            between = f" ({low:.2f} to {high:.2f})" if len(counts) > 1 else ""
            pixels = [c.total for c in counts]
            cells.append(
                f"**{sum(counts, start=Counts()).iou:.3f}**{between}, {np.mean([r['iou'] for r in own]):.3f}, "
                f"{np.average([r['ece'] for r in own], weights=pixels):.3f}"
            )
        lines.append([way, *cells])
    events = ", ".join(f"{d}: {len({r['event'] for r in rows if r['data'] == d})}" for d in sets)
    words = f"""# Radar and optical together

{date.today().isoformat()}, {platform.machine()}, {platform.system()}, `python -m benchmarks.fusion`.
Likelihood above 0.5 where both observed the ground; events: {events}. The first method of a kind is that of `--method auto`;
"calibrated" uses the tables of simulated scenes in `calibration.json`, used or not. Intervals resample events; ECE is the mean
over events, by pixels. OMBRIA: pairs of 8-bit pictures, flood; Sen1Floods11: the one chip with both sensors, one date, water;
simulated: pairs of {SIZE} px, seeds {SEEDS[0]} and {SEEDS[-1]}, clouds left in.
"""
    return words + "\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), default=Path("../shared/data"), show_default=True)
def main(data: Path) -> None:
    """Scores every event in every way and writes both files."""
    entries = json.loads((RESULTS / "calibration.json").read_text())["tables"]
    tables = {Key(*(e[k] for k in Key._fields)): (e["scores"], e["likelihoods"]) for e in entries}
    rows = [row for events in (ombria(data), spain(data), simulated()) for row in rows_of(events, tables)]
    with (RESULTS / "fusion.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (RESULTS / "fusion.md").write_text(table(rows))
    click.echo((RESULTS / "fusion.md").read_text())


if __name__ == "__main__":
    main()
