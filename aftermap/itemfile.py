"""An event as a file: the items of a catalog that show it, in an item collection that says which is for what, and why.

Written by `aftermap find`, read by `aftermap map --items`. Addresses are unsigned, as the catalog has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aftermap import places, plain, stacfacts
from aftermap.aoi import Aoi
from aftermap.errors import InputRefusedError
from aftermap.journal import write_json
from aftermap.sheets import Sheet
from aftermap.stacfacts import Item

KEY = "aftermap"
"""Of the collection, a foreign member (RFC 7946): what the items are for."""
Place = tuple[str, str]
"""Layer and kind of image: ("after", "radar"); of what lies beside them both are the layer."""


@dataclass(frozen=True, eq=False)
class Part:
    """What is mapped on one sheet."""

    sheet: Sheet
    layers: Mapping[Place, tuple[Item, ...]]
    """Where items overlap, the first that saw a place counts."""
    why: tuple[str, ...]
    passed_over: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class EventFile:
    """An event on its sheets."""

    hazard: str
    event: str
    """When, as it was asked for."""
    catalog: str
    """Address of the API."""
    token_url: str
    """Where addresses are signed; empty for nowhere."""
    parts: tuple[Part, ...]
    home: Path | None = None
    """The folder of its file, where it was read from one: addresses may be of files there."""

    def write(self, path: Path) -> None:
        """Whole or not at all."""
        every = {(str(i.get("collection")), str(i["id"])): i for p in self.parts for items in p.layers.values() for i in items}
        said = {
            "hazard": self.hazard, "event": self.event, "catalog": self.catalog, "token_url": self.token_url,
            "sheets": [
                {
                    "name": p.sheet.name, "crs": p.sheet.crs, "area": p.sheet.area.geojson,
                    "layers": [
                        {"layer": layer, "kind": kind, "items": [[str(i.get("collection")), str(i["id"])] for i in items]}
                        for (layer, kind), items in p.layers.items()
                    ],
                    "why": list(p.why), "passed_over": list(p.passed_over),
                }
                for p in self.parts
            ],
        }  # fmt: skip
        write_json(path, {"type": "FeatureCollection", "features": list(every.values()), KEY: said})

    @classmethod
    def read(cls, path: Path) -> EventFile:
        """Raises InputRefusedError ("missing-file", "items-invalid")."""
        if not path.is_file():
            raise InputRefusedError(f"there is no file {path}", repair="write it with `aftermap find`", code="missing-file")
        try:
            told = plain.read_json(path)
            said, features = told[KEY], told["features"]
            items = {(str(i.get("collection")), str(i["id"])): _placed(i, path.parent) for i in features}
            parts = tuple(_part(one, items) for one in said["sheets"])
            hazard, when, api, token_url = (str(said[k]) for k in ("hazard", "event", "catalog", "token_url"))
            found = cls(hazard, when, api, token_url, parts, home=path.parent)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"{path} does not say what its items are for: {error!r}"
            raise InputRefusedError(what, repair="write it with `aftermap find`", code="items-invalid") from error
        if not found.parts or not all(any(layer == "after" for layer, _ in p.layers) for p in found.parts):
            what = f"{path} holds no image after the event"
            raise InputRefusedError(what, repair="write it with `aftermap find`", code="items-invalid")
        return found


def _part(said: Mapping[str, Any], items: Mapping[tuple[str, str], Item]) -> Part:
    layers = {(str(k["layer"]), str(k["kind"])): tuple(items[collection, name] for collection, name in k["items"])
              for k in said["layers"]}  # fmt: skip
    for found in layers.values():
        for item in found:
            stacfacts.assets(item)
    sheet = Sheet(str(said["name"]), Aoi.of_geojson(said["area"]), str(said["crs"]))
    return Part(sheet, layers, tuple(map(str, said["why"])), tuple(map(str, said["passed_over"])))


def _placed(item: Item, home: Path) -> Item:
    """With addresses that hold wherever the item is read: those of files begin at the folder of the collection."""
    held = {name: {**asset, "href": _absolute(str(asset["href"]), home)} for name, asset in item["assets"].items()}
    return {**item, "assets": held}


def _absolute(href: str, home: Path) -> str:
    return href if "://" in href or Path(href).is_absolute() else str((home / href).resolve())


def refuse_elsewhere(event: EventFile) -> None:
    """Raises InputRefusedError ("private-address", "points-elsewhere") where what is read of an item is neither on the public
    network nor beside or below the file of items."""
    known: set[str] = set()
    for item in (i for part in event.parts for items in part.layers.values() for i in items):
        for href in (str(item["assets"][name]["href"]) for name in stacfacts.assets(item).values()):
            scheme, found, rest = href.partition("://")
            host = f"{scheme}://{rest.partition('/')[0]}"
            if not found:
                _refuse_file(Path(href), event, str(item["id"]))
            elif host not in known and scheme not in places.STORES:
                places.refuse_private(href, f"item {item['id']}")
            known.add(host)


def _refuse_file(path: Path, event: EventFile, item: str) -> None:
    if event.home is None:
        what = f"item {item} of {event.catalog} names {path}, a file of this machine"
        raise InputRefusedError(what, repair="do not trust that catalog", code="points-elsewhere")
    places.refuse_outside(path, event.home, f"item {item}")


def ids(items: Sequence[Item]) -> list[str]:
    """Names of items."""
    return [str(item["id"]) for item in items]
