"""The viewer over HTTP: what it tells and paints, what it refuses; and in a real browser, each interaction."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from PIL import Image

import aftermap as am
from aftermap import meridian, palette, photos, raster
from aftermap.errors import InputRefusedError, UsageError
from aftermap.layer import Declared
from aftermap.shown import _first_tiles, _tile
from aftermap.tiles import Window
from aftermap.view import PAGE, application, serve, shown
from tests.conftest import flood_pair, grid, write

uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed")
pytest.importorskip("rio_tiler", reason="rio-tiler is not installed")
morecantile = pytest.importorskip("morecantile", reason="rio-tiler is not installed")
CHROMIUM = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two dates of one place, and a picture without a place."""
    home, folders = tmp_path_factory.mktemp("maps"), []
    for n, day in enumerate(("2024-05-13", "2024-05-25")):
        before, after, _ = flood_pair((300, 420), seed=n)
        files = {k: write(home / f"{k}{n}.tif", v, grid(v.shape[1:]), ("VV", "VH"), unit="dB")
                 for k, v in (("before", before), ("after", after))}  # fmt: skip
        declared = {"after": Declared(acquired=day), "before": Declared(acquired="2024-05-01")}
        folders.append(am.map(files["after"], files["before"], out=home / day, declared=declared, name="river").folder)
    placeless = write(home / "p.tif", after, grid(after.shape[1:], crs=None), ("VV", "VH"), unit="dB")
    folders.append(am.map(placeless, out=home / "placeless", hazard="flood", name="placeless").folder)
    return folders


@pytest.fixture(scope="module")
def address(maps: list[Path]) -> Iterator[str]:
    yield from _running(application(shown(maps), hosts=["127.0.0.1"]))


def _running(app: Any) -> Iterator[str]:
    sock = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        sock.close()


def ask(url: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    request = urllib.request.Request(url, headers={k.replace("_", "-"): v for k, v in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), dict(error.headers)


def picture(data: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(BytesIO(data)).convert("RGBA"))


def test_facts_are_those_of_the_maps(address: str, maps: list[Path]) -> None:
    told = json.loads(ask(f"{address}/api/maps")[1])
    assert [one["after"] for one in told] == [None, "2024-05-13", "2024-05-25"]
    assert [one["placed"] for one in told] == [False, True, True]
    first = told[1]
    assert first["summary"] == am.HazardMap(maps[0]).summary
    assert {one["name"] for one in first["layers"]} >= {"extent", "likelihood", "exclusion", "agreement"}
    assert first["photos"] == ["before", "after"]
    assert "observed_event" in first["vectors"]
    west, south, east, north = first["bounds"]
    assert west < 14 < 16 > east
    assert south < north


def test_tiles_show_the_pixels_of_the_raster(address: str, maps: list[Path]) -> None:
    """At the tile that holds it, each colour covers the share of the map that its code does."""
    one = json.loads(ask(f"{address}/api/maps")[1])[1]
    tms = morecantile.tms.get("WebMercatorQuad")
    drawn = 0
    west, south, east, north = one["bounds"]
    for tile in tms.tiles(west, south, east, north, [13]):
        status, data, headers = ask(f"{address}/api/maps/{one['id']}/tiles/extent/13/{tile.x}/{tile.y}.png")
        if status == 200:
            pixels = picture(data)
            drawn += int((pixels[..., :3] == palette.EXTENT[:3]).all(axis=-1).sum())
            assert headers["content-type"] == "image/png"
    codes = raster.read_window(maps[0] / "extent.tif", Window(0, 0, 300, 420))[0]
    area = (codes == 1).sum() * 100.0
    side = tms.matrix(13).cellSize / 2 * np.cos(np.radians((one["bounds"][1] + one["bounds"][3]) / 2))
    assert drawn * side**2 == pytest.approx(area, rel=0.03)


@pytest.mark.parametrize("crs", ["EPSG:32633", None])
def test_density_is_painted_by_cell(crs: str | None, tmp_path: Path) -> None:
    """Where the map lies, or its pixels are laid; the colour says the root of the share; a cell without hazard is clear."""
    after = np.full((2, 160, 160), -8, np.float32) + np.random.default_rng(0).normal(0, 1, (2, 160, 160)).astype(np.float32)
    after[:, :80] -= 14
    path = write(tmp_path / "a.tif", after, grid((160, 160), crs=crs), ("VV", "VH"), unit="dB")
    options = am.Options(density_m=400, gsd_m=None if crs else 10)
    (one,) = shown([am.map(path, out=tmp_path / "out", hazard="flood", options=options).folder])
    assert "density" in one.layers
    assert len(one.facts()["layers"][-1]["legend"]) == len(palette.LIKELIHOOD) - 1
    west, south, east, north = one.facts()["bounds"]
    tms = morecantile.tms.get("WebMercatorQuad")
    zoom = next(z for z in range(4, 20) if tms.tile((west + east) / 2, (south + north) / 2, z) and tms.matrix(z).cellSize < 20)
    shares = raster.read_window(tmp_path / "out" / "density.tif", Window(0, 0, 4, 4))[0]
    assert shares[0, 1] > 0 == shares[3, 1]
    for row in (0, 3):
        lon, lat = (5 * west + 3 * east) / 8, north - (2 * row + 1) * (north - south) / 8  # the middle of a cell of column 1
        place = tms.tile(lon, lat, zoom)
        box = tms.xy_bounds(place)
        x, y = tms.xy(lon, lat)
        at = int((box.top - y) / (tms.matrix(zoom).cellSize / 2)), int((x - box.left) / (tms.matrix(zoom).cellSize / 2))
        colour = picture(one.tile("density", zoom, place.x, place.y))[at]
        if row:
            assert colour[3] == 0
        else:
            assert colour[:3].tolist() == [*palette.ramp(round(100 * shares[row, 1] ** 0.5))[:3]]


def test_levels_are_areas_above_each_percent(address: str, maps: list[Path]) -> None:
    levels = json.loads(ask(f"{address}/api/maps/1/levels")[1])
    codes = raster.read_window(maps[0] / "likelihood.tif", Window(0, 0, 300, 420))[0]
    assert len(levels) == 101
    assert levels[100] == 0
    for percent in (0, 50, 90):
        assert levels[percent] == pytest.approx(((codes > percent) & (codes <= 100)).sum() / 100, rel=0.01)


def test_outlines_are_those_of_the_package(address: str) -> None:
    told = json.loads(ask(f"{address}/api/maps")[1])
    for one in told:
        box = ",".join(map(str, one["bounds"]))
        found = json.loads(ask(f"{address}/api/maps/{one['id']}/outlines/observed_event?bbox={box}")[1])
        polygons = next(float(r["value"]) for r in one["summary"] if r["quantity"] == "polygons")
        assert len(found["features"]) == polygons
        assert not found["more"]
        lon, lat = found["features"][0]["geometry"]["coordinates"][0][0][:2]
        assert one["bounds"][0] <= lon <= one["bounds"][2]
        assert one["bounds"][1] <= lat <= one["bounds"][3]


HOSTILE = [
    "/api/maps/../../etc/passwd",
    "/api/maps/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "/static/..%2f..%2fpyproject.toml",
    "/static/view.py",
    "/static/%2e%2e/calibration.json",
    "/api/maps/9/levels",
    "/api/maps/-1/levels",
    "/api/maps/0%00/levels",
    "/api/maps/0/tiles/score/0/0/0.png",
    "/api/maps/0/tiles/..%2f..%2fx/0/0/0.png",
    "/api/maps/0/tiles/extent/99/0/0.png",
    "/api/maps/0/tiles/extent/3/9/0.png",
    "/api/maps/0/tiles/extent/-1/0/0.png",
    "/api/maps/0/tiles/extent/a/b/c.png",
    "/api/maps/0/tiles/likelihood/1/1/1.png?threshold=x",
    "/api/maps/0/photo/..%2fafter",
    "/api/maps/0/photo/truth",
    "/api/maps/0/outlines/layer_styles?bbox=0,0,1,1",
    "/api/maps/0/outlines/observed_event",
    "/api/maps/0/outlines/observed_event?bbox=1,1,0,0",
    "/api/maps/0/outlines/observed_event?bbox=nan,0,1,1",
    "/api/maps/0/outlines/observed_event?bbox=0,0,1,1e9",
    "/docs",
    "/openapi.json",
    "/redoc",
    "/api",
    "/api/maps/" + "a" * 5000 + "/levels",
]


@pytest.mark.parametrize("path", HOSTILE, ids=lambda p: p[:48])
def test_what_was_not_offered_is_not_given(address: str, path: str) -> None:
    status, data, headers = ask(address + path)
    assert status in (403, 404, 422), data[:200]
    assert b"Traceback" not in data
    assert headers["x-content-type-options"] == "nosniff"
    assert ask(f"{address}/api/maps")[0] == 200


def test_it_answers_only_to_its_own_name_and_its_own_page(address: str) -> None:
    assert ask(address, Host="evil.example:80")[0] == 403
    assert ask(f"{address}/api/maps", Sec_Fetch_Site="cross-site")[0] == 403
    assert ask(f"{address}/api/maps", Sec_Fetch_Site="same-origin")[0] == 200
    request = urllib.request.Request(f"{address}/api/maps", data=b"{}", method="POST", headers={"X-Aftermap": "1"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=5)
    with refused.value as error:
        assert error.code == 405
    bare = urllib.request.Request(f"{address}/api/maps", data=b"{}", method="POST")
    with pytest.raises(urllib.error.HTTPError, match="403"), urllib.request.urlopen(bare, timeout=5):
        pass
    policy = ask(address)[2]["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe-eval" not in policy


def test_a_token_lets_in_and_stays_as_a_cookie(maps: list[Path]) -> None:
    for address in _running(application(shown(maps[:1]), hosts=["127.0.0.1"], token="t" * 20)):
        assert ask(f"{address}/api/maps")[0] == 403
        assert ask(f"{address}/api/maps?token=wrong")[0] == 403
        status, _, headers = ask(f"{address}/?token={'t' * 20}")
        assert status == 200
        assert "HttpOnly" in headers["set-cookie"]
        assert ask(f"{address}/api/maps", Cookie=headers["set-cookie"].partition(";")[0])[0] == 200


def test_wrong_use_is_refused(maps: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputRefusedError) as nothing:
        shown([tmp_path])
    assert nothing.value.code == "no-map"
    with pytest.raises(UsageError, match="lets other machines in"):
        serve(maps, host="0.0.0.0", ready=lambda _: None)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UsageError) as busy:
        serve(maps, port=taken.getsockname()[1], ready=lambda _: None)
    assert busy.value.code == "port"


def test_the_library_is_as_it_was_published() -> None:
    from hashlib import sha256

    home = PAGE / "vendor/maplibre-gl"
    lines = [line.split() for line in (home / "SHA256SUMS").read_text().splitlines()]
    sums = {line[1]: line[0] for line in lines}
    assert set(sums) == {p.name for p in home.iterdir()} - {"SHA256SUMS", "VERSION"}
    assert all(sha256((home / name).read_bytes()).hexdigest() == code for name, code in sums.items())
    page = (PAGE / "view/index.html").read_text() + (PAGE / "view/view.mjs").read_text()
    assert not re.search(r"""(?:src|href|from|import)\s*=?\s*\(?["'](?:https?:)?//""", page)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    flags = ["--no-sandbox", "--disable-gpu", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
             "--disable-background-networking", "--no-first-run"]  # fmt: skip
    with sync.sync_playwright() as play:
        running = play.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield running
        running.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    opened = browser.new_page(viewport={"width": 1200, "height": 800})
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    opened.on(
        "request", lambda asked: faults.append(asked.url) if not asked.url.startswith((address, "data:", "blob:")) else None
    )
    yield opened
    opened.close()
    assert faults == []


def opened(page: Any, address: str, fragment: str = "map=1") -> None:
    page.goto(f"{address}/#{fragment}")
    page.wait_for_selector("body[data-ready=yes]", timeout=30_000)
    page.wait_for_timeout(700)


def cyan(page: Any) -> int:
    """Pixels of the extent's colour on the map."""
    pixels = picture(page.locator("#stage").screenshot()).astype(int)
    return int((np.abs(pixels[..., :3] - np.array([0, 190, 245])).max(axis=-1) < 45).sum())


def test_layers_and_threshold_change_what_is_drawn(page: Any, address: str) -> None:
    opened(page, address, "map=1&vectors=")
    drawn = cyan(page)
    assert drawn > 1000
    page.get_by_label("Extent").uncheck()
    page.wait_for_timeout(400)
    assert cyan(page) < drawn / 10
    page.get_by_label("Extent").check()
    page.wait_for_timeout(400)
    delivered = picture(page.locator("#stage").screenshot())
    said = page.locator("#threshold-area").inner_text()
    levels = json.loads(ask(f"{address}/api/maps/1/levels")[1])
    high = next(k for k in range(50, 100) if levels[k] < 0.5 * levels[50])
    page.locator("#threshold").fill(str(high))
    page.wait_for_timeout(1500)
    assert (picture(page.locator("#stage").screenshot()) != delivered).any(axis=-1).mean() > 0.02
    assert page.locator("#threshold-area").inner_text() != said
    assert f"{levels[high]:,.1f}" in page.locator("#threshold-area").inner_text()
    assert f"threshold={high}" in page.url
    page.keyboard.press("Tab")
    page.locator("body").press("l")
    assert page.get_by_label("Likelihood", exact=True).is_checked()


def test_before_and_after_are_swiped(page: Any, address: str) -> None:
    opened(page, address, "map=1&layers=&vectors=")
    slider = page.locator("#divider")
    stage = page.locator("#stage").bounding_box()
    halves = page.locator("#stage").screenshot()
    slider.focus()
    slider.press("Home")
    page.wait_for_timeout(300)
    after = picture(page.locator("#stage").screenshot())
    slider.press("End")
    page.wait_for_timeout(300)
    before = picture(page.locator("#stage").screenshot())
    assert (before != after).any(axis=-1).mean() > 0.1
    box = slider.bounding_box()
    page.mouse.move(box["x"] + 1, stage["y"] + stage["height"] / 2)
    page.mouse.down()
    page.mouse.move(stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2)
    page.mouse.up()
    assert abs(float(slider.get_attribute("aria-valuenow")) - 50) <= 1
    page.wait_for_timeout(300)
    assert (picture(page.locator("#stage").screenshot()) != picture(halves)).any(axis=-1).mean() < 0.02


@pytest.mark.parametrize(
    "where",
    [
        GeoBox((1700, 2500), Affine(100, 0, 400_000, 0, -100, 7_300_000), "EPSG:32633"),
        GeoBox((1000, 1500), Affine(100, 0, 750_000, 0, -100, 9_900_000), "EPSG:32760"),
        GeoBox((800, 1200), Affine(0.01, 0, 175, 0, -0.01, -40), "EPSG:4326"),
        GeoBox((160, 360), Affine(1, 0, 0, 0, -1, 80), "EPSG:4326"),
        GeoBox((300, 420), Affine(400, 0, -2_200_000, 0, -400, 1_250_000), "EPSG:3031"),
    ],
    ids=["a scene", "metres across", "degrees across", "the globe", "turned"],
)
def test_pictures_are_laid_as_tiles_are(where: GeoBox) -> None:
    """A picture whose colours are its own columns and rows, looked at where places of the globe lie."""
    down, across = np.mgrid[:400, :600] / [[[400]], [[600]]] * 255
    file = BytesIO()
    Image.fromarray(np.stack([across, down, down], -1).astype(np.uint8)).save(file, "PNG")
    west, south, east, north = bounds = meridian.bounds(where)
    found = np.asarray(Image.open(BytesIO(photos.laid(file.getvalue(), where, bounds))).convert("RGBA"))
    rng = np.random.default_rng(0)
    cols, rows = rng.uniform(0.05, 0.95, (2, 200)) * [[where.shape[1]], [where.shape[0]]]
    lon, lat = pyproj.Transformer.from_crs(str(where.crs), 4326, always_xy=True).transform(*(where.affine @ (cols, rows)))
    top, bottom, y = (np.arcsinh(np.tan(np.radians(one))) for one in (north, south, lat))
    at = (top - y) / (top - bottom) * found.shape[0], ((lon - west) % 360) / (east - west) * found.shape[1]
    seen = found[tuple(one.astype(int) for one in at)].astype(int)
    assert (seen[:, 3] == 255).all()
    assert np.abs(seen[:, 0] / 255 - cols / where.shape[1]).max() < 0.03
    assert np.abs(seen[:, 1] / 255 - rows / where.shape[0]).max() < 0.03


def test_tiles_of_the_first_view_lie_on_both_sides_of_the_antimeridian() -> None:
    tiles = list(_first_tiles((179.98, -16.53, 180.02, -16.50), (860, 680)))
    assert {z for z, _, _ in tiles} == {14}
    assert {x for _, x, _ in tiles} == {0, 2**14 - 1}


def test_tiles_of_the_first_view_are_made_ahead(page: Any, address: str, maps: list[Path]) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    opened(page, address)
    one = shown(maps)[1]
    one.ahead()
    made = _tile.cache_info().misses
    tiles = [re.search(r"tiles/extent/(\d+)/(\d+)/(\d+)", url) for url in asked]
    found = [one.tile("extent", *map(int, tile.groups())) for tile in tiles if tile]
    assert len(found) >= 4
    assert _tile.cache_info().misses == made
    os.utime(one.path("extent"), ns=(1, 1))  # as written anew
    assert one.tile("extent", *map(int, next(tile for tile in tiles if tile).groups())) in found
    assert _tile.cache_info().misses == made + 1


def test_pictures_lie_where_the_map_says(page: Any, address: str) -> None:
    """Corners of the picture on the screen, from the place and zoom that the address tells."""
    facts = json.loads(ask(f"{address}/api/maps")[1])[1]
    west, south, east, north = facts["bounds"]
    tms = morecantile.tms.get("WebMercatorQuad")

    def shares(lon: float, lat: float) -> np.ndarray:
        return np.asarray(tms.xy(lon, lat)) / (2 * np.pi * 6378137)

    for zoom in (13.0, 16.5):
        page.goto("about:blank")
        opened(page, address, f"map=1&layers=&vectors=&at={(west + east) / 2:.5f},{(south + north) / 2:.5f},{zoom}")
        stage = page.locator("#stage").bounding_box()
        across, down, _ = map(float, page.url.split("at=")[1].replace("%2C", ",").split("&")[0].split(","))
        side = 512 * 2**zoom
        there = (np.asarray([shares(west, north), shares(east, south)]) - shares(across, down)) * [side, -side]
        there += [stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2]
        for name in ("left", "right"):
            box = page.locator(f"#{name} img").bounding_box()
            ends = [box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]]
            np.testing.assert_allclose(ends, [*there.min(axis=0), *there.max(axis=0)], atol=1e-5 * side / 360 + 1)


def test_a_click_tells_of_the_polygon(page: Any, address: str) -> None:
    opened(page, address, "map=1&vectors=observed_event&layers=")
    found = json.loads(ask(f"{address}/api/maps/1/outlines/observed_event?bbox=-180,-85,180,85")[1])["features"]
    largest = max(found, key=lambda f: f["properties"]["area_ha"])
    lon, lat = np.mean(np.array(largest["geometry"]["coordinates"][0]), axis=0)[:2]
    stage = page.locator("#stage").bounding_box()
    at = page.evaluate("() => location.hash.match(/at=([^&]+)/)[1]").replace("%2C", ",").split(",")
    scale = 512 * 2 ** float(at[2]) / 360
    x = stage["x"] + stage["width"] / 2 + (lon - float(at[0])) * scale

    def mercator(latitude: float) -> float:
        return float(np.degrees(np.log(np.tan(np.pi / 4 + np.radians(latitude) / 2))))

    y = stage["y"] + stage["height"] / 2 - (mercator(lat) - mercator(float(at[1]))) * scale
    page.mouse.click(x, y)
    popup = page.locator(".maplibregl-popup-content")
    popup.wait_for(timeout=5000)
    assert "area_ha" in popup.inner_text()
    assert "Flooded area" in popup.inner_text()


def test_a_link_brings_back_the_view_and_time_goes_on(page: Any, address: str) -> None:
    opened(page, address, "map=2&layers=exclusion&vectors=&swipe=20&threshold=70")
    assert page.locator("#scene").input_value() == "2"
    assert page.get_by_label("Not analysed").first.is_checked()
    assert page.locator("#threshold").input_value() == "70"
    assert page.locator("#divider").get_attribute("aria-valuenow") == "20"
    table = page.locator("#summary").inner_text()
    page.locator("#time").fill("1")
    page.wait_for_timeout(600)
    assert page.locator("#summary").inner_text() != table
    assert "map=1" in page.url
    page.locator("body").press("n")
    page.wait_for_timeout(400)
    assert page.locator("#scene").input_value() == "2"
    assert page.locator("#summary").inner_text() == table


def test_pixels_without_a_place_are_shown(page: Any, address: str) -> None:
    opened(page, address, "map=0&vectors=")
    assert "shown in pixels" in page.locator("footer").inner_text()
    assert cyan(page) > 500


def test_it_fits_a_phone_prints_and_can_be_dark(page: Any, address: str) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    opened(page, address)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    assert page.locator("#stage").bounding_box()["height"] > 300
    light = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").click()
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") != light
    page.emulate_media(media="print")
    assert not page.locator("#threshold-box").is_visible()
    assert page.locator("#summary").is_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_serious_keeps_people_out(page: Any, address: str, theme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page.emulate_media(color_scheme=theme)
    opened(page, address)
    found = axe.Axe().run(page).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"][:120]) for v in found if v["impact"] in ("serious", "critical")] == []
