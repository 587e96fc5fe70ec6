"""Which images of an event are chosen, and why: passes put together from items, the rules, area and sheets, the item file."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from aftermap import stacfacts
from aftermap.acquisitions import Choice, Moment, Rules, choose, grouped
from aftermap.aoi import Aoi
from aftermap.catalog import Signer, catalog
from aftermap.errors import AftermapError, InputRefusedError, UnknownNameError, UsageError
from aftermap.itemfile import EventFile, Part
from aftermap.sheets import Sheet, fitted, sheets

AREA = Aoi.of_box(10.0, 45.0, 11.0, 46.0)
EVENT = datetime(2024, 5, 12, 17, tzinfo=UTC)


def item(name: str, days: float, *, orbit: int | None = 22, state: str = "descending", box: tuple[float, ...] = (9, 44, 12, 47),
         cloud: float | None = None, collection: str = "sentinel-1-rtc", **properties: Any) -> dict[str, Any]:  # fmt: skip
    """A pass so many days after the event."""
    west, south, east, north = box
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    names = ("vv", "vh") if collection == "sentinel-1-rtc" else ("B02", "B03", "B04", "B08", "B11", "B12", "SCL")
    said: dict[str, Any] = {"datetime": (EVENT + timedelta(days=days)).isoformat(), "platform": "A", "sat:orbit_state": state}
    said |= {"sat:relative_orbit": orbit} if orbit is not None else {}
    said |= {"eo:cloud_cover": cloud} if cloud is not None else {}
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "collection": collection, "properties": said | properties,
        "geometry": {"type": "Polygon", "coordinates": [ring]}, "bbox": list(box),
        "assets": {n: {"href": f"https://host.example/{name}-{n}.tif"} for n in names},
    }  # fmt: skip


def optical(name: str, days: float, cloud: float, **more: Any) -> dict[str, Any]:
    return item(name, days, cloud=cloud, collection="sentinel-2-l2a", **more)


def chosen(*items: dict[str, Any], event: str = "2024-05-12T17:00:00Z", rules: Rules | None = None) -> Choice | None:
    return choose(grouped(items, AREA), Moment.parse(event), rules or Rules())


def names(found: Choice | None) -> list[list[str]]:
    assert found is not None
    return [[i["id"] for p in side for i in p.items] for side in (found.after, found.before)]


def test_the_first_pass_after_has_the_last_before_it_on_its_orbit() -> None:
    found = chosen(
        item("after", 0.5), item("later", 6.5), item("before", -11.5), item("older", -23.5), item("other", -2, orbit=95),
        item("up", -1, state="ascending"), item("same-day", -0.5, orbit=7),
    )  # fmt: skip
    assert names(found) == [["after"], ["before"]]
    assert found is not None
    assert "12.0 h after the event" in found.why[0]
    assert "on the same orbit" in found.why[1]
    over = {words.split(",")[1].strip(): words.rpartition(": ")[2] for words in found.passed_over}
    assert over["48.0 h before the event"] == "on another orbit than the pass after"
    assert len(found.passed_over) == 5


def test_a_pass_that_has_its_like_before_goes_before_an_earlier_one_without() -> None:
    lonely = item("lonely", 0.2, orbit=95)
    assert names(chosen(lonely, item("after", 1.0), item("before", -11))) == [["after"], ["before"]]
    alone = chosen(lonely, item("before", -11))
    assert names(alone) == [["lonely"], []]
    assert alone is not None
    assert "no pass before fits" in alone.why[-1]


def test_a_day_without_an_hour_tells_neither_before_nor_after() -> None:
    items = (item("that-day", 0.1), item("day-after", 1.1), item("before", -11))
    assert names(chosen(*items)) == [["that-day"], ["before"]]
    found = chosen(*items, event="2024-05-12")
    assert names(found) == [["day-after"], ["before"]]
    assert found is not None
    assert any("hour is not given" in words for words in found.passed_over)


def test_slices_of_a_pass_are_one_and_parts_of_the_area_are_put_together() -> None:
    north, south = (9, 45.5, 12, 47), (9, 44, 12, 45.5)
    halves = [
        item("n", 0.5, box=north),
        item("s", 0.5003, box=south),
        item("bn", -11.5, box=north),
        item("bs", -11.4997, box=south),
    ]
    assert names(chosen(*halves)) == [["n", "s"], ["bn", "bs"]]
    west, east = (9, 44, 10.6, 47), (10.4, 44, 12, 47)
    passes = [item("w", 0.5, box=west), item("e", 2.5, box=east, orbit=95), item("bw", -11.5, box=west),
              item("be", -9.5, box=east, orbit=95), item("late", 9, box=east, orbit=95)]  # fmt: skip
    assert names(chosen(*passes)) == [["w", "e"], ["bw", "be"]]
    whole = item("whole", 3, orbit=51)
    assert names(chosen(*passes, whole, item("bwhole", -9, orbit=51))) == [["whole"], ["bwhole"]]


def test_clear_images_go_before_cloudy_ones() -> None:
    found = chosen(optical("cloudy", 1, 90), optical("clear", 4, 12), optical("b-cloudy", -1, 80), optical("b-clear", -9, 3))
    assert names(found) == [["clear"], ["b-clear"]]
    assert names(chosen(optical("worse", 1, 90), optical("bad", 4, 60), optical("b", -9, 3))) == [["bad"], ["b"]]


def test_of_images_processed_twice_the_last_counts() -> None:
    twice = [optical(f"v{n}", 1, 5, **_tile(n)) for n in ("05.09", "05.11", "02.09")]
    assert names(chosen(*twice))[0] == ["v05.11"]


def _tile(baseline: str) -> dict[str, Any]:
    return {"s2:mgrs_tile": "32TQM", "s2:processing_baseline": baseline}


def test_nothing_after_is_nothing() -> None:
    assert chosen(item("before", -11), item("too-late", 13)) is None
    assert names(chosen(item("too-late", 13), rules=Rules(days_after=20))) == [["too-late"], []]


@pytest.mark.parametrize(
    ("properties", "band", "expected"),
    [
        ({"s2:processing_baseline": "05.09"}, {}, -1000.0),
        ({"s2:processing_baseline": "02.14"}, {}, 0.0),
        ({"earthsearch:boa_offset_applied": True, "s2:processing_baseline": "05.09"}, {"scale": 1e-4, "offset": -0.1}, 0.0),
        ({}, {"scale": 1e-4, "offset": -0.1}, -1000.0),
        ({"s2:processing_baseline": "02.14"}, {"scale": 1e-4, "offset": 0}, 0.0),
        ({}, {}, None),
    ],
)
def test_offsets_are_what_items_say(properties: dict[str, Any], band: dict[str, float], expected: float | None) -> None:
    old, new = optical("a", 1, 0, **properties), optical("b", 1, 0, **properties)
    for name in ("B02", "B03", "B04", "B08", "B11", "B12"):
        old["assets"][name] |= {"raster:bands": [band]} if band else {}
        new["assets"][name] |= {f"raster:{k}": v for k, v in band.items()}
    assert stacfacts.added(old) == stacfacts.added(new) == expected


def test_unknown_collections_and_assets_are_refused() -> None:
    lacking = optical("x", 1, 0)
    del lacking["assets"]["B11"]
    silent = optical("x", 1, 0, datetime=None)
    for made, code in (
        (lambda: stacfacts.kind_of(item("x", 1) | {"collection": "sentinel-1-grd"}), "stac-collection"),
        (lambda: stacfacts.assets(lacking), "stac-asset"),
        (lambda: stacfacts.assets(item("x", 1) | {"assets": {}}), "stac-asset"),
        (lambda: stacfacts.when(silent), "stac-time"),
    ):
        with pytest.raises(InputRefusedError) as refused:
            made()
        assert refused.value.code == code


def test_areas_know_the_antimeridian() -> None:
    across = Aoi.of_box(179.0, -17.0, -179.0, -16.0)
    assert across.bbox == (179.0, -17.0, -179.0, -16.0)
    assert across.spans == (179.0, -17.0, 181.0, -16.0)
    same = Aoi.of_box(178.0, -17.0, 180.0, -16.0)
    assert across.area_km2 == pytest.approx(same.area_km2, rel=1e-3)
    assert across.share([{"type": "Polygon", "coordinates": [[[179, -18], [180, -18], [180, -15], [179, -15], [179, -18]]]}]) == (
        pytest.approx(0.5, abs=1e-3)
    )
    assert across.share([]) == 0
    ((sheet,), grid) = sheets(across), sheets(across)[0].grid(10)
    assert sheet.crs in ("EPSG:32701", "EPSG:32760")
    assert grid.shape[1] == pytest.approx(across.area_km2 * 1e6 / 10 / 10 / grid.shape[0], rel=0.05)
    assert AREA.area_km2 == pytest.approx(111.15 * 78.3, rel=0.005)
    assert AREA.share([{"type": "Polygon", "coordinates": [[[10, 45], [10.5, 45], [10.5, 46], [10, 46], [10, 45]]]}]) == (
        pytest.approx(0.5, abs=1e-3)
    )


def test_wide_areas_are_cut_into_the_zones_of_mgrs() -> None:
    wide = sheets(Aoi.of_box(-1.0, 44.0, 20.0, 50.0))
    assert [s.name for s in wide] == ["30T", "30U", "31T", "31U", "32T", "32U", "33T", "33U", "34T", "34U"]
    assert [s.crs for s in wide[2:6]] == ["EPSG:32631"] * 2 + ["EPSG:32632"] * 2
    assert sum(s.area.area_km2 for s in wide) == pytest.approx(Aoi.of_box(-1.0, 44.0, 20.0, 50.0).area_km2, rel=2e-3)
    across = [s.name for s in sheets(Aoi.of_box(170.0, -20.0, -170.0, -10.0))]
    assert across == ["01K", "01L", "02K", "02L", "59K", "59L", "60K", "60L"]
    assert [s.crs for s in sheets(Aoi.of_box(0.0, 85.0, 10.0, 86.0))] == ["EPSG:3413"]


def test_a_sheet_takes_the_zone_of_its_images() -> None:
    (sheet,) = sheets(AREA)
    assert sheet.crs == "EPSG:32632"
    said: list[dict[str, Any]] = [{"proj:code": "EPSG:32633"}, {"proj:epsg": 32633}, {}]
    assert fitted(sheet, [item(f"{n}", 1, **one) for n, one in enumerate(said)]).crs == "EPSG:32633"
    degrees: dict[str, Any] = {"proj:code": "EPSG:4326"}
    assert fitted(sheet, [item("c", 1, **degrees)]).crs == "EPSG:32632"


def test_the_item_file_says_what_it_was_told(tmp_path: Path) -> None:
    part = Part(Sheet("32T", AREA, "EPSG:32632"), {("after", "radar"): (item("a", 1),)}, ("why",), ("not",))
    told = EventFile("flood", "2024-05-12", "https://host.example", "", (part,))
    told.write(tmp_path / "items.json")
    found = EventFile.read(tmp_path / "items.json")
    assert (found.hazard, found.event, found.catalog) == ("flood", "2024-05-12", "https://host.example")
    assert dict(found.parts[0].layers) == dict(part.layers)
    assert found.parts[0].sheet.area.geojson == AREA.geojson
    said = json.loads((tmp_path / "items.json").read_text())
    assert said["type"] == "FeatureCollection"
    for broken, code in (
        ({"type": "FeatureCollection", "features": []}, "items-invalid"),
        (said | {"features": []}, "items-invalid"),
        (said | {"aftermap": said["aftermap"] | {"sheets": []}}, "items-invalid"),
    ):
        (tmp_path / "broken.json").write_text(json.dumps(broken))
        with pytest.raises(InputRefusedError) as refused:
            EventFile.read(tmp_path / "broken.json")
        assert refused.value.code == code
    with pytest.raises(InputRefusedError) as refused:
        EventFile.read(tmp_path / "none.json")
    assert refused.value.code == "missing-file"


def test_addresses_of_items_beside_the_file_are_made_whole(tmp_path: Path) -> None:
    near = item("a", 1)
    near["assets"]["vv"]["href"] = "images/vv.tif"
    part = Part(Sheet("", AREA, "EPSG:32632"), {("after", "radar"): (near,)}, (), ())
    EventFile("flood", "2024-05-12", "", "", (part,)).write(tmp_path / "items.json")
    (read,) = EventFile.read(tmp_path / "items.json").parts[0].layers["after", "radar"]
    assert read["assets"]["vv"]["href"] == str(tmp_path / "images/vv.tif")
    assert read["assets"]["vh"]["href"].startswith("https://")


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Aoi.of_box(10, 45, 10, 46), UsageError),
        (lambda: Aoi.of_box(10, 46, 11, 45), UsageError),
        (lambda: Aoi.of_box(10, 45, 200, 46), UsageError),
        (lambda: Aoi.of_geojson({"type": "Point", "coordinates": [1, 2]}), InputRefusedError),
        (lambda: Moment.parse("12 May"), UsageError),
        (lambda: catalog("planetary"), UnknownNameError),
    ],
)
def test_what_cannot_be_is_refused(make: Any, error: type[AftermapError]) -> None:
    with pytest.raises(error):
        make()


def test_addresses_are_signed_only_where_a_catalog_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Signer("").sign("https://a/b.tif", "c") == "https://a/b.tif"
    signer = Signer("https://t/{collection}", {"c": ("sig=1", datetime.now(UTC) + timedelta(hours=1))})
    assert signer.sign("https://a/b.tif", "c") == "https://a/b.tif?sig=1"
    assert signer.sign("/data/b.tif", "c") == "/data/b.tif"
    assert signer.sign("https://a/b.tif?sig=0", "c") == "https://a/b.tif?sig=0"
    signer.tokens["c"] = ("sig=1", datetime.now(UTC))
    monkeypatch.setattr(Signer, "_token", lambda *_: ("sig=2", datetime.now(UTC) + timedelta(hours=1)))
    assert signer.sign("https://a/b.tif", "c") == "https://a/b.tif?sig=2"
