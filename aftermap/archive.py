"""Members of a zip file as paths, read where they lie: `x.zip/folder/image.tif` is opened by GDAL, and nothing is unpacked."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from aftermap import limits
from aftermap.errors import RasterError

DAMAGED = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError, IndexError,
    OverflowError,
)  # fmt: skip
"""What reading a member of a damaged or locked zip raises; a locked one gives RuntimeError."""
_READ_BYTES = 1 << 20


def is_zip(path: Path) -> bool:
    """True for a zip file itself."""
    return path.suffix.lower() == ".zip" and path.is_file()


def home(path: Path) -> Path:
    """The file on disk that holds a path: the zip file of a member, any other path itself."""
    return next((parent for parent in path.parents if is_zip(parent)), path)


def homes(paths: Iterable[Path]) -> list[Path]:
    """The files on disk that hold the paths, each once."""
    return list(dict.fromkeys(home(path) for path in paths))


def gdal_name(path: Path) -> str:
    """The name by which GDAL opens a path."""
    holder = home(path)
    return str(path) if holder == path else f"/vsizip/{{{holder}}}/{_inner(path, holder)}"


def size(path: Path) -> int:
    """Bytes of a file, or of a member as it would be unpacked."""
    holder = home(path)
    if holder == path:
        return path.stat().st_size
    with zipfile.ZipFile(holder) as held:
        return held.getinfo(_inner(path, holder)).file_size


def text(path: Path) -> str:
    """A file or member as text; bytes that are no UTF-8 are replaced."""
    holder = home(path)
    if holder == path:
        return path.read_text(encoding="utf-8", errors="replace")
    with zipfile.ZipFile(holder) as held:
        return held.read(_inner(path, holder)).decode("utf-8", errors="replace")


def files(path: Path) -> list[Path]:
    """Every file below a folder or in a zip file, sorted. Raises RasterError: "archive-damaged", "archive-unsafe"."""
    if not is_zip(path):
        return sorted(p for p in path.rglob("*") if p.is_file())
    try:
        with zipfile.ZipFile(path) as held:
            members = [m for m in held.infolist() if not m.is_dir()]
    except DAMAGED as error:  # IndexError of a member without a name
        raise _damaged(path, str(error)) from error
    _refuse_unsafe(path, members)
    return sorted(path / m.filename for m in members)


def check(paths: Sequence[Path]) -> None:
    """Reads the members among the paths once: bytes that differ from their checksum show nowhere else. Raises RasterError."""
    for holder in homes(p for p in paths if home(p) != p):
        for path in (p for p in paths if home(p) == holder):
            try:
                with zipfile.ZipFile(holder) as held, held.open(_inner(path, holder)) as member:
                    while member.read(_READ_BYTES):
                        pass
            except (*DAMAGED, KeyError) as error:
                raise _damaged(holder, f"{path.name}: {error}") from error


def _inner(path: Path, holder: Path) -> str:
    return path.relative_to(holder).as_posix()


def _damaged(path: Path, why: str) -> RasterError:
    return RasterError(
        f"{path.name} is damaged, cut off or locked: {why}", repair="copy or download it again", code="archive-damaged"
    )


def _refuse_unsafe(path: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    stray = next((m.filename for m in members if m.filename.startswith("/") or ".." in PurePosixPath(m.filename).parts), None)
    unpacked = sum(m.file_size for m in members)
    most, ratio = limits.most("ARCHIVE_MEMBERS"), limits.most("ARCHIVE_RATIO")
    if len(members) > most:
        why = f"holds {len(members):,} files, more than {most:,}"
    elif unpacked > ratio * path.stat().st_size:  # an archive that states more has members that overlap
        why = f"claims to unpack to {unpacked:,} bytes, more than {ratio} times its own"
    elif stray is not None:
        why = f"names a file outside itself, {stray}"
    else:
        return
    raise RasterError(f"{path.name} {why}", repair="pack the images alone, or give them unpacked", code="archive-unsafe")
