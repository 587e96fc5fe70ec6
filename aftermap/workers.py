"""Units of work here, in processes of this machine or on a Dask cluster; each may be done twice and comes out the same.

The door to Dask, which gives a unit that lost its worker to another. Workers see the same files under the same absolute paths.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

from aftermap.errors import JobInterruptedError, UsageError

T = TypeVar("T")

AHEAD = 3
"""Units that are handed out for each worker: what is in flight takes as much memory whatever there is to do."""
DEATHS = 20
"""Workers that may die over one unit before it is taken to kill them."""
OWN: dict[str, Any] = {
    "distributed.worker.profile.enabled": False,
    "distributed.nanny.pre-spawn-environ": dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    | {"MALLOC_ARENA_MAX": "2"},
}
"""Dask's settings for workers of this machine. Its profile keeps a tree of calls for each second of an hour, 0.1 MB each, and its
own environment hands every freed page back at once, which is to be faulted in again: half of the time of a cheap method. With two
arenas threads that come and go leave less behind (docs/cloud.md)."""


class Workers(Protocol):
    """What does units of work."""

    @property
    def count(self) -> int:
        """How many there are now, at least one. Raises JobInterruptedError ("scheduler-lost")."""
        ...

    def __call__(self, act: Callable[..., T], units: Iterable[tuple[Any, ...]], *, ordered: bool = True) -> Iterator[T]:
        """What `act` makes of the arguments of each, in their order or as they are done; small, for it may come from afar."""
        ...


class _Here:
    """One after the other, in this process."""

    count = 1

    def __call__(self, act: Callable[..., T], units: Iterable[tuple[Any, ...]], *, ordered: bool = True) -> Iterator[T]:
        return (act(*unit) for unit in units)


here = _Here()


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
        yield _Afar(library, client)


@dataclass(frozen=True)
class _Flight:
    """A unit that is handed out, its place among all, and how many workers died over it."""

    place: int
    unit: tuple[Any, ...]
    deaths: int = 0


@dataclass(frozen=True)
class _Afar:
    """The workers of a client."""

    library: Any
    client: Any

    @property
    def count(self) -> int:
        try:
            return max(len(self.client.nthreads()), 1)
        except (OSError, RuntimeError, self.library.CancelledError) as error:
            raise _lost(error) from error

    def __call__(self, act: Callable[..., T], units: Iterable[tuple[Any, ...]], *, ordered: bool = True) -> Iterator[T]:
        found = self._done(act, units)
        return _in_order(found) if ordered else (result for _, result in found)

    def _done(self, act: Callable[..., T], units: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, T]]:
        """Places and results as they come. Raises JobInterruptedError ("workers-lost", "scheduler-lost"), and what `act` does."""
        coming = (_Flight(place, unit) for place, unit in enumerate(units))
        flying: dict[str, _Flight] = {}
        done = self.library.as_completed()

        def hand_out(flights: Iterable[_Flight]) -> None:
            for flight in flights:
                future = self.client.submit(act, *flight.unit, pure=False)
                flying[future.key] = flight
                done.add(future)

        hand_out(islice(coming, AHEAD * self.count))
        while flying:
            future = next(done)
            flight = flying.pop(future.key)
            try:
                result = self._result(future)
            except self.library.KilledWorker as error:
                hand_out([_after(flight, error)])
                continue
            hand_out(islice(coming, max(AHEAD * self.count - len(flying), 0)))
            yield flight.place, result

    def _result(self, future: Any) -> Any:
        """Raises what the unit raised, JobInterruptedError ("scheduler-lost") where none will tell, UsageError ("workers-differ")
        where the scheduler or a worker cannot read the unit."""
        try:
            return future.result()
        except (OSError, RuntimeError, self.library.CancelledError) as error:
            if future.status != "error":
                raise _lost(error) from error
            if "deserializ" in str(error):
                what = f"the cluster cannot read what it is given: {str(error).splitlines()[0]}"
                repair = "give scheduler and workers what is installed here"
                raise UsageError(what, repair=repair, code="workers-differ") from error
            raise


def _in_order(found: Iterable[tuple[int, T]]) -> Iterator[T]:
    """Results by their places from 0; those that come early wait."""
    early: dict[int, T] = {}
    place = 0
    for number, result in found:
        early[number] = result
        while place in early:
            yield early.pop(place)
            place += 1


def _after(flight: _Flight, error: Exception) -> _Flight:
    """The unit once more, which lost a worker. Raises JobInterruptedError ("workers-lost")."""
    if flight.deaths + 1 < DEATHS:
        return _Flight(flight.place, flight.unit, flight.deaths + 1)
    what = f"a unit of work lost every worker that it was given to, {DEATHS} in all: {error}"
    repair = "give workers more memory, and run the same command again"
    raise JobInterruptedError(what, repair=repair, code="workers-lost") from error


def _lost(error: BaseException) -> JobInterruptedError:
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # which goes on about it
    what = f"the Dask scheduler is gone ({type(error).__name__}); what was finished is kept"
    return JobInterruptedError(what, repair="start a scheduler, and run the same command again", code="scheduler-lost")


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
    once = {"allowed_failures": 0, "dashboard": False}  # each death is told, and counted here
    nowhere = "127.0.0.1:0"  # any free port: two runs of one machine do not meet
    from dask import config

    with config.set(OWN):
        own = library.LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=nowhere, scheduler_kwargs=once)
        with own, library.Client(own) as client:
            yield client


def _dask() -> Any:
    try:
        import distributed
    except ImportError as error:
        what = "distributed, which spreads work over workers, is not installed"
        raise UsageError(what, repair='pip install "aftermap[cloud]"', code="extra-missing") from error
    return distributed
