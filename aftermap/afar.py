"""One job's blocks given to workers: the job once to each, and compact groups of neighbouring blocks as units of work.

A group is walked row by row, so that tiles of deep networks are handed on within it (seamless.py), and scored again only at its
edges. What a worker finishes is kept (journal.py): who does a unit again goes on where the last one died.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from math import prod
from os import replace
from pathlib import Path
from typing import Any, TypeVar

from aftermap.errors import UsageError
from aftermap.journal import not_shared, partial, sha256
from aftermap.tiles import Window
from aftermap.workers import Workers

T = TypeVar("T")

MOST_AGAIN = 0.18
"""Share of tiles that may be scored twice so that there are more units."""
_LIBRARIES = ("aftermap", "numpy", "scipy", "rasterio", "openvino", "onnxruntime")
_ALONE = threading.Lock()
"""A job's readers are not for two threads at once: a worker of several does one unit after the other."""


@dataclass(frozen=True)
class Sent:
    """A job in a file that every worker reads once: also one that comes late, or was started anew."""

    path: Path
    sha256: str
    versions: str
    """Of what makes the pixels here."""

    @classmethod
    def of(cls, job: Any, work: Path) -> Sent:
        """Written into a work folder that all workers see."""
        written = partial(work, "job.pickle")
        written.write_bytes(pickle.dumps(job))
        key = sha256(written)
        path = work.absolute() / f"job-{key[:16]}.pickle"
        replace(written, path)
        return cls(path, key, _versions())


def spread(job: Any, act: Callable[[Any, Sequence[Window]], Iterable[T]], groups: Iterable[Sequence[Window]], work: Path,
           crew: Workers) -> Iterator[T]:  # fmt: skip
    """What `act` makes of the job and each group of blocks, block by block as groups are done.

    Raises what `act` raises, UsageError ("not-shared", "workers-differ"), JobInterruptedError.
    """
    sent = Sent.of(job, work)
    for made in crew(_unit, ((sent, act, tuple(group)) for group in groups), ordered=False):
        yield from made


def _unit(sent: Sent, act: Callable[[Any, Sequence[Window]], Iterable[T]], blocks: Sequence[Window]) -> list[T]:
    with _ALONE:
        return list(act(_known(sent), blocks))


@lru_cache(maxsize=1)
def _known(sent: Sent) -> Any:
    """The job, its graphs compiled and its files opened once. Read only where the client's hash is its own."""
    if (own := _versions()) != sent.versions:
        what = f"a worker has {own}, and the client {sent.versions}"
        raise UsageError(what, repair="give workers what is installed here", code="workers-differ")
    try:
        data = sent.path.read_bytes()
    except FileNotFoundError as error:
        raise not_shared(sent.path) from error
    if sha256(sent.path) != sent.sha256:
        raise not_shared(sent.path)
    return pickle.loads(data)


@lru_cache
def _versions() -> str:
    def of(library: str) -> str:
        try:
            return f"{library} {version(library)}"
        except PackageNotFoundError:
            return f"no {library}"

    return ", ".join(map(of, _LIBRARIES))


def grouped(blocks: Sequence[Window], tiles: tuple[int, int], many: int, *, handing: bool) -> list[list[Window]]:
    """Blocks, which stand row by row in a grid, in compact groups that stand so too; each alone where nothing is handed on.

    `tiles` (rows, columns) lie over the grid. Of the sides up to the least at which no more than MOST_AGAIN of them are scored
    twice, the one that `many` workers are done soonest with.
    """
    rows, cols = (sorted(set(at)) for at in zip(*((b.row, b.col) for b in blocks), strict=True))
    side = _side((len(rows), len(cols)), tiles, many) if handing else 1
    across, down = (_evenly(len(at), side) for at in (cols, rows))
    groups: dict[tuple[int, int], list[Window]] = {}
    for n, block in enumerate(blocks):
        groups.setdefault((down[n // len(cols)], across[n % len(cols)]), []).append(block)
    return list(groups.values())


def _side(blocks: tuple[int, int], tiles: tuple[int, int], many: int) -> int:
    """Blocks along each side of a group."""
    sides: dict[int, float] = {}
    for side in range(1, max(blocks) + 1):
        counts = [_evenly(length, side)[-1] + 1 for length in blocks]
        again = prod(1 + (count - 1) / length for count, length in zip(counts, tiles, strict=True))
        sides[side] = again * -(-prod(counts) // many) / prod(counts)
        if again <= 1 + MOST_AGAIN:
            break
    return min(sides, key=lambda side: sides[side])


def _evenly(length: int, side: int) -> list[int]:
    """The group of each of so many blocks in a row, as equal as can be, of at most about `side` each."""
    count = max(round(length / side), 1)
    return [k * count // length for k in range(length)]
