"""Rotated grids, BigTIFF and every common pixel type go through the whole map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

import aftermap as am
from aftermap.tiles import Window
from tests.conftest import UTM, flood_pair, grid

SHAPE = (180, 260)
WHOLE = Window(0, 0, *SHAPE)
UPRIGHT = grid(SHAPE)
ROTATED = GeoBox(SHAPE, UPRIGHT.affine @ Affine.rotation(30, (130, 90)), UTM)


def save(path: Path, pixels: np.ndarray, bands: tuple[str, ...], *, on: GeoBox = UPRIGHT, unit: str = "", **options: Any) -> Path:
    """A plain GeoTIFF by rasterio alone."""
    with rasterio.open(
        path, "w", driver="GTiff", height=SHAPE[0], width=SHAPE[1], count=len(pixels), dtype=pixels.dtype, crs=on.crs,
        transform=on.affine, **options,
    ) as out:  # fmt: skip
        out.write(pixels)
        out.descriptions, out.units = bands, (unit,) * len(bands)
    return path


def optical(seed: int, scale: float, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """(before, after) green and nir, 10 x 20 px of the top left not observed (0) after."""
    rng = np.random.default_rng(seed)
    _, _, flooded = flood_pair(SHAPE)
    dry = np.stack([np.full(SHAPE, 0.08), np.full(SHAPE, 0.3)]) + rng.normal(0, 0.004, (2, *SHAPE))
    wet = np.where(flooded, np.array([0.09, 0.03])[:, None, None] + rng.normal(0, 0.004, (2, *SHAPE)), dry)
    wet[:, :10, :20] = 0
    return (dry * scale).astype(dtype), (wet * scale).astype(dtype)


def agrees(mapped: am.HazardMap, *, unseen: int = 0) -> None:
    _, _, flooded = flood_pair(SHAPE)
    extent, codes = mapped.extent(WHOLE) == 1, mapped.exclusion(WHOLE)
    assert (extent & flooded).sum() / (extent | flooded).sum() > 0.8
    assert (codes == 1).sum() == unseen
    _, _, _, (areas,) = pyogrio.raw.read(mapped.folder / "map.gpkg", layer="observed_event", columns=["area_px"])
    assert areas.sum() == extent.sum()


@pytest.mark.parametrize(("dtype", "how"), [("int16", {}), ("float64", {"BIGTIFF": "YES"})])
def test_radar_of_whole_and_double_decibels_and_in_bigtiff(tmp_path: Path, dtype: str, how: dict[str, Any]) -> None:
    before, after, _ = flood_pair(SHAPE)
    pair = {n: np.rint(p).astype(dtype) if dtype == "int16" else p.astype(dtype) for n, p in (("b", before), ("a", after))}
    paths = {n: save(tmp_path / f"{n}.tif", p, ("VV", "VH"), unit="dB", **how) for n, p in pair.items()}
    if how:
        assert paths["a"].read_bytes()[2] == 43
    agrees(am.map(paths["a"], paths["b"], out=tmp_path / "out"))


@pytest.mark.parametrize(("dtype", "scale"), [("uint16", 1e4), ("int16", 1e4), ("float64", 1.0), ("uint8", 500.0)])
def test_optical_images_of_every_pixel_type(tmp_path: Path, dtype: str, scale: float) -> None:
    before, after = optical(0, scale, dtype)
    paths = {n: save(tmp_path / f"{n}.tif", p, ("green", "nir"), nodata=0) for n, p in (("b", before), ("a", after))}
    unit = {"after": am.Declared(unit="reflectance"), "before": am.Declared(unit="reflectance")} if dtype == "uint8" else None
    agrees(am.map(paths["a"], paths["b"], out=tmp_path / "out", declared=unit), unseen=200)


def test_a_rotated_image_is_mapped_on_its_own_grid(tmp_path: Path) -> None:
    before, after, _ = flood_pair(SHAPE)
    paths = {n: save(tmp_path / f"{n}.tif", p, ("VV", "VH"), on=ROTATED, unit="dB") for n, p in (("b", before), ("a", after))}
    mapped = am.map(paths["a"], paths["b"], out=tmp_path / "out", options=am.Options(density_m=200))
    agrees(mapped)
    for name in ("extent.tif", "exclusion.tif", "likelihood.tif"):
        with rasterio.open(mapped.folder / name) as src:
            np.testing.assert_allclose(list(src.transform), list(ROTATED.affine), atol=1e-6)
    rows = {r["quantity"]: float(r["value"]) for r in mapped.summary if not r["reason"]}
    assert rows["affected_area"] == pytest.approx((mapped.extent(WHOLE) == 1).sum() * 0.01, rel=2e-3)
    _, _, shapes, _ = pyogrio.raw.read(mapped.folder / "map.gpkg", layer="image_footprint")
    assert len(shapes) == 2
    upright = save(tmp_path / "u.tif", before, ("VV", "VH"), unit="dB")
    warped = am.map(paths["a"], upright, out=tmp_path / "warped", method="sar-drop")
    assert warped.made_by["inputs"]["before"]["resampling"] == "bilinear"
    corner = warped.exclusion(WHOLE)[:20, :20]  # turned out of the upright image
    assert (corner == 1).all()
