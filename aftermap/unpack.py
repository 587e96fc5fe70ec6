"""Archives unpacked safely: no member outside the folder, no link, no bomb, and nothing half there after a kill."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from aftermap import limits
from aftermap.archive import DAMAGED
from aftermap.datasets.dataset import extra_missing
from aftermap.errors import InputRefusedError, JobInterruptedError, RasterError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.zst")
_BLOCK = 1 << 20
_DAMAGED = (*DAMAGED, tarfile.TarError, ValueError)
"""pyarrow's zstd gives OSError without a number, or ValueError."""


def is_archive(path: Path) -> bool:
    """True for the name of an archive that can be unpacked."""
    return path.name.lower().endswith(SUFFIXES)


def unpack(path: Path, folder: Path) -> int:
    """Unpacks a zip or tar into `folder` and returns how many files; done once, marked by NAME.unpacked beside the archive.

    Files go into a hidden folder first and are moved when all are there. Raises RasterError ("archive-unsafe",
    "archive-damaged") and JobInterruptedError ("disk").
    """
    mark = path.with_name(path.name + ".unpacked")
    if mark.exists() and mark.stat().st_mtime >= path.stat().st_mtime:
        return 0
    stage = folder / f".unpacking-{path.name}"
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    try:
        count = _unzip(path, stage) if path.name.lower().endswith(".zip") else _untar(path, stage)
        for file in sorted(p for p in stage.rglob("*") if p.is_file()):
            place = folder / file.relative_to(stage)
            place.parent.mkdir(parents=True, exist_ok=True)
            file.replace(place)
    except _DAMAGED as error:
        if getattr(error, "errno", None) is not None:
            raise  # the disk, not the archive
        raise RasterError(
            f"{path.name} is damaged, cut off or locked: {error}", repair="fetch it again", code="archive-damaged"
        ) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    mark.touch()
    return count


def _unzip(path: Path, stage: Path) -> int:
    with zipfile.ZipFile(path) as held:
        members = [m for m in held.infolist() if not m.is_dir()]
        _refuse_large(path, sum(m.file_size for m in members), stage)
        for member in members:
            place = _place(stage, member.filename, path)
            if (member.external_attr >> 16) & 0o170000 == 0o120000:
                raise _unsafe(path, f"holds a link, {member.filename}")
            with held.open(member) as source, place.open("wb") as target:
                shutil.copyfileobj(source, target, _BLOCK)
    return len(members)


def _untar(path: Path, stage: Path) -> int:
    count = total = 0
    with _tar(path) as held:
        for member in held:
            if member.isdir():
                continue
            if not member.isfile():
                raise _unsafe(path, f"holds a link or device, {member.name}")
            total, count = total + member.size, count + 1
            _refuse_large(path, total, stage, needed=member.size)
            source = held.extractfile(member)
            assert source is not None
            with source, _place(stage, member.name, path).open("wb") as target:
                shutil.copyfileobj(source, target, _BLOCK)
    return count


@contextmanager
def _tar(path: Path) -> Iterator[tarfile.TarFile]:
    if not path.name.lower().endswith(".zst"):
        with tarfile.open(path) as held:
            yield held
        return
    try:
        import pyarrow  # its zstd: Python 3.11 has none of its own
    except ImportError as error:
        raise extra_missing("pyarrow") from error
    with pyarrow.CompressedInputStream(str(path), "zstd") as stream, tarfile.open(fileobj=stream, mode="r|") as held:
        yield held


def _place(stage: Path, name: str, path: Path) -> Path:
    inner = PurePosixPath(name.replace("\\", "/"))
    if not inner.parts or inner.is_absolute() or ".." in inner.parts or ":" in inner.parts[0]:
        raise _unsafe(path, f"names a file outside itself, {name}")
    place = stage / inner
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _refuse_large(path: Path, unpacked: int, stage: Path, *, needed: int | None = None) -> None:
    ratio = limits.most("ARCHIVE_RATIO")
    if unpacked > ratio * path.stat().st_size:
        raise _unsafe(path, f"claims to unpack to {unpacked:,} bytes, more than {ratio} times its own")
    free = shutil.disk_usage(stage).free
    if (unpacked if needed is None else needed) > free:
        raise JobInterruptedError(
            f"{path.name} needs {unpacked:,} bytes and {free:,} are free",
            repair="free space and run the same command",
            code="disk",
        )


def _unsafe(path: Path, why: str) -> InputRefusedError:
    return RasterError(f"{path.name} {why}", repair="do not trust its publisher", code="archive-unsafe")
