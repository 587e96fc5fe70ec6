"""Pictures of before and after as the report has them, laid for a page as its tiles are: evenly in the web's projection."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from aftermap import features, meridian
from aftermap.meridian import Bounds

F64 = npt.NDArray[np.float64]

PHOTOS = ("before", "after")
_NODES = 65
"""Places a side that are worked out; between them pixels lie evenly: of 1,000 pixels, to 0.005 of one over a Sentinel-1 scene, to
0.15 over a continent."""


def of(report: Path) -> dict[str, tuple[str, bytes]]:
    """Those of a report by name: media type and bytes."""
    text = report.read_text(encoding="utf-8") if report.exists() else ""
    found = {}
    for name in PHOTOS:
        pattern = rf'<image id="pic-{name}"[^>]*? href="data:(image/(?:png|jpeg));base64,([A-Za-z0-9+/=]+)"'
        if m := re.search(pattern, text):
            found[name] = (m[1], base64.b64decode(m[2]))
    return found


def laid(data: bytes, grid: GeoBox, bounds: Bounds) -> bytes:
    """A WebP that fills bounds in degrees, of a picture of the whole of a grid; clear where the grid is not."""
    from PIL import Image

    picture = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    west, south, east, north = bounds
    top, bottom = (float(_stretched(lat)) for lat in (north, south))
    scale = max(picture.shape[:2]) / max(east - west, top - bottom)
    size = max(1, round((top - bottom) * scale)), max(1, round((east - west) * scale))
    lon, stretched = np.meshgrid(np.linspace(west, east, _NODES), np.linspace(top, bottom, _NODES))
    shares = _shares(lon, np.degrees(np.arctan(np.sinh(np.radians(stretched)))), grid, west)
    down, across = (_between(length) for length in size)
    rows, cols = (np.floor(down @ one @ across.T * length) for one, length in zip(shares, picture.shape[:2], strict=True))
    inside = (rows >= 0) & (rows < picture.shape[0]) & (cols >= 0) & (cols < picture.shape[1])
    out = np.zeros((*size, 4), np.uint8)
    out[inside] = picture[rows[inside].astype(int), cols[inside].astype(int)]
    file = io.BytesIO()
    Image.fromarray(out).save(file, "WEBP", quality=90, method=0)  # a fifth of a PNG in half the time
    return file.getvalue()


def _stretched(lat: float) -> float:
    """The ordinate of the web's projection, in degrees of its equator."""
    return float(np.degrees(np.arcsinh(np.tan(np.radians(lat)))))


def _shares(lon: F64, lat: F64, grid: GeoBox, west: float) -> tuple[F64, F64]:
    """How far down and across a grid places in degrees lie, 0 to 1; `west` is where the grid begins."""
    if (circle := meridian.turn(grid)) is not None:
        x, y = grid.extent.boundingbox.left + (lon - west) * circle / 360, lat * circle / 360
    else:
        x, y = features.placed(lon, lat, grid)
    cols, rows = (np.nan_to_num(one, nan=-1, posinf=-1, neginf=-1) for one in ~grid.affine @ (x, y))
    return rows / grid.shape[0], cols / grid.shape[1]


def _between(length: int) -> F64:
    """Weights (length, _NODES) of the nodes for the middle of each pixel."""
    places = (np.arange(length) + 0.5) / length * (_NODES - 1)
    return np.stack([np.interp(places, np.arange(_NODES), one) for one in np.eye(_NODES)], 1)
