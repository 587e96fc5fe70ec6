"""docs/simulated.md: every method on simulated scenes whose truth is known.

Run: python docs/measure.py [SCENES], a folder to keep the scenes in.
"""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

import aftermap as am
from aftermap import pieces, raster
from aftermap.errors import InputRefusedError
from aftermap.hazardmap import HazardMap
from aftermap.metrics import Counts
from aftermap.tiles import Window

SIZE, SEEDS = 1024, (1, 2, 3)


class Trial(NamedTuple):
    """Methods on one kind of scene, and the bands of truth.tif that hold the hazard and what hid the ground, if any.

    With `dem` the methods are given the elevation, and what it excludes is not scored.
    """

    hazard: str
    sensor: str
    methods: tuple[str, ...]
    pair: bool = True
    truth: tuple[int, ...] = (1,)
    hidden: int | None = None
    terrain: str = ""
    dem: bool = False


TRIALS = (
    Trial("flood", "sentinel-1", ("sar-threshold", "sar-darker", "sar-drop", "log-ratio")),
    *(
        Trial("flood", "sentinel-1", ("sar-threshold", "sar-fuzzy"), pair=pair, terrain=terrain, dem=True, truth=truth)
        for terrain in ("plain", "hills", "alps", "andes")
        for pair, truth in ((True, (1,)), (False, (1, 2)))
    ),
    Trial("flood", "sentinel-2", ("mndwi", "mndwi-rise", "ndwi")),
    Trial("landslide", "sentinel-2", ("rdndvi", "ndvi-change", "bare-soil"), hidden=3),
    Trial("landslide", "sentinel-1", ("log-ratio",)),
    Trial("fracture", "", ("gabor", "contrast", "radon", "saturation"), pair=False),
    Trial("building", "", ("building-change",)),
    Trial("building", "", ("brightness", "texture"), pair=False, truth=(3,)),
)
TITLE = {(1,): "", (1, 2): ", truth: any water", (3,): ", truth: any building"}


def scene(folder: Path, trial: Trial, seed: int) -> Path:
    """The folder of a scene, simulated where it is not there yet."""
    out = folder / f"{trial.hazard}-{trial.sensor or 'optical'}-{trial.terrain}-{seed}"
    if not (out / "truth.tif").exists():
        how = {k: v for k, v in (("sensor", trial.sensor), ("terrain", trial.terrain)) if v}
        pieces.load("simulate", trial.hazard)(out, size=SIZE, seed=seed, **how)
    return out


def counted(mapped: HazardMap, truth: Path, hazard: tuple[int, ...], hidden: int | None) -> Counts:
    """Counts over what was analysed and, where the truth says so, not hidden."""
    whole = Window(0, 0, *mapped.shape)
    bands = [*hazard, hidden or hazard[0]]
    codes, extent = raster.Reader(truth, mapped.grid, bands, classes=True).read(whole), mapped.extent(whole)
    seen = extent != 255
    if hidden:
        seen &= codes[-1] == 0
    return Counts.of(extent[seen] == 1, (codes[:-1] == 1).any(axis=0)[seen])


def rows(folder: Path, trial: Trial) -> list[str]:
    """One line of the table per method: IoU of each seed and pooled, precision, recall, and pooled IoU outside cloud."""
    said = []
    for method in trial.methods:
        each, clear = [], Counts()
        for seed in SEEDS:
            there = scene(folder, trial, seed)
            try:
                mapped = am.map(
                    after=there / "after.tif",
                    before=there / "before.tif" if trial.pair else (),
                    dem=there / "dem.tif" if trial.dem else (),
                    hazard=trial.hazard,
                    method=method,
                    out=there / method,
                    options=am.Options(overwrite=True),
                )
            except InputRefusedError as error:
                raise SystemExit(f"{method}: {error}") from error
            each.append(counted(mapped, there / "truth.tif", trial.truth, None))
            clear += counted(mapped, there / "truth.tif", trial.truth, trial.hidden)
        pooled = sum(each[1:], each[0])
        share = (pooled.tp + pooled.fn) / pooled.total
        cells = [
            trial.hazard,
            f"{trial.sensor or 'optical'}, {'pair' if trial.pair else 'one image'}{TITLE[trial.truth]}"
            + (f", {trial.terrain}, DEM" if trial.dem else ""),
            f"`{method}`",
            " ".join(_say(c.iou) for c in each),
            f"**{_say(pooled.iou)}**",
            _say(pooled.precision),
            _say(pooled.recall),
            _say(clear.iou) if trial.hidden else "",
            f"{share:.3f}",
        ]
        said.append("| " + " | ".join(cells) + " |")
    return said


def _say(value: float | None) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.2f}"


HEAD = f"""# Scores on simulated scenes

{date.today()}, `python docs/measure.py`: scenes of {SIZE} x {SIZE} pixels, seeds {", ".join(map(str, SEEDS))},
each method alone with its defaults. A simulation shows that a method does what it says; how it does on real images is in the
tables that [Methods](methods.md) links to. *All-hazard* is the IoU of a map that calls everything hazard. *Clear* leaves out
what simulated cloud and its shadow hide, as a class band (SCL, QA_PIXEL, Fmask) of a real image would. *DEM*: elevation is
given; ground that it excludes is not scored.

| hazard | images | method | IoU per seed | IoU pooled | precision | recall | IoU clear | all-hazard |
|---|---|---|---|---|---|---|---|---|
"""


def main(folder: Path) -> None:
    """Measures everything and writes the page."""
    lines = [line for trial in TRIALS for line in rows(folder, trial)]
    page = Path(__file__).parent / "simulated.md"
    _, heading, rest = page.read_text(encoding="utf-8").partition("\n## ")  # what is told and not measured
    page.write_text(HEAD + "\n".join(lines) + "\n" + heading + rest, encoding="utf-8")


with TemporaryDirectory() as scratch:
    main(Path(sys.argv[1] if len(sys.argv) > 1 else scratch))
