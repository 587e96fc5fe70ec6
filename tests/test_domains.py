"""The two regions of the benchmark of separated normalisation: what they are made of, and how far they lie apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click import BadParameter

from aftermap import chipfolder
from aftermap.chips import UNKNOWN, Chip
from aftermap.datasets.dataset import open_dataset
from aftermap.normalise import F64, fit, units
from aftermap.simulate import landslide
from benchmarks import domains
from benchmarks.domains import BANDS, SIZE, A, B, scenes, stretched


@pytest.fixture(scope="module")
def made() -> dict[str, list[Chip]]:
    """One scene of each region, as another processing would give it."""
    return {"a": [c for c, _ in scenes(A, 1, 0)], "b": [c for c, _ in scenes(B, 1, 0.1)]}


def apart(one: list[Chip], other: list[Chip]) -> F64:
    """Distances of the bands' means in standard deviations of the first."""
    a, b = fit(one), fit(other)
    return np.asarray(np.abs(np.subtract(b.mean, a.mean)) / np.array(a.std), np.float64)


def test_chips_are_read_back_as_they_were_made(made: dict[str, list[Chip]], tmp_path: Path) -> None:
    rows = [(chip, {"a": "train", "b": "test"}[r], None) for r, own in made.items() for chip in own[:2]]
    chipfolder.write(tmp_path, rows, classes=domains.CLASSES, facts={})
    found = open_dataset(tmp_path, "folder")
    assert (len(found.bands), found.bands[-2:], found.splits) == (14, ("slope", "elevation"), ("train", "test"))
    for chip, split, _ in rows:
        read = found.read(chip.name)
        assert units(read) == ("reflectance",) * 12 + ("degrees", "metres")
        assert (read.event, read.domain, found.members[chip.name].split) == (chip.event, chip.domain, split)
        np.testing.assert_array_equal(read.pixels, chip.pixels)
        np.testing.assert_array_equal(read.truth, chip.truth)


def test_the_regions_differ_until_each_chip_is_stretched(made: dict[str, list[Chip]]) -> None:
    assert (apart(made["a"], made["b"])[:12] > 1).all()
    assert (apart(*([stretched(c) for c in own] for own in made.values()))[:12] < 0.8).all()
    for own in made.values():
        truth = np.concatenate([c.truth for c in own if c.truth is not None])
        assert 0.002 < (truth == 1).mean() < 0.1
        assert set(np.unique(truth)) <= {0, 1, UNKNOWN}


def test_a_stretched_chip_is_a_picture(made: dict[str, list[Chip]]) -> None:
    flat = stretched(made["b"][0])
    assert (flat.unit, flat.bands, flat.pixels.min(), flat.pixels.max()) == ("digital_number", BANDS, 0, 255)
    below = made["b"][0].pixels <= np.percentile(made["b"][0].pixels, 2, axis=(1, 2), keepdims=True)
    assert (flat.pixels[below] == 0).all()


def test_the_same_again_and_no_scene_on_two_sides(made: dict[str, list[Chip]], monkeypatch: pytest.MonkeyPatch) -> None:
    again = next(scenes(A, 1, 0))[0]
    np.testing.assert_array_equal(again.pixels, made["a"][0].pixels)

    def empty(*_: object, **__: object) -> dict[str, Any]:  # the sides do not depend on what is there to see
        zeros = np.zeros((12, 512, 512), np.uint16)
        return {"after": zeros, "dem": zeros[:1], "truth": zeros[:3]}

    monkeypatch.setattr(landslide, "block", empty)
    events: dict[str, set[str]] = {}
    for chip, split in domains.both(5):
        assert chip.pixels.shape == (14, SIZE, SIZE)
        events.setdefault(split, set()).add(chip.event)
    assert {k: len(v) for k, v in events.items()} == {"train": 4, "validation": 1, "test": 3}
    assert len(set.union(*events.values())) == 8
    assert {e[0] for e in events["test"]} == {"b"}
    assert {e[0] for e in events["train"] | events["validation"]} == {"a"}


def test_too_few_scenes_are_refused() -> None:
    with pytest.raises(BadParameter, match="leave none to choose by"):
        next(domains.both(4))
