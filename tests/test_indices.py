"""The untrained flood methods: the scorer contract for each, published steps, validity, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields

import numpy as np
import pytest

from aftermap.indices.change import FallScorer, LogRatio, MndwiRise, RiseScorer, rise
from aftermap.indices.optical import Mndwi, Ndwi, normalised_difference
from aftermap.indices.sar import DarkScorer, SarDarker, SarDrop, SarThreshold
from aftermap.median import median_filter
from aftermap.scorer import Method, Scorer
from aftermap.tiles import Window
from tests.flood_events import (
    FLOOD,
    LAKE,
    S1,
    S2,
    SHAPE,
    Event,
    backscatter,
    iou,
    optical,
    optical_pair,
    pair,
    region,
    sar,
    scores,
    seen,
    stretched,
)

PAIRS: dict[str, tuple[Method, Callable[..., Event]]] = {
    "sar-threshold": (SarThreshold(), pair),
    "sar-drop": (SarDrop(), pair),
    "sar-darker": (SarDarker(), stretched),
    "sar-darker dB": (SarDarker(), pair),
    "mndwi": (Mndwi(), optical_pair),
    "ndwi": (Ndwi(), optical_pair),
    "log-ratio": (LogRatio(), pair),
    "log-ratio 8 bit": (LogRatio(), stretched),
    "mndwi-rise": (MndwiRise(), optical_pair),
}
SINGLES: dict[str, tuple[Method, Event]] = {
    "sar-threshold": (SarThreshold(), Event(after=(S1, "dB", sar(flooded=True, seed=0)))),
    "sar-threshold VV": (SarThreshold(), Event(after=(S1, "dB", {"VV": backscatter(flooded=True, seed=0)}))),
    "mndwi": (Mndwi(), Event(after=(S2, "reflectance", optical(flooded=True)))),
    "ndwi": (Ndwi(), Event(after=(S2, "digital_number", optical(flooded=True, scale=10_000)))),
}
every_pair = pytest.mark.parametrize(("method", "make"), PAIRS.values(), ids=PAIRS)
every_single = pytest.mark.parametrize(("method", "event"), SINGLES.values(), ids=SINGLES)


@every_pair
def test_a_pair_gives_the_flood_and_not_the_lake(method: Method, make: Callable[..., Event]) -> None:
    assert method.prepare(make().scene).classes == ("flood",)
    assert iou(scores(make(), method) > 0.5, region(FLOOD)) > 0.93


@every_pair
def test_a_pair_without_a_flood_gives_nothing(method: Method, make: Callable[..., Event]) -> None:
    assert (scores(make(flooded=False), method) > 0.5).mean() < 1e-3


@every_single
def test_a_single_date_gives_all_water(method: Method, event: Event) -> None:
    assert method.prepare(event.scene).classes == ("water",)
    assert iou(scores(event, method) > 0.5, region(LAKE, FLOOD)) > 0.93


@every_pair
def test_a_scorer_keeps_the_contract(method: Method, make: Callable[..., Event]) -> None:
    scorer = method.prepare(make().scene)
    assert isinstance(scorer, Scorer)
    assert isinstance(method, Method)
    assert scorer.multiple_of == 1
    plain = [getattr(scorer, f.name) for f in fields(scorer)]  # type: ignore[arg-type]
    for value in plain:
        assert all(isinstance(v, int | float | str | None) for v in (value if isinstance(value, tuple) else (value,)))
    found = scores(make(), method)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 1
    assert len(np.unique(found)) > 150  # a ranking, not a mask


def windows(rng: np.random.Generator) -> Iterator[Window]:
    for _ in range(12):
        row, col = int(rng.integers(0, SHAPE[0] - 1)), int(rng.integers(0, SHAPE[1] - 1))
        yield Window(row, col, int(rng.integers(1, SHAPE[0] - row + 1)), int(rng.integers(1, SHAPE[1] - col + 1)))


@every_pair
def test_a_pixel_scores_the_same_to_the_last_bit_in_whatever_tile(method: Method, make: Callable[..., Event]) -> None:
    event, rng = make(), np.random.default_rng(7)
    scorer = method.prepare(event.scene)
    pixels = event.pixels(scorer)
    pixels[:, :, rng.random(SHAPE) < 0.05] = np.nan
    pixels[:, 0, 30:60, 100:200] = np.nan
    valid = seen(pixels)
    whole = scorer(pixels, valid)
    for window in windows(rng):
        padded = window.pad(scorer.halo_px, SHAPE)
        cut = scorer(np.ascontiguousarray(pixels[..., *padded.slices]), valid[..., *padded.slices])
        inner = cut[..., *window.within(padded).slices]
        assert np.array_equal(inner, whole[..., *window.slices])
    twice = scorer(np.concatenate([pixels, pixels]), np.concatenate([valid, valid]))
    assert np.array_equal(twice, np.concatenate([whole, whole]))


@every_pair
def test_nothing_observed_is_no_hazard_and_no_error(method: Method, make: Callable[..., Event]) -> None:
    event = make()
    for bands in event._pixels.values():
        for pixels in bands.values():
            pixels[:] = np.nan
    assert (scores(event, method) <= 0.5).all()


def test_sar_drop_without_smoothing_is_the_published_mask() -> None:
    event = pair()
    published = SarDrop(smooth_px=1, co_floor_db=-30, cross_floor_db=-32.5)
    expected = np.ones(SHAPE, bool)
    for band, dark, floor in (("VV", 100, 75), ("VH", 90, 70)):  # ai4g-flood's 8-bit levels, field.md 3.3
        post, pre = (2 * event._pixels[layer][band].astype(np.float64) + 135 for layer in ("after", "before"))
        expected &= (post < dark) & (pre > dark) & (pre - post > 10) & (post >= floor) & (pre >= floor)
    assert 0.1 < expected[FLOOD].mean() < 0.9
    assert np.array_equal(scores(event, published) > 0.5, expected)


def test_thresholds_say_how_they_came_about() -> None:
    event = Event(after=(S1, "dB", sar(flooded=True, seed=0)), before=(S1, "dB", {"VH": np.full(SHAPE, -15, np.float32)}))
    scorer = SarThreshold().prepare(event.scene)
    assert isinstance(scorer, DarkScorer)
    assert scorer.after_source.startswith("median of ")
    assert scorer.after_db == pytest.approx(-21, abs=1.5)
    assert (scorer.before_db, scorer.before_source) == (
        -22.0, "no threshold found: 0 of 20 tiles are bimodal, at least 5 must be; -22 dB assumed",
    )  # fmt: skip


def test_a_lake_alone_darkened_by_a_decibel_is_no_flood() -> None:
    event = pair(flooded=False)
    for band in event._pixels["after"].values():
        band -= 1
    assert (scores(event, SarThreshold()) > 0.5).mean() < 1e-3


def test_the_fall_and_the_rise_by_hand() -> None:
    """3 dB of fall at a threshold of 2 dB is a margin of 1; MNDWI from -0.6 to 0.2 rises by 0.8."""
    scorer = FallScorer("VH", "dB", 2.0, "", smooth_px=1, scale=1.0)
    pixels = np.array([-18, -15], np.float32).reshape(1, 2, 1, 1)
    assert scorer(pixels, seen(pixels)).item() == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-6)
    optical_pixels = np.array([0.3, 0.2, 0.1, 0.4], np.float32).reshape(4, 1, 1)
    assert rise(optical_pixels).item() == pytest.approx(0.8, abs=1e-6)
    risen = RiseScorer(("green", "swir1"), "reflectance", "reflectance", 0.7, "", scale=0.1)
    assert risen(optical_pixels[None], seen(optical_pixels[None])).item() == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-5)


@pytest.mark.parametrize(("method", "make"), [(LogRatio(), pair), (MndwiRise(), optical_pair)], ids=["log-ratio", "mndwi-rise"])
def test_no_change_is_no_threshold_and_is_said(method: Method, make: Callable[..., Event]) -> None:
    scorer = method.prepare(make(flooded=False).scene)
    assert vars(scorer)["threshold"] is None
    assert vars(scorer)["source"].startswith("no threshold found")
    assert (scores(make(flooded=False), method) == 0).all()


def test_haze_that_lowers_water_below_zero_leaves_the_rise() -> None:
    """A veil of 0.2 reflectance on every band: the flood's MNDWI is below 0, and the rise still tells."""
    event = optical_pair()
    for band in event._pixels["after"].values():
        band += 0.2
    event._pixels["after"]["B11"] += 0.15
    assert (scores(event, Mndwi()) > 0.5)[FLOOD].mean() < 0.01
    assert iou(scores(event, MndwiRise()) > 0.5, region(FLOOD)) > 0.9


def test_methods_say_why_they_cannot_run() -> None:
    vv, vh = ({band: sar(flooded=False, seed=0)[band]} for band in ("VV", "VH"))
    single, grey = Event(after=(S1, "dB", vv)), Event(after=(S1, "digital_number", vv))
    assert SarDrop().why_not(single.scene) == "there is no before image"
    assert SarDarker().why_not(grey.scene) == "there is no before image"
    assert LogRatio().why_not(single.scene) == "there is no before image"
    assert MndwiRise().why_not(SINGLES["mndwi"][1].scene) == "there is no before image"
    assert MndwiRise().why_not(pair().scene) == "the after image has no band green"
    assert SarThreshold().why_not(grey.scene) == "the after image is in digital_number, not in dB"
    assert Mndwi().why_not(single.scene) == "the after image has no band green"
    apart = Event(after=(S1, "dB", vv), before=(S1, "dB", vh))
    assert SarDrop().why_not(apart.scene) == "the after and the before image have no polarisation in common"
    assert SarThreshold().prepare(apart.scene).classes == ("water",)


def test_a_pair_uses_the_polarisation_that_both_dates_have() -> None:
    both, vv = sar(flooded=True, seed=0), {"VV": backscatter(flooded=False, seed=9)}
    scorer = SarThreshold().prepare(Event(after=(S1, "dB", both), before=(S1, "dB", vv)).scene)
    assert (scorer.band, scorer.classes) == ("VV", ("flood",))


def test_the_normalised_difference_of_odd_reflectances() -> None:
    green = np.array([0.3, 0.0, -0.1, 0.2, -0.1, np.nan], np.float32)
    infrared = np.array([0.1, 0.0, -0.2, -0.1, 0.2, 0.1], np.float32)
    assert normalised_difference(green, infrared).tolist() == pytest.approx([0.5, 0, 0, 1, -1, np.nan], nan_ok=True)


def test_the_median_takes_what_was_observed() -> None:
    image = np.array([[1, 2, 3], [4, np.nan, 6], [7, 8, 90]], np.float32)
    expected = [2.0, 3.0, 3.0, 4.0, np.nan, 6.0, 7.0, 7.0, 8.0]  # corners see 3 pixels, edges 5, the centre stays unseen
    assert median_filter(image, 3).ravel().tolist() == pytest.approx(expected, nan_ok=True)
