"""Rasters in and out by window: read, warp, write, finish as Cloud Optimized GeoTIFF. The door to rasterio."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.errors
import rasterio.features
import rasterio.shutil
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.vrt import WarpedVRT

from aftermap import archive, meridian
from aftermap.errors import RasterError
from aftermap.rasterfile import BROKEN as BROKEN
from aftermap.rasterfile import open_raster as open_raster
from aftermap.rasterfile import unreadable
from aftermap.readback import FAILED, mark, native, refuse_unlike
from aftermap.tiles import Window

warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)  # the doctor says it in words

GDAL_VERSION: str = rasterio.__gdal_version__
BLOCK_PX = 512
"""Side of the internal blocks of every raster written."""
PIXEL_SPACE = Affine(1, 0, 0, 0, -1, 0)
"""Transform of a scene without georeference: x = column, y = -row, so that polygons lie on the pixels in any viewer."""


@dataclass(frozen=True)
class Facts:
    """What a file says of itself; nothing is guessed here."""

    path: Path
    driver: str
    grid: GeoBox
    dtype: str
    indexes: tuple[int, ...]
    """The bands that hold measurements, from 1; an alpha band without a description is a mask."""
    alpha: int
    """How many bands are left out as masks."""
    nodata: tuple[float | None, ...]
    descriptions: tuple[str, ...]
    units: tuple[str, ...]
    tags: Mapping[str, str]
    band_tags: tuple[Mapping[str, str], ...]


def facts(path: Path, *, alpha_is_band: bool = False) -> Facts:
    """The facts of one file. Raises RasterError when it is missing, unreadable or ends too early.

    `alpha_is_band` takes alpha bands for measurements: writers mark a fourth band as alpha that is infrared in truth.
    """
    try:
        return _facts(path, alpha_is_band=alpha_is_band)
    except (ValueError, RuntimeError) as error:
        raise unreadable(path, error) from error


def _facts(path: Path, *, alpha_is_band: bool) -> Facts:
    with _overhearing() as said, open_raster(path) as src:
        _refuse_truncated(src, path, said)
        if src.dtypes[0].startswith("complex"):
            raise RasterError(
                f"{path.name} holds complex numbers", repair="detect amplitude or power and calibrate it first", code="complex"
            )
        indexes = tuple(i for i in src.indexes if alpha_is_band or not _is_alpha(src, i))
        return Facts(
            path=path,
            driver=src.driver,
            grid=_grid(src),
            dtype=src.dtypes[0],
            indexes=indexes,
            alpha=src.count - len(indexes),
            nodata=tuple(src.nodatavals[i - 1] for i in indexes),
            descriptions=tuple(src.descriptions[i - 1] or "" for i in indexes),
            units=tuple(src.units[i - 1] or "" for i in indexes),
            tags=dict(src.tags()),
            band_tags=tuple(dict(src.tags(i)) for i in indexes),
        )


def _grid(src: Any) -> GeoBox:
    """Raises ValueError where pixels have no place or no area."""
    if not np.isfinite(src.transform[:6]).all() or src.transform.determinant == 0:
        raise ValueError(f"its pixels lie nowhere: {tuple(src.transform[:6])}")
    placed = src.crs is not None or not src.transform.is_identity
    return GeoBox((src.height, src.width), src.transform if placed else PIXEL_SPACE, src.crs)


def _refuse_truncated(src: Any, path: Path, said: Sequence[str]) -> None:
    """Compares the byte range of every TIFF block with the file's size, for a header does not show a missing tail; then reads
    the last pixel, for a file cut in its directories hides even that; and heeds what GDAL said of tags it could not read."""
    if src.driver == "GTiff":
        _refuse_missing_bytes(src, path)
    damage = next((words for words in said if "IO error" in words), "")
    try:
        src.read(window=native(Window(src.height - 1, src.width - 1, 1, 1)))
    except rasterio.errors.RasterioError as error:
        damage = damage or f"its last pixels cannot be read ({error})"
    if damage:
        raise RasterError(f"{path.name} is truncated or damaged: {damage}", repair="copy or download it again", code="truncated")


@contextmanager
def _overhearing() -> Iterator[list[str]]:
    """What GDAL says meanwhile, through rasterio's logger."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("rasterio._env")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def _refuse_missing_bytes(src: Any, path: Path) -> None:
    size = archive.size(path)
    bands = src.indexes if src.interleaving != rasterio.enums.Interleaving.pixel else (1,)
    height, width = src.block_shapes[0]
    for band in bands:
        for y in range(-(-src.height // height)):
            for x in range(-(-src.width // width)):
                offset = src.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=band)
                length = src.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=band)
                if offset is not None and int(offset) + int(length) > size:
                    raise RasterError(
                        f"{path.name} is truncated: it needs {int(offset) + int(length):,} bytes and has {size:,}",
                        repair="copy or download it again",
                        code="truncated",
                    )


class Reader:
    """Bands of one file on a given grid, read by window as float32 (band, y, x), NaN where not observed.

    `nodata` has a value per band; by default what the file declares. An internal mask or alpha band counts too. Where the
    grids differ pixels are warped on the fly: `resampling` is "nearest" for classes, "bilinear" for measurements, "average"
    where they shrink, unless it is given; "none" where the grids are the same.
    """

    def __init__(
        self, path: Path, grid: GeoBox, bands: Sequence[int], *, nodata: Sequence[float | None] | None = None,
        classes: bool = False, resampling: str = "",
    ):  # fmt: skip
        src = open_raster(path)
        try:
            own = _grid(src)
        except ValueError as error:
            raise unreadable(path, error) from error
        self._path, self._bands = path, list(bands)
        declared = nodata if nodata is not None else [src.nodatavals[b - 1] for b in bands]
        self._nodata = [None if v is None or np.isnan(v) else float(v) for v in declared]
        shifts = [] if own == grid else meridian.shifts(own, grid)
        ways = [_resampling(meridian.moved(own, shift), grid, classes) for shift in shifts]
        self.resampling = (resampling or next((way for way in ways if way != "nearest"), "nearest")) if ways else "none"
        self._mask: Any = None
        if self.resampling == "none":
            self._sources = {value: [src] for value in self._nodata}
            self._mask = src if _is_masked(src, self._bands) else None
        else:
            self._sources = {value: [self._warped(src, grid, value, shift) for shift in shifts] for value in self._nodata}

    def _warped(self, src: Any, grid: GeoBox, nodata: float | None, shift: float) -> Any:
        if grid.crs is None:
            raise RasterError(
                f"{self._path.name} and the after image differ in size and have no CRS to align them by",
                repair="georeference both, or cut them to the same pixels",
                code="no-common-grid",
            )
        if any(src.colorinterp[b - 1] == ColorInterp.alpha for b in self._bands):
            raise RasterError(
                f"band {src.count} of {self._path.name} is marked as alpha and would weight the others when warped",
                repair="rewrite it with gdal_translate -colorinterp undefined",
                code="alpha-as-band",
            )
        placed = {"src_transform": Affine.translation(shift, 0) @ src.transform} if shift else {}
        own_nodata = np.nan if nodata is None and "float" in src.dtypes[0] else nodata
        return WarpedVRT(
            src, crs=grid.crs, transform=grid.affine, height=grid.shape[0], width=grid.shape[1], src_nodata=own_nodata,
            nodata=np.nan, dtype="float32", resampling=Resampling[self.resampling], warp_mem_limit=64, UNIFIED_SRC_NODATA="NO",
            **placed,
        )  # fmt: skip

    def read(self, window: Window) -> npt.NDArray[np.float32]:
        """Pixels (band, y, x) of a window that lies within the grid; raises RasterError naming the file and window."""
        return self._observed(
            (window.height, window.width),
            lambda src, bands: read_open(src, window, bands, dtype="float32", name=self._path.name),
            lambda src: src.dataset_mask(window=native(window)),
        )

    def thumbnail(self, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
        """The whole grid (band, y, x) averaged down to `shape`, NaN where not observed."""
        with rasterio.Env():  # sends GDAL's remarks on foreign overviews to logging instead of the terminal
            return self._observed(
                shape,
                lambda src, bands: src.read(
                    bands, out_shape=(len(bands), *shape), out_dtype="float32", resampling=Resampling.average
                ),
                lambda src: src.dataset_mask(out_shape=shape),
            )

    def _observed(
        self,
        shape: tuple[int, int],
        read: Callable[[Any, list[int]], npt.NDArray[np.float32]],
        read_mask: Callable[[Any], npt.NDArray[np.uint8]],
    ) -> npt.NDArray[np.float32]:
        out = np.empty((len(self._bands), *shape), np.float32)
        for value, (src, *others) in self._sources.items():
            rows = [k for k, declared in enumerate(self._nodata) if declared == value]
            out[rows] = read(src, [self._bands[k] for k in rows])
            for other in others:
                out[rows] = np.where(np.isnan(out[rows]), read(other, [self._bands[k] for k in rows]), out[rows])
            if self.resampling == "none" and value is not None:
                out[rows] = np.where(out[rows] == np.float32(value), np.float32(np.nan), out[rows])
        if self._mask is not None:
            out[:, read_mask(self._mask) == 0] = np.nan
        return out


def _is_alpha(src: Any, band: int) -> bool:
    return bool(src.colorinterp[band - 1] == ColorInterp.alpha and not src.descriptions[band - 1])


def _is_masked(src: Any, measured: Sequence[int]) -> bool:
    """True where a mask beside the pixels, or an alpha band that is not among those `measured`, says what was observed."""
    if any(MaskFlags.alpha in flags for flags in src.mask_flag_enums):
        return all(src.colorinterp[b - 1] != ColorInterp.alpha for b in measured)
    return any(MaskFlags.per_dataset in flags for flags in src.mask_flag_enums)


def _resampling(own: GeoBox, grid: GeoBox, classes: bool) -> str:
    if own.crs is None or grid.crs is None:
        return "nearest"
    if classes or (own.crs == grid.crs and _pixels_coincide(own, grid)):
        return "nearest"
    return "average" if own.crs == grid.crs and abs(grid.resolution.x) > 1.5 * abs(own.resolution.x) else "bilinear"


def _pixels_coincide(own: GeoBox, grid: GeoBox) -> bool:
    """Same pixel size and an offset of whole pixels (to a thousandth): nearest neighbour copies without change."""
    step = ~own.affine @ grid.affine
    offset = (abs(step.c - round(step.c)), abs(step.f - round(step.f)))
    return bool(max(abs(step.a - 1), abs(step.e - 1), abs(step.b), abs(step.d)) < 1e-9 and max(offset) < 1e-3)


class Writer:
    """A tiled scratch GeoTIFF written by window; `close` it before a rename makes it appear, or `finish` it. Windows do not
    overlap: each is read back in the end (readback.py)."""

    def __init__(
        self, path: Path, grid: GeoBox, *, dtype: str, descriptions: Sequence[str], nodata: float | None = None,
        palette: Mapping[int, tuple[int, int, int, int]] | None = None, tags: Mapping[str, str] | None = None, unit: str = "",
    ):  # fmt: skip
        self._path, self._dtype = path, dtype
        self._written: dict[Window, int] = {}
        path.unlink(missing_ok=True)  # what a kill left half-written cannot be opened, not even to be overwritten
        side = _block_px(grid.shape)
        self._dst = rasterio.open(
            path, "w", driver="GTiff", height=grid.shape[0], width=grid.shape[1], count=len(descriptions), dtype=dtype,
            crs=grid.crs, transform=grid.affine, nodata=nodata, tiled=True, blockxsize=side, blockysize=side,
            compress="ZSTD", zstd_level=1, bigtiff="IF_SAFER", interleave="band", sparse_ok=True,
        )  # fmt: skip
        self._dst.descriptions = tuple(descriptions)
        self._dst.units = (unit,) * len(descriptions)
        if palette is not None:
            self._dst.write_colormap(1, dict(palette))
        self._dst.update_tags(**(tags or {}))

    def write(self, pixels: npt.NDArray[Any], window: Window) -> None:
        """Writes pixels (band, y, x) at a window. Raises OSError when the disk does not take them."""
        stored = np.asarray(pixels, self._dtype)
        self._written[window] = mark(stored)
        with _disk(self._path):
            self._dst.write(stored, window=native(window))

    def close(self) -> None:
        """Flushes everything to disk. Raises OSError when the disk did not take it."""
        with _disk(self._path):
            self._dst.close()
        refuse_unlike(self._path, self._written)

    def finish(self, destination: Path, *, overview: str) -> None:
        """Closes it and makes a Cloud Optimized GeoTIFF of it, which takes its place. Raises OSError."""
        with _disk(self._path):
            self._dst.close()
            _finish_cog(self._path, destination, overview=overview)
        refuse_unlike(destination, self._written)
        self._path.unlink()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        (self._dst if kind else self).close()


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except FAILED as error:
        raise OSError(f"{path.name} could not be written: {error}") from error
    except SystemError as error:  # of rasterio, where GDAL fails without a word
        raise OSError(f"{path.name} could not be written, as when its folder is taken away meanwhile") from error


def _finish_cog(scratch: Path, destination: Path, *, overview: str) -> None:
    """A Cloud Optimized GeoTIFF from a closed scratch file; overviews by "average" (measurements) or "nearest" (classes)."""
    with rasterio.open(scratch) as src:
        predictor = {"predictor": "FLOATING_POINT"} if "float" in src.dtypes[0] else {}
        side = _block_px(src.shape)
    rasterio.shutil.copy(
        scratch, destination, driver="COG", compress="DEFLATE", level=6, blocksize=side, num_threads="ALL_CPUS",
        overview_resampling=overview.upper(), bigtiff="IF_SAFER", **predictor,
    )  # fmt: skip


def _block_px(shape: Sequence[int]) -> int:
    """Side of a file's blocks: no larger than the image needs, for a whole block is stored, and decoded, for a chip of 64 px."""
    return min(BLOCK_PX, -(-int(max(shape)) // 16) * 16)


def read_window(path: Path, window: Window, bands: Sequence[int] = (1,)) -> npt.NDArray[Any]:
    """Pixels (band, y, x) as stored, no nodata handling: for our own products."""
    with rasterio.open(path, driver="GTiff") as src:
        return read_open(src, window, bands)


def thumbnail(path: Path, shape: tuple[int, int]) -> npt.NDArray[Any]:
    """Band 1 (y, x) of one of our own products by nearest neighbour, from its overviews."""
    with open_raster(path) as src:
        return np.asarray(src.read(1, out_shape=shape, resampling=Resampling.nearest))


def sample(path: Path, index: int, windows: Sequence[Window], *, measured: Sequence[int]) -> npt.NDArray[np.float64]:
    """Pixels (window, y, x) of one band in windows of one size; NaN where a mask, or an alpha band that is not among those
    `measured`, says not observed."""
    with open_raster(path) as src:
        found = np.concatenate([read_open(src, w, [index]) for w in windows]).astype(np.float64)
        if _is_masked(src, measured):
            found[np.stack([src.dataset_mask(window=native(w)) for w in windows]) == 0] = np.nan
        return found


def size_of(path: Path) -> tuple[int, int]:
    """Height and width in pixels."""
    with open_raster(path) as src:
        return int(src.height), int(src.width)


def read_open(src: Any, window: Window, bands: Sequence[int], *, dtype: str | None = None, name: str = "") -> npt.NDArray[Any]:
    """Pixels (band, y, x) as stored, or as `dtype`, of an open dataset; RasterError names the file and window."""
    try:
        return np.asarray(src.read(list(bands), window=native(window), out_dtype=dtype))
    except rasterio.errors.RasterioError as error:
        raise RasterError(
            f"{name or Path(src.name).name} cannot be read at row {window.row}, column {window.col}: {error}",
            repair="fetch or export it again, then run the same command to resume",
            code="unreadable-window",
        ) from error


def shapes_of(labels: npt.NDArray[np.int32], mask: npt.NDArray[np.bool_], affine: Affine) -> list[tuple[Any, int]]:
    """(rings, label) of each 4-connected region of equal labels (y, x) where `mask` is True, in the order of the labels.

    Rings are lists of (x, y) as `affine` places pixel corners, the outer ring first.
    """
    found = rasterio.features.shapes(labels, mask=mask, connectivity=4, transform=affine)
    return sorted(((shape["coordinates"], int(label)) for shape, label in found), key=lambda pair: pair[1])


def burn(
    geometries: Sequence[Any], shape: tuple[int, int], affine: Affine, *, all_touched: bool = False
) -> npt.NDArray[np.bool_]:
    """True (y, x) where a pixel's centre lies in one of the geometries (objects with __geo_interface__), or any part of it."""
    if len(geometries) == 0:
        return np.zeros(shape, dtype=bool)
    burnt = rasterio.features.rasterize(geometries, out_shape=shape, transform=affine, dtype="uint8", all_touched=all_touched)
    return np.asarray(burnt, dtype=bool)
