"""Markup that escapes whatever is not markup, and the words for numbers, dates and places. The door to pillow."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from io import BytesIO
from typing import Any

import numpy as np

from aftermap.palette import U8


class Html(str):
    """Markup made here; every other string is text."""


def text(value: object) -> str:
    """The value as markup: escaped unless it is Html."""
    return value if isinstance(value, Html) else escape(str(value))


def join(*parts: object) -> Html:
    """The parts one after the other, escaped where they must be."""
    return Html("".join(text(p) for p in parts))


def tag(opening: str, *inside: object) -> Html:
    """`<opening>inside</name>`; `opening` is ours: a name and fixed attributes, values from files go inside."""
    return Html(f"<{opening}>{join(*inside)}</{opening.split()[0]}>")


def bullets(cls: str, items: Sequence[object]) -> Html:
    """A list of that class."""
    return tag(f'ul class="{cls}"', *(tag("li", item) for item in items))


def pairs(facts: Mapping[str, object]) -> Html:
    """Names and values side by side."""
    return tag('dl class="pairs"', *(join(tag("dt", key), tag("dd", plain(value))) for key, value in facts.items()))


def table(head: Sequence[str], rows: Sequence[Sequence[object]], numeric: Sequence[int] = ()) -> Html:
    """A table whose first column names the row and whose `numeric` columns stand right."""
    at = ['class="n"' if i in numeric else "" for i in range(len(head))]
    top = tag("tr", *(tag(f'th scope="col" {a}', h) for a, h in zip(at, head, strict=True)))
    body = [
        tag("tr", tag('th scope="row"', r[0]), *(tag(f"td {a}", c) for a, c in zip(at[1:], r[1:], strict=True))) for r in rows
    ]
    return tag('div class="wide"', tag("table", tag("thead", top), tag("tbody", *body)))


def swatch(background: str, words: str) -> Html:
    """A patch of colour and what it stands for."""
    return tag("span", Html(f'<i class="swatch" style="background:{background}"></i>'), words)


_MONTHS = "January February March April May June July August September October November December"


def plain(value: object) -> str:
    """A number, flag, list or word as a person reads it."""
    if isinstance(value, Html):
        return value
    if value is None or isinstance(value, bool):
        return {None: "not given", True: "yes", False: "no"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10000 or value.is_integer() else f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(v) for v in value)
    return str(value)


def amount(value: float, unit: str) -> str:
    """An amount with its unit, to about three figures; pixels and counts whole."""
    if unit not in ("ha", "km"):
        return f"{value:,.0f}" + {"px": "\u00a0pixels", "count": ""}.get(unit, f"\u00a0{unit}")
    return (f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3g}") + f"\u00a0{unit}"


def percent(value: object) -> str:
    """A share in percent that never rounds something to nothing, or nearly all to all."""
    if not isinstance(value, (int, float)):
        return ""
    if 0 < value < 0.1:
        return "<\u00a00.1\u00a0%"
    return ">\u00a099.9\u00a0%" if 99.9 < value < 100 else f"{value:.3g}\u00a0%" if value in (0, 100) else f"{value:.1f}\u00a0%"


def date(stamp: str | None) -> str:
    """A stamp as in 13 May 2024, 05:00 UTC; what is no date stays as it is."""
    try:
        at = datetime.fromisoformat(stamp or "")
    except ValueError:
        return stamp or "date not known"
    clock = f", {at:%H:%M} {at.tzname() or ''}".rstrip() if "T" in (stamp or "") else ""
    return f"{at.day} {_MONTHS.split()[at.month - 1]} {at.year}{clock}"


def place(grid: Mapping[str, Any]) -> str:
    """The middle of the grid in degrees, to a hundredth."""
    if grid["crs"] is None:
        return "no georeference"
    from odc.geo.crs import CRS

    (rows, columns), (a, b, c, d, e, f) = grid["shape"], grid["transform"][:6]
    x, y = a * columns / 2 + b * rows / 2 + c, d * columns / 2 + e * rows / 2 + f
    try:
        lon, lat = CRS(grid["crs"]).transformer_to_crs(CRS("EPSG:4326"))(x, y)
    except RuntimeError:  # PROJ's: a local engineering CRS lies nowhere on Earth
        return "place not known"
    if not (math.isfinite(lon) and math.isfinite(lat)):
        return "place not known"
    lon = (lon + 180) % 360 - 180  # a grid may run on past the antimeridian
    return f"{abs(lat):.2f}° {'N' if lat >= 0 else 'S'}, {abs(lon):.2f}° {'E' if lon >= 0 else 'W'}"


def orientation(grid: Mapping[str, Any]) -> str:
    """Where north is."""
    if grid["crs"] is None:
        return "No georeference: north is not known"
    _, skew_x, _, skew_y, down, _ = grid["transform"][:6]
    return "North is up" if skew_x == skew_y == 0 and down < 0 else "North is not up: the image is rotated"


def data_uri(picture: U8) -> str:
    """JPEG of a photograph (y, x, 3), palette PNG of an overlay (y, x, 4): the same bytes on every run."""
    from PIL import Image  # comes with matplotlib

    file, kind = BytesIO(), "jpeg"
    if picture.shape[2] == 3:
        Image.fromarray(picture).save(file, "JPEG", quality=85, optimize=True)
    else:
        kind = "png"
        colours, index = np.unique(np.ascontiguousarray(picture).view(np.uint32)[..., 0], return_inverse=True)
        image = Image.fromarray(index.reshape(picture.shape[:2]).astype(np.uint8))
        image.putpalette(colours.view(np.uint8).tobytes(), "RGBA")
        image.save(file, "PNG", compress_level=6)  # the best takes five times as long, and is 2 % smaller
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
