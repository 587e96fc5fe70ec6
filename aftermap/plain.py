"""JSON and TOML that others wrote, as plain values: bounded in bytes and depth."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aftermap import limits


def read_json(path: Path) -> Any:
    """What a file says. Raises OSError, ValueError where it is no JSON, and InputRefusedError ("too-large")."""
    limits.refuse_above("JSON_BYTES", path.stat().st_size, path.name)
    return of_json(path.read_bytes(), path.name)


def of_json(text: str | bytes, name: str) -> Any:
    """What JSON of that name says. Raises ValueError, InputRefusedError ("too-large")."""
    limits.refuse_above("JSON_BYTES", len(text), name)
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{name} nests deeper than can be read") from error
    _refuse_deep(found, name)
    return found


def read_toml(path: Path) -> dict[str, Any]:
    """What a file says. Raises OSError, ValueError where it is no TOML, and InputRefusedError ("too-large")."""
    limits.refuse_above("TOML_BYTES", path.stat().st_size, path.name)
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(f"{path.name} nests deeper than can be read") from error
    _refuse_deep(found, path.name)
    return found


def _refuse_deep(found: Any, name: str) -> None:
    """Level by level, for a walk that calls itself would fall into the hole it looks for."""
    level, depth = [found], 0
    while level:
        depth += 1
        limits.refuse_above("JSON_DEPTH", depth, name)
        level = [one for held in level for one in _inside(held) if isinstance(one, dict | list)]


def _inside(held: Any) -> Iterable[Any]:
    return held.values() if isinstance(held, dict) else held if isinstance(held, list) else ()
