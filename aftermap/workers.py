"""Units of work here, in processes of this machine or on a Dask cluster; each may be done twice and comes out the same.

The door to Dask, which gives a unit that lost its worker to another. Workers see the same files under the same absolute paths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from aftermap.errors import JobInterruptedError, UsageError

T = TypeVar("T")


class Workers(Protocol):
    """What does units of work."""

    def __call__(self, act: Callable[..., T], units: Sequence[tuple[Any, ...]]) -> Iterator[T]:
        """What `act` makes of the arguments of each, in their order; small, for it may come from afar."""


def here(act: Callable[..., T], units: Sequence[tuple[Any, ...]]) -> Iterator[T]:
    """One after the other, in this process."""
    return (act(*unit) for unit in units)


@contextmanager
def workers(count: int = 0, cluster: str = "") -> Iterator[Workers]:
    """Those of a cluster by its address, or so many processes of this machine; of neither, this process.

    Raises UsageError ("extra-missing", "no-cluster", "usage").
    """
    if count and cluster:
        raise UsageError(f"--workers {count} and --cluster {cluster}", repair="give one of them")
    if not count and not cluster:
        yield here
        return
    library = _dask()
    with _client(library, count, cluster) as client:

        def spread(act: Callable[..., T], units: Sequence[tuple[Any, ...]]) -> Iterator[T]:
            futures = [client.submit(act, *unit, pure=False) for unit in units]
            try:
                yield from (future.result() for future in futures)
            except library.KilledWorker as error:
                raise JobInterruptedError(f"a unit of work lost every worker that it was given to: {error}",
                                          repair="give workers more memory, and run the same command again",
                                          code="workers-lost") from error  # fmt: skip

        yield spread


@contextmanager
def _client(library: Any, count: int, cluster: str) -> Iterator[Any]:
    if cluster:
        try:
            client = library.Client(cluster)
        except (OSError, ValueError) as error:
            what = f"no Dask scheduler answers at {cluster}: {error}"
            raise UsageError(what, repair="give its address: tcp://HOST:8786", code="no-cluster") from error
        with client:
            yield client
        return
    own = library.LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=None)
    with own, library.Client(own) as client:
        yield client


def _dask() -> Any:
    try:
        import distributed
    except ImportError as error:
        what = "distributed, which spreads work over workers, is not installed"
        raise UsageError(what, repair='pip install "aftermap[cloud]"', code="extra-missing") from error
    return distributed
