"""Files over HTTP: resumed where they were cut, checked by size and checksum, and there under their name only when whole."""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from aftermap.datasets.dataset import Source
from aftermap.errors import InputRefusedError, JobInterruptedError

ATTEMPTS = 6
TIMEOUT_S = 60
"""A server that says nothing for that long counts as a cut connection."""
_BLOCK = 1 << 20
_AGAIN = (408, 425, 429, 500, 502, 503, 504)
"""HTTP states that may pass by themselves."""
_CUT = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)
_AGENT = {"User-Agent": "aftermap"}
Progress = Callable[[str, int, int], None]


def fetch(source: Source, folder: Path, *, progress: Progress | None = None, sleep: Callable[[float], None] = time.sleep) -> Path:
    """The file of a source in `folder`, fetched unless it is there and right.

    What a cut connection left is in NAME.part and is gone on with; between attempts the wait doubles from 1 s. Raises
    InputRefusedError ("checksum-mismatch", "not-fetched") and JobInterruptedError ("connection", "disk").
    """
    target = inside(folder, source.path)
    if target.is_file():
        refuse_wrong(target, source)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    for attempt in range(ATTEMPTS):
        try:
            if _go_on(source, part, progress):
                break
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in _AGAIN:
                raise _refused(source, f"the server answers {error.code} {error.reason}") from error
            said: Exception | None = error
        except _CUT as error:
            said = error
        else:
            said = None  # the server closed before the end
        if attempt == ATTEMPTS - 1:
            raise JobInterruptedError(
                f"{source.url} broke off {ATTEMPTS} times: {said or 'the connection was closed early'}", code="connection"
            )
        sleep(2.0**attempt)
    try:
        refuse_wrong(part, source)
    except InputRefusedError:
        _forget(part)
        raise
    os.replace(part, target)
    _forget(part)
    return target


def _go_on(source: Source, part: Path, progress: Progress | None) -> bool:
    """Fetches from where `part` ends; True when the file is complete. A server that cannot go on sends it all again."""
    have = part.stat().st_size if part.exists() else 0
    if have and have == source.bytes:
        return True
    mark = _mark(part).read_text(encoding="utf-8") if have and _mark(part).exists() else ""
    headers = dict(_AGENT)
    if have:
        # If-Range: a file that changed meanwhile comes whole, not as a tail that does not fit.
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": mark} if mark else {})
    try:
        answer = urllib.request.urlopen(urllib.request.Request(source.url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        error.close()
        _forget(part)  # it has fewer bytes than we: another file
        return False
    with answer:
        resumed = answer.status == 206 and _starts_at(answer.headers.get("Content-Range", "")) == have
        if answer.status == 206 and not resumed:
            _forget(part)  # another part than was asked for
            return False
        start = have if resumed else 0
        length = answer.headers.get("Content-Length")
        whole = start + int(length) if length is not None else source.bytes
        etag = answer.headers.get("ETag", "")
        _mark(part).write_text("" if etag.startswith("W/") else etag, encoding="utf-8")
        done = _pour(answer, part, start, whole, source.path, progress)
    return whole is None or done == whole


def _pour(
    answer: http.client.HTTPResponse, part: Path, start: int, whole: int | None, name: str, progress: Progress | None
) -> int:
    """Writes the rest of a file from byte `start` and returns how many bytes there then are."""
    done = start
    with part.open("r+b" if start else "wb") as stream:
        stream.seek(start)
        stream.truncate()
        while True:
            try:
                block = answer.read1(_BLOCK)
            except http.client.IncompleteRead as cut:
                block = cut.partial
                _store(stream.write, block)
                raise
            if not block:
                return done
            _store(stream.write, block)
            done += len(block)
            if progress:
                progress(name, done, whole or done)


def _store(write: Callable[[bytes], object], block: bytes) -> None:
    try:
        write(block)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise JobInterruptedError(
                f"the disk is full: {error}", repair="free space and run the same command", code="disk"
            ) from error
        raise


def _starts_at(content_range: str) -> int:
    """First byte of "bytes 100-199/1000"; -1 where that says nothing."""
    first = content_range.removeprefix("bytes ").partition("-")[0].strip()
    return int(first) if first.isdigit() else -1


def refuse_wrong(path: Path, source: Source) -> None:
    """Raises InputRefusedError ("checksum-mismatch") where size or checksum are known and differ."""
    size = path.stat().st_size
    if source.bytes is not None and size != source.bytes:
        raise _mismatch(path, f"has {size:,} bytes, not {source.bytes:,}")
    if source.checksum is not None:
        kind, _, wanted = source.checksum.partition(":")
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, kind).hexdigest()
        if found != wanted.lower():
            raise _mismatch(path, f"has the {kind} {found}, not {wanted}")


def inside(folder: Path, name: str) -> Path:
    """A path below `folder`. Raises InputRefusedError ("archive-unsafe") for one that leads out of it."""
    target = (folder / name).resolve()
    if not target.is_relative_to(folder.resolve()) or target == folder.resolve():
        raise InputRefusedError(f"{name} leads out of {folder}", repair="do not trust its publisher", code="archive-unsafe")
    return folder / name


def _mark(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _mark(part).unlink(missing_ok=True)


def _mismatch(path: Path, what: str) -> InputRefusedError:
    return InputRefusedError(
        f"{path.name.removesuffix('.part')} {what}", repair="remove it and fetch it again", code="checksum-mismatch"
    )


def _refused(source: Source, why: str) -> InputRefusedError:
    return InputRefusedError(f"{source.url} cannot be fetched: {why}", repair="look at the home page", code="not-fetched")
