"""Which files a publisher's record holds, with sizes and checksums as the publisher states them: Zenodo, Hugging Face, GCS."""

from __future__ import annotations

import base64
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

from aftermap.datasets.dataset import Source
from aftermap.errors import InputRefusedError, UsageError

ROOTS = {"zenodo": "https://zenodo.org", "hf": "https://huggingface.co", "gcs": "https://storage.googleapis.com"}
_NEXT = re.compile(r'<([^>]+)>;\s*rel="next"')


def files(record: str, *, roots: dict[str, str] = ROOTS, timeout_s: float = 60) -> list[Source]:
    """The files of "zenodo:ID", "hf:owner/name" or "gcs:bucket/prefix", sorted by path.

    Raises InputRefusedError ("not-listed").
    """
    kind, _, name = record.partition(":")
    if kind not in _READERS:
        raise UsageError(f"{record!r} is no record", repair=f"known: {', '.join(_READERS)}")
    try:
        return sorted(_READERS[kind](roots[kind], name, timeout_s), key=lambda s: s.path)
    except (urllib.error.URLError, TimeoutError, ConnectionError, ValueError, KeyError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise InputRefusedError(
            f"{roots[kind]} does not list {name}: {error}", repair="try again later, or fetch it by hand", code="not-listed"
        ) from error


def _zenodo(root: str, record: str, timeout_s: float) -> Iterator[Source]:
    said, _ = _json(f"{root}/api/records/{record}", timeout_s)
    for f in said["files"]:
        yield Source(
            f"{root}/api/records/{record}/files/{urllib.parse.quote(f['key'])}/content", f["key"], f["size"], f["checksum"]
        )


def _hugging_face(root: str, name: str, timeout_s: float) -> Iterator[Source]:
    url = f"{root}/api/datasets/{name}/tree/main?recursive=true"
    while url:
        said, url = _json(url, timeout_s)
        for f in (f for f in said if f["type"] == "file"):
            # Only large files carry a SHA-256; the others' "oid" is git's, of a header and the file.
            checksum = f"sha256:{f['lfs']['oid']}" if f.get("lfs") else None
            yield Source(f"{root}/datasets/{name}/resolve/main/{urllib.parse.quote(f['path'])}", f["path"], f["size"], checksum)


def _google(root: str, name: str, timeout_s: float) -> Iterator[Source]:
    bucket, _, prefix = name.partition("/")
    query, token = {"prefix": prefix, "fields": "items(name,size,md5Hash),nextPageToken"}, ""
    while True:
        words = urllib.parse.urlencode(query | ({"pageToken": token} if token else {}))
        said, _ = _json(f"{root}/storage/v1/b/{bucket}/o?{words}", timeout_s)
        for f in (f for f in said.get("items", []) if not f["name"].endswith("/")):
            checksum = f"md5:{base64.b64decode(f['md5Hash']).hex()}" if "md5Hash" in f else None
            yield Source(f"{root}/{bucket}/{urllib.parse.quote(f['name'])}", f["name"], int(f["size"]), checksum)
        token = said.get("nextPageToken", "")
        if not token:
            return


def _json(url: str, timeout_s: float) -> tuple[Any, str]:
    """What a page says, and the address of the next."""
    with urllib.request.urlopen(urllib.request.Request(url, headers={"User-Agent": "aftermap"}), timeout=timeout_s) as answer:
        following = _NEXT.search(answer.headers.get("Link", ""))
        return json.load(answer), following.group(1) if following else ""


_READERS: dict[str, Callable[[str, str, float], Iterator[Source]]] = {
    "zenodo": _zenodo,
    "hf": _hugging_face,
    "gcs": _google,
}
