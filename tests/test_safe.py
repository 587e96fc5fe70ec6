"""Products of the Copernicus archive as delivered: tiny ones, in their own folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio

from aftermap.layer import open_layer
from aftermap.scene import open_scene
from aftermap.scorer import LayerBands
from aftermap.tiles import Window
from tests.conftest import grid


def product(folder: Path, level: str, bands: dict[str, tuple[int, int]], baseline: str = "0509") -> Path:
    """A product of bands {name: (pixel size in m, stored number)} of 1200 x 1800 m."""
    safe = folder / f"S2A_MSI{level}_20240612T101559_N{baseline}_R065_T33UVP_20240612T150000.SAFE"
    for name, (size, value) in bands.items():
        on = grid((1200 // size, 1800 // size), gsd=size)
        images = safe / "GRANULE" / f"{level[1:]}_T33UVP" / "IMG_DATA"
        path = images / f"T33UVP_20240612T101559_{name}.jp2"
        if level == "L2A":
            path = images / f"R{size}m" / f"{path.stem.split('@')[0]}_{size}m.jp2"
        path.parent.mkdir(parents=True, exist_ok=True)
        dtype = "uint8" if name == "SCL" or name == "TCI" else "uint16"
        facts = {"height": on.shape[0], "width": on.shape[1], "crs": on.crs, "transform": on.affine, "dtype": dtype}
        with rasterio.open(path, "w", driver="JP2OpenJPEG", count=1, QUALITY="100", REVERSIBLE="YES", **facts) as out:
            out.write(np.full((1, *on.shape), value, dtype) + (np.arange(on.shape[1]) % 2).astype(dtype) * (name[0] == "B"))
    return safe


def test_a_level_2a_folder_is_one_layer(tmp_path: Path) -> None:
    bands = {"B03": (10, 2000), "B03@20": (20, 2000), "B11": (20, 1500), "B01": (60, 1300), "SCL": (20, 4), "TCI": (10, 9)}
    layer = open_layer("after", [product(tmp_path, "L2A", bands)])
    assert (layer.sensor.name, sorted(layer.bands)) == ("sentinel-2-l2a", ["B1", "B11", "B3", "SCL"])
    assert layer.grid == grid((120, 180))
    assert (layer.acquired, layer.reasons["offset"]) == ("2024-06-12T10:15:59Z", "-1000: baseline 05.09")


def test_a_level_1c_folder_is_read_as_reflectance(tmp_path: Path) -> None:
    safe = product(tmp_path, "L1C", {"B03": (10, 2000), "B11": (20, 1500), "B10": (60, 1010)})
    scene = open_scene({"after": [safe]}, hazard="flood")
    assert scene.layers["after"].sensor.name == "sentinel-2-l1c"
    got = scene.read(LayerBands("after", ("green", "swir1"), "reflectance"), Window(20, 20, 4, 4))
    np.testing.assert_allclose(got.mean(axis=(1, 2)), [0.1, 0.05], atol=2e-4)


def test_an_old_baseline_has_no_offset(tmp_path: Path) -> None:
    layer = open_layer("after", [product(tmp_path, "L1C", {"B03": (10, 2000), "B11": (20, 1500)}, baseline="0301")])
    assert layer.reasons["offset"] == "none: baseline 03.01"
