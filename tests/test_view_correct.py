"""Corrections over HTTP and on the page: drawn, marked, deleted, undone, by two people at once; and who may not write."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

import aftermap as am
from aftermap import corrections, journal
from aftermap.correcting import MOST_BYTES
from aftermap.corrections import MOST_VERTICES
from aftermap.view import application, shown
from tests.conftest import flood_pair, grid, write
from tests.test_view import _running, browser, morecantile, picture  # noqa: F401

HEADERS = {"Content-Type": "application/json", "X-Aftermap": "1"}
RED = np.array([255, 212, 0])


SHAPE = (300, 420)
GRIDS = {
    "placed": grid(SHAPE), "placeless": grid(SHAPE, crs=None),
    "metres": GeoBox(SHAPE, Affine(10, 0, 818_200, 0, -10, 8_173_000), "EPSG:32760"),
    "degrees": GeoBox(SHAPE, Affine(1e-4, 0, 179.979, 0, -1e-4, -16.5), "EPSG:4326"),
    "pole": GeoBox(SHAPE, Affine(4000, 0, -840_000, 0, -4000, 600_000), "EPSG:3031"),
}  # fmt: skip
"""Two lie across the antimeridian, one about the pole, of which the web's projection has no map."""


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A map on each of GRIDS."""
    home, (_, after, _) = tmp_path_factory.mktemp("maps"), flood_pair(SHAPE)
    found = []
    for name, where in GRIDS.items():
        path = write(home / f"{name}.tif", after, where, ("VV", "VH"), unit="dB")
        found.append(am.map(path, out=home / name, hazard="flood", name=name).folder)
    return found


@pytest.fixture
def maps(delivered: list[Path]) -> Iterator[list[Path]]:
    yield delivered
    for folder in delivered:
        (folder / corrections.FILE).unlink(missing_ok=True)


@pytest.fixture(scope="module")
def address(delivered: list[Path]) -> Iterator[str]:
    yield from _running(application(shown(delivered), hosts=["127.0.0.1"]))


def ids(address: str) -> dict[str, dict[str, Any]]:
    with urllib.request.urlopen(f"{address}/api/maps", timeout=20) as answer:
        return {one["name"]: one for one in json.load(answer)}


def post(address: str, name: str, body: Any, headers: dict[str, str] = HEADERS) -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}/api/maps/{ids(address)[name]['id']}/corrections", data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def ring(address: str, name: str, x: float, y: float, side: float = 0.2) -> list[list[float]]:
    """A square, as shares of the map from its upper left."""
    west, south, east, north = ids(address)[name]["bounds"]
    corners = ((x, y), (x + side, y), (x + side, y + side), (x, y + side))
    return [[west + a * (east - west), north - b * (north - south)] for a, b in corners]


def drawn(address: str, name: str = "placed", *, kind: str = "hazard", author: str = "Anna", seen: int = 0, **at: Any) -> Any:
    return {"kind": kind, "author": author, "seen": seen, "ring": ring(address, name, **({"x": 0.3, "y": 0.3} | at))}


@pytest.mark.parametrize("name", GRIDS)
def test_what_is_drawn_lies_where_it_was_drawn(address: str, maps: list[Path], name: str) -> None:
    """In the file on the pixels that it covers, and back on the page at its corners."""
    status, told = post(address, name, drawn(address, name))
    assert status == 200, told
    one = am.HazardMap(maps[list(GRIDS).index(name)])
    (row,) = corrections.read(one.folder / corrections.FILE, one.grid).rows
    assert (row.kind, row.author, row.revision) == ("hazard", "Anna", 1)
    truth = corrections.truth([row], [], one.grid, am_window(one))
    rows, cols = np.nonzero(truth == 1)
    height, width = one.shape
    assert np.abs(np.array([rows.min(), rows.max()]) / height - [0.3, 0.5]).max() < 0.02
    assert np.abs(np.array([cols.min(), cols.max()]) / width - [0.3, 0.5]).max() < 0.02
    corners = np.reshape(told["standing"]["features"][0]["geometry"]["coordinates"], (-1, 2))
    asked = ring(address, name, 0.3, 0.3)
    assert max(min(np.hypot(x - a, y - b) for a, b in asked) for x, y in corners) < 1e-4
    assert journal.verify(one.folder) == []


def am_window(one: am.HazardMap) -> Any:
    from aftermap.tiles import Window

    return Window(0, 0, *one.shape)


def test_a_polygon_of_the_map_is_marked_whole(address: str, maps: list[Path]) -> None:
    one = ids(address)["placed"]
    with urllib.request.urlopen(
        f"{address}/api/maps/{one['id']}/outlines/observed_event?bbox=-180,-85,180,85", timeout=20
    ) as answer:
        largest = max(json.load(answer)["features"], key=lambda f: f["properties"]["area_ha"])
    place = inside(largest["geometry"])
    status, told = post(address, "placed", {"kind": "not hazard", "author": "Ben", "seen": 0, "at": place})
    assert status == 200, told
    hazard = am.HazardMap(maps[0])
    truth = corrections.truth(corrections.read(maps[0] / corrections.FILE, hazard.grid).rows, [], hazard.grid, am_window(hazard))
    assert (truth == 0).sum() * 0.01 == pytest.approx(largest["properties"]["area_ha"], rel=0.02)
    assert post(address, "placed", {"kind": "not hazard", "author": "Ben", "seen": 1, "at": [0, 0]})[0] == 422
    assert post(address, "placed", {"kind": "hazard", "author": "Ben", "seen": 1, "at": place})[0] == 422


def inside(geometry: dict[str, Any]) -> list[float]:
    import shapely
    import shapely.geometry

    at = shapely.geometry.shape(geometry).representative_point()
    return [at.x, at.y]


BAD: dict[str, Any] = {
    "no JSON": b"{", "a list": [], "nothing": {}, "deep": b"[" * 30000, "unknown kind": {"kind": "maybe"},
    "kind no text": {"kind": ["hazard"]},
    "no place": {"kind": "hazard", "author": "a", "seen": 0},
    "two corners": {"kind": "hazard", "author": "a", "seen": 0, "ring": [[15, 48], [15.1, 48]]},
    "too many": {"kind": "hazard", "author": "a", "seen": 0, "ring": [[15, 48]] * (MOST_VERTICES + 1)},
    "text for numbers": {"kind": "hazard", "author": "a", "seen": 0, "ring": [["15", 48], [15, 48], [15, 49]]},
    "not finite": b'{"kind":"hazard","author":"a","seen":0,"ring":[[NaN,48],[15,48],[15,49]]}',
    "infinite": b'{"kind":"hazard","author":"a","seen":0,"ring":[[1e999,48],[15,48],[15,49]]}',
    "elsewhere": {"kind": "hazard", "author": "a", "seen": 0, "ring": [[1, 1], [1.1, 1], [1.1, 1.1]]},
    "off the earth": {"kind": "hazard", "author": "a", "seen": 0, "ring": [[1, 1], [1.1, 1], [1.1, 91]]},
    "nobody": {"kind": "hazard", "author": " ", "seen": 0, "ring": "here"},
    "a long name": {"kind": "hazard", "author": "a" * 61, "seen": 0, "ring": "here"},
    "a name that writes upwards": {"kind": "hazard", "author": "a\u202eb", "seen": 0, "ring": "here"},
    "seen the future": {"kind": "hazard", "author": "a", "seen": 9, "ring": "here"},
    "seen no number": {"kind": "hazard", "author": "a", "seen": True, "ring": "here"},
    "more than a correction": {"kind": "hazard", "author": "a", "seen": 0, "ring": "here", "path": "/etc/passwd"},
    "crosses itself": {"kind": "hazard", "author": "a", "seen": 0, "ring": "crossed"},
    "a dot": {"kind": "hazard", "author": "a", "seen": 0, "ring": "dot"},
    "deletes nothing": {"kind": "deleted", "author": "a", "seen": 0, "takes_back": "../x"},
    "undoes nothing": {"kind": "undone", "author": "a", "seen": 0},
}  # fmt: skip


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_what_is_no_correction_is_refused_in_words(address: str, maps: list[Path], body: Any) -> None:
    if isinstance(body, dict) and body.get("ring") in ("here", "crossed", "dot"):
        square = ring(address, "placed", 0.3, 0.3, 1e-5 if body["ring"] == "dot" else 0.2)
        order = [0, 2, 1, 3] if body["ring"] == "crossed" else range(4)
        body = body | {"ring": [square[k] for k in order]}
    status, told = post(address, "placed", body)
    assert status == 422, told
    assert told["code"] == "correction-invalid"
    assert told["repair"]
    assert not (maps[0] / corrections.FILE).exists()


def test_only_the_page_itself_may_write(address: str, maps: list[Path]) -> None:
    body = drawn(address)
    for headers in (
        {"Content-Type": "application/json"},
        {"X-Aftermap": "1", "Content-Type": "text/plain"},
        HEADERS | {"Origin": "http://evil.example"},
        HEADERS | {"Origin": "null"},
        HEADERS | {"Sec-Fetch-Site": "cross-site"},
        HEADERS | {"Host": "evil.example"},
    ):
        assert post(address, "placed", body, headers)[0] == 403, headers
    assert post(address, "placed", b" " * (MOST_BYTES + 1))[0] == 413
    assert not (maps[0] / corrections.FILE).exists()
    assert post(address, "placed", body, HEADERS | {"Origin": address})[0] == 200


def test_a_token_is_asked_for_before_anything_is_written(maps: list[Path]) -> None:
    for own in _running(application(shown(maps[:1]), hosts=["127.0.0.1"], token="t" * 20)):
        request = urllib.request.Request(f"{own}/api/maps/0/corrections", data=b"{}", headers=HEADERS)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=20)
        with refused.value as error:
            assert error.code == 403
    assert not (maps[0] / corrections.FILE).exists()


def test_another_file_of_that_name_is_left_alone(address: str, maps: list[Path]) -> None:
    (maps[0] / corrections.FILE).write_text("my own notes")
    status, told = post(address, "placed", drawn(address))
    assert (status, told["code"]) == (409, "corrections-invalid")
    assert (maps[0] / corrections.FILE).read_text() == "my own notes"


@pytest.fixture
def pages(browser: Any, address: str, maps: list[Path]) -> Iterator[list[Any]]:  # noqa: F811
    """Two people's pages, each a browser's own, closed before the files go; what goes wrong on either fails the test."""
    faults: list[str] = []
    found = []
    for _ in range(2):
        page = browser.new_context(viewport={"width": 1200, "height": 800}).new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" and "422" not in said.text else None)
        found.append(page)
    yield found
    for page in found:
        page.context.close()
    assert faults == []


def opened(page: Any, address: str, name: str = "placed", author: str = "Anna", fragment: str = "layers=&vectors=") -> None:
    page.goto(f"{address}/#map={ids(address)[name]['id']}&{fragment}")
    page.wait_for_selector("body[data-ready=yes]", timeout=30_000)
    page.get_by_text("Correct this map").click()
    if author:
        page.get_by_label("Your name").fill(author)
    page.wait_for_timeout(500)


def click(page: Any, *places: tuple[float, float]) -> None:
    """At shares of the stage."""
    box = page.locator("#stage").bounding_box()
    for x, y in places:
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
        page.wait_for_timeout(400)  # two clicks at once are a double click


def said(page: Any, words: str) -> None:
    page.wait_for_function(
        "words => document.getElementById('correct-said').textContent.includes(words)", arg=words, timeout=8000
    )


def yellow(page: Any) -> int:
    pixels = picture(page.locator("#stage").screenshot()).astype(int)
    return int((np.abs(pixels[..., :3] - RED).max(axis=-1) < 40).sum())


def magenta(page: Any) -> int:
    """Pixels of a polygon that is pointed at."""
    pixels = picture(page.locator("#stage").screenshot()).astype(int)
    return int((np.abs(pixels[..., :3] - np.array([255, 0, 200])).max(axis=-1) < 30).sum())


SQUARE = ((0.3, 0.3), (0.5, 0.3), (0.5, 0.5), (0.3, 0.5))


def standing(maps: list[Path], at: int = 0) -> list[str]:
    one = am.HazardMap(maps[at])
    return [row.kind for row in corrections.read(maps[at] / corrections.FILE, one.grid).standing]


def shot(page: Any, name: str) -> None:
    """A picture to look at, where a folder for it is asked for."""
    import os

    if folder := os.environ.get("AFTERMAP_SHOTS"):
        page.wait_for_timeout(500)
        page.screenshot(path=f"{folder}/{name}.png")


def test_drawing_deleting_and_undoing(pages: list[Any], address: str, maps: list[Path]) -> None:
    page = pages[0]
    opened(page, address)
    none = yellow(page)
    page.get_by_role("button", name="Draw hazard").click()
    click(page, *SQUARE[:3])
    shot(page, "1-drawing")
    click(page, SQUARE[3])
    page.keyboard.press("Enter")
    said(page, "Saved: hazard.")
    page.wait_for_timeout(400)
    assert standing(maps) == ["hazard"]
    assert yellow(page) > none + 300
    assert re.search(r"1: hazard, [\d.,]+ ha, Anna", page.locator("#corrections").inner_text())
    dark = magenta(page)
    page.locator("#corrections li").hover()
    page.wait_for_timeout(400)
    assert magenta(page) > dark + 100, "the line in the list says which polygon it is"
    page.get_by_role("button", name="Draw not hazard").click()
    click(page, (0.6, 0.6), (0.8, 0.6), (0.7, 0.8))
    box = page.locator("#stage").bounding_box()
    page.mouse.dblclick(box["x"] + 0.65 * box["width"], box["y"] + 0.8 * box["height"])
    said(page, "Saved: not hazard.")
    shot(page, "2-both")
    page.get_by_role("button", name="Delete or mark").click()
    click(page, (0.4, 0.4))
    said(page, "Deleted")
    assert standing(maps) == ["not hazard"]
    shot(page, "3-deleted")
    page.keyboard.press("Control+z")
    said(page, "Undone")
    assert sorted(standing(maps)) == ["hazard", "not hazard"]
    page.get_by_role("button", name="Undo").click()
    page.wait_for_timeout(500)
    assert standing(maps) == ["hazard"]
    assert len(corrections.read(maps[0] / corrections.FILE, am.HazardMap(maps[0]).grid).rows) == 5
    page.reload()
    page.wait_for_selector("body[data-ready=yes]")
    page.get_by_text("Correct this map").click()
    assert page.get_by_label("Your name").input_value() == "Anna"
    assert page.locator("#corrections li").count() == 1


def test_a_polygon_of_the_map_is_marked_by_a_click(pages: list[Any], address: str, maps: list[Path]) -> None:
    page = pages[0]
    opened(page, address, fragment="layers=&vectors=observed_event")
    page.get_by_role("button", name="Delete or mark").click()
    click(page, (0.02, 0.02))
    said(page, "no polygon there")
    click(page, (0.5, 0.5))
    said(page, "Saved: not hazard.")
    assert standing(maps) == ["not hazard"]
    shot(page, "4-marked")


def test_two_people_who_disagree_are_told(pages: list[Any], address: str, maps: list[Path]) -> None:
    for page, author in zip(pages, ("Anna", "Ben"), strict=True):
        page.route("**/corrections", lambda route: route.continue_() if route.request.method == "POST" else route.fulfill(
            json={"revision": 0, "standing": {"type": "FeatureCollection", "features": []}, "open": []}))  # fmt: skip
        opened(page, address, author=author)
    for page, tool in zip(pages, ("Draw hazard", "Draw not hazard"), strict=True):
        page.get_by_role("button", name=tool).click()
        click(page, *SQUARE)
        page.keyboard.press("Enter")
        said(page, "Saved")
        page.unroute("**/corrections")
    assert "Conflict: Anna: hazard" in pages[1].locator("#correct-said").inner_text()
    assert "Two people disagree" in pages[1].locator("#contested").inner_text()
    shot(pages[1], "5-conflict")
    assert sorted(standing(maps)) == ["hazard", "not hazard"]
    pages[0].wait_for_function("() => document.getElementById('contested').textContent.includes('Ben')", timeout=12_000)
    pages[0].get_by_role("button", name=re.compile(r"Delete \d+: not hazard")).click()
    said(pages[0], "Deleted")
    assert pages[0].locator("#contested").inner_text() == ""


def test_all_of_it_with_keys_and_signed(pages: list[Any], address: str, maps: list[Path]) -> None:
    page = pages[0]
    opened(page, address, "placeless", author="")
    page.get_by_role("button", name="Draw hazard").press("Enter")
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft"):
        page.keyboard.press("Space")
        page.keyboard.press(key)
        page.wait_for_timeout(600)
    page.keyboard.press("Space")
    shot(page, "6-keys")
    page.keyboard.press("Enter")
    said(page, "First say your name")
    page.keyboard.type("Xela e l")
    assert not page.get_by_label("Extent").is_checked()
    page.locator("canvas").first.focus()
    page.keyboard.press("Enter")
    said(page, "Saved: hazard.")
    assert standing(maps, 1) == ["hazard"]
    page.keyboard.press("Space")
    page.keyboard.press("Escape")
    said(page, "The polygon is gone")
    page.keyboard.press("Escape")
    assert page.get_by_role("button", name="Draw hazard").get_attribute("aria-pressed") == "false"
    page.keyboard.press("Control+z")
    said(page, "Undone")
    assert standing(maps, 1) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_serious_keeps_people_from_correcting(pages: list[Any], address: str, maps: list[Path], theme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    assert post(address, "placed", drawn(address))[0] == 200
    assert post(address, "placed", drawn(address, kind="not hazard", author="Ben"))[0] == 200
    page = pages[0]
    page.emulate_media(color_scheme=theme)
    opened(page, address)
    page.get_by_role("button", name="Draw hazard").click()
    found = axe.Axe().run(page).response["violations"]
    shot(page, f"7-{theme}")
    assert [(v["id"], v["nodes"][0]["html"][:120]) for v in found if v["impact"] in ("serious", "critical")] == []
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("name", ["metres", "degrees"])
def test_a_map_across_the_antimeridian_is_one_map(address: str, maps: list[Path], pages: list[Any], name: str) -> None:
    """Opens on itself; outlines, pictures and a polygon lie on both sides, also where the view is a whole turn beside."""
    n, (west, south, east, north) = (ids(address)[name][key] for key in ("id", "bounds"))
    assert 179.9 < west < 180 < east < 180.1
    seen = []
    for page, at in zip(pages, ("", "&at=-179.9999,-16.517,13.7"), strict=True):
        opened(page, address, name, fragment=f"layers=extent&vectors=observed_event{at}")
        seen.append(page.locator("#left img, #right img").last.bounding_box())
        shot(page, f"across-{name}{len(at)}")
    assert all(one["width"] > 600 and 0 <= one["x"] < 150 for one in seen), seen
    tiles, tms = shown([maps[list(GRIDS).index(name)]])[0], morecantile.tms.get("WebMercatorQuad")
    for x in (0, 2**13 - 1):  # both columns beside the antimeridian
        rows = {tile.y for tile in tms.tiles(179.99, south, 180, north, [13])}
        assert any((picture(one)[..., 3] > 0).any() for y in rows if (one := tiles.tile("extent", 13, x, y)))
    page.get_by_role("button", name="Draw hazard").click()
    click(page, (0.4, 0.4), (0.6, 0.4), (0.6, 0.6), (0.4, 0.6))
    page.keyboard.press("Enter")
    said(page, "Saved")
    with urllib.request.urlopen(f"{address}/api/maps/{n}/corrections", timeout=20) as answer:
        (drawn,) = json.load(answer)["standing"]["features"]
    left, _, right, _ = shapely.geometry.shape(drawn["geometry"]).bounds
    assert (left, right) == pytest.approx((180 - (east - west) / 8, 180 + (east - west) / 8), abs=(east - west) / 20)
    found = []
    for turn in (0, -360):
        box = f"{west + turn},{south},{east + turn},{north}"
        with urllib.request.urlopen(f"{address}/api/maps/{n}/outlines/observed_event?bbox={box}", timeout=20) as answer:
            found.append(json.load(answer)["features"])
    assert found[0] == found[1]
    left, _, right, _ = shapely.total_bounds([shapely.geometry.shape(one["geometry"]) for one in found[0]])
    assert (left, right) == pytest.approx((west, east), abs=1e-3)
