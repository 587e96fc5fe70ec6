"""Files that mean harm, made by code: each by name with what it is given to and the code that refuses it."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aftermap import raster
from aftermap.tiles import Window
from tests.conftest import flood_pair, grid, write

SHAPE = (48, 64)
ADDRESS = "http://127.0.0.1:{port}/a.tif"
"""Where the tests listen, so that a question that is asked is heard."""
Make = Callable[[Path, int], list[str]]


class Case(NamedTuple):
    """Makes the file, and gives the arguments of the command that is to refuse it; `codes` may do so."""

    make: Make
    codes: tuple[str, ...]


def image(path: Path) -> Path:
    return write(path, flood_pair(SHAPE)[1], grid(SHAPE), ("VV", "VH"), unit="dB", nodata=float("nan"))


def _check(name: str, data: bytes | str, beside: bool = False) -> Make:
    def make(folder: Path, port: int) -> list[str]:
        if beside:
            image(folder / "kept.tif")
        said = data if isinstance(data, bytes) else data.replace("PORT", str(port)).replace("FOLDER", str(folder)).encode()
        (folder / name).write_bytes(said)
        return ["check", str(folder / name)]

    return make


def _vrt(source: str, *, head: str = "", size: int = 64, attributes: str = 'relativeToVRT="1"', name: str = "a.vrt") -> Make:
    text = (
        f'<VRTDataset rasterXSize="{size}" rasterYSize="{size}">{head}<VRTRasterBand dataType="Float32" band="1"><SimpleSource>'
        f"<SourceFilename {attributes}>{source}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        "</VRTDataset>"
    )
    return _check(name, text, beside=True)


def tiff(tags: Mapping[int, tuple[int, int, int]]) -> bytes:
    """A little TIFF of one directory: tag -> type, count, value."""
    entries = b"".join(struct.pack("<HHII", tag, *said) for tag, said in sorted(tags.items()))
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + struct.pack("<I", 0) + b"\0" * 64


def _claims(width: int, height: int, rows: int) -> bytes:
    return tiff({
        256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 273: (4, 1, 122), 277: (3, 1, 1),
        278: (4, 1, rows), 279: (4, 1, 64),
    })  # fmt: skip


def _nested(depth: int) -> Make:
    def make(folder: Path, _: int) -> list[str]:
        image(folder / "0.tif")
        text = '<VRTDataset rasterXSize="64" rasterYSize="48"><VRTRasterBand dataType="Float32" band="1"><SimpleSource>' \
               '<SourceFilename relativeToVRT="1">{}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>'  # fmt: skip
        (folder / "1.vrt").write_text(text.format("0.tif"))
        for level in range(2, depth + 1):
            (folder / f"{level}.vrt").write_text(text.format(f"{level - 1}.vrt"))
        return ["check", str(folder / f"{depth}.vrt")]

    return make


def _itself(folder: Path, _: int) -> list[str]:
    return _vrt("a.vrt")(folder, 0)


def _linked(folder: Path, _: int) -> list[str]:
    """A link beside a virtual raster, to a place elsewhere."""
    (folder / "in").mkdir()
    image(folder / "secret.tif")
    (folder / "in" / "kept.tif").symlink_to(folder / "secret.tif")
    text = '<VRTDataset rasterXSize="64" rasterYSize="48"><VRTRasterBand dataType="Float32" band="1"><SimpleSource>' \
           '<SourceFilename relativeToVRT="1">kept.tif</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>'  # fmt: skip
    (folder / "in" / "a.vrt").write_text(text)
    return ["check", str(folder / "in" / "a.vrt")]


def _zip(*members: tuple[str, bytes], claim: int = 0) -> Make:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in members:
            out.writestr(name, data)
    whole = bytearray(made.getvalue())
    if claim:  # the size when unpacked, as the directory at the end states it
        at = whole.rindex(b"PK\x01\x02")
        whole[at + 24 : at + 28] = struct.pack("<I", claim)
    return _check("a.zip", bytes(whole))


def _vrt_in_zip(folder: Path, port: int) -> list[str]:
    text = '<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename>' \
           f"/vsicurl/{ADDRESS.format(port=port)}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"  # fmt: skip
    return _zip(("x.tif", text.encode()))(folder, port)


def _metadata(domain: str, key: str) -> Make:
    def make(folder: Path, port: int) -> list[str]:
        import rasterio

        with rasterio.open(image(folder / "a.tif"), "r+") as out:
            out.update_tags(ns=domain, **{key: f"/vsicurl/{ADDRESS.format(port=port)}"})
        return ["check", str(folder / "a.tif")]

    return make


def _area(name: str, text: str) -> Make:
    def make(folder: Path, port: int) -> list[str]:
        (folder / name).write_text(text.replace("PORT", str(port)))
        where = ["--after", str(image(folder / "a.tif")), "--aoi", str(folder / name)]
        return ["map", *where, "--hazard", "flood", "-o", str(folder / "out"), "--quiet"]

    return make


def _model(text: str | Callable[[str], str]) -> Make:
    def make(folder: Path, _: int) -> list[str]:
        (folder / "m").mkdir()
        said = text if isinstance(text, str) else text(str(folder))
        (folder / "m" / "model.toml").write_text(said)
        where = ["--after", str(image(folder / "a.tif")), "--model", str(folder / "m")]
        return ["map", *where, "--hazard", "flood", "-o", str(folder / "out"), "--quiet"]

    return make


def items(href: str, *, token_url: str = "", catalog: str = "https://catalog.example") -> Make:
    """An event as `aftermap find` writes it, whose images lie there."""

    def make(folder: Path, port: int) -> list[str]:
        ring = [[[15.0, 48.0], [15.02, 48.0], [15.02, 48.02], [15.0, 48.02], [15.0, 48.0]]]
        shape = {"type": "Polygon", "coordinates": ring}
        where = href.replace("PORT", str(port))
        item = {
            "type": "Feature", "stac_version": "1.0.0", "id": "a", "collection": "sentinel-1-rtc", "geometry": shape, "links": [],
            "bbox": [15.0, 48.0, 15.02, 48.02], "properties": {"datetime": "2024-05-13T05:00:00Z"},
            "assets": {"vv": {"href": where}},
        }  # fmt: skip
        sheet = {"name": "a", "crs": "EPSG:32633", "area": shape, "why": [], "passed_over": [],
                 "layers": [{"layer": "after", "kind": "radar", "items": [["sentinel-1-rtc", "a"]]}]}  # fmt: skip
        said = {"hazard": "flood", "event": "2024-05-12", "catalog": catalog, "token_url": token_url.replace("PORT", str(port)),
                "sheets": [sheet]}  # fmt: skip
        (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": [item], "aftermap": said}))
        return ["map", "--items", str(folder / "items.json"), "-o", str(folder / "out"), "--quiet"]

    return make


def _dataset(kind: str, fill: Callable[[Path], None]) -> Make:
    def make(folder: Path, _: int) -> list[str]:
        fill(folder / "data")
        return ["data", "check", str(folder / "data"), "--kind", kind]

    return make


def hdf5(fill: Callable[[Any], None]) -> Callable[[Path], None]:
    """Landslide4Sense of one chip, its image filled by whoever means harm."""

    def write_one(folder: Path) -> None:
        import h5py

        for part, key in (("img", "img"), ("mask", "mask")):
            (folder / "TrainData" / part).mkdir(parents=True)
            name = folder / "TrainData" / part / f"{'image' if part == 'img' else 'mask'}_1.h5"
            with h5py.File(name, "w") as file:
                if key == "img":
                    fill(file)
                else:
                    file[key] = np.zeros((128, 128), np.uint8)

    return write_one


def _external(file: Any) -> None:
    file.create_dataset("img", (128, 128, 14), "u1", external=[("/etc/passwd", 0, 128 * 128 * 14)])


def _other_file(file: Any) -> None:
    import h5py

    file["img"] = h5py.ExternalLink("/etc/hostname.h5", "/img")


def _virtual(file: Any) -> None:
    import h5py

    layout = h5py.VirtualLayout((128, 128, 14), "f8")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "img", (128, 128, 14))
    file.create_virtual_dataset("img", layout)


def cube(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """A datacube of a quake whose facts of "vv" are changed."""

    def write_one(folder: Path) -> None:
        import zarr

        group = zarr.open_group(folder / "hokkaido.zarr", mode="w", zarr_format=2)
        for band in ("vv", "vh"):
            made = group.create_array(band, shape=(4, 128, 128), chunks=(1, 128, 128), dtype="f4")
            made[:], made.attrs["_ARRAY_DIMENSIONS"] = 0.1, ["timestep", "y", "x"]
        labels = group.create_array("landslides", shape=(128, 128), chunks=(128, 128), dtype="f4")
        labels[:], labels.attrs["_ARRAY_DIMENSIONS"] = 0, ["y", "x"]
        when = group.create_array("timestep", shape=(4,), chunks=(4,), dtype="i8")
        when[:], when.attrs["units"] = [0, 288, 576, 864], "hours since 2018-08-25"
        states = group.create_array("sat:orbit_state", shape=(4,), chunks=(4,), dtype="S10")
        states[:] = np.array([b"descending"] * 4)
        path = folder / "hokkaido.zarr" / "vv" / ".zarray"
        said = json.loads(path.read_text())
        change(said)
        path.write_text(json.dumps(said))

    return write_one


def _deep_items(folder: Path, _: int) -> list[str]:
    (folder / "i.json").write_text("[" * 5000 + "]" * 5000)
    return ["map", "--items", str(folder / "i.json"), "-o", str(folder / "out")]


CASES: dict[str, Case] = {
    "VRT of a web address": Case(_vrt("/vsicurl/" + ADDRESS.replace("{port}", "PORT"), attributes=""), ("vrt-unsafe",)),
    "VRT of an address without /vsicurl": Case(_vrt(ADDRESS.replace("{port}", "PORT"), attributes=""), ("vrt-unsafe",)),
    "VRT in small letters": Case(
        _check("a.vrt", '<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
               "<sourcefilename>/vsicurl/http://127.0.0.1:PORT/a.tif</sourcefilename></SimpleSource></VRTRasterBand></VRTDataset>"),
        ("vrt-unsafe",),
    ),
    "VRT with its source as an attribute": Case(
        _check("a.vrt", '<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand dataType="Byte" band="1"><SimpleSource '
               'SourceFilename="/vsicurl/http://127.0.0.1:PORT/a.tif"/></VRTRasterBand></VRTDataset>'),
        ("vrt-unsafe",),
    ),
    "VRT called .tif": Case(_vrt("/etc/passwd", attributes="", name="a.tif"), ("points-elsewhere",)),
    "VRT of a file above": Case(_vrt("../../../../../../etc/passwd"), ("points-elsewhere",)),
    "VRT of a system file": Case(_vrt("/etc/passwd", attributes=""), ("points-elsewhere",)),
    "VRT of a link to elsewhere": Case(_linked, ("points-elsewhere",)),
    "VRT of no image": Case(_vrt("a.vrt.txt"), ("unreadable",)),
    "VRT of itself": Case(_itself, ("too-large",)),
    "VRTs of one another, 9 deep": Case(_nested(9), ("too-large",)),
    "VRT with Python": Case(
        _vrt("kept.tif", head="<PixelFunctionLanguage>Python</PixelFunctionLanguage>"), ("vrt-unsafe",)
    ),
    "VRT with code": Case(
        _vrt("kept.tif", head="<PixelFunctionCode>import os</PixelFunctionCode>"), ("vrt-unsafe",)
    ),
    "VRT of raw bytes": Case(
        _check("a.vrt", '<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand dataType="Byte" band="1" '
               'subClass="VRTRawRasterBand"><SourceFilename>/etc/passwd</SourceFilename></VRTRasterBand></VRTDataset>'),
        ("vrt-unsafe",),
    ),
    "VRT of a billion laughs": Case(
        _check("a.vrt", '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;">]>'
               "<VRTDataset>&c;</VRTDataset>"),
        ("vrt-unsafe", "unreadable"),
    ),
    "VRT with an external entity": Case(
        _check("a.vrt", '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><VRTDataset>&b;</VRTDataset>'),
        ("vrt-unsafe", "unreadable"),
    ),
    "VRT of 2 billion pixels a side": Case(_vrt("kept.tif", size=2_000_000_000), ("too-large",)),
    "VRT in a zip": Case(_vrt_in_zip, ("unreadable",)),
    "WMS service file": Case(
        _check("a.xml", '<GDAL_WMS><Service name="WMS"><ServerUrl>http://127.0.0.1:PORT/</ServerUrl></Service></GDAL_WMS>'),
        ("unreadable",),
    ),
    "STACTA file": Case(
        _check("a.json", '{"stac_extensions":["tiled-assets"],"asset_templates":{"a":{"href":"http://127.0.0.1:PORT/"}}}'),
        ("unreadable",),
    ),
    "TIFF with overviews elsewhere": Case(_metadata("OVERVIEWS", "OVERVIEW_FILE"), ("points-elsewhere",)),
    "TIFF with places elsewhere": Case(_metadata("GEOLOCATION", "X_DATASET"), ("points-elsewhere",)),
    "TIFF of 2 billion pixels a side": Case(_check("a.tif", _claims(2 * 10**9, 2 * 10**9, 1)), ("too-large", "unreadable")),
    "TIFF of one strip of 4 GB": Case(_check("a.tif", _claims(65_000, 65_000, 65_000)), ("too-large", "truncated")),
    "TIFF of 400 million rows": Case(_check("a.tif", _claims(100, 400_000_000, 1)), ("too-large", "truncated")),
    "zip with members above it": Case(_zip(("../../a.tif", b"x")), ("archive-unsafe",)),
    "zip that claims 4 GB": Case(_zip(("a.tif", b"x"), claim=4_000_000_000), ("archive-unsafe",)),
    "zip of 11,000 files": Case(_zip(*((f"{n}.tif", b"") for n in range(11_000))), ("archive-unsafe",)),
    "GeoJSON, 5,000 deep": Case(
        _area("a.geojson", '{"type":"GeometryCollection","geometries":[' * 5000), ("unreadable-vector", "no-polygons")
    ),
    "OGR VRT of a web address": Case(
        _area("a.geojson", '<OGRVRTDataSource><OGRVRTLayer name="a"><SrcDataSource>/vsicurl/http://127.0.0.1:PORT/a.geojson'
              "</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>"),
        ("points-elsewhere",),
    ),
    "WFS service file": Case(
        _area("a.xml", "<OGRWFSDataSource><URL>http://127.0.0.1:PORT/wfs</URL></OGRWFSDataSource>"), ("points-elsewhere",)
    ),
    "GML with a schema on the web": Case(
        _area("a.gml", '<a:F xmlns:a="http://a" xmlns:gml="http://www.opengis.net/gml" xmlns:xsi='
              '"http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="http://a http://127.0.0.1:PORT/a.xsd"/>'),
        ("unreadable-vector", "no-polygons"),
    ),
    "item of a private address": Case(items("http://10.1.2.3/a.tif"), ("private-address",)),
    "item of the metadata service": Case(items("http://169.254.169.254/latest/meta-data/"), ("private-address",)),
    "item of a loopback address in disguise": Case(items("http://[::ffff:127.0.0.1]:PORT/a.tif"), ("private-address",)),
    "item of a system file": Case(items("/etc/passwd"), ("points-elsewhere",)),
    "item of a file above": Case(items("../../../../etc/passwd"), ("points-elsewhere",)),
    "item of a file address": Case(items("file:///etc/passwd"), ("private-address",)),
    "item through /vsicurl": Case(items("/vsicurl/http://127.0.0.1:PORT/a.tif"), ("private-address",)),
    "items, 5,000 levels deep": Case(
        _deep_items,
        ("items-invalid",),
    ),
    "model.toml, 5,000 levels deep": Case(_model("a = " + "[" * 5000 + "]" * 5000), ("card-invalid",)),
    "model.toml of 3 MB": Case(_model("a = 1 # " + "x" * 3_000_000), ("too-large",)),
    "model.toml that is binary": Case(_model("\0\1\2"), ("card-invalid",)),
    "HDF5 with bytes of a system file": Case(_dataset("landslide4sense", hdf5(_external)), ("",)),
    "HDF5 with a link to another file": Case(_dataset("landslide4sense", hdf5(_other_file)), ("",)),
    "HDF5 of parts of other files": Case(_dataset("landslide4sense", hdf5(_virtual)), ("",)),
    "HDF5 of 8 TB in 4 KB": Case(
        _dataset("landslide4sense", hdf5(lambda f: f.create_dataset("img", (10**6, 10**6), "f8", chunks=(64, 64)))), ("",)
    ),
    "zarr that unpickles": Case(
        _dataset("sar-landslides", cube(lambda said: said.update(filters=[{"id": "pickle", "protocol": 4}], dtype="|O"))),
        ("codec-refused",),
    ),
    "zarr of chunks of 4 TB": Case(
        _dataset("sar-landslides", cube(lambda said: said.update(chunks=[1, 10**6, 10**6], shape=[4, 10**6, 10**6]))), ("",)
    ),
}  # fmt: skip
"""An empty code: the chip is named as corrupt, with exit code 3."""


def tar_bomb(path: Path) -> Path:
    """A tar of a device, which no archive of images holds."""
    with tarfile.open(path, "w") as out:
        member = tarfile.TarInfo("a.tif")
        member.type = tarfile.CHRTYPE
        out.addfile(member)
    return path


__all__ = ["CASES", "SHAPE", "Case", "Window", "cube", "hdf5", "image", "items", "raster", "tar_bomb", "tiff"]
