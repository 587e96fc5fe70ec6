"""Zarr stores of others, opened: no code in their filters, no chunk or array larger than allowed. The door to zarr."""

from __future__ import annotations

from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from aftermap import limits, plain
from aftermap.datasets.dataset import extra_missing
from aftermap.errors import InputRefusedError

CODECS = frozenset({
    "blosc", "zlib", "gzip", "zstd", "lz4", "lzma", "bz2", "shuffle", "bitround", "delta", "fixedscaleoffset", "quantize",
    "packbits", "astype", "categorize", "crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3", "bytes", "transpose",
    "sharding_indexed", "vlen-utf8", "vlen-bytes", "vlen-array", "endian",
})  # fmt: skip
"""Of zarr 2 and 3. Not among them: pickle, which runs what it likes, and others that make objects."""
_BLOSC_HEADER = 16
_FILES = (".zarray", "zarr.json", ".zmetadata")
_CODEC_KEYS = ("compressor", "filters", "codecs", "index_codecs")


def opened(store: Path) -> Any:
    """The group of a store. Raises InputRefusedError ("codec-refused", "too-large"), UsageError ("extra-missing"), and ValueError
    or OSError where its metadata cannot be read."""
    try:
        import zarr
    except ImportError as error:
        raise extra_missing("zarr") from error
    _check_blosc()
    for path in sorted(p for name in _FILES for p in (*store.glob(name), *store.glob(f"*/{name}"))):
        _refuse_codecs(plain.read_json(path), path)
    return zarr.open_group(store, mode="r")


@cache
def _check_blosc() -> None:
    """From here on a chunk of Blosc is looked at in this process before its library is handed it, be it of zarr 2 or 3."""
    import numcodecs
    import zarr
    from numcodecs.blosc import Blosc
    from zarr.codecs import BloscCodec

    class Checked(Blosc):  # type: ignore[misc]
        def decode(self, buf: Any, out: Any = None) -> Any:
            _refuse_header(buf)
            return super().decode(buf, out)

    class CheckedCodec(BloscCodec):
        async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
            _refuse_header(chunk_bytes.as_numpy_array())
            return await super()._decode_single(chunk_bytes, chunk_spec)

    numcodecs.register_codec(Checked)
    zarr.registry.register_codec("blosc", CheckedCodec, qualname="aftermap.blosc")
    zarr.config.set({"codecs.blosc": "aftermap.blosc"})


def _refuse_header(chunk: Any) -> None:
    """Blosc believes the header: where it claims more bytes than there are, it reads on behind them, to the process's end (found
    by fuzzing). Raises ValueError, InputRefusedError ("too-large")."""
    data = memoryview(chunk).cast("B")
    if len(data) < _BLOSC_HEADER or int.from_bytes(data[12:16], "little") > len(data):
        raise ValueError("a chunk of Blosc is cut off, or its header is damaged")
    limits.refuse_above("BLOCK_BYTES", int.from_bytes(data[4:8], "little"), "a chunk of Blosc")


def held(group: Any, name: str) -> Any:
    """An array. Raises KeyError where there is none, InputRefusedError ("too-large")."""
    array = group[name]
    limits.refuse_above("BLOCK_BYTES", prod(array.chunks) * array.dtype.itemsize, f"{name} of {group.store}")
    return array


def whole(array: Any) -> Any:
    """All of its values. Raises InputRefusedError ("too-large")."""
    limits.refuse_above("ARRAY_BYTES", prod(array.shape) * array.dtype.itemsize, array.name)
    return array[:]


def _refuse_codecs(said: Any, path: Path) -> None:
    """Every codec that metadata names, however deep."""
    waiting: list[tuple[Any, bool]] = [(said, False)]
    while waiting:
        found, is_codec = waiting.pop()
        if isinstance(found, list):
            waiting += [(one, is_codec) for one in found]
        elif is_codec and isinstance(found, str):
            _refuse_codec(found, path)
        elif isinstance(found, dict):
            waiting += [(one, key in _CODEC_KEYS) for key, one in found.items()]
            if is_codec:
                _refuse_codec(str(found.get("id") or found.get("name") or ""), path)


def _refuse_codec(name: str, path: Path) -> None:
    if name.removeprefix("numcodecs.") not in CODECS:
        what = f"{path.parent.name} of {path.parent.parent.name} is packed by {name!r}"
        raise InputRefusedError(what, repair=f"write it anew with one of {', '.join(sorted(CODECS))}", code="codec-refused")
