"""pyogrio with the drivers of drivers.py alone, and a file refused before GDAL is asked what it is. The door to pyogrio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyogrio as pyogrio
import pyogrio.errors
import pyogrio.raw
from pyogrio._ogr import _register_drivers

from aftermap import drivers, limits
from aftermap.errors import InputRefusedError

_SAID = {
    "GDAL_SKIP": drivers.skipped(pyogrio.list_drivers()),
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none",  # vector files are read from disk alone
}
pyogrio.set_gdal_config_options(_SAID)
_register_drivers()  # once more: each time GDAL leaves out what it is to skip

BROKEN = (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError, pyogrio.errors.FieldError,
          pyogrio.errors.GeometryError, pyogrio.errors.CRSError, RuntimeError, ValueError)  # fmt: skip
"""What reading a damaged file raises."""
_HEAD = 4096
_FOREIGN = (b"<OGRVRTDataSource", b"<OGRWFSDataSource", b"<OGRGMLASDataSource", b"<WFS_Capabilities", b"gdal_streamed_alg")
"""How files begin that hold no features but say where some are."""


def refuse_unsafe(path: Path) -> None:
    """Raises InputRefusedError ("too-large", "points-elsewhere")."""
    limits.refuse_above("VECTOR_BYTES", path.stat().st_size if path.is_file() else 0, path.name)
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(_HEAD)
        if any(mark in head for mark in _FOREIGN):
            what = f"{path.name} holds no features, but says where others are"
            raise InputRefusedError(what, repair="give the file that it names", code="points-elsewhere")


def layers(path: Path) -> Any:
    """Names and geometry types (n, 2). Raises InputRefusedError as `refuse_unsafe`, and one of BROKEN."""
    refuse_unsafe(path)
    return pyogrio.list_layers(path)
