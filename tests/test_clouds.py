"""Cloud by the class bands of three product families, read as they should be, and a spectral test that only warns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import aftermap as am
from aftermap import check, clouds, raster
from aftermap.layer import Declared, open_layer
from aftermap.scene import Scene, open_scene
from aftermap.scorer import LayerBands
from aftermap.tiles import Window
from tests.conftest import grid, shared, write

SHAPE = (60, 80)
WHOLE = Window(0, 0, *SHAPE)
U16 = npt.NDArray[np.uint16]


def image(path: Path, codes: npt.NDArray[Any] | None, name: str = "SCL") -> Path:
    """Green, NIR and SWIR1 as Sentinel-2 stores them, with the class band where codes (y, x) are given."""
    ground = np.random.default_rng(0).integers(300, 2500, (3, *SHAPE)).astype(np.uint16)
    pixels = ground if codes is None else np.concatenate([ground, codes[None].astype(np.uint16)])
    return write(path, pixels, grid(SHAPE), ("B03", "B08", "B11", name)[: len(pixels)])


def clouded(path: Path, codes: npt.NDArray[Any], **options: Any) -> Scene:
    return open_scene({"after": [image(path, codes)]}, hazard="flood", **options)


@pytest.mark.parametrize(
    ("band", "code", "hidden", "fill"),
    [
        ("SCL", 0, False, True), ("SCL", 1, False, True), ("SCL", 2, False, False), ("SCL", 3, True, False),
        ("SCL", 4, False, False), ("SCL", 6, False, False), ("SCL", 8, True, False), ("SCL", 9, True, False),
        ("SCL", 10, True, False), ("SCL", 11, False, False), ("SCL", np.nan, False, True),
        # Landsat Collection 2 level 2 values, from the USGS product guide
        ("QA_PIXEL", 1, False, True), ("QA_PIXEL", 21824, False, False), ("QA_PIXEL", 21952, False, False),
        ("QA_PIXEL", 22280, True, False), ("QA_PIXEL", 23888, True, False), ("QA_PIXEL", 54596, True, False),
        ("QA_PIXEL", 21826, True, False), ("QA_PIXEL", 30048, False, False), ("QA_PIXEL", np.nan, False, True),
        ("Fmask", 0, False, False), ("Fmask", 0b10, True, False), ("Fmask", 0b100, True, False), ("Fmask", 0b1000, True, False),
        ("Fmask", 0b10000, False, False), ("Fmask", 0b11100000, False, False), ("Fmask", 255, False, True),
        ("Fmask", np.nan, False, False),
    ],
)  # fmt: skip
def test_codes_mean_what_the_products_say(band: str, code: float, hidden: bool, fill: bool) -> None:
    codes = np.full((1, 1), code, np.float32)
    assert clouds.hidden(codes, band)[0, 0] == hidden
    assert clouds.fill(codes, band)[0, 0] == fill


def test_the_ground_under_cloud_is_not_observed_and_the_codes_are(tmp_path: Path) -> None:
    codes = np.full(SHAPE, 4)
    codes[10:20, 30:50], codes[40:, :5] = 9, 1
    scene = clouded(tmp_path / "S2A_MSIL2A_x.tif", codes)
    pixels = scene.read(LayerBands("after", ("green", "SCL", "nir"), "digital_number"), WHOLE)
    np.testing.assert_array_equal(np.isnan(pixels[0]), codes != 4)
    np.testing.assert_array_equal(np.isnan(pixels[2]), codes != 4)
    np.testing.assert_array_equal(pixels[1], codes)
    np.testing.assert_array_equal(scene.clouded("after", WHOLE), codes == 9)
    part = Window(5, 25, 20, 30)
    read = scene.read(LayerBands("after", ("green",), "reflectance"), part)
    np.testing.assert_array_equal(read[0], pixels[0][part.slices])


def test_codes_on_another_grid_are_never_mixed(tmp_path: Path) -> None:
    """Warped from 20 m, half a pixel off: interpolated, 4 beside 9 would become cloud shadow, cloud and water."""
    codes = np.where(np.add.outer(np.arange(60), np.arange(80)) % 7 < 3, 9, 4)
    after = image(tmp_path / "S2A_MSIL2A_after.tif", None)
    shifted = grid(SHAPE, gsd=20.0, origin=(420000 - 13, 5350000 + 17))
    pixels = np.concatenate([np.random.default_rng(1).integers(300, 2500, (3, *SHAPE)), codes[None]]).astype(np.uint16)
    before = write(tmp_path / "S2A_MSIL2A_before.tif", pixels, shifted, ("B03", "B08", "B11", "SCL"))
    scene = open_scene({"after": [after], "before": [before]}, hazard="flood")
    assert scene.resampling("before") == "bilinear, nearest"
    read = scene.read(LayerBands("before", ("SCL",), "digital_number"), WHOLE)[0]
    assert set(np.unique(read)) == {4.0, 9.0}
    hidden = scene.clouded("before", WHOLE)
    assert hidden is not None
    assert 0.2 < hidden.mean() < 0.7


@pytest.mark.parametrize(
    ("stem", "names", "band"),
    [
        ("LC09_L2SP_x", ("SR_B3", "SR_B5", "SR_B6", "QA_PIXEL"), "QA_PIXEL"),
        ("HLS.S30.T33UWP", ("B03", "B08", "B11", "Fmask"), "Fmask"),
    ],
)
def test_class_bands_are_known_by_their_names(tmp_path: Path, stem: str, names: tuple[str, ...], band: str) -> None:
    pixels = np.random.default_rng(0).integers(8000, 12000, (4, *SHAPE)).astype(np.uint16)
    pixels[3] = 21824 if band == "QA_PIXEL" else 0
    pixels[3, :30] = 22280 if band == "QA_PIXEL" else 2
    scene = open_scene({"after": [write(tmp_path / f"{stem}.tif", pixels, grid(SHAPE), names)]}, hazard="flood")
    assert clouds.class_band(scene.layers["after"]) == band
    np.testing.assert_array_equal(scene.clouded("after", WHOLE), np.arange(60)[:, None] + np.zeros(80) < 30)


def test_the_spectral_test_by_hand() -> None:
    """Reflectances of thick cloud, soil, snow, forest and water, after Zhu and Woodcock 2012, figure 3."""
    rows = {
        "blue": (0.45, 0.08, 0.80, 0.03, 0.06), "green": (0.44, 0.11, 0.80, 0.05, 0.05), "red": (0.45, 0.15, 0.78, 0.03, 0.03),
        "nir": (0.50, 0.22, 0.70, 0.30, 0.01), "swir1": (0.35, 0.30, 0.08, 0.12, 0.005), "swir2": (0.28, 0.25, 0.06, 0.05, 0.003),
    }  # fmt: skip
    found = clouds.spectral({k: np.array([v], np.float32) for k, v in rows.items()})
    assert found.tolist() == [[True, False, False, False, False]]
    unseen = clouds.spectral({k: np.full((1, 2), np.nan, np.float32) for k in rows})
    assert not unseen.any()


def test_the_spectral_test_is_scored_and_too_rash_to_exclude_by() -> None:
    """The numbers that clouds.py states."""
    scene = np.load(shared("scenes_csmask") / "sentinel2.npz")
    found = clouds.spectral(dict(zip(clouds.SPECTRAL, np.moveaxis(scene["img"], -1, 0), strict=True)))
    cloud = scene["msk"][..., 0] == 4
    hits = (found & cloud).sum()
    assert hits / found.sum() == pytest.approx(0.764, abs=2e-3)
    assert hits / cloud.sum() == pytest.approx(0.927, abs=2e-3)
    assert 2 * hits / (found.sum() + cloud.sum()) == pytest.approx(0.837, abs=2e-3)


def test_an_image_without_a_mask_warns_with_the_share(tmp_path: Path) -> None:
    pixels = np.full((4, *SHAPE), 600, np.uint16)
    pixels[:, :15] = 5000
    names = ("B02", "B03", "B04", "B08")
    after = write(tmp_path / "S2A_MSIL2A_after.tif", pixels, grid(SHAPE), names)
    finding = next(f for f in check.examine(open_scene({"after": [after]}, hazard="flood")) if f.code == "cloud-mask-missing")
    assert finding.severity == "warn"
    assert "25.0 %" in finding.what
    assert "SCL" in finding.repair
    masked = clouded(tmp_path / "S2A_MSIL2A_masked.tif", np.full(SHAPE, 4))
    assert "cloud-mask-missing" not in {f.code for f in check.examine(masked)}


def test_what_cannot_be_tested_is_not(tmp_path: Path) -> None:
    grey = write(tmp_path / "a.tif", np.full((3, *SHAPE), 90, np.uint8), grid(SHAPE), ("red", "green", "blue"))
    assert clouds.testable(open_layer("after", [grey], Declared(sensor="vhr-rgb"))) == ()
    assert clouds.testable(open_layer("after", [image(tmp_path / "S2A_MSIL2A_b.tif", None)])) == ()


def test_a_cloud_over_bolzano_is_excluded_and_counted(tmp_path: Path) -> None:
    """The real scene is clear; a cloud and its shadow are written into its scene classes."""
    real = raster.facts(shared("scenes_sentinel") / "S2_L2A_bolzano_sample.tif")
    whole = Window(0, 0, *real.grid.shape)
    pixels = raster.read_window(real.path, whole, range(1, 6))
    pixels[4, 100:300, 200:500], pixels[4, 320:400, 200:500] = 9, 3
    names = ("B04", "B03", "B02", "B08", "SCL")
    path = write(tmp_path / "S2A_MSIL2A_bolzano.tif", pixels, real.grid, names, nodata=0)
    mapped = am.map(path, out=tmp_path / "out")
    exclusion = mapped.exclusion(whole)
    np.testing.assert_array_equal(exclusion == 5, np.isin(pixels[4], (3, 9)))
    assert (mapped.extent(whole)[exclusion == 5] == 255).all()
    assert any("SCL" in said for said in mapped.made_by["assumptions"])
    assert "cloud-mask-missing" not in {w["code"] for w in mapped.made_by["warnings"]}
    area = {r["reason"]: float(r["value"]) for r in mapped.summary if r["quantity"] == "not_analysed_area"}
    assert area["cloud"] == pytest.approx(280 * 300 * 0.01, rel=2e-3)
