"""Work done ahead comes out in order, in bounded number, and so does an error."""

from __future__ import annotations

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
