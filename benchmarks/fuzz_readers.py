"""What is fuzzed: each reader with seeds that the project writes, as functions of a folder and the bytes of one file in it."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from affine import Affine
from odc.geo.geobox import GeoBox

from aftermap import aoi, archive, arrays, card, itemfile, plain, raster, recipe, safe, stacfiles, tilegrid, vector, virtual
from aftermap.check import examine_files
from aftermap.datasets import bigearthnet, landslide4sense, sar_landslides
from aftermap.datasets.dataset import Published
from aftermap.errors import AftermapError
from aftermap.scorer import LayerBands
from aftermap.tables import write as write_table
from aftermap.tiles import Window

Act = Callable[[Path], object]
GRID = GeoBox((40, 56), Affine(10, 0, 420000, 0, -10, 5350000), "EPSG:32633")
POLYGON = [[[11.0, 44.0], [11.2, 44.0], [11.2, 44.1], [11.0, 44.0]]]


@dataclass(frozen=True)
class Reader:
    """A file of that name in a folder, what reads it, and seeds."""

    name: str
    file: str
    act: Act
    seeds: Callable[[Path], list[bytes]]
    also: tuple[type[BaseException], ...] = ()
    """What beside our own errors its docstring says it raises, for its callers to turn into ours."""
    known: tuple[bytes, ...] = ()
    """Words of the format, for the fuzzer to put in."""


def _image(path: Path, pixels: npt.NDArray[Any], bands: tuple[str, ...] = ("VV", "VH")) -> Path:
    with raster.Writer(path, GRID, dtype=str(pixels.dtype), descriptions=bands, unit="dB") as out:
        out.write(pixels, Window(0, 0, *GRID.shape))
    return path


def _radar(seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(-14, 3, (2, *GRID.shape)).astype(np.float32)


def _tiffs(folder: Path) -> list[bytes]:
    scratch = _image(folder / "s.tif", _radar())
    out = raster.Writer(folder / "t.tif", GRID, dtype="float32", descriptions=("VV", "VH"), unit="dB")
    out.write(_radar(), Window(0, 0, *GRID.shape))
    out.finish(folder / "c.tif", overview="average")
    grey = _image(folder / "g.tif", (_radar()[:1] + 60).astype(np.uint8), ("grey",))
    return [scratch.read_bytes(), (folder / "c.tif").read_bytes(), grey.read_bytes()]


def _look(path: Path) -> None:
    """As the doctor and a map do: facts, samples, a window."""
    examine_files([path])
    facts = raster.facts(path)
    raster.Reader(path, facts.grid, facts.indexes).read(Window(0, 0, *(min(int(n), 256) for n in facts.grid.shape)))


def _vrts(folder: Path) -> list[bytes]:
    _image(folder / "piece.tif", _radar())
    (folder / "piece.tif").replace(folder / "kept.tif")
    piece = virtual.Piece("kept.tif", Window(0, 0, *GRID.shape))
    text = virtual.vrt(GRID, "float32", float("nan"), ("VV", "VH"), "dB", {"A": "b"}, [piece])
    virtual.write_warped(folder / "kept.tif", GRID, folder / "warped.vrt")
    return [text.encode(), (folder / "warped.vrt").read_bytes()]


def _package(path: Path) -> bytes:
    layer = vector.Layer("a", "Polygon", {"name": "text"})
    with vector.GeoPackageWriter(path, GRID, [layer]) as out:
        out.write("a", [vector.rectangle(GRID)], {"name": ["whole"]})
    return path.read_bytes()


def _geojson(_: Path) -> list[bytes]:
    shape = {"type": "Polygon", "coordinates": POLYGON}
    feature = {"type": "Feature", "properties": {"identifier": "a"}, "geometry": shape}
    return [json.dumps({"type": "FeatureCollection", "features": [feature]}).encode(), json.dumps(shape).encode()]


def _polygons(path: Path) -> None:
    vector.read_polygons(path, GRID)
    aoi.Aoi.of_file(path)


def _npz(folder: Path) -> list[bytes]:
    arrays.write(folder / "s.npz", train=np.zeros((3, 4), np.float16), chip_px=np.array(64))
    return [(folder / "s.npz").read_bytes()]


def _hdf5(folder: Path) -> list[bytes]:
    import h5py

    with h5py.File(folder / "s.h5", "w") as file:
        file.create_dataset("img", data=np.zeros((16, 16, 14)), chunks=(8, 8, 14), compression="gzip")
        file["mask"] = np.zeros((16, 16), np.uint8)
    return [(folder / "s.h5").read_bytes()]


def _chip(of: Published, **settings: Any) -> Act:
    def read(path: Path) -> None:
        found = of(path.parents[len(Path(settings["inner"]).parts) - 1])
        for name in list(found.members)[:2]:
            found.read(name)

    return read


def _parquet(folder: Path) -> list[bytes]:
    names = {name: ["same"] * 64 for name in ("patch_id", "split", "country", "s1_name")}
    write_table(folder / "metadata.parquet", {**names, "labels": [["Pastures", "Airports"]] * 64}, {})
    return [(folder / "metadata.parquet").read_bytes()]


def _zarr_file(name: str, zarr_format: Literal[2, 3] = 2) -> Callable[[Path], list[bytes]]:
    def seeds(folder: Path) -> list[bytes]:
        import zarr

        group = zarr.open_group(folder / "hokkaido.zarr", mode="w", zarr_format=zarr_format)
        packed: Any = zarr.codecs.BloscCodec(cname="lz4") if zarr_format == 3 else "auto"
        for band in ("vv", "vh"):
            made = group.create_array(band, shape=(4, 16, 16), chunks=(1, 16, 16), dtype="f4", compressors=packed)
            made[:], made.attrs["_ARRAY_DIMENSIONS"] = 0.1, ["timestep", "y", "x"]
        labels = group.create_array("landslides", shape=(16, 16), chunks=(16, 16), dtype="f4")
        labels[:], labels.attrs["_ARRAY_DIMENSIONS"] = 0, ["y", "x"]
        when = group.create_array("timestep", shape=(4,), chunks=(4,), dtype="i8")
        when[:], when.attrs["units"] = [0, 288, 576, 864], "hours since 2018-08-25"
        when.attrs["_ARRAY_DIMENSIONS"] = ["timestep"]
        states = group.create_array("sat:orbit_state", shape=(4,), chunks=(4,), dtype="S10" if zarr_format == 2 else str)
        states[:] = np.array(["descending"] * 4)
        return [(folder / "hokkaido.zarr" / name).read_bytes()]

    return seeds


def _cube(path: Path) -> None:
    found = sar_landslides.SAR_LANDSLIDES(path.parents[2], size=16)
    for name in list(found.members)[:2]:
        found.read(name)


def _model(folder: Path) -> list[bytes]:
    made = card.Card(
        "a", "flood", ("flood",), (LayerBands("after", ("VV", "VH"), "dB"),), (-10.0, -17.0), (3.0, 3.0), 16, 32, "none",
        "CC0", "by hand", {"graph.xml": "0" * 64}, calibration=card.Fit(0.01, "nothing", temperature=1.5), scores=({"iou": 0.5},),
    )  # fmt: skip
    return [made.write(folder).read_bytes()]


def _archives(folder: Path) -> list[bytes]:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as out:
        out.write(_image(folder / "inner.tif", _radar()), "folder/a.tif")
    return [made.getvalue()]


def _zip(path: Path) -> None:
    for image in safe.expand(path):
        raster.facts(image)
        archive.size(image)


def _items(_: Path) -> list[bytes]:
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "a", "collection": "sentinel-1-rtc", "bbox": [11, 44, 11.2, 44.1],
        "geometry": {"type": "Polygon", "coordinates": POLYGON}, "links": [],
        "properties": {"datetime": "2024-05-13T05:00:00Z"}, "assets": {"vv": {"href": "vv.tif"}, "vh": {"href": "vh.tif"}},
    }  # fmt: skip
    sheet = {
        "name": "a", "crs": "EPSG:32632", "area": {"type": "Polygon", "coordinates": POLYGON}, "why": [], "passed_over": [],
        "layers": [{"layer": "after", "kind": "radar", "items": [["sentinel-1-rtc", "a"]]}],
    }  # fmt: skip
    said = {"hazard": "flood", "event": "2024-05-12", "catalog": "https://example.com", "token_url": "", "sheets": [sheet]}
    return [json.dumps({"type": "FeatureCollection", "features": [item], "aftermap": said}).encode()]


def _event(path: Path) -> None:
    event = itemfile.EventFile.read(path)
    itemfile.refuse_elsewhere(event)
    stacfiles.rasters(path, "vv")


def _recipes(_: Path) -> list[bytes]:
    return [path.read_bytes() for path in list(recipe.listed().values())[:3]]


READERS: Mapping[str, Reader] = {r.name: r for r in (
    Reader("tiff", "a.tif", _look, _tiffs),
    Reader("doctor-zip", "a.zip", _zip, _archives),
    Reader("vrt", "a.vrt", _look, _vrts, known=(b"SourceFilename", b"relativeToVRT", b"SourceDataset", b"/vsicurl/http://x/")),
    Reader("geopackage", "a.gpkg", _polygons, lambda folder: [_package(folder / "s.gpkg")]),
    Reader("geojson", "a.geojson", _polygons, _geojson, known=(b"MultiPolygon", b"GeometryCollection", b"coordinates")),
    Reader("tiles", "a.geojson", lambda path: tilegrid.read(path.parent), _geojson, known=(b"identifier", b"coordinates")),
    Reader("npz", "a.npz", lambda path: arrays.read(path, "train", "chip_px"), _npz, also=arrays.BROKEN),
    Reader("hdf5", "TrainData/img/image_1.h5", _chip(landslide4sense.LANDSLIDE4SENSE, inner="TrainData/img/image_1.h5"), _hdf5),
    Reader("zarr", "hokkaido.zarr/vv/.zarray", _cube, _zarr_file("vv/.zarray"), known=(b"pickle", b"filters", b"compressor")),
    Reader("zarr-chunk", "hokkaido.zarr/vv/0.0.0", _cube, _zarr_file("vv/0.0.0")),
    Reader("zarr3-chunk", "hokkaido.zarr/vv/c/0/0/0", lambda path: _cube(path.parents[2]), _zarr_file("vv/c/0/0/0", 3)),
    Reader("parquet", "metadata.parquet", lambda path: bigearthnet.BIGEARTHNET(path.parent), _parquet),
    Reader("model.toml", "model.toml", lambda path: card.Card.read(path.parent), _model),
    Reader("recipe", "a.toml", lambda path: recipe.read(path), _recipes),
    Reader("items", "a.json", _event, _items, known=(b"href", b"http://10.0.0.1/", b"../..", b"file:///")),
    Reader("json", "a.json", plain.read_json, _items, also=(ValueError,)),
)}  # fmt: skip


def kind_of(error: BaseException, reader: Reader) -> str:
    """The code of one of our own errors, the class of one that is allowed, or "fault: " and its class."""
    if isinstance(error, AftermapError):
        return error.code
    return type(error).__name__ if isinstance(error, reader.also) else f"fault: {type(error).__name__}"
