"""The maps of small real scenes say what they said: areas, counts, IoU, thresholds, and pixels where they are exact."""

from __future__ import annotations

from pathlib import Path

import pytest

from aftermap import card
from tests.golden import numbers
from tests.real_scenes import REAL


@pytest.fixture(autouse=True)
def bundled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "BUNDLED", Path(card.__file__).parent / "models")


@pytest.mark.parametrize("name", REAL)
def test_a_map_says_what_it_said(name: str, tmp_path: Path) -> None:
    """What differs stands in the message, and the libraries that do: `python -m tests.golden --write` where it is meant."""
    kept = numbers.kept()
    new = {"environment": numbers.environment(), "maps": {name: numbers.of(REAL[name], tmp_path)}}
    assert numbers.moved({**kept, "maps": {name: kept["maps"][name]}}, new) == []


def test_every_scene_is_kept() -> None:
    assert set(numbers.kept()["maps"]) == set(REAL)


def test_what_moves_is_said() -> None:
    kept = numbers.kept()
    for key, value, exact in (("area", 1.002, False), ("area", 1.02, True), ("iou", 1.02, True)):
        new = {**kept["maps"]["network"], key: kept["maps"]["network"][key] * value}
        said = list(numbers.differences("network", kept["maps"]["network"], new, exact=False))
        assert bool(said) == exact
    other = {"environment": {**kept["environment"], "numpy": "0.1"}, "maps": kept["maps"]}
    assert numbers.moved(kept, other) == []
    one = {**kept["maps"], "radar": {**kept["maps"]["radar"], "extent_sha256": "0"}}
    said = numbers.moved(kept, {**other, "maps": one})
    assert said[0].startswith("radar: extent_sha256:")
    assert said[1] == f"numpy was {kept['environment']['numpy']} and is 0.1"
