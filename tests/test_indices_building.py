"""The untrained building methods: what they find, and that they claim no more."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from aftermap.indices.building import Brightness, BuildingChange, Texture, brightness
from aftermap.scorer import Method
from tests.flood_events import Bands, Event, iou, scores

SHAPE = (256, 320)
ROOFS = np.zeros(SHAPE, bool)
for _row in range(20, 240, 40):
    for _col in range(30, 300, 50):
        ROOFS[_row : _row + 20, _col : _col + 26] = True
LOST = ROOFS & (np.mgrid[: SHAPE[0], : SHAPE[1]][1] > 180)


def town(roofs: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], *, seed: int = 0, exposure: float = 1.0) -> Bands:
    rng = np.random.default_rng(seed)
    return {
        band: (np.where(roofs, roof, ground) * rng.normal(exposure, 0.04, SHAPE)).astype(np.float32)
        for band, roof, ground in (("red", 190, 80), ("green", 180, 90), ("blue", 170, 70))
    }


def single(roofs: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = ROOFS) -> Event:
    return Event(after=("vhr-rgb", "digital_number", town(roofs)))


def pair(after: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], exposure: float = 1.0) -> Event:
    return Event(
        after=("vhr-rgb", "digital_number", town(after, seed=1, exposure=exposure)),
        before=("vhr-rgb", "digital_number", town(ROOFS, seed=2)),
    )


def test_bright_roofs_are_found() -> None:
    assert iou(scores(single(), Brightness()) > 0.5, ROOFS) > 0.98


def test_rough_surfaces_are_the_edges_of_roofs() -> None:
    rough = scores(single(), Texture()) > 0.5
    edges = np.zeros(SHAPE, bool)
    for axis in (0, 1):
        edges |= np.roll(ROOFS, 1, axis) != ROOFS
    assert rough[edges].mean() > 0.9
    assert rough.mean() < 0.7


@pytest.mark.parametrize("method", [Brightness(), Texture()], ids=lambda m: m.name)
def test_a_field_gives_nothing_and_says_so(method: Method) -> None:
    field = single(ROOFS & False)
    assert str(getattr(method.prepare(field.scene), "source", "")).startswith("no threshold found: ")
    assert (scores(field, method) == 0).all()


@pytest.mark.parametrize("exposure", [1.0, 1.3])
def test_lost_roofs_are_change_whatever_the_exposure(exposure: float) -> None:
    found = scores(pair(ROOFS & ~LOST, exposure), BuildingChange()) > 0.5
    assert found[LOST].all()
    assert not found[~binary_dilation(LOST, iterations=4, structure=np.ones((3, 3), bool))].any()  # the window reaches 4 px
    assert (scores(pair(ROOFS, exposure), BuildingChange()) > 0.5).mean() < 1e-3


def test_no_method_claims_to_map_buildings() -> None:
    assert Brightness().prepare(single().scene).classes == ("bright surface",)
    assert Texture().prepare(single().scene).classes == ("rough surface",)
    assert BuildingChange().prepare(pair(ROOFS).scene).classes == ("change",)


def test_one_band_will_do() -> None:
    event = Event(after=("modis-grey", "digital_number", {"grey": town(ROOFS)["red"]}))
    assert iou(scores(event, Brightness()) > 0.5, ROOFS) > 0.98


def test_brightness_is_the_mean_of_the_bands() -> None:
    pixels = np.array([[[1.0, np.nan]], [[2.0, 1.0]], [[6.0, 1.0]]], np.float32)
    np.testing.assert_array_equal(brightness(pixels), np.array([[3.0, np.nan]], np.float32))


def test_methods_say_why_they_cannot_run() -> None:
    assert BuildingChange().why_not(single().scene) == "there is no before image"
    radar = Event(after=("sentinel-1", "dB", {"VV": np.ones(SHAPE, np.float32)}))
    assert Brightness().why_not(radar.scene) == "the after image has no band red"
