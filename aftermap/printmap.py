"""A delivered map on one page to print: the image, what was found on it, scale, north, legend, sources and consequences.

Beside figures.py at the door to matplotlib.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aftermap import palette, raster
from aftermap.area import pixel_size_m
from aftermap.hazardmap import HazardMap
from aftermap.markup import date, orientation, place, plain
from aftermap.palette import U8, Colour
from aftermap.shown import Shown

_A4 = (11.69, 8.27)
_MOST_PX = 2400
"""Of the longer side of what is printed: 240 dots an inch."""
_SCALE_PARTS = (1, 2, 5)
_BEHIND = {"fc": "white", "ec": "none", "alpha": 0.8, "pad": 1.2}
Line = tuple[Colour | None, str]
"""A patch of colour, if any, and words."""


def write_pdf(mapped: HazardMap, path: Path) -> None:
    """A page in A4, whole or not at all; equal maps give equal bytes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=_A4)
    _draw(figure.add_axes((0.04, 0.09, 0.60, 0.80)), mapped)
    _say(figure.add_axes((0.67, 0.06, 0.30, 0.84)), mapped)
    run = mapped.made_by
    figure.text(0.04, 0.935, _headline(mapped), size=20, weight="bold")
    where = f"{run['name']}  ·  {place(run['grid'])}  ·  {_dates(run)}"
    figure.text(0.04, 0.905, where, size=9, color="0.35")
    figure.text(0.04, 0.03, "A machine made this map from images; nobody has checked it on the ground. "
                f"aftermap {run['aftermap']}, {run['key'][:12]}", size=7, color="0.35")  # fmt: skip
    partial = path.with_name(path.name + ".partial")
    figure.savefig(partial, format="pdf", dpi=240, metadata={"CreationDate": None, "Title": str(run["name"])})
    os.replace(partial, path)


def _headline(mapped: HazardMap) -> str:
    if mapped.answer == "not analysed":
        return "Could not be analysed"
    noun = str(mapped.made_by["maps"]).partition(",")[0]
    if mapped.answer == "nothing found":
        return f"No {noun} found"
    row = next(r for r in mapped.summary if r["quantity"] == "affected_area" and not r["reason"])
    return f"{plain(float(row['value']))} {row['unit']} of {noun}"


def _dates(run: dict[str, Any] | Any) -> str:
    return " → ".join(date(run["inputs"][k].get("acquired")) for k in ("before", "after") if k in run["inputs"])


def _draw(axes: Any, mapped: HazardMap) -> None:
    grid, (height, width) = mapped.grid, mapped.shape
    scale = max(1.0, max(height, width) / _MOST_PX)
    shape = (max(1, round(height / scale)), max(1, round(width / scale)))
    bounds = grid.extent.boundingbox
    edges = (bounds.left, bounds.right, bounds.bottom, bounds.top)
    if (photo := _photo(mapped)) is not None:
        axes.imshow(photo, extent=edges, interpolation="antialiased")
    for name, paint in (("exclusion", palette.paint_exclusion), ("extent", palette.paint_extent)):
        codes = raster.thumbnail(mapped.folder / f"{name}.tif", shape)
        picture = paint(codes)
        if name == "extent":
            picture[codes == palette.NODATA, 3] = 0  # the reasons are drawn below
        axes.imshow(picture, extent=edges, interpolation="nearest")
    axes.set(xlim=edges[:2], ylim=edges[2:], aspect="equal")
    axes.tick_params(labelsize=6, direction="in")
    axes.ticklabel_format(style="plain", useOffset=False)
    axes.set_xlabel(_crs(mapped), size=7)
    size = pixel_size_m(grid) or mapped.made_by["parameters"]["gsd_m"]
    _scale_bar(axes, edges, size, abs(float(grid.resolution.x)))
    if orientation(mapped.made_by["grid"]) == "North is up":
        axes.annotate(
            "N", xy=(0.965, 0.985), xytext=(0.965, 0.915), xycoords="axes fraction", ha="center", size=11, weight="bold",
            arrowprops={"arrowstyle": "-|>", "color": "black"}, bbox=_BEHIND,
        )  # fmt: skip


def _photo(mapped: HazardMap) -> U8 | None:
    from PIL import Image

    pictures = Shown("0", mapped).pictures
    return np.asarray(Image.open(io.BytesIO(pictures["after"][1])).convert("RGB")) if "after" in pictures else None


def _crs(mapped: HazardMap) -> str:
    crs = mapped.grid.crs
    if crs is None:
        return "pixels: the image has no map projection"
    epsg = crs.to_epsg()
    return f"{crs.proj.name} (EPSG:{epsg})" if epsg else str(crs.proj.name)


def _scale_bar(axes: Any, edges: Sequence[float], size_m: float | None, step: float) -> None:
    """A round length of about a fifth of the width, in metres where a pixel's size is known."""
    per_unit = (size_m or 1.0) / step
    wanted = (edges[1] - edges[0]) * per_unit / 5
    power = 10 ** math.floor(math.log10(wanted))
    length = max(k * power for k in _SCALE_PARTS if k * power <= wanted)
    words = f"{length / 1000:g} km" if size_m and length >= 1000 else f"{length:g} {'m' if size_m else 'px'}"
    left, bottom = edges[0] + 0.03 * (edges[1] - edges[0]), edges[2] + 0.03 * (edges[3] - edges[2])
    axes.plot([left, left + length / per_unit], [bottom, bottom], color="white", linewidth=5, solid_capstyle="butt")
    axes.plot([left, left + length / per_unit], [bottom, bottom], color="black", linewidth=2.5, solid_capstyle="butt")
    axes.annotate(words, (left, bottom), xytext=(0, 5), textcoords="offset points", size=8, bbox=_BEHIND)


def _say(axes: Any, mapped: HazardMap) -> None:
    """Legend, consequences, sources and how it was made, from the top down."""
    axes.axis("off")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    run, y = mapped.made_by, 1.0
    for heading, lines in (
        ("Legend", _legend(mapped)), ("Consequences", _consequences(mapped)), ("Sources", _sources(run)), ("Made by", _made(run)),
    ):  # fmt: skip
        axes.text(0, y, heading, size=10, weight="bold", va="top")
        y -= 0.032
        for colour, words in lines:
            if colour is not None:
                axes.add_patch(_patch(y, colour))
            for n, line in enumerate(_wrapped(words, 46 if colour else 52)):
                axes.text(0.07 if colour else 0, y, line, size=7.5, va="top", color="0.1" if n == 0 else "0.35")
                y -= 0.021
        y -= 0.014


def _patch(y: float, colour: Colour) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((0, y - 0.017), 0.05, 0.015, facecolor=[v / 255 for v in colour], edgecolor="0.4", linewidth=0.5)


def _wrapped(words: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(words, width) or [""]


def _legend(mapped: HazardMap) -> list[Line]:
    reasons = {str(r["reason"]) for r in mapped.summary if r["quantity"] == "not_analysed_area" and r["reason"]}
    found: list[Line] = [(palette.EXTENT, str(mapped.made_by["maps"]))]
    return found + [(colour, f"not analysed: {label}") for code, (label, colour) in palette.EXCLUSION.items() if label in reasons]


def _consequences(mapped: HazardMap) -> list[Line]:
    lines: list[Line] = []
    for row in mapped.summary:
        if row["value"] == "" or (row["reason"] and row["quantity"] != "not_analysed_area"):
            continue
        share = f" ({float(row['percent_of_aoi']):.1f} %)" if row["percent_of_aoi"] else ""
        what = ": ".join(filter(None, (row["quantity"].replace("_", " "), row["reason"])))
        lines.append((None, f"{what}  {plain(float(row['value']))} {row['unit']}{share}"))
    return lines[:14]


def _sources(run: Any) -> list[Line]:
    lines: list[Line] = []
    catalog = run.get("catalog")
    for layer, facts in run["inputs"].items():
        when = f", {date(facts['acquired'])}" if facts.get("acquired") else ""
        found = catalog["items"] if catalog else {}
        names = found.get(layer) or found.get(f"{layer} radar") or [f["name"] for f in facts["files"]]
        lines.append((None, f"{layer.replace('_', ' ')}: {facts['sensor']}{when}: {', '.join(names[:2])}"))
    if catalog:
        lines.append((None, f"found in {catalog['api']}"))
    return lines


def _made(run: Any) -> list[Line]:
    return [(None, " + ".join(run["methods"]["combined"])), (None, f"likelihood {run['calibration']}"),
            *((None, f"warning: {w['what']}") for w in run["warnings"][:3])]  # fmt: skip
