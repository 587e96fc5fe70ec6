"""Pixel areas agree with geodesic polygons, whatever the projection, and do not depend on the window."""

from __future__ import annotations

import numpy as np
import pyproj
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from aftermap.area import pixel_area_m2, pixel_size_m
from aftermap.tiles import Window

GRIDS = {
    "degrees, fine": GeoBox((1100, 700), Affine(1e-4, 0, 10, 0, -1e-4, 50), "EPSG:4326"),
    "degrees, coarse, south": GeoBox((600, 900), Affine(1e-2, 0, 140, 0, -1e-2, -37), "EPSG:4326"),
    "degrees, across the date line": GeoBox((500, 900), Affine(1e-3, 0, 179.5, 0, -1e-3, -16), "EPSG:4326"),
    "UTM south": GeoBox((900, 1500), Affine(10, 0, 200_000, 0, -10, 6_000_000), "EPSG:32719"),
    "UTM, turned": GeoBox((900, 1500), Affine(9, 3, 600_000, 3, -9, 5_200_000), "EPSG:32632"),
    "polar stereographic south": GeoBox((900, 700), Affine(100, 0, -200_000, 0, -100, 600_000), "EPSG:3031"),
    "polar stereographic, the pole within": GeoBox((900, 700), Affine(50, 0, -20_000, 0, -50, 20_000), "EPSG:3413"),
    "Web Mercator": GeoBox((900, 700), Affine(10, 0, -200_000, 0, -10, 8_000_000), "EPSG:3857"),
    "NAD27": GeoBox((900, 700), Affine(3e-4, 0, -100, 0, -3e-4, 31), "EPSG:4267"),
}


def geodesic_area(grid: GeoBox, row: int, col: int, side: int) -> float:
    """Area of a square of pixels by pyproj.Geod, its edges followed pixel by pixel as they run in the grid's CRS."""
    assert grid.crs is not None
    crs, steps = grid.crs.proj, np.arange(side)
    edge = np.concatenate([steps, np.full(side, side), side - steps, np.zeros(side)])
    a, b, c, d, e, f = grid.affine[:6]
    cols, rows = col + edge, row + np.roll(edge, side)
    x, y = a * cols + b * rows + c, d * cols + e * rows + f
    lon, lat = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True).transform(x, y)
    ellipsoid = crs.get_geod()
    assert ellipsoid is not None
    return float(abs(ellipsoid.polygon_area_perimeter(lon, lat)[0]))


@pytest.mark.parametrize("name", GRIDS)
def test_areas_are_geodesic(name: str) -> None:
    grid = GRIDS[name]
    areas = pixel_area_m2(grid, Window(0, 0, *grid.shape))
    assert areas.shape == grid.shape
    rng = np.random.default_rng(0)
    for _ in range(40):
        row, col = rng.integers(grid.shape[0] - 40), rng.integers(grid.shape[1] - 40)
        found = areas[row : row + 40, col : col + 40].sum()
        assert found == pytest.approx(geodesic_area(grid, int(row), int(col), 40), rel=1e-6)


def test_the_scale_factor_of_utm_is_seen() -> None:
    grid = GeoBox((100, 5000), Affine(100, 0, 500_000, 0, -100, 5_000_000), "EPSG:32632")
    areas = pixel_area_m2(grid, Window(50, 0, 1, 5000))
    assert areas[0, 0] == pytest.approx(100**2 / 0.9996**2, rel=1e-6)  # larger on the ground than on paper at the meridian
    assert areas[0, -1] < 100**2  # and smaller beyond 180 km


@settings(max_examples=60)
@given(st.data(), st.sampled_from(sorted(GRIDS)))
def test_areas_do_not_depend_on_the_window(data: st.DataObject, name: str) -> None:
    grid = GRIDS[name]
    (top, bottom), (left, right) = (sorted(data.draw(st.tuples(*[st.integers(0, n - 1)] * 2))) for n in grid.shape)
    window = Window(top, left, bottom - top + 1, right - left + 1)
    whole = pixel_area_m2(grid, Window(0, 0, *grid.shape))
    assert np.array_equal(pixel_area_m2(grid, window), whole[window.slices])


def test_sums_are_the_same_bits_in_any_order() -> None:
    areas = pixel_area_m2(GRIDS["UTM, turned"], Window(0, 0, 900, 1500)).ravel()
    shuffled = np.random.default_rng(0).permutation(areas)
    assert sum(shuffled) == sum(areas) == areas.sum()


def test_without_a_crs_areas_are_pixels_or_of_the_given_size() -> None:
    grid = GeoBox((5, 7), Affine(1, 0, 0, 0, -1, 0), None)
    assert (pixel_area_m2(grid, Window(1, 2, 3, 4)) == np.ones((3, 4))).all()
    assert pixel_area_m2(grid, Window(0, 0, 1, 1), gsd_m=0.3)[0, 0] == pytest.approx(0.09, rel=1e-7)
    assert pixel_size_m(grid) is None


def test_pixel_size_is_that_of_the_centre_on_the_ground() -> None:
    assert pixel_size_m(GRIDS["UTM south"]) == pytest.approx(10, rel=1e-3)
    assert pixel_size_m(GRIDS["Web Mercator"]) == pytest.approx(10 * np.cos(np.deg2rad(58)), rel=1e-2)


def test_pixels_beyond_the_pole_have_no_area() -> None:
    grid = GeoBox((400, 100), Affine(0.5, 0, 0, 0, -0.5, 110), "EPSG:4326")
    areas = pixel_area_m2(grid, Window(0, 0, 400, 100))
    assert areas[0, 0] == 0
    assert areas[200, 0] > 0


def test_a_local_crs_is_a_plane() -> None:
    site = 'LOCAL_CS["building site",LOCAL_DATUM["local",0],UNIT["foot",0.3048],AXIS["x",EAST],AXIS["y",NORTH]]'
    grid = GeoBox((5, 7), Affine(2, 0, 0, 0, -2, 0), site)
    assert pixel_area_m2(grid, Window(0, 0, 1, 1))[0, 0] == pytest.approx((2 * 0.3048) ** 2, rel=1e-6)
