"""Images of one date side by side are one layer; images that are no mosaic are refused with the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import aftermap as am
from aftermap.layer import Declared
from aftermap.scene import Scene, open_scene
from aftermap.scorer import LayerBands
from aftermap.tiles import Window
from tests.conftest import flood_pair, grid, write

SHAPE = (180, 260)
CUTS = (slice(0, 150), slice(130, 260))
"""Columns of two neighbours that overlap by 20 px."""


def cut(folder: Path, pixels: np.ndarray, stem: str, bands: tuple[str, ...] = ("VV", "VH"), unit: str = "dB") -> list[Path]:
    return [
        write(
            folder / f"{stem}_{k}_20240501.tif", np.ascontiguousarray(pixels[:, :, c]),
            grid((SHAPE[0], c.stop - c.start), origin=(420000 + 10 * c.start, 5350000)), bands, unit=unit,
        )
        for k, c in enumerate(CUTS)
    ]  # fmt: skip


def read(scene: Scene, bands: tuple[str, ...] = ("VV", "VH"), unit: str = "dB") -> np.ndarray:
    return scene.read(LayerBands("after", bands, unit), Window(0, 0, *scene.shape))


def test_two_neighbours_map_as_their_whole(tmp_path: Path) -> None:
    before, after, _ = flood_pair(SHAPE)
    wholes = [
        write(tmp_path / f"{n}_20240501.tif", p, grid(SHAPE), ("VV", "VH"), unit="dB") for n, p in (("b", before), ("a", after))
    ]
    one = am.map(wholes[1], wholes[0], out=tmp_path / "one")
    mapped = am.map(cut(tmp_path, after, "a"), cut(tmp_path, before, "b"), out=tmp_path / "two")
    assert mapped.grid == one.grid
    np.testing.assert_array_equal(mapped.extent(Window(0, 0, *SHAPE)), one.extent(Window(0, 0, *SHAPE)))
    assert any("the one given first wins" in said for said in mapped.made_by["assumptions"])
    assert len(mapped.made_by["inputs"]["after"]["files"]) == 2


def test_the_first_wins_and_the_next_fills(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).normal(-12, 2, (2, *SHAPE)).astype(np.float32)
    first, second = cut(tmp_path, pixels, "a")
    moved = cut(tmp_path / "moved", pixels - 5, "a")[1]
    holed = pixels.copy()
    holed[:, 20:40, 135:140] = np.nan
    got = read(open_scene({"after": [first, moved]}, hazard="flood"))
    np.testing.assert_array_equal(got, np.where(np.arange(SHAPE[1]) < 150, pixels, pixels - 5))
    filled = open_scene({"after": [cut(tmp_path / "holed", holed, "a")[0], second]}, hazard="flood")
    np.testing.assert_array_equal(read(filled), pixels)


def test_the_grid_reaches_left_of_and_above_the_first(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).normal(-12, 2, (2, *SHAPE)).astype(np.float32)
    scene = open_scene({"after": cut(tmp_path, pixels, "a")[::-1]}, hazard="flood")
    assert scene.grid == grid(SHAPE)
    np.testing.assert_array_equal(read(scene), pixels)


def test_files_of_one_band_find_their_image(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).normal([[[-9]], [[-16]]], 1, (2, *SHAPE)).astype(np.float32)
    vv, vh = (cut(tmp_path, pixels[k : k + 1], b, ("",)) for k, b in enumerate(("VV", "VH")))
    scene = open_scene({"after": [vv[0], vv[1], vh[1], vh[0]]}, hazard="flood")
    assert [p.name[:4] for p in scene.layers["after"].paths] == ["VV_0", "VH_0", "VV_1", "VH_1"]
    np.testing.assert_array_equal(read(scene), pixels)


def test_declared_bands_are_those_of_each_image(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).normal(-12, 2, (2, *SHAPE)).astype(np.float32)
    declared = {"after": Declared(bands=("VH", "VV"))}
    scene = open_scene({"after": cut(tmp_path, pixels, "a", ("", ""))}, hazard="flood", declared=declared)
    np.testing.assert_array_equal(read(scene), pixels[::-1])


def test_tiles_of_an_elevation_model_and_of_another_zone(tmp_path: Path) -> None:
    _, after, _ = flood_pair(SHAPE)
    heights = np.random.default_rng(0).uniform(100, 200, (1, *SHAPE)).astype(np.float32)
    image = write(tmp_path / "after.tif", after, grid(SHAPE), ("VV", "VH"), unit="dB")
    scene = open_scene({"after": [image], "dem": cut(tmp_path, heights, "dem", ("",), unit="m")}, hazard="flood")
    got = scene.read(LayerBands("dem", ("elevation",), "metres"), Window(0, 0, *SHAPE))
    np.testing.assert_array_equal(got, heights)
    flat = np.full((2, 60, 80), -12, np.float32)
    east = write(tmp_path / "east.tif", flat, grid((60, 80), origin=(795000, 5350000)), ("VV", "VH"), unit="dB")
    other = grid((60, 80), crs="EPSG:32634", origin=(350300, 5344300))
    zone = write(tmp_path / "zone.tif", flat - 1, other, ("VV", "VH"), unit="dB")
    both = open_scene({"after": [east, zone]}, hazard="flood")
    assert both.grid.crs == "EPSG:32633"
    got = read(both)
    np.testing.assert_array_equal(np.isfinite(got[0]).sum() > 60 * 80 * 1.5, True)
    assert set(np.unique(got[np.isfinite(got)]).tolist()) == {-12.0, -13.0}
