"""Exported networks: whole or in tiles the same, from any thread; what was not observed is not scored; misfits are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from aftermap import engine, journal
from aftermap.engine import Network
from aftermap.errors import InputRefusedError, UnknownNameError, UsageError
from aftermap.scene import open_scene
from aftermap.scorer import LayerBands, Method, Scorer
from aftermap.seamless import Tiling, score_window
from aftermap.tiles import Window
from tests.conftest import flood_pair, grid, write
from tests.networks import toy


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def pixels(shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """VV and VH (band, y, x) with a corner that was not observed."""
    found = flood_pair(shape)[1]
    found[:, : shape[0] // 9, : shape[1] // 7] = np.nan
    return found


def whole(network: Network, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scores (class, y, x) of the image as one tile, NaN where not observed."""
    seen = np.asarray(np.isfinite(image).all(axis=0))
    return np.where(seen, network(image[None], seen[None])[0], np.float32(np.nan))


def tiled(network: Network, image: npt.NDArray[np.float32], threads: int = 2) -> npt.NDArray[np.float32]:
    """The same in the tiles that a map is made of."""
    shape, tiling = image.shape[1:], Tiling.of(network)
    with ThreadPoolExecutor(threads) as pool:
        return score_window(network, lambda w: image[(..., *w.slices)], Window(0, 0, *shape), shape, tiling, pool)


def test_a_network_is_a_scorer_and_its_own_method(tmp_path: Path) -> None:
    network = Network.open(toy(tmp_path / "toy"), precision="f32")
    assert isinstance(network, Scorer)
    assert isinstance(network, Method)
    assert network.prepare(None) is network  # type: ignore[arg-type]
    assert network.calibration is not None
    assert "temperature 2" in network.calibration.words


def test_a_network_on_the_level_of_the_scene_does_not_care_which_that_is(tmp_path: Path) -> None:
    """Scores of an image and of the same image darker and with less contrast, in a part that was not observed too."""
    network = Network.open(toy(tmp_path / "toy", normalise="scene"), precision="f32")
    found = []
    for name, gain, lift in (("as-it-was", 1.0, 0.0), ("darker", 0.5, -7.0)):
        image = pixels((600, 700)) * np.float32(gain) + np.float32(lift)
        write(tmp_path / f"{name}.tif", image, grid((600, 700)), bands=("VV", "VH"), unit="dB")
        scene = open_scene({"after": [tmp_path / f"{name}.tif"]}, hazard="flood")
        ready = network.prepare(scene)
        assert isinstance(ready, Network)
        assert len(ready.scene_mean) == len(ready.scene_std) == 2
        found.append(whole(ready, image))
    assert np.isnan(found[0]).any()
    np.testing.assert_allclose(found[0], found[1], atol=2e-4)
    assert np.nanstd(found[0]) > 0.01


def test_what_the_halo_covers_is_the_same_tiled_or_whole(tmp_path: Path) -> None:
    """Convolutions of 3 px at full resolution: every score within rounding of fp32, NaN where not observed."""
    network, image = Network.open(toy(tmp_path / "toy"), precision="f32"), pixels((700, 1100))
    one = whole(network, image)
    np.testing.assert_allclose(tiled(network, image), one, atol=2e-6, equal_nan=True)
    assert np.nanstd(one) > 0.1
    np.testing.assert_array_equal(np.isnan(one[0]), np.isnan(image).any(axis=0))


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_a_deep_network_keeps_rule_8(tmp_path: Path, precision: str) -> None:
    """Tiles of a pooling network against the whole image in fp32: within 0.02 on 99.9 % of pixels, extents at IoU 0.99."""
    if precision == "bf16" and not engine.has_bf16():
        pytest.skip("this processor has no bf16")
    folder = toy(tmp_path / "deep", depth=3, sharp=3.0)
    image = pixels((1304, 1400))
    one, many = whole(Network.open(folder, precision="f32"), image), tiled(Network.open(folder, precision=precision), image)
    assert Tiling.of(Network.open(folder, precision="f32")).blend > 0
    seen = np.isfinite(one)
    assert engine.agreement(one[seen], many[seen]) >= engine.SHARE
    ours, theirs = many[seen] > 0.5, one[seen] > 0.5
    assert 0.05 < theirs.mean() < 0.95
    assert (ours & theirs).sum() / (ours | theirs).sum() >= 0.99


def test_scores_do_not_depend_on_who_else_is_at_work(tmp_path: Path) -> None:
    network, image = Network.open(toy(tmp_path / "deep", depth=2), precision="f32"), pixels((900, 1300))
    np.testing.assert_array_equal(tiled(network, image, 1), tiled(network, image, 5))
    again = Network.open(network.folder, precision="f32")
    np.testing.assert_array_equal(tiled(again, image, 3), tiled(network, image, 2))


def test_the_first_tiles_of_a_process_may_come_from_many_threads(tmp_path: Path) -> None:
    """The bindings' first meeting with numpy locks two threads out of one another; 6 fresh processes, as it is a race."""
    toy(tmp_path / "toy")
    code = (
        "import sys, numpy as np; from pathlib import Path; from concurrent.futures import ThreadPoolExecutor\n"
        "from aftermap.engine import Network\n"
        "network, tile = Network.open(Path(sys.argv[1]), precision='f32'), np.zeros((1, 2, 64, 64), np.float32)\n"
        "with ThreadPoolExecutor(8) as pool: print(len(list(pool.map(lambda _: network(tile, tile[:, 0] == 0), range(16)))))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "toy")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    try:
        assert [p.communicate(timeout=60)[0] for p in running] == ["16\n"] * 6
    finally:
        for process in running:
            process.kill()


def test_the_hazard_leads_and_its_threshold_lies_at_one_half(tmp_path: Path) -> None:
    image = pixels((64, 96))
    folder = toy(tmp_path / "three", classes=("land", "flood", "sea"), threshold=0.3)
    network, plain = Network.open(folder, precision="f32"), toy(tmp_path / "plain", classes=("land", "flood", "sea"))
    assert network.classes == ("flood", "land", "sea")
    raw = whole(Network.open(plain, precision="f32"), image)
    np.testing.assert_allclose(np.nansum(raw, axis=0)[20:, 20:], 1, atol=1e-5)
    bent, seen = whole(network, image), np.isfinite(raw[0])
    np.testing.assert_array_equal(bent[0][seen] > 0.5, raw[0][seen] > 0.3)
    for calibrated, straight in zip((network, Network.open(plain, precision="f32")), (bent, raw), strict=True):
        assert calibrated.calibration is not None
        likelihood = calibrated.calibration(straight[0])
        expected = 1 / (1 + np.sqrt((1 - raw[0]) / raw[0]))  # the logit halved: temperature 2 of the raw probability
        np.testing.assert_allclose(likelihood[seen], expected[seen], atol=2e-3)


def test_a_trial_is_held_once_and_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = toy(tmp_path / "toy")
    if not engine.has_bf16():
        pytest.skip("this processor has no bf16")
    first = Network.open(folder)
    assert first.precision in ("f32", "bf16")
    assert "trial of one tile" in first.precision_from
    monkeypatch.setattr(engine, "_tried", lambda *_: pytest.fail("tried twice"))
    assert Network.open(folder).precision == first.precision
    (kept,) = journal.cache_folder().glob("*.json")
    assert json.loads(kept.read_text())["precision"] == first.precision


def test_a_precision_that_disagrees_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph so steep that bf16 turns it over."""
    if not engine.has_bf16():
        pytest.skip("this processor has no bf16")
    network = Network.open(toy(tmp_path / "steep", sharp=3000.0))
    assert network.precision == "f32"
    assert network.precision_from.endswith("too few")
    assert Network.open(network.folder, precision="bf16").precision_from == "asked for"


def test_without_bf16_precision_is_f32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "has_bf16", lambda: False)
    assert Network.open(toy(tmp_path / "toy")).precision == "f32"


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    folder = toy(tmp_path / "toy")
    with pytest.raises(UnknownNameError, match="did you mean bf16"):
        Network.open(folder, precision="bf61")
    with pytest.raises(UsageError, match=r"onnxruntime.* graph\.") as caught:
        Network.open(folder, engine="onnxruntime")
    assert caught.value.code == "engine-missing"
    three = (LayerBands("after", ("VV", "VH", "VV"), "dB"),)
    (tmp_path / "odd").mkdir()
    for name in ("graph.xml", "graph.bin"):
        (tmp_path / "odd" / name).write_bytes((folder / name).read_bytes())
    Network.open(folder, precision="f32").card.__class__(
        **{**vars(Network.open(folder, precision="f32").card), "inputs": three, "mean": (0.0,) * 3, "std": (1.0,) * 3}
    ).write(tmp_path / "odd")
    with pytest.raises(InputRefusedError, match=r"has \[1,2,\?,\?\], and its card says \(n, 3 bands, y, x\)") as refused:
        Network.open(tmp_path / "odd", precision="f32")
    assert refused.value.code == "model-graph"


def test_the_library_does_not_report_home() -> None:
    from openvino.tools.ovc import telemetry_utils

    assert telemetry_utils.tm.__name__.endswith("telemetry_stub")
