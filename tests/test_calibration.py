"""Tables from score to likelihood: laws of all that are shipped, and what a map with one says of itself."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import expit, logit

import aftermap as am
from aftermap import calibration, pieces, raster
from aftermap.calibration import Key
from aftermap.metrics import RANK_LEVELS, Ranking, Reliability
from aftermap.tiles import Window
from tests.conftest import grid, write

TABLES = json.loads(calibration.FILE.read_text())["tables"]
MEASURED = Path(__file__).parents[1] / "benchmarks" / "results" / "calibration.csv"
SHAPE = (150, 200)
WHOLE = Window(0, 0, *SHAPE)


@pytest.mark.parametrize("entry", TABLES, ids=lambda e: f"{e['method']}-{e['finds']}")
def test_a_table_is_monotone_small_and_borne_out(entry: dict[str, object]) -> None:
    key = Key(*(str(entry[k]) for k in Key._fields))
    assert key.method in pieces.PIECES[key.hazard]
    table = calibration.find(key)
    assert table is not None
    assert 2 <= len(table.scores) == len(table.likelihoods) <= 32
    assert (np.diff(table.scores) > 0).all()
    assert (np.diff(table.likelihoods) >= 0).all()
    assert 0 <= min(table.likelihoods) <= max(table.likelihoods) <= 1
    with MEASURED.open() as stream:
        rows = [r for r in csv.DictReader(stream) if all(r[k] == v for k, v in key._asdict().items())]
    real = next(r for r in rows if (r["where"], r["event"]) == ("real", "pooled"))
    assert float(real["ece_calibrated"]) < float(real["ece_score"])
    assert f"{float(real['ece_calibrated']):.3f}" in table.words


def test_what_no_real_chip_bears_out_has_no_table() -> None:
    assert calibration.find(Key("flood", "sar-threshold", "radar", "flood")) is None


def test_likelihood_by_hand() -> None:
    table = calibration.Calibration((0.0, 0.5, 1.0), (0.1, 0.2, 0.8), "")
    got = table(np.array([[0.0, 0.25, 0.75, 1.0, np.nan]], np.float32))
    np.testing.assert_allclose(got, [[0.1, 0.15, 0.5, 0.8, np.nan]], atol=1e-6)
    assert got.dtype == np.float32


def overconfident(sharpness: float) -> Ranking:
    """Pixels whose scores are a fair likelihood with logits multiplied by `sharpness`."""
    rng = np.random.default_rng(5)
    fair = rng.uniform(0.02, 0.98, 60_000)
    ranking = Ranking()
    ranking.add(expit(sharpness * logit(fair)), rng.random(fair.size) < fair)
    return ranking


@pytest.mark.parametrize("way", ["temperature", "isotonic"])
def test_a_fit_makes_an_overconfident_score_fair(way: str) -> None:
    fitted, unseen = overconfident(2.5), overconfident(2.5)
    knots = (
        calibration.isotonic(fitted.levels) if way == "isotonic" else calibration.tempered(calibration.temperature(fitted.levels))
    )
    table, scores = calibration.Calibration(tuple(knots[0]), tuple(knots[1]), ""), np.linspace(0, 1, RANK_LEVELS + 1)
    before, after = Reliability(), Reliability()
    for actual in (False, True):
        counts = unseen.levels[int(actual)]
        for reliability, likelihood in ((before, scores), (after, table(scores.astype(np.float32)).astype(np.float64))):
            drawn: npt.NDArray[np.float64] = np.repeat(likelihood, counts)
            reliability.add(drawn, np.full(drawn.size, actual))
    assert (before.expected_calibration_error or 0) > 0.08
    assert (after.expected_calibration_error or 1) < 0.01


def test_temperature_by_hand() -> None:
    assert calibration.temperature(overconfident(2.5).levels) == pytest.approx(2.5, rel=0.03)
    assert calibration.temperature(overconfident(1.0).levels) == pytest.approx(1, rel=0.03)
    at = np.random.default_rng(0).uniform(0, 1, 10_000)
    for t in (0.2, 1, 2.5, 5):
        knots = calibration.tempered(t)
        np.testing.assert_allclose(np.interp(at, *knots), expit(logit(at) / t), atol=1e-3)


def test_a_calibrated_map_says_so_and_keeps_its_extent(tmp_path: Path) -> None:
    """Bare soil in one RGB image: the extent is cut from the score, the likelihood is the table's."""
    rng, (y, x) = np.random.default_rng(1), np.mgrid[: SHAPE[0], : SHAPE[1]]
    bare = np.abs(y - 60 - 0.3 * x) < 12
    colours = (np.array(v)[:, None, None] for v in ([60, 90, 50], [170, 130, 100]))
    meadow, soil = colours
    pixels = (np.where(bare, soil, meadow) * rng.uniform(0.85, 1.15, (3, *SHAPE))).astype(np.uint8)
    after = write(tmp_path / "after.tif", pixels, grid(SHAPE), ("red", "green", "blue"))
    said = am.Declared(sensor="vhr-rgb")
    options = am.Options(keep_scores=True, min_area_m2=0)
    mapped = am.map(after, out=tmp_path / "out", hazard="landslide", declared={"after": said}, options=options)
    table = calibration.find(Key("landslide", "bare-soil", "optical", "bare soil"))
    assert table is not None
    score = mapped.score(WHOLE)
    np.testing.assert_array_equal(mapped.likelihood(WHOLE), np.rint(table(score) * 100))
    np.testing.assert_array_equal(mapped.extent(WHOLE) == 1, score > 0.5)
    run = mapped.made_by
    assert run["calibration"] == run["methods"]["calibration"]["bare-soil"] == table.words
    assert run["methods"]["percent_at_threshold"] == round(100 * float(table(np.array([0.5], np.float32))[0]))
    assert table.words in raster.facts(mapped.folder / "likelihood.tif").descriptions[0]
    assert "uncalibrated" in raster.facts(mapped.folder / "score.tif").descriptions[0]
    assert "isotonic" in (mapped.folder / "report.html").read_text()
