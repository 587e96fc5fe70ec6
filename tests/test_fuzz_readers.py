"""Readers on damaged files, as hypothesis damages them: our own errors and no others. The longer run is benchmarks/fuzz.py."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fuzz import mutated
from benchmarks.fuzz_readers import READERS, Reader, kind_of

FEW, MANY = 20, 600


def _opened(name: str, folder: Path) -> tuple[Reader, Path, list[bytes]]:
    reader = READERS[name]
    path = folder / reader.file
    path.parent.mkdir(parents=True, exist_ok=True)
    return reader, path, reader.seeds(folder)


def _outcome(reader: Reader, path: Path, data: bytes) -> str:
    path.write_bytes(data)
    try:
        reader.act(path)
    except Exception as error:  # noqa: BLE001 - which of them are faults is what is asked
        return kind_of(error, reader)
    return "read"


@pytest.mark.parametrize("name", READERS)
def test_a_seed_is_read(name: str, tmp_path: Path) -> None:
    reader, path, seeds = _opened(name, tmp_path)
    assert "read" in {_outcome(reader, path, seed) for seed in seeds}


def _damaged(name: str, folder: Path, examples: int) -> None:
    reader, path, seeds = _opened(name, folder)

    @settings(max_examples=examples, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(which=st.integers(0, len(seeds) - 1), how=st.integers(0, 2**32), cut=st.integers(0, 4000))
    def law(which: int, how: int, cut: int) -> None:
        data = mutated(seeds[which], reader.known, Random(how))
        found = _outcome(reader, path, data[:cut] if how % 5 == 0 else data)
        assert not found.startswith("fault"), found

    law()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numbers beyond float32 become infinite, which is said and is no fault
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_refused_or_read(name: str, tmp_path: Path) -> None:
    _damaged(name, tmp_path, FEW)


@pytest.mark.full
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", READERS)
def test_many_damaged_files_are_refused_or_read(name: str, tmp_path: Path) -> None:
    _damaged(name, tmp_path, MANY)
