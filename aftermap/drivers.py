"""Which formats GDAL may read and write, in either of its copies (rasterio, pyogrio): a list of names, and no others.

Formats that ask a server or name other files are not among them. AFTERMAP_DRIVERS=netCDF,GRIB adds some for who asks for them;
a GDAL_SKIP of the user's own counts instead of the list. What catalogs hold is read over the network by GeoTIFF, not by a driver.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

RASTER = ("GTiff", "COG", "VRT", "JP2OpenJPEG", "PNG", "JPEG", "HFA", "ENVI", "EHdr", "AAIGrid", "SRTMHGT", "DTED")
"""Images that are opened; VRT only after vrtfile.py has looked at it."""
VECTOR = ("GPKG", "ESRI Shapefile", "GeoJSON", "GeoJSONSeq", "TopoJSON", "ESRIJSON", "FlatGeobuf", "KML", "LIBKML", "GML", "GPX",
          "OpenFileGDB", "MapInfo File", "CSV", "SQLite", "DXF")  # fmt: skip
INNER = ("MEM", "Memory", "WEBP", "NPY")
"""What libraries use themselves: grids in memory, pictures of the viewer."""
OTHERS = (
    "AADC", "ACE2", "ADBC", "ADRG", "AIG", "AIVector", "AVCBin", "AVCE00", "AirSAR", "AmigoCloud", "BAG", "BIGGIF", "BLX", "BMP",
    "BSB", "BT", "BYN", "CALS", "CEOS", "COASP", "COSAR", "CPG", "CSW", "CTG", "CTable2", "Carto", "Cloudant", "DAAS", "DERIVED",
    "DGN", "DIMAP", "DIPEx", "DOQ1", "DOQ2", "ECRGTOC", "EDIGEO", "EEDA", "EEDAI", "EIR", "ELAS", "ERS", "ESAT", "ESRIC",
    "Elasticsearch", "FAST", "FIT", "GDALG", "GFF", "GIF", "GNMDatabase", "GNMFile", "GPSBabel", "GRASSASCIIGrid", "GRIB",
    "GS7BG",
    "GSAG", "GSBG", "GSC", "GTFS", "GTI", "GTX", "GXF", "GenBin", "GeoRSS", "HDF4", "HDF4Image", "HDF5", "HDF5Image", "HF2",
    "HTTP", "ILWIS", "IRIS", "ISCE", "ISG", "ISIS2", "ISIS3", "Idrisi", "JAXAPALSAR", "JDEM", "JML", "JSONFG", "KMLSUPEROVERLAY",
    "KRO", "L1B", "LAN", "LCP", "LOSLAS", "LVBAG", "Leveller", "MAP", "MBTiles", "MFF", "MFF2", "MRF", "MSGN", "MVT", "MapML",
    "MiraMonVector", "MongoDBv3", "MySQL", "NAS", "NDF", "NGSGEOID", "NGW", "NITF", "NOAA_B", "NSIDCbin", "NTv2", "NWT_GRC",
    "NWT_GRD", "OAPIF", "ODBC", "ODS", "OGCAPI", "OGR_GMT", "OGR_PDS", "OGR_VRT", "OSM", "OZI", "PAux", "PCIDSK", "PCRaster",
    "PDF", "PDS", "PDS4", "PGDUMP", "PLMOSAIC", "PLSCENES", "PMTiles", "PNM", "PRF", "Parquet", "PostGISRaster", "PostgreSQL",
    "R", "RIK", "RMF", "ROI_PAC", "RPFTOC", "RRASTER", "RS2", "RST", "Rasterlite", "S102", "S104", "S111", "S57", "SAFE",
    "SAGA", "SAR_CEOS", "SDTS", "SENTINEL2", "SGI", "SIGDEM", "SNAP_TIFF", "SNODAS", "SRP", "STACIT", "STACTA", "SXF", "Selafin",
    "TGA", "TIL", "TSX", "Terragen", "USGSDEM", "VDV", "VFK", "VICAR", "WAsP", "WCS", "WFS", "WMS", "WMTS", "XLS", "XLSX", "XPM",
    "XYZ", "ZMap", "Zarr", "netCDF",
)  # fmt: skip
"""What GDAL 3.10 to 3.12 has beside these: rasterio registers its drivers once, and cannot say before which there are."""
_SETTINGS = {
    "GDAL_CACHEMAX": "64",  # MB, not 5 % of the machine's memory: reads as fast, and keeps mapping bounded
    "GDAL_VRT_ENABLE_PYTHON": "NO",  # code in a file would run here
    "GDAL_VRT_ENABLE_RAWRASTERBAND": "NO",  # bytes of any file as pixels
    "GML_DOWNLOAD_SCHEMA": "NO",  # an address in a file would be asked
}  # fmt: skip


def asked() -> tuple[str, ...]:
    """Further drivers that the user asks for."""
    return tuple(name.strip() for name in os.environ.get("AFTERMAP_DRIVERS", "").split(",") if name.strip())


def raster() -> tuple[str, ...]:
    """Drivers that an image may be opened with, but for VRT."""
    return tuple(name for name in (*RASTER, *asked()) if name != "VRT")


def settle() -> None:
    """Sets GDAL's variables where the user has not; without effect on a copy of GDAL that is loaded already."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


def skipped(known: Iterable[str]) -> str:
    """GDAL_SKIP for a copy of GDAL that has those drivers: all that are not named here."""
    return os.environ.get("GDAL_SKIP") or ",".join(sorted(set(known) - {*RASTER, *VECTOR, *INNER, *asked()}))
