"""The untrained flood methods on the real chips of ../shared/data, where these are; skipped with the reason where not."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio

from aftermap.indices.optical import Mndwi
from aftermap.indices.sar import SarDarker, SarThreshold
from aftermap.scorer import F32
from tests.flood_events import S1, S2, Event, scores, seen

DATA = Path(__file__).parents[2] / "shared" / "data"


def read(path: Path) -> F32:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as src:
            return np.asarray(src.read(), dtype=np.float32)


SEN1FLOODS11, OMBRIA = DATA / "flood_sen1floods11", DATA / "flood_ombria"


@pytest.mark.skipif(not SEN1FLOODS11.exists(), reason="no ../shared/data/flood_sen1floods11 here")
def test_sar_threshold_on_sen1floods11() -> None:
    both = either = 0
    shares = {}
    for path in sorted((SEN1FLOODS11 / "S1Hand").glob("*.tif")):
        chip = path.name.removesuffix("_S1Hand.tif")
        label = read(SEN1FLOODS11 / "LabelHand" / f"{chip}_LabelHand.tif")[0]
        pixels = read(path)
        mask = scores(Event(after=(S1, "dB", {"VV": pixels[0], "VH": pixels[1]})), SarThreshold()) > 0.5
        known = (label >= 0) & seen(pixels[None])[0]
        both += int((mask & (label == 1) & known).sum())
        either += int(((mask | (label == 1)) & known).sum())
        shares[chip] = mask[known].mean() if known.any() else 0.0
    assert both / either > 0.7
    assert shares["Ghana_53713"] < 1e-3  # no water
    assert shares["Sri-Lanka_534068"] > 0.95  # the sea


def ombria(number: str, sensor: str, when: str) -> F32:
    return read(next((OMBRIA / f"Ombria{sensor}").glob(f"*/{when.upper()}/{sensor}_{when}_{number}.png")))


@pytest.mark.skipif(not OMBRIA.exists(), reason="no ../shared/data/flood_ombria here")
@pytest.mark.parametrize(("group", "radar", "infrared"), [("C", 0.6, 0.2), ("N", 0.65, 0.45)])
def test_pairs_on_ombria(group: str, radar: float, infrared: float) -> None:
    counts = {"S1": [0, 0], "S2": [0, 0]}
    rows = [line.split(",") for line in (OMBRIA / "groups_inferred.csv").read_text().split()[1:]]
    for number in [row[0] for row in rows if row[2] == group]:
        truth = ombria(number, "S1", "mask")[0] > 127
        for sensor, method in (("S1", SarDarker()), ("S2", Mndwi())):
            mask = scores(ombria_event(number, sensor), method) > 0.5
            counts[sensor][0] += int((mask & truth).sum())
            counts[sensor][1] += int((mask | truth).sum())
    assert counts["S1"][0] / counts["S1"][1] > radar
    assert counts["S2"][0] / counts["S2"][1] > infrared


def ombria_event(number: str, sensor: str) -> Event:
    name, bands = (S1, ("VV",)) if sensor == "S1" else (S2, ("B11", "B08", "B03"))
    layers = {}
    for when in ("after", "before"):
        layers[when] = (name, "digital_number", dict(zip(bands, ombria(number, sensor, when), strict=False)))
    return Event(**layers)
