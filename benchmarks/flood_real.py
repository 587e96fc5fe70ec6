"""Floods on real chips: every method on every chip it can run on, through the main job, beside untrained references.

Run:     python benchmarks/flood_real.py [--data ../shared/data]
Writes:  benchmarks/results/flood_real.csv (a row per chip and method, resumable) and flood_real.md (the tables)
"""

from __future__ import annotations

import csv
import platform
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

import aftermap as am
from aftermap import raster
from aftermap.evaluate import Evaluation, evaluate
from aftermap.metrics import Counts
from aftermap.tiles import Window

RESULTS = Path(__file__).parent / "results"
COLUMNS = (
    *("data", "event", "chip", "asked", "method", "answer", "analysed_percent", "mapped_percent"),
    *("tp", "fp", "fn", "tn", "iou", "f1", "ap", "auc"),
)
SEN1FLOODS11 = {
    "Nigeria_812045": 0.81, "USA_905409": 0.84, "Sri-Lanka_534068": 0.97, "Spain_7370579": 0.47, "Pakistan_849790": 0.41,
    "Somalia_699062": 0.09, "Spain_6860600": 0.03,
}  # fmt: skip
"""IoU of VH below the event's published Otsu threshold, from the README of the data: the chips that hold both classes."""
OMBRIA = dict(
    zip("ABCDEFHIJKLMNP", (0.55, 0.51, 0.27, 0.33, 0.41, 0.23, 0.64, 0.50, 0.50, 0.00, 0.42, 0.67, 0.52, 0.34), strict=True)
)
"""Group -> IoU of the MNDWI-like index above 0 after and not before, from the README of the data."""
RADAR_ONE, RADAR_PAIR = ("sar-threshold",), ("sar-darker", "log-ratio")
OPTICAL_ONE, OPTICAL_PAIR = ("mndwi", "ndwi"), ("mndwi", "ndwi", "mndwi-rise")
MEANS = (("sar-darker", "mndwi"), ("sar-darker", "mndwi-rise"))
"""Mean of two scores, where both ran; where one was not observed, the other alone."""
SHOWN = (*RADAR_ONE, *RADAR_PAIR, *OPTICAL_PAIR, *(" + ".join(pair) for pair in MEANS))
"""Columns of the table; every other flood method needs dB on two dates, or elevation, which no chip here has."""
COMPARED = (
    ("log-ratio", "sar-darker"), ("mndwi-rise", "mndwi"), ("sar-darker + mndwi", "sar-darker"), ("sar-darker + mndwi", "mndwi"),
    ("sar-darker + mndwi-rise", "sar-darker + mndwi"),
)  # fmt: skip
LEAST_GROUPS = 5
"""Fewer say nothing about how a score would vary over others."""
SCENE_METHOD = "auto"


@dataclass(frozen=True)
class Chip:
    """One chip: arguments of am.map with the methods to ask for, and the truth with the code of its hazard."""

    data: str
    event: str
    name: str
    trials: tuple[tuple[Mapping[str, Any], tuple[str, ...]], ...]
    truth: Path | None
    code: int = 1

    @property
    def asked(self) -> tuple[str, ...]:
        """Every row that this chip has."""
        methods = [m for _, each in self.trials for m in each]
        return (*methods, *(" + ".join(pair) for pair in MEANS if set(pair) <= set(methods)))


def chips(data: Path) -> Iterator[Chip]:
    """Every chip, and the scenes without labels."""
    folder = data / "flood_sen1floods11"
    for path in sorted((folder / "S1Hand").glob("*.tif")):
        name = path.stem.removesuffix("_S1Hand")
        trials: list[tuple[Mapping[str, Any], tuple[str, ...]]] = [({"after": path}, RADAR_ONE)]
        picture = folder / "S2Hand" / f"{name}_S2Hand.tif"
        if picture.exists():
            said = {"after": am.Declared(sensor="sentinel-2-l1c")}
            trials.append(({"after": picture, "declared": said}, OPTICAL_ONE))
        yield Chip("sen1floods11", name.split("_")[0], name, tuple(trials), folder / "LabelHand" / f"{name}_LabelHand.tif")
    with (data / "flood_ombria" / "groups_inferred.csv").open() as stream:
        yield from (ombria(data / "flood_ombria", tile) for tile in csv.DictReader(stream))
    yield from scenes(data)


def ombria(folder: Path, tile: Mapping[str, str]) -> Chip:
    """One tile of OMBRIA: a radar and an optical pair of one mask."""
    trials, truth = [], None
    for sensor, bands, declared, methods in (
        ("S1", ("VV",), "sentinel-1", RADAR_PAIR), ("S2", ("swir1", "nir", "green"), "optical", OPTICAL_PAIR),
    ):  # fmt: skip
        there = folder / f"Ombria{sensor}" / tile["original_split"]
        files = {k: there / k.upper() / f"{sensor}_{k}_{tile['tile']}.png" for k in ("before", "after", "mask")}
        said = am.Declared(bands=bands, sensor=declared)
        given = {"after": files["after"], "before": files["before"], "declared": {"after": said, "before": said}}
        trials.append((given, methods))
        truth = files["mask"]
    return Chip("ombria", tile["group_inferred"], tile["tile"], tuple(trials), truth, 255)


def scenes(data: Path) -> Iterator[Chip]:
    """Scenes that have no labels."""

    def scene(event: str, name: str, **given: Any) -> Chip:
        return Chip("scenes", event, name, ((given, (SCENE_METHOD,)),), None)

    sentinel, landsat = data / "scenes_sentinel", data / "scenes_landsat_naip"
    yield scene("Bolzano", "Bolzano, Sentinel-2 L2A", after=sentinel / "S2_L2A_bolzano_sample.tif")
    yield scene("S1", "Sentinel-1 VV, 2015-03-09", after=next(sentinel.glob("S1A_*.tif")))
    said = am.Declared(bands=("red", "green", "blue", "nir"), sensor="optical")
    for path in sorted(sentinel.glob("chittagong_*.tif")):
        yield scene("Chittagong", path.stem, after=path, declared={"after": said})
    said = am.Declared(bands=("swir1", "nir", "red", "green"), sensor="optical")
    pair = {k: landsat / f"pucallpa_landsat_{year}.tif" for k, year in (("before", 1985), ("after", 2020))}
    yield scene("Pucallpa", "Pucallpa, Landsat 1985 and 2020", **pair, declared={"after": said, "before": said})


def rows(chip: Chip) -> Iterator[dict[str, Any]]:
    """A row for everything asked of a chip; empty where there is no truth or a score is undefined."""
    about = {"data": chip.data, "event": chip.event, "chip": chip.name}
    scores: dict[str, npt.NDArray[np.float32]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for given, methods in chip.trials:
            for method in methods:
                out = Path(folder) / method
                options = am.Options(keep_scores=True, overwrite=True)
                mapped = am.map(**given, hazard="flood", out=out, method=method, options=options)
                scores[method] = mapped.score(Window(0, 0, *mapped.shape))
                percent = {r["quantity"]: r["percent_of_aoi"] for r in mapped.summary if not r["reason"]}
                yield {
                    **about, "asked": method, "method": mapped.made_by["methods"]["lead"], "answer": mapped.answer,
                    "analysed_percent": percent["analysed_area"], "mapped_percent": percent["affected_area"],
                    **scored(chip, partial(_judged, mapped, chip)),
                }  # fmt: skip
        for pair in MEANS:
            if set(pair) <= set(scores):
                both = np.stack([scores[m] for m in pair])
                name = " + ".join(pair)
                yield {**about, "asked": name, "method": name, **scored(chip, lambda both=both: mean_of(both, chip))}


def _judged(mapped: am.HazardMap, chip: Chip) -> Evaluation:
    assert chip.truth is not None
    return evaluate(mapped, chip.truth, hazard_code=chip.code)


def mean_of(scores: npt.NDArray[np.float32], chip: Chip) -> Evaluation:
    """Scores of the mean of scores (2, y, x), NaN where not analysed, on the truth of a chip without CRS."""
    seen = np.isfinite(scores)
    mean = np.where(seen, scores, 0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    extent = np.where(seen.any(axis=0), mean > 0.5, 255).astype(np.uint8)
    assert chip.truth is not None
    codes = raster.read_window(chip.truth, Window(0, 0, *mean.shape), [1])[0]
    result = Evaluation(chip.name)
    truth, score = np.where(codes == chip.code, 1, np.where(codes == 0, 0, -1)).astype(np.int8), mean.astype(np.float32)
    result.add(truth, extent, score, score)
    return result


def scored(chip: Chip, judge: Any) -> dict[str, Any]:
    """The columns of a judgement; none where the truth is not known."""
    try:
        result = judge() if chip.truth else None
    except am.AftermapError as error:
        if error.code != "no-truth":
            raise
        result = None
    if result is None:
        return {}
    found, c = result.row(), result.counts
    numbers = {"iou": found["iou"], "f1": found["f1"], "ap": found["average_precision"], "auc": found["auc"]}
    return {"tp": c.tp, "fp": c.fp, "fn": c.fn, "tn": c.tn, **numbers}


def pooled(rows: Iterable[Mapping[str, Any]]) -> Counts:
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


def _wet(counts: Counts) -> Counts:
    """Calling everything water."""
    return Counts(counts.tp + counts.fn, counts.fp + counts.tn, 0, 0)


def _dry(counts: Counts) -> Counts:
    """Calling nothing water."""
    return Counts(0, 0, counts.tp + counts.fn, counts.fp + counts.tn)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(r)} |" for r in (head, ["---"] * len(head), *rows)]


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The one table: a row per chip or group and pooled, a column per method; the trivial maps and a reference beside them."""
    body: list[list[str]] = []
    for data, key, groups in (("sen1floods11", "chip", SEN1FLOODS11), ("ombria", "event", OMBRIA)):
        counts = {
            (g, m): pooled(found)
            for g in groups
            for m in SHOWN
            if (found := [r for r in rows if (r["data"], r[key], r["asked"]) == (data, g, m)])
        }
        truth = {g: next(c for (group, _), c in counts.items() if group == g) for g in groups}
        for g, reference in groups.items():
            cells = [_n(counts[g, m].iou) if (g, m) in counts else "" for m in SHOWN]
            body.append([f"{data} {g}", *cells, _n(_wet(truth[g]).iou), _n(_dry(truth[g]).iou), f"{reference:.2f}"])
        ran = {m: [counts[g, m] for g in groups if (g, m) in counts] for m in SHOWN}
        everything = [*ran.values(), [_wet(c) for c in truth.values()], [_dry(c) for c in truth.values()]]
        means = [_n(float(np.mean([c.iou or 0 for c in each]))) if each else "" for each in everything]
        told = f"{float(np.mean(list(groups.values()))):.3f}"
        body.append([f"**{data} pooled**", *(_pooled(each) for each in everything), ""])
        body.append([f"{data} mean of {key if key == 'chip' else 'group'}s", *means, told])
    return _table(("chip or group", *SHOWN, "all water", "all dry", "reference"), body)


def _pooled(each: Sequence[Counts]) -> str:
    if not each:
        return ""
    said = f"**{_n(sum(each, start=Counts()).iou)}**"
    if len(each) < LEAST_GROUPS:
        return f"{said} ({len(each)} only)"
    low, high = interval(each)
    return f"{said} ({low:.2f} to {high:.2f})"


def differences(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Pooled IoU of one method less another's on OMBRIA, and its interval from the same groups drawn for both."""
    counts = {m: [pooled(r for r in rows if (r["event"], r["asked"]) == (g, m)) for g in OMBRIA] for m in SHOWN}
    rng = np.random.default_rng(0)
    draws = [list(range(len(OMBRIA))), *rng.integers(0, len(OMBRIA), (2000, len(OMBRIA))).tolist()]
    body = []
    for one, other in COMPARED:
        apart = [
            (sum((counts[one][k] for k in drawn), start=Counts()).iou or 0)
            - (sum((counts[other][k] for k in drawn), start=Counts()).iou or 0)
            for drawn in draws
        ]
        low, high = np.percentile(apart[1:], [2.5, 97.5])
        body.append([one, other, f"{apart[0]:+.3f}", f"{low:+.2f} to {high:+.2f}"])
    return _table(("method", "less", "difference", "95 % interval"), body)


def tables(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown of everything."""
    unscored = [r for r in rows if r["data"] == "sen1floods11" and r["chip"] not in SEN1FLOODS11]
    head = ("scene", "method", "answer", "analysed %", "mapped %")
    kept = ("chip", "method", "answer", "analysed_percent", "mapped_percent")
    return "\n".join(
        [
            "# Floods on real chips",
            "",
            f"{date.today().isoformat()}, {platform.machine()}, {platform.system()}, `python benchmarks/flood_real.py`.",
            "Nothing was trained. Defaults of `sar-threshold`, `sar-darker` and `sar-drop` were chosen on these chips and on",
            "simulated scenes, so these are not unseen data for them; those of `log-ratio` and `mndwi-rise` were not.",
            "",
            "## IoU of every method on every chip it can run on",
            "",
            *table(rows),
            "",
            "sen1floods11: water on one date of Sentinel-1, scored on chips that hold both classes; intervals resample chips;",
            "the reference thresholds VH at the event's published Otsu value. ombria: flood in pairs of 8-bit pictures, radar",
            "and optical, 154 tiles in 14 groups of scenes; intervals resample groups; the reference is the index of the data's",
            "README. `A + B` is the mean of two scores above 0.5. *Pooled* adds pixels, *mean* averages the rows above it.",
            "",
            "What is not here: `sar-drop` needs two dates in dB and `sar-fuzzy` elevation, which no chip has; see",
            "[simulated scenes](../../docs/simulated.md). Every tile of ombria holds some flood, so false alarms over dry scenes",
            "are not measured. The pictures carry no calibration: no method that needs dB runs on them.",
            "",
            "## Paired differences of pooled IoU on ombria",
            "",
            *differences([r for r in rows if r["data"] == "ombria"]),
            "",
            "Groups are drawn, the same for both methods.",
            "",
            "## Sen1Floods11, chips that lack a class",
            "",
            *_table(head, [[r[k] for k in kept] for r in unscored]),
            "",
            "## Scenes without labels, run through",
            "",
            *_table(head, [[r[k] for k in kept] for r in rows if r["data"] == "scenes"]),
            "",
            "Without a date before, these maps show open water. Cloud is excluded where a band of the image says so (Bolzano).",
            "",
        ]
    )


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), default=Path("../shared/data"), show_default=True)
def main(data: Path) -> None:
    """Map and score every chip that is not whole in the results yet, then write the tables."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "flood_real.csv"
    known: list[dict[str, str]] = list(csv.DictReader(path.open())) if path.exists() else []
    done = {(r["data"], r["chip"], r["asked"]) for r in known}
    with path.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=COLUMNS, lineterminator="\n")
        if not known:
            writer.writeheader()
        for chip in chips(data):
            if not all((chip.data, chip.name, asked) in done for asked in chip.asked):
                writer.writerows(r for r in rows(chip) if (r["data"], r["chip"], r["asked"]) not in done)
                stream.flush()
    with path.open() as stream:
        (RESULTS / "flood_real.md").write_text(tables(list(csv.DictReader(stream))))
    click.echo((RESULTS / "flood_real.md").read_text())


if __name__ == "__main__":
    main()
