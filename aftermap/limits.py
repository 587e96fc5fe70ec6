"""How large, deep and numerous what others made may be: named limits, each with its default and the variable that changes it.

A file that states more is refused before anything of that size is read (`InputRefusedError`, code "too-large").
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from aftermap.errors import InputRefusedError, UsageError

PREFIX = "AFTERMAP_MAX_"


@dataclass(frozen=True)
class Limit:
    """The default, its unit in words, and why it is no smaller."""

    default: int
    unit: str
    why: str


LIMITS = {
    "RASTER_PX": Limit(200_000_000_000, "pixels of a raster", "a continent at 10 m has 100,000,000,000"),
    "RASTER_BANDS": Limit(2_000, "bands of a raster", "hyperspectral sensors have some hundred"),
    "RASTER_BLOCKS": Limit(4_000_000, "blocks of a raster over all bands", "each is looked up before mapping"),
    "BLOCK_BYTES": Limit(1_000_000_000, "bytes of one block, strip or chunk", "it is unpacked whole to read a pixel of it"),
    "VECTOR_BYTES": Limit(1_000_000_000, "bytes of a vector file", "the buildings of a country fill some hundred million"),
    "JSON_BYTES": Limit(300_000_000, "bytes of a JSON file", "an item collection of a continent"),
    "JSON_DEPTH": Limit(100, "levels of a JSON or TOML file", "STAC items have 12"),
    "TOML_BYTES": Limit(2_000_000, "bytes of a TOML file", "model.toml has some thousand"),
    "VRT_BYTES": Limit(100_000_000, "bytes of a virtual raster", "a mosaic of 10,000 tiles has 10,000,000"),
    "VRT_SOURCES": Limit(200_000, "sources of a virtual raster and those below it", "each is looked at"),
    "VRT_DEPTH": Limit(4, "virtual rasters of one another", "those of the catalog have 2"),
    "ARRAY_BYTES": Limit(2_000_000_000, "bytes read whole from HDF5, NetCDF, zarr, npz or Parquet", "a datacube of one band"),
    "ARCHIVE_MEMBERS": Limit(10_000, "files in a zip that is read where it lies", "a Sentinel-2 product holds some hundred"),
    "ARCHIVE_RATIO": Limit(1_032, "times its size that an archive may unpack to", "deflate packs no denser (zlib's notes)"),
}  # fmt: skip
"""docs/limits.md has the same table."""


def most(name: str) -> int:
    """The limit of that name. Raises UsageError ("limit") where its variable holds no whole number above 0."""
    told = os.environ.get(PREFIX + name)
    if told is None:
        return LIMITS[name].default
    if not told.isascii() or not told.isdigit() or not 0 < len(told) < 19 or int(told) == 0:
        raise UsageError(f"{PREFIX + name} is {told!r}", repair="give it a whole number above 0", code="limit")
    return int(told)


def refuse_above(name: str, found: int, what: str) -> None:
    """Raises InputRefusedError ("too-large") where `what`, a file in words, has more than the limit of that name."""
    allowed = most(name)
    if found > allowed:
        raise InputRefusedError(
            f"{what} has {found:,} {LIMITS[name].unit}, and {allowed:,} are allowed",
            repair=f"if its maker is known to you, set {PREFIX}{name}={found}",
            code="too-large",
        )
