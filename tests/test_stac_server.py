"""The loopback catalog: what tests of loading rely on."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import odc.stac
import pytest
import rasterio
from pystac_client import Client
from pystac_client.exceptions import APIError
from rasterio.errors import RasterioIOError
from rasterio.windows import Window

from tests.conftest import grid, write
from tests.stac_scenes import cog, published
from tests.stac_search import Item
from tests.stac_server import Faults, Server, serving
from tests.stac_world import FloodWorld, flood_world

METHODS = pytest.mark.parametrize("method", ["GET", "POST"])
FLAVOURS = ("planetary-computer", "earth-search", "earth-search-c1")
QUIET = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_HTTP_MAX_RETRY": "0"}


def point(k: int, **more: Any) -> Item:
    """Item k of 25: k - 12 degrees east and k north, of the k-th day of May."""
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": f"i{k:02}", "collection": "odd" if k % 2 else "even", "links": [],
        "geometry": {"type": "Point", "coordinates": [k - 12, k]}, "bbox": [k - 12, k, k - 12, k], "assets": {},
        "properties": {"datetime": f"2024-05-{k:02}T06:00:00Z", "eo:cloud_cover": 4 * k, "platform": f"S1{'AB'[k % 2]}", **more},
    }  # fmt: skip


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("points"), [point(k) for k in range(1, 26)]) as server:
        yield server


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> FloodWorld:
    return flood_world(tmp_path_factory.mktemp("world"), size=512, flavours=FLAVOURS)


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Server]:
    """One file of 1,000 bytes, in an item."""
    (tmp_path / "a.bin").write_bytes(bytes(range(250)) * 4)
    with serving(tmp_path, [{**point(1), "assets": {"a": {"href": "a.bin"}}}, point(2)]) as server:
        yield server


def found(server: Server, **asked: Any) -> list[str]:
    return [item.id for item in Client.open(server.url).search(**asked).items()]


def get(url: str, **headers: str) -> tuple[int, bytes]:
    """Status and body, whatever the status is."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, b""


@METHODS
def test_more_than_a_page_is_found_by_following_links(points: Server, method: str) -> None:
    points.searches.clear()
    assert found(points, method=method, limit=100) == [f"i{k:02}" for k in range(25, 0, -1)]
    assert len(points.searches) == 3
    assert found(points, method=method, limit=4, collections=["even"], max_items=6) == ["i24", "i22", "i20", "i18", "i16", "i14"]


@METHODS
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"bbox": (-2, 0, 0, 90)}, [12, 11, 10]),
        ({"intersects": {"type": "Polygon", "coordinates": [[[-2.5, 9], [-0.5, 9], [-0.5, 12], [-2.5, 9]]]}}, [11]),
        ({"datetime": "2024-05-03/2024-05-04"}, [4, 3]),
        ({"datetime": "2024-05-03T06:00:00Z"}, [3]),
        ({"datetime": "2024-05-24T06:00:01Z/.."}, [25]),
        ({"datetime": "../2024-05-02"}, [2, 1]),
        ({"ids": ["i07", "i09", "none"]}, [9, 7]),
        ({"query": {"eo:cloud_cover": {"lt": 12}}}, [2, 1]),
        ({"query": {"eo:cloud_cover": {"gte": 92}, "platform": {"eq": "S1B"}}}, [25, 23]),
        ({"query": {"no:such": {"neq": 1}}}, []),
        ({"ids": ["i01", "i02", "i03"], "sortby": "+properties.datetime"}, [1, 2, 3]),
    ],
)  # fmt: skip
def test_a_search_finds_what_it_asks_for(points: Server, method: str, asked: dict[str, Any], expected: list[int]) -> None:
    assert found(points, method=method, **asked) == [f"i{k:02}" for k in expected]


def test_collections_and_single_items_answer(points: Server) -> None:
    client = Client.open(points.url)
    assert [known.id for known in client.get_collections()] == ["even", "odd"]
    odd = client.get_collection("odd")
    assert odd is not None
    assert len(list(odd.get_items())) == 13
    assert get(f"{points.url}/collections/odd/items/i03")[0] == 200
    assert get(f"{points.url}/collections/even/items/i03")[0] == 404
    assert get(f"{points.url}/search?bbox=1,2,3")[0] == 400


@METHODS
def test_a_box_may_cross_the_antimeridian(tmp_path: Path, method: str) -> None:
    items = [{**point(k + 1), "geometry": {"type": "Point", "coordinates": [x, 10]}} for k, x in enumerate((179.5, -179.5, 0))]
    with serving(tmp_path, items) as server:
        assert found(server, method=method, bbox=(179, 0, -179, 20)) == ["i02", "i01"]
        assert found(server, method=method, bbox=(-179, 0, 179, 20)) == ["i03"]


def test_an_interval_is_found_by_any_moment_of_it(tmp_path: Path) -> None:
    items = [point(5, start_datetime="2024-05-01T00:00:00Z", end_datetime="2024-05-09T00:00:00Z")]
    with serving(tmp_path, items) as server:
        assert found(server, datetime="2024-05-08") == ["i05"]
        assert found(server, datetime="2024-05-10") == []


def test_a_window_of_a_large_file_costs_a_part_of_it(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).normal(size=(1536, 1536)).astype(np.float32)
    path = cog(tmp_path / "large.tif", pixels, grid((1536, 1536)))
    with serving(tmp_path, []) as server:
        with rasterio.Env(**QUIET), rasterio.open(f"/vsicurl/{server.files}/large.tif") as src:
            assert np.array_equal(src.read(1, window=Window(300, 520, 90, 70)), pixels[520:590, 300:390])
        assert {asked.status for asked in server.requests} <= {200, 206}
        assert any(asked.range for asked in server.requests)
        assert 0 < server.sent < 0.1 * path.stat().st_size


def test_ranges(plain: Server) -> None:
    url, whole = f"{plain.files}/a.bin", bytes(range(250)) * 4
    assert get(url) == (200, whole)
    assert get(url, Range="bytes=10-19") == (206, whole[10:20])
    assert get(url, Range="bytes=990-") == (206, whole[990:])
    assert get(url, Range="bytes=-7") == (206, whole[-7:])
    assert get(url, Range="bytes=1000-1010") == (416, b"")
    assert get(f"{plain.files}/%2e%2e/a.bin")[0] == 404
    assert plain.requests[1] == ("a.bin", "bytes=10-19", 206, 10)


def test_faults_strike_as_often_as_they_say(plain: Server) -> None:
    url, faults = f"{plain.files}/a.bin", plain.faults
    faults.busy = 0.3
    states = [get(url, Range=f"bytes={k}-")[0] for k in range(100)]
    assert set(states) == {206, 503}
    assert 15 < states.count(503) == faults.counts["busy"] < 45
    faults.busy, faults.broken = 0, {"a."}
    assert get(url)[0] == 500
    faults.missing = {"bin"}
    assert get(url)[0] == 404
    faults.missing, faults.broken, faults.truncated = set(), set(), {"a.bin": 0.4}
    assert len(get(url)[1]) == 400
    assert get(url, Range="bytes=350-450") == (206, (bytes(range(250)) * 4)[350:400])
    assert get(url, Range="bytes=400-450")[0] == 416
    faults.api_down = 1
    with pytest.raises(APIError):
        found(plain)
    assert found(plain) == ["i02", "i01"]


def test_a_hanging_server_outlasts_a_client_and_not_the_block(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"1")
    began, threads = time.monotonic(), threading.active_count()
    with serving(tmp_path, [], faults=Faults(hang=1, hang_s=60)) as server:
        with pytest.raises(TimeoutError):
            urllib.request.urlopen(f"{server.files}/a.bin", timeout=0.2)
        server.faults.hang_s = 0.1
        assert get(f"{server.files}/a.bin") == (200, b"1")
    assert time.monotonic() - began < 5
    assert threading.active_count() == threads


def test_signed_files_open_with_a_token_until_it_ends(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"1")
    items = [{**point(1), "assets": {"a": {"href": "a.bin"}}}, point(2)]
    with serving(tmp_path, items, signed=True) as server:
        url = f"{server.files}/a.bin"
        assert get(url)[0] == get(f"{url}?sig=guess")[0] == 403
        said = json.loads(get(f"{server.sas}/odd")[1])
        assert datetime.fromisoformat(said["msft:expiry"]).tzinfo
        assert get(f"{url}?{said['token']}") == (200, b"1")
        assert get(f"{url}?{json.loads(get(f'{server.sas}/even')[1])['token']}")[0] == 403  # another collection's
        server.faults.token_s = 0.05
        short = json.loads(get(f"{server.sas}/odd")[1])["token"]
        time.sleep(0.1)
        assert get(f"{url}?{short}")[0] == 403
        assert get(f"{server.sas}/none")[0] == 404
        assert server.faults.counts["unsigned"] == 4


def test_the_flood_world_is_loaded_over_http(world: FloodWorld) -> None:
    with serving(world.folder, world.catalog("planetary-computer")) as server, rasterio.Env(**QUIET):
        client = Client.open(server.url)
        passes = client.search(
            collections=["sentinel-1-rtc"], bbox=world.bbox, datetime=f"{world.event.isoformat()}Z/..",
            query={"sat:orbit_state": {"eq": "descending"}},
        ).item_collection()  # fmt: skip
        assert [item.id for item in passes] == [world.after]
        window = world.grid[100:180, 300:420]
        loaded = odc.stac.load(passes, bands=["vv"], geobox=window)
        with rasterio.open(world.folder / f"sentinel-1-rtc/{world.after}/vv.tif") as src:
            assert np.array_equal(loaded.vv.values[0], src.read(1, window=Window(300, 100, 120, 80)))
        maps = {"cop-dem-glo-30": "data", "esa-worldcover": "map", "jrc-gsw": "occurrence"}
        for collection, asset in maps.items():
            items = client.search(collections=[collection], bbox=world.bbox).item_collection()
            pixels = odc.stac.load(items, bands=[asset], geobox=world.grid, groupby="solar_day")[asset].values[0]
            assert np.isfinite(pixels).all()
            if asset == "occurrence":
                with rasterio.open(world.truth) as src:
                    assert np.mean((pixels > 50) == (src.read(2) > 0)) > 0.97


def test_the_flood_world_has_the_wrong_choices(world: FloodWorld) -> None:
    said = {item["id"]: item["properties"] for item in world.items}
    wrong = world.traps
    orbit = {name: said[name].get("sat:relative_orbit") for name in said}
    assert orbit[world.before] == orbit[world.after] == orbit[world.slices[0]] == orbit[world.slices[1]]
    assert orbit[wrong["other_direction"]] != orbit[world.after]
    assert said[world.before]["datetime"] < said[wrong["other_direction"]]["datetime"] < world.event.isoformat()
    assert world.event.date().isoformat() < said[wrong["same_day"]]["datetime"] < world.event.isoformat()
    assert world.event.isoformat() < said[wrong["partial"]]["datetime"] < said[world.after]["datetime"]
    shares = []
    for name in (world.after, wrong["partial"]):
        with rasterio.open(world.folder / f"sentinel-1-rtc/{name}/vv.tif") as src:
            shares.append(float((src.read_masks(1) > 0).mean()))
    assert shares == [1, pytest.approx(0.4, abs=0.01)]


def test_three_publishers_store_one_reflectance(world: FloodWorld) -> None:
    reflectance = []
    for flavour, key in zip(FLAVOURS, ("B04", "red", "red"), strict=True):
        (item,) = (i for i in world.catalog(flavour) if i["id"] in world.optical_after)
        applied = item["properties"].get("earthsearch:boa_offset_applied", False)
        with rasterio.open(world.folder / item["assets"][key]["href"]) as src:
            reflectance.append(src.read(1).astype(int) - (0 if applied else 1000))
    assert np.array_equal(reflectance[0], reflectance[1])
    assert np.array_equal(reflectance[0], reflectance[2])


def test_any_geotiff_can_be_published(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(1, 200, (2, 60, 90)).astype(np.uint8)
    path = write(tmp_path / "own.tif", pixels, grid((60, 90)), ("red", "nir"), nodata=0)
    item = published(path, tmp_path / "public", "own", datetime(2024, 1, 2))
    with serving(tmp_path / "public", [item]) as server, rasterio.Env(**QUIET):
        (served,) = Client.open(server.url).search(collections=["own"]).items()
        loaded = odc.stac.load([served], bands=["nir"], geobox=grid((60, 90)))
        assert np.array_equal(loaded.nir.values[0], pixels[1])
        server.faults.missing = {"red.tif"}
        with pytest.raises(RasterioIOError):
            odc.stac.load([served], bands=["red"], geobox=grid((60, 90)))
