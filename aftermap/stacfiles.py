"""Rasters that lie here, of STAC items: a folder of items, or an item collection. Door: pystac."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from aftermap import places, plain
from aftermap.errors import InputRefusedError, UnknownNameError


def rasters(path: Path, asset: str) -> tuple[Path, ...]:
    """Files of one asset, the newest item first.

    Raises InputRefusedError ("no-items", "stac-remote", "points-elsewhere") and UnknownNameError for an asset that an item lacks.
    """
    found = []
    for item, home in _items(path):
        if asset not in item.assets:
            raise UnknownNameError("asset", asset, item.assets)
        when = item.datetime or item.common_metadata.start_datetime
        file = places.refuse_outside(_local(item.assets[asset].href, home), path if path.is_dir() else home, f"item {item.id}")
        found.append((when.isoformat() if when else "", file))
    if not found:
        raise InputRefusedError(f"{path} holds no STAC item", repair="give a folder of items or a collection", code="no-items")
    return tuple(file for _, file in sorted(found, key=lambda one: (one[0], str(one[1])), reverse=True))


def _items(path: Path) -> list[tuple[Any, Path]]:
    """Items, and the folder that their addresses begin at."""
    import pystac

    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    found = []
    for file in files:
        try:
            said = plain.read_json(file)
            kind = said.get("type") if isinstance(said, dict) else None
            if kind == "Feature":
                found.append((pystac.Item.from_dict(said), file.parent))
            elif kind == "FeatureCollection":
                found += [(item, file.parent) for item in pystac.ItemCollection.from_dict(said)]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, pystac.STACError, pystac.STACTypeError) as error:
            raise InputRefusedError(f"{file} is no STAC item: {error}", repair="correct or remove it", code="no-items") from error
    return found


def _local(href: str, home: Path) -> Path:
    parts = urlparse(href)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if len(parts.scheme) > 1:  # one letter is a drive
        raise InputRefusedError(f"{href} is not on this machine", repair="fetch it and correct the item", code="stac-remote")
    return home / href
