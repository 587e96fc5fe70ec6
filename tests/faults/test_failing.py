"""A network that gives no numbers, an engine that fails on one tile, a process without memory, and faults of our own."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import aftermap as am
from aftermap import running
from aftermap.cli import main
from aftermap.errors import AftermapError, JobInterruptedError
from aftermap.journal import SEAL
from tests.faults.rig import Rig, products, said
from tests.networks import toy


@pytest.mark.parametrize("sharp", [float("nan"), float("inf")])
def test_a_network_that_gives_no_number_delivers_nothing(rig: Rig, tmp_path: Path, sharp: float) -> None:
    """NaN on a pixel that was observed is a fault, never "not observed"; and so whenever it is tried again."""
    broken = str(toy(tmp_path / "broken", sharp=sharp))
    for _ in range(2):
        with pytest.raises(AftermapError) as told:
            rig_map(rig, tmp_path / "out", broken)
        assert (told.value.code, told.value.exit_code) == ("scorer", 1)
        assert not (tmp_path / "out" / SEAL).exists()


def rig_map(rig: Rig, out: Path, model: str) -> am.HazardMap:
    return rig.map(out, am.Options(model=model, precision="f32"))


@pytest.mark.parametrize(("words", "code"), [("Exception from plugin.cpp: no kernel", "engine"), ("bad_alloc", "out-of-memory")])
def test_an_engine_that_fails_on_one_tile(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, code: str
) -> None:
    model = str(toy(tmp_path / "toy"))
    once, calls = running._Openvino._for, itertools.count(1)

    class Failing:
        def __init__(self, compiled: Any):
            self.request = compiled.create_infer_request()

        def create_infer_request(self) -> Any:
            return self

        def infer(self, given: Any) -> Any:
            if next(calls) == 2:
                raise RuntimeError(words)
            return self.request.infer(given)

    with monkeypatch.context() as patch:
        patch.setattr(running._Openvino, "_for", lambda self, shape: Failing(once(self, shape)))
        patch.setattr("aftermap.deliver.THREADS", 1)
        with pytest.raises(AftermapError) as told:
            rig_map(rig, tmp_path / "out", model)
    assert told.value.code == code
    assert not (tmp_path / "out" / SEAL).exists()
    if code == "engine":
        rig_map(rig, tmp_path / "out", model)
        rig_map(rig, tmp_path / "whole", model)
        assert products(tmp_path / "out") == products(tmp_path / "whole")


def without_memory(rig: Rig, out: Path, seed: int) -> bool:
    """Whether a process failed for want of memory. A library may end it on the spot, without a word; never with 0."""
    rng = np.random.default_rng(seed)
    fault = {"at": int(rng.integers(1, 8)), "room": int(rng.integers(1, 12)) << 20}
    result = rig.disturbed(out, fault)
    delivered = rig.refuse_wrong(out)
    assert (result.returncode == 0) == delivered or result.returncode < 0, result.stderr
    if result.returncode > 0:
        assert (said(result), result.returncode) in (("out-of-memory", 5), ("disk", 5), ("unreadable-window", 3)), result.stderr
    rig.resume(out)
    return result.returncode != 0


@pytest.mark.full
def test_many_processes_without_memory(rig: Rig, tmp_path: Path) -> None:
    assert sum(without_memory(rig, tmp_path / str(seed), seed) for seed in range(10, 22)) > 3


def test_no_memory_in_this_process(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise MemoryError("Unable to allocate 3 GiB")

    with monkeypatch.context() as patch:
        patch.setattr("aftermap.predict.median_of", none)
        with pytest.raises(JobInterruptedError, match="no memory left") as told:
            rig.map(tmp_path / "out")
    assert told.value.code == "out-of-memory"
    rig.resume(tmp_path / "out")


def test_a_fault_of_ours_shows_no_traceback(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def broken(*_: object, **__: object) -> None:
        raise IndexError("list index out of range")

    monkeypatch.setattr("aftermap.predict.median_of", broken)
    result = CliRunner().invoke(main, ["map", "--after", str(rig.files["after"]), "--hazard", "flood", "-o", str(tmp_path / "o")])
    assert result.exit_code == 1
    assert "a fault of ours: IndexError: list index out of range [internal]" in result.stderr
    assert "Traceback" not in result.output
    (kept,) = (tmp_path / "cache" / "aftermap").glob("fault-*.txt")
    assert "in broken" in kept.read_text()
    assert str(kept) in result.stderr.replace("\n", "")
