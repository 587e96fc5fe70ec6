"""The untrained fracture methods: lines and not blobs, exact filters, gates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from aftermap.indices.exact import box_sum, deviation, line_sum, strongest
from aftermap.indices.fracture import Contrast, Gabor, gabor_bank
from aftermap.indices.radon import Radon, Saturation, SaturationScorer
from aftermap.metrics import Ranking
from aftermap.scorer import Bool, Method
from tests.conftest import shared
from tests.flood_events import Event, iou, scores

SHAPE = (300, 340)
METHODS: dict[str, Method] = {"gabor": Gabor(), "contrast": Contrast(), "radon": Radon(), "saturation": Saturation()}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def lines() -> Bool:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.asarray((np.abs(y - 60 - 0.4 * x) < 2) | ((np.abs(x - 250) < 2) & (y > 120)) | (np.abs(x + y - 380) < 3))


def ice(*, fractured: bool, sign: float = 1.0) -> Event:
    image = np.random.default_rng(1).normal(30_000, 3_000, SHAPE)
    if fractured:
        image[lines()] += sign * 22_000
    return grey(np.clip(np.rint(image), 1, 50_000 if fractured else 65_535))


def grey(image: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Event:
    return Event(after=("modis-grey", "digital_number", {"grey": image.astype(np.float32)}))


@every_method
def test_lines_are_found(method: Method) -> None:
    mask = scores(ice(fractured=True), method) > 0.5
    assert iou(mask, lines()) > (0.25 if method.name == "radon" else 0.5)
    assert mask[lines()].mean() > 0.6


@every_method
def test_plain_ice_gives_nothing_and_says_so(method: Method) -> None:
    scorer = method.prepare(ice(fractured=False).scene)
    assert (scores(ice(fractured=False), method) <= 0.5).all()
    assert str(getattr(scorer, "source", "")).startswith("nothing found: ")


@pytest.mark.parametrize("method", [Gabor(sign=-1.0), Contrast(sign=-1.0), Radon()], ids=lambda m: m.name)
def test_dark_lines_are_found_where_asked_for(method: Method) -> None:
    mask = scores(ice(fractured=True, sign=-1.0), method) > 0.5
    assert iou(mask, lines()) > (0.25 if method.name == "radon" else 0.5)


def test_brightness_and_contrast_of_the_image_change_no_map() -> None:
    event = ice(fractured=True)
    brighter = grey(event._pixels["after"]["grey"].astype(np.float64) * 0.25 + 512)
    for method in (Gabor(), Contrast(), Radon()):
        assert ((scores(event, method) > 0.5) != (scores(brighter, method) > 0.5)).mean() < 1e-3


def test_gabor_kernels_are_whole_and_blind_to_level() -> None:
    bank = gabor_bank(8.0, 2.0, 0.5)
    assert len(bank) == 18
    for kernel in bank:
        assert kernel.sum() == 0
        assert (kernel == np.rint(kernel)).all()
        assert np.abs(kernel).sum() == pytest.approx(4096, rel=0.05)
    np.testing.assert_array_equal(bank[9], bank[0].T)


def test_the_published_gabor_filter_can_be_asked_for() -> None:
    published = Gabor(wavelength_px=2, aspect=0.1, brightness_power=0, least_tail=0)
    assert (scores(ice(fractured=True), published) > 0.5)[lines()].mean() > 0.3


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_exact_filters_are_those_of_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(-4096, 4096, (37, 53)).astype(np.float64)
    kernels = [rng.integers(-99, 99, (7, 7)).astype(np.float64) for _ in range(3)]
    expected = np.max([ndimage.correlate(image, k, mode="constant") for k in kernels], axis=0)
    np.testing.assert_array_equal(strongest(image, kernels), expected)
    np.testing.assert_array_equal(box_sum(image, 5), ndimage.correlate(image, np.ones((5, 5)), mode="constant"))
    line = np.zeros((5, 5))
    line[[1, 2, 4], [3, 2, 0]] = 1
    expected = ndimage.correlate(image, line, mode="constant")
    np.testing.assert_array_equal(line_sum(image, [(-1, 1), (0, 0), (2, -2)]), expected)


def test_the_deviation_knows_only_what_was_observed() -> None:
    image = np.full((9, 9), 10, np.float32)
    image[4, 4], image[:, 5:] = 20, np.nan
    found = deviation(image, (0, 100), 3)
    assert np.isfinite(found).all()
    assert (found[:, 5:] == 0).all()
    level, high = np.rint(0.1 * 1024), np.rint(0.2 * 1024)
    assert found[4, 4] == np.rint(4 * (high - (high + 5 * level) / 6))  # 6 of 9 neighbours were observed


def test_saturation_tells_how_much_is_saturated() -> None:
    scorer = Saturation().prepare(ice(fractured=True).scene)
    assert isinstance(scorer, SaturationScorer)
    assert scorer.top == 50_000
    assert scorer.source.endswith("of the sampled pixels have the greatest value, 50000")
    assert not scorer(np.full((1, 1, 2, 2), 49_999, np.float32), np.ones((1, 2, 2), bool)).max() > 0.5
    assert replace(scorer, top=None)(np.full((1, 1, 2, 2), 60_000, np.float32), np.ones((1, 2, 2), bool)).max() == 0


def test_methods_say_why_they_cannot_run() -> None:
    blue = Event(after=("vhr-rgb", "digital_number", {"blue": np.ones(SHAPE, np.float32)}))
    for method in METHODS.values():
        assert method.why_not(blue.scene) == "the after image has no band grey"


def test_gabor_ranks_better_than_brightness_in_antarctica() -> None:
    folder = shared("glacier_fracture_antarctica") / "data_trainset"
    path = next(p for p in folder.glob("*_1x6.tif"))
    with rasterio.open(path) as src, rasterio.open(path.with_name(f"{path.stem}_mask.tif")) as labels:
        image, truth = src.read(1).astype(np.float64), labels.read(1) > 0
    image[image == 0] = np.nan
    seen = np.isfinite(image)
    found, plain = Ranking(), Ranking()
    found.add(scores(grey(image), Gabor())[seen], truth[seen])
    plain.add(image[seen] / 65535, truth[seen])
    assert (found.average_precision or 0) > 1.2 * (plain.average_precision or 1)
