"""What a search of a STAC API asks for, over items in memory: place, time, the query and sort extensions."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import shapely
from shapely.geometry import box, shape
from stac_fastapi.types.errors import InvalidQueryParameter
from stac_fastapi.types.rfc3339 import str_to_interval

Item = dict[str, Any]
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "neq": operator.ne,
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
    "in": lambda has, said: has in said,
    "startsWith": lambda has, said: str(has).startswith(said),
    "endsWith": lambda has, said: str(has).endswith(said),
    "contains": lambda has, said: said in has,
}


def matches(item: Item, asked: Mapping[str, Any]) -> bool:
    """True where an item is what was asked for. Raises InvalidQueryParameter."""
    if "collections" in asked and item["collection"] not in asked["collections"]:
        return False
    if "ids" in asked and item["id"] not in asked["ids"]:
        return False
    if "datetime" in asked and not _overlaps(item["properties"], asked["datetime"]):
        return False
    if "bbox" in asked or "intersects" in asked:
        try:
            where = shape(asked["intersects"]) if "intersects" in asked else _boxed(asked["bbox"])
        except (ValueError, KeyError, TypeError, shapely.errors.ShapelyError) as error:
            raise InvalidQueryParameter(f"no such place: {error}") from error
        if not where.intersects(shape(item["geometry"])):
            return False
    return all(_holds(item["properties"], name, tests) for name, tests in asked.get("query", {}).items())


def _boxed(bbox: Sequence[float]) -> Any:
    """A box of 4 or 6 numbers; west of which is east of east crosses the antimeridian."""
    west, south, east, north = bbox if len(bbox) == 4 else (*bbox[:2], *bbox[3:5])
    if west <= east:
        return box(west, south, east, north)
    return shapely.union_all([box(west, south, 180, north), box(-180, south, east, north)])


def _overlaps(properties: Mapping[str, Any], wanted: str) -> bool:
    """True where the item's time, or its interval, has a moment in common with the instant or interval."""
    interval = str_to_interval(wanted)
    low, high = interval if isinstance(interval, tuple) else (interval, interval)
    first, last = (_moment(properties.get(name) or properties["datetime"]) for name in ("start_datetime", "end_datetime"))
    return (high is None or first <= high) and (low is None or last >= low)


def _moment(said: str) -> datetime:
    return datetime.fromisoformat(said)


def _holds(properties: Mapping[str, Any], name: str, tests: Mapping[str, Any]) -> bool:
    """True where every operator of the query extension holds; a property that is not there holds none."""
    name = name.removeprefix("properties.")
    unknown = set(tests) - set(_OPERATORS)
    if unknown:
        raise InvalidQueryParameter(f"no operator {', '.join(sorted(unknown))}")
    return properties.get(name) is not None and all(_OPERATORS[how](properties[name], said) for how, said in tests.items())


def ordered(items: list[Item], by: Sequence[Mapping[str, Any]]) -> list[Item]:
    """By the fields given, the first of them first; what lacks a field comes last."""
    for rule in reversed(by):
        name = str(rule["field"]).removeprefix("properties.")
        has: list[tuple[Any, int]] = []
        lacks: list[tuple[Any, int]] = []
        for at, item in enumerate(items):
            value = item.get(name) if name in ("id", "collection") else item["properties"].get(name)
            (lacks if value is None else has).append((value, at))
        has.sort(key=operator.itemgetter(0), reverse=rule.get("direction") == "desc")
        items = [items[at] for _, at in has + lacks]
    return items
