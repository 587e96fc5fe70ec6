"""What the header of a TIFF claims, read without GDAL: a strict look at a file from outside before a library trusts it.

Nothing but the directories is read, each once. A file that passes may still be damaged; the doctor says so (check.py).
"""

from __future__ import annotations

import html
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from aftermap.errors import InputRefusedError

MOST_DIRECTORIES = 64
"""Overviews and masks of the largest images are some thirty."""
MOST_ENTRIES = 1024
_MOST_TAG_BYTES = 1 << 22
"""Of a tag that is read as text; lists of offsets are not read."""
SMALL_BYTES = 64 << 20
"""What unpacks to less is no bomb, however densely it is packed."""
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How TIFF and BigTIFF begin."""
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value of each type, by its code (TIFF 6.0 section 2; BigTIFF adds 16 to 18)."""
_WHOLE = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_WIDTH, _HEIGHT, _BITS, _BANDS, _ROWS, _TILE_WIDTH, _TILE_HEIGHT, _METADATA = 256, 257, 258, 277, 278, 322, 323, 42112
_ELSEWHERE = re.compile(r"overview_file|[xy]_dataset|rpc_dem", re.IGNORECASE)
"""Items of GDAL's metadata that name other files, or addresses, which GDAL would open for this one."""


@dataclass(frozen=True)
class Most:
    """What a header may claim."""

    pixels: int = 400_000_000
    bands: int = 64
    inflate: int = 200
    """Times its own size that a file may unpack to."""
    block_bytes: int = 400 << 20
    """Of one tile or strip unpacked, which is held in memory whole."""


@dataclass(frozen=True)
class Claims:
    """Of the first image in the file, in pixels."""

    width: int
    height: int
    bands: int
    bits: int


class _Form:
    """How the numbers of one file are written: byte order, and the widths of BigTIFF or TIFF."""

    def __init__(self, stream: BinaryIO, size: int):
        self.stream, self.size = stream, size
        start = stream.read(16)
        refuse_start(start)
        if len(start) < 8:
            raise damaged(f"it ends after {len(start)} bytes")
        self.order = {b"II": "<", b"MM": ">"}[start[:2]]
        self.big = self.unpack("H", start[2:4]) == (43,)
        if self.big and (len(start) < 16 or self.unpack("HH", start[4:8]) != (8, 0)):
            raise damaged("its BigTIFF header is none")
        self.first: int = self.unpack("Q", start[8:16])[0] if self.big else self.unpack("I", start[4:8])[0]
        self.count, self.entry, self.word = ("Q", "HHQ", 8) if self.big else ("H", "HHI", 4)

    def unpack(self, form: str, data: bytes) -> tuple[int, ...]:
        return struct.unpack(self.order + form, data)

    def at(self, offset: int, length: int) -> bytes:
        """Bytes of the file. Raises InputRefusedError where they lie beyond its end."""
        if not 0 <= offset <= self.size - length:
            raise damaged(f"it points to byte {offset + length:,} and has {self.size:,}")
        self.stream.seek(offset)
        return self.stream.read(length)


def refuse_start(start: bytes) -> None:
    """Raises InputRefusedError ("not-geotiff") where no TIFF begins with these bytes, however few they are."""
    if not any(start[:4] == magic[: len(start)] for magic in MAGIC):
        raise refused("is no GeoTIFF", "give a GeoTIFF: gdal_translate -of COG makes one of most formats", code="not-geotiff")


def refused(what: str, repair: str, *, code: str) -> InputRefusedError:
    """Of a file whose name is said elsewhere."""
    return InputRefusedError(f"the file {what}", repair=repair, code=code)


def damaged(what: str) -> InputRefusedError:
    """Cut off, or made to mislead."""
    return refused(f"is truncated or damaged: {what}", "copy or download it again", code="truncated")


def claims(path: Path, most: Most) -> Claims:
    """What a file claims to be. Raises InputRefusedError: "not-geotiff", "truncated", "too-many-pixels", "too-many-bands",
    "inflates", "names-files"."""
    size = os.path.getsize(path)
    with path.open("rb") as stream:
        form = _Form(stream, size)
        told = [_directory(form, tags, most) for tags in _directories(form)]
    return told[0]


def _directories(form: _Form) -> Iterator[dict[int, tuple[int, int, bytes]]]:
    """Each directory: tag -> type, count, and the word that is or points to the value."""
    seen: set[int] = set()
    offset = form.first
    while offset or not seen:
        if offset in seen:
            raise damaged("its directories go in a circle")
        if len(seen) >= MOST_DIRECTORIES:
            raise damaged(f"it has more than {MOST_DIRECTORIES} directories")
        seen.add(offset)
        head = struct.calcsize(form.order + form.count)
        (count,) = form.unpack(form.count, form.at(offset, head))
        if not 0 < count <= MOST_ENTRIES:
            raise damaged(f"a directory has {count:,} entries")
        each = struct.calcsize(form.order + form.entry) + form.word
        data = form.at(offset + head, count * each + form.word)
        tags = {}
        for k in range(count):
            line = data[k * each : (k + 1) * each]
            tag, kind, length = form.unpack(form.entry, line[: each - form.word])
            tags[tag] = (kind, length, line[each - form.word :])
        yield tags
        (offset,) = form.unpack("Q" if form.big else "I", data[count * each :])


def _value(form: _Form, tags: dict[int, tuple[int, int, bytes]], tag: int) -> bytes:
    """The bytes of a tag; empty where it is not there."""
    kind, length, word = tags.get(tag, (0, 0, b""))
    size = _SIZES.get(kind, 0) * length
    if size <= form.word:
        return word[:size]
    if size > _MOST_TAG_BYTES:
        raise damaged(f"tag {tag} claims {size:,} bytes")
    (offset,) = form.unpack("Q" if form.big else "I", word)
    return form.at(offset, size)


def _number(form: _Form, tags: dict[int, tuple[int, int, bytes]], tag: int, default: int) -> int:
    """The first whole number of a tag."""
    kind, length, word = tags.get(tag, (0, 0, b""))
    if tag not in tags:
        return default
    if kind not in _WHOLE or not length:
        raise damaged(f"tag {tag} is no whole number")
    each = _SIZES[kind]
    data = word if each * length <= form.word else _value(form, tags, tag)
    return form.unpack(_WHOLE[kind], data[:each])[0]


def _directory(form: _Form, tags: dict[int, tuple[int, int, bytes]], most: Most) -> Claims:
    """One image of the file, within what a file may claim."""
    width, height = _number(form, tags, _WIDTH, 0), _number(form, tags, _HEIGHT, 0)
    bands, bits = _number(form, tags, _BANDS, 1), _number(form, tags, _BITS, 1)
    if not width or not height or not bands or not 0 < bits <= 128:
        raise damaged(f"it claims {width:,} x {height:,} pixels of {bits} bits in {bands} bands")
    if width * height > most.pixels:
        raise refused(f"claims {width:,} x {height:,} pixels, and {most.pixels:,} are allowed here", "cut it to the event",
                      code="too-many-pixels")  # fmt: skip
    if bands > most.bands:
        raise refused(f"has {bands:,} bands, and {most.bands} are allowed here", "give the bands that are needed",
                      code="too-many-bands")  # fmt: skip
    unpacked = width * height * bands * bits // 8
    if unpacked > max(SMALL_BYTES, most.inflate * form.size):
        what = f"has {form.size:,} bytes and claims to unpack to {unpacked:,}, more than {most.inflate} times as many"
        raise refused(what, "give the image itself, not an almost empty one", code="inflates")
    _refuse_block(form, tags, most, width, height, bands * bits)
    _refuse_names(_value(form, tags, _METADATA))
    return Claims(width, height, bands, bits)


def _refuse_block(
    form: _Form, tags: dict[int, tuple[int, int, bytes]], most: Most, width: int, height: int, depth: int
) -> None:  # fmt: skip
    if _TILE_WIDTH in tags:
        across, down = _number(form, tags, _TILE_WIDTH, 0), _number(form, tags, _TILE_HEIGHT, 0)
    else:
        across, down = width, min(height, _number(form, tags, _ROWS, height))
    if not across or not down:
        raise damaged("its tiles have no pixels")
    if across * down * depth // 8 > most.block_bytes:
        what = f"lies in blocks that unpack to {across * down * depth // 8:,} bytes each"
        raise refused(what, "write it in tiles: gdal_translate -co TILED=YES", code="inflates")


def _refuse_names(metadata: bytes) -> None:
    """GDAL's metadata is XML; whatever is escaped in it is read as GDAL would."""
    if found := _ELSEWHERE.search(html.unescape(metadata.decode("utf-8", "replace"))):
        what = f"tells whoever opens it to open another one ({found[0]})"
        raise refused(what, "write it anew: gdal_translate IN OUT -co COPY_SRC_MDD=NO", code="names-files")
