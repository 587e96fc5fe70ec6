"""Virtual rasters (GDAL's VRT) that others wrote, looked at before GDAL is: which files they name, and what they ask GDAL to do.

Sources are images beside or below the file; no address, no code, no bytes of other files as pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NoReturn
from xml.etree import ElementTree

from aftermap import limits, places, tiffhead
from aftermap.errors import RasterError

MARK = b"<VRTDataset"
FOREIGN = ("GEOLOCATION", "OVERVIEWS")
"""Domains of metadata, also of other formats, by which a file names others that GDAL would open."""
_HEAD = 4096
"""GDAL takes any file for one that holds the mark so near its start, whatever it is called."""
_IMAGES = (
    *tiffhead.MAGIC,
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"\0\0\0\x0cjP  ",
    b"\xff\x4f\xff\x51",
    b"EHFA_HE",
)
"""How TIFF, PNG, JPEG, JPEG 2000 and Erdas files begin: formats that name no others."""
_NAMES = ("sourcefilename", "sourcedataset")
_REFUSED = ("pixelfunctioncode", "dempath", "geoloctransformer", "cutlinedatasource", "geolocarray")
"""Code; and other files that a transformation would read. In small letters, for GDAL does not tell them from large ones."""


def is_vrt(path: Path) -> bool:
    """Whether GDAL would take a file for a virtual raster. Raises OSError."""
    with path.open("rb") as file:
        return MARK in file.read(_HEAD)


def refuse_unsafe(path: Path) -> None:
    """Raises as `sources`, OSError. What has not changed is looked at once in a process: a continent names 19,000 files."""
    found = path.stat()
    _refuse_unsafe(path, (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))


@lru_cache(maxsize=64)
def _refuse_unsafe(path: Path, _: tuple[int, ...]) -> None:
    for _source in sources(path):
        pass


def sources(path: Path) -> Iterator[Path]:
    """The files that a virtual raster names, and those that these name; often several times.

    Raises RasterError ("vrt-unsafe", "points-elsewhere") for one that names or does what none should, InputRefusedError
    ("too-large") for one of more sources or levels than are allowed.
    """
    seen: dict[Path, int] = {}
    count, waiting = 0, [(path, 1)]
    while waiting:
        file, depth = waiting.pop()
        limits.refuse_above("VRT_DEPTH", depth, path.name)
        if seen.get(file.resolve(), 0) >= depth:
            continue
        seen[file.resolve()] = depth
        for source in _sources(file):
            count += 1
            limits.refuse_above("VRT_SOURCES", count, path.name)
            if _looked_at(source, path):
                waiting.append((source, depth + 1))
            yield source


def _looked_at(source: Path, path: Path) -> bool:
    """True for a source that is a virtual raster itself."""
    try:
        if is_vrt(source):
            return True
        with source.open("rb") as file:
            if not file.read(16).startswith(_IMAGES):
                _unsafe(path, f"names {source.name}, which is no TIFF, JPEG 2000, PNG, JPEG or Erdas image")
    except OSError as error:
        what = f"{path.name} names {source.name}, which cannot be read: {error.strerror}"
        raise RasterError(what, repair="copy all of its files together", code="unreadable") from error
    return False


def _sources(path: Path) -> Iterator[Path]:
    """The files that one names."""
    limits.refuse_above("VRT_BYTES", path.stat().st_size, path.name)
    try:
        text = path.read_bytes().decode()
        root = ElementTree.fromstring(text)  # a decoded text: GDAL heeds no encoding that a file declares
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        what = f"{path.name} cannot be read as a virtual raster: {error}"
        raise RasterError(what, repair="fetch or export it again", code="unreadable") from error
    if "<!" in text:
        _unsafe(path, "holds comments or entities, which readers of XML do not read alike")
    for element in root.iter():
        _refuse_element(path, element)
        if _plain(element.tag) in _NAMES:
            yield _named(path, element)


def _plain(name: str) -> str:
    return name.rpartition("}")[2].lower()


def _refuse_element(path: Path, element: ElementTree.Element) -> None:
    tag, said = _plain(element.tag), {_plain(k): v for k, v in element.items()}
    if found := next((name for name in (tag, *said) if name in _REFUSED), next((k for k in said if k in _NAMES), "")):
        _unsafe(path, f"holds {found}")
    if tag == "pixelfunctionlanguage" or "pixelfunctionlanguage" in said:
        _unsafe(path, "computes pixels by code of its own")
    if said.get("subclass", "").lower() == "vrtrawrasterband":
        _unsafe(path, "takes bytes of any file for pixels")
    if said.get("domain", "").upper() in FOREIGN or said.get("key", "").upper() in ("OVERVIEW_FILE", "X_DATASET", "Y_DATASET"):
        _unsafe(path, "names files in its metadata")


def _named(path: Path, element: ElementTree.Element) -> Path:
    said = (element.text or "").strip()
    relative = {_plain(k): v for k, v in element.items()}.get("relativetovrt") == "1"
    address = ":" in said[2:] or said.startswith(("/vsi", "<", "{", "\\\\"))
    if not said or len(element) or address or not (relative or Path(said).is_absolute()):
        _unsafe(path, f"names {said[:100]!r}, which is no file beside it")
    return places.refuse_outside(path.parent / said, path.parent, path.name)


def _unsafe(path: Path, why: str) -> NoReturn:
    repair = "give its images themselves, or write it anew with gdalbuildvrt beside them"
    raise RasterError(f"{path.name} {why}", repair=repair, code="vrt-unsafe")
