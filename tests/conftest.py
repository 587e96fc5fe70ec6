"""Factories: tiny synthetic events, lopsided so that no symmetry hides an axis swap."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from affine import Affine
from hypothesis import settings
from odc.geo.geobox import GeoBox

from aftermap import card, raster
from aftermap.tiles import Window

os.environ.setdefault("AFTERMAP_PRIVATE_HOSTS", "127.0.0.1,localhost")  # where catalogs of tests listen
settings.register_profile("untimed", deadline=None)  # machines are shared: time proves nothing here
settings.load_profile("untimed")
SHARED = Path(__file__).parents[2] / "shared" / "data"
UTM = "EPSG:32633"


def grid(
    shape: tuple[int, int], *, crs: str | None = UTM, gsd: float = 10.0, origin: tuple[float, float] = (420000, 5350000)
) -> GeoBox:
    """A north-up grid; pixel space where `crs` is None."""
    affine = raster.PIXEL_SPACE if crs is None else Affine(gsd, 0, origin[0], 0, -gsd, origin[1])
    return GeoBox(shape, affine, crs)


def write(path: Path, pixels: npt.NDArray[Any], on: GeoBox, bands: tuple[str, ...], *, unit: str = "", **options: Any) -> Path:
    """A GeoTIFF of pixels (band, y, x)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with raster.Writer(path, on, dtype=str(pixels.dtype), descriptions=bands, unit=unit, **options) as out:
        out.write(pixels, Window(0, 0, *on.shape))
    return path


def flood_pair(
    shape: tuple[int, int], seed: int = 0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """(before, after) VV and VH in dB (2, y, x), and the flooded pixels (y, x): a river that widens, lopsided."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    across = np.abs(y - 0.4 * shape[0] - 0.15 * x - 6 * np.sin(x / 17))
    permanent, wet = across < 3, across < 0.12 * shape[0]

    def backscatter(water: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        mean = np.stack([np.where(water, -20.0, -10.0), np.where(water, -27.0, -16.5)])
        return np.asarray(mean + 10 * np.log10(rng.gamma(4.4, 1 / 4.4, mean.shape)), np.float32)

    return backscatter(permanent), backscatter(wet), wet & ~permanent


@pytest.fixture(autouse=True, scope="session")
def no_bundled_models() -> Iterator[None]:
    """Maps of a test run the methods without training alone; test_bundled.py has the networks that come with the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(card, "BUNDLED", Path("no-bundled-models"))
        yield


@pytest.fixture
def pair(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Writes before.tif and after.tif of a small flood; pixels may be changed on the way."""

    def make(
        shape: tuple[int, int] = (180, 260),
        *,
        crs: str | None = UTM,
        change: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]] = lambda p: p,
        seed: int = 0,
    ) -> tuple[Path, Path]:
        before, after, _ = flood_pair(shape, seed)
        on = grid(shape, crs=crs)
        options: dict[str, Any] = {"unit": "dB", "nodata": float("nan")}
        return (
            write(tmp_path / "before.tif", change(before), on, ("VV", "VH"), **options),
            write(tmp_path / "after.tif", change(after), on, ("VV", "VH"), **options),
        )

    return make


def shared(folder: str) -> Path:
    """A folder of real data; skips the test where it is not there."""
    path = SHARED / folder
    if not path.exists():
        pytest.skip(f"real data {folder} is not beside this checkout")
    return path
