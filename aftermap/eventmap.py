"""The map of an event that was found in catalogs: its windows read, each sheet mapped, and one collection over several sheets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from aftermap import deliver, journal, mishaps
from aftermap.collection import write_collection
from aftermap.deliver import Options
from aftermap.errors import InputRefusedError
from aftermap.gather import gather
from aftermap.hazardmap import HazardMap
from aftermap.itemfile import EventFile, Part
from aftermap.origin import Origin
from aftermap.workers import workers

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Asked:
    """How to map an event; what is given by file is not asked of the catalog."""

    items: Path
    out: Path
    method: str = "auto"
    options: Options = field(default_factory=Options)
    files: Mapping[str, Sequence[Path]] | None = None
    """Layer -> files in place of its items: dem, reference_water, low_sensitivity."""
    aoi: Path | None = None
    """In place of the area that was asked for."""
    assets: Path | None = None
    footprints: Path | None = None
    name: str = ""
    windows: Path | None = None
    """Where windows of images are kept; None for ITEMS.windows beside the item file."""
    offline: bool = False
    retry_failed: bool = False


def map_event(asked: Asked, *, progress: Progress = lambda *_: None) -> list[HazardMap]:
    """One map in `out`, or one for each sheet in folders of it and a collection over them.

    Windows that cannot be read stand as not observed and are told in run.json (`failed`); they are tried again only with
    `retry_failed`. Raises the errors of deliver.map and gather.
    """
    event = EventFile.read(asked.items)
    maps = [_sheet(event, part, asked, progress) for part in event.parts]
    if len(maps) > 1:
        write_collection(asked.out, event, maps)
    return maps


def _sheet(event: EventFile, part: Part, asked: Asked, progress: Progress) -> HazardMap:
    given = {layer: list(files) for layer, files in (asked.files or {}).items() if files}
    part = replace(part, layers={place: items for place, items in part.layers.items() if place[0] not in given})
    out = asked.out / part.sheet.name
    folder = asked.windows or asked.items.with_name(asked.items.stem + ".windows")
    left = {} if asked.retry_failed else {str(one["cell"]): str(one["why"]) for one in _failed(out)}
    with mishaps.told(folder, f"windows that were read are kept in {folder}"):
        spread = partial(workers, asked.options.workers, asked.options.cluster)
        found = gather(part, event, folder, offline=asked.offline, leave=left, spread=spread, progress=progress)
        aoi = asked.aoi or _area(part, folder)
    files = {**found.files, **given}
    if "after" not in files:
        raise InputRefusedError("there is no image after the event", repair="find it again", code="items-invalid")
    return deliver.map(
        files["after"], files.get("before", ()), out=out, dem=files.get("dem", ()),
        reference_water=files.get("reference_water", ()),
        low_sensitivity=files.get("low_sensitivity", ()), aoi=aoi, assets=asked.assets, footprints=asked.footprints,
        name=asked.name or "-".join(filter(None, (event.hazard, event.event[:10], part.sheet.name))), hazard=event.hazard,
        method=asked.method, options=asked.options, progress=progress, origin=Origin.of(event, part, found),
    )  # fmt: skip


def _failed(out: Path) -> Sequence[Mapping[str, Any]]:
    """What a delivered map could not read."""
    return HazardMap(out).made_by.get("failed", ()) if (out / "run.json").exists() else ()


def _area(part: Part, folder: Path) -> Path:
    """The area of a sheet as a file."""
    shape = part.sheet.area.geojson
    path = folder / f"area-{journal.digest(shape)[:16]}.geojson"
    folder.mkdir(parents=True, exist_ok=True)
    journal.write_json(
        path, {"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}, "geometry": shape}]}
    )
    return path
