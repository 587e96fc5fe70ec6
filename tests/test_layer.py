"""What files say of their bands, sensor, unit, nodata and date; what is not said is refused, never guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from aftermap.errors import BandError, RasterError, UnknownNameError, UsageError
from aftermap.layer import Declared, Layer, open_layer
from aftermap.scene import open_scene
from aftermap.scorer import LayerBands
from aftermap.sensors import SAR_UNITS, SENSORS, canonical, convert, sensor
from aftermap.tiles import Window
from tests.conftest import grid, write

SHAPE = (70, 90)


def db(bands: int = 2, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(-12, 3, (bands, *SHAPE)).astype(np.float32)


def layer(
    path: Path, pixels: npt.NDArray[Any], bands: tuple[str, ...], declared: Declared | None = None, **options: Any
) -> Layer:
    return open_layer("after", [write(path, pixels, grid(SHAPE), bands, **options)], declared)


def test_known_sensors_are_whole() -> None:
    assert {s.name for s in SENSORS.values()} == set(SENSORS)
    s2 = sensor("sentinel-2-l1c")
    assert " ".join(b.name for b in s2.bands) == "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12"
    commons = {common: band.name for common in ("green", "nir", "swir1", "swir2") if (band := s2.band(common))}
    assert commons == {"green": "B03", "nir": "B08", "swir1": "B11", "swir2": "B12"}
    landsat = sensor("landsat-8-9").band("swir1")
    assert landsat is not None
    assert landsat.name == "B6"
    assert canonical("b04") == canonical("B4") == "B4"
    assert canonical("B8A") == "B8A"


def test_an_unknown_sensor_names_the_near_miss() -> None:
    with pytest.raises(UnknownNameError, match="sentinel-1"):
        sensor("sentinel1")


@given(st.floats(-45, 20), st.sampled_from(SAR_UNITS), st.sampled_from(SAR_UNITS))
def test_units_convert_there_and_back(value: float, given_unit: str, wanted: str) -> None:
    start = convert(np.array([value], np.float32), "dB", given_unit)
    back = convert(convert(start, given_unit, wanted), wanted, "dB")
    assert back[0] == pytest.approx(value, abs=1e-3)


def test_units_by_hand() -> None:
    np.testing.assert_allclose(convert(np.array([0.1, np.nan, 0], np.float32), "power", "dB"), [-10, np.nan, -100], rtol=1e-6)
    np.testing.assert_allclose(convert(np.array([0.1], np.float32), "amplitude", "dB"), [-20], rtol=1e-6)
    with pytest.raises(BandError, match="reflectance"):
        convert(np.array([0.1], np.float32), "reflectance", "dB")


def test_bands_and_unit_from_descriptions_and_tags(tmp_path: Path) -> None:
    found = layer(tmp_path / "a.tif", db(), ("VV", "VH"), unit="dB")
    assert (found.sensor.name, found.bands, found.unit) == ("sentinel-1", ("VV", "VH"), "dB")
    assert found.reasons["bands"] == "descriptions"


def test_bands_unit_and_date_from_the_file_name(tmp_path: Path) -> None:
    found = layer(tmp_path / "S1A__IW___A_20150309T173017_VV_grd_mli_geo_norm_db.tif", db(1), ("",))
    assert (found.bands, found.unit, found.acquired) == (("VV",), "dB", "2015-03-09T17:30:17Z")
    assert found.reasons["unit"] == "file name"


def test_an_ambiguous_sensor_must_be_declared(tmp_path: Path) -> None:
    pixels = np.full((4, *SHAPE), 900, np.uint16) + np.arange(4, dtype=np.uint16)[:, None, None]
    names = ("B2", "B3", "B4", "B5")
    with pytest.raises(BandError, match="--sensor") as refused:
        layer(tmp_path / "a.tif", pixels, names)
    assert refused.value.code == "sensor-ambiguous"
    found = layer(tmp_path / "b.tif", pixels, names, Declared(sensor="landsat-8-9"))
    assert found.index("nir") == 3


def test_declared_bands_must_match_the_count(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="3 bands are declared"):
        layer(tmp_path / "a.tif", db(), ("", ""), Declared(bands=("VV", "VH", "HH")))


def test_power_is_recognised_and_said(tmp_path: Path) -> None:
    found = layer(tmp_path / "a.tif", convert(db(), "dB", "power"), ("VV", "VH"))
    assert found.unit == "power"
    assert found.reasons["unit"].startswith("assumed")


@pytest.mark.parametrize(("value", "dtype"), [(0.0, "float32"), (-9999.0, "float32")])
def test_an_undeclared_collar_is_not_observed(tmp_path: Path, value: float, dtype: str) -> None:
    pixels = db().astype(dtype)
    pixels[:, :, :20] = value
    found = layer(tmp_path / "a.tif", pixels, ("VV", "VH"), unit="dB")
    assert {s.nodata for s in found.sources} == {value}
    assert "not observed" in found.reasons["nodata"]


def read_all(path: Path, declared: Declared | None = None, on: Path | None = None) -> npt.NDArray[np.float32]:
    files = {"after": [on or path]} | ({"before": [path]} if on else {})
    scene = open_scene(files, hazard="flood", declared=dict.fromkeys(files, declared) if declared else None)
    layer = scene.layers["before" if on else "after"]
    return scene.read(LayerBands(layer.name, layer.bands, "digital_number"), Window(0, 0, *scene.shape))


def test_nodata_goes_by_band(tmp_path: Path) -> None:
    pixels = db()
    pixels[1, :, :20] = -9999
    path = write(tmp_path / "a.tif", pixels, grid(SHAPE), ("VV", "VH"), unit="dB")
    assert [s.nodata for s in layer(tmp_path / "b.tif", pixels, ("VV", "VH"), unit="dB").sources] == [None, -9999]
    got = read_all(path)
    assert np.isnan(got[1, :, :20]).all()
    assert np.isfinite(got[0]).all()
    fine = write(tmp_path / "fine.tif", db(seed=3), grid(SHAPE, origin=(420003, 5349996)), ("VV", "VH"), unit="dB")
    warped = read_all(path, on=fine)
    assert np.isnan(warped[1, 5:60, :19]).all()
    assert np.nanmin(warped[1]) > -60
    assert np.isfinite(warped[0, 5:60, 5:80]).all()


@pytest.mark.parametrize("kind", ["mask", "alpha"])
@pytest.mark.parametrize("warped", [False, True])
def test_masks_say_what_was_observed(tmp_path: Path, kind: str, warped: bool) -> None:
    pixels = np.random.default_rng(0).integers(200, 3000, (3, *SHAPE)).astype(np.uint16)
    seen = np.ones(SHAPE, bool)
    seen[:, 50:] = False
    path, bands = tmp_path / "a.tif", ("B03", "B08", "B11")
    facts = {"driver": "GTiff", "height": SHAPE[0], "width": SHAPE[1], "crs": "EPSG:32633", "transform": grid(SHAPE).affine}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        count = 4 if kind == "alpha" else 3
        with rasterio.open(path, "w", dtype="uint16", count=count, **facts) as dst:
            for k in range(3):
                dst.write(pixels[k], k + 1)
                dst.set_band_description(k + 1, bands[k])
            if kind == "alpha":
                dst.colorinterp = [*[rasterio.enums.ColorInterp.undefined] * 3, rasterio.enums.ColorInterp.alpha]
                dst.write(np.where(seen, 65535, 0).astype(np.uint16), 4)
            else:
                dst.write_mask(seen)
    other = grid(SHAPE, origin=(420000 - 50, 5350000 + 30)) if warped else grid(SHAPE)
    after = write(tmp_path / "b.tif", pixels, other, bands)
    got = read_all(path, Declared(sensor="sentinel-2-l2a"), on=after)
    expected = np.zeros(SHAPE, bool)
    expected[:, :50] = True
    if warped:
        expected = np.zeros(SHAPE, bool)
        expected[3:, 5:55] = True
    np.testing.assert_array_equal(np.isfinite(got).all(axis=0), expected)


def test_infrared_marked_as_alpha_is_a_band_when_declared(tmp_path: Path) -> None:
    """GDAL marks the fourth of four 8-bit bands as alpha by default."""
    pixels = np.random.default_rng(0).integers(1, 250, (4, *SHAPE)).astype(np.uint8)
    path = tmp_path / "a.tif"
    facts = {"driver": "GTiff", "height": SHAPE[0], "width": SHAPE[1], "crs": "EPSG:32633", "transform": grid(SHAPE).affine}
    with rasterio.open(path, "w", dtype="uint8", count=4, photometric="rgb", alpha="yes", **facts) as dst:
        dst.write(pixels)
    with rasterio.open(path) as src:
        assert src.colorinterp[3] == rasterio.enums.ColorInterp.alpha
    found = open_layer("after", [path], Declared(bands=("red", "green", "blue", "nir")))
    assert [s.index for s in found.sources] == [1, 2, 3, 4]
    got = read_all(path, Declared(bands=("red", "green", "blue", "nir")))
    np.testing.assert_array_equal(got, pixels)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("compress", [None, "deflate"])
def test_a_cut_file_is_truncated(tmp_path: Path, share: float, compress: str | None) -> None:
    path = tmp_path / "a.tif"
    facts = {"driver": "GTiff", "height": SHAPE[0], "width": SHAPE[1], "crs": "EPSG:32633", "transform": grid(SHAPE).affine}
    with rasterio.open(path, "w", dtype="float32", count=2, compress=compress, **facts) as dst:
        dst.write(db())
        dst.descriptions = ("VV", "VH")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(RasterError) as refused:
        open_layer("after", [path])
    assert refused.value.code in ("truncated", "unreadable")


def test_dark_pixels_inside_are_no_collar(tmp_path: Path) -> None:
    pixels = db()
    pixels[:, 30:60, 30:60] = 0
    assert "nodata" not in layer(tmp_path / "a.tif", pixels, ("VV", "VH"), unit="dB").reasons


@pytest.mark.parametrize(
    ("darkest", "baseline", "offset"), [(1100, "05.09", -0.1), (300, "05.09", 0.0), (1100, "02.14", 0.0), (1100, "", 0.0)]
)
def test_the_sentinel_2_offset_goes_by_facts(tmp_path: Path, darkest: int, baseline: str, offset: float) -> None:
    pixels = np.random.default_rng(0).integers(darkest, darkest + 3000, (2, *SHAPE)).astype(np.uint16)
    tags = {"PROCESSING_BASELINE": baseline} if baseline else {}
    found = layer(tmp_path / "a.tif", pixels, ("B03", "B11"), Declared(sensor="sentinel-2-l2a"), tags=tags)
    assert {s.offset for s in found.sources} == {offset}
    assert found.reasons["offset"].startswith({-0.1: "-1000"}.get(offset, "unknown" if not baseline else "none"))


def test_reflectance_is_scaled_on_reading(tmp_path: Path) -> None:
    pixels = np.full((2, *SHAPE), 2500, np.uint16)
    pixels[1] = 400
    path = write(tmp_path / "a.tif", pixels, grid(SHAPE), ("B03", "B11"))
    scene = open_scene({"after": [path]}, hazard="flood", declared={"after": Declared(sensor="sentinel-2-l2a")})
    got = scene.read(LayerBands("after", ("swir1", "green"), "reflectance"), Window(3, 4, 2, 2))
    np.testing.assert_allclose(got[:, 0, 0], [0.04, 0.25], rtol=1e-6)


def test_one_band_per_file_on_grids_of_their_own(tmp_path: Path) -> None:
    fine, coarse = grid((60, 80)), grid((30, 40), gsd=20)
    green = write(tmp_path / "T32TPS_20220612T101559_B03_10m.tif", np.full((1, 60, 80), 1200, np.uint16), fine, ("",))
    swir = write(tmp_path / "T32TPS_20220612T101559_B11_20m.tif", np.full((1, 30, 40), 500, np.uint16), coarse, ("",))
    scene = open_scene({"after": [swir, green]}, hazard="flood")
    assert scene.shape == (60, 80)
    assert scene.layers["after"].sensor.name == "sentinel-2-l2a"
    got = scene.read(LayerBands("after", ("green", "swir1"), "reflectance"), Window(10, 10, 5, 5))
    np.testing.assert_allclose(got[:, 2, 2], [0.12, 0.05], rtol=1e-5)
    assert scene.resampling("after") == "bilinear, none"
