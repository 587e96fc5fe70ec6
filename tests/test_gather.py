"""Windows of catalogs where there are many: which are wanted, what is hashed again at a start, virtual rasters in two levels."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry

from aftermap import gather, journal, meridian
from aftermap.aoi import Aoi
from aftermap.gather import Wanted, _name, _Store
from aftermap.raster import Writer
from aftermap.tiles import Window, blocks

AREAS = {
    "triangle": [[[14.1, 48.1], [15.3, 48.2], [14.4, 49.0], [14.1, 48.1]]],
    "ring": [
        [[14.1, 48.1], [15.3, 48.1], [15.3, 49.0], [14.1, 49.0], [14.1, 48.1]],
        [[14.5, 48.3], [15.0, 48.3], [15.0, 48.8], [14.5, 48.8], [14.5, 48.3]],
    ],
    "inside one cell": [[[14.50, 48.50], [14.52, 48.50], [14.52, 48.51], [14.50, 48.50]]],
    "beside": [[[24.1, 48.1], [25.3, 48.2], [24.4, 49.0], [24.1, 48.1]]],
}
PLACES = {
    "UTM": GeoBox((10_900, 9_700), Affine(10, 0, 430_000, 0, -10, 5_440_000), "EPSG:32633"),
    "degrees": GeoBox((9_000, 12_100), Affine(1e-4, 0, 14.2, 0, -1e-4, 49.0), "EPSG:4326"),
}


def wanted(grid: GeoBox) -> Wanted:
    return Wanted("dem", "dem", (), grid)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("area", AREAS)
def test_cells_are_those_that_some_of_the_area_lies_in(area: str, place: str) -> None:
    one, asked = wanted(PLACES[place]), Aoi.of_rings([AREAS[area]])
    every = blocks(one.shape, gather.CELL_PX)
    assert one.cells(asked) == [w for w in every if asked.touches(meridian.degrees(one.grid[w.slices]).json)]


def test_cells_at_the_pole_and_across_the_antimeridian() -> None:
    pole = wanted(GeoBox((8_000, 8_000), Affine(100, 0, -400_000, 0, -100, 400_000), "EPSG:3413"))
    quarter = Aoi.of_box(0, 86.5, 90, 89.9)
    every = (w for w in blocks(pole.shape, gather.CELL_PX) if quarter.touches(meridian.degrees(pole.grid[w.slices]).json))
    assert pole.cells(quarter) == list(every)
    across = wanted(GeoBox((2_000, 30_000), Affine(1e-3, 0, 165, 0, -1e-3, 1), "EPSG:4326"))
    found = across.cells(Aoi.of_box(179.5, -0.5, -179.5, 0.5))
    assert {cell.col // gather.CELL_PX for cell in found} == {14, 15}


@pytest.mark.parametrize("west", [166_000, 500_000, 790_000, 833_900])
def test_an_outline_is_cut_only_where_it_has_to_be(west: int) -> None:
    """The last one lies across the antimeridian, one zone to the east of it."""
    one = GeoBox((1024, 1024), Affine(10, 0, west, 0, -10, 40_000), "EPSG:32660")
    plain = one.extent.to_crs("EPSG:4326", resolution=512.0, wrapdateline=True)
    assert meridian.degrees(one).geom.equals_exact(plain.geom, 1e-9)
    assert meridian.degrees(one).is_multi == (west == 833_900)


def test_cells_of_a_large_area_are_asked_for_along_its_edge_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, own = Counter[str](), Aoi.meets

    def counted(self: Aoi, outline: Geometry) -> tuple[bool, bool]:
        asked["meets"] += 1
        return own(self, outline)

    monkeypatch.setattr(Aoi, "meets", counted)
    grid = GeoBox((64 * 1024, 64 * 1024), Affine(10, 0, 200_000, 0, -10, 5_600_000), "EPSG:32633")
    assert len(wanted(grid).cells(Aoi.of_box(8, 40, 22, 56))) == 64 * 64
    assert asked.total() == 1


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Store:
    """16 x 16 cells and some more of 16 px, but for two; one was empty."""
    monkeypatch.setattr(gather, "CELL_PX", 16)
    monkeypatch.setattr(gather, "SQUARE_PX", 16 * 16)
    own, one = _Store(tmp_path), wanted(GeoBox((260, 290), Affine(10, 0, 430_000, 0, -10, 5_440_000), "EPSG:32633"))
    values = np.arange(260 * 290, dtype=np.float32).reshape(1, 260, 290)
    for number, cell in enumerate(blocks(one.shape, 16)):
        if number == 3:
            continue
        line: dict[str, Any] = {"cell": _name(cell), "file": None}
        if number != 4:
            path = tmp_path / f"{_name(cell)}-x.tif"
            with Writer(path, one.grid[cell.slices], dtype="float32", descriptions=("elevation",), nodata=float("nan")) as out:
                out.write(values[(..., *cell.slices)], Window(0, 0, *cell[2:]))
            line |= {"file": path.name, "sha256": journal.sha256(path)}
        own.add(line)
    return own


@pytest.fixture
def hashed(store: _Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are hashed from now on."""
    names: list[str] = []

    def sha256(path: Path) -> str:
        names.append(path.name)
        return journal.sha256(path)

    monkeypatch.setattr(gather, "sha256", sha256)
    return names


class Ground(Wanted):
    """Of no items."""

    bands = ("elevation",)
    added = None
    tags = property(lambda _: {"AFTERMAP_ITEMS": "none"})


def test_many_cells_are_one_raster_in_two_levels(store: _Store, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Ground("dem", "dem", (), GeoBox((260, 290), Affine(10, 0, 430_000, 0, -10, 5_440_000), "EPSG:32633"))
    cells = list(blocks(one.shape, 16))
    with rasterio.open(store.raster(one, cells)) as src:
        nested, tags, name = src.read(1), src.tags(), src.descriptions
    told = (store.folder / "dem.vrt").read_text()
    assert told.count("<SimpleSource>") == 4
    monkeypatch.setattr(gather, "MOST_PIECES", 10_000)
    with rasterio.open(store.raster(one, cells)) as src:
        np.testing.assert_array_equal(src.read(1), nested)
        assert (src.tags(), src.descriptions) == (tags, name)
    assert np.isnan(nested[:16, 48:80]).all()
    assert np.isnan(nested).sum() == 2 * 16 * 16
    # What names the squares tells of every pixel.
    store.kept["0-0"] = store.kept["0-16"]
    monkeypatch.setattr(gather, "MOST_PIECES", 256)
    assert store.raster(one, cells).read_text() != told


def test_what_nobody_touched_is_not_hashed_at_each_start(store: _Store, hashed: list[str]) -> None:
    assert _Store(store.folder).kept == store.kept
    assert hashed == []
    same, other = (store.folder / f"{name}-x.tif" for name in ("0-0", "0-16"))
    os.utime(same)
    size, data = other.stat().st_size, bytearray(other.read_bytes())
    data[-1] ^= 1
    other.write_bytes(data)
    assert other.stat().st_size == size
    (store.folder / "0-32-x.tif").unlink()
    assert store.kept.keys() - _Store(store.folder).kept.keys() == {"0-16", "0-32"}
    assert hashed == [same.name, other.name]


def test_an_index_without_times_is_hashed(store: _Store, hashed: list[str]) -> None:
    index = store.folder / gather.INDEX
    lines = [json.loads(line) for line in index.read_text().splitlines()]
    index.write_text("".join(json.dumps({k: line[k] for k in ("cell", "file", "sha256") if k in line}) + "\n" for line in lines))
    assert _Store(store.folder).kept == store.kept
    assert len(hashed) == sum(line["file"] is not None for line in lines)
