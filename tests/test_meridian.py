"""Scenes over the antimeridian: one continuous grid, whatever side a layer, polygon or neighbour states its longitudes on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyogrio.raw
import pyproj
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

import aftermap as am
from aftermap import meridian
from aftermap.hazardmap import OUTSIDE_AOI
from aftermap.products import stac
from aftermap.scene import open_scene
from aftermap.scorer import LayerBands
from aftermap.tiles import Window
from tests.conftest import flood_pair, grid, write

SHAPE = (120, 200)
WHOLE = Window(0, 0, *SHAPE)
PIXEL = 1e-4
WEST, NORTH = 179.99, -16.5
"""The scene's left edge; the antimeridian is its column 100."""


def over(shape: tuple[int, int] = SHAPE, west: float = WEST) -> GeoBox:
    return GeoBox(shape, Affine(PIXEL, 0, west, 0, -PIXEL, NORTH), "EPSG:4326")


def box(path: Path, *spans: tuple[float, float], crs: str = "EPSG::4326", ys: tuple[float, float] = (-17, -16)) -> Path:
    """A polygon for each span of x."""
    rings = [[[w, ys[0]], [e, ys[0]], [e, ys[1]], [w, ys[1]], [w, ys[0]]] for w, e in spans]
    features = [{"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [r]}} for r in rings]
    named = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:{crs}"}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": named, "features": features}))
    return path


def halves(folder: Path, stem: str, pixels: np.ndarray, bands: tuple[str, ...], unit: str) -> list[Path]:
    """The image cut at the antimeridian, its eastern half at -180."""
    left, right = np.ascontiguousarray(pixels[:, :, :100]), np.ascontiguousarray(pixels[:, :, 100:])
    return [
        write(folder / f"{stem}_{k}_20240501.tif", p, over((SHAPE[0], 100), west), bands, unit=unit)
        for k, (p, west) in enumerate(((left, WEST), (right, -180.0)))
    ]


@pytest.mark.parametrize(
    ("where", "west", "east"),
    [
        (GeoBox((100, 400), Affine(0.01, 0, 178, 0, -0.01, -16), "EPSG:4326"), 178, 182),
        (GeoBox((100, 400), Affine(0.01, 0, -182, 0, -0.01, -16), "EPSG:4326"), 178, 182),
        (GeoBox((100, 400), Affine(0.01, 0, -170, 0, -0.01, -16), "EPSG:4326"), -170, -166),
        (GeoBox((1000, 1500), Affine(100, 0, 750_000, 0, -100, 9_900_000), "EPSG:32760"), 179.246, 180.594),
        (GeoBox((180, 360), Affine(1, 0, -180, 0, -1, 90), "EPSG:4326"), -180, 180),
    ],
)
def test_bounds_go_on_past_180(where: GeoBox, west: float, east: float) -> None:
    assert meridian.bounds(where)[::2] == pytest.approx((west, east), abs=1e-3)


@pytest.mark.parametrize(("west", "bbox"), [(0.0, [-180, -80, 180, 80]), (-20.0, [-180, -80, 180, 80])])
def test_a_map_all_around_has_a_footprint(west: float, bbox: list[float]) -> None:
    """From 0 to 360 it ended in a trace."""
    geometry, found = stac._footprint(GeoBox((160, 360), Affine(1, 0, west, 0, -1, 80), "EPSG:4326"))
    assert geometry is not None
    assert found == bbox


@pytest.mark.parametrize(("crs", "pole"), [("EPSG:3031", -90), ("EPSG:3413", 90)])
def test_a_footprint_about_a_pole_holds_it(crs: str, pole: int) -> None:
    where = GeoBox((300, 420), Affine(4000, 0, -840_000, 0, -4000, 600_000), crs)
    found = shapely.from_wkt(meridian.degrees(where).wkt)
    assert found.is_valid
    assert found.bounds[::2] == (-180, 180)
    assert pole in found.bounds
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(-180, 180, 2000), pole * rng.uniform(0.85, 1, 2000)
    x, y = pyproj.Transformer.from_crs(4326, crs, always_xy=True).transform(lon, lat)
    west, south, east, north = where.extent.boundingbox
    inside = (west < x) & (x < east) & (south < y) & (y < north)
    assert 200 < inside.sum() < 1800
    assert (shapely.contains_xy(found, lon, lat) != inside).mean() < 0.002  # straight between vertices of the edge


def test_a_scene_past_180_maps_as_its_halves_do(tmp_path: Path) -> None:
    before, after, flooded = flood_pair(SHAPE)
    pair = [write(tmp_path / f"{n}_20240501.tif", p, over(), ("VV", "VH"), unit="dB") for n, p in (("b", before), ("a", after))]
    aoi = box(tmp_path / "aoi.json", (179.995, 180), (-180, -179.995))
    assets = box(tmp_path / "assets.json", (-179.9997, -179.9991), ys=(-16.5075, -16.507))
    whole = am.map(pair[1], pair[0], out=tmp_path / "whole", aoi=aoi, assets=assets)
    parts = [halves(tmp_path, n, p, ("VV", "VH"), "dB") for n, p in (("a", after), ("b", before))]
    split = am.map(parts[0], parts[1], out=tmp_path / "split", aoi=aoi, assets=assets)
    assert whole.grid == over()
    for mapped in (whole, split):
        np.testing.assert_array_equal(mapped.extent(WHOLE), whole.extent(WHOLE))
        assert (mapped.exclusion(WHOLE)[:, [*range(50), *range(150, 200)]] == OUTSIDE_AOI).all()
        assert (mapped.exclusion(WHOLE)[:, 50:150] == 0).all()
        rows = {r["quantity"]: float(r["value"]) for r in mapped.summary if r["class"] == "polygons" and r["unit"] == "ha"}
        assert rows["assets_affected"] == pytest.approx(rows["assets_total"])  # it lies in the flood at columns 103 to 108
        assert mapped.made_by["grid"]["centre"][0] == pytest.approx(180, abs=1e-4)
    extent = whole.extent(WHOLE)[:, 50:150] == 1
    assert (extent & flooded[:, 50:150]).sum() / (extent | flooded[:, 50:150]).sum() > 0.8
    np.testing.assert_allclose(list(split.grid.affine), list(over().affine), atol=1e-9)
    item = json.loads((split.folder / "item.json").read_text())
    assert (item["geometry"]["type"], item["bbox"][0]) == ("MultiPolygon", pytest.approx(179.99))
    assert item["bbox"][2] == pytest.approx(-179.99)
    for layer in ("observed_event", "image_footprint", "area_of_interest"):
        _, _, shapes, _ = pyogrio.raw.read(split.folder / "map.gpkg", layer=layer)
        bounds = shapely.total_bounds(shapely.from_wkb(shapes))
        assert (bounds[0] >= 179.98, 180 < bounds[2] <= 180.011) == (True, True), layer
    assert not [w for w in split.made_by["warnings"] if w["code"] == "part-covered"]


def test_the_eastern_half_first_gives_a_grid_west_of_minus_180(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).normal(-12, 2, (2, *SHAPE)).astype(np.float32)
    scene = open_scene({"after": halves(tmp_path, "a", pixels, ("VV", "VH"), "dB")[::-1]}, hazard="flood")
    np.testing.assert_allclose(list(scene.grid.affine), list(over(west=WEST - 360).affine), atol=1e-9)
    np.testing.assert_array_equal(scene.read(LayerBands("after", ("VV", "VH"), "dB"), WHOLE), pixels)


@pytest.mark.parametrize("after", [over(), over(west=WEST - 360), grid((120, 200), crs="EPSG:32701", origin=(179000, 8172000))])
def test_elevation_is_laid_on_the_grid_from_either_side(tmp_path: Path, after: GeoBox) -> None:
    """Elevation that says its own longitude, from 0 at 179 to 2 at -179; in tiles, continuous, and of the whole world."""
    image = write(tmp_path / "a.tif", np.full((2, *SHAPE), -12, np.float32), after, ("VV", "VH"), unit="dB")

    def heights(name: str, west: float, columns: int, step: float = 0.01) -> Path:
        on = GeoBox((int(2 / step), columns), Affine(step, 0, west, 0, -step, -15.5), "EPSG:4326")
        lon = (west + (np.arange(columns) + 0.5) * step) % 360 - 179
        return write(tmp_path / name, np.broadcast_to(lon, (1, *on.shape)).astype(np.float32), on, ("",), unit="m")

    lon = np.array([after.extent.centroid.to_crs("EPSG:4326").coords[0][0] % 360 - 179])
    tiles = [heights("w.tif", 179, 100), heights("e.tif", -180, 100)]
    for files in (tiles, [heights("c.tif", 179, 200)], [heights("world.tif", -180, 7200, 0.05)]):
        scene = open_scene({"after": [image], "dem": files}, hazard="flood")
        got = scene.read(LayerBands("dem", ("elevation",), "metres"), WHOLE)[0]
        assert np.isfinite(got).all()
        assert got[60, 99:101].mean() == pytest.approx(lon[0], abs=0.006 if files != [tmp_path / "world.tif"] else 0.03)


def test_polygons_in_a_projected_crs_are_not_torn(tmp_path: Path) -> None:
    from aftermap import vector

    aoi = box(tmp_path / "aoi.json", (179000, 181000), crs="EPSG::32701", ys=(8171000, 8173000))
    for on in (over(), over(west=WEST - 360)):
        (found,) = vector.read_polygons(aoi, on)
        west, _, east, _ = found.bounds
        assert east - west == pytest.approx(2000 / 106_700, rel=0.05)
        assert on.extent.geom.intersects(found)
    (world,) = vector.read_polygons(
        box(tmp_path / "w.json", (-2e7, 2e7), crs="EPSG::3857", ys=(-3e6, 3e6)),
        grid((9, 9), crs="EPSG:4326", gsd=0.1, origin=(9, 9)),
    )
    assert world.bounds[2] - world.bounds[0] > 359


def test_turns_of_a_circle() -> None:
    assert meridian.shifts(over(), over()) == [0.0]
    assert meridian.shifts(over(west=WEST - 360), over()) == [360.0]
    world = GeoBox((18, 36), Affine(10, 0, -180, 0, -10, 90), "EPSG:4326")
    assert meridian.shifts(world, over()) == [0.0, 360.0]
    assert meridian.shifts(over(), over((4, 4), 100.0)) == [0.0]  # beside it, and nearest as it is
    assert meridian.shifts(grid((4, 4)), grid((4, 4))) == [0.0]
