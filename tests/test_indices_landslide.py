"""The untrained landslide methods: what they find, what they leave, what they say."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from aftermap.indices.landslide import NdviChange, RdNdvi, relative_change
from aftermap.indices.soil import BareSoil, BareSoilScorer, LogRatio, soil_index
from aftermap.indices.survey import middle_and_std
from aftermap.scorer import Method
from tests.conftest import shared
from tests.flood_events import FLOOD, LAKE, S1, S2, SHAPE, Bands, Event, backscatter, iou, region, scores

FOREST = {"B02": 0.03, "B03": 0.05, "B04": 0.035, "B08": 0.35, "B11": 0.16}
SOIL = {"B02": 0.09, "B03": 0.12, "B04": 0.18, "B08": 0.22, "B11": 0.28}
OLD, NEW = LAKE, FLOOD
"""Bare on both dates, and after only."""


def land(*, slid: bool, seed: int) -> Bands:
    bare, rng = region(OLD, NEW) if slid else region(OLD), np.random.default_rng(seed)
    return {b: (np.where(bare, SOIL[b], FOREST[b]) * rng.normal(1, 0.05, SHAPE)).astype(np.float32) for b in FOREST}


def optical(*, slid: bool = True) -> Event:
    return Event(after=(S2, "reflectance", land(slid=slid, seed=1)), before=(S2, "reflectance", land(slid=False, seed=2)))


def radar(*, slid: bool = True) -> Event:
    return Event(**{
        name: (S1, "dB", {"VH": backscatter(flooded=found, seed=k, land_db=-14, water_db=-24)})
        for k, (name, found) in enumerate((("after", slid), ("before", False)))
    })  # fmt: skip


PAIRS = {"rdndvi": RdNdvi(), "ndvi-change": NdviChange(), "bare-soil": BareSoil(), "log-ratio": LogRatio()}
every_method = pytest.mark.parametrize("method", PAIRS.values(), ids=PAIRS)


def event(method: Method, *, slid: bool) -> Event:
    return radar(slid=slid) if method.name == "log-ratio" else optical(slid=slid)


@every_method
def test_a_pair_gives_the_slide_and_not_what_was_bare_before(method: Method) -> None:
    assert method.prepare(event(method, slid=True).scene).classes == ("landslide",)
    assert iou(scores(event(method, slid=True), method) > 0.5, region(NEW)) > 0.9


@every_method
def test_a_pair_without_a_slide_gives_nothing(method: Method) -> None:
    assert (scores(event(method, slid=False), method) > 0.5).mean() < 1e-3


def test_one_image_gives_all_bare_soil_and_says_so() -> None:
    single = Event(after=(S2, "reflectance", land(slid=True, seed=3)))
    assert BareSoil().prepare(single.scene).classes == ("bare soil",)
    assert iou(scores(single, BareSoil()) > 0.5, region(OLD, NEW)) > 0.95


def test_a_forest_has_no_bare_soil() -> None:
    green = {b: np.random.default_rng(6).normal(FOREST[b], 0.005, SHAPE).astype(np.float32) for b in FOREST}
    scorer = BareSoil().prepare(Event(after=(S2, "reflectance", green)).scene)
    assert isinstance(scorer, BareSoilScorer)
    assert scorer.thresholds == (None,)
    assert scorer.source.startswith("no threshold found: 0 of 20 tiles are bimodal")


def test_another_season_is_no_landslide() -> None:
    event = optical(slid=False)
    event._pixels["after"]["B08"] *= 0.7  # every leaf duller
    assert (scores(event, RdNdvi()) > 0.5).mean() < 1e-3


def test_the_index_and_the_change_of_known_values() -> None:
    pixels = np.array([0.3, 0.1], np.float32)[:, None, None]
    assert soil_index(pixels, top=0.6, red_weight=0.25).item() == pytest.approx(0.5 + 0.125)
    dates = np.array([0.2, 0.3, 0.1, 0.4], np.float32)[None, :, None, None]  # NDVI 0.2 after, 0.6 before
    change, before = relative_change(dates)
    assert change.item() == pytest.approx(100 * -0.4 / np.sqrt(0.8), rel=1e-5)  # HazMapper's formula by hand
    assert before.item() == pytest.approx(0.6)
    assert middle_and_std(np.array([1, 2, 3, 4, 100], np.float32), 0.1) == pytest.approx((3.0, 1.4826))


def test_methods_say_why_they_cannot_run() -> None:
    single = Event(after=(S2, "reflectance", land(slid=True, seed=3)))
    grey = Event(after=("modis-grey", "digital_number", {"grey": np.ones(SHAPE, np.float32)}))
    assert RdNdvi().why_not(single.scene) == "there is no before image"
    assert NdviChange().why_not(single.scene) == "there is no before image"
    assert BareSoil().why_not(grey.scene) == "the after image has no band green"
    assert "no before image" in LogRatio().why_not(Event(after=(S1, "dB", {"VH": np.ones(SHAPE, np.float32)})).scene)


def test_bare_soil_on_hokkaido() -> None:
    folder = shared("landslide_l4s_rgb")
    hits = either = 0
    rows = [line.split(",") for line in (folder / "index.csv").read_text().split()[1:]]
    for image, mask, *_, place in rows:
        if place != "B_hokkaido_like":
            continue
        red, green = read(str(folder / "images" / image))[:2]
        truth = read(str(folder / "masks" / mask))[0] > 127
        found = scores(Event(after=("vhr-rgb", "digital_number", {"red": red, "green": green})), BareSoil()) > 0.5
        hits, either = hits + int((found & truth).sum()), either + int((found | truth).sum())
    assert hits / either > 0.28


def read(path: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    with rasterio.open(path) as src:
        return np.asarray(src.read(), np.float32)
