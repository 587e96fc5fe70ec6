"""Networks in the map: beside the methods without training, leading only where their card lets them, recorded in the key."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import aftermap as am
from aftermap import card as cards
from aftermap import journal, raster
from aftermap.card import Card
from aftermap.cli import main
from aftermap.engine import SHARE, Network, agreement
from aftermap.errors import InputRefusedError, JobInterruptedError, UnknownNameError, UsageError
from aftermap.scene import open_scene
from aftermap.scorer import LayerBands
from aftermap.tiles import Window
from tests.conftest import grid, write
from tests.networks import toy

Pair = Callable[..., tuple[Path, Path]]
SHAPE = (180, 260)
WHOLE = Window(0, 0, *SHAPE)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own models and cache, and no bundled ones."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("AFTERMAP_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(cards, "BUNDLED", tmp_path / "bundled")
    return tmp_path / "models"


def mapped(files: tuple[Path, Path], out: Path, model: Path | str | None, **options: Any) -> am.HazardMap:
    """The map of a pair with a model, in fp32."""
    before, after = files
    said = am.Options(**{"precision": "f32", "keep_scores": True, **options}, model=None if model is None else str(model))
    return am.map(after, before, out=out, options=said)


def scored(folder: Path, after: Path) -> np.ndarray:
    """What the network alone says of the whole image (y, x)."""
    pixels = np.asarray(raster.read_window(after, WHOLE, [1, 2]), np.float32)
    network = Network.open(folder, precision="f32")
    return np.asarray(network(pixels[None], np.ones((1, *SHAPE), bool))[0, 0])


def test_without_leave_a_network_runs_beside(pair: Pair, home: Path, tmp_path: Path) -> None:
    files, folder = pair(), toy(home / "toy", why="IoU 0.1 against 0.7 on 11 chips")
    alone, both = mapped(files, tmp_path / "alone", None), mapped(files, tmp_path / "both", "toy")
    for name in ("score", "likelihood", "extent", "exclusion"):
        np.testing.assert_array_equal(getattr(both, name)(WHOLE), getattr(alone, name)(WHOLE))
    votes = [np.asarray(raster.read_window(m.folder / "agreement.tif", WHOLE)[0], int) for m in (both, alone)]
    np.testing.assert_array_equal(votes[0] - votes[1], scored(folder, files[1]) > 0.5)
    run, text = both.made_by, (both.folder / "report.html").read_text()
    assert run["methods"]["lead"] == "sar-threshold"
    assert run["methods"]["why"].endswith("toy runs beside, for its card does not let it lead (IoU 0.1 against 0.7 on 11 chips)")
    assert run["models"]["toy"]["sha256"] == journal.sha256(folder / cards.FILE)
    assert run["models"]["toy"]["files"] == {f: journal.sha256(folder / f) for f in ("graph.xml", "graph.bin")}
    assert run["methods"]["ran"]["toy"]["precision"] == "f32"
    for word in ("toy", "none: random weights", "Apache-2.0"):
        assert word in text


def test_a_network_leads_where_its_card_lets_it(pair: Pair, home: Path, tmp_path: Path) -> None:
    files, folder = pair(), toy(home / "toy", leads=True, threshold=0.4, depth=1)
    found = mapped(files, tmp_path / "out", folder, min_area_m2=0)
    run, expected = found.made_by, scored(folder, files[1])
    assert run["methods"]["combined"] == ["toy"]
    assert "its card lets it lead" in run["methods"]["why"]
    assert agreement(found.score(WHOLE), expected) >= SHARE
    np.testing.assert_array_equal(found.extent(WHOLE) == 1, found.score(WHOLE) > 0.5)
    table = Network.open(folder, precision="f32").calibration
    assert table is not None
    np.testing.assert_array_equal(found.likelihood(WHOLE), np.rint(table(found.score(WHOLE)) * 100))
    assert run["calibration"] == table.words
    assert len(run["methods"]["ran"]) > 1


def test_a_network_leads_where_it_is_asked_to(pair: Pair, home: Path, tmp_path: Path) -> None:
    toy(home / "toy", why="taught by corrections")
    files = pair()
    alone, beside = (mapped(files, tmp_path / name, "toy", lead=True, baseline=name != "alone") for name in ("alone", "beside"))
    for name in ("score", "likelihood", "extent"):
        np.testing.assert_array_equal(getattr(beside, name)(WHOLE), getattr(alone, name)(WHOLE))
    methods = beside.made_by["methods"]
    assert methods["combined"] == ["toy"]
    assert methods["why"] == "it was asked to lead; its card does not let it lead any (taught by corrections)"
    assert "sar-threshold" in methods["ran"]
    with pytest.raises(UsageError, match="--lead is of a model"):
        mapped(files, tmp_path / "none", None, lead=True)


def test_the_baseline_can_be_left_out(pair: Pair, home: Path, tmp_path: Path) -> None:
    toy(home / "toy")
    found = mapped(pair(), tmp_path / "out", "toy", baseline=False)
    assert list(found.made_by["methods"]["ran"]) == ["toy"]
    assert "no method without training runs beside it" in found.made_by["methods"]["why"]
    with pytest.raises(UsageError, match="leaves no method"):
        mapped(pair(), tmp_path / "none", None, baseline=False)


def test_bundled_networks_join_the_methods_of_their_hazard(pair: Pair, tmp_path: Path) -> None:
    toy(cards.BUNDLED / "toy")
    toy(cards.BUNDLED / "other", hazard="landslide", classes=("landslide",), name="other")
    toy(cards.BUNDLED / "pairs", name="pairs", inputs=(LayerBands("after", ("VV",), "reflectance"),))
    run = mapped(pair(), tmp_path / "out", None).made_by["methods"]
    assert "toy" in run["ran"]
    assert "other" not in {**run["ran"], **run["skipped"]}
    assert "it reads after VV in reflectance, but the after image is in dB" in run["skipped"]["pairs"]
    assert "toy" not in am.map(*pair()[::-1], out=tmp_path / "one", method="sar-threshold").made_by["methods"]["ran"]


def test_what_does_not_fit_is_refused(pair: Pair, home: Path, tmp_path: Path) -> None:
    files = pair()
    toy(home / "optical", name="optical", inputs=(LayerBands("after", ("VV", "VH"), "dB"), LayerBands("dem", ("VV",), "metres")))
    with pytest.raises(
        InputRefusedError, match=r"it reads after VV, VH in dB and dem VV in metres, but there is no dem"
    ) as caught:
        mapped(files, tmp_path / "out", "optical")
    assert caught.value.code == "model-input"
    toy(home / "slide", hazard="landslide", classes=("landslide",))
    with pytest.raises(UsageError, match="maps landslide, not flood") as other:
        mapped(files, tmp_path / "out", "slide")
    assert other.value.code == "model-hazard"
    with pytest.raises(UnknownNameError, match="did you mean optical"):
        mapped(files, tmp_path / "out", "optcal")
    toy(home / "thief", name="sar-threshold")
    with pytest.raises(UsageError, match="called as the method"):
        mapped(files, tmp_path / "out", "thief")


def test_another_card_or_precision_is_another_run(pair: Pair, home: Path, tmp_path: Path) -> None:
    files, folder = pair(), toy(home / "toy")
    mapped(files, tmp_path / "out", "toy")
    text = (folder / cards.FILE).read_text()
    (folder / cards.FILE).write_text(text.replace("temperature = 2.0", "temperature = 2.5"))
    with pytest.raises(UsageError, match="another run"):
        mapped(files, tmp_path / "out", "toy")
    (folder / cards.FILE).write_text(text)
    mapped(files, tmp_path / "out", folder)  # the same model by its folder


def test_interrupted_and_resumed_is_byte_identical(home: Path, tmp_path: Path) -> None:
    from aftermap import pieces

    toy(home / "toy", leads=True, depth=3)
    pieces.load("simulate", "flood")(tmp_path, size=1300, seed=5)
    files = (tmp_path / "before.tif", tmp_path / "after.tif")
    small = {"memory_mb": 640, "baseline": False, "threshold": 0.99}  # several blocks, and no speckle to outline
    expected = mapped(files, tmp_path / "whole", "toy", **small)

    def stop(stage: str, done: int, whole: int) -> None:
        if stage == "map" and 2 <= done < whole:
            raise KeyboardInterrupt

    options = am.Options(model="toy", precision="f32", keep_scores=True, **small)  # type: ignore[arg-type]
    with pytest.raises(JobInterruptedError):
        am.map(files[1], files[0], out=tmp_path / "out", options=options, progress=stop)
    found = mapped(files, tmp_path / "out", "toy", **small)
    for name in ("score.tif", "likelihood.tif", "run.json", "map.gpkg"):
        assert journal.sha256(found.folder / name) == journal.sha256(expected.folder / name)


def test_models_lists_them(home: Path) -> None:
    toy(home / "toy", why="never measured")
    said = CliRunner().invoke(main, ["models"])
    assert said.exit_code == 0
    for words in ("toy  flood from after VV, VH in dB", "never measured", "Apache-2.0; trained on none: random weights"):
        assert words in said.output
    (row,) = json.loads(CliRunner().invoke(main, ["models", "--json"]).stdout)
    assert (row["name"], row["leads"]) == ("toy", Card.read(home / "toy").leads)


def test_one_image_finds_water_and_a_pair_what_was_not_there_before(pair: Pair, home: Path, tmp_path: Path) -> None:
    files, folder = pair(), toy(home / "toy", classes=("water",), leads=True)
    single = am.map(files[1], out=tmp_path / "one", options=am.Options(model="toy", precision="f32", keep_scores=True))
    assert (single.made_by["methods"]["lead"], single.made_by["classes"]) == ("toy", ["water"])
    both = mapped(files, tmp_path / "two", "toy", baseline=False)
    after, before = (scored(folder, f) for f in files[::-1])
    np.testing.assert_allclose(both.score(WHOLE), np.minimum(after, 1 - before), atol=1e-6)
    assert (both.made_by["classes"], both.made_by["calibration"]) == (["flood"], "uncalibrated")
    beside = mapped(files, tmp_path / "beside", "toy").made_by
    assert beside["methods"]["lead"] == "sar-threshold", "its leave was given for single images"
    assert "of single images, and this is a pair" in beside["methods"]["why"]
    assert beside["methods"]["ran"]["toy"]["precision"] == "f32"


@pytest.mark.parametrize(("mean", "dtype", "why"), [(33000.0, "uint8", "have 8 bits"), (120.0, "uint16", "more than 8 bits")])
def test_numbers_of_other_depth_are_not_read(tmp_path: Path, mean: float, dtype: str, why: str) -> None:
    numbers = np.random.default_rng(0).integers(1, 250 if dtype == "uint8" else 60_000, (1, *SHAPE)).astype(dtype)
    file = write(tmp_path / "grey.tif", numbers, grid(SHAPE), ("grey",))
    read = (LayerBands("after", ("VV",), "digital_number"),)
    toy(tmp_path / "toy", inputs=read, hazard="fracture", classes=("fracture",), mean=(mean,), std=(30.0,))
    card = replace(Card.read(tmp_path / "toy"), inputs=(LayerBands("after", ("grey",), "digital_number"),))
    said = {"after": am.Declared(bands=("grey",), sensor="modis-grey")}
    assert why in card.why_not(open_scene({"after": [file]}, hazard="fracture", declared=said))
    decibels = write(tmp_path / "radar.tif", -numbers.astype("float32") / 9e3, grid(SHAPE), ("VV",), unit="dB")
    radar = open_scene({"after": [decibels]}, hazard="flood")
    assert "not in digital numbers" in replace(card, inputs=read).why_not(radar)
