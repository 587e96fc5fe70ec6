"""A window of the assets of STAC items on any grid, from wherever they lie. The door to odc-stac."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from aftermap import raster, stacfacts
from aftermap.catalog import Signer
from aftermap.errors import UsageError
from aftermap.stacfacts import Item, Kind

ATTEMPTS, TIMEOUT_S = 4, 30
"""Of a window, beside what GDAL tries itself; seconds that a server may take to answer."""
_GDAL = {"GDAL_HTTP_MAX_RETRY": 3, "GDAL_HTTP_RETRY_DELAY": 0.5, "GDAL_HTTP_CONNECTTIMEOUT": 10, "GDAL_HTTP_MULTIRANGE": "YES",
         "VSI_CACHE": False}  # fmt: skip


@dataclass(frozen=True)
class Remote:
    """How files are reached: signed where their catalog wants it, asked again where a server is busy."""

    signer: Signer
    attempts: int = ATTEMPTS
    timeout_s: float = TIMEOUT_S
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    def read(
        self, items: Sequence[Item], bands: Sequence[str], kind: Kind, grid: GeoBox, *, added: float | None = None
    ) -> npt.NDArray[Any]:
        """Pixels (band, y, x) as kept (Kind.dtype, Kind.nodata); of several items the first that observed a place counts.

        `added` is what is to be added to the numbers that are returned (stacfacts.added), where items differ in it. Raises
        OSError where a file cannot be read, after all attempts.
        """
        found = np.full((len(bands), *grid.shape), kind.nodata, kind.dtype)
        for item in items:
            missing = kind.unseen(found)
            if not missing.any():
                break
            seen = _levelled(self._again(item, bands, kind, grid), item, bands, kind, added)
            np.copyto(found, seen, where=missing)
        return found

    def _again(self, item: Item, bands: Sequence[str], kind: Kind, grid: GeoBox) -> npt.NDArray[Any]:
        for attempt in range(self.attempts):
            try:
                return _kept(self._load(item, bands, kind, grid, anew=attempt > 0), bands, kind)
            except raster.BROKEN as error:
                if attempt == self.attempts - 1:
                    raise OSError(f"{item['id']}: {_plain(error)}") from error
            self.sleep(2.0**attempt * random.uniform(0.5, 1.0))
        raise AssertionError

    def _load(self, item: Item, bands: Sequence[str], kind: Kind, grid: GeoBox, *, anew: bool) -> dict[str, npt.NDArray[Any]]:
        """`anew` lets GDAL forget what it knows of the files once they are closed, also that they could not be read."""
        stac, pystac = _libraries()
        names = stacfacts.assets(item)
        wanted = {band: names[band] for band in bands if band in names}
        slim = {**item, "assets": {n: item["assets"][n] for n in wanted.values()}, "stac_extensions": [], "links": []}
        nodata = kind.nodata if kind.stored_nodata is None else kind.stored_nodata
        logging.getLogger("odc.loader").setLevel(logging.CRITICAL)  # it says addresses with their tokens
        hosts = {f"/vsicurl/{url.scheme}://{url.netloc}" for a in slim["assets"].values() if (url := urlsplit(a["href"])).netloc}
        fresh = {"CPL_VSIL_CURL_NON_CACHED": ":".join(sorted(hosts))} if anew else {}
        stac.configure_rio(cloud_defaults=True, GDAL_HTTP_TIMEOUT=self.timeout_s, **_GDAL, **fresh)
        loaded = stac.load(
            [pystac.Item.from_dict(slim)], list(wanted.values()), geobox=grid, groupby=None, fail_on_error=True,
            resampling={n: "nearest" if band in kind.classes else "bilinear" for band, n in wanted.items()},
            stac_cfg={"*": {"assets": {"*": {"data_type": kind.dtype, "nodata": nodata}}}},
            patch_url=lambda href: self.signer.sign(href, str(item.get("collection"))),
        )  # fmt: skip
        return {band: loaded[n].values[0] for band, n in wanted.items()}


def _kept(loaded: dict[str, npt.NDArray[Any]], bands: Sequence[str], kind: Kind) -> npt.NDArray[Any]:
    shape = next(iter(loaded.values())).shape
    found = np.stack([loaded.get(b, np.full(shape, kind.nodata, kind.dtype)) for b in bands])
    if kind.made:
        return kind.made(found)
    if kind.stored_nodata is not None:
        found[found == kind.stored_nodata] = kind.nodata
    if kind.name == stacfacts.RADAR.name:
        found[~(found > 0)] = np.nan  # no ground returns nothing at all
    return found


def _levelled(pixels: npt.NDArray[Any], item: Item, bands: Sequence[str], kind: Kind, added: float | None) -> npt.NDArray[Any]:
    """Numbers of an item that carry less of an offset than others, brought to theirs."""
    own = None if added is None else stacfacts.added(item)
    if own is None or added is None or own == added:
        return pixels
    places = [k for k, band in enumerate(bands) if band not in kind.classes]
    measured = pixels[places]
    pixels[places] = np.where(measured == kind.nodata, measured, measured + pixels.dtype.type(own - added))
    return pixels


def _plain(error: BaseException) -> str:
    """The first cause in one line, without the token of an address."""
    while error.__cause__ is not None:
        error = error.__cause__
    return re.sub(r"\?\S*", "", " ".join(str(error).split())) or type(error).__name__


def _libraries() -> tuple[Any, Any]:
    try:
        import odc.stac
        import pystac
    except ImportError as error:
        what = "odc-stac, which reads the files of STAC items, is not installed"
        raise UsageError(what, repair='pip install "aftermap[cloud]"', code="extra-missing") from error
    return odc.stac, pystac
