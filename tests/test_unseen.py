"""Hazards never seen: bands mapped, thresholds without labels, adapted models, and tables that can say no."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import aftermap as am
from aftermap import bandmaps, cuts, experiment, unseen_table
from aftermap.adapt.crops import Picture, crops
from aftermap.adapt.decide import depends
from aftermap.adapt.norm import Norms
from aftermap.card import Card
from aftermap.cli import main
from aftermap.engine import Network
from aftermap.errors import InputRefusedError, UnknownNameError, UsageError
from aftermap.tiles import Window
from aftermap.unseen import RANKS, Counted
from tests.conftest import flood_pair, grid, write
from tests.dataset_layouts import antarctic_fractures
from tests.test_adapt import saved
from tests.test_recipe import folder

F32 = np.float32


def test_bands_become_pictures() -> None:
    """Golden: the ends of each range, and the mean of two; what is not observed stays so."""
    radar = np.array([[-25.0, 0, -12.5, 10], [-32, -5, -18.5, np.nan]], F32).reshape(1, 2, 1, 4)
    found = bandmaps.MAPS["s1"](radar)[0, :, 0]
    np.testing.assert_allclose(found[:, :3], [[0, 255, 127.5]] * 3)
    assert found[0, 3] == 255
    assert np.isnan(found[1:, 3]).all()
    grey = bandmaps.MAPS["modis-grey"](np.array([0, 65535], F32).reshape(1, 1, 1, 2))
    assert grey.tolist() == [[[[0, 255]]] * 3]
    assert bandmaps.of_bands(("VV", "VH"), "dB").name == "s1"
    assert bandmaps.of_bands(("VV",), "digital_number").name == "vv"
    with pytest.raises(InputRefusedError, match="rgb: red, green, blue"):
        bandmaps.of_bands(("VV",), "dB")
    with pytest.raises(UnknownNameError):
        bandmaps.of_bands(("VV",), "dB", "s2")


@pytest.mark.parametrize(
    ("prevalence", "best"),
    [(0.0064, 0.978), (0.0136, 0.982), (0.05, 1.0), (0.07, 0.857), (0.1, 0.75), (0.13, 0.692), (0.2, 0.625), (0.3, 0.583)],
)
def test_what_a_percentile_can_reach(prevalence: float, best: float) -> None:
    """The table of methods.md A.5."""
    odds = np.zeros((1, 2, cuts.COARSE), np.int64)
    odds[0, :, 0] = round(1e6 * (1 - prevalence)), round(1e6 * prevalence)
    assert unseen_table.ceiling(Counted(("a",), ("e",), odds, odds)) == pytest.approx(best, abs=6e-4)
    odds[0, 1] = 0
    assert unseen_table.ceiling(Counted(("a",), ("e",), odds, odds)) is None


@settings(max_examples=25)
@given(st.floats(0.02, 0.6), st.floats(2, 4))
def test_even_does_not_depend_on_how_rare_the_hazard_is(share: float, apart: float) -> None:
    """Two bells of one width: half-way between them, whatever their shares."""
    at = cuts.centres()
    bells = [np.exp(-((at - middle) ** 2) / 2) for middle in (-apart - 1, apart - 1)]
    counts = np.rint(1e7 * ((1 - share) * bells[0] + share * bells[1])).astype(np.int64)
    found = cuts.even(counts).value
    assert found == pytest.approx(-1, abs=0.1)


def test_adaptation_is_for_other_sensors() -> None:
    """Radar and grey made into pictures fill fewer dimensions than pictures do; one band alone is no picture."""
    rng = np.random.default_rng(0)
    radar = bandmaps.MAPS["s1"](rng.normal(-12, 4, (1, 2, 64, 64)).astype(F32))[0]
    grey = bandmaps.MAPS["modis-grey"](rng.uniform(0, 65535, (1, 1, 64, 64)).astype(F32))[0]
    colour = (grey + rng.normal(0, 12, (3, 64, 64))).astype(F32)
    colour[:, :10] = np.nan
    assert depends([radar, radar])[0]
    assert depends([grey])[0]
    assert not depends([colour])[0]
    assert not depends([grey[:1]])[0]


def test_cuts_where_there_is_nothing_to_cut() -> None:
    one = np.zeros(cuts.BINS, np.int64)
    one[4000] = 1000
    for name in ("even", "otsu", "kittler-illingworth"):
        assert cuts.CUTS[name](one).value is None
        assert "no threshold found" in cuts.CUTS[name](one).source
    spread = np.ones(cuts.BINS, np.int64)
    value = cuts.percentile(spread).value
    assert value is not None
    assert (cuts.centres() > value).mean() == pytest.approx(0.05, abs=0.005)
    scores = np.array([0.5, 0.5003, 0, 1], F32)
    assert cuts.levels(scores).tolist() == [cuts.BINS // 2 - 1, cuts.BINS // 2, 0, cuts.BINS - 1]


def test_crops_are_nested_half_observed_and_inside() -> None:
    def read(window: Window) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        pixels = np.ones((3, window.height, window.width), F32)
        pixels[:, :, : 400 - window.col if window.col < 400 else 0] = np.nan
        return pixels

    whole = Picture("a", (1000, 1000), read)
    of = {k: [(c.place.window.row, c.place.window.col) for c in crops([whole], k, seed=3)] for k in (1, 5, 50)}
    assert of[5] == of[50][:5]
    assert of[1] == of[5][:1]
    assert {c for _, c in of[50]} == {512, 744}, "at 0 nothing is observed, at 256 less than half"
    assert len(of[50]) == 8


def test_a_map_of_a_hazard_that_the_model_never_saw(tmp_path: Path) -> None:
    """Refused without --cut; with it mapped beside, never leading, all on record; adapted before it is cut."""
    saved(tmp_path / "model", "resnet18_half")
    _, after, _ = flood_pair((96, 96), seed=1)
    image = write(tmp_path / "after.tif", after, grid((96, 96)), ("VV", "VH"), unit="dB", nodata=float("nan"))
    model = str(tmp_path / "model")
    with pytest.raises(UsageError, match="--cut even") as caught:
        am.map(image, out=tmp_path / "no", hazard="fracture", options=am.Options(model=model, baseline=False))
    assert caught.value.code == "model-hazard"
    with pytest.raises(UsageError, match="goes with --cut"):
        am.Options(band_map="s1")
    with pytest.raises(UsageError, match="give --model"):
        am.map(image, out=tmp_path / "no", hazard="flood", options=am.Options(cut="even"))
    found = am.map(image, out=tmp_path / "map", hazard="flood", options=am.Options(model=model, cut="even", adapt=1))
    ran = found.made_by["methods"]["ran"]["n"]
    assert (ran["band_map"], ran["rule"], ran["made_for"]) == ("s1", "even", "flood")
    assert "no threshold found" not in ran["threshold_source"]
    assert "ema over 1 crops" in ran["adapted"]
    assert found.made_by["methods"]["lead"] != "n"
    blank = write(tmp_path / "b.tif", np.full_like(after, np.nan), grid((96, 96)), ("VV", "VH"), unit="dB", nodata=float("nan"))
    nothing = am.map(
        blank, out=tmp_path / "blank", hazard="flood", options=am.Options(model=model, cut="even", adapt=5, baseline=False)
    )
    assert nothing.answer == "not analysed"
    assert "no crop of 256 px is half observed" in str(nothing.made_by["warnings"])
    assert found.made_by["parameters"]["cut"] == ["even", "auto"]
    auto = am.map(image, out=tmp_path / "auto", hazard="flood", options=am.Options(model=model, cut="even", adapt="auto"))
    assert "adapted: its bands are fewer" in auto.made_by["methods"]["ran"]["n"]["adapted"]
    with pytest.raises(UsageError, match="a number of crops, or auto"):
        am.Options(adapt="always")
    options = am.Options(model=model, cut="percentile", baseline=False, min_area_m2=0)
    own = am.map(image, out=tmp_path / "own", hazard="fracture", options=options)
    extent = own.extent(Window(0, 0, 96, 96))
    assert 0.03 < (extent == 1).mean() < 0.07
    assert own.made_by["calibration"] == "uncalibrated"


def test_an_adapted_model_is_a_model(tmp_path: Path) -> None:
    """As the map adapts to the scene at hand, kept in graph and weights alike; not overwritten."""
    saved(tmp_path / "model", "resnet18_half")
    pixels = np.random.default_rng(0).normal(9, 4, (3, 96, 96)).astype(F32)
    image = write(tmp_path / "a.tif", pixels, grid((96, 96)), ("red", "green", "blue"))
    words = ["adapt", tmp_path / "model", "--to", image, "-o", tmp_path / "adapted", "--shots", 3, "--sensor", "vhr-rgb"]
    words += ["--unit", "digital_number"]
    result = CliRunner().invoke(main, [str(w) for w in words])
    assert result.exit_code == 0, result.output
    card = Card.read(tmp_path / "adapted")
    assert card.calibration is None
    assert "ema over 1 crops" in card.training_data
    source, found = (Network.open(tmp_path / n, precision="f32") for n in ("model", "adapted"))
    before, after = Norms.open(tmp_path / "model"), Norms.open(tmp_path / "adapted")
    moved = after.statistics.means - before.statistics.means
    target = before.of_batch(pixels[None]).means - before.statistics.means
    np.testing.assert_allclose(moved, 0.1 * target, atol=2e-2)
    from aftermap.model import add_graph

    own = found(pixels[None], np.ones((1, 96, 96), bool))
    assert np.abs(own - source(pixels[None], np.ones((1, 96, 96), bool))).max() > 1e-3
    add_graph(tmp_path / "adapted", "openvino")
    again = Network.open(tmp_path / "adapted", precision="f32")(pixels[None], np.ones((1, 96, 96), bool))
    np.testing.assert_allclose(again, own, atol=2e-3)
    assert CliRunner().invoke(main, [str(w) for w in words]).exit_code == 2
    words[words.index(tmp_path / "adapted")] = tmp_path / "taught"
    words += ["--method", "bidirectional", "--arms", "forward", "--iterations", 2]
    result = CliRunner().invoke(main, [str(w) for w in words])
    assert result.exit_code == 0, result.output
    assert "bidirectional, 2 iterations over 1 crops" in Card.read(tmp_path / "taught").training_data


def test_a_recipe_on_targets_that_it_never_saw(tmp_path: Path) -> None:
    """One row per variant, resumed; a target that the recipe does not know is refused."""
    page = tmp_path / "page.toml"
    page.write_text(
        'hazard = "flood"\ninputs = ["after"]\nmodel = { encoder = "mobilenetv3_small_050" }\n'
        '[[steps]]\ntrain = { losses = { dice = 1 }, steps = 2, batch = 2 }\n'
        '[[steps]]\nadapt = { shots = [1, 5], mode = "ema" }\n'
        '[targets.water]\nhazard = "flood"\nmost = 1\n'
        '[targets.ice]\nhazard = "fracture"\ndata = { kind = "antarctic-fractures" }\n'
    )  # fmt: skip
    data = folder(tmp_path / "data")
    with pytest.raises(UnknownNameError, match="oil"):
        experiment.run(page, data, tmp_path / "out", targets={"oil": data})
    experiment.run(page, data, tmp_path / "out", targets={"water": data})
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.npz")}
    experiment.run(page, data, tmp_path / "out", targets={"water": data})
    assert files == {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.npz")}
    runs = unseen_table.gather(tmp_path / "out")
    assert {r.variant for r in runs} == {"source", "untrained", "bn-ema-1", "bn-ema-5", "auto", "classical"}
    assert next(r for r in runs if r.variant == "bn-ema-5").crops == 1, "there are not five"
    ice = antarctic_fractures(tmp_path / "ice").folder
    with pytest.raises(InputRefusedError, match="reads after VV"):
        experiment.run(page, data, tmp_path / "out", targets={"ice": ice})


def counted(quality: float, seed: int) -> Counted:
    """Images whose hazard scores higher by so much; a tenth of each is hazard."""
    rng, odds, ranks = np.random.default_rng(seed), [], []
    for _ in range(12):
        truth = np.arange(2000) < 200
        score = rng.normal(0, 1, 2000) + quality * truth
        edges = np.percentile(score, np.arange(RANKS) * (100 / RANKS))
        rank = np.maximum(np.searchsorted(edges, score) - 1, 0)
        level = np.clip(((score + cuts.MOST) * cuts.COARSE / (2 * cuts.MOST)).astype(int), 0, cuts.COARSE - 1)
        odds.append(np.stack([np.bincount(level[truth == t], minlength=cuts.COARSE) for t in (False, True)]))
        ranks.append(np.stack([np.bincount(rank[truth == t], minlength=RANKS) for t in (False, True)]))
    return Counted(tuple(f"i{k}" for k in range(12)), ("e",) * 12, np.stack(odds), np.stack(ranks))


def uniform(one: Counted) -> Counted:
    """Uniform scores on the same pixels, in expectation: every percentile holds its share of either class."""
    totals = one.ranks.sum(axis=2, keepdims=True)
    return Counted(one.names, one.events, one.odds, np.asarray(np.broadcast_to(totals / RANKS, one.ranks.shape), np.float64))


def test_the_table_stars_what_is_better_than_chance_and_nothing_else() -> None:
    def runs(recipe: str, quality: float, gain: float) -> list[unseen_table.Runs]:
        of = {"untrained": 0.0, "source": quality, "bn-ema-5": quality + gain}
        return [
            unseen_table.Runs(recipe, "t", name, (0, 1), tuple(counted(q, 10 * k + s) for s in (0, 1)))
            for k, (name, q) in enumerate(of.items())
        ]

    lines = {(one.recipe, one.variant): one for one in unseen_table.lines([*runs("good", 1.5, 1.0), *runs("none", 0.0, 0.0)])}
    good, none = lines["good", "source"], lines["none", "source"]
    assert good.starred
    assert not none.starred
    assert good.ceiling == pytest.approx(0.75)
    assert good.ba is not None
    assert none.ba == pytest.approx(0.5, abs=0.02)
    assert 0.6 < good.ba < 0.75
    better = lines["good", "bn-ema-5"]
    assert better.gain_ap is not None
    assert better.gain_ap_low is not None
    assert better.gain_ap_low > 0
    assert better.gain_ap == pytest.approx((better.ap or 0) - (good.ap or 0))
    assert good.p_holm is not None
    assert good.p is not None
    assert good.p_holm >= good.p
    assert "bn-ema-5" in unseen_table.table([*lines.values()])
    noise = unseen_table._scores(replace(counted(0, 0), ranks=uniform(counted(0, 0)).ranks))["ba"]
    assert noise == pytest.approx(0.5, abs=1e-3)
