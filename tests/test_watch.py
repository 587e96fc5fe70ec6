"""An area that is watched: passes come to a catalog one by one, each is mapped once, and the series is what the maps say."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result
from odc.geo.geobox import GeoBox

from aftermap import gather, watch
from aftermap.acquisitions import Rules
from aftermap.aoi import Aoi
from aftermap.area import pixel_area_m2
from aftermap.catalog import catalog
from aftermap.cli import main
from aftermap.errors import AftermapError, InputRefusedError, JobInterruptedError
from aftermap.find import Wish
from aftermap.hazardmap import HazardMap
from aftermap.itemfile import EventFile, ids
from aftermap.remote import Remote
from aftermap.tiles import Window
from aftermap.watch import Round, Watch, keep, once
from tests.stac_scenes import S1A_ORBITS_PER_DAY, sentinel1_rtc
from tests.stac_search import Item
from tests.stac_server import Faults, Server, serving
from tests.stac_world import AFTER, FloodWorld, flood_world

FIRST, SECOND, THIRD = "20240513T050025Z-descending-022", "20240525T050025Z-descending-022", "20240606T050025Z-descending-022"
PRODUCTS = ("series.csv", "series.json", "maximum_extent.tif", "change.tif", "times.tif", "collection.json")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> FloodWorld:
    return flood_world(tmp_path_factory.mktemp("world"), size=512)


@pytest.fixture(scope="module")
def moved(world: FloodWorld) -> Item:
    """Twelve days later the water is gone from the west of what is watched, and stands where it was dry in the south-east."""
    return later(world, 12, lambda rows, cols: cols < 190)


@pytest.fixture(scope="module")
def gone(world: FloodWorld) -> Item:
    """After another twelve days all of it is dry."""
    return later(world, 24, lambda rows, cols: rows >= 0)


def later(world: FloodWorld, days: int, dry: Any, keep: slice = slice(None), **said: Any) -> Item:
    """A pass on the orbit of the one after the event: dry ground where `dry` says, and a new lake in the south-east."""
    rows, cols = np.mgrid[: world.grid.shape[0], : world.grid.shape[1]]
    lake = (rows - 225) ** 2 + (cols - 250) ** 2 < 15**2 if days == 12 else np.zeros(rows.shape, bool)
    bands = []
    for band, water in (("vv", 0.008), ("vh", 0.0015)):
        wet, before = (pixels(asset(world, name, band)) for name in (world.after, world.before))
        bands.append(np.where(lake, np.float32(water) * wet / np.median(wet), np.where(dry(rows, cols), before, wet))[keep])
    absolute = 53819 + round(days * S1A_ORBITS_PER_DAY)
    when = AFTER + timedelta(days=days, seconds=said.pop("seconds", 0))
    return sentinel1_rtc(world.folder, bands[0], bands[1], world.grid[keep, :], when, absolute_orbit=absolute, **said)


def asset(world: FloodWorld, name: str, band: str) -> Path:
    return world.folder / str(next(i for i in world.items if i["id"] == name)["assets"][band]["href"])


def pixels(path: Path) -> Any:
    with rasterio.open(path) as src:
        return src.read(1)


@pytest.fixture(scope="module")
def running(world: FloodWorld) -> Iterator[Server]:
    with serving(world.folder, world.catalog("planetary-computer")) as found:
        yield found


@pytest.fixture
def server(running: Server, world: FloodWorld) -> Server:
    """With what was there on the day after the event; one address, which maps say."""
    running.items[:], running.faults = world.catalog("planetary-computer"), Faults()
    running.requests.clear()
    return running


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        _quicken(patch)
        yield


def _quicken(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gather, "CELL_PX", 128)
    patch.setattr("aftermap.catalog.BACKOFF_S", 0.01)
    patch.setattr("aftermap.catalog.RETRIES", 1)
    patch.setattr(gather, "Remote", partial(Remote, timeout_s=1, attempts=2, sleep=lambda _: None))


def box(world: FloodWorld) -> tuple[float, float, float, float]:
    west, south, east, north = world.grid[60:252, 100:292].geographic_extent.boundingbox
    return west, south, east, north


def watched(server: Server, world: FloodWorld, out: Path, **wish: Any) -> Watch:
    wished = Wish("flood", f"{world.event.isoformat()}Z", **{"beside": ("reference_water",), "rules": RULES, **wish})
    return Watch(Aoi.of_box(*box(world)), wished, catalog(server.url), out)


RULES = Rules(0.2, days_after=0.0)


def aftermap(server: Server, world: FloodWorld, out: Path, *words: object) -> Result:
    given = (
        "watch", "--catalog", server.url, "--bbox", ",".join(map(repr, box(world))), "--event", f"{world.event.isoformat()}Z",
        "--hazard", "flood", "--beside", "reference_water", "-o", out, "--once", "--quiet", *words,
    )  # fmt: skip
    return CliRunner().invoke(main, [*map(str, given)])


def files(folder: Path) -> dict[str, bytes]:
    """What a reader finds: neither timings nor what is kept to work with."""
    every = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "log.json")
    named = {p.relative_to(folder).as_posix(): p.read_bytes() for p in every}
    return {name: data for name, data in named.items() if not name.startswith((".work", "windows", "items", "watch.json"))}


@dataclass
class Told:
    """What three rounds said, and what the files were after each of them."""

    out: Path
    said: list[Result]
    files: list[dict[str, bytes]]
    read: set[str]
    """Items whose files were asked for in the second."""


@pytest.fixture(scope="module")
def told(running: Server, world: FloodWorld, moved: Item, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """A pass comes before the second round; before the third some products go."""
    running.items[:], running.faults = world.catalog("planetary-computer"), Faults()
    found = Told(tmp_path_factory.mktemp("told") / "out", [], [], set())

    def go(*words: str) -> None:
        running.requests.clear()
        found.said.append(aftermap(running, world, found.out, *words))
        found.files.append(files(found.out))

    go("--json")
    running.items.append(moved)
    go("--json")
    found.read = {Path(one.path).parent.name for one in running.requests}
    for name in PRODUCTS[::2]:
        (found.out / name).unlink()
    go()
    return found


def test_each_new_pass_is_mapped_once(told: Told, moved: Item) -> None:
    first, second, third = told.said
    assert [one.exit_code for one in told.said] == [0, 0, 0], first.output + second.output + third.output
    found = json.loads(first.stdout)
    assert found["mapped"] == [FIRST]
    assert [r["new_ha"] for r in found["series"]] == [None]
    (why,) = found["skipped"].values()
    assert "none is on its orbit" in why
    assert "permanent water not separated" in why
    assert json.loads(second.stdout)["mapped"] == [SECOND]
    assert told.read == {moved["id"]}
    # GDAL may remember what is asked for again: kept is each image once.
    kept = sorted(path.stem for path in (told.out / "windows").glob("*/*.vrt"))
    assert kept == ["after", "after", "before", "reference_water"]
    before, after, again = told.files
    assert {k: after[k] for k in before if k.startswith("maps/")} == {k: v for k, v in before.items() if k.startswith("maps/")}
    assert third.stdout == "no new pass\n"
    assert again == after
    assert not set(PRODUCTS) - set(after)


def test_the_series_is_what_the_maps_say(told: Told) -> None:
    check_series(told.out)


def check_series(out: Path) -> None:
    """By hand, from extent.tif of two maps."""
    one, two = (pixels(out / "maps" / name / "extent.tif") for name in (FIRST, SECOND))
    with rasterio.open(out / "maps" / FIRST / "extent.tif") as src:
        grid = GeoBox(src.shape, src.transform, str(src.crs))
    area = pixel_area_m2(grid, Window(0, 0, *grid.shape)) / 1e4
    both = (one != 255) & (two != 255)
    new, receded = both & (one == 0) & (two == 1), both & (one == 1) & (two == 0)
    with (out / "series.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [Path(r["folder"]).name for r in rows] == [FIRST, SECOND]
    assert [r["compared_ha"] for r in rows[:1]] == [""]
    for row, extent in zip(rows, (one, two), strict=True):
        summary = {r["quantity"]: r for r in HazardMap(out / row["folder"]).summary if not r["reason"]}
        assert float(row["affected_ha"]) == pytest.approx(float(summary["affected_area"]["value"]), abs=2e-4)
        assert float(row["analysed_ha"]) == pytest.approx(area[extent != 255].sum(), abs=2e-4)
        assert float(row["affected_percent"]) == pytest.approx(100 * (extent == 1).sum() / (extent != 255).sum(), rel=1e-3)
    assert float(rows[1]["new_ha"]) == pytest.approx(area[new].sum(), abs=2e-4)
    assert float(rows[1]["receded_ha"]) == pytest.approx(area[receded].sum(), abs=2e-4)
    assert float(rows[1]["union_ha"]) == pytest.approx(area[(one == 1) | (two == 1)].sum(), abs=2e-4)
    assert min(new.sum(), receded.sum(), (both & (one == 1) & (two == 1)).sum()) > 100
    assert (rows[1]["platform"], rows[1]["direction"], rows[1]["orbit"]) == ("SENTINEL-1A", "descending", "22")
    unseen = (one == 255) & (two == 255)
    times = (one == 1).astype(int) + (two == 1)
    np.testing.assert_array_equal(pixels(out / "times.tif"), np.where(unseen, 255, times))
    np.testing.assert_array_equal(pixels(out / "maximum_extent.tif"), np.where(unseen, 255, times > 0))
    code = np.where(new, 2, np.where(receded, 3, (two == 1).astype(int)))
    np.testing.assert_array_equal(pixels(out / "change.tif"), np.where(both, code, 255))
    with rasterio.open(out / "change.tif") as src:
        assert src.colormap(1)[2] != src.colormap(1)[3]
        assert src.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    check_index(out)


def check_index(out: Path) -> None:
    import pystac

    inputs = json.loads((out / "series.json").read_text())["acquisitions"][1]["inputs"]
    assert [(i["src_id"], i["eventphase"], i["acquired"]) for i in inputs] == [
        ("before", "Pre-event", "2024-05-01T05:00:25Z"),
        ("previous", "Post-event", "2024-05-13T05:00:25Z"),
        ("after", "Post-event", "2024-05-25T05:00:25Z"),
    ]
    whole = pystac.Collection.from_file(str(out / "collection.json"))
    assert [i.id for i in whole.get_items()] == [f"flood-{FIRST}", f"flood-{SECOND}"]
    assert {out / a.href for a in whole.assets.values()} == {out / n for n in PRODUCTS if n != "collection.json"}
    state = json.loads((out / "watch.json").read_text())
    grids = [json.loads((out / "maps" / n / "run.json").read_text())["grid"] for n in (FIRST, SECOND)]
    assert {(g["crs"], *g["shape"], *g["transform"]) for g in grids} == {
        (state["grid"]["crs"], *state["grid"]["shape"], *state["grid"]["transform"])
    }


def test_a_killed_round_goes_on_and_ends_as_one_that_was_not(
    server: Server, world: FloodWorld, moved: Item, told: Told, tmp_path: Path
) -> None:
    """Killed in the second map, of both in one round."""
    server.items.append(moved)
    asked = watched(server, world, tmp_path / "killed")
    stages: list[str] = []

    def killing(stage: str, done: int, whole: int) -> None:
        stages.append(stage)
        if stages.count("prepare") and stage == "map" and (tmp_path / "killed/maps" / FIRST / "item.json").exists():
            raise KeyboardInterrupt

    with pytest.raises(JobInterruptedError) as stopped:
        once(asked, lambda: nullcontext(killing))
    assert stopped.value.exit_code == 5
    state = json.loads((tmp_path / "killed/watch.json").read_text())
    assert {p["folder"]: p["mapped"] for p in state["passes"]} == {FIRST: True, SECOND: False}
    # The next round needs no catalog for what is known, and reads no window twice.
    server.requests.clear()
    assert once(asked).mapped == (SECOND,)
    assert not server.requests
    assert files(tmp_path / "killed") == told.files[-1]


def test_windows_that_fail_are_tried_again_in_the_next_round(
    server: Server, world: FloodWorld, gone: Item, tmp_path: Path
) -> None:  # fmt: skip
    """GDAL remembers what it read of an address: this pass is read nowhere else."""
    server.items[:] = [i for i in server.items if i["id"] != world.after] + [gone]
    server.faults.truncated[gone["id"]] = 0.5
    out = tmp_path / "out"
    said = aftermap(server, world, out)
    assert said.exit_code == 6, said.output
    assert f"windows of {THIRD} could not be read" in said.stderr
    (row,) = json.loads((out / "series.json").read_text())["acquisitions"]
    assert row["failed_windows"] > 0
    analysed = row["analysed_ha"]
    assert aftermap(server, world, out).exit_code == 6
    server.faults.truncated.clear()
    said = aftermap(server, world, out)
    assert said.exit_code == 0, said.output
    (row,) = json.loads((out / "series.json").read_text())["acquisitions"]
    assert row["failed_windows"] == 0
    assert row["analysed_ha"] > analysed
    assert row["answer"] == "nothing found"


def test_a_catalog_that_does_not_answer_is_asked_again(server: Server, world: FloodWorld, tmp_path: Path) -> None:
    server.items[:] = [i for i in server.items if i["id"] == world.before]
    asked = watched(server, world, tmp_path / "out")
    server.faults.api_down = 2
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt

    found: list[Round | JobInterruptedError] = []
    keep(asked, 3600.0, found.append, wait=wait)
    assert isinstance(found[0], JobInterruptedError)
    assert found[0].code == "catalog"
    assert [r.exit_code for r in found[1:] if isinstance(r, Round)] == [0, 0]
    assert all(3500 < seconds <= 3600 for seconds in waits)
    server.faults.api_down = 2
    said = aftermap(server, world, tmp_path / "once")
    assert said.exit_code == 5, said.output
    assert "[catalog]" in said.stderr


def test_a_pass_whose_rest_comes_late_is_mapped_anew_and_one_that_is_refused_is_tried_again(
    server: Server, world: FloodWorld, gone: Item, moved: Item, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that comes later than a newer one is not missed."""
    north = later(world, 24, lambda rows, cols: rows >= 0, slice(0, 150), slice_number=4, seconds=-25)
    server.items[:] = [i for i in server.items if i["id"] != world.after] + [north]
    tried: list[list[str]] = []

    def refuse(asked: Any, **_: Any) -> None:
        tried.append(ids(EventFile.read(asked.items).parts[0].layers["after", "radar"]))
        raise InputRefusedError("no such band", code="bands")

    monkeypatch.setattr(watch, "map_event", refuse)
    asked = watched(server, world, tmp_path / "out")
    first = once(asked)
    (folder,) = first.refused
    assert (first.mapped, first.exit_code) == ((), 3)
    server.items.append(gone)
    assert list(once(asked).refused) == [folder]
    assert tried == [[north["id"]], [north["id"], gone["id"]]]
    (told,) = json.loads((tmp_path / "out/watch.json").read_text())["passes"]
    assert (told["coverage"], told["refused"]) == (1.0, "no such band [bands]")
    server.items.append(moved)
    assert list(once(asked).refused) == [SECOND, folder]


def test_passes_that_show_too_little_are_skipped_with_the_reason(server: Server, world: FloodWorld, tmp_path: Path) -> None:
    rules = replace(RULES, least_coverage=1.0)
    server.items[:] = [i for i in server.items if i["id"] in (world.traps["partial"], world.traps["same_day"], world.before)]
    asked = watched(server, world, tmp_path / "out", rules=rules)
    asked = replace(asked, wish=replace(asked.wish, event="2024-05-12"))
    found = once(asked)
    assert (found.mapped, found.exit_code) == ((), 0)
    assert len(found.skipped) == 2
    assert all("day of the event" in why for why in found.skipped.values())
    assert not once(asked).skipped
    hourly = watched(server, world, tmp_path / "hourly", rules=rules)
    (why,) = once(hourly).skipped.values()
    assert "less than 100 %" in why


def test_a_folder_is_of_one_watch_and_one_process(server: Server, world: FloodWorld, tmp_path: Path) -> None:
    server.items[:] = [i for i in server.items if i["id"] == world.before]
    asked = watched(server, world, tmp_path / "out")
    with asked.taken(), pytest.raises(AftermapError) as busy:
        once(asked)
    assert (busy.value.code, busy.value.exit_code) == ("busy", 2)
    once(asked)
    with pytest.raises(AftermapError) as other:
        once(replace(asked, method="sar-threshold"))
    assert other.value.code == "other-run"
    assert "method differs" in other.value.what
    (tmp_path / "out/watch.json").write_text("{")
    with pytest.raises(AftermapError) as damaged:
        once(asked)
    assert damaged.value.code == "damaged"
    (tmp_path / "map").mkdir()
    (tmp_path / "map/run.json").write_text('{"key": "another"}')
    with pytest.raises(AftermapError) as held:
        once(replace(asked, out=tmp_path / "map"))
    assert held.value.code == "other-run"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--every", "6"), "usage"),
        (("--every", "0h"), "usage"),
        (("--bbox", "0,40,40,50"), "wide-area"),
        (("--hazard", "floods"), "unknown-hazard"),
        (("--event", "then"), "usage"),
        (("--catalog", "earth-search"), "no-pass"),
        (("--favour", "luck"), "unknown-operating-point"),
    ],
)
def test_wrong_use_is_refused(words: tuple[str, ...], code: str, tmp_path: Path) -> None:
    given = {"--bbox": "13,48,13.1,48.1", "--hazard": "flood", "--event": "2024-05-12", "--catalog": "https://no.where"}
    asked = [word for pair in (given | {words[0]: words[1]}).items() for word in pair]
    said = CliRunner().invoke(main, ["watch", *asked, "-o", str(tmp_path / "out"), "--once", "--json"])
    assert json.loads(said.stdout)["error"] == code, said.output
    assert said.exit_code in (2, 3)
    assert not list(tmp_path.iterdir())


def test_it_ends_well_between_rounds(server: Server, world: FloodWorld, tmp_path: Path) -> None:
    server.items[:] = [i for i in server.items if i["id"] == world.before]
    given = ["watch", "--catalog", server.url, "--bbox", ",".join(map(repr, box(world))), "--event", "2024-05-12"]
    code = f"from aftermap.cli import main; main({[*given, '--hazard', 'flood', '-o', str(tmp_path / 'out'), '--quiet']!r})"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "no new pass\n"
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 0


def test_exit_codes_say_the_worst() -> None:
    def code(refused: dict[str, str], failed: dict[str, int], *, analysed: bool) -> int:
        return Round((), {}, refused, failed, analysed, ()).exit_code

    assert code({"a": "why"}, {"b": 1}, analysed=False) == 3
    assert code({}, {"b": 1}, analysed=False) == 6
    assert code({}, {}, analysed=False) == 4
    assert code({}, {}, analysed=True) == 0
