"""Work done ahead in threads, results in order and in bounded number: numpy and GDAL let go of the interpreter meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from mmap import mmap
from typing import ParamSpec, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
P = ParamSpec("P")
_THREAD_BYTES = 16 << 20
"""Its stack, 8 MB as a rule, and a heap."""


class Threads(ThreadPoolExecutor):
    """Threads that begin only where there is memory for one: CPython waits without end for one that dies of that as it begins
    (python/cpython#140746; found by the soak). Where there is none OSError (ENOMEM) comes out of `submit`."""

    def submit(self, fn: Callable[P, Result], /, *args: P.args, **kwargs: P.kwargs) -> Future[Result]:
        """As any executor; what is asked for is given back at once, and no page of it is touched."""
        mmap(-1, _THREAD_BYTES).close()
        return super().submit(fn, *args, **kwargs)


def ahead(work: Callable[[Item], Result], items: Iterable[Item], workers: int = 1) -> Generator[Result]:
    """The results of `work` for each item, in their order; at most `workers` wait or are worked on while the caller has one.

    An exception comes out where its result would have; nothing after it is begun.
    """
    with Threads(workers) as pool:
        coming: deque[Future[Result]] = deque()
        try:
            for item in items:
                coming.append(pool.submit(work, item))
                if len(coming) > workers:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for future in coming:
                future.cancel()


def one_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The items, each once the next has been drawn: what drawing one begins goes on while the caller has the one before."""
    waiting: deque[Item] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting
