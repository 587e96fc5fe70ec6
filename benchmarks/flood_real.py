"""Floods on real chips: every map made by the main job, scored over valid pixels, beside untrained references.

Run:     python benchmarks/flood_real.py [--data ../shared/data]
Writes:  benchmarks/results/flood_real.csv (a row per chip and method, resumable) and flood_real.md (the tables)
"""

from __future__ import annotations

import csv
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import click
import numpy as np

import aftermap as am
from aftermap.evaluate import evaluate
from aftermap.metrics import Counts

RESULTS = Path(__file__).parent / "results"
COLUMNS = (
    *("data", "event", "chip", "asked", "method", "answer", "analysed_percent", "mapped_percent"),
    *("tp", "fp", "fn", "tn", "iou", "f1", "ap", "auc"),
)
SEN1FLOODS11 = {
    "Nigeria_812045": 0.81, "USA_905409": 0.84, "Sri-Lanka_534068": 0.97, "Spain_7370579": 0.47, "Pakistan_849790": 0.41,
    "Somalia_699062": 0.09, "Spain_6860600": 0.03,
}  # fmt: skip
"""IoU of VH below the event's published Otsu threshold, from the README of the data."""
OMBRIA = dict(
    zip("ABCDEFHIJKLMNP", (0.55, 0.51, 0.27, 0.33, 0.41, 0.23, 0.64, 0.50, 0.50, 0.00, 0.42, 0.67, 0.52, 0.34), strict=True)
)
"""Group -> IoU of the MNDWI-like index above 0 after and not before, from the README of the data."""
METHODS = {"sen1floods11": ("auto",), "ombria-s1": ("sar-darker",), "ombria-s2": ("mndwi", "ndwi"), "scenes": ("auto",)}


def jobs(data: Path) -> Iterator[tuple[str, str, str, dict[str, Any], Path | None, int]]:
    """(data set, event, chip, arguments of am.map, truth, hazard code) of every chip."""
    chips = data / "flood_sen1floods11"
    for path in sorted((chips / "S1Hand").glob("*.tif")):
        name = path.stem.removesuffix("_S1Hand")
        yield "sen1floods11", name.split("_")[0], name, {"after": path}, chips / "LabelHand" / f"{name}_LabelHand.tif", 1
    with (data / "flood_ombria" / "groups_inferred.csv").open() as stream:
        tiles = list(csv.DictReader(stream))
    for sensor, bands, declared in (("S1", ("VV",), "sentinel-1"), ("S2", ("swir1", "nir", "green"), "optical")):
        said = am.Declared(bands=bands, sensor=declared)
        for tile in tiles:
            folder = data / "flood_ombria" / f"Ombria{sensor}" / tile["original_split"]
            files = {k: folder / k.upper() / f"{sensor}_{k}_{tile['tile']}.png" for k in ("before", "after", "mask")}
            given = {"after": files["after"], "before": files["before"], "declared": {"after": said, "before": said}}
            yield f"ombria-{sensor.lower()}", tile["group_inferred"], tile["tile"], given, files["mask"], 255
    yield from ((*place, None, 1) for place in scenes(data))


def scenes(data: Path) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Scenes that have no labels."""
    sentinel, landsat = data / "scenes_sentinel", data / "scenes_landsat_naip"
    yield "scenes", "Bolzano", "Bolzano, Sentinel-2 L2A", {"after": sentinel / "S2_L2A_bolzano_sample.tif"}
    yield "scenes", "S1", "Sentinel-1 VV, 2015-03-09", {"after": next(sentinel.glob("S1A_*.tif"))}
    said = am.Declared(bands=("red", "green", "blue", "nir"), sensor="optical")
    for path in sorted(sentinel.glob("chittagong_*.tif")):
        yield "scenes", "Chittagong", path.stem, {"after": path, "declared": {"after": said}}
    said = am.Declared(bands=("swir1", "nir", "red", "green"), sensor="optical")
    pair = {k: landsat / f"pucallpa_landsat_{year}.tif" for k, year in (("before", 1985), ("after", 2020))}
    yield "scenes", "Pucallpa", "Pucallpa, Landsat 1985 and 2020", {**pair, "declared": {"after": said, "before": said}}


def score(given: Mapping[str, Any], truth: Path | None, code: int, method: str) -> dict[str, Any]:
    """One row: the map's answer and its scores; empty where there is no truth or a score is undefined."""
    with tempfile.TemporaryDirectory() as folder:
        mapped = am.map(**given, hazard="flood", out=Path(folder) / "out", method=method, options=am.Options(keep_scores=True))
        percent = {r["quantity"]: r["percent_of_aoi"] for r in mapped.summary if not r["reason"]}
        row = {
            "method": mapped.made_by["methods"]["lead"], "answer": mapped.answer,
            "analysed_percent": percent["analysed_area"], "mapped_percent": percent["affected_area"],
        }  # fmt: skip
        if truth is None:
            return row
        try:
            result = evaluate(mapped, truth, hazard_code=code)
        except am.AftermapError as error:
            if error.code != "no-truth":
                raise
            return row
        found, c = result.row(), result.counts
        return {
            **row, "tp": c.tp, "fp": c.fp, "fn": c.fn, "tn": c.tn, "iou": found["iou"], "f1": found["f1"],
            "ap": found["average_precision"], "auc": found["auc"],
        }  # fmt: skip


def pooled(rows: Sequence[Mapping[str, Any]]) -> Counts:
    """Counts of all chips together."""
    return sum((Counts(*(int(r[k] or 0) for k in ("tp", "fp", "fn", "tn"))) for r in rows), start=Counts())


def interval(groups: Sequence[Counts], seed: int = 0, times: int = 2000) -> tuple[float, float]:
    """95 % interval of the pooled IoU, resampling events."""
    rng = np.random.default_rng(seed)
    drawn = (sum((groups[i] for i in rng.integers(0, len(groups), len(groups))), start=Counts()).iou for _ in range(times))
    low, high = np.percentile([v for v in drawn if v is not None], [2.5, 97.5])
    return float(low), float(high)


def _n(value: float | str | None) -> str:
    return "–" if value in (None, "") else f"{float(value):.3f}"


def _share(counts: Counts) -> float | None:
    """IoU of calling everything hazard: the trivial predictor."""
    return (counts.tp + counts.fn) / counts.total if counts.total else None


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(r)} |" for r in (head, ["---"] * len(head), *rows)]


def chips_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sen1Floods11, a row per chip, then pooled and mean over the chips that have both classes."""
    head = ("chip", "answer", "analysed %", "mapped %", "IoU", "F1", "AP", "all-water IoU", "reference IoU")
    body = []
    for r in rows:
        scores = [_n(r[k]) for k in ("iou", "f1", "ap")] if r["chip"] in SEN1FLOODS11 else ["–"] * 3
        trivial, reference = _n(_share(pooled([r]))), _n(SEN1FLOODS11.get(r["chip"]))
        body.append([r["chip"], r["answer"], r["analysed_percent"], r["mapped_percent"] or "–", *scores, trivial, reference])
    scored = [r for r in rows if r["chip"] in SEN1FLOODS11]
    whole, (low, high) = pooled(scored), interval([pooled([r]) for r in scored])
    body.append(
        ["**pooled**", "", "", "", f"**{_n(whole.iou)}** ({low:.2f} to {high:.2f})", _n(whole.f1), "", _n(_share(whole)), ""]
    )
    means = np.mean([float(r["iou"]) for r in scored]), np.mean(list(SEN1FLOODS11.values()))
    body.append(["**mean**", "", "", "", f"**{means[0]:.3f}**", "", "", "", f"{means[1]:.3f}"])
    return _table(head, body)


def groups_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """OMBRIA, a row per group of scenes, then pooled."""
    kinds = (("ombria-s1", "sar-darker"), ("ombria-s2", "mndwi"), ("ombria-s2", "ndwi"))
    head = ("group", "tiles", "S1 sar-darker", "S2 mndwi", "S2 ndwi", "all-flood", "reference (S2 index)")
    by = {g: [[r for r in rows if (r["data"], r["method"], r["event"]) == (*k, g)] for k in kinds] for g in OMBRIA}
    counts = {g: [pooled(r) for r in by[g]] for g in OMBRIA}
    body = [
        [g, str(len(by[g][1])), *(_n(c.iou) for c in counts[g]), _n(_share(counts[g][1])), f"{OMBRIA[g]:.2f}"] for g in OMBRIA
    ]
    cells = []
    for k in range(len(kinds)):
        low, high = interval([c[k] for c in counts.values()])
        cells.append(f"**{_n(sum((c[k] for c in counts.values()), start=Counts()).iou)}** ({low:.2f} to {high:.2f})")
    whole = sum((c[1] for c in counts.values()), start=Counts())
    return _table(head, [*body, ["**pooled**", "", *cells, _n(_share(whole)), ""]])


def tables(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown of everything."""
    return "\n".join(
        [
            "# Floods on real chips",
            "",
            f"{date.today().isoformat()}, {platform.machine()}, {platform.system()}, `python benchmarks/flood_real.py`.",
            "Nothing was trained; defaults were chosen on these chips and on simulated scenes, so they are not unseen data.",
            "",
            "## Sen1Floods11, water, one date of Sentinel-1 (`--method auto`, led by sar-threshold)",
            "",
            *chips_table([r for r in rows if r["data"] == "sen1floods11"]),
            "",
            "The interval resamples chips. The reference thresholds VH at the event's published Otsu value. Chips that lack a",
            "class are not scorable; what the map says of them stands in the second column.",
            "",
            "## OMBRIA, flood, pairs of 8-bit pictures, IoU pooled by group of scenes",
            "",
            *groups_table(rows),
            "",
            "Intervals resample groups. Every tile holds some flood, so false alarms over dry scenes are not measured here. The",
            "pictures carry no calibration: no method that needs dB runs on them, and indices work on the stored values.",
            "",
            "## Scenes without labels, run through",
            "",
            *_table(
                ("scene", "method", "answer", "analysed %", "mapped %"),
                [
                    [r["chip"], r["method"], r["answer"], r["analysed_percent"], r["mapped_percent"]]
                    for r in rows
                    if r["data"] == "scenes"
                ],
            ),
            "",
            "Without a date before, these maps show open water. Cloud is excluded where a band of the image says so (Bolzano).",
            "",
        ]
    )


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), default=Path("../shared/data"), show_default=True)
def main(data: Path) -> None:
    """Map and score every chip that is not in the results yet, then write the tables."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "flood_real.csv"
    rows: list[Mapping[str, Any]] = list(csv.DictReader(path.open())) if path.exists() else []
    done = {(r["data"], r["chip"], r["asked"]) for r in rows}
    fresh = not path.exists()
    with path.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=COLUMNS, lineterminator="\n")
        if fresh:
            writer.writeheader()
        for name, event, chip, given, truth, code in jobs(data):
            for method in METHODS[name]:
                if (name, chip, method) in done:
                    continue
                writer.writerow(
                    {"data": name, "event": event, "chip": chip, "asked": method, **score(given, truth, code, method)}
                )
                stream.flush()
    with path.open() as stream:
        (RESULTS / "flood_real.md").write_text(tables(list(csv.DictReader(stream))))
    click.echo((RESULTS / "flood_real.md").read_text())


if __name__ == "__main__":
    main()
