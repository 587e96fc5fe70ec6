"""Work done ahead comes out in order, in bounded number, and so does an error."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from aftermap.ahead import ahead


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order_and_in_bounded_number(workers: int) -> None:
    begun = 0

    def count() -> Iterator[int]:
        nonlocal begun
        for item in range(20):
            begun += 1
            yield item

    for done, result in enumerate(ahead(lambda item: item**2, count(), workers)):
        assert result == done**2
        assert begun <= done + workers + 1
    assert begun == 20


def test_an_error_comes_out_in_its_place_and_nothing_is_left_running() -> None:
    running = threading.active_count()
    results = ahead(lambda item: 1 // item, [1, 0, 1])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert threading.active_count() == running


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are of Linux")
def test_no_thread_is_waited_for_that_has_no_memory_to_begin() -> None:
    """With room for its stack and little more it died, and was waited for without end (found by the soak)."""
    code = """
import os, resource, sys
from errno import ENOMEM
from pathlib import Path
from aftermap.ahead import ahead
held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
resource.setrlimit(resource.RLIMIT_AS, (held + (9 << 20), -1))
try:
    print(list(ahead(len, ["a"])))
except OSError as error:
    assert error.errno == ENOMEM
    print("told")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "told\n", done.stderr
