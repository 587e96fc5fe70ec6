"""Virtual rasters (GDAL's VRT): many files of one grid as one, or one on another grid, without copying a pixel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import rasterio
import rasterio.shutil
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from aftermap.rasterfile import open_raster
from aftermap.tiles import Window

_TYPES = {"uint8": "Byte", "uint16": "UInt16", "float32": "Float32"}


class Piece(NamedTuple):
    """A file beside the virtual raster, and the window that it fills."""

    name: str
    window: Window


def vrt(
    grid: GeoBox, dtype: str, nodata: float, bands: Sequence[str], unit: str, tags: Mapping[str, str], pieces: Sequence[Piece],
    *, overlapping: bool = False,
) -> str:  # fmt: skip
    """The text of one with those bands; what no piece fills is no data. Of `overlapping` pieces the first with data counts."""
    root = ElementTree.Element("VRTDataset", rasterXSize=str(grid.shape[1]), rasterYSize=str(grid.shape[0]))
    if grid.crs is not None:
        ElementTree.SubElement(root, "SRS").text = grid.crs.to_wkt()
    a, b, c, d, e, f = list(grid.affine)[:6]
    ElementTree.SubElement(root, "GeoTransform").text = ", ".join(repr(float(v)) for v in (c, a, b, f, d, e))
    said = ElementTree.SubElement(root, "Metadata")
    for key, value in tags.items():
        ElementTree.SubElement(said, "MDI", key=key).text = value
    for number, name in enumerate(bands, 1):
        band = ElementTree.SubElement(root, "VRTRasterBand", dataType=_TYPES[dtype], band=str(number))
        ElementTree.SubElement(band, "Description").text = name
        ElementTree.SubElement(band, "NoDataValue").text = "nan" if math.isnan(nodata) else repr(nodata)
        if unit:
            ElementTree.SubElement(band, "UnitType").text = unit
        for piece in reversed(pieces) if overlapping else pieces:  # GDAL lays later ones on top
            _source(band, piece, number, nodata if overlapping else None)
    ElementTree.indent(root, " ")
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _source(band: ElementTree.Element, piece: Piece, number: int, nodata: float | None) -> None:
    source = ElementTree.SubElement(band, "SimpleSource" if nodata is None else "ComplexSource")
    ElementTree.SubElement(source, "SourceFilename", relativeToVRT="1").text = piece.name
    ElementTree.SubElement(source, "SourceBand").text = str(number)
    row, col, height, width = piece.window
    place = {"xSize": str(width), "ySize": str(height)}
    ElementTree.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **place})
    ElementTree.SubElement(source, "DstRect", {"xOff": str(col), "yOff": str(row), **place})
    if nodata is not None:
        ElementTree.SubElement(source, "NODATA").text = repr(nodata)


def write_warped(path: Path, grid: GeoBox, out: Path) -> None:
    """A virtual raster of codes on another grid, nearest neighbour."""
    out.unlink(missing_ok=True)
    with (
        rasterio.open(path) as src,
        WarpedVRT(src, crs=grid.crs, transform=grid.affine, height=grid.shape[0], width=grid.shape[1]) as warped,
    ):
        rasterio.shutil.copy(warped, out, driver="VRT")


def placed(path: Path, grid: GeoBox) -> Any:
    """One of our own products as an open dataset on a grid of its own shape, which may be another place than the file states."""
    src = open_raster(path)
    if src.crs is not None and CRS(src.crs) == grid.crs and src.transform.almost_equals(grid.affine):
        return src
    where = {"crs": grid.crs, "transform": grid.affine, "height": grid.shape[0], "width": grid.shape[1]}
    return WarpedVRT(src, src_crs=grid.crs, src_transform=grid.affine, resampling=Resampling.nearest, **where)
