"""What the viewer's page asks of corrections, and how it saves one, beside the map. Who may write is view.py's to say."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np

from aftermap import corrections, features, vector
from aftermap.area import pixel_size_m
from aftermap.corrections import (
    DELETED,
    FILE,
    LABELS,
    MOST_MARKED,
    MOST_VERTICES,
    NOT_HAZARD,
    UNDONE,
    Correction,
    Log,
    Said,
    refused,
)
from aftermap.errors import AftermapError
from aftermap.shown import Shown

MOST_BYTES = 65_536
_SHAPES = {"hazard": {"ring"}, "not hazard": {"ring", "at"}, DELETED: {"takes_back"}, UNDONE: set[str]()}
"""Kind -> what says where, one of these."""
MARKED = "observed_event"
"""The layer of the map whose polygons can be marked as not hazard."""
_HTTP = {"busy": 503, "unwritable": 500, "corrections-invalid": 409}


def told(one: Shown, log: Log) -> dict[str, Any]:
    """A log as the page has it: what stands as GeoJSON in degrees, and conflicts in words."""
    shapes = features.shown(np.array([row.shape for row in log.standing], dtype=object), one.grid, one.map.grid)
    standing = [
        {
            "type": "Feature",
            "geometry": shape,
            "properties": {k: v for k, v in vars(row).items() if k not in ("shape", "takes_back")} | {"size": _size(one, row)},
        }
        for row, shape in zip(log.standing, shapes, strict=True)
    ]
    return {
        "revision": len(log.rows), "standing": {"type": "FeatureCollection", "features": standing},
        "open": [{"ids": [row.id for row in pair], "words": pair.words} for pair in log.open],
    }  # fmt: skip


def _size(one: Shown, row: Correction) -> str:
    """In words."""
    px, side = row.shape.area / abs(one.map.grid.affine.determinant), pixel_size_m(one.map.grid)
    value, unit = (px, "px") if side is None else (px * side**2 / 1e4, "ha")
    return f"{value:,.{0 if value >= 10 or side is None else 2}f} {unit}"


def known(one: Shown) -> dict[str, Any]:
    """What has been said of a map. Raises InputRefusedError ("corrections-invalid")."""
    path = one.map.folder / FILE
    return told(one, corrections.read(path, one.map.grid) if path.exists() else Log())


def save(one: Shown, body: bytes) -> dict[str, Any]:
    """Saves what the page says, and gives what then stands and `conflicts`, those of this very row.

    Raises InputRefusedError ("correction-invalid" and those of corrections.append).
    """
    log = corrections.append(one.map.folder, one.map.grid, said(one, body))
    mine = [pair.words for pair in log.conflicts if pair.later is log.rows[-1]]
    return told(one, log) | {"saved": log.rows[-1].id, "kind": log.rows[-1].kind, "conflicts": mine}


def said(one: Shown, body: bytes) -> Said:
    """What a body of JSON says, its polygon in the CRS of the map. Raises InputRefusedError ("correction-invalid")."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise refused("that is no JSON", "send what the page sends") from error
    kind = given.get("kind") if isinstance(given, dict) else None
    if not isinstance(kind, str) or kind not in _SHAPES:
        raise refused("that says no kind of correction", f"say {', '.join(_SHAPES)}")
    where = given.keys() - {"kind", "author", "seen"}
    if not where <= _SHAPES[kind] or len(where) != min(1, len(_SHAPES[kind])):
        raise refused(f"{kind} takes {' or '.join(sorted(_SHAPES[kind])) or 'nothing'} beside it", "send what the page sends")
    author, seen, back = given.get("author"), given.get("seen"), given.get("takes_back", "")
    if not isinstance(author, str) or not isinstance(back, str) or not isinstance(seen, int) or isinstance(seen, bool):
        raise refused("author and what is taken back are text, seen a whole number", "send what the page sends")
    return Said(kind, author, seen, _shape(one, given) if kind in LABELS else None, back)


def _shape(one: Shown, given: Mapping[str, Any]) -> Any:
    """The polygon that is drawn, or that of the map at a place."""
    if "ring" in given:
        ring = _places(given["ring"], MOST_VERTICES)
        drawn = vector.polygons([[[*ring, ring[0]]]])
        if not drawn[0].is_valid:
            raise refused("the polygon crosses itself", "draw it again, without crossing a side")
        return features.laid(drawn, one.grid, one.map.grid)[0]
    place = _places([given["at"]], 1)[0]
    path = one.map.folder / "map.gpkg"
    found = features.polygon_at(path, MARKED, place, one.grid, one.map.grid) if MARKED in one.vectors else None
    if found is None:
        raise refused(f"the map has no polygon there to mark as {NOT_HAZARD}", "click into one, or draw")
    if features.corners(found) > MOST_MARKED:
        raise refused(f"that polygon has more than {MOST_MARKED} corners", "draw over the part that is wrong")
    return found


def _places(given: Any, most: int) -> list[tuple[float, float]]:
    """Pairs of longitude and latitude."""
    if not isinstance(given, list) or not (1 if most == 1 else 3) <= len(given) <= most:
        raise refused(f"a polygon has 3 to {most} corners", "draw fewer, or several polygons")
    for pair in given:
        right = isinstance(pair, list) and len(pair) == 2 and all(type(v) in (int, float) for v in pair)
        if not right or not all(map(math.isfinite, pair)) or abs(pair[0]) > 360 or abs(pair[1]) > 90:
            raise refused("a corner is a pair of longitude and latitude in degrees", "send what the page sends")
    return [(float(x), float(y)) for x, y in given]


def answers(find: Callable[[str], Shown]) -> dict[str, Callable[..., Any]]:
    """What the page asks, by path; `find` gives a map by its name."""

    def corrected(name: str) -> dict[str, Any]:
        return known(find(name))

    return {"/api/maps/{name}/corrections": corrected}


def writing(find: Callable[[str], Shown]) -> dict[str, Callable[[Any], Awaitable[Any]]]:
    """What the page posts, by path; a request in, its answer out."""
    from fastapi.concurrency import run_in_threadpool
    from fastapi.responses import JSONResponse

    async def post(request: Any) -> Any:
        if why := unlet(request.headers):
            return JSONResponse({"error": why}, 403)
        one, body = find(request.path_params["name"]), b""
        async for part in request.stream():
            body += part
            if len(body) > MOST_BYTES:
                return JSONResponse({"error": f"more than {MOST_BYTES} bytes say no correction"}, 413)
        try:
            return JSONResponse(await run_in_threadpool(save, one, body))
        except AftermapError as error:
            facts = {"error": error.what, "repair": error.repair, "code": error.code}
            return JSONResponse(facts, _HTTP.get(error.code, 422))

    return {"/api/maps/{name}/corrections": post}


def unlet(headers: Mapping[str, str]) -> str:
    """Why a request that the viewer let in may not write all the same, in words; empty where it may."""
    if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return "what writes is JSON"
    return ""
