"""Shifted pairs are measured, said, and laid on each other when asked; other orbits are said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import aftermap as am
from aftermap import check, coregister
from aftermap.errors import UsageError
from aftermap.scene import Scene, open_scene
from aftermap.scorer import LayerBands
from aftermap.tiles import Window
from tests.conftest import flood_pair, grid, write

SHAPE = (320, 420)
SHIFTS = [(0.3, -0.18), (1.2, 0.7), (-3.7, 2.2)]


def land(seed: int = 0) -> np.ndarray:
    """Fields and speckle-free relief in dB (y, x), 16 px wider than SHAPE on every side."""
    rng = np.random.default_rng(seed)
    rough = ndimage.gaussian_filter(rng.normal(size=(SHAPE[0] + 32, SHAPE[1] + 32)), 3)
    return np.asarray(-11 + 3 * np.sign(rough) + 20 * rough)


def pair(folder: Path, dx: float, dy: float, *, crs: str | None = "EPSG:32633", tags: tuple[str, str] = ("", "")) -> list[Path]:
    """after.tif and before.tif, which lies dx to the right and dy below; each with speckle of its own, water in after."""
    rng = np.random.default_rng(1)
    ground = ndimage.gaussian_filter(land(), 0.7)
    moved = ndimage.shift(ground, (dy, dx), order=3)
    ground[150:200] = -20
    paths = []
    for name, pixels, tag in zip(("after", "before"), (ground, moved), tags, strict=True):
        seen = pixels[16:-16, 16:-16] + 10 * np.log10(rng.gamma(4.4, 1 / 4.4, SHAPE))
        stated = {"ORBIT_DIRECTION": tag} if tag else {}
        paths.append(
            write(folder / f"{name}.tif", seen[None].astype(np.float32), grid(SHAPE, crs=crs), ("VV",), unit="dB", tags=stated)
        )
    return paths


def opened(paths: list[Path]) -> Scene:
    return open_scene({"after": [paths[0]], "before": [paths[1]]}, hazard="flood")


def shift(scene: Scene) -> coregister.Shift | None:
    return coregister.shift_of(scene, scene.layers["after"], scene.layers["before"])


def codes(scene: Scene) -> set[str]:
    return {f.code for f in check.examine(scene)}


@pytest.mark.parametrize(("dx", "dy"), [(0.0, 0.0), *SHIFTS])
def test_a_known_shift_is_measured(tmp_path: Path, dx: float, dy: float) -> None:
    found = shift(scene := opened(pair(tmp_path, dx, dy)))
    assert found is not None
    assert (found.dx, found.dy) == pytest.approx((dx, dy), abs=0.1)
    assert ("pair-shifted" in codes(scene)) == (np.hypot(dx, dy) > 0.5)


@pytest.mark.parametrize(("dx", "dy"), SHIFTS)
def test_an_aligned_pair_lies_on_itself(tmp_path: Path, dx: float, dy: float) -> None:
    scene, shifts = coregister.aligned(opened(pair(tmp_path, dx, dy)))
    assert set(shifts) == {"before"}
    left = shift(scene)
    assert left is not None
    assert left.length < 0.15
    assert "pair-shifted" not in codes(scene)


def test_a_shift_of_whole_pixels_is_taken_out_exactly(tmp_path: Path) -> None:
    after, _, _ = flood_pair(SHAPE)
    paths = [
        write(tmp_path / f"{n}.tif", np.roll(after, move, axis=(1, 2)), grid(SHAPE), ("VV", "VH"), unit="dB")
        for n, move in (("after", (0, 0)), ("before", (3, -5)))
    ]
    scene, shifts = coregister.aligned(opened(paths))
    assert (shifts["before"].dx, shifts["before"].dy) == pytest.approx((-5, 3), abs=0.02)
    got = scene.read(LayerBands("before", ("VV",), "dB"), Window(10, 10, 300, 400))
    np.testing.assert_allclose(got[0], after[0, 10:310, 10:410], atol=0.2)


def test_noise_has_no_shift(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paths = [
        write(tmp_path / f"{n}.tif", rng.normal(-12, 2, (1, *SHAPE)).astype(np.float32), grid(SHAPE), ("VV",), unit="dB")
        for n in "ab"
    ]
    assert shift(opened(paths)) is None


def test_a_coregistered_map_says_so(tmp_path: Path) -> None:
    after, before = pair(tmp_path, 3.7, 0)
    plain = am.map(after, before, out=tmp_path / "plain", method="sar-drop")
    assert "pair-shifted" in {w["code"] for w in plain.made_by["warnings"]}
    mapped = am.map(after, before, out=tmp_path / "out", method="sar-drop", options=am.Options(coregister=True))
    assert mapped.made_by["parameters"]["shifts_px"]["before"] == pytest.approx([3.7, 0], abs=0.1)
    assert any("its place" in said for said in mapped.made_by["assumptions"])
    assert "pair-shifted" not in {w["code"] for w in mapped.made_by["warnings"]}
    with pytest.raises(UsageError, match="coregister"):
        am.map(after, out=tmp_path / "one", options=am.Options(coregister=True))


def test_another_orbit_is_a_warning(tmp_path: Path) -> None:
    assert "orbit-differs" in codes(opened(pair(tmp_path / "a", 0, 0, tags=("ASCENDING", "descending"))))
    assert "orbit-differs" not in codes(opened(pair(tmp_path / "b", 0, 0, tags=("ascending", "ASC"))))
    assert "orbit-differs" not in codes(opened(pair(tmp_path / "c", 0, 0, tags=("", "DESCENDING"))))
