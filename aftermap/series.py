"""Maps of one area over time as one product: tables, the widest extent, the last change, how often, and a STAC collection.

All of it follows from the delivered maps and the item files that they were made from: the same maps give the same bytes.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap import palette, raster
from aftermap.acquisitions import Acquisition, grouped
from aftermap.area import pixel_area_m2
from aftermap.collection import COLLECTION, described
from aftermap.errors import InputRefusedError
from aftermap.hazardmap import NOT_ANALYSED, HazardMap
from aftermap.itemfile import EventFile, ids
from aftermap.journal import SEAL, digest, sha256, write_json, write_text
from aftermap.products.stac import MEDIA
from aftermap.stacfacts import stamp
from aftermap.tiles import Window, blocks

U8 = npt.NDArray[np.uint8]
TABLE, SERIES = "series.csv", "series.json"
WINDOW_PX = 1024
MOST_TIMES = 254
"""times.tif counts no further."""
_CLEAR = (0, 0, 0, 0)
_CHANGES = ", ".join(f"{code} {label}" for code, (label, _) in palette.CHANGE.items())
RASTERS: Mapping[str, tuple[str, dict[int, palette.Colour] | None]] = {
    "maximum_extent.tif": (
        "{what}: 1 in any acquisition, 0 in none that analysed it, 255 never analysed",
        {0: _CLEAR, 1: palette.EXTENT, 255: palette.NOT_ANALYSED},
    ),
    "change.tif": (
        "{what} in the last acquisition against the one before it: " + _CHANGES,
        {code: colour for code, (_, colour) in palette.CHANGE.items()},
    ),
    "times.tif": (f"how many acquisitions show {{what}}, at most {MOST_TIMES}; 255 never analysed", None),
}
"""File -> description of its band and colours; uint8, 255 no data."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One acquisition of a series: its delivered map, and the item file that this was made from."""

    mapped: HazardMap
    event: EventFile

    @cached_property
    def seen(self) -> Acquisition:
        """The pass."""
        (part,) = self.event.parts
        items = [item for (layer, _), held in part.layers.items() if layer == "after" for item in held]
        return grouped(items, part.sheet.area)[0]

    @property
    def failed(self) -> int:
        """How many windows of it could not be read."""
        return len(self.mapped.made_by.get("failed", ()))

    def source(self, layer: str, src_id: str) -> dict[str, Any] | None:
        """An image of it, as Copernicus EMS lists those of a monitoring product; None where it has none."""
        (part,) = self.event.parts
        found = [ids(items) for (name, _), items in part.layers.items() if name == layer]
        told = self.mapped.made_by["inputs"].get(layer)
        if not found or told is None:
            return None
        phase = "Pre-event" if layer == "before" else "Post-event"
        facts = {"src_id": src_id, "eventphase": phase, "sensor": told["sensor"], "acquired": told["acquired"]}
        return {**facts, "items": found[0]}


@dataclass(frozen=True)
class Row:
    """A line of series.csv. Areas in ha on the ellipsoid; new and receded are against the previous acquisition, on ground that
    both analysed (`compared_ha`), and None for the first."""

    acquired: str
    kind: str
    platform: str
    direction: str
    orbit: int | None
    coverage_percent: float
    """Of the area, by the footprints of the images."""
    answer: str
    analysed_ha: float
    affected_ha: float
    affected_percent: float | None
    """Of what was analysed."""
    compared_ha: float | None
    new_ha: float | None
    receded_ha: float | None
    union_ha: float
    """Affected in this or any acquisition before it."""
    folder: str
    failed_windows: int


def write_series(out: Path, frames: Sequence[Frame], stage: Path) -> None:
    """Writes the products of delivered maps, ordered by time, into `out`, each whole or not at all, series.json the last.

    Nothing is done where they are already of these maps. `stage` is a folder on the same disk. Raises InputRefusedError
    ("other-grid"), OSError.
    """
    made_of = digest([version("aftermap"), *([_home(out, f), sha256(f.mapped.folder / SEAL)] for f in frames)])
    if not frames or _current(out, made_of):
        return
    for frame in frames[1:]:
        if frame.mapped.grid != frames[0].mapped.grid:
            what = f"{frame.mapped.folder} lies on another grid than {frames[0].mapped.folder}"
            raise InputRefusedError(what, repair="leave one of them out", code="other-grid")
    stage.mkdir(parents=True, exist_ok=True)
    sums = _rasters(frames, stage)
    rows = [_row(out, frame, one, first=n == 0) for n, (frame, one) in enumerate(zip(frames, sums, strict=True))]
    for name in RASTERS:
        os.replace(stage / name, out / name)
    write_text(out / TABLE, _table(rows))
    write_json(out / COLLECTION, _collection(out, frames))
    write_json(out / SERIES, {"made_of": made_of, "acquisitions": _told(frames, rows)})


def read_series(out: Path) -> list[dict[str, Any]]:
    """The acquisitions of series.json, as Row has them and with their inputs; none where there is no series."""
    path = out / SERIES
    return list(json.loads(path.read_text(encoding="utf-8"))["acquisitions"]) if path.exists() else []


def _current(out: Path, made_of: str) -> bool:
    if not all((out / name).exists() for name in (SERIES, TABLE, COLLECTION, *RASTERS)):
        return False
    try:
        return bool(json.loads((out / SERIES).read_text(encoding="utf-8"))["made_of"] == made_of)
    except (ValueError, KeyError, TypeError):
        return False


@dataclass
class _Areas:
    """Of one acquisition, in m2; multiples of a power of two, so that sums are exact (area.py)."""

    analysed: float = 0.0
    affected: float = 0.0
    compared: float = 0.0
    new: float = 0.0
    receded: float = 0.0
    union: float = 0.0

    def add(self, now: U8, change: U8, ever: npt.NDArray[np.bool_], area: npt.NDArray[np.float64]) -> None:
        """Adds a window (y, x)."""
        self.analysed += float(area[now != NOT_ANALYSED].sum())
        self.affected += float(area[now == 1].sum())
        self.compared += float(area[change != NOT_ANALYSED].sum())
        self.new += float(area[change == 2].sum())
        self.receded += float(area[change == 3].sum())
        self.union += float(area[ever].sum())


def _rasters(frames: Sequence[Frame], stage: Path) -> list[_Areas]:
    """Writes them into `stage` window by window, two extents in memory at a time."""
    first, what = frames[0].mapped, frames[-1].mapped.made_by["maps"]
    sums = [_Areas() for _ in frames]
    writers = {
        name: raster.Writer(
            stage / f"scratch-{name}",
            first.grid,
            dtype="uint8",
            nodata=255,
            palette=colours,
            descriptions=[words.format(what=what)],
        )
        for name, (words, colours) in RASTERS.items()
    }
    for window in blocks(first.shape, WINDOW_PX):
        for name, pixels in zip(RASTERS, _window(frames, sums, window), strict=True):
            writers[name].write(pixels[None], window)
    for name, writer in writers.items():
        writer.finish(stage / name, overview="nearest")
    return sums


def _window(frames: Sequence[Frame], sums: Sequence[_Areas], window: Window) -> tuple[U8, U8, U8]:
    """The widest extent, the last change and how often (y, x), in the order of RASTERS; adds to the sums."""
    area = pixel_area_m2(frames[0].mapped.grid, window)
    last, change = np.full(area.shape, NOT_ANALYSED, np.uint8), np.full(area.shape, NOT_ANALYSED, np.uint8)
    seen, times = np.zeros(area.shape, bool), np.zeros(area.shape, np.uint8)
    for frame, one in zip(frames, sums, strict=True):
        now = frame.mapped.extent(window)
        change = _change(last, now)
        seen |= now != NOT_ANALYSED
        times += (now == 1) & (times < MOST_TIMES)
        one.add(now, change, times > 0, area)
        last = now
    widest = np.where(seen, times > 0, NOT_ANALYSED).astype(np.uint8)
    return widest, change, np.where(seen, times, NOT_ANALYSED).astype(np.uint8)


def _change(last: U8, now: U8) -> U8:
    """Codes of palette.CHANGE (y, x)."""
    both = (last != NOT_ANALYSED) & (now != NOT_ANALYSED)
    codes = np.array([[0, 2], [3, 1]], np.uint8)[np.minimum(last, 1), np.minimum(now, 1)]
    return np.where(both, codes, NOT_ANALYSED).astype(np.uint8)


def _row(out: Path, frame: Frame, one: _Areas, *, first: bool) -> Row:
    def ha(area: float) -> float:
        return round(area / 1e4, 4)

    seen = frame.seen
    direction, orbit = seen.orbit
    return Row(
        stamp(seen.when), seen.kind, seen.platform, direction, orbit,
        coverage_percent=round(100 * seen.coverage, 1), answer=frame.mapped.answer,
        analysed_ha=ha(one.analysed), affected_ha=ha(one.affected),
        affected_percent=round(100 * one.affected / one.analysed, 3) if one.analysed else None,
        compared_ha=None if first else ha(one.compared), new_ha=None if first else ha(one.new),
        receded_ha=None if first else ha(one.receded), union_ha=ha(one.union),
        folder=_home(out, frame), failed_windows=frame.failed,
    )  # fmt: skip


def _table(rows: Sequence[Row]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=[f.name for f in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return stream.getvalue()


def _told(frames: Sequence[Frame], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows with the images before the event, of the previous acquisition and of the new one."""
    told = []
    for n, (frame, row) in enumerate(zip(frames, rows, strict=True)):
        previous = frames[n - 1].source("after", "previous") if n else None
        inputs = [frame.source("before", "before"), previous, frame.source("after", "after")]
        told.append({**asdict(row), "inputs": [one for one in inputs if one]})
    return told


def _collection(out: Path, frames: Sequence[Frame]) -> dict[str, Any]:
    event = frames[0].event
    words = f"{event.hazard} since {event.event}, a map for each of {len(frames)} acquisitions"
    assets = {Path(name).stem: (name, MEDIA[".tif"]) for name in RASTERS}
    assets |= {"series": (TABLE, MEDIA[".csv"]), "series_json": (SERIES, MEDIA[".json"])}
    return described(out, f"{event.hazard}-{event.event}-watch", words, [frame.mapped for frame in frames], assets)


def _home(out: Path, frame: Frame) -> str:
    return frame.mapped.folder.relative_to(out).as_posix()
