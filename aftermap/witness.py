"""Whether the files that a map is made from are still those that its hashes are of: one that is replaced meanwhile is refused.

Files are stamped (inode, size, times) before anything is read of them, and hashed after that. Whoever made a block looks at the
stamps before it keeps the block, and whoever delivers before the seal: what is kept was read from the content that was hashed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from aftermap import archive, vrtfile
from aftermap.errors import InputRefusedError
from aftermap.journal import sha256


class Stamp(NamedTuple):
    """What a write changes; `ctime_ns` alone also where a file is linked, or its mode or times are set."""

    inode: int
    bytes: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Raises OSError where there is no file."""
        found = path.stat()
        return cls(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@dataclass
class Witness:
    """Of some files."""

    stamps: dict[Path, Stamp] = field(default_factory=dict)
    hashes: dict[Path, str] = field(default_factory=dict)
    """Of those that something was made from: only these are looked at again."""
    named: dict[Path, tuple[Path, ...]] = field(default_factory=dict)
    """File -> others that its pixels come from: the sources of a virtual raster, and masks beside either (X.msk)."""
    abroad: bool = False
    """In another process, maybe on another machine, whose inodes and times may be others: there the content decides at first."""

    def __getstate__(self) -> dict[str, Any]:
        """For other processes, which may work in another folder."""
        paths = self.hashes
        return {
            "stamps": {p.absolute(): self.stamps[p] for p in paths}, "hashes": {p.absolute(): paths[p] for p in paths},
            "named": {}, "abroad": True,
        }  # fmt: skip

    @classmethod
    def of(cls, images: Iterable[Path], others: Iterable[Path | None] = (), *, following: bool = True) -> Witness:
        """Of files, and of all in folders and archives, before any is read; what is not there is for others to refuse. Of images
        with `following` also of what they name: those of a catalog do so by hashes. Raises as vrtfile.sources."""
        seen = [file for path in images for file in _files(path)]
        named = {path: found for path in seen if following and (found := _named(path))}
        paths = [*seen, *chain(*named.values()), *(file for path in others if path for file in _files(path))]
        return cls({path: Stamp.of(path) for path in paths if path.is_file()}, named=named)

    def sha256(self, path: Path) -> str:
        """Of a file. Raises InputRefusedError ("input-changed")."""
        if path not in self.hashes:
            try:
                self.stamps.setdefault(path, Stamp.of(path))
                self.hashes[path] = sha256(path)
            except OSError as error:
                raise _changed(path, "is gone") from error
        return self.hashes[path]

    def take(self, methods: Iterable[Any]) -> None:
        """Watches the files that networks are compiled from, too, whose cards have their hashes."""
        for network in (one for method in methods for one in _networks(method)):
            for name, known in network.card.sha256.items():
                if (path := network.folder / name).is_file() and self.sha256(path) != known:
                    raise _changed(path, "has other bytes")

    @contextmanager
    def judging(self) -> Iterator[None]:
        """What fails meanwhile failed for a file that was replaced, where one was. Raises InputRefusedError ("input-changed")."""
        try:
            yield
        except Exception:
            self.refuse_changed()
            raise

    def refuse_changed(self) -> None:
        """Raises InputRefusedError ("input-changed") where a file is not as it was when it was stamped."""
        for path in self.hashes:
            try:
                now = Stamp.of(path)
                if now != self.stamps[path]:
                    self._judge(path, now)
            except OSError as error:
                raise _changed(path, "is gone") from error
        self.abroad = False

    def _judge(self, path: Path, now: Stamp) -> None:
        """Takes the new stamp where the content is the same and, on this machine, no more than its attributes were touched."""
        touched = self.abroad or now[:3] == self.stamps[path][:3]
        if not touched or sha256(path) != self.hashes[path]:
            was = self.stamps[path].bytes
            raise _changed(path, "has other bytes" if was == now.bytes else f"had {was:,} bytes and has {now.bytes:,}")
        self.stamps[path] = now


def _files(path: Path) -> list[Path]:
    if path.suffix.lower() == ".shp":
        return sorted(path.parent.glob(f"{path.stem}.*"))
    return [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [archive.home(path)]


def _named(path: Path) -> tuple[Path, ...]:
    virtual = path.is_file() and vrtfile.is_vrt(path)
    sources = dict.fromkeys(vrtfile.sources(path) if virtual else ())
    masks = (one.with_name(f"{one.name}.msk") for one in (path, *sources))
    return (*sources, *(mask for mask in masks if mask.is_file()))


def _changed(path: Path, how: str) -> InputRefusedError:
    return InputRefusedError(
        f"{path.name} was replaced or written to while it was mapped: it {how}",
        repair="wait until it is whole, then run the same command: what was made of it is dropped", code="input-changed",
    )  # fmt: skip


def _networks(method: Any) -> Iterator[Any]:
    """What has a folder and a card among a method, what it wraps and its members."""
    if hasattr(method, "folder"):
        yield method
    else:
        for inner in (getattr(method, "network", None), *getattr(method, "members", ())):
            yield from _networks(inner) if inner is not None else ()
