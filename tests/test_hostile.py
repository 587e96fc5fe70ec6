"""Files that mean harm are refused by name, soon, in words, and nobody is asked; limits can be changed."""

from __future__ import annotations

import os
import pickle
import re
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result

from aftermap import (
    aoi,
    archive,
    arrays,
    catalog,
    drivers,
    journal,
    limits,
    ogr,
    places,
    plain,
    raster,
    stacfiles,
    tables,
    unpack,
)
from aftermap.cli import main
from aftermap.datasets import hdf5, parquets, zarrs
from aftermap.errors import InputRefusedError, UsageError
from tests import hostile_files
from tests.hostile_files import CASES, image

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def listener() -> Iterator[tuple[int, list[bytes]]]:
    """A port of this machine, and whoever knocks at it."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.settimeout(0.1)
        over = threading.Event()

        def listen() -> None:
            while not over.is_set():
                try:
                    found, _ = sock.accept()
                except TimeoutError:
                    continue
                asked.append(b"somebody")
                found.close()

        thread = threading.Thread(target=listen)
        thread.start()
        yield sock.getsockname()[1], asked
        over.set()
        thread.join()


def run(args: list[str]) -> Result:
    return CliRunner().invoke(main, args)


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_file_is_refused_and_nobody_is_asked(
    name: str, tmp_path: Path, listener: tuple[int, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(places.HOSTS, raising=False)
    port, asked = listener
    before = len(asked)
    case = CASES[name]
    result = run(case.make(tmp_path, port))
    assert result.exit_code == 3, result.output
    assert "Traceback" not in result.output
    assert any(f"[{code}]" in result.output for code in case.codes) or case.codes == ("",), result.output
    assert len(asked) == before
    assert "root:" not in result.output
    assert not (tmp_path / "out" / "item.json").exists()


def test_drivers_are_those_of_the_list() -> None:
    allowed = {*drivers.RASTER, *drivers.VECTOR, *drivers.INNER}
    with rasterio.Env() as env:
        assert set(env.drivers()) <= allowed
    assert set(ogr.pyogrio.list_drivers()) <= allowed
    assert {"GTiff", "VRT", "JP2OpenJPEG"} <= allowed
    assert os.environ["GDAL_VRT_ENABLE_PYTHON"] == "NO"


def test_more_drivers_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERMAP_DRIVERS", "netCDF, GRIB")
    monkeypatch.delenv("GDAL_SKIP", raising=False)
    assert {"netCDF", "GRIB"} <= set(drivers.raster())
    assert "WMS" in drivers.skipped(["WMS", "GRIB", "GTiff"]).split(",")
    assert "GRIB" not in drivers.skipped(["WMS", "GRIB", "GTiff"]).split(",")


def test_every_limit_is_documented_with_its_default() -> None:
    page = (DOCS / "limits.md").read_text(encoding="utf-8")
    rows = {
        name: line
        for line in page.splitlines()
        if (found := re.match(r"\| `AFTERMAP_MAX_(\w+)`", line))
        for name in found.groups()
    }
    assert rows.keys() == limits.LIMITS.keys()
    for name, limit in limits.LIMITS.items():
        assert f"| {limit.default:,} | {limit.unit} | {limit.why} |" in rows[name]


@pytest.mark.parametrize("told", ["", "0", "-1", "many", "9" * 30])
def test_a_limit_is_a_whole_number(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERMAP_MAX_RASTER_PX", told)
    with pytest.raises(UsageError) as refused:
        limits.most("RASTER_PX")
    assert refused.value.code == "limit"


def test_a_limit_can_be_lowered_and_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = image(tmp_path / "a.tif")
    monkeypatch.setenv("AFTERMAP_MAX_RASTER_PX", "100")
    with pytest.raises(InputRefusedError, match="AFTERMAP_MAX_RASTER_PX=3072") as refused:
        raster.facts(path)
    assert refused.value.code == "too-large"
    monkeypatch.setenv("AFTERMAP_MAX_RASTER_PX", "3072")
    raster.facts(path)


def test_virtual_rasters_of_a_named_folder_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    image(tmp_path / "a" / "kept.tif")
    text = (
        '<VRTDataset rasterXSize="64" rasterYSize="48"><VRTRasterBand dataType="Float32" band="1"><SimpleSource>'
        '<SourceFilename relativeToVRT="1">../a/kept.tif</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>'
    )
    (tmp_path / "b" / "v.vrt").write_text(text)
    with pytest.raises(InputRefusedError) as refused:
        raster.facts(tmp_path / "b" / "v.vrt")
    assert refused.value.code == "points-elsewhere"
    monkeypatch.setenv(places.FOLDERS, str(tmp_path / "a"))
    assert raster.facts(tmp_path / "b" / "v.vrt").driver == "VRT"


@pytest.mark.parametrize(
    ("address", "public"),
    [("93.184.216.34", True), ("10.0.0.1", False), ("::1", False), ("fe80::1%eth0", False), ("::ffff:192.168.0.1", False),
     ("100.64.0.1", False), ("224.0.0.1", False), ("2606:2800:220:1::1", True)],
)  # fmt: skip
def test_a_name_counts_as_what_it_resolves_to(address: str, public: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(places.HOSTS, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", (address, 443))])
    if public:
        places.refuse_private("https://tiles.example/a.tif", "item a")
        return
    with pytest.raises(InputRefusedError) as refused:
        places.refuse_private("https://tiles.example/a.tif", "item a")
    assert refused.value.code == "private-address"
    monkeypatch.setenv(places.HOSTS, "other.example,tiles.example")
    places.refuse_private("https://tiles.example/a.tif", "item a")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a/b", "gopher://a", "//a/b", "http://", "http://[", "javascript:1"])
def test_only_addresses_of_the_web_are_asked(url: str) -> None:
    with pytest.raises(InputRefusedError):
        places.refuse_private(url, "item a")
    with pytest.raises(InputRefusedError):
        catalog.Signer(url + "?{collection}").sign("https://a.example/b", "c")


def test_a_seal_that_names_files_elsewhere_removes_none(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    kept = tmp_path / "kept.txt"
    kept.write_text("dear")
    seal = '{"assets": {"a": {"href": "../kept.txt", "file:checksum": "1220"}}}'
    (tmp_path / "out" / journal.SEAL).write_text(seal)
    for act in (journal.verify, journal.remove_products):
        with pytest.raises(InputRefusedError) as refused:
            act(tmp_path / "out")
        assert refused.value.code == "points-elsewhere"
    assert kept.exists()


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "done"),)

    np.savez(tmp_path / "known.npz", train=np.array([Harm()], object))
    (tmp_path / "weights.npz").write_bytes(pickle.dumps(Harm()))
    for name in ("known.npz", "weights.npz"):
        with pytest.raises(arrays.BROKEN):
            arrays.read(tmp_path / name, "train")
    assert not (tmp_path / "done").exists()


def test_an_npz_that_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    import io
    import zipfile

    made = io.BytesIO()
    np.lib.format.write_array_header_1_0(made, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as out:
        out.writestr("train.npy", made.getvalue())
    with pytest.raises(ValueError, match="states"):
        arrays.read(tmp_path / "a.npz", "train")


def _directory(name: bytes, *, version: int = 20, flags: int = 0) -> bytes:
    """A zip of one empty member, as its directory states it."""
    import io
    import zipfile

    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as out:
        out.writestr("x" * len(name), b"")
    data = bytearray(made.getvalue().replace(b"x" * len(name), name))
    at = data.index(b"PK\x01\x02")
    data[at + 6 : at + 10] = version.to_bytes(2, "little") + flags.to_bytes(2, "little")
    return bytes(data)


@pytest.mark.parametrize(
    "data", [_directory(b"\xfc.tif", flags=0x800), _directory(b"a.tif", version=236), _directory(b"\0a.tif")]
)
def test_zips_that_the_fuzzer_broke_are_refused(data: bytes, tmp_path: Path) -> None:
    """A name that is no text, a version that nobody knows, a member without a name."""
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(InputRefusedError) as refused:
        archive.files(tmp_path / "a.zip")
    assert refused.value.code == "archive-damaged"


@pytest.mark.parametrize("scale", [(float("nan"), 10.0), (float("inf"), 1.0)])
def test_pixels_that_lie_nowhere_are_refused(scale: tuple[float, float], tmp_path: Path) -> None:
    """Found by the fuzzer: pixels of no size, or at no place."""
    path = image(tmp_path / "a.tif")
    data = path.read_bytes()
    sized = struct.pack("<ddd", 10.0, 10.0, 0.0)
    assert data.count(sized) == 1
    path.write_bytes(data.replace(sized, struct.pack("<ddd", *scale, 0.0)))
    result = run(["check", str(path)])
    assert result.exit_code == 3, result.output
    assert "[unreadable]" in result.output


def test_names_of_a_crs_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """Found by the fuzzer: rasterio decodes them as it opens the file."""
    path = image(tmp_path / "a.tif")
    data = path.read_bytes()
    assert b"WGS 84 / UTM" in data
    path.write_bytes(data.replace(b"WGS 84 / UTM", b"WGS\x83\xfc4 / UTM"))
    assert run(["check", str(path)]).exit_code in (0, 3)


@pytest.mark.parametrize("text", [b"{", b"\xff", b"[]", b"{}", b'{"zarr_format": 2, "shape": "x"}'])
def test_damaged_facts_of_a_datacube_are_refused(text: bytes, tmp_path: Path) -> None:
    """Found by the fuzzer: facts of arrays are read when a data set is opened, before any chip."""
    hostile_files.cube(lambda said: None)(tmp_path / "data")
    (tmp_path / "data" / "hokkaido.zarr" / "vv" / ".zarray").write_bytes(text)
    result = run(["data", "check", str(tmp_path / "data"), "--kind", "sar-landslides"])
    assert result.exit_code == 3, result.output
    assert "fault of ours" not in result.output


@pytest.mark.parametrize(
    "text", ['{"type": "FeatureCollection"}', '{"type": "FeatureCollection", "features": 1}', '{"type": "Feature"}']
)
def test_collections_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "i.json").write_text(text)
    with pytest.raises(InputRefusedError) as refused:
        stacfiles.rasters(tmp_path / "i.json", "vv")
    assert refused.value.code == "no-items"


@pytest.mark.parametrize("ring", [[[0, 240], [1, 242], [1, 244], [0, 240]], [[0, 1], [1, 2]], [[0, "a"]], 7])
def test_areas_that_are_none_are_refused(ring: Any) -> None:
    """Found by the fuzzer: a latitude of 242 degrees."""
    with pytest.raises(InputRefusedError) as refused:
        aoi.Aoi.of_geojson({"type": "Polygon", "coordinates": [ring]})
    assert refused.value.code == "aoi-invalid"


def test_a_device_is_not_unpacked(tmp_path: Path) -> None:
    with pytest.raises(InputRefusedError) as refused:
        unpack.unpack(hostile_files.tar_bomb(tmp_path / "a.tar"), tmp_path / "to")
    assert refused.value.code == "archive-unsafe"
    assert archive.is_zip(tmp_path / "a.tar") is False


def test_items_of_a_data_set_lie_beside_or_below(tmp_path: Path) -> None:
    hostile_files.items("../outside.tif")(tmp_path, 0)
    with pytest.raises(InputRefusedError) as refused:
        stacfiles.rasters(tmp_path / "items.json", "vv")
    assert refused.value.code == "points-elsewhere"


@pytest.mark.parametrize("text", ["[" * 200 + "]" * 200, "[" * 100_000])
def test_deep_json_is_refused(text: str) -> None:
    with pytest.raises((ValueError, InputRefusedError)):
        plain.of_json(text, "a.json")


def test_a_fault_of_ours_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by nought")

    monkeypatch.setattr("aftermap.check.examine_files", broken)
    result = run(["check", "a.tif"])
    assert result.exit_code == 1
    assert "ZeroDivisionError: by nought" in result.output
    assert "[internal]" in result.output
    assert "Traceback" not in result.output


def test_every_code_of_hostile_files_is_met_here() -> None:
    page = (DOCS / "codes.md").read_text(encoding="utf-8").partition("## Hostile files")[2].partition("\n## ")[0]
    told = set(re.findall(r"^\| `([a-z-]+)`", page, re.MULTILINE))
    assert told - {code for case in CASES.values() for code in case.codes} <= {"crs-impossible"}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # GDAL tells of the ring too
@pytest.mark.parametrize(
    "shape", ['{"type":"Polygon","coordinates":[[[1,1],[2,2]]]}', '{"type":"Polygon","coordinates":[[[1,1],[2,2],[3,3],[4,9]]]}',
              '{"type":"Polygon","coordinates":[[[1e400,1],[2,2],[3,3],[1e400,1]]]}'],
)  # fmt: skip
def test_rings_that_are_none_are_refused(shape: str, tmp_path: Path) -> None:
    """Found by the fuzzer: two corners, an open ring, infinity."""
    (tmp_path / "a.geojson").write_text(shape)
    where = ["--after", str(image(tmp_path / "a.tif")), "--aoi", str(tmp_path / "a.geojson")]
    result = run(["map", *where, "--hazard", "flood", "-o", str(tmp_path / "out"), "--quiet"])
    assert result.exit_code == 3, result.output
    assert "fault of ours" not in result.output


@pytest.mark.parametrize("userblock", [0, 512])
def test_a_superblock_that_names_a_driver_is_refused(userblock: int, tmp_path: Path) -> None:
    """49 bytes made the library take 4.4 GB: found by fuzzing."""
    h5py, path = pytest.importorskip("h5py"), tmp_path / "a.h5"
    with h5py.File(path, "w", userblock_size=userblock) as file:
        file["a"] = [1]
    with hdf5.opened(path) as file:
        assert list(file) == ["a"]
    whole = bytearray(path.read_bytes())
    at = userblock + 24 + 3 * 8
    assert whole[at : at + 8] == b"\xff" * 8
    whole[at : at + 8] = (0x1D).to_bytes(8, "little")
    for data in (whole, whole[: at + 1]):
        path.write_bytes(data)
        with pytest.raises(OSError, match="file driver"), hdf5.opened(path):
            pass


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the address space of a process")
def test_metadata_that_take_memory_without_end_are_refused(tmp_path: Path) -> None:
    """Eight bytes that the fuzzer changed: the kernel ended the process. Where another h5py lays its files out otherwise they do
    nothing, or other harm."""
    h5py, resource, path = pytest.importorskip("h5py"), pytest.importorskip("resource"), tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("img", data=np.zeros((16, 16, 14)), chunks=(8, 8, 14), compression="gzip")
        file["mask"] = np.zeros((16, 16), np.uint8)
    data, before = bytearray(path.read_bytes()), resource.getrlimit(resource.RLIMIT_AS)
    changed = {0x171: 16, 0x2C1: 25, 0x332: 55, 0xC39: 91, 0xD68: 64, 0xE57: 91, 0x1214: 252, 0x185D: 247}
    for place, value in changed.items():
        data[place] = value
    path.write_bytes(data)
    with pytest.raises((OSError, RuntimeError, KeyError)), hdf5.opened(path) as file:
        hdf5.held(file, "img")
    assert resource.getrlimit(resource.RLIMIT_AS) == before


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_chunk_of_blosc_that_claims_more_than_there_is_is_refused(zarr_format: int, tmp_path: Path) -> None:
    """Its library read on until the process ended: found by fuzzing."""
    zarr = pytest.importorskip("zarr")
    numcodecs, values = pytest.importorskip("numcodecs"), np.arange(4000, dtype="f4")
    packed = {2: numcodecs.Blosc(cname="lz4"), 3: zarr.codecs.BloscCodec(cname="lz4")}[zarr_format]
    made = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=zarr_format)
    made.create_array("v", shape=values.shape, chunks=(4000,), dtype="f4", compressors=packed)[:] = values
    np.testing.assert_array_equal(zarrs.whole(zarrs.opened(tmp_path / "a.zarr")["v"]), values)
    chunk = tmp_path / "a.zarr" / "v" / {2: "0", 3: "c/0"}[zarr_format]
    data = bytearray(chunk.read_bytes())
    for harm in (data[:8], data[:12] + (len(data) + 1).to_bytes(4, "little") + data[16:]):
        chunk.write_bytes(harm)
        with pytest.raises(ValueError, match="Blosc"):
            zarrs.whole(zarrs.opened(tmp_path / "a.zarr")["v"])
    chunk.write_bytes(data[:4] + (2_000_000_000).to_bytes(4, "little") + data[8:])
    with pytest.raises(InputRefusedError, match="a chunk of Blosc has 2,000,000,000 bytes") as caught:
        zarrs.whole(zarrs.opened(tmp_path / "a.zarr")["v"])
    assert caught.value.code == "too-large"


def test_a_parquet_table_of_few_bytes_and_many_rows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables.write(tmp_path / "a.parquet", {"name": ["same"] * 200_000, "n": np.arange(200_000)}, {})
    assert len(parquets.rows(tmp_path / "a.parquet", ("name",))) == 200_000
    monkeypatch.setenv("AFTERMAP_MAX_ARRAY_BYTES", "1000000")
    with pytest.raises(InputRefusedError, match=r"a\.parquet has [0-9,]+ bytes") as caught:
        parquets.rows(tmp_path / "a.parquet", ("name",))
    assert caught.value.code == "too-large"


def test_a_parquet_table_with_any_damage_of_its_facts_is_read_or_refused(tmp_path: Path) -> None:
    """Some ended the process where the facts of a column were asked for: found by fuzzing."""
    path, outcomes = tmp_path / "a.parquet", set[object]()
    tables.write(path, {"labels": [["a", "b"]] * 4}, {})
    whole = path.read_bytes()
    length = int.from_bytes(whole[-8:-4], "little")
    for at in range(len(whole) - 8 - length, len(whole) - 8):
        for bit in (1, 4, 64):
            damaged = bytearray(whole)
            damaged[at] ^= bit
            path.write_bytes(damaged)
            try:
                outcomes.add(len(parquets.rows(path, ("labels",))))
            except (OSError, ValueError, KeyError, InputRefusedError) as error:
                outcomes.add(type(error).__name__)
    assert {"OSError", "ArrowInvalid"} <= outcomes
