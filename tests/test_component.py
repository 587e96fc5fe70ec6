"""A data set of one's own in M3LEO's layout: tiles, splits in stripes, and components cut from any rasters."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from aftermap import component, places, raster, stacfiles, tilegrid
from aftermap.cli import main
from aftermap.component import Component, Made
from aftermap.datasets.dataset import open_dataset
from aftermap.errors import AftermapError, BandError, InputRefusedError, UnknownNameError, UsageError
from aftermap.splits import by_stripe
from aftermap.tiles import Window
from tests.conftest import grid, shared, write

BOX = (8.0, 47.0, 8.2, 47.13)
PX = 32


def ran(*words: object) -> str:
    result = CliRunner().invoke(main, [str(w) for w in words])
    assert result.exit_code == 0, result.output
    return result.output


def polygon(path: Path, west: float, south: float, east: float, north: float) -> Path:
    ring = [(west, south), (east, south), (east, north), (west, north), (west, south)]
    shape = {"type": "Polygon", "coordinates": [ring]}
    path.write_text(
        json.dumps({"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}, "geometry": shape}]})
    )
    return path


def laid(tmp_path: Path) -> Path:
    return tilegrid.lay(tmp_path / "own", "here", aoi=polygon(tmp_path / "aoi.geojson", *BOX))


def levels(path: Path, *, nodata: float = float("nan"), dtype: str = "float32", east: bool = True) -> Path:
    """A raster in UTM over the south-west of the box, the number of its column in it, every tenth row not observed."""
    values = np.tile(np.arange(1000), (1, 800, 1)).astype(dtype)
    values[:, ::10] = nodata
    on = grid((800, 1000), crs="EPSG:32632", origin=(423_000 + (0 if east else -5000), 5_213_000))
    return write(path, values[:, :, :] % 200 if dtype == "uint8" else values, on, ("column",), nodata=nodata, unit="metres")


def test_a_degree_on_the_ellipsoid() -> None:
    """110,574 m and 111,320 m at the equator, 111,132 and 78,847 m at 45 degrees north (any table of WGS84)."""
    assert tilegrid.metres_per_degree(0) == pytest.approx((111_319.5, 110_574.3), abs=0.5)
    assert tilegrid.metres_per_degree(45) == pytest.approx((78_846.8, 111_131.7), abs=0.5)


def test_tiles_are_whole_squares_that_touch_and_never_overlap() -> None:
    found = list(tilegrid.tiles(*BOX))
    assert len(found) == 3 * 3  # 15.2 km by 14.5 km
    assert len({tile.name for tile in found}) == len(found)
    assert all(len(tile.name) == 13 for tile in found)
    for tile in found:
        across, up = tilegrid.metres_per_degree((tile.south + tile.north) / 2)
        assert (tile.east - tile.west) * across == pytest.approx(4480, abs=0.2)
        assert (tile.north - tile.south) * up == pytest.approx(4480, abs=0.5)
    assert found[0].east == found[1].west
    assert found[0].north == found[3].south
    assert found[0].grid().shape == (tilegrid.SIDE_PX, tilegrid.SIDE_PX)


@pytest.mark.parametrize("angle", [0.0, 30.0, 45.0, 90.0])
def test_stripes_are_whole_and_shared_out(angle: float) -> None:
    x, y = np.meshgrid(np.arange(90.0), np.arange(70.0))
    xy = np.stack([x.ravel(), y.ravel()], axis=1) * 4480
    sides = by_stripe(xy, np.random.default_rng(1), stripes=60, angle_deg=angle)
    across = -xy[:, 0] * np.sin(np.radians(angle)) + xy[:, 1] * np.cos(np.radians(angle))
    stripe = np.minimum(((across - across.min()) / np.ptp(across) * 60).astype(int), 59)
    of = [{side for side, own in zip(sides, stripe, strict=True) if own == k} for k in range(60)]
    assert all(len(one) == 1 for one in of), "a stripe is on one side"
    assert [sum(one == {side} for one in of) for side in ("train", "validation", "test")] == [36, 12, 12]
    assert sides == by_stripe(xy, np.random.default_rng(1), stripes=60, angle_deg=angle)


def test_the_layout_is_m3leos(tmp_path: Path) -> None:
    folder = laid(tmp_path)
    assert folder.name.startswith("here_partitions_aschips_")
    names = [tile.name for tile in tilegrid.read(folder)]
    (splits,) = (tmp_path / "own").glob("*.csv")
    assert splits.name == f"{folder.name}_splits_60bands_angle45_60-20-20.csv"
    rows = list(csv.DictReader(splits.read_text().splitlines()))
    assert [row["identifier"] for row in rows] == names
    assert {row["split"] for row in rows} <= {"train", "val", "test"}
    before = splits.read_bytes()
    assert laid(tmp_path) == folder
    assert splits.read_bytes() == before
    with pytest.raises(UsageError, match="other tiles of here"):
        tilegrid.lay(tmp_path / "own", "here", aoi=polygon(tmp_path / "more.geojson", 8, 47, 8.3, 47.2))
    with pytest.raises(InputRefusedError, match="larger area") as small:
        tilegrid.lay(tmp_path / "own", "there", aoi=polygon(tmp_path / "less.geojson", 8, 47, 8.01, 47.01))
    assert small.value.code == "no-tiles"
    with pytest.raises(UsageError, match="neither"):
        tilegrid.lay(tmp_path / "own", "there")


def test_a_component_is_cut_resumed_and_read(tmp_path: Path) -> None:
    folder, file = laid(tmp_path), levels(tmp_path / "levels.tif")
    what = Component("column", (file,), "bilinear", PX)
    made = component.make(folder, what)
    assert made == Made(written=9 - made.uncovered, kept=0, uncovered=made.uncovered)
    assert 0 < made.uncovered < 9
    tile = next(t for t in tilegrid.read(folder) if (folder / "column" / f"{t.name}.tif").exists())
    chip = open_dataset(folder, "m3leo", parts="column", truth="column").read(tile.name)
    assert (chip.bands, chip.unit, chip.shape) == (("column.column",), "metres", (PX, PX))
    assert (~chip.valid).any()
    middle = chip.pixels[0, PX // 2]
    assert np.nanmedian(np.diff(middle)) == pytest.approx(4480 / PX / 10, rel=0.02), "a column is 10 m"
    first = sorted((folder / "column").glob("*.tif"))[0]
    stamp = first.stat().st_mtime_ns
    (folder / "column" / f"{tile.name}.tif").rename(tmp_path / "gone.tif")
    again = component.make(folder, what)
    assert again == Made(1, made.written - 1, made.uncovered)
    assert (folder / "column" / f"{tile.name}.tif").read_bytes() == (tmp_path / "gone.tif").read_bytes()
    assert first.name == f"{tile.name}.tif" or first.stat().st_mtime_ns == stamp
    with pytest.raises(UsageError, match="other rasters or settings"):
        component.make(folder, Component("column", (file,), "average", PX))
    assert not list(folder.rglob("*.partial"))
    more = component.make(folder, Component("more", (file, levels(tmp_path / "west.tif", east=False)), "average", PX))
    assert more.written >= made.written
    wide = raster.read_window(folder / "more" / f"{tile.name}.tif", Window(0, 0, PX, PX))
    assert np.isfinite(wide).sum() >= chip.valid.sum(), "neighbours are one image"


def test_classes_keep_their_type_and_what_none_saw_stays_no_data(tmp_path: Path) -> None:
    folder = laid(tmp_path)
    files = (
        levels(tmp_path / "a.tif", nodata=255, dtype="uint8"),
        levels(tmp_path / "b.tif", nodata=255, dtype="uint8", east=False),
    )
    component.make(folder, Component("class", files, "nearest", PX))
    alone = component.make(folder, Component("alone", files[:1], "nearest", PX))
    lacking = 0
    for path in sorted((folder / "alone").glob("*.tif")):
        facts = raster.facts(path)
        assert (facts.dtype, facts.nodata) == ("uint8", (255.0,))
        one, both = (raster.read_window(p, Window(0, 0, PX, PX), (1,))[0] for p in (path, folder / "class" / path.name))
        assert (both[one != 255] == one[one != 255]).all(), "the first counts"
        lacking += int((one == 255).sum())
    assert lacking > 0
    assert alone.written <= len(list((folder / "class").glob("*.tif")))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    folder, file = laid(tmp_path), levels(tmp_path / "a.tif")
    other = levels(tmp_path / "b.tif", nodata=255, dtype="uint8")
    placeless = write(tmp_path / "c.tif", np.zeros((1, 4, 4), np.float32), grid((4, 4), crs=None), ("x",))
    for rasters, options, kind in (
        ((file, other), {}, BandError), ((file,), {"bands": ("a", "b")}, UsageError), ((placeless,), {}, InputRefusedError),
        ((file,), {"unit": "metre"}, UnknownNameError), ((), {}, UsageError),
    ):  # fmt: skip
        with pytest.raises(kind):
            component.make(folder, Component("bad", rasters, "bilinear", PX, **options))
    with pytest.raises(InputRefusedError, match="data tiles"):
        component.make(tmp_path, Component("bad", (file,), "bilinear", PX))
    (tmp_path / "cut.tif").write_bytes(file.read_bytes()[:2000])
    result = CliRunner().invoke(main, ["data", "component", "bad", "--to", str(folder), "--from", str(tmp_path / "cut.tif"),
                                       "--resampling", "bilinear", "--quiet"])  # fmt: skip
    assert result.exit_code == InputRefusedError.exit_code
    assert not (folder / "bad").exists()


def item(path: Path, name: str, when: str, href: str) -> Path:
    said: dict[str, Any] = {"type": "Feature", "stac_version": "1.0.0", "id": name, "geometry": None, "links": []}
    said |= {"properties": {"datetime": when}, "assets": {"data": {"href": href}}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(said))
    return path


def test_assets_of_items_that_lie_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(places.FOLDERS, str(tmp_path.parent))
    old = item(tmp_path / "items/a/a.json", "a", "2020-01-01T00:00:00Z", "../../a.tif")
    new = item(tmp_path / "items/b/b.json", "b", "2021-01-01T00:00:00Z", (tmp_path / "b.tif").as_uri())
    found = stacfiles.rasters(tmp_path / "items", "data")
    assert [path.resolve() for path in found] == [tmp_path / "b.tif", tmp_path / "a.tif"]
    whole = tmp_path / "items/all.json"
    whole.write_text(json.dumps({"type": "FeatureCollection", "features": [json.loads(p.read_text()) for p in (old, new)]}))
    assert stacfiles.rasters(whole, "data")[0] == tmp_path / "b.tif"
    with pytest.raises(UnknownNameError):
        stacfiles.rasters(old, "visual")
    item(old, "a", "2020-01-01T00:00:00Z", "https://example.org/a.tif")
    with pytest.raises(AftermapError, match="not on this machine") as far:
        stacfiles.rasters(old, "data")
    assert far.value.code == "stac-remote"
    (tmp_path / "none").mkdir()
    with pytest.raises(InputRefusedError, match="no STAC item") as none:
        stacfiles.rasters(tmp_path / "none", "data")
    assert none.value.code == "no-items"


def test_the_command_makes_a_data_set_of_real_rasters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An elevation model through a STAC item on tiles of its own extent; a Sentinel-1 scene of elsewhere sees none of them."""
    dem = shared("dem") / "rome_30m_dem.tif"
    monkeypatch.setenv(places.FOLDERS, str(dem.parent))
    ran("data", "tiles", "rome", "--like", dem, "-o", tmp_path, "--angle", 30)
    (folder,) = (p for p in tmp_path.iterdir() if p.is_dir())
    item(tmp_path / "items/one.json", "one", "2020-01-01T00:00:00Z", str(dem))
    made = ["data", "component", "height", "--to", folder, "--resampling", "average", "--px", 64, "--unit", "metres", "--quiet"]
    said = ran(*made, "--stac", tmp_path / "items", "--asset", "data")
    found = open_dataset(folder, "m3leo", parts="height", truth="height")
    assert len(found.ids()) == len(tilegrid.read(folder)) > 0
    assert said.startswith(f"{len(found.ids())} tiles written, 0 kept, 0 that no raster saw")
    assert set(found.splits) <= {"train", "val", "test"}
    heights = np.concatenate([chip.pixels[0, chip.valid] for chip in found.chips(found.ids()[:20])])
    assert -50 < heights.min() < heights.max() < 2500
    radar = next(shared("scenes_sentinel").glob("S1A_*"))
    words = ["data", "component", "radar", "--to", str(folder), "--from", str(radar), "--resampling", "average", "--quiet"]
    nowhere = CliRunner().invoke(main, words)
    assert (nowhere.exit_code, nowhere.output) == (4, f"0 tiles written, 0 kept, {len(found.ids())} that no raster saw\n")


def test_real_radar_and_labels_become_a_data_set(tmp_path: Path) -> None:
    """A chip of Sen1Floods11: its tile has the chip's backscatter in dB, and the share of water that was mapped by hand."""
    data = shared("flood_sen1floods11")
    radar, labels = data / "S1Hand" / "Nigeria_812045_S1Hand.tif", data / "LabelHand" / "Nigeria_812045_LabelHand.tif"
    folder = tilegrid.lay(tmp_path, "nigeria", like=[radar])
    (tile,) = tilegrid.read(folder)
    for name, file, way in (("radar", radar, "bilinear"), ("water", labels, "nearest")):
        assert component.make(folder, Component(name, (file,), way, unit="dB" if name == "radar" else "")) == Made(1, 0, 0)
    chip = open_dataset(folder, "m3leo", parts="radar", truth="water", classes="land,water").read(tile.name)
    assert (chip.shape, chip.unit) == ((448, 448), "dB")
    facts = raster.facts(radar)
    corner = ~facts.grid.affine @ (tile.west, tile.north), ~facts.grid.affine @ (tile.east, tile.south)
    (left, top), (right, bottom) = (np.rint(one).astype(int) for one in corner)
    window = Window(top, left, bottom - top, right - left)
    stored, water = raster.read_window(radar, window, (1, 2)), raster.read_window(labels, window, (1,))[0]
    np.testing.assert_allclose(chip.pixels[:, chip.valid].mean(axis=1), np.nanmean(stored, axis=(1, 2)), atol=0.2)
    assert chip.truth is not None
    assert (chip.truth[chip.labelled] == 1).mean() == pytest.approx((water[water >= 0] == 1).mean(), abs=0.01)
