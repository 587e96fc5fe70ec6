"""From an area and a date to a map, through a STAC API on loopback: find, read by window, map, resume, retry, replay."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result
from odc.geo.geobox import GeoBox

from aftermap import gather, meridian, virtual
from aftermap.aoi import Aoi
from aftermap.catalog import Signer, catalog
from aftermap.cli import main
from aftermap.errors import AftermapError, InputRefusedError, JobInterruptedError
from aftermap.eventmap import Asked, map_event
from aftermap.find import Wish, find
from aftermap.itemfile import EventFile, Part
from aftermap.raster import Reader
from aftermap.remote import Remote
from aftermap.sheets import sheets
from aftermap.tiles import Window
from tests.conftest import SHARED, grid
from tests.stac_scenes import sentinel1_rtc
from tests.stac_server import Faults, Server, serving
from tests.stac_world import FloodWorld, flood_world

FLAVOURS = ("planetary-computer", "earth-search", "earth-search-c1")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> FloodWorld:
    return flood_world(tmp_path_factory.mktemp("world"), size=512, flavours=FLAVOURS)


@pytest.fixture
def server(world: FloodWorld) -> Iterator[Server]:
    with serving(world.folder, world.catalog(FLAVOURS[0]), faults=Faults()) as running:
        yield running


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small cells, and a client that waits for nobody."""
    monkeypatch.setattr(gather, "CELL_PX", 128)
    monkeypatch.setattr("aftermap.catalog.BACKOFF_S", 0.05)
    monkeypatch.setattr(gather, "Remote", partial(Remote, timeout_s=1, attempts=3, sleep=lambda _: None))


def found(server: Server, world: FloodWorld, path: Path, **wish: object) -> EventFile:
    event = find(Aoi.of_box(*world.bbox), Wish("flood", f"{world.event.isoformat()}Z", **wish), catalog(server.url))  # type: ignore[arg-type]
    event.write(path)
    return event


def aftermap(*words: object) -> Result:
    return CliRunner().invoke(main, [*map(str, words)])


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as src:
        return np.asarray(src.read())


def products(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != "log.json"
    }


def test_an_area_and_a_date_become_a_map(server: Server, world: FloodWorld, tmp_path: Path) -> None:
    server.faults.api_down = 1
    items, out = tmp_path / "items.json", tmp_path / "out"
    box = ",".join(map(str, world.bbox))
    asked = ("find", "--catalog", server.url, "--bbox", box, "--event", f"{world.event.isoformat()}Z", "--hazard", "flood")
    said = aftermap(*asked, "-o", items, "--quiet")
    assert said.exit_code == 0, said.output
    assert "12.0 h after the event" in said.output
    event = EventFile.read(items)
    (part,) = event.parts
    assert [i["id"] for i in part.layers["after", "radar"]] == [world.after]
    assert [i["id"] for i in part.layers["before", "radar"]] == [world.before]
    assert {i["id"] for i in part.layers["dem", "dem"]} == set(world.dem)
    assert server.faults.counts["api_down"] == 1
    said = aftermap("map", "--items", items, "-o", out, "--quiet")
    assert said.exit_code == 0, said.output
    run = json.loads((out / "run.json").read_text())
    assert run["catalog"]["items"]["after radar"] == [world.after]
    assert run["failed"] == []
    assert {run["inputs"][k]["resampling"] for k in ("after", "before")} == {"none"}
    assert run["inputs"]["after"]["acquired"] == "2024-05-13T05:00:25Z"
    assert not any("sig=" in text for text in (items.read_text(), (out / "run.json").read_text()))
    scored = aftermap("evaluate", out, "--truth", world.truth, "-o", tmp_path / "scores", "--json", "--quiet")
    assert json.loads(scored.output)[0]["iou"] > 0.7
    # What was read is kept: the same again and offline, into another folder, to the last bit.
    asked_before = len(server.requests)
    said = aftermap("map", "--items", items, "-o", tmp_path / "again", "--offline", "--quiet")
    assert said.exit_code == 0, said.output
    assert len(server.requests) == asked_before
    assert products(out) == products(tmp_path / "again")


def test_pixels_are_those_of_the_catalog(server: Server, world: FloodWorld, tmp_path: Path) -> None:
    event = found(server, world, tmp_path / "items.json")
    gathered = gather.gather(event.parts[0], event, tmp_path / "windows")
    with rasterio.open(gathered.files["after"][0]) as src:
        assert src.descriptions == ("VV", "VH")
        grid = gather.wanted(event.parts[0])[0].grid
        read = src.read()
    source = world.folder / str(next(i for i in world.items if i["id"] == world.after)["assets"]["vv"]["href"])
    own = Reader(source, grid, [1]).read(Window(0, 0, *grid.shape))
    np.testing.assert_array_equal(read[0], own[0])
    assert np.isfinite(read).mean() > 0.9
    asked = {Path(one.path).name: one for one in server.requests}
    assert all(not one.range or one.status == 206 for one in asked.values())


def test_three_ways_to_store_reflectance_are_one(world: FloodWorld, tmp_path: Path) -> None:
    read = {}
    for flavour in FLAVOURS:
        with serving(world.folder, world.catalog(flavour)) as server:
            where = replace(catalog(server.url), images={"optical": _collection(world, flavour)})
            wish = Wish("flood", f"{world.event.isoformat()}Z", ("optical",), ())
            event = find(Aoi.of_box(*world.bbox), wish, where)
            gathered = gather.gather(event.parts[0], event, tmp_path / flavour)
        from aftermap.scene import open_scene
        from aftermap.scorer import LayerBands

        scene = open_scene({k: v for k, v in gathered.files.items() if k in ("after", "before")}, hazard="flood")
        wanted = LayerBands("after", ("green", "swir1"), "reflectance")
        read[flavour] = scene.read(wanted, Window(100, 100, 64, 64))
        assert event.parts[0].layers["after", "optical"][0]["id"] in world.optical_after
    for flavour in FLAVOURS[1:]:
        np.testing.assert_allclose(read[flavour], read[FLAVOURS[0]], atol=1e-6)
    assert 0 < np.nanmedian(read[FLAVOURS[0]]) < 0.5


def _collection(world: FloodWorld, flavour: str) -> str:
    return next(str(i["collection"]) for i in world.catalog(flavour) if i["collection"].startswith("sentinel-2"))


def test_what_cannot_be_read_is_told_and_tried_again(server: Server, world: FloodWorld, tmp_path: Path) -> None:
    """GDAL remembers what it read of an address: the whole map is made last."""
    found(server, world, tmp_path / "items.json")
    server.faults.busy, server.faults.hang, server.faults.hang_s = 0.01, 0.01, 3.0
    server.faults.truncated[world.after] = 0.8
    server.requests.clear()
    out = tmp_path / "out"
    said = aftermap("map", "--items", tmp_path / "items.json", "-o", out, "--quiet")
    assert said.exit_code == 6, said.output
    assert "windows could not be read" in said.stderr
    run = json.loads((out / "run.json").read_text())
    cells = [one["cell"] for one in run["failed"]]
    assert cells
    assert all(cell.startswith("after radar") for cell in cells)
    exclusion = pixels(out / "exclusion.tif")[0]
    lost = np.zeros(exclusion.shape, bool)
    for one in run["failed"]:
        row, col, height, width = one["window"]
        lost[row : row + height, col : col + width] = True
    assert not (exclusion[lost] == 0).any()
    # Not tried again unasked, and still not a success.
    asked_before, told = len(server.requests), products(out)
    assert aftermap("map", "--items", tmp_path / "items.json", "-o", out, "--quiet").exit_code == 6
    assert len(server.requests) == asked_before
    assert products(out) == told
    server.faults.truncated.clear()
    parts = {p.name for p in (out / ".work").glob("part-*.tif")}
    assert parts
    said = aftermap("map", "--items", tmp_path / "items.json", "-o", out, "--quiet", "--retry-failed")
    assert said.exit_code == 0, said.output
    assert not (out / ".work").exists()
    whole = tmp_path / "whole"
    (tmp_path / "items.windows").rename(tmp_path / "kept.windows")
    assert aftermap("map", "--items", tmp_path / "items.json", "-o", whole, "--quiet").exit_code == 0
    assert products(out) == products(whole)
    full = pixels(whole / "exclusion.tif")[0]
    assert 0.1 < lost.mean() < 0.9
    assert ((exclusion == 0) == (full == 0))[~lost].mean() > 0.99


def test_a_cell_that_changed_on_disk_is_read_again(server: Server, world: FloodWorld, tmp_path: Path) -> None:
    event = found(server, world, tmp_path / "items.json", beside=())
    first = gather.gather(event.parts[0], event, tmp_path / "windows")
    told = first.files["after"][0].read_text()
    victim = next(first.files["after"][0].parent.glob("*.tif"))
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    with (first.files["after"][0].parent / gather.INDEX).open("a") as stream:
        stream.write('{"cell": "0-')
    server.requests.clear()
    again = gather.gather(event.parts[0], event, tmp_path / "windows")
    assert again.files["after"][0].read_text() == told
    assert {one.path.rpartition("/")[2].rpartition("-")[0] for one in server.requests if one.status < 300} <= {
        one.path.rpartition("/")[2].rpartition("-")[0] for one in server.requests
    }
    with pytest.raises(InputRefusedError) as refused:
        gather.gather(event.parts[0], event, tmp_path / "elsewhere", offline=True)
    assert refused.value.code == "offline"


def test_slices_of_another_zone_make_one_seamless_layer(server: Server, world: FloodWorld, tmp_path: Path) -> None:
    """The grid is of the neighbouring zone, and the image before is two slices of a pass."""
    server.items[:] = [i for i in server.items if i["id"] != world.before]
    event = found(server, world, tmp_path / "items.json", beside=())
    part = event.parts[0]
    assert {i["id"] for i in part.layers["before", "radar"]} == set(world.slices)
    moved = replace(part, sheet=replace(part.sheet, crs="EPSG:32632"))
    gathered = gather.gather(moved, event, tmp_path / "windows")
    assert not gathered.failed
    after, before = (pixels(gathered.files[layer][0])[0] for layer in ("after", "before"))
    inner = np.isfinite(after)
    assert inner.mean() > 0.6
    # Slices meet on a slant: a seam would be unseen pixels along it, or the one slice twice as bright.
    assert np.isfinite(before[inner]).mean() > 0.995
    with rasterio.open(gathered.files["after"][0]) as src:
        assert src.crs.to_epsg() == 32632
    event = replace(event, parts=(moved,))
    event.write(tmp_path / "moved.json")
    (mapped,) = map_event(Asked(tmp_path / "moved.json", tmp_path / "out", windows=tmp_path / "windows", offline=True))
    scored = aftermap("evaluate", mapped.folder, "--truth", world.truth, "-o", tmp_path / "scores", "--json", "--quiet")
    assert json.loads(scored.output)[0]["iou"] > 0.6


def test_an_area_across_the_antimeridian_is_read_from_both_sides(tmp_path: Path) -> None:
    grids = {"east": grid((40, 40), crs="EPSG:32760", origin=(779_600, 8_116_000)),
             "west": grid((40, 40), crs="EPSG:32701", origin=(220_000, 8_116_000))}  # fmt: skip
    when = datetime(2024, 5, 13, 5)
    items = [
        sentinel1_rtc(tmp_path, power, power, on, when, absolute_orbit=53_819 + n)
        for n, (power, on) in enumerate(zip((np.full((40, 40), v, np.float32) for v in (0.1, 0.2)), grids.values(), strict=True))
    ]
    lons = [meridian.degrees(on).boundingbox for on in grids.values()]
    area = Aoi.of_box(lons[0].left, -17.03, lons[1].right, -17.02)
    (sheet,) = sheets(area)
    part = Part(sheet, {("after", "radar"): tuple(items)}, (), ())
    EventFile("flood", "2024-05-12", "", "", (part,)).write(tmp_path / "items.json")
    event = EventFile.read(tmp_path / "items.json")
    gathered = gather.gather(event.parts[0], event, tmp_path / "windows")
    seen = pixels(gathered.files["after"][0])[0]
    assert not gathered.failed
    assert {round(float(v), 1) for v in np.unique(seen[np.isfinite(seen)])} >= {0.1, 0.2}
    assert seen.shape[1] < 10_000


def test_signed_addresses_are_read_and_never_written(world: FloodWorld, tmp_path: Path) -> None:
    with serving(world.folder, world.catalog(FLAVOURS[0]), signed=True) as server:
        where = catalog(server.url, server.sas + "/{collection}")
        event = find(Aoi.of_box(*world.bbox), Wish("flood", f"{world.event.isoformat()}Z", beside=()), where)
        gathered = gather.gather(event.parts[0], event, tmp_path / "windows")
        assert not gathered.failed
        unsigned = gather.gather(event.parts[0], replace(event, token_url=""), tmp_path / "unsigned")
        assert len(unsigned.failed) == sum(len(w.cells(event.parts[0].sheet.area)) for w in gather.wanted(event.parts[0]))
        assert not any("sig=" in p.read_text() for p in tmp_path.rglob("*.jsonl"))
    assert Signer(where.token_url) == Signer(event.token_url)


def test_an_interrupted_fetch_goes_on(
    server: Server, world: FloodWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    found(server, world, tmp_path / "items.json", beside=())
    asked = Asked(tmp_path / "items.json", tmp_path / "out")
    done: list[int] = []

    def stop(stage: str, n: int, of: int) -> None:
        done.append(n)
        if n == 10:
            raise KeyboardInterrupt

    with pytest.raises(JobInterruptedError):
        map_event(asked, progress=stop)
    server.requests.clear()
    kept = len(list((tmp_path / "items.windows").glob("*/*-*-*.tif")))
    assert kept >= 10
    totals: list[int] = []
    (mapped,) = map_event(asked, progress=lambda stage, n, of: totals.append(of) if stage == "fetch" else None)
    assert totals[0] < 2 * len(gather.wanted(EventFile.read(asked.items).parts[0])[0].cells(Aoi.of_box(*world.bbox)))
    assert mapped.answer == "found"


def test_wide_areas_become_sheets_with_a_collection_and_mosaics(
    server: Server, world: FloodWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pystac

    monkeypatch.setattr("aftermap.sheets._WIDEST", 0.0)
    monkeypatch.setattr("aftermap.sheets._squares", lambda aoi: _halves(world))
    event = found(server, world, tmp_path / "items.json", beside=())
    assert [p.sheet.name for p in event.parts] == ["33T", "33U"]
    maps = map_event(Asked(tmp_path / "items.json", tmp_path / "out"))
    whole = pystac.Collection.from_file(str(tmp_path / "out/collection.json"))
    assert {link.href for link in whole.links if link.rel == "item"} == {"33T/item.json", "33U/item.json"}
    mosaic = pixels(tmp_path / "out/extent.vrt")[0]
    hectares = sum(float(r["value"]) for m in maps for r in m.summary if r["quantity"] == "affected_area")
    assert hectares > 10
    with rasterio.open(tmp_path / "out/extent.vrt") as src:
        row_m, col_m = 111_195 * abs(src.transform.e), 111_195 * src.transform.a * np.cos(np.radians(world.bbox[1]))
    assert (mosaic == 1).sum() * row_m * col_m / 1e4 == pytest.approx(hectares, rel=0.03)


def _halves(world: FloodWorld) -> Iterator[tuple[int, str, object]]:
    from odc.geo.geom import box

    west, south, east, north = world.bbox
    middle = (south + north) / 2
    yield 33, "T", box(west - 1, south - 1, east + 1, middle, "EPSG:4326")
    yield 33, "U", box(west - 1, middle, east + 1, north + 1, "EPSG:4326")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("map", "-o", "out"), "usage"),
        (("map", "--items", "i.json", "--after", "a.tif", "-o", "out"), "usage"),
        (("map", "--items", "i.json", "--hazard", "flood", "-o", "out"), "usage"),
        (("map", "--after", "a.tif", "--hazard", "flood", "--offline", "-o", "out"), "usage"),
        (("map", "--items", "i.json", "-o", "out"), "missing-file"),
        (("find", "--event", "2024-05-12", "--hazard", "flood"), "usage"),
        (("find", "--bbox", "1,2,3", "--event", "2024-05-12", "--hazard", "flood"), "usage"),
        (("find", "--bbox", "1,2,3,4", "--event", "2024-05-12", "--hazard", "floods"), "unknown-hazard"),
        (("find", "--bbox", "1,2,3,4", "--event", "2024-05-12", "--hazard", "flood", "--catalog", "earth-search"), "no-pass"),
        (
            ("find", "--bbox", "1,2,3,4", "--event", "2024-05-12", "--hazard", "flood", "--sensor", "lidar"),
            "unknown-kind-of-image",
        ),
        (("find", "--bbox", "1,2,3,4", "--event", "now", "--hazard", "flood"), "usage"),
    ],
)
def test_wrong_use_is_refused(words: tuple[str, ...], code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = aftermap(*words, "--json", *(("--quiet",)))
    assert json.loads(said.stdout)["error"] == code, said.output
    assert said.exit_code in (2, 3)
    assert not list(tmp_path.iterdir())


def test_a_catalog_that_does_not_answer_or_has_nothing_is_told(server: Server, world: FloodWorld, tmp_path: Path) -> None:
    nowhere = Aoi.of_box(100.0, 10.0, 100.1, 10.1)
    with pytest.raises(InputRefusedError) as refused:
        find(nowhere, Wish("flood", "2024-05-12"), catalog(server.url))
    assert refused.value.code == "no-pass"
    with pytest.raises(AftermapError) as silent:
        find(nowhere, Wish("flood", "2024-05-12"), catalog(server.files))
    assert silent.value.code == "catalog"


def test_virtual_rasters_lay_the_first_piece_on_top(tmp_path: Path) -> None:
    from odc.geo.geobox import GeoBox

    from aftermap.raster import Writer

    grid = GeoBox.from_bbox((0, 0, 40, 20), "EPSG:32632", resolution=10)
    for name, values in (("a", [1, 255]), ("b", [2, 2])):
        with Writer(tmp_path / f"{name}.tif", grid[:, :2], dtype="uint8", descriptions=["x"], nodata=255) as out:
            out.write(np.broadcast_to(np.array(values, np.uint8), (1, 2, 2)), Window(0, 0, 2, 2))
    pieces = [virtual.Piece("a.tif", Window(0, 0, 2, 2)), virtual.Piece("b.tif", Window(0, 1, 2, 2))]
    (tmp_path / "v.vrt").write_text(virtual.vrt(grid, "uint8", 255, ["x"], "", {"K": "<&>"}, pieces, overlapping=True))
    assert pixels(tmp_path / "v.vrt")[0].tolist() == [[1, 2, 2, 255]] * 2
    with rasterio.open(tmp_path / "v.vrt") as src:
        assert src.tags()["K"] == "<&>"


@pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is not there")
def test_a_real_scene_is_found_read_and_mapped(tmp_path: Path) -> None:
    """A chip of Sen1Floods11, in degrees, as a pass of the catalog: all water of it, beside its labels by hand."""
    home, chip = SHARED / "flood_sen1floods11", "USA_905409"
    with rasterio.open(home / "S1Hand" / f"{chip}_S1Hand.tif") as src:
        on = GeoBox(src.shape, src.transform, src.crs.to_string())
        vv, vh = (np.where(np.isfinite(band), 10 ** (band / 10), np.nan).astype(np.float32) for band in src.read())
    item = sentinel1_rtc(tmp_path, vv, vh, on, datetime(2018, 9, 18, 18), absolute_orbit=23_755)
    with serving(tmp_path, [item]) as running:
        west, south, east, north = meridian.degrees(on).boundingbox
        event = find(Aoi.of_box(west, south, east, north), Wish("flood", "2018-09-18T06:00Z"), catalog(running.url))
        assert any("no pass before fits" in words for words in event.parts[0].why)
        event.write(tmp_path / "items.json")
        (mapped,) = map_event(Asked(tmp_path / "items.json", tmp_path / "out"))
    assert mapped.made_by["maps"].startswith("open water")
    truth = home / "LabelHand" / f"{chip}_LabelHand.tif"
    said = aftermap("evaluate", mapped.folder, "--truth", truth, "-o", tmp_path / "scores", "--json", "--quiet")
    assert json.loads(said.output)[0]["iou"] > 0.85, said.output
