"""Files that mislead: TIFFs written number by number, and what only calls itself one."""

from __future__ import annotations

import io
import sqlite3
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

SHORT, LONG, LONG8, ASCII, DOUBLE = 3, 4, 16, 2, 12
_FORMS = {SHORT: "H", LONG: "I", LONG8: "Q", ASCII: "B", DOUBLE: "d"}
Tags = dict[int, tuple[int, Any]]


def tiff(tags: Tags | None = None, *, side: int = 64, data: bytes | None = None, next_at: int = 0, order: str = "<") -> bytes:
    """A small grey TIFF of 8-bit pixels, with other tags than it should have. A value is a number, a list, or text."""
    data = bytes(range(64)) * (side * side // 64) if data is None else data
    held: Tags = {256: (LONG, side), 257: (LONG, side), 258: (SHORT, 8), 259: (SHORT, 1), 262: (SHORT, 1), 273: (LONG, 8),
                  277: (SHORT, 1), 278: (LONG, side), 279: (LONG, len(data))}  # fmt: skip
    held |= tags or {}
    start = 8 + len(data)
    more, entries, place = b"", b"", start + 2 + 12 * len(held) + 4
    for tag, (kind, value) in sorted(held.items()):
        values = [*value.encode(), 0] if isinstance(value, str) else value if isinstance(value, list) else [value]
        packed = struct.pack(f"{order}{len(values)}{_FORMS[kind]}", *values)
        word = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack(f"{order}I", place + len(more))
        more += packed if len(packed) > 4 else b""
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + word
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    return head + data + struct.pack(f"{order}H", len(held)) + entries + struct.pack(f"{order}I", next_at) + more


def _big(first: int, size: int = 8) -> bytes:
    return b"II+\0" + struct.pack("<HHQ", size, 0, first)


def _circle() -> bytes:
    plain = tiff()
    return tiff(next_at=struct.unpack("<I", plain[4:8])[0])


def _many() -> bytes:
    """A hundred directories of one tag."""
    each = [struct.pack("<HHHI", 1, 256, LONG, 1) + struct.pack("<II", 8, 8 + 18 * (k + 1)) for k in range(100)]
    return b"II*\0" + struct.pack("<I", 8) + b"".join(each)


def _zip(name: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as pack:
        pack.writestr(name, "x")
    return out.getvalue()


def _geopackage(folder: Path) -> bytes:
    path = folder / "x.gpkg"
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as base:
        base.execute("PRAGMA application_id = 1196444487")
        base.execute('CREATE TABLE "../../x; DROP TABLE y" (a)')
    base.close()
    return path.read_bytes()


def _metadata(words: str) -> Tags:
    return {42112: (ASCII, f"<GDALMetadata>{words}</GDALMetadata>")}


def _packed(kind: int, data: bytes, side: int, bits: int = 8) -> bytes:
    return tiff({258: (SHORT, bits), 259: (SHORT, kind)}, side=side, data=data)


def refused_by_header(folder: Path) -> dict[str, tuple[bytes, str]]:
    """name -> bytes and the code of the refusal."""
    whole = tiff()
    at = struct.unpack("<I", whole[4:8])[0]
    bomb = zlib.compress(bytes(7000 * 7000), 6)
    vrt = b'<VRTDataset rasterXSize="1" rasterYSize="1"><VRTRasterBand><SimpleSource><SourceFilename>/etc/passwd</SourceFilename>'
    item = '<Item name="OVERVIEW_FILE" domain="OVERVIEWS">/vsicurl/http://127.0.0.1:1/x.tif</Item>'
    escaped = item.replace("OVERVIEW_FILE", "OVERVIEW&#95;FI&#x4c;E")
    return {
        "nothing": (b"", "truncated"), "one-byte": (b"I", "truncated"), "magic-alone": (b"II*\0", "truncated"),
        "cut-in-head": (whole[:7], "truncated"), "cut-before-directory": (whole[:at], "truncated"),
        "cut-in-count": (whole[: at + 1], "truncated"), "cut-in-entries": (whole[: at + 40], "truncated"),
        "cut-before-next": (whole[:-3], "truncated"),
        "vrt": (vrt, "not-geotiff"), "vrt-behind-magic": (b"II*\0" + vrt, "truncated"),
        "geopackage": (_geopackage(folder), "not-geotiff"), "zip": (_zip("../../evil.tif"), "not-geotiff"),
        "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "not-geotiff"), "envi": (b"ENVI\nsamples = 1\n", "not-geotiff"),
        "png": (b"\x89PNG\r\n\x1a\n" + bytes(50), "not-geotiff"), "html": (b"<script>alert(1)</script>", "not-geotiff"),
        "wms": (b"<GDAL_WMS><Service><ServerUrl>http://127.0.0.1:1</ServerUrl></Service></GDAL_WMS>", "not-geotiff"),
        "pickle": (b"\x80\x04cos\nsystem\n", "not-geotiff"), "elf": (b"\x7fELF" + bytes(60), "not-geotiff"),
        "circle": (_circle(), "truncated"), "hundred-directories": (_many(), "truncated"),
        "next-beyond": (tiff(next_at=0xFFFFFFF0), "truncated"), "first-beyond": (b"II*\0\xff\xff\xff\xff" + bytes(50),
        "truncated"),
        "no-directory": (b"II*\0\0\0\0\0" + bytes(50), "truncated"), "no-entries": (b"II*\0\x08\0\0\0" + bytes(50), "truncated"),
        "entries-65535": (b"II*\0\x08\0\0\0\xff\xff" + bytes(5000), "truncated"),
        "no-pixels": (tiff({256: (LONG, 0), 257: (LONG, 0)}), "truncated"), "no-bands": (tiff({277: (SHORT, 0)}), "truncated"),
        "huge": (tiff({256: (LONG, 0xFFFFFFFF), 257: (LONG, 0xFFFFFFFF)}), "too-many-pixels"),
        "wide": (tiff({256: (LONG, 2_000_000), 257: (LONG, 2000)}), "too-many-pixels"),
        "bands-10000": (tiff({277: (SHORT, 10_000)}), "too-many-bands"), "bits-999": (tiff({258: (SHORT, 999)}), "truncated"),
        "bits-0": (tiff({258: (SHORT, 0)}), "truncated"), "width-text": (tiff({256: (ASCII, "sixty")}), "truncated"),
        "deflate-bomb": (_packed(8, bomb, 7000, 64), "inflates"), "lzw-bomb": (_packed(5, bytes(999), 6900, 64), "inflates"),
        "zstd-bomb": (_packed(50000, bytes(999), 6800, 64), "inflates"),
        "sparse-bomb": (tiff({258: (SHORT, 64)}, side=7000, data=b"x"), "inflates"),
        "tile-of-a-gigabyte": (tiff({322: (LONG, 40_000), 323: (LONG, 40_000)}), "inflates"),
        "tile-of-nothing": (tiff({322: (LONG, 0), 323: (LONG, 0)}), "truncated"),
        "overview-elsewhere": (tiff(_metadata(item)), "names-files"), "overview-escaped": (tiff(_metadata(escaped)),
        "names-files"),
        "places-elsewhere": (tiff(_metadata('<Item name="X_DATASET" domain="GEOLOCATION">/etc/x.tif</Item>')), "names-files"),
        "big-lies": (_big(0xFFFFFFFFFFFFFFF0), "truncated"), "big-negative": (_big(1 << 63), "truncated"),
        "big-odd": (_big(16, size=4) + bytes(50), "truncated"), "big-count": (_big(16) + b"\xff" * 60, "truncated"),
        "motorola-lies": (b"MM\0*\x7f\xff\xff\xff" + bytes(20), "truncated"),
    }  # fmt: skip


def refused_by_doctor() -> dict[str, bytes]:
    """What a header does not show: GDAL meets these, in a process of their own."""
    return {
        "strip-beyond": tiff({273: (LONG, 4_000_000)}),
        "complex": tiff({258: (SHORT, 64), 339: (SHORT, 6), 279: (LONG, 4096)}, side=16, data=bytes(4096)),
        "deflate-rubbish": _packed(8, b"\x78\x9c" + bytes(range(200)), 64), "lzw-rubbish": _packed(5, b"\xff" * 300, 64),
        "unknown-packing": _packed(31337, bytes(500), 64), "jpeg-rubbish": _packed(7, b"\xff\xd8\xff" + bytes(300), 64),
        "predictor-99": tiff({259: (SHORT, 8), 317: (SHORT, 99)}, data=zlib.compress(bytes(4096))),
    }  # fmt: skip


def odd() -> dict[str, bytes]:
    """Strange, and no harm: the doctor may say what it likes of them."""
    nan, inf = float("nan"), float("inf")
    wkt = "PROJCS[" * 500
    named = '<Item name="DESCRIPTION" sample="0" role="description">&lt;img src=x onerror=alert(1)&gt;</Item>'
    return {
        "strip-length": tiff({279: (LONG, 0xFFFFFF00)}),
        "script": tiff({270: (ASCII, "<script>alert(1)</script>"), 305: (ASCII, "../../etc/passwd"), 315: (ASCII, "\x1b[2J")}),
        "nan-place": tiff({33550: (DOUBLE, [nan, nan, nan]), 33922: (DOUBLE, [0.0, 0.0, 0.0, nan, nan, nan])}),
        "inf-place": tiff({33550: (DOUBLE, [inf, inf, 0.0]), 33922: (DOUBLE, [0.0] * 6)}),
        "crs": tiff({34735: (SHORT, [1, 1, 0, 2, 1024, 0, 1, 1, 3072, 34737, len(wkt), 0]), 34737: (ASCII, wkt)}),
        "palette": tiff({262: (SHORT, 3), 320: (SHORT, [0] * 768)}),
        "band-names": tiff(_metadata(named)),
    }  # fmt: skip


NAMES = {
    "../../../etc/passwd": "passwd.tif", "..\\..\\secret.tif": "secret.tif", "/etc/cron.d/x.tif": "x.tif",
    "C:\\boot.ini": "boot.ini.tif",
    "CON": "image_CON.tif", "nul.tif": "image_nul.tif", "COM1.tiff": "image_COM1.tif", ".htaccess": "htaccess.tif",
    "..": "image.tif",
    "": "image.tif", "a\x00b.tif": "a_b.tif", "a\r\nSet-Cookie: x.tif": "a_Set-Cookie_x.tif", "\u202egnp.exe.tif": "gnp.exe.tif",
    "x" * 5000 + ".tif": "x" * 80 + ".tif", "<img src=x onerror=alert(1)>.tif": "img_src_x_onerror_alert_1.tif",
    "$(reboot).tif": "reboot.tif", "after.tif.aux.xml": "after.tif.aux.xml.tif", "x.zip": "x_zip.tif", "S1.SAFE": "S1_SAFE.tif",
    "/vsicurl/http:/evil/x.tif": "x.tif", "-rf.tif": "rf.tif", "Überflutung März.tif": "Uberflutung_Marz.tif",
    "\u6d2a\u6c34.tif": "image.tif",
}  # fmt: skip
"""What a file is called, and what it is kept as."""
