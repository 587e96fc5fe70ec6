"""Scenes as public catalogs publish them: COGs under a folder, and the item that describes them, from arrays or files.

Every maker writes under `folder` and returns an item whose hrefs are relative to it, as `stac_server.serving` takes them.
Pixels are (y, x) per asset on an odc-geo GeoBox.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.features
import rasterio.shutil
import rasterio.warp
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.io import MemoryFile
from shapely.geometry import box, mapping, shape

from tests.stac_search import Item

Pixels = npt.NDArray[Any]
Bbox = tuple[float, float, float, float]
TILE_PX = 256
S1_NODATA = -32768.0
S1A_ORBITS_PER_DAY = 175 / 12
FLAVOURS = {"planetary-computer": "sentinel-2-l2a", "earth-search": "sentinel-2-l2a", "earth-search-c1": "sentinel-2-c1-l2a"}
"""Who publishes Sentinel-2 L2A, and what they call it: two catalogs give one name to different numbers."""
_COMMON = {"B02": "blue", "B03": "green", "B04": "red", "B08": "nir", "B11": "swir16", "B12": "swir22", "SCL": "scl"}
S2_BANDS = tuple(_COMMON)
_PROJECTION = {
    "code": "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "epsg": "https://stac-extensions.github.io/projection/v1.1.0/schema.json",
}


def iso(when: datetime) -> str:
    """RFC 3339 in UTC, as catalogs write it; a time without a zone is UTC."""
    utc = when.astimezone(UTC) if when.tzinfo else when
    return utc.replace(tzinfo=None).isoformat() + "Z"


def cog(path: Path, pixels: Pixels, grid: GeoBox, *, nodata: float | None = None, overview: str = "nearest") -> Path:
    """A Cloud Optimized GeoTIFF of one band."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "height": grid.shape[0], "width": grid.shape[1], "count": 1, "dtype": pixels.dtype}
    with MemoryFile() as memory:
        with memory.open(**profile, crs=str(grid.crs), transform=grid.affine, nodata=nodata) as out:
            out.write(pixels, 1)
        with memory.open() as src:
            rasterio.shutil.copy(
                src,
                path,
                driver="COG",
                compress="DEFLATE",
                level=1,
                predictor="YES",
                blocksize=TILE_PX,
                overview_resampling=overview,
            )
    return path


def item(
    collection: str, name: str, when: datetime, grid: GeoBox, assets: Mapping[str, Mapping[str, Any]],
    properties: Mapping[str, Any], *, footprint: Any = None, code: str = "code", extensions: Sequence[str] = (),
) -> Item:  # fmt: skip
    """An item; `footprint` is a shapely geometry in the grid's CRS where less than the grid was seen.

    `code` is "code" where the catalog writes proj:code, "epsg" where it is still at the extension's version 1.
    """
    seen = box(*grid.extent.boundingbox) if footprint is None else footprint
    where = shape(
        rasterio.warp.transform_geom(str(grid.crs), "EPSG:4326", mapping(shapely.segmentize(seen, 20_000)), precision=7)
    )
    projected = _projected(grid) | {f"proj:{code}": str(grid.crs) if code == "code" else int(str(grid.crs).removeprefix("EPSG:"))}
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "collection": collection,
        "stac_extensions": [_PROJECTION[code], *(f"https://stac-extensions.github.io/{e}/schema.json" for e in extensions)],
        "geometry": mapping(where), "bbox": list(where.bounds), "links": [], "assets": {k: dict(v) for k, v in assets.items()},
        "properties": {"datetime": iso(when), **projected, **properties},
    }  # fmt: skip


def _projected(grid: GeoBox) -> dict[str, Any]:
    affine = grid.affine
    return {
        "proj:shape": list(grid.shape), "proj:bbox": list(grid.extent.boundingbox),
        "proj:transform": [affine.a, affine.b, affine.c, affine.d, affine.e, affine.f],
    }  # fmt: skip


def _asset(
    folder: Path, collection: str, name: str, key: str, pixels: Pixels, grid: GeoBox, *, nodata: float | None = None,
    overview: str = "nearest", **more: Any,
) -> dict[str, Any]:  # fmt: skip
    """Writes the COG of an asset and describes it."""
    href = f"{collection}/{name}/{key}.tif"
    cog(folder / href, pixels, grid, nodata=nodata, overview=overview)
    kind = "image/tiff; application=geotiff; profile=cloud-optimized"
    return {"href": href, "type": kind, "roles": ["data"], "title": key, **more}


def _hull(seen: npt.NDArray[np.bool_], grid: GeoBox) -> Any:
    """The convex footprint of the pixels that were seen."""
    found = rasterio.features.shapes(seen.astype(np.uint8), mask=seen, transform=grid.affine)
    return shapely.union_all([shape(outline) for outline, _ in found]).convex_hull


def sentinel1_rtc(
    folder: Path, vv: Pixels, vh: Pixels, grid: GeoBox, when: datetime, *, absolute_orbit: int, orbit_state: str = "descending",
    slice_number: int = 5, seconds: float = 25.0,
) -> Item:  # fmt: skip
    """A pass of Sentinel-1A as Planetary Computer's `sentinel-1-rtc`: `vv`, `vh` in linear power, NaN where not seen.

    `when` is the middle of the slice; the relative orbit follows from the absolute one; slices of one orbit are one datatake.
    """
    half = timedelta(seconds=seconds / 2)
    start, stop = when - half, when + half
    datatake = absolute_orbit * 9 + 5
    name = f"S1A_IW_GRDH_1SDV_{start:%Y%m%dT%H%M%S}_{stop:%Y%m%dT%H%M%S}_{absolute_orbit:06d}_{datatake:06X}_rtc"
    collection, seen = "sentinel-1-rtc", np.isfinite(vv)
    assets = {
        key: _asset(
            folder, collection, name, key, np.where(seen, pixels, S1_NODATA).astype(np.float32), grid, nodata=S1_NODATA,
            overview="average", **{"raster:bands": [{"nodata": -32768, "data_type": "float32", "spatial_resolution": 10.0}]},
        )
        for key, pixels in {"vv": vv, "vh": vh}.items()
    }  # fmt: skip
    properties = {
        "start_datetime": iso(start), "end_datetime": iso(stop), "platform": "SENTINEL-1A", "constellation": "Sentinel-1",
        "instruments": ["c-sar"], "sat:platform_international_designator": "2014-016A", "sat:orbit_state": orbit_state,
        "sat:absolute_orbit": absolute_orbit, "sat:relative_orbit": relative_orbit(absolute_orbit),
        "sar:instrument_mode": "IW", "sar:frequency_band": "C", "sar:center_frequency": 5.405, "sar:polarizations": ["VV", "VH"],
        "sar:product_type": "GRD", "sar:resolution_range": 20, "sar:resolution_azimuth": 22, "sar:pixel_spacing_range": 10,
        "sar:pixel_spacing_azimuth": 10, "sar:looks_range": 5, "sar:looks_azimuth": 1, "sar:looks_equivalent_number": 4.4,
        "sar:observation_direction": "right", "s1:datatake_id": str(datatake), "s1:slice_number": str(slice_number),
        "s1:total_slices": "17", "s1:orbit_source": "RESORB", "s1:processing_level": "1", "s1:resolution": "high",
        "s1:product_timeliness": "Fast-24h", "s1:instrument_configuration_ID": "7", "s1:shape": list(grid.shape[::-1]),
    }  # fmt: skip
    return item(
        collection, name, when, grid, assets, properties, footprint=_hull(seen, grid),
        extensions=("sat/v1.0.0", "sar/v1.0.0", "raster/v1.1.0"),
    )  # fmt: skip


def relative_orbit(absolute_orbit: int) -> int:
    """Of Sentinel-1A, 1 to 175."""
    return (absolute_orbit - 73) % 175 + 1


def sentinel2_l2a(
    folder: Path, bands: Mapping[str, Pixels], scl: Pixels, grid: GeoBox, when: datetime, *, tile: str = "33UVP",
    cloud_cover: float = 0.0, relative_orbit: int = 122, baseline: str = "05.10", flavour: str = "planetary-computer",
    stated_offset: float | None = None,
) -> Item:  # fmt: skip
    """A granule of Sentinel-2A as one of FLAVOURS publishes it, from reflectance x 10,000 of B02 to B12 and the scene classes.

    Numbers are stored as there: with 1,000 added from baseline 04.00 on, except at "earth-search", which took it off again and
    says so in `earthsearch:boa_offset_applied`. `stated_offset` is what its raster:bands say all the same: -0.1 is seen too.
    """
    collection, public = FLAVOURS[flavour], flavour == "planetary-computer"
    added = 1000 if baseline >= "04.00" else 0
    kept = 0 if flavour == "earth-search" else added
    offset = (-added / 10_000 if flavour == "earth-search-c1" else 0) if stated_offset is None else stated_offset
    name = {
        "planetary-computer": f"S2A_MSIL2A_{when:%Y%m%dT%H%M%S}_R{relative_orbit:03d}_T{tile}_{when:%Y%m%d}T161500",
        "earth-search": f"S2A_{tile}_{when:%Y%m%d}_0_L2A",
        "earth-search-c1": f"S2A_T{tile}_{when:%Y%m%dT%H%M%S}_L2A",
    }[flavour]
    assets = {}
    for band, pixels in {**bands, "SCL": scl}.items():
        classes, step = band == "SCL", 2 if band in ("B11", "B12", "SCL") else 1
        on = grid if step == 1 else grid.zoom_out(step)
        thinned = pixels[::step, ::step] if classes else _mean(pixels, step)
        stored = (
            thinned.astype(np.uint8) if classes else np.where(thinned > 0, np.clip(thinned + kept, 1, 65535), 0).astype(np.uint16)
        )
        more: dict[str, Any] = {"gsd": 10 * step, **_projected(on)}
        if not public:
            numbers = {} if classes else {"scale": 0.0001, "offset": offset}
            more["raster:bands"] = [{"nodata": 0, "data_type": str(stored.dtype), "spatial_resolution": 10 * step, **numbers}]
        if not classes:
            more["eo:bands"] = [{"name": band if public else _COMMON[band], "common_name": _COMMON[band]}]
        key = band if public else _COMMON[band]
        assets[key] = _asset(
            folder,
            f"{flavour}/{collection}",
            name,
            key,
            stored,
            on,
            nodata=0,
            overview="nearest" if classes else "average",
            **more,
        )
    properties = {
        "constellation": "Sentinel 2" if public else "sentinel-2", "platform": "Sentinel-2A" if public else "sentinel-2a",
        "instruments": ["msi"], "eo:cloud_cover": cloud_cover, "s2:processing_baseline": baseline, "s2:product_type": "S2MSI2A",
        "s2:datatake_id": f"GS2A_{when:%Y%m%dT%H%M%S}_046290_N{baseline}", "s2:nodata_pixel_percentage": 0.0,
        "s2:generation_time": iso(when + timedelta(hours=6)), "s2:datatake_type": "INS-NOBS",
    }  # fmt: skip
    if public:
        properties |= {"s2:mgrs_tile": tile, "sat:relative_orbit": relative_orbit, "sat:orbit_state": "descending"}
    else:
        properties |= {"mgrs:utm_zone": int(tile[:2]), "mgrs:latitude_band": tile[2], "mgrs:grid_square": tile[3:]}
        properties |= {"grid:code": f"MGRS-{tile}", "earthsearch:boa_offset_applied": flavour == "earth-search" and added > 0}
    return item(
        collection, name, when, grid, assets, properties, code="epsg" if flavour == "earth-search" else "code",
        extensions=("eo/v1.1.0", "raster/v1.1.0", "mgrs/v1.0.0", "grid/v1.1.0"),
    )  # fmt: skip


def _mean(pixels: Pixels, step: int) -> Pixels:
    rows, cols = pixels.shape
    return np.asarray(np.rint(pixels.reshape(rows // step, step, cols // step, step).mean(axis=(1, 3))))


def cop_dem(folder: Path, elevation: Pixels, grid: GeoBox) -> list[Item]:
    """`cop-dem-glo-30`: elevation in metres at 1 arc second, one item for each tile of 1 degree that the grid touches."""
    made = []
    for (west, south), on in _tiles(grid, 1, 3600, shift=0.5):
        name = f"Copernicus_DSM_COG_10_{_corner(south, west, '_00_')}_00_DEM"
        pixels = _onto(elevation.astype(np.float32), grid, on, "bilinear")
        asset = _asset(folder, "cop-dem-glo-30", name, "data", pixels, on, overview="average")
        properties = {"gsd": 30, "platform": "TanDEM-X"}
        made.append(item("cop-dem-glo-30", name, datetime(2021, 4, 22), on, {"data": asset}, properties))
    return made


def worldcover(folder: Path, codes: Pixels, grid: GeoBox, *, year: int = 2021) -> list[Item]:
    """`esa-worldcover`: codes (10 tree to 100 moss, 0 not mapped) of 2020 or 2021 at 1/12000 degree, in tiles of 3 degrees."""
    version = {2020: "1.0.0", 2021: "2.0.0"}[year]
    made = []
    for (west, south), on in _tiles(grid, 3, 12_000):
        name = f"ESA_WorldCover_10m_{year}_v{version.replace('.', '')}_{_corner(south, west)}"
        asset = _asset(folder, "esa-worldcover", name, "map", _onto(codes.astype(np.uint8), grid, on, "nearest"), on, nodata=0)
        properties = {
            "start_datetime": f"{year}-01-01T00:00:00Z", "end_datetime": f"{year}-12-31T23:59:59Z",
            "esa_worldcover:product_version": version, "esa_worldcover:product_tile": _corner(south, west),
        }  # fmt: skip
        made.append(item("esa-worldcover", name, datetime(year, 1, 1), on, {"map": asset}, properties))
    return made


def jrc_water(folder: Path, occurrence: Pixels, grid: GeoBox) -> list[Item]:
    """`jrc-gsw`: how often water was seen in % (255 not observed), months with water, and its widest extent, at 1/4000 degree."""
    made = []
    for (west, south), on in _tiles(grid, 10, 4000):
        name = f"{abs(west)}{'EW'[west < 0]}_{abs(south + 10)}{'NS'[south + 10 < 0]}v1_3_2020"
        often = _onto(occurrence.astype(np.uint8), grid, on, "nearest")
        seen = often != 255
        layers = {
            "occurrence": often,
            "seasonality": np.where(seen, often.astype(np.uint16) * 12 // 100, 255).astype(np.uint8),
            "extent": np.where(seen, often > 0, 255).astype(np.uint8),
        }
        assets = {key: _asset(folder, "jrc-gsw", name, key, pixels, on, nodata=255) for key, pixels in layers.items()}
        properties = {"start_datetime": "1984-03-16T00:00:00Z", "end_datetime": "2021-01-01T00:00:00Z"}
        made.append(item("jrc-gsw", name, datetime(2020, 12, 31), on, assets, properties))
    return made


def _corner(south: int, west: int, between: str = "") -> str:
    """South-west corner of a tile as its name has it: N48E012."""
    return f"{'NS'[south < 0]}{abs(south):02d}{between}{'EW'[west < 0]}{abs(west):03d}"


def _tiles(grid: GeoBox, degrees: int, per_degree: int, *, shift: float = 0.0) -> Iterator[tuple[tuple[int, int], GeoBox]]:
    """South-west corners of the tiles that a grid touches, each with its pixels around the grid, some 300 m more on each side.

    The rest of a tile is left out: a test needs none of it. Pixels lie as in the whole tile, `shift` pixels north-west of the
    whole degree.
    """
    west, south, east, north = grid.geographic_extent.boundingbox
    rim = 0.004
    for left in range(math.floor(west / degrees) * degrees, math.ceil(east), degrees):
        for low in range(math.floor(south / degrees) * degrees, math.ceil(north), degrees):
            side = degrees * per_degree
            first, last = (_clipped((edge - left) * per_degree + shift, side) for edge in (west - rim, east + rim))
            top, bottom = (_clipped((low + degrees - edge) * per_degree + shift, side) for edge in (north + rim, south - rim))
            if first < last and top < bottom:
                step = 1 / per_degree
                corner = (left + (first - shift) * step, low + degrees - (top - shift) * step)
                yield (
                    (left, low),
                    GeoBox((bottom - top, last - first), Affine(step, 0, corner[0], 0, -step, corner[1]), "EPSG:4326"),
                )


def _clipped(position: float, side: int) -> int:
    return min(max(round(position), 0), side)


def _onto(pixels: Pixels, grid: GeoBox, on: GeoBox, how: str) -> Pixels:
    """Resampled; beyond the grid stands what its edge says."""
    rim = 200
    out = np.zeros(on.shape, pixels.dtype)
    rasterio.warp.reproject(
        np.pad(pixels, rim, mode="edge"), out, src_transform=grid.pad(rim).affine, src_crs=str(grid.crs), dst_transform=on.affine,
        dst_crs=str(on.crs), resampling=rasterio.warp.Resampling[how],
    )  # fmt: skip
    return out


def published(
    path: Path, folder: Path, collection: str, when: datetime, *, assets: Mapping[str, int] | None = None,
    name: str | None = None, properties: Mapping[str, Any] | None = None, overview: str = "average",
) -> Item:  # fmt: skip
    """Any GeoTIFF with a CRS as an item of a collection: `assets` names bands, counted from 1; else all by description."""
    with rasterio.open(path) as src:
        if src.crs is None:
            raise ValueError(f"{path} has no CRS, so no place in a catalog")
        grid = GeoBox(src.shape, src.transform, src.crs.to_string())
        keys = assets or {said or f"band{at}": at for at, said in enumerate(src.descriptions, start=1)}
        name = name or path.stem
        made = {
            key: _asset(folder, collection, name, key, src.read(at), grid, nodata=src.nodata, overview=overview)
            for key, at in keys.items()
        }
    return item(collection, name, when, grid, made, properties or {})
