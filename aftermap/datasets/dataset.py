"""What every data set gives: facts, members by split and event, and chips; a member that cannot be read is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, Literal

from aftermap import pieces
from aftermap.chips import Chip
from aftermap.errors import AftermapError, InputRefusedError, UnknownNameError, UsageError

Corrupt = Literal["stop", "skip"]
_BROKEN = (OSError, ValueError, KeyError, IndexError, EOFError, RuntimeError, TypeError, AttributeError, AssertionError,
           StopIteration, ArithmeticError, MemoryError, SystemError, InputRefusedError)  # fmt: skip
"""What a damaged file makes the libraries raise: h5py OSError and RuntimeError, zarr and pyarrow ValueError and KeyError; and
what values of a kind that it never met make the rest of a reader raise."""


@dataclass(frozen=True)
class Source:
    """A file to fetch: where, under which name, its size in bytes and checksum "md5:..." or "sha256:..."; None: unknown."""

    url: str
    path: str
    bytes: int | None = None
    checksum: str | None = None


@dataclass(frozen=True)
class Facts:
    """What a person must know before using a data set."""

    title: str
    licence: str
    citation: str
    home: str
    sources: tuple[Source, ...] = ()
    record: str = ""
    """A record whose publisher lists files, sizes and checksums: "zenodo:7189381", "hf:owner/name", "gcs:bucket/prefix";
    several with a space between."""
    access: str = ""
    """Why and where one must ask first; empty where anybody may fetch."""
    cautions: tuple[str, ...] = ()
    """What has misled users of this data set."""


@dataclass(frozen=True)
class Member:
    """One chip to be: its files by role, and its place within them."""

    name: str
    split: str
    event: str
    files: Mapping[str, Path]
    place: Any = None


@dataclass(frozen=True)
class Dataset:
    """Chips on disk. `ids` of a split ("" for all), `read` one; or `chips`, which goes over many."""

    name: str
    folder: Path
    facts: Facts
    bands: tuple[str, ...]
    unit: str | tuple[str, ...]
    classes: tuple[str, ...]
    """Name of each class code from 0 on; 255 is unknown."""
    members: Mapping[str, Member] = field(repr=False)
    load: Callable[[Member], Chip] = field(repr=False)
    absent: tuple[str, ...] = ()
    """What the data set lists and the folder lacks."""
    asked: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Settings that it was opened with."""

    def __reduce__(self) -> tuple[Any, ...]:
        """To another process it goes as what opens it there."""
        return partial(open_dataset, self.folder, self.name, **self.asked), ()

    @property
    def units(self) -> tuple[str, ...]:
        """The unit of each band."""
        return (self.unit,) * len(self.bands) if isinstance(self.unit, str) else self.unit

    @property
    def splits(self) -> tuple[str, ...]:
        """Official splits that are there, in the order found."""
        return tuple(dict.fromkeys(m.split for m in self.members.values()))

    @property
    def events(self) -> tuple[str, ...]:
        """Events, sorted; chips of one event belong on one side of every split."""
        return tuple(sorted({m.event for m in self.members.values()}))

    def ids(self, split: str = "", *, events: Iterable[str] | None = None) -> list[str]:
        """Names of chips of an official split, or of these events, or both. Raises UnknownNameError."""
        if split and split not in self.splits:
            raise UnknownNameError("split", split, self.splits)
        wanted = None if events is None else set(events)
        for stranger in (wanted or set()) - set(self.events):
            raise UnknownNameError("event", stranger, self.events)
        return [n for n, m in self.members.items() if split in ("", m.split) and (wanted is None or m.event in wanted)]

    def sizes(self) -> dict[str, int]:
        """Chips per event."""
        return dict(sorted(Counter(m.event for m in self.members.values()).items()))

    def read(self, name: str) -> Chip:
        """The chip of that name. Raises InputRefusedError ("corrupt-member") when its files are missing, damaged or strange."""
        if name not in self.members:
            raise UnknownNameError("chip", name, self.members)
        try:
            return self.load(self.members[name])
        except _BROKEN as error:
            if getattr(error, "code", "") == "truth-ambiguous":
                raise  # a question to the user, not a fault of this member
            raise InputRefusedError(
                f"{name} of {self.name} cannot be read: {getattr(error, 'what', error)}",
                repair=f"{getattr(error, 'repair', '') or 'fetch it again'}, or go on without it (on_corrupt='skip')",
                code="corrupt-member",
            ) from error

    def chips(self, names: Sequence[str] | None = None, *, on_corrupt: Corrupt = "stop") -> Pass:
        """One pass over chips, all by default."""
        return Pass(self, list(self.members) if names is None else names, on_corrupt)


class Pass:
    """One pass over chips. With "stop" the first that cannot be read raises; with "skip" it is listed in `corrupt`."""

    def __init__(self, dataset: Dataset, names: Sequence[str], on_corrupt: Corrupt = "stop"):
        if on_corrupt not in ("stop", "skip"):
            raise UsageError(f"on_corrupt is {on_corrupt!r}", repair="say stop or skip")
        self._dataset, self._names, self._skip = dataset, names, on_corrupt == "skip"
        self.corrupt: list[InputRefusedError] = []
        """Of the latest pass: what could not be read, and why."""

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[Chip]:
        self.corrupt.clear()
        for name in self._names:
            try:
                yield self._dataset.read(name)
            except InputRefusedError as error:
                if not self._skip or error.code != "corrupt-member":
                    raise
                self.corrupt.append(error)


@dataclass(frozen=True)
class Published:
    """A data set as published: its facts, and how a folder in its official layout is opened."""

    name: str
    facts: Facts
    open: Callable[..., Dataset] = field(repr=False)

    @property
    def settings(self) -> tuple[str, ...]:
        """Names of what may be chosen on opening."""
        return tuple(n for n, p in signature(self.open).parameters.items() if p.kind == p.KEYWORD_ONLY)

    def __call__(self, folder: Path, **settings: Any) -> Dataset:
        """The data set in that folder. Raises InputRefusedError ("dataset-layout") where it is another's, ("corrupt-member")
        where its list of what it holds cannot be read; UnknownNameError."""
        for name in settings:
            if name not in self.settings:
                raise UnknownNameError("setting", name, self.settings)
        try:
            return replace(self.open(Path(folder), **settings), asked=settings)
        except AftermapError:
            raise
        except _BROKEN as error:
            what = f"what {folder} holds of {self.name} cannot be read: {error or type(error).__name__}"
            raise InputRefusedError(what, repair="fetch it again", code="corrupt-member") from error


def open_dataset(folder: Path, kind: str = "", **settings: Any) -> Dataset:
    """The data set in a folder; without a `kind` that whose layout it is. Raises InputRefusedError ("dataset-layout")."""
    if not folder.is_dir():
        raise InputRefusedError(f"there is no folder {folder}", repair="check the path", code="missing-file")
    return published(kind or _recognise(folder))(folder, **settings)


def _recognise(folder: Path) -> str:
    """The first data set, a plain folder last, whose layout this is."""
    for name in pieces.PIECES["dataset"]:
        try:
            published(name)(folder)
        except AftermapError as error:
            if error.code != "dataset-layout":
                return name  # its own layout, and some other trouble with it
        else:
            return name
    raise not_laid_out(folder, "any known data set", "name it with --kind; `aftermap data list` shows them")


def published(name: str) -> Published:
    """The data set of that name. Raises UnknownNameError."""
    found: Published = pieces.load("dataset", name)
    return found


def not_laid_out(folder: Path, title: str, wanted: str) -> InputRefusedError:
    """The error for a folder that is not laid out as a data set is."""
    return InputRefusedError(f"{folder} is not laid out as {title}", repair=wanted, code="dataset-layout")


def extra_missing(module: str) -> UsageError:
    """The error for an optional library that is not installed."""
    return UsageError(
        f"{module} is not installed, and the files are in its format",
        repair='pip install "aftermap[data]"',
        code="extra-missing",
    )
