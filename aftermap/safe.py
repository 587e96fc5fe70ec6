"""Products as delivered: a Sentinel-2 .SAFE or a zip to its image files; what cannot be mapped yet is refused."""

from __future__ import annotations

import re
from pathlib import Path

from aftermap import archive
from aftermap.errors import RasterError

_BAND = re.compile(r"_(B\d[\dA]|SCL)(?:_(\d0)m)?$")
"""End of a band file's name, without the previews, aerosol and water vapour beside it; level 1C states no pixel size."""
_GRANULE = re.compile(r"(.*/GRANULE/[^/]+)/IMG_DATA/.*\.jp2$", re.IGNORECASE)
_MEASUREMENT = re.compile(r"S1[A-D]_[^/]*\.SAFE/measurement/", re.IGNORECASE)
_IMAGES = (".tif", ".tiff", ".jp2")
"""What counts as an image in a zip: formats that name no other files."""
_BASELINE = re.compile(r"<PROCESSING_BASELINE>\s*(\d\d\.\d\d)\s*<")


def expand(path: Path) -> list[Path]:
    """The band files of a Sentinel-2 product, each at its finest in each granule; the images of any other zip; else the path.

    Raises RasterError: "sar-uncalibrated", "safe-empty", "archive-empty", "archive-damaged", "archive-unsafe".
    """
    if _MEASUREMENT.search(path.as_posix()):
        raise _uncalibrated(path)
    packed, folder = archive.is_zip(path), path.is_dir() and path.name.upper().endswith(".SAFE")
    if not packed and not folder:
        return [path]
    if re.match(r"S1[A-D]_", path.name.upper()):
        raise _uncalibrated(path)
    held = archive.files(path)
    if any(_MEASUREMENT.search(p.as_posix()) for p in held):
        raise _uncalibrated(path)
    chosen = _bands(held)
    if not chosen and folder:
        raise RasterError(f"{path.name} holds no band files", repair="unpack or download it again", code="safe-empty")
    if not chosen and not (chosen := [p for p in held if p.suffix.lower() in _IMAGES and not p.name.startswith(".")]):
        kinds = " nor ".join(_IMAGES)
        raise RasterError(f"{path.name} holds no {kinds}", repair="pack GeoTIFFs or a .SAFE folder in it", code="archive-empty")
    archive.check(chosen)
    return chosen


def _uncalibrated(path: Path) -> RasterError:
    return RasterError(
        f"{path.name} holds radar digital numbers in radar geometry",
        repair="calibrate and terrain-correct it first (SNAP, pyroSAR), or fetch an RTC product; then give the GeoTIFFs",
        code="sar-uncalibrated",
    )


def _bands(held: list[Path]) -> list[Path]:
    """Of the files of one or more products the finest of each band of each granule."""
    finest: dict[tuple[str, str], tuple[int, Path]] = {}
    for file in held:
        granule, found = _GRANULE.match(file.as_posix()), _BAND.search(file.stem)
        if granule and found:
            key, size = (granule[1], found[1]), int(found[2] or 0)
            finest[key] = min(finest.get(key, (size, file)), (size, file))
    return [file for _, file in finest.values()]


def baseline(path: Path) -> float | None:
    """The Sentinel-2 processing baseline that the product metadata about a band file states; None where there is none."""
    granule = _GRANULE.match(path.as_posix())
    if granule is None:
        return None
    product = Path(granule[1]).parents[1]
    for name in ("MTD_MSIL2A.xml", "MTD_MSIL1C.xml"):
        try:
            found = _BASELINE.search(archive.text(product / name))
        except (OSError, KeyError):
            continue
        if found:
            return float(found[1])
    return None
