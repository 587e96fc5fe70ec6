"""Ensembles: the mean of probabilities and their spread, by hand; whole or in tiles the same; unlike members are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import aftermap as am
from aftermap import ensemble, journal, raster
from aftermap.card import BUNDLED, Card
from aftermap.cli import main
from aftermap.engine import ENGINE_MB, Network
from aftermap.ensemble import FLIPS, MEMBER_MB, Ensemble
from aftermap.errors import JobInterruptedError, UsageError
from aftermap.scorer import Heavy, LayerBands, Method, Scorer, Several
from aftermap.seamless import Tiling, score_window
from aftermap.tiles import Window
from tests.conftest import flood_pair, grid, write
from tests.networks import AFTER, painted, toy

F32 = npt.NDArray[np.float32]
Pair = Callable[..., tuple[Path, Path]]
SHAPE = (180, 260)
WHOLE = Window(0, 0, *SHAPE)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@dataclass(frozen=True)
class Constant:
    """A member that says the same everywhere, of two classes."""

    lead: float
    other: float = 0.25
    inputs: tuple[LayerBands, ...] = AFTER
    classes: tuple[str, ...] = ("flood", "sea")
    halo_px: int = 0
    multiple_of: int = 1

    def __call__(self, pixels: F32, valid: npt.NDArray[np.bool_]) -> F32:
        values = np.array([self.lead, self.other], np.float32)[None, :, None, None]
        return np.broadcast_to(values, (len(pixels), 2, *pixels.shape[2:])).copy()


def constants(*values: float, threshold: float = 0.5, flips: bool = False) -> Ensemble:
    members: Any = tuple(Constant(v) for v in values)
    return Ensemble("ensemble", flips, threshold, "", members)


def networks(folder: Path, *cards: dict[str, Any], flips: bool = False) -> Ensemble:
    """Toys of one graph whose cards say that the numbers of the scene are to be moved, each to another level."""
    members = [Network.open(toy(folder / f"toy{n}", name=f"toy{n}", **card), precision="f32") for n, card in enumerate(cards)]
    return ensemble.of("ensemble", members, flips=flips)


def observed(pixels: F32) -> npt.NDArray[np.bool_]:
    """Where every band was (y, x)."""
    return np.asarray(np.isfinite(pixels).all(axis=0))


def probabilities(network: Network, pixels: F32) -> F32:
    """Of the hazard as the graph gives it (y, x)."""
    raw = replace(network, card=replace(network.card, threshold=0.5))
    found: F32 = raw(pixels[None], observed(pixels)[None])[0, 0]
    return found


def image(shape: tuple[int, int]) -> F32:
    found: F32 = flood_pair(shape)[1]
    found[:, : shape[0] // 9, : shape[1] // 7] = np.nan
    return found


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=5), st.booleans(), st.floats(0.1, 0.9))
def test_constant_members_give_their_mean_and_deviation_everywhere(values: list[float], flips: bool, threshold: float) -> None:
    """Blended from tiles of any size too; members that agree are apart by nothing at all."""
    found = constants(*values, threshold=threshold, flips=flips)
    pixels = np.zeros((2, 61, 83), np.float32)
    pixels[:, 5:9, 70:] = np.nan
    whole = score_window(found, lambda w: pixels[(..., *w.slices)], Window(0, 0, 61, 83), (61, 83), Tiling(40, 3, 7))
    assert whole.shape == (3, 61, 83)
    seen = observed(pixels)
    assert np.isnan(whole[:, ~seen]).all()
    mean = np.mean(values, dtype=np.float64)
    expected = (np.interp(mean, [0, threshold, 1], [0, 0.5, 1]), 0.25, np.std(values, dtype=np.float64))
    np.testing.assert_allclose(whole[:, seen], np.broadcast_to(np.array(expected)[:, None], (3, seen.sum())), atol=5e-6)
    if len(set(values)) == 1:
        assert (whole[2, seen] == 0).all()


def test_the_mean_is_of_probabilities_and_lies_at_one_half_at_their_mean_threshold(tmp_path: Path) -> None:
    cards = ({"threshold": 0.3}, {"threshold": 0.4, "sharp": 3.0}, {"depth": 1})
    found, pixels = networks(tmp_path, *cards), flood_pair((64, 96))[1]
    each = np.stack([probabilities(one, pixels) for one in found.members])  # type: ignore[arg-type]
    score, spread = found(pixels[None], np.ones((1, 64, 96), bool))[0]
    assert found.threshold == pytest.approx(0.4)
    np.testing.assert_allclose(score, np.interp(each.mean(axis=0), [0, 0.4, 1], [0, 0.5, 1]), atol=1e-6)
    np.testing.assert_allclose(spread, each.std(axis=0), atol=1e-6)
    assert spread.std() > 0.01
    assert (found.halo_px, found.multiple_of, found.calibration) == (12, 2, None)
    assert all(isinstance(found, kind) for kind in (Scorer, Method, Heavy, Several))


def test_flips_are_turned_back(tmp_path: Path) -> None:
    found, pixels = networks(tmp_path, {}, flips=True), image((64, 96))
    seen = observed(pixels)
    each = np.stack([np.flip(probabilities(found.members[0], np.flip(pixels, t).copy()), t) for t in FLIPS])  # type: ignore[arg-type]
    score, spread = found(pixels[None], seen[None])[0]
    np.testing.assert_allclose(score[seen], each.mean(axis=0)[seen], atol=1e-6)
    np.testing.assert_allclose(spread[seen], each.std(axis=0)[seen], atol=1e-6)
    assert each.std(axis=0)[seen].mean() > 0.01, "the kernels of the toy are lopsided"
    turned = found(np.flip(pixels, -1)[None].copy(), np.flip(seen, -1)[None])[0, 0]
    np.testing.assert_allclose(np.flip(turned, -1)[seen], score[seen], atol=1e-6)


def test_tiled_equals_whole(tmp_path: Path) -> None:
    found, pixels = networks(tmp_path, {}, {"sharp": 3.0}, flips=True), image((380, 700))
    seen = observed(pixels)
    whole = np.where(seen, found(pixels[None], seen[None])[0], np.float32(np.nan))
    shape = pixels.shape[1:]
    tiled = score_window(found, lambda w: pixels[(..., *w.slices)], Window(0, 0, *shape), shape, Tiling.of(found))
    np.testing.assert_allclose(tiled, whole, atol=5e-6, equal_nan=True)


def test_memory_is_of_all_members(tmp_path: Path) -> None:
    """Their graphs keep what they took; the library is there once."""
    found = networks(tmp_path, {"depth": 2}, {"depth": 2})
    one, both = found.members[0].memory_mb((512, 512), 2), found.memory_mb((512, 512), 2)
    assert 2 * one - ENGINE_MB + MEMBER_MB < both < 2 * one


def test_unlike_members_are_refused_by_both_names(tmp_path: Path) -> None:
    one = Network.open(toy(tmp_path / "one", name="one"), precision="f32")
    pair = (LayerBands("after", ("VV",), "dB"), LayerBands("before", ("VV",), "dB"))
    other = Network.open(toy(tmp_path / "other", name="other", inputs=pair), precision="f32")
    wet = Network.open(toy(tmp_path / "wet", name="wet", classes=("water",)), precision="f32")
    words = "model 1, one, reads after VV, VH in dB, and model 2, other, reads after VV in dB and before VV in dB"
    for unlike, said in ((other, words), (wet, "model 1, one, finds flood, and model 2, wet, finds water")):
        with pytest.raises(UsageError, match=said) as caught:
            ensemble.of("ensemble", [one, unlike], flips=False)
        assert caught.value.code == "ensemble-unlike"


def test_two_bundled_models_of_pictures_end_to_end(tmp_path: Path) -> None:
    """One of them beside a copy of itself that puts pictures on another level; the methods without training lead."""
    one, other = BUNDLED / "landslide-rgb", tmp_path / "other"
    copytree(one, other)
    card = Card.read(one)
    replace(card, name="other", mean=tuple(m + s for m, s in zip(card.mean, card.std, strict=True))).write(other)
    rng = np.random.default_rng(3)
    picture = np.kron(rng.integers(20, 230, (3, 12, 17)), np.ones((16, 16))).astype(np.uint8)[:, :180, :260]
    picture[:, 30:50, 40:90] = 0
    file = write(tmp_path / "picture.tif", picture, grid(SHAPE), ("red", "green", "blue"), nodata=0)
    said = ["--hazard", "landslide", "--model", str(one), "--model", str(other), "--precision", "f32", "--quiet"]
    out = CliRunner().invoke(main, ["map", "--after", str(file), "--sensor", "vhr-rgb", *said, "-o", str(tmp_path / "out")])
    assert out.exit_code == 0, out.output
    found = am.HazardMap(tmp_path / "out")
    spread, excluded = found.spread(WHOLE), found.exclusion(WHOLE) != 0
    np.testing.assert_array_equal(spread == 255, excluded)
    assert excluded.any()
    assert 0 < spread[~excluded].max() <= 50
    run = found.made_by
    assert run["methods"]["lead"] == "bare-soil"
    assert run["methods"]["spread"] == {"of": "ensemble", "over": 2, "finds": "landslide"}
    members = run["models"]["ensemble"]["members"]
    assert [m["name"] for m in members] == [card.name, "other"]
    assert all(m["files"] == card.sha256 for m in members)
    assert len({m["sha256"] for m in members}) == 2
    assert {"member 1 scene_mean", "member 2 sha256"} <= run["methods"]["ran"]["ensemble"].keys()
    assert "spread.tif" in json.loads((found.folder / "item.json").read_text())["assets"]
    assert (found.folder / "styles" / "spread.qml").exists()
    assert "2 scores of ensemble for landslide" in raster.facts(found.folder / "spread.tif").descriptions[0]
    assert "o-spread" in (found.folder / "report.html").read_text()
    assert journal.verify(found.folder) == []
    options = am.Options(model=(str(one), str(other)), flips=True, adapt=1, only=("spread",), precision="f32")
    how: dict[str, Any] = {"hazard": "landslide", "declared": {"after": am.Declared(sensor="vhr-rgb")}, "options": options}
    ran = am.map(file, out=tmp_path / "adapted", **how).made_by["methods"]["ran"]["ensemble"]
    assert all(ran[f"member {n} adapted"].startswith("ema over 1 crops") for n in (1, 2)), "each by itself"


def test_equal_members_are_the_model_itself_and_apart_by_nothing(pair: Pair, tmp_path: Path) -> None:
    before, after = pair()
    folder = str(toy(tmp_path / "toy", threshold=0.3, leads=True))
    how: dict[str, Any] = {"precision": "f32", "baseline": False, "keep_scores": True}
    alone = am.map(after, before, out=tmp_path / "alone", options=am.Options(model=folder, **how))
    both = am.map(after, before, out=tmp_path / "both", options=am.Options(model=(folder, folder), **how))
    np.testing.assert_array_equal(both.score(WHOLE), alone.score(WHOLE))
    np.testing.assert_array_equal(both.spread(WHOLE), np.where(both.valid(WHOLE), 0, 255))
    assert (both.made_by["methods"]["lead"], both.made_by["calibration"]) == ("ensemble", "uncalibrated")
    assert not alone.has_spread
    assert not (alone.folder / "styles" / "spread.qml").exists()
    with pytest.raises(UsageError, match=r"no spread\.tif"):
        alone.spread(WHOLE)
    only = am.Options(model=folder, flips=True, only=("spread",), precision="f32", baseline=False)
    flipped = am.map(after, out=tmp_path / "only", options=only)
    assert sorted(p.name for p in flipped.folder.glob("*.tif")) == ["spread.tif"]
    assert flipped.made_by["models"]["ensemble"]["flips"] is True


def test_members_that_see_a_pair_date_by_date_or_another_hazard(pair: Pair, tmp_path: Path) -> None:
    """Since and Transferred are members too: each as it scores alone."""
    before, after = pair()
    folders = tuple(str(toy(tmp_path / n, name=n, classes=("water",), sharp=s)) for n, s in (("a", 1.0), ("b", 4.0)))
    how: dict[str, Any] = {"precision": "f32", "baseline": False, "keep_scores": True}
    ways: tuple[dict[str, Any], ...] = ({}, {"cut": "even"})
    for n, more in enumerate(ways):
        each = [am.map(after, before, out=tmp_path / f"{n}{f[-1]}", options=am.Options(model=f, **how, **more)) for f in folders]
        found = am.map(after, before, out=tmp_path / f"{n}", options=am.Options(model=folders, **how, **more))
        scores = np.stack([one.score(WHOLE) for one in each])
        np.testing.assert_allclose(found.score(WHOLE), scores.mean(axis=0), atol=1e-6)
        seen = found.valid(WHOLE)
        np.testing.assert_allclose(found.spread(WHOLE)[seen], 100 * scores.std(axis=0)[seen], atol=0.51)


def test_an_ensemble_grades_buildings_by_its_mean(tmp_path: Path) -> None:
    """The classes are told apart from the spread behind them."""
    folders = [painted(tmp_path / n) for n in ("a", "b")]
    found = ensemble.of("ensemble", [Network.open(f, precision="f32") for f in folders], flips=True)
    red = np.full((6, 8, 8), 180, np.float32)
    every = found(red[None], np.ones((1, 8, 8), bool))[0]
    assert len(every) == len(found.classes) + 1
    assert found.classes[1:][int(every[1:-1, 0, 0].argmax())] == "major-damage"
    assert (every[-1] == 0).all()


def test_stopped_and_rerun_is_byte_identical(tmp_path: Path) -> None:
    folders = tuple(str(toy(tmp_path / n, name=n, depth=3, sharp=s)) for n, s in (("a", 1.0), ("b", 2.0)))
    write(tmp_path / "after.tif", flood_pair((600, 1300))[1], grid((600, 1300)), ("VV", "VH"), unit="dB")
    options = am.Options(model=folders, precision="f32", baseline=False, only=("likelihood", "spread"), memory_mb=760)

    def stop(stage: str, done: int, whole: int) -> None:
        if stage == "map" and 1 <= done < whole:
            raise KeyboardInterrupt

    expected = am.map(tmp_path / "after.tif", out=tmp_path / "whole", options=options)
    with pytest.raises(JobInterruptedError):
        am.map(tmp_path / "after.tif", out=tmp_path / "out", options=options, progress=stop)
    found = am.map(tmp_path / "after.tif", out=tmp_path / "out", options=options)
    for name in ("spread.tif", "likelihood.tif", "run.json"):
        assert journal.sha256(found.folder / name) == journal.sha256(expected.folder / name)


def test_wrong_use_and_help(pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--flips is of a model"):
        am.map(pair()[1], out=tmp_path / "o", options=am.Options(flips=True))
    with pytest.raises(UsageError, match="--only spread is of an ensemble"):
        am.Options(only=("spread",), model="flood-s1")
    said = CliRunner().invoke(main, ["map", "--help"]).output
    assert "--flips" in said
    assert "several as one" in said
