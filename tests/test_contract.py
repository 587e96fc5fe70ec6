"""Every method in PIECES keeps the contract of the seam, tested by existing, on scenes read from files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from aftermap import pieces
from aftermap.layer import open_layer
from aftermap.relief import with_relief
from aftermap.scene import Scene, open_scene
from aftermap.scorer import F32, Method, Scorer
from aftermap.seamless import Tiling, score_window
from aftermap.tiles import Window, blocks
from tests.conftest import flood_pair, grid, write

SHAPE = (190, 270)
METHODS = [(hazard, name) for hazard in pieces.HAZARDS for name in pieces.PIECES[hazard]]


def optical_pair() -> list[npt.NDArray[np.uint16]]:
    """Green, NIR, SWIR1 as stored by Sentinel-2 before and after: wet pixels are dark in the infrared."""
    rng = np.random.default_rng(4)
    wet = [p[1] < -22 for p in flood_pair(SHAPE)[:2]]
    dry, water = np.array([700, 2800, 2200])[:, None, None], np.array([600, 250, 120])[:, None, None]
    return [(np.where(w, water, dry) * rng.uniform(0.8, 1.2, (3, *SHAPE))).astype(np.uint16) for w in wet]


def slide_pair() -> list[npt.NDArray[np.uint16]]:
    """Blue, green, red, NIR, SWIR1 as stored by Sentinel-2 before and after: forest, and a strip of it laid bare."""
    rng, (y, x) = np.random.default_rng(5), np.mgrid[: SHAPE[0], : SHAPE[1]]
    bare = np.abs(y - 60 - 0.3 * x) < 12
    forest, soil = (np.array(v)[:, None, None] for v in ([300, 500, 350, 3500, 1600], [900, 1200, 1800, 2200, 2800]))
    return [(np.where(m, soil, forest) * rng.uniform(0.9, 1.1, (5, *SHAPE))).astype(np.uint16) for m in (bare & False, bare)]


def fractured() -> npt.NDArray[np.uint16]:
    """Grey ice (1, y, x) with parallel bright fractures that saturate, and a corner that was not observed."""
    rng, (y, x) = np.random.default_rng(6), np.mgrid[: SHAPE[0], : SHAPE[1]]
    ice = rng.normal(30_000, 4_000, SHAPE)
    ice[(x + y // 2) % 50 < 4] += 40_000
    ice[:30, :50] = 0
    return np.clip(ice, 0, 65_535).astype(np.uint16)[None]


def with_ground(scene: Scene, folder: Path) -> Scene:
    """The same with an elevation model: slopes fall to the river, one of them too steep for water."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    above = np.abs(y - 0.4 * SHAPE[0] - 0.15 * x)
    heights = (100 + 0.1 * above + 0.01 * x + np.clip(x - 200, 0, 20) * 8)[None].astype(np.float32)
    dem = open_layer("dem", [write(folder / "dem.tif", heights, grid(SHAPE), ("elevation",))])
    return with_relief(replace(scene, layers={**scene.layers, "dem": dem}))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scene]:
    folder = tmp_path_factory.mktemp("contract")
    radar = flood_pair(SHAPE)[:2]
    radar[1][:, 60:80, 100:140] = np.nan
    blind = np.full((2, *SHAPE), np.nan, np.float32)

    def scene(name: str, pair: Sequence[npt.NDArray[Any]], bands: tuple[str, ...], nodata: float, hazard: str = "flood") -> Scene:
        unit = "dB" if bands[0] == "VV" else ""
        before, after = (
            write(
                folder / f"{'' if bands == ('grey',) else 'S2A_MSIL2A_'}{name}_{k}.tif",
                p,
                grid(SHAPE),
                bands,
                unit=unit,
                nodata=nodata,
            )
            for k, p in enumerate(pair)
        )
        return open_scene({"after": [after], "before": [before]}, hazard=hazard)

    radar_scene = scene("radar", list(radar), ("VV", "VH"), float("nan"))
    return {
        "radar": radar_scene,
        "ground": with_ground(radar_scene, folder),
        "optical": scene("optical", optical_pair(), ("B03", "B08", "B11"), 0),
        "slide": scene("slide", slide_pair(), ("B02", "B03", "B04", "B08", "B11"), 0, "landslide"),
        "ice": scene("ice", [fractured()] * 2, ("grey",), 0, "fracture"),
        "blind": scene("blind", [blind, blind], ("VV", "VH"), float("nan")),
    }


def able(scenes: dict[str, Scene], hazard: str, name: str) -> tuple[Scene, Scorer]:
    """The scene that a method can run on, and its scorer."""
    method: Method = pieces.load(hazard, name)()
    assert isinstance(method, Method)
    assert method.name == name
    scene = next(s for s in sorted(scenes.values(), key=lambda s: s.hazard != hazard) if not method.why_not(s))
    return scene, method.prepare(scene)


def map_all(scene: Scene, scorer: Scorer, tiling: Tiling, size: int) -> F32:
    out = np.empty(SHAPE, np.float32)

    def read(window: Window) -> F32:
        return np.concatenate([scene.read(i, window) for i in scorer.inputs])

    for window in blocks(SHAPE, size):
        out[window.slices] = score_window(scorer, read, window, SHAPE, tiling)[0]
    return out


@pytest.mark.parametrize(("hazard", "name"), METHODS)
def test_scores_are_scores(scenes: dict[str, Scene], hazard: str, name: str) -> None:
    scene, scorer = able(scenes, hazard, name)
    assert isinstance(scorer, Scorer)
    scores = map_all(scene, scorer, Tiling.of(scorer), 999)
    seen = np.isfinite(np.concatenate([scene.read(i, Window(0, 0, *SHAPE)) for i in scorer.inputs])).all(axis=0)
    np.testing.assert_array_equal(np.isnan(scores), ~seen)
    assert scores.dtype == np.float32
    assert np.nanmin(scores) >= 0
    assert np.nanmax(scores) <= 1
    assert 0.02 < (scores > 0.5).mean() < 0.5


@pytest.mark.parametrize(("hazard", "name"), METHODS)
def test_tiled_equals_whole(scenes: dict[str, Scene], hazard: str, name: str) -> None:
    scene, scorer = able(scenes, hazard, name)
    whole = map_all(scene, scorer, Tiling(999, scorer.halo_px, 0), 999)
    for core, blend, size in ((40, 0, 64), (61, 9, 50), (97, 3, 200)):
        tiled = map_all(scene, scorer, Tiling(core + 2 * scorer.halo_px + blend, scorer.halo_px, blend), size)
        np.testing.assert_array_equal(tiled, whole)


@pytest.mark.parametrize(("hazard", "name"), METHODS)
def test_a_scorer_looks_no_farther_than_its_halo(scenes: dict[str, Scene], hazard: str, name: str) -> None:
    scene, scorer = able(scenes, hazard, name)
    pixels = np.concatenate([scene.read(i, Window(0, 0, *SHAPE)) for i in scorer.inputs])[None]
    changed = pixels.copy()
    changed[..., 100, 150] += 3
    valid = np.isfinite(pixels).all(axis=1)
    moved = np.argwhere(scorer(pixels, valid)[0, 0] != scorer(changed, valid)[0, 0])
    moved = moved[valid[0][tuple(moved.T)]]
    assert (np.abs(moved - [100, 150]).max(axis=1) <= scorer.halo_px).all()


@pytest.mark.parametrize(("hazard", "name"), METHODS)
def test_a_blind_scene_finds_nothing_and_does_not_fail(scenes: dict[str, Scene], hazard: str, name: str) -> None:
    method: Method = pieces.load(hazard, name)()
    if why := method.why_not(scenes["blind"]):
        assert len(why) > 10
        return
    scorer = method.prepare(scenes["blind"])
    assert np.isnan(map_all(scenes["blind"], scorer, Tiling.of(scorer), 999)).all()
