"""A whole data set from its publisher: what to fetch, fetched, checked, unpacked; what must be fetched by hand is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aftermap import listing
from aftermap.datasets.dataset import Facts, Source
from aftermap.errors import InputRefusedError, UsageError
from aftermap.fetch import fetch, inside, refuse_wrong
from aftermap.unpack import is_archive, unpack


@dataclass(frozen=True)
class Fetched:
    """What lies in the folder now."""

    files: tuple[Path, ...]
    unchecked: tuple[str, ...]
    """Files whose checksum nobody states: only their size was checked, or not even that."""
    by_hand: tuple[str, ...]
    """Files that must be fetched by hand and are not there."""
    unpacked: int


def sources(facts: Facts) -> tuple[Source, ...]:
    """The files of a data set: as its publisher lists them today, with checksums; else as they are known here."""
    if not facts.record:
        return facts.sources
    try:
        return tuple(source for record in facts.record.split() for source in listing.files(record))
    except InputRefusedError:
        if facts.sources:
            return facts.sources
        raise


def acquire(
    facts: Facts, folder: Path, *, unpacking: bool = True, progress: Callable[[str, int, int], None] | None = None
) -> Fetched:
    """Fetches every file of a data set into `folder`; what is there and right is left alone.

    Raises UsageError ("by-hand") where nothing can be fetched and nothing is there.
    """
    found, by_hand, unchecked, count = [], [], [], 0
    for source in sources(facts):
        path = inside(folder, source.path)
        if source.url:
            path = fetch(source, folder, progress=progress)
        elif path.is_file():
            refuse_wrong(path, source)
        else:
            by_hand.append(source.path)
            continue
        found.append(path)
        unchecked += [] if source.checksum else [source.path]
        if unpacking and is_archive(path):
            count += unpack(path, path.parent)
    if not found:
        raise UsageError(
            f"{facts.title} cannot be fetched by a program", repair=facts.access or f"see {facts.home}", code="by-hand"
        )
    return Fetched(tuple(found), tuple(unchecked), tuple(by_hand), count)
