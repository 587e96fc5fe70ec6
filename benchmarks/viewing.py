"""How soon a large map is seen: the first view in a browser, its tiles beside rio-tiler alone, and tiles while clients pan.

Run:     python -m benchmarks.viewing OUT [--folder DIR]         OUT: a delivered map, made beforehand
Writes:  benchmarks/results/viewing.md

"rio-tiler alone" reads and encodes the same tiles of the same file with its own Reader and PNG, in this process, without a
server, a palette or validity: what titiler does for a tile, less its web.
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import morecantile
import numpy as np
import rasterio
from rio_tiler.io import Reader

from benchmarks.sar_landslides_table import measured

RESULTS = Path(__file__).parent / "results"
CLIENTS, PANS, REPEATS = 8, 40, 5
VIEW_S, MOST_RATIO, REST_MS, AHEAD_S = 1.0, 1.3, 2000, 4
Tile = tuple[int, int, int]


@contextmanager
def viewer(out: Path) -> Iterator[str]:
    """The address of `aftermap view`, a process of its own."""
    command = [sys.executable, "-m", "aftermap", "view", str(out), "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        line = next(line for line in process.stdout if "http://" in line)
        yield "http://" + line.split("http://", 1)[1].split()[0].rstrip("/")
    finally:
        process.terminate()
        process.wait()


def seen(address: str) -> list[float]:
    """Seconds from asking for the page until all of it is drawn, each time by a browser that knows nothing."""
    from playwright.sync_api import sync_playwright

    path = next(p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name)))
    took = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--use-gl=swiftshader"])
        for _ in range(REPEATS):
            page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
            page.wait_for_timeout(REST_MS)  # a browser that starts takes a core for a second
            page.goto(address, wait_until="commit")
            page.wait_for_selector("body[data-ready=yes]", timeout=60_000)
            took.append(page.evaluate("performance.getEntriesByName('drawn')[0].startTime") / 1000)
            page.close()
        browser.close()
    return took


def first_tiles(bounds: tuple[float, float, float, float], most: int = 24) -> list[Tile]:
    """Those of the deepest zoom that covers a map with so many."""
    tms = morecantile.tms.get("WebMercatorQuad")
    found: list[Tile] = []
    for zoom in range(18):
        tiles = list(tms.tiles(*bounds, [zoom]))
        if len(tiles) > most:
            break
        found = [(t.z, t.x, t.y) for t in tiles]
    return found


def fetched(out: Path, layer: str, tiles: Sequence[Tile]) -> float:
    """Seconds for all, one after the other, of a viewer that has made none of them."""
    with viewer(out) as address:
        time.sleep(AHEAD_S)
        began = time.perf_counter()
        for z, x, y in tiles:
            urllib.request.urlopen(f"{address}/api/maps/0/tiles/{layer}/{z}/{x}/{y}.png").read()
        return time.perf_counter() - began


def alone(path: Path, tiles: Sequence[Tile]) -> float:
    """The same by rio-tiler, its file opened for each tile as its servers do."""
    began = time.perf_counter()
    for z, x, y in tiles:
        with Reader(str(path)) as reader:
            if reader.tile_exists(x, y, z):
                reader.tile(x, y, z, tilesize=512, indexes=1).render(img_format="PNG")
    return time.perf_counter() - began


def panned(address: str, bounds: Sequence[float], depth: int) -> list[float]:
    """Milliseconds of each tile while clients look about, each along its own way."""
    tms = morecantile.tms.get("WebMercatorQuad")
    west, south, east, north = bounds

    def client(number: int) -> list[float]:
        rng, took = random.Random(number), []
        zoom = depth + rng.randrange(4)
        tile = tms.tile(rng.uniform(west, east), rng.uniform(south, north), zoom)
        x, y = tile.x, tile.y
        for _ in range(PANS):
            began = time.perf_counter()
            urllib.request.urlopen(f"{address}/api/maps/0/tiles/likelihood/{zoom}/{x}/{y}.png").read()
            took.append(1000 * (time.perf_counter() - began))
            x, y = x + rng.choice((-1, 0, 1)), y + rng.choice((-1, 0, 1))
        return took

    with ThreadPoolExecutor(CLIENTS) as pool:
        return [ms for each in pool.map(client, range(CLIENTS)) for ms in each]


HEAD = """# How soon a map is seen

{measured} `python -m benchmarks.viewing OUT`: a delivered map of {width:,} x {height:,} px, medians of {repeats}.

`aftermap view` answers {started:.1f} s after it was started, and makes the tiles of the first view ahead. The first view in a
browser at rest that knows nothing and draws without a GPU, until all of it is drawn: **{seen:.2f} s** (wanted: under {limit:g} s;
{least:.2f} to {longest:.2f}).

| {tiles} tiles that were not made ahead, in turn | over HTTP, s | rio-tiler alone, s | ratio, at most {most} wanted |
|---|---|---|---|
"""
TAIL = """
{clients} clients that pan, {each} tiles each of likelihood at four zooms: median {median:.0f} ms, 95 % within **{most:.0f} ms**,
at most {worst:.0f} ms.
"""


@click.command()
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(out: Path) -> None:
    """Look at the delivered map in OUT."""
    began = time.perf_counter()
    with viewer(out) as address:
        started = time.perf_counter() - began
        views = seen(address)
        facts: dict[str, Any] = json.load(urllib.request.urlopen(f"{address}/api/maps"))[0]
        tiles = first_tiles(tuple(facts["bounds"]))
        pans = panned(address, facts["bounds"], tiles[0][0])
    rows = []
    for layer in ("exclusion", "likelihood"):
        ours, theirs = zip(
            *((fetched(out, layer, tiles), alone(out / f"{layer}.tif", tiles)) for _ in range(REPEATS)), strict=True
        )
        rows.append((layer, statistics.median(ours), statistics.median(theirs)))
    with rasterio.open(out / "likelihood.tif") as source:
        shape = source.shape
    text = HEAD.format(
        measured=measured(), width=shape[1], height=shape[0], repeats=REPEATS, started=started, limit=VIEW_S, most=MOST_RATIO,
        seen=statistics.median(views), least=min(views), longest=max(views), tiles=len(tiles),
    ).splitlines()  # fmt: skip
    text += [f"| {name} | {ours:.2f} | {theirs:.2f} | **{ours / theirs:.2f}** |" for name, ours, theirs in rows]
    text += TAIL.format(
        clients=CLIENTS, each=PANS, median=np.median(pans), most=np.quantile(pans, 0.95), worst=max(pans)
    ).splitlines()
    (RESULTS / "viewing.md").write_text("\n".join([*text, ""]), encoding="utf-8")
    click.echo("\n".join(text))


if __name__ == "__main__":
    main()
