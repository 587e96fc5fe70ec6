"""map.gpkg has the promised layers and fields, also when empty; equal input gives equal bytes; polygons are read and burnt."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyogrio
import pyogrio.raw
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from aftermap import vector
from aftermap.errors import InputRefusedError
from aftermap.outline import Classes, Outlines, outlines, take_census
from aftermap.products.geopackage import LAYERS, UNOSAT, Event, MapPackage, Source, date_and_time
from aftermap.products.styles import layer_styles, raster_styles
from aftermap.tiles import Window, blocks

UTM = GeoBox((40, 60), Affine(10, 0, 500_000, 0, -10, 5_000_000), "EPSG:32632")
NOWHERE = GeoBox((40, 60), Affine(1, 0, 0, 0, -1, 0), None)
FLOOD = Event(
    event_type="5-Flood", obj_desc="Open water, permanent water not separated", notation="Flooded area", dmg_src_id="1",
    sensor="sentinel-1", acq_before=None, acq_after="2024-05-01T05:30:12Z",
)  # fmt: skip


def found(grid: GeoBox) -> Outlines:
    codes = np.zeros(grid.shape, np.uint8)
    codes[3:9, 4:30], codes[20:22, 50:60], codes[30:, :7] = 1, 1, 5
    likelihood = np.where(codes == 1, 90, 255).astype(np.uint8)
    likelihood[4, 5] = 60
    source = Classes(lambda w: codes[w.slices], tuple(blocks(codes.shape, 64)), codes.shape, lambda w: np.full(w[2:], 100.0))
    (part,) = outlines(source, take_census(source), grid.affine, values=lambda w: {"likelihood": likelihood[w.slices]})
    return part.outlines


def write(path: Path, grid: GeoBox, gsd_m: float | None = None) -> Path:
    shapes = found(grid)
    with MapPackage(path, grid, FLOOD, gsd_m=gsd_m) as package:
        package.observed(shapes.only(1))
        package.not_analysed(shapes.only(5))
        package.area_of_interest([vector.rectangle(grid)])
        package.footprint("1", "after", vector.rectangle(grid))
        package.source(Source("1", "Sentinel-1 GRD", "2024-05-01T07:30:12+02:00", 10.0, "Post-event"))
        package.summary([{"quantity": "affected_area", "class": "flood", "value": 1.76, "unit": "ha", "percent_of_aoi": 7.3}])
    return path


def table(path: Path, layer: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(path)) as file:
        file.row_factory = sqlite3.Row
        return [{k: row[k] for k in row.keys() if k not in ("fid", "geom")} for row in file.execute(f"SELECT * FROM {layer}")]  # noqa: SIM118


def test_the_layers_hold_what_was_given(tmp_path: Path) -> None:
    path = write(tmp_path / "map.gpkg", UTM)
    first, second = table(path, "observed_event")
    assert first == {
        "event_type": "5-Flood", "obj_desc": "Open water, permanent water not separated", "det_method": "Automatic",
        "notation": "Flooded area", "dmg_src_id": "1", "area_ha": 1.56, "area_px": 156, "likelihood_mean": 89.81,
        "likelihood_min": 60.0, "agreement": None, "sensor": "sentinel-1", "acq_before": None,
        "acq_after": "2024-05-01T05:30:12Z",
    }  # fmt: skip
    assert second["area_px"] == 20
    assert table(path, "not_analysed") == [{"reason": "cloud", "area_ha": 0.7, "area_px": 70}]
    assert table(path, "source") == [
        {
            "source_nam": "Sentinel-1 GRD", "src_date": "01/05/2024", "source_tm": "T05:30:12Z", "sensor_gsd": 10.0,
            "eventphase": "Post-event", "src_id": "1",
        }
    ]  # fmt: skip
    assert table(path, "summary")[0] == {
        "quantity": "affected_area", "class": "flood", "reason": None, "value": 1.76, "unit": "ha", "percent_of_aoi": 7.3,
    }  # fmt: skip
    meta, _, wkb, _ = pyogrio.raw.read(path, layer="observed_event", columns=[])
    assert meta["crs"] == "EPSG:32632"
    assert shapely.from_wkb(wkb)[0].bounds == (500_040, 4_999_910, 500_300, 4_999_970)


def test_the_unosat_layer_names_its_fields(tmp_path: Path) -> None:
    with MapPackage(tmp_path / "map.gpkg", UTM, FLOOD, extra=[UNOSAT]) as package:
        package.unosat(found(UTM).only(1), "water", "FL20240501XYZ")
    first, second = table(tmp_path / "map.gpkg", "unosat")
    assert first == {
        "Water_Clas": "Satellite-detected water", "Sensor_ID": "sentinel-1", "Sensor_Dat": "2024-05-01T05:30:12Z",
        "Confidence": "Not assessed, mean likelihood 90 %", "Field_Vali": "Not yet field validated", "Water_Stat": "Unknown",
        "Notes": "Open water, permanent water not separated; Flooded area", "Area_m2": 15600.0, "Area_ha": 1.56,
        "EventCode": "FL20240501XYZ",
    }  # fmt: skip
    assert second["Area_m2"] == 2000


def test_empty_layers_have_their_fields(tmp_path: Path) -> None:
    with MapPackage(tmp_path / "map.gpkg", UTM, FLOOD):
        pass
    for layer in LAYERS:
        info = pyogrio.read_info(tmp_path / "map.gpkg", layer=layer.name)
        assert info["fields"].tolist() == list(layer.fields)
        assert info["features"] == 0
        assert info["geometry_type"] == layer.geometry_type


def test_pixel_space_is_kept_and_hectares_are_not_invented(tmp_path: Path) -> None:
    path = write(tmp_path / "map.gpkg", NOWHERE)
    assert [row["area_ha"] for row in table(path, "observed_event")] == [None, None]
    assert [row["area_px"] for row in table(path, "observed_event")] == [156, 20]
    assert {row["srs_id"] for row in table(path, "gpkg_geometry_columns")} == {-1}  # "undefined Cartesian"
    assert [row["area_ha"] for row in table(write(path, NOWHERE, gsd_m=10), "observed_event")] == [1.56, 0.2]


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    first = write(tmp_path / "map.gpkg", UTM).read_bytes()
    time.sleep(1.1)
    assert write(tmp_path / "map.gpkg", UTM).read_bytes() == first
    assert write(tmp_path / "other.gpkg", UTM).read_bytes() == first


def test_batches_append_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector, "_BATCH", 3)
    with MapPackage(tmp_path / "map.gpkg", UTM, FLOOD) as package:
        for i in range(8):
            package.source(Source(str(i), "a", None, None, "Reference"))
    assert [row["src_id"] for row in table(tmp_path / "map.gpkg", "source")] == list("01234567")


def test_styles_are_embedded_and_parse(tmp_path: Path) -> None:
    rows = table(write(tmp_path / "map.gpkg", UTM), "layer_styles")
    assert [row["f_table_name"] for row in rows] == [n for n in layer_styles("flood") if n in {layer.name for layer in LAYERS}]
    assert all(row["useAsDefault"] == 1 for row in rows)
    for qml in [*(row["styleQML"] for row in rows), *raster_styles("flood & <mud>", 3, density=True).values()]:
        assert ElementTree.fromstring(qml).tag == "qgis"


def test_times_are_in_utc_and_a_date_has_none() -> None:
    assert date_and_time("2024-01-01T00:30:00+02:00") == ("31/12/2023", "T22:30:00Z")
    assert date_and_time("2024-01-31") == ("31/01/2024", None)
    assert date_and_time(None) == (None, None)


def save(path: Path, shapes: list[Any], crs: str | None, kind: str = "Polygon", layer: str = "a") -> Path:
    wkb = shapely.to_wkb(np.array(shapes))
    pyogrio.raw.write(path, wkb, [], [], driver="GPKG", layer=layer, geometry_type=kind, crs=crs, append=path.exists())
    return path


def test_polygons_are_read_into_the_grids_crs(tmp_path: Path) -> None:
    square = shapely.box(8.99, 45.1, 9.01, 45.12)
    (moved,) = vector.read_polygons(save(tmp_path / "a.gpkg", [square], "EPSG:4326"), UTM)
    assert moved.contains(shapely.Point(500_000, 4_995_000))
    assert moved.area == pytest.approx(1575 * 2223, rel=0.01)


def test_a_long_edge_is_bent_as_it_runs(tmp_path: Path) -> None:
    degrees = GeoBox((10, 10), Affine(0.1, 0, 8, 0, -0.1, 46), "EPSG:4326")
    (moved,) = vector.read_polygons(save(tmp_path / "a.gpkg", [shapely.box(2e5, 5e6, 8e5, 51e5)], "EPSG:32632"), degrees)
    south = shapely.intersection(moved, shapely.LineString([(9, 40), (9, 50)])).bounds[1]
    assert south == pytest.approx(45.1535, abs=1e-3)  # a straight line between the corners would pass at 45.09


def test_a_bow_tie_is_mended(tmp_path: Path) -> None:
    tie = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    mended = vector.read_polygons(save(tmp_path / "a.gpkg", [tie], "EPSG:32632"), UTM)
    assert [shape.area for shape in mended] == [25, 25]


def refused(path: Path, grid: GeoBox) -> str:
    with pytest.raises(InputRefusedError) as caught:
        vector.read_polygons(path, grid)
    assert caught.value.repair
    return caught.value.code


def test_what_cannot_be_used_is_refused_with_a_repair(tmp_path: Path) -> None:
    square, line = shapely.box(0, 0, 1, 1), shapely.LineString([(0, 0), (1, 1)])
    (tmp_path / "broken.gpkg").write_bytes(b"no vector data")
    two = save(tmp_path / "two.gpkg", [square], "EPSG:32632")
    save(two, [square], "EPSG:32632", layer="b")
    with pytest.warns(UserWarning, match="crs"):
        bare = save(tmp_path / "bare.gpkg", [square], None)
    assert refused(tmp_path / "none.gpkg", UTM) == "missing-file"
    assert refused(tmp_path / "broken.gpkg", UTM) == "unreadable-vector"
    assert refused(save(tmp_path / "line.gpkg", [line], "EPSG:32632", "LineString"), UTM) == "no-polygons"
    assert refused(save(tmp_path / "empty.gpkg", [], "EPSG:32632"), UTM) == "no-polygons"
    assert refused(two, UTM) == "several-layers"
    assert refused(bare, UTM) == "vector-without-crs"
    assert refused(two.rename(tmp_path / "one.gpkg"), NOWHERE) == "several-layers"
    assert refused(save(tmp_path / "placed.gpkg", [square], "EPSG:32632"), NOWHERE) == "vector-without-crs"
    assert len(vector.read_polygons(bare, NOWHERE)) == 1


@settings(max_examples=40)
@given(st.data())
def test_burning_does_not_depend_on_the_window(data: st.DataObject) -> None:
    turned = GeoBox((70, 90), Affine(9.7, 3.1, 500_000.3, 2.9, -9.1, 5_000_000.9), "EPSG:32632")
    corners = st.tuples(st.integers(-10, 100), st.integers(-10, 80))
    rings = data.draw(st.lists(st.lists(corners, min_size=3, max_size=6), min_size=1, max_size=4))
    shapes = list(vector.place(shapely.make_valid(np.array([shapely.Polygon(ring) for ring in rings])), turned.affine))
    whole = vector.rasterise(shapes, turned, Window(0, 0, 70, 90))
    row, col = data.draw(st.integers(0, 69)), data.draw(st.integers(0, 89))
    window = Window(row, col, data.draw(st.integers(1, 70 - row)), data.draw(st.integers(1, 90 - col)))
    assert np.array_equal(vector.rasterise(shapes, turned, window), whole[window.slices])


def test_burning_crosses_the_fixed_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = vector.place(np.array([shapely.Point(30, 20).buffer(15.3)]), UTM.affine)[0]
    whole = vector.rasterise([shape], UTM, Window(0, 0, 40, 60))
    monkeypatch.setattr(vector, "_BURN_PX", 16)
    assert np.array_equal(vector.rasterise([shape], UTM, Window(0, 0, 40, 60)), whole)
    assert whole.sum() == pytest.approx(np.pi * 15.3**2, rel=0.02)
    assert not vector.rasterise([], UTM, Window(0, 0, 40, 60)).any()
