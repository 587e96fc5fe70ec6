"""Products of the Copernicus archive as delivered: tiny ones, in their own folders."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio

import aftermap as am
from aftermap.errors import RasterError
from aftermap.layer import open_layer
from aftermap.scene import open_scene
from aftermap.scorer import LayerBands
from aftermap.tiles import Window
from tests.conftest import flood_pair, grid, write


def product(
    folder: Path,
    level: str,
    bands: dict[str, tuple[int, int]],
    baseline: str = "0509",
    tile: str = "T33UVP",
    east: float = 420000,
) -> Path:
    """A product of bands {name: (pixel size in m, stored number)} of 1200 x 1800 m; another `tile` is another granule of it."""
    safe = folder / f"S2A_MSI{level}_20240612T101559_N{baseline}_R065_T33UVP_20240612T150000.SAFE"
    for name, (size, value) in bands.items():
        on = grid((1200 // size, 1800 // size), gsd=size, origin=(east, 5350000))
        images = safe / "GRANULE" / f"{level[1:]}_{tile}" / "IMG_DATA"
        path = images / f"{tile}_20240612T101559_{name}.jp2"
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


def packed(folder: Path, stem: str = "") -> Path:
    """A zip of a folder, its name within as the archive's servers pack it."""
    path = folder.parent / f"{stem or folder.stem}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            out.write(file, file.relative_to(folder.parent))
    return path


def test_a_product_of_two_granules_is_a_mosaic_folded_or_packed(tmp_path: Path) -> None:
    bands = {"B03": (10, 2000), "B11": (20, 1500), "SCL": (20, 4)}
    product(tmp_path, "L2A", bands)
    safe = product(tmp_path, "L2A", {**bands, "B03": (10, 3000)}, tile="T33UWP", east=421600)
    wanted = LayerBands("after", ("green", "swir1"), "reflectance")
    folder, archive = (open_scene({"after": [p]}, hazard="flood") for p in (safe, packed(safe)))
    assert (folder.shape, len(folder.layers["after"].images)) == ((120, 340), 2)
    got = folder.read(wanted, Window(20, 0, 4, 340))
    np.testing.assert_allclose([got[0, :, :170].mean(), got[0, :, 190:].mean()], [0.1, 0.2], atol=2e-4)
    np.testing.assert_array_equal(archive.read(wanted, Window(20, 0, 4, 340)), got)
    assert archive.layers["after"].reasons == folder.layers["after"].reasons


def test_the_metadata_state_the_baseline_where_the_name_does_not(tmp_path: Path) -> None:
    safe = product(tmp_path, "L1C", {"B03": (10, 2000), "B11": (20, 1500)}).rename(tmp_path / "S2A_MSIL1C_20240612.SAFE")
    (safe / "MTD_MSIL1C.xml").write_text("<a><PROCESSING_BASELINE>05.10</PROCESSING_BASELINE></a>")
    for given in (safe, packed(safe)):
        assert open_layer("after", [given]).reasons["offset"] == "-1000: baseline 05.10"


def test_a_zip_of_geotiffs_maps_as_they_do_and_is_hashed_whole(tmp_path: Path) -> None:
    before, after, _ = flood_pair((180, 260))
    folders = {
        n: write(tmp_path / n / "s1.tif", p, grid((180, 260)), ("VV", "VH"), unit="dB") for n, p in (("b", before), ("a", after))
    }
    zips = {n: packed(path.parent) for n, path in folders.items()}
    plain = am.map(folders["a"], folders["b"], out=tmp_path / "plain")
    mapped = am.map(zips["a"], zips["b"], out=tmp_path / "zipped")
    whole = Window(0, 0, 180, 260)
    np.testing.assert_array_equal(mapped.likelihood(whole), plain.likelihood(whole))
    assert mapped.made_by["inputs"]["after"]["files"] == [
        {"name": "a.zip", "sha256": hashlib.sha256(zips["a"].read_bytes()).hexdigest(), "bytes": zips["a"].stat().st_size}
    ]


def damaged(path: Path, how: str) -> Path:
    """A zip of one GeoTIFF, spoilt; deflated but for the one whose bytes change."""
    tif = write(
        path.parent / "a.tif", np.random.default_rng(0).normal(-12, 2, (1, 64, 64)).astype(np.float32), grid((64, 64)), ("VV",)
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED if how == "changed" else zipfile.ZIP_DEFLATED) as out:
        out.write(tif, {"outside": "../a.tif"}.get(how, "notes.txt" if how == "no image" else "a.tif"))
        if how == "bomb":
            out.writestr("b.tif", "0")
            out.filelist[-1].file_size = 10**12
        for k in range(10_000 if how == "many" else 0):
            out.writestr(f"{k}.txt", "")
    data = bytearray(path.read_bytes())
    if how == "changed":
        data[2000] ^= 255
    path.write_bytes(data[: len(data) // 2] if how == "cut" else data)
    return path


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("cut", "archive-damaged"), ("changed", "archive-damaged"), ("bomb", "archive-unsafe"), ("many", "archive-unsafe"),
        ("outside", "archive-unsafe"), ("no image", "archive-empty"),
    ],
)  # fmt: skip
def test_a_zip_that_is_refused(tmp_path: Path, how: str, code: str) -> None:
    with pytest.raises(RasterError) as refused:
        open_layer("after", [damaged(tmp_path / "x.zip", how)])
    assert (refused.value.code, "x.zip" in refused.value.what, bool(refused.value.repair)) == (code, True, True)


def test_sentinel_1_measurements_are_refused_however_they_come(tmp_path: Path) -> None:
    safe = tmp_path / "S1A_IW_GRDH_1SDV_20240612T165500.SAFE"
    stored = np.full((1, 64, 64), 120, np.uint16)
    inside = write(safe / "measurement" / "s1a-iw-grd-vv-20240612t165500.tiff", stored, grid((64, 64), crs=None), ("",))
    for given in (safe, packed(safe), packed(safe, "delivery"), inside):
        with pytest.raises(RasterError, match="digital numbers") as refused:
            open_layer("after", [given])
        assert (refused.value.code, "RTC" in refused.value.repair) == ("sar-uncalibrated", True)


def test_an_empty_product_is_refused(tmp_path: Path) -> None:
    (tmp_path / "S2A_MSIL2A_20240612T101559.SAFE").mkdir()
    with pytest.raises(RasterError) as refused:
        open_layer("after", [tmp_path / "S2A_MSIL2A_20240612T101559.SAFE"])
    assert refused.value.code == "safe-empty"
