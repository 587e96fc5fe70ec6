"""Images brought to the page in a real browser: findings, a run, the map, its files; a restart; what the routes tell."""

from __future__ import annotations

import base64
import io
import json
import socket
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aftermap.job import Limits
from aftermap.jobrun import Runner
from aftermap.jobs import Jobs
from aftermap.journal import verify
from aftermap.view import application
from tests.conftest import flood_pair, grid, write
from tests.test_jobs import BARE, MAPS
from tests.test_view import ask, browser

pytest.importorskip("uvicorn", reason="uvicorn is not installed")
pytest.importorskip("rio_tiler", reason="rio-tiler is not installed")
__all__ = ["browser"]
MARKUP = "<img src=x onerror=document.title='owned'>.tif"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    before, after, _ = flood_pair((180, 260))
    home = tmp_path_factory.mktemp("images")
    found = {
        name: write(home / f"{name}.tif", pixels, grid(pixels.shape[1:]), ("VV", "VH"), unit="dB")
        for name, pixels in (("after", after), ("before", before))
    }
    found["odd"] = write(home / "odd.tif", after, grid(after.shape[1:]), ("a", "b"))
    found["bad"] = home / MARKUP
    found["bad"].write_bytes(b"II*\0rubbish, more rubbish")
    return found


@contextmanager
def viewer(folder: Path, work: tuple[str, ...] = MAPS) -> Iterator[str]:
    from aftermap.patience import server

    runner = Runner(Jobs(folder, Limits(free_mb=1)), work=work)
    runner.start()
    sock = socket.create_server(("127.0.0.1", 0))
    served = server(application([], hosts=["127.0.0.1"], runner=runner), idle_s=20)
    thread = threading.Thread(target=served.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        served.should_exit = True
        thread.join(10)
        sock.close()
        runner.stop()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    opened = browser.new_page(viewport={"width": 1100, "height": 800})
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda said: faults.append(said.text) if said.type == "error" and "422" not in said.text else None)
    yield opened
    opened.close()
    assert faults == []


def opened(page: Any, address: str) -> None:
    page.goto(address)
    page.wait_for_selector("body[data-ready=yes]", timeout=120_000)


def soon(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def clean(page: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    found = axe.Axe().run(page).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"][:120]) for v in found if v["impact"] in ("serious", "critical")] == []


def test_from_files_to_a_map(page: Any, images: dict[str, Path], tmp_path: Path) -> None:
    with viewer(tmp_path / "jobs") as address:
        opened(page, address)
        assert "no map yet" in page.locator("#note").inner_text()
        assert page.locator("[data-part=run]").is_disabled()
        clean(page)
        page.set_input_files("#pick-after", [images["odd"], images["bad"]])
        page.locator("[data-part=found] li", has_text="says what its 2 bands are").wait_for(timeout=120_000)
        found = page.locator("[data-part=found]").inner_text()
        assert MARKUP in found
        assert "truncated" in found
        assert page.title() == "aftermap"
        assert page.locator("[data-part=run]").is_disabled()
        clean(page)
        page.get_by_text("What the files do not say").click()
        page.get_by_label("Bands in file order").fill("VV,VH")
        page.get_by_label("Unit (--unit)").fill("dB")
        page.get_by_label("Name of the map").fill("Passau <b>")
        page.set_input_files("#pick-before", images["before"])
        page.locator("[data-part=understood]", has_text="before: sentinel-1").wait_for(timeout=120_000)
        page.locator("[data-part=run]:not([disabled])").wait_for(timeout=120_000)
        page.reload()
        page.wait_for_selector("body[data-ready=yes]")
        assert page.get_by_label("Remove odd.tif").is_visible()
        page.locator("[data-part=run]").click()
        page.locator("li[data-state=running] progress").wait_for(timeout=20_000)
        page.locator("li[data-state=done]").wait_for(timeout=60_000)
        soon(lambda: page.title().startswith("Passau <b>"))
        assert "ha of flood" in page.locator("#answer").inner_text()
        page.emulate_media(color_scheme="dark")
        clean(page)
        page.set_viewport_size({"width": 390, "height": 800})
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
        with page.expect_download() as packed:
            page.get_by_text("All files (zip)").click()
        with zipfile.ZipFile(packed.value.path()) as pack:
            assert pack.testzip() is None
            pack.extractall(tmp_path / "unpacked")
        assert verify(tmp_path / "unpacked") == []
    with viewer(tmp_path / "jobs") as address:
        opened(page, address)
        assert page.title().startswith("Passau <b>")
        page.get_by_role("button", name="Delete").click()
        page.wait_for_selector("body[data-empty=yes]")
        assert page.title() == "aftermap"
        assert [p.name for p in (tmp_path / "jobs").iterdir()] == ["lock"]


def test_files_are_dropped_and_a_run_is_cancelled(page: Any, images: dict[str, Path], tmp_path: Path) -> None:
    slow = "jobwork.mapped = lambda *_: __import__('time').sleep(60); jobwork.main()"
    with viewer(tmp_path / "jobs", (sys.executable, "-c", BARE + slow)) as address:
        opened(page, address)
        data = base64.b64encode(images["after"].read_bytes()).decode()
        drop = page.evaluate_handle(
            """data => { const held = new DataTransfer();
            held.items.add(new File([Uint8Array.from(atob(data), c => c.charCodeAt(0))], 'dropped.tif')); return held; }""",
            data,
        )
        held: list[Any] = []  # the answer of the first comes after that of the second
        page.route("**/files/before*", lambda route: held.append((route, route.fetch())))
        page.dispatch_event(".zone[data-role=before]", "drop", {"dataTransfer": drop})
        while not held:
            page.wait_for_timeout(20)
        page.dispatch_event(".zone[data-role=after]", "drop", {"dataTransfer": drop})
        page.locator(".zone[data-role=after] li .soft").wait_for(timeout=20_000)
        held[0][0].fulfill(response=held[0][1])
        page.locator("[data-part=run]:not([disabled])").wait_for(timeout=120_000)
        page.locator("[data-part=run]").click()
        page.get_by_role("button", name="Cancel: dropped.tif").click()
        page.locator("li[data-state=cancelled]").wait_for(timeout=20_000)
        page.get_by_role("button", name="Change: dropped.tif").click()
        page.locator(".zone[data-role=after] li", has_text="dropped.tif").wait_for()
        assert len(json.loads(ask(f"{address}/api/jobs")[1])["jobs"]) == 1
        page.get_by_role("button", name="Remove dropped.tif, before").click()
        page.get_by_role("button", name="Remove dropped.tif, after").click()
        page.locator(".zone li").wait_for(state="detached", timeout=20_000)


def test_routes_are_there_with_a_folder_alone(tmp_path: Path) -> None:
    with viewer(tmp_path / "jobs") as address:
        assert json.loads(ask(f"{address}/api/offers")[1]) == {"jobs": True}
        told = json.loads(ask(f"{address}/api/jobs")[1])
        assert told["limits"]["file_mb"] == 2000
        assert told["hazards"][0] == "flood"
        assert json.loads(ask(f"{address}/api/maps")[1]) == []
        assert ask(f"{address}/api/jobs/{'0' * 16}/products.zip")[0] == 404


def test_a_zip_is_made_as_it_is_read(tmp_path: Path) -> None:
    from aftermap.uploads import _zipped

    (tmp_path / "a").write_bytes(bytes(range(256)) * 1000)
    (tmp_path / "b").write_bytes(b"")
    parts = list(_zipped({"x/a": tmp_path / "a", "b": tmp_path / "b"}))
    assert len(parts) > 3
    with zipfile.ZipFile(io.BytesIO(b"".join(parts))) as pack:
        assert pack.testzip() is None
        assert pack.read("x/a") == (tmp_path / "a").read_bytes()
