"""What is measured of a process is its own."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from aftermap.measured import peak_mb


def test_the_most_memory_is_that_of_this_process_not_of_its_parent() -> None:
    large = np.ones(60_000_000)
    mine = peak_mb()
    told = subprocess.run([sys.executable, "-c", "from aftermap.measured import peak_mb; print(peak_mb())"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert mine is not None
    assert mine > large.nbytes / 2**20
    assert float(told.stdout) < 200
