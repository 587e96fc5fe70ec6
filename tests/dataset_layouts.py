"""Each data set in its official layout, written small: lopsided pixels, every label code, a hole where nothing was observed."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from aftermap.chipfolder import write as write_chips
from aftermap.chips import UNKNOWN, Chip
from tests.conftest import grid

SIDE = 24
RNG = np.random.default_rng(7)


@dataclass
class Made:
    """What a maker wrote: how to open it, a file to damage and the chip that then fails, and splits and events to expect."""

    folder: Path
    damage: Path
    chip: str
    splits: set[str]
    events: set[str]
    settings: dict[str, Any] = field(default_factory=dict)
    remove: Path | None = None


def tif(path: Path, pixels: npt.NDArray[Any], *, crs: str | None = None, **options: Any) -> Path:
    """Strips without compression: a file that is cut is short of pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    with rasterio.open(path, "w", driver="GTiff", count=count, height=height, width=width, dtype=pixels.dtype, **options) as out:
        out.write(pixels)
    return path


def png(path: Path, pixels: npt.NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="PNG", count=len(pixels), height=pixels.shape[1], width=pixels.shape[2], dtype="uint8"
    ) as out:
        out.write(pixels)
    return path


def table(path: Path, rows: list[list[Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    return path


def noise(bands: int, low: float, high: float, dtype: Any, side: int = SIDE) -> npt.NDArray[Any]:
    """(band, y, x), wider than high."""
    return RNG.uniform(low, high, (bands, side, side)).astype(dtype)


def half(value: int, dtype: Any = np.uint8, side: int = SIDE) -> npt.NDArray[Any]:
    """(1, y, x) with `value` in the upper third and 0 below."""
    codes = np.zeros((1, side, side), dtype)
    codes[:, : side // 3] = value
    return codes


def sen1floods11(root: Path) -> Made:
    hand = root / "v1.1/data/flood_events/HandLabeled"
    for name in ("Ghana_1", "Bolivia_2", "USA_3"):
        radar = noise(2, -25, -5, np.float32)
        radar[:, -2:] = np.nan
        label = half(1, np.int16)
        label[:, 5:7, 3] = -1
        tif(hand / "S1Hand" / f"{name}_S1Hand.tif", radar)
        tif(hand / "S2Hand" / f"{name}_S2Hand.tif", noise(13, 100, 3000, np.uint16))
        tif(hand / "LabelHand" / f"{name}_LabelHand.tif", label)
    lists = root / "v1.1/splits/flood_handlabeled"
    for word, name in (("train", "Ghana_1"), ("bolivia", "Bolivia_2"), ("test", "USA_3")):
        table(lists / f"flood_{word}_data.csv", [[f"{name}_S1Hand.tif", f"{name}_LabelHand.tif"]])
    damaged = hand / "S1Hand/Ghana_1_S1Hand.tif"
    splits, events = {"train", "bolivia", "test"}, {"Ghana", "Bolivia", "USA"}
    return Made(root, damaged, "Ghana_1", splits, events, remove=hand / "S1Hand/USA_3_S1Hand.tif")


def building(row: int, subtype: str | None) -> dict[str, Any]:
    """A square of 4 px whose upper edge is at `row`, columns 2 to 8."""
    wkt = f"POLYGON ((2 {row}, 8 {row}, 8 {row + 4}, 2 {row + 4}, 2 {row}))"
    return {"wkt": wkt, "properties": {"feature_type": "building", "uid": "u"} | ({"subtype": subtype} if subtype else {})}


def xbd(root: Path) -> Made:
    for split, disaster in (("train", "palu-tsunami"), ("test", "joplin-tornado")):
        for when in ("pre", "post"):
            stem = f"{disaster}_00000001_{when}_disaster"
            png(root / split / "images" / f"{stem}.png", noise(3, 1, 255, np.uint8))
            post = [
                building(0, "no-damage"),
                building(6, "destroyed"),
                building(12, "un-classified"),
                building(18, "minor-damage"),
            ]
            features = {"xy": post if when == "post" else [building(0, None)], "lng_lat": []}
            (root / split / "labels").mkdir(parents=True, exist_ok=True)
            (root / split / "labels" / f"{stem}.json").write_text(json.dumps({"features": features, "metadata": {}}))
    pair = root / "train/images/palu-tsunami_00000001_post_disaster.png"
    events = {"palu-tsunami", "joplin-tornado"}
    return Made(
        root,
        pair,
        "palu-tsunami_00000001",
        {"train", "test"},
        events,
        remove=root / "test/labels/joplin-tornado_00000001_post_disaster.json",
    )


def hr_gldd(root: Path) -> Made:
    for word, count in (("train", 3), ("val", 2), ("test", 2)):
        np.save(root / f"{word}X.npy", RNG.uniform(0, 1, (count, SIDE, SIDE, 4)))
        np.save(root / f"{word}Y.npy", np.stack([half(1, np.float64)[0][..., None]] * count))
    return Made(root, root / "valX.npy", "val_0000", {"train", "validation", "test"}, {"unknown"}, remove=root / "testY.npy")


def landslide4sense(root: Path) -> Made:
    h5py = __import__("h5py")
    for part, mark in (("TrainData", True), ("ValidData", False)):
        for number in (2, 10):
            for kind, key, pixels in (("img", "img", RNG.uniform(0, 6, (SIDE, SIDE, 14))), ("mask", "mask", half(1)[0])):
                if kind == "img" or mark:
                    path = root / part / kind / f"{'image' if kind == 'img' else 'mask'}_{number}.h5"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with h5py.File(path, "w") as out:
                        out[key] = pixels * (number if kind == "img" else 1)
    damaged = root / "TrainData/img/image_10.h5"
    return Made(root, damaged, "train_0010", {"train", "validation"}, {"unknown"}, remove=root / "TrainData/mask/mask_2.h5")


def landslide4sense_rgb(root: Path) -> Made:
    rows = [["image", "mask", "landslide4sense_train_name", "mirror_split", "region_inferred"]]
    for k, region in enumerate(("A_taiwan_like", "A_taiwan_like", "B_hokkaido_like")):
        image = noise(4, 1, 255, np.uint8)
        image[3] = 255
        image[3, -1] = 0
        png(root / "images" / f"image_{k}.png", image)
        png(root / "masks" / f"mask_{k}.png", np.repeat(half(255), 4, axis=0))
        rows.append([f"image_{k}.png", f"mask_{k}.png", f"image_{k + 1}.h5", "train", region])
    table(root / "index.csv", rows)
    return Made(root, root / "images/image_1.png", "image_1", {"all"}, {"A", "B"}, remove=root / "masks/mask_2.png")


def antarctic_fractures(root: Path) -> Made:
    for part, places in (("data_trainset", ("1x6", "2x4")), ("data_validset", ("3x4",))):
        for place in places:
            image = noise(1, 1, 65535, np.uint16)
            image[:, :, :5] = 0
            tif(root / part / f"fracture_{place}.tif", image)
            tif(root / part / f"fracture_{place}_mask.tif", half(255 if place != "3x4" else 0))
    damaged = root / "data_trainset/fracture_2x4.tif"
    events = {"row 1", "row 2", "row 3"}
    return Made(
        root, damaged, "fracture_2x4", {"train", "validation"}, events, remove=root / "data_validset/fracture_3x4_mask.tif"
    )


def ombria(root: Path) -> Made:
    tiles = (("0001", "train", "A"), ("0002", "test", "H"), ("0003", "train", "C"))
    for number, split, _ in tiles:
        for kind, bands in (("S1", 1), ("S2", 3)):
            for when in ("before", "after", "mask"):
                pixels = half(255) if when == "mask" else noise(bands, 1, 255, np.uint8)
                if kind == "S2" and when == "after":
                    pixels[:, :, -3:] = 0
                png(root / f"Ombria{kind}" / split / when.upper() / f"{kind}_{when}_{number}.png", pixels)
    table(root / "groups_inferred.csv", [["tile", "original_split", "group_inferred"], *([n, s, g] for n, s, g in tiles)])
    damaged = root / "OmbriaS2/train/AFTER/S2_after_0001.png"
    return Made(
        root, damaged, "0001", {"train", "test"}, {"A+B+H", "C"}, remove=root / "OmbriaS1/train/BEFORE/S1_before_0003.png"
    )


def sar_landslides(root: Path) -> Made:
    """Passes on days 0 to 5, the earthquake of Hokkaido (2018-09-05 18:07) between 3 and 4. Pass k has the level k + 1."""
    zarr = __import__("zarr")
    store = root / "hokkaido_japan.zarr"
    cube = zarr.open_group(store, mode="w", zarr_format=2)
    days, shape = np.arange(6), (2 * SIDE, 3 * SIDE)

    def put(name: str, values: npt.NDArray[Any], dims: list[str], **more: Any) -> None:
        array = cube.create_array(name, shape=values.shape, dtype=values.dtype, chunks=values.shape, **more)
        array[:] = values
        array.attrs["_ARRAY_DIMENSIONS"] = dims

    put("timestep", days.astype(np.int64), ["timestep"])
    cube["timestep"].attrs["units"] = "days since 2018-09-02T06:00:00"
    put("sat:orbit_state", np.array(["d", "d", "d", "d", "d", "a"], dtype="S1"), ["timestep"])
    level = (days + 1)[:, None, None] * np.ones(shape)
    level[:, :3, :3] = np.nan
    put("vv", level.astype(np.float32), ["timestep", "y", "x"])
    put("vh", np.moveaxis(level, (1, 2), (2, 1)).astype(np.float32) / 10, ["timestep", "x", "y"])
    mark = np.zeros(shape, np.float32)
    mark[: SIDE // 3] = 1
    put("landslides", mark, ["y", "x"])
    put("dem", mark * 100, ["y", "x"])
    put("dem_slope_radians", mark * np.float32(np.pi / 4), ["y", "x"])
    put("dem_aspect", mark * np.float32(270), ["y", "x"])
    put("dem_curvature", mark * np.float32(-0.5), ["y", "x"])
    return Made(root, store / "vv/0.0.0", "hokkaido_japan_00000_00000", {"all"}, {"hokkaido_japan"}, {"size": SIDE})


def sen12landslides(root: Path) -> Made:
    """Stored (time, x, y): along y the pixels grow, along x they do not; date k adds 100 k."""
    h5py = __import__("h5py")
    for name in ("italy_s2_1", "italy_s2_2", "nepal_s2_3"):
        path = root / "data/s2" / f"{name}.nc"
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as out:
            for axis, size in (("time", 15), ("x", SIDE), ("y", SIDE)):
                out[axis] = np.arange(size)
                out[axis].make_scale(axis)
            level = 1000 + np.arange(15)[:, None, None] * 100 + np.zeros((1, SIDE, 1)) + np.arange(SIDE)[None, None, :]
            scene = np.full((15, SIDE, SIDE), 4, np.int16)
            scene[8, 0, :] = 9
            mask = np.zeros((15, SIDE, SIDE), np.uint8)
            mask[:, :, : SIDE // 3] = 1
            bands = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
            for key, values in {**dict.fromkeys(bands, level.astype(np.int16)), "SCL": scene, "MASK": mask}.items():
                out[key] = values
                for i, axis in enumerate(("time", "x", "y")):
                    out[key].dims[i].attach_scale(out[axis])
            out.attrs["pre_post_dates"] = "{'pre': 7, 'post': 8}"
    lists = root / "tasks/S12LS-LD/s2/splits.json"
    lists.parent.mkdir(parents=True)
    lists.write_text(json.dumps({"train": ["s2/italy_s2_1.nc", "s2/italy_s2_2.nc"], "val": [], "test": ["s2/nepal_s2_3.nc"]}))
    return Made(
        root,
        root / "data/s2/italy_s2_2.nc",
        "italy_s2_2",
        {"train", "test"},
        {"italy", "nepal"},
        remove=root / "data/s2/nepal_s2_3.nc",
    )


def bigearthnet(root: Path) -> Made:
    arrow, parquet = __import__("pyarrow"), __import__("pyarrow.parquet").parquet
    rows = []
    for k, (country, split) in enumerate((("Austria", "train"), ("Serbia", "test"), ("Finland", "validation"))):
        optical, radar = f"S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_{k}", f"S1A_IW_GRDH_1SDV_20170613T165043_33UUP_26_{k}"
        for band, side in (("B01", 20), ("B02", 120), ("B03", 120), ("B04", 120), ("B05", 60), ("B06", 60), ("B07", 60),
                           ("B08", 120), ("B8A", 60), ("B09", 20), ("B11", 60), ("B12", 60)):  # fmt: skip
            tif(
                root / "BigEarthNet-S2" / optical.rsplit("_", 2)[0] / optical / f"{optical}_{band}.tif",
                noise(1, 1, 5000, np.uint16, side),
            )
        for band in ("VV", "VH"):
            tif(
                root / "BigEarthNet-S1" / radar.rsplit("_", 3)[0] / radar / f"{radar}_{band}.tif",
                noise(1, -25, -5, np.float32, 120),
            )
        codes = half(523, np.uint16, 120)
        codes[:, 60:, :] = 312
        codes[:, :, 0] = 332
        codes[:, 40:60, 1:] = 111
        tif(root / "Reference_Maps" / optical.rsplit("_", 2)[0] / optical / f"{optical}_reference_map.tif", codes)
        rows.append(
            {
                "patch_id": optical,
                "labels": ["Marine waters", "Coniferous forest"],
                "split": split,
                "country": country,
                "s1_name": radar,
            }
        )
    parquet.write_table(arrow.Table.from_pylist(rows), root / "metadata.parquet")
    name = rows[0]["patch_id"]
    damaged = next(root.glob(f"BigEarthNet-S2/*/{name}/{name}_B03.tif"))
    return Made(root, damaged, str(name), {"train", "test", "validation"}, {"Austria", "Serbia", "Finland"})


def worldfloods(root: Path) -> Made:
    for part, name in (("train", "EMSR265_01A_DEL_v1"), ("val", "EMSR265_02B_DEL_v1"), ("test", "ST1_20161014_WaterExtent")):
        image = noise(13, 100, 5000, np.uint16, 40)
        image[:, :, -4:] = 0
        truth = np.stack([np.ones((40, 40), np.uint8), half(1, side=40)[0] + 1])
        truth[:, 0], truth[0, 1] = 0, 2
        tif(root / part / "S2" / f"{name}.tif", image)
        tif(root / part / "gt" / f"{name}.tif", truth)
    damaged = root / "train/S2/EMSR265_01A_DEL_v1.tif"
    splits, events = {"train", "validation", "test"}, {"EMSR265", "ST1_20161014_WaterExtent"}
    return Made(
        root, damaged, "EMSR265_01A_DEL_v1_00000_00000", splits, events, remove=root / "test/gt/ST1_20161014_WaterExtent.tif"
    )


def m3leo(root: Path) -> Made:
    area = root / "europe_partitions_aschips_abc"
    for k in range(4):
        name = f"{k:013x}"
        db = np.rint(noise(16, -30, -5, np.float32)).astype(np.int16)
        tif(area / "s1grd-2020" / f"{name}.tif", db.view(np.uint16))
        codes = half(10)
        codes[:, 20:], codes[:, :2] = 80, 0
        codes[:, 8:20] = 100
        tif(area / "esaworldcover-2020" / f"{name}.tif", codes)
        cover = np.full((5, SIDE, SIDE), 10, np.uint8)
        cover[-1, :, : SIDE // 2], cover[-1, 0], cover[-1, 1] = 50, 200, 253
        tif(area / "modis44b006veg" / f"{name}.tif", cover)
        tif(area / "biomass-2020" / f"{name}.tif", np.full((1, 5, 6), 12.75, np.float32))
        colour = noise(36, 1, 255, np.uint8)
        colour[6:9, :4] = 0
        tif(area / "s2rgbm-2020" / f"{name}.tif", colour)
        tif(area / "strmdem" / f"{name}.tif", noise(1, 0, 900, np.int16))
        _interferometry(area, name)
    table(
        area / "europe_splits_60bands_angle45_60-20-20.csv",
        [["identifier", "split"], *([f"{k:013x}", split] for k, split in enumerate(("train", "test", "val", "train")))],
    )
    return Made(
        root,
        area / "s1grd-2020" / f"{0:013x}.tif",
        f"{0:013x}",
        {"train", "val", "test"},
        {"europe"},
        remove=area / "s1grd-2020" / f"{1:013x}.tif",
    )


def _interferometry(area: Path, name: str) -> None:
    """NetCDF as xarray writes it: seasons in the makers' order, latitude rising in one file, the rarer pairs last or lacking."""
    days, seasons, pairs = (12, 24, 36, 48), ("summer", "fall", "winter", "spring"), ("20200701_20200303", "20200601_20200520",
        "20200401_20200401", "20200901_20200501")  # fmt: skip
    level = 10 * np.arange(4)[:, None, None, None] + np.arange(4)[:, None, None] + np.zeros((6, 8))
    level[2, 2, :2] = np.nan
    north = np.linspace(47.04, 47, 6)
    netcdf(area / "gssic" / f"{name}.nc", "coherence", level, season=seasons, deltadays=days, y=north, x=np.linspace(8, 8.06, 8))
    rise = np.arange(5)[:, None] + 100.0 * np.arange(len(pairs))[:, None, None] + np.zeros((5, 7))  # south first
    netcdf(area / "gunw_2020-01-01_2020-12-31" / f"{name}.nc", "science/grids/data/unwrappedPhase", rise, datepair=pairs,
           latitude=north[:-1][::-1], longitude=np.linspace(8, 8.06, 7))  # fmt: skip


def netcdf(path: Path, name: str, values: npt.NDArray[Any], **coordinates: Any) -> Path:
    """A variable and its coordinates, which name its dimensions, in one group."""
    h5py = __import__("h5py")
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as out:
        group = out.require_group(name.rpartition("/")[0] or "/")
        array = group.create_dataset(name.rpartition("/")[2], data=values.astype(np.float32))
        for axis, (dimension, at) in enumerate(coordinates.items()):
            scale = group.create_dataset(dimension, data=np.array(at, dtype="S17") if isinstance(at[0], str) else np.array(at))
            scale.make_scale(dimension)
            array.dims[axis].attach_scale(scale)
    return path


def worldcover(root: Path) -> Made:
    for tile in ("N45E009", "S03W060"):
        codes = half(95, side=40)
        codes[:, 20:], codes[:, :3] = 10, 0
        tif(root / f"ESA_WorldCover_10m_2021_v200_{tile}_Map.tif", codes + (codes == 0) * np.uint8(0))
        codes[:, 13:20] = 60
        tif(root / f"ESA_WorldCover_10m_2021_v200_{tile}_Map.tif", codes)
    return Made(
        root, root / "ESA_WorldCover_10m_2021_v200_N45E009_Map.tif", "N45E009_00000_00000", {"all"}, {"N45E009", "S03W060"}
    )


def folder(root: Path) -> Made:
    on = grid((SIDE, SIDE))
    chips = []
    for k, split in enumerate(("train", "test")):
        pixels = noise(2, -25, -5, np.float32)
        pixels[:, :2] = np.nan
        valid = np.isfinite(pixels).all(axis=0)
        chip = Chip(pixels, valid, half(1)[0], ("before.VV", "VV"), "dB", f"chip_{k}", f"event {k}", "sentinel-1")
        chips.append((chip, split, on))
    write_chips(root, chips, classes=("absent", "present"), facts={"seed": 3, "sources": [{"name": 'a "b".tif', "sha256": ""}]})
    return Made(
        root, root / "images/chip_0.tif", "chip_0", {"train", "test"}, {"event 0", "event 1"}, remove=root / "masks/chip_1.tif"
    )


def simulated(root: Path) -> Made:
    for seed in (0, 19):
        scene = root / f"flood-{seed:06d}"
        codes = np.zeros((3, 512, 512), np.uint8)
        codes[0, 40:90, 300:] = codes[1, :20] = codes[2, 60:70, 400:] = 1
        tif(scene / "after.tif", np.random.default_rng(seed).uniform(-25, -5, (2, 512, 512)).astype(np.float32))
        tif(scene / "truth.tif", codes)
    return Made(
        root,
        root / "flood-000000/after.tif",
        "flood-000000@0,0",
        {"train", "test"},
        {"flood-000000", "flood-000019"},
        {"size": 512},
    )


def simulated_landcover(root: Path) -> Made:
    for name in ("plain-000000", "alps-000018"):
        scene, rng = root / name, np.random.default_rng(len(name))
        codes = np.zeros((2, SIDE * 2, SIDE * 2), np.uint8)
        codes[0, 20:], codes[1, :20], codes[0, :3, :3] = 3, 80, UNKNOWN
        for file, bands in (("s1", 2), ("coherence", 2), ("dem", 1)):
            tif(scene / f"{file}.tif", rng.uniform(0, 1, (bands, *codes.shape[1:])).astype(np.float32))
        rgb = rng.integers(1, 255, (3, *codes.shape[1:])).astype(np.uint8)
        rgb[:, :, :4] = 0
        tif(scene / "rgb.tif", rgb)
        tif(scene / "truth.tif", codes)
    return Made(
        root,
        root / "alps-000018/coherence.tif",
        "alps-000018@0,0",
        {"train", "validation"},
        {"plain-000000", "alps-000018"},
        {"size": 32},
        remove=root / "plain-000000/dem.tif",
    )


MAKERS: dict[str, Callable[[Path], Made]] = {
    "sen1floods11": sen1floods11, "xbd": xbd, "hr-gldd": hr_gldd, "landslide4sense": landslide4sense,
    "landslide4sense-rgb": landslide4sense_rgb, "antarctic-fractures": antarctic_fractures, "ombria": ombria,
    "sar-landslides": sar_landslides, "sen12landslides": sen12landslides, "bigearthnet": bigearthnet,
    "worldfloods": worldfloods, "m3leo": m3leo, "worldcover": worldcover, "simulated": simulated,
    "simulated-landcover": simulated_landcover,
    "folder": folder,
}  # fmt: skip
