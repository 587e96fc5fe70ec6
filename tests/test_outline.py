"""Outlines in windows equal outlines of the whole raster, to the last bit, and nothing stays in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from scipy import ndimage

from aftermap import outline, vector
from aftermap.tiles import Window, blocks

U8 = npt.NDArray[np.uint8]
PLACE = Affine(10.0, 0, 500_000.3, 0, -10.0, 5_000_000.7)


@st.composite
def rasters(draw: st.DrawFn) -> tuple[U8, int, int]:
    """Codes (y, x), lopsided; a window size; a seed. From speckle to large connected areas with holes."""
    height, width = draw(st.integers(1, 21)), draw(st.integers(1, 27))
    seed, blur = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0.0, 0.7, 2.0]))
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((height, width)), blur)
    codes = np.digitize(noise, np.quantile(noise, draw(st.sampled_from([(0.4, 0.5, 0.98), (0.7, 0.9, 0.95), (0.3, 0.35, 0.4)]))))
    return np.choose(codes, [0, 1, 255, 6]).astype(np.uint8), draw(st.integers(2, 12)), seed


def pixel_areas(shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    rows, cols = np.indices(shape)
    return 100 + rows / 64 + cols / 128


def classes(codes: U8, size: int) -> outline.Classes:
    areas = pixel_areas(codes.shape)
    return outline.Classes(lambda w: codes[w.slices], tuple(blocks(codes.shape, size)), codes.shape, lambda w: areas[w.slices])


def run(codes: U8, size: int, **options: Any) -> tuple[U8, list[outline.Outlines]]:
    source, cleaned = classes(codes, size), np.full_like(codes, 77)
    found = []
    for part in outline.outlines(source, outline.take_census(source), PLACE, **options):
        cleaned[part.window.slices] = part.codes
        found.append(part.outlines)
    return cleaned, found


def rows(parts: Iterable[outline.Outlines]) -> list[tuple[Any, ...]]:
    """Every polygon with all that it carries, sorted, to compare runs whose order differs."""
    found: list[tuple[Any, ...]] = []
    for part in parts:
        under = [column for s in part.under.values() for column in (s.mean, s.low, s.high)]
        columns = [[repr(float(v)) for v in column] for column in under]
        found += zip(
            shapely.to_wkt(part.geometry, rounding_precision=-1), part.code, part.pixels, part.area_m2, *columns, strict=True
        )
    return sorted(found)


def values_of(seed: int, shape: tuple[int, int]) -> dict[str, U8]:
    rng = np.random.default_rng(seed)
    likelihood = rng.integers(0, 101, shape).astype(np.uint8)
    likelihood[rng.random(shape) < 0.3] = 255
    return {"likelihood": likelihood, "agreement": rng.integers(0, 4, shape).astype(np.uint8)}


@settings(max_examples=60)
@given(rasters())
def test_windows_give_what_the_whole_gives(drawn: tuple[U8, int, int]) -> None:
    codes, size, seed = drawn
    rasters_under = values_of(seed, codes.shape)

    def values(window: Window) -> Mapping[str, U8]:
        return {name: v[window.slices] for name, v in rasters_under.items()}

    options: dict[str, Any] = {"values": values, "min_area_m2": {1: 350.0}}
    tiled, parts = run(codes, size, **options)
    whole, one = run(codes, max(codes.shape), **options)
    assert np.array_equal(tiled, whole)
    assert rows(parts) == rows(one)


@settings(max_examples=60)
@given(rasters())
def test_polygons_are_the_components(drawn: tuple[U8, int, int]) -> None:
    codes, size, _ = drawn
    cleaned, parts = run(codes, size)
    assert np.array_equal(cleaned, codes)
    geometry = np.concatenate([p.geometry for p in parts])
    code, pixels = (np.concatenate([getattr(p, name) for p in parts]) for name in ("code", "pixels"))
    area = np.concatenate([p.area_m2 for p in parts])
    assert shapely.is_valid(geometry).all()
    assert (shapely.get_type_id(geometry) == shapely.GeometryType.POLYGON).all()
    np.testing.assert_allclose(shapely.area(geometry), pixels * 100.0, rtol=1e-6)
    grid = GeoBox(codes.shape, PLACE, "EPSG:32632")
    for value in (1, 6):
        assert (code == value).sum() == ndimage.label(codes == value)[1]
        assert area[code == value].sum() == pixel_areas(codes.shape)[codes == value].sum()
        burnt = vector.rasterise(list(geometry[code == value]), grid, Window(0, 0, *codes.shape))
        assert np.array_equal(burnt, codes == value)


@settings(max_examples=60)
@given(rasters(), st.floats(0, 2000))
def test_what_is_too_small_goes_and_only_that(drawn: tuple[U8, int, int], least: float) -> None:
    codes, size, _ = drawn
    cleaned, parts = run(codes, size, min_area_m2={1: least}, dropped=9)
    labels, count = ndimage.label(codes == 1)
    small = np.bincount(labels.ravel(), weights=pixel_areas(codes.shape).ravel(), minlength=count + 1) < least
    small[0] = False
    assert np.array_equal(cleaned, np.where(small[labels], 9, codes))
    assert sum(len(p.only(1)) for p in parts) == count - small.sum()
    assert sum(len(p.only(6)) for p in parts) == ndimage.label(codes == 6)[1]


def test_the_order_is_the_same_every_time() -> None:
    codes = (np.random.default_rng(3).random((50, 70)) < 0.5).astype(np.uint8)
    first, second = ([shapely.to_wkb(p.geometry).tolist() for p in run(codes, 16)[1]] for _ in range(2))
    assert first == second


def test_a_component_comes_whole_with_the_window_that_completes_it() -> None:
    codes = np.zeros((8, 12), np.uint8)
    codes[1, 1:11] = codes[1:7, 10] = 1  # an angle through three of six windows of 4 px and down to the last
    parts = run(codes, 4)[1]
    assert [len(p) for p in parts] == [0, 0, 0, 0, 0, 1]
    assert len(shapely.get_coordinates(parts[-1].geometry)) == 7  # six corners: no vertex is left where windows met
    assert parts[-1].pixels.tolist() == [15]


def test_statistics_leave_out_what_is_not_known() -> None:
    codes, likelihood = np.zeros((4, 6), np.uint8), np.zeros((4, 6), np.uint8)
    codes[0, :4], codes[3, 3:5] = 1, 1
    likelihood[0, :4], likelihood[3, 3:5] = [80, 255, 60, 100], 255
    (found,) = (p for p in run(codes, 6, values=lambda w: {"likelihood": likelihood[w.slices]})[1])
    under = found.under["likelihood"]
    assert under.mean[0] == 80
    assert under.low[0] == 60
    assert under.high[0] == 100
    assert np.isnan([under.mean[1], under.low[1], under.high[1]]).all()


def test_the_pool_is_empty_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    pools: list[Any] = []
    create = outline._Pool.__init__

    def note(pool: Any, census: outline.Census) -> None:
        create(pool, census)
        pools.append(pool)

    monkeypatch.setattr(outline._Pool, "__init__", note)
    codes = (np.random.default_rng(5).random((60, 90)) < 0.6).astype(np.uint8)
    source, held = classes(codes, 16), []
    for _ in outline.outlines(source, outline.take_census(source), PLACE):
        held.append(sum(map(len, pools[0].parts.values())))
    assert max(held) > 0
    assert held[-1] == 0


def test_nothing_but_background_gives_nothing() -> None:
    cleaned, parts = run(np.full((9, 7), 255, np.uint8), 4)
    assert (cleaned == 255).all()
    assert sum(map(len, parts)) == 0
