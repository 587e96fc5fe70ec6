"""model.toml: reading gives what was written, and what does not fit is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aftermap import card as cards
from aftermap.card import Card, Fit
from aftermap.errors import AftermapError, InputRefusedError, UnknownNameError
from aftermap.journal import sha256
from aftermap.scorer import LayerBands

CARD = Card(
    name="flood-toy", hazard="flood", classes=("land", "flood"), halo_px=4, multiple_of=8,
    inputs=(LayerBands("after", ("VV", "VH"), "dB"), LayerBands("before", ("VV",), "dB")),
    mean=(-10.5, -17.0, -10.0), std=(3.0, 3.5, 3.0), training_data="simulated floods, seeds 0 to 9", licence="Apache-2.0",
    made_by="aftermap run flood-toy", sha256={}, versions={"torch": "2.13.0", "odd key": "1"},
    calibration=Fit(0.021, "4 scenes it has not seen", scores=(0.0, 0.4, 1.0), likelihoods=(0.0, 0.7, 0.9)),
    scores=({"data": "Sen1Floods11", "iou": 0.5, "events": 11, "better": False},),
)  # fmt: skip


@given(text=st.text(), number=st.floats(allow_nan=False, allow_infinity=False), whole=st.integers(-(2**60), 2**60))
@settings(max_examples=60)
def test_reading_gives_what_was_written(tmp_path_factory: pytest.TempPathFactory, text: str, number: float, whole: int) -> None:
    row = {"words": text, "number": number, "whole": whole, "list": (text, text)}
    made = replace(CARD, why=text, seed=whole, mean=(number, 1.0, 2.0), scores=(row, row), versions={text: text})
    folder = tmp_path_factory.mktemp("model")
    made.write(folder)
    read = Card.read(folder)
    assert read == replace(made, scores=tuple({**row, "list": [text, text]} for _ in range(2)))


def spoiled(folder: Path, old: str, new: str) -> Path:
    """The folder of a card in which something was written otherwise."""
    text = CARD.write(folder).read_text(encoding="utf-8")
    assert old in text
    (folder / cards.FILE).write_text(text.replace(old, new), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("halo_px = 4", 'halo_px = "4"', "halo_px of .* is '4', and has to be int"),
        ("halo_px = 4\n", "", "does not say halo_px"),
        ("multiple_of = 8", "multiple_of = true", "multiple_of"),
        ("std = [3.0, 3.5, 3.0]", "std = [3.0, 3.5]", "2 std above 0 for 3 bands"),
        ('unit = "dB"', 'unit = "decibel"', "reads decibel"),
        ('classes = ["land", "flood"]', 'classes = ["land", "sea"]', "none is its hazard"),
        ("scores = [0.0, 0.4, 1.0]", "scores = [0.0, 0.4]", "as many likelihoods"),
        ("scores = [0.0, 0.4, 1.0]", "scores = [0.0, 0.4, 0.3]", "never falls"),
        ("threshold = 0.5", "threshold = ", "is no TOML"),
    ],
)
def test_what_is_wrong_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(InputRefusedError, match=said) as caught:
        Card.read(spoiled(tmp_path, old, new))
    assert caught.value.code == "card-invalid"


@pytest.mark.parametrize(("old", "new"), [("threshold =", "treshold ="), ('bands = ["VV"]', 'band = ["VV"]'), ("ece =", "eec =")])
def test_unknown_fields_name_the_near_miss(tmp_path: Path, old: str, new: str) -> None:
    with pytest.raises(UnknownNameError, match=f"did you mean .*{old.split()[0]}"):
        Card.read(spoiled(tmp_path, old, new))


def test_a_changed_file_is_refused_and_weights_may_stay_at_home(tmp_path: Path) -> None:
    (tmp_path / "graph.xml").write_text("<net/>")
    made = replace(CARD, sha256={"graph.xml": sha256(tmp_path / "graph.xml"), "model.safetensors": "0" * 64})
    made.write(tmp_path)
    assert Card.read(tmp_path) == made
    (tmp_path / "graph.xml").write_text("<net />")
    with pytest.raises(InputRefusedError, match=r"graph\.xml is not the file") as caught:
        Card.read(tmp_path)
    assert caught.value.code == "model-changed"
    replace(CARD, sha256={"../graph.xml": ""}).write(tmp_path)
    with pytest.raises(InputRefusedError, match="outside its folder"):
        Card.read(tmp_path)


def test_models_are_found_by_name_and_by_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERMAP_MODELS", str(tmp_path))
    (tmp_path / "flood-toy").mkdir()
    CARD.write(tmp_path / "flood-toy")
    assert cards.listed()["flood-toy"] == cards.find("flood-toy") == cards.find(str(tmp_path / "flood-toy"))
    with pytest.raises(UnknownNameError, match="did you mean flood-toy"):
        cards.find("flod-toy")
    with pytest.raises(AftermapError) as caught:
        Card.read(tmp_path)
    assert caught.value.code == "no-model"


def test_a_temperature_is_a_table() -> None:
    table = Fit(0.01, "unseen scenes", temperature=2.0).table()
    assert table(np.array([0.9], np.float32)) == pytest.approx(0.75, abs=1e-3)  # logit 2.197 / 2
    assert table.words == "temperature 2, unseen scenes, ECE 0.010"
