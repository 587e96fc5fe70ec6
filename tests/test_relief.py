"""Slope and height above drainage as bands, and the water that is dark, low and flat: worked by hand, and on files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import aftermap as am
from aftermap.drainage import drain
from aftermap.errors import BandError
from aftermap.indices.fuzzy import FuzzyScorer, SarFuzzy, falling
from aftermap.indices.sar import SarThreshold
from aftermap.relief import HAND, SLOPE, with_relief
from aftermap.scene import Scene, open_scene
from aftermap.scorer import LayerBands
from aftermap.terrain import read_ground
from aftermap.tiles import Window
from tests.conftest import grid, write

SHAPE = (150, 200)
WHOLE = Window(0, 0, *SHAPE)
RIVER, SHADOW, TARN = np.s_[:, 40:70], np.s_[40:110, 150:165], np.s_[20:30, 185:198]
"""Dark: a river on the plain, the shaded face of a bank of 45 degrees, and a tarn on the plateau 150 m above."""


def ground() -> npt.NDArray[np.float32]:
    """A plain that falls southward to a river, a bank of 150 m at its east, and a plateau behind; m."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.asarray(300 - 0.02 * y + 0.02 * np.abs(x - 55) + np.clip((x - 150) * 10.0, 0, 150), np.float32)


def dark(pair: bool = False) -> list[npt.NDArray[np.float32]]:
    """VH in dB (1, y, x), water and shadow alike; in a pair before it, all but the shadow is bright."""
    dates: list[npt.NDArray[np.float32]] = []
    for wet in (RIVER, TARN), ():
        level = np.full(SHAPE, -15.0)
        for place in (*wet, SHADOW):
            level[place] = -27
        speckle = np.random.default_rng(len(dates)).gamma(4.4, 1 / 4.4, SHAPE)
        dates.append(np.asarray(level + 10 * np.log10(speckle), np.float32)[None])
    return dates[: 1 + pair]


def files(folder: Path, *, pair: bool = False, crs: str | None = "EPSG:32633", dem: bool = True) -> dict[str, list[Path]]:
    on = grid(SHAPE, crs=crs)
    dates = zip(("after", "before"), dark(pair), strict=False)
    layers = {name: [write(folder / f"{name}.tif", p, on, ("VH",), unit="dB")] for name, p in dates}
    return layers | ({"dem": [write(folder / "dem.tif", ground()[None], on, ("elevation",))]} if dem else {})


def scene(folder: Path, **how: object) -> Scene:
    return open_scene(files(folder, **how), hazard="flood")  # type: ignore[arg-type]


def test_where_a_slope_faces_and_how_it_bends(tmp_path: Path) -> None:
    """A valley that falls to the west: its north side faces south, its south side north; a thread of lower ground bends."""
    y, x = np.mgrid[:20, :33]
    z = np.asarray(5.0 * np.abs(y - 10) + 0 * x, np.float32)[None]
    on = grid((20, 33))
    layers = {"after": [write(tmp_path / "a.tif", 0 * z - 9, on, ("VH",), unit="dB")]}
    layers["dem"] = [write(tmp_path / "d.tif", z, on, ("elevation",))]
    made, window = with_relief(open_scene(layers, hazard="landslide")), Window(2, 3, 17, 29)
    sine, cosine = made.read(LayerBands("dem", ("aspect_sin", "aspect_cos"), "1"), window)
    np.testing.assert_allclose(sine, 0, atol=1e-6)
    np.testing.assert_allclose(cosine[[0, 8, -1], 7], [-1, 0, 1], atol=1e-6)
    bent = made.read(LayerBands("dem", ("curvature",), "1/m"), window)[0]
    np.testing.assert_allclose(bent[[3, 8], 7], [0, -0.1], atol=1e-4)  # (5 + 5 - 0) m / (10 m)^2 in the hollow
    assert "not in degrees" in made.missing(LayerBands("dem", ("curvature",), "degrees"))
    aspect = read_ground(made, window).aspect_deg
    there = np.isfinite(aspect)
    np.testing.assert_allclose(np.cos(np.radians(aspect[there])), cosine[there], atol=1e-5)


def test_derived_bands_are_what_the_ground_says(tmp_path: Path) -> None:
    plain = scene(tmp_path)
    both, window = with_relief(plain), Window(13, 61, 70, 120)
    assert plain.missing(SLOPE) == "the dem image has no band slope (it has elevation)"
    assert both.missing(SLOPE) == both.missing(HAND) == ""
    slope, hand = both.read(SLOPE, WHOLE)[0], both.read(HAND, WHOLE)[0]
    np.testing.assert_array_equal(both.read(SLOPE, window)[0], slope[window.slices])
    np.testing.assert_array_equal(both.read(HAND, window)[0], hand[window.slices])
    np.testing.assert_array_equal(slope, read_ground(plain, WHOLE).slope_deg)
    np.testing.assert_array_equal(hand, np.nan_to_num(drain(plain).hand(ground(), WHOLE)))
    metres = LayerBands("dem", ("elevation", "hand"), "metres")
    np.testing.assert_array_equal(both.read(metres, window), np.stack([ground(), hand])[(..., *window.slices)])


def test_a_derived_band_has_its_own_unit_and_needs_a_scale(tmp_path: Path) -> None:
    words = "slope of the dem image is in degrees, not in metres"
    both = with_relief(scene(tmp_path))
    assert both.missing(LayerBands("dem", ("elevation", "slope"), "metres")) == words
    with pytest.raises(BandError, match="in degrees"):
        both.read(LayerBands("dem", ("slope",), "metres"), WHOLE)
    pixels = scene(tmp_path / "pixels", crs=None)
    assert with_relief(pixels) is pixels
    assert with_relief(pixels, gsd_m=10).missing(SLOPE) == ""


def test_memberships_by_hand() -> None:
    heights = np.array([-1, 0, 3.75, 7.5, 11.25, 15, 30], np.float32)
    np.testing.assert_allclose(falling(heights, 0, 15), [1, 1, 0.875, 0.5, 0.125, 0, -1], rtol=1e-6)
    np.testing.assert_allclose(falling(-np.array([2, 3, 6, 10, 40]), -10, -3), [-1 / 7, 0, 18 / 49, 1, 1], rtol=1e-6)


def by_hand(db: float, slope: float, hand: float, px: int) -> float:
    """The score of a segment of `px` pixels in a row, alike in all else, among bright flat low land."""
    scorer = FuzzyScorer(
        "VH", -20.0, "", None, "", water_db=-24.0, hand_sure_m=2.0, hand_none_m=12.0, hand_source="", steep_deg=15.0,
        least_mean=0.45, scarce_px=3, ample_px=10, least_drop_db=3.0, smooth_px=1, scale_db=1.0, scale=0.15,
    )  # fmt: skip
    pixels = np.tile(np.array([-10, 0, 0], np.float32)[:, None, None], (1, 3, 30))
    pixels[:, 1, 2 : 2 + px] = np.array([db, slope, hand])[:, None]
    return float(scorer(pixels[None], np.ones((1, 3, 30), bool))[0, 0, 1, 2])


@pytest.mark.parametrize(
    ("db", "slope", "hand", "px", "margin"),
    [
        (-25, 0, 0, 20, 0.55),  # every membership is 1
        (-21, 0, 7, 20, (0.125 + 1 + 0.5 + 1) / 4 - 0.45),  # 3/4 of the way to the threshold, half of that to 12 m; but:
        (-25, 0, 12, 20, 0.0),  # one membership is 0, so it is no water, whatever the mean
        (-25, 15, 0, 20, 0.0),
        (-25, 0, 0, 3, 0.0),
        (-25, 0, 0, 6, 18 / 49),  # the least membership bounds the margin
        (-25, 30, 0, 20, -1.0),  # a slope of twice the limit lies one whole membership outside
        (-10, 0, 0, 20, -2.5),  # 10 dB above the threshold, 2.5 times the 4 dB between it and water
    ],
)
def test_the_score_by_hand(db: float, slope: float, hand: float, px: int, margin: float) -> None:
    least = 0.125 if db == -21 else margin
    assert by_hand(db, slope, hand, px) == pytest.approx(1 / (1 + np.exp(-min(margin, least) / 0.15)), abs=1e-6)


def test_shadow_on_a_slope_is_no_water_and_a_river_is(tmp_path: Path) -> None:
    there = with_relief(scene(tmp_path))
    masks = {}
    for method in (SarThreshold(), SarFuzzy()):
        scorer = method.prepare(there)
        pixels = np.concatenate([there.read(i, WHOLE) for i in scorer.inputs])[None]
        masks[method.name] = scorer(pixels, np.isfinite(pixels).all(axis=1))[0, 0] > 0.5
    alone, refined = masks["sar-threshold"], masks["sar-fuzzy"]
    assert alone[RIVER].mean() > 0.98
    assert refined[RIVER].mean() > 0.98
    assert alone[SHADOW].mean() > 0.9
    assert refined[SHADOW].mean() < 0.02
    assert not refined[TARN].any()  # water all the same: a refinement by height loses lakes above the valley
    assert (refined <= alone).all()


def test_a_pair_that_was_dark_before_is_no_flood_and_the_map_says_its_limits(tmp_path: Path) -> None:
    given = files(tmp_path, pair=True)
    mapped = am.map(given["after"], given["before"], dem=given["dem"], out=tmp_path / "out", method="sar-fuzzy")
    assert mapped.classes == ("flood",)
    assert (mapped.extent(WHOLE)[RIVER] == 1).mean() > 0.95
    assert (mapped.extent(WHOLE)[:, 75:] != 1).all()
    numbers = mapped.made_by["methods"]["ran"]["sar-fuzzy"]
    assert numbers["hand_source"].startswith("median")
    assert 0 <= numbers["hand_sure_m"] < numbers["hand_none_m"] < 20


def test_no_water_to_learn_from_and_what_is_lacking_are_said(tmp_path: Path) -> None:
    given = files(tmp_path)
    write(tmp_path / "after.tif", np.full((1, *SHAPE), -12, np.float32), grid(SHAPE), ("VH",), unit="dB")
    scorer = SarFuzzy().prepare(with_relief(open_scene(given, hazard="flood")))
    assert scorer.after_source.startswith("no threshold found")
    assert (scorer.hand_none_m, scorer.hand_source) == (15, "no dark flat ground; 0 to 15 m assumed")
    assert SarFuzzy().why_not(scene(tmp_path / "bare", dem=False)) == "there is no dem image"
    assert "no size in metres" in SarFuzzy().why_not(scene(tmp_path / "pixels", crs=None))
