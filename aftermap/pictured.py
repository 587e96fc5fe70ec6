"""The pictures of a report (y, x, 3 or 4) by name: the images of a scene, and its rasters painted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aftermap import palette, raster
from aftermap.ahead import ahead
from aftermap.palette import U8
from aftermap.products.cog import RASTERS
from aftermap.scene import Scene

PICTURE_PX = 1200
_CODED = ("likelihood", "extent", "exclusion", "agreement")
_WHERE_THERE = {"spread": palette.paint_spread, "familiarity": palette.paint_familiarity}
"""Rasters that not every map has, by the fact under `methods` that says so, and how they are painted."""


def pictured(scene: Scene, stage: Path, run: Mapping[str, Any]) -> dict[str, U8]:
    """Of a scene and of the rasters in `stage`, all of one size."""
    scale = max(1.0, max(scene.shape) / PICTURE_PX)
    shape = (max(1, round(scene.shape[0] / scale)), max(1, round(scene.shape[1] / scale)))
    more = {name: paint for name, paint in _WHERE_THERE.items() if run["methods"][name]}
    codes = {n: raster.thumbnail(stage / RASTERS[n].file, shape) for n in (*_CODED, *more)}
    return _photographs(scene, shape) | {
        "likelihood": palette.paint_likelihood(codes["likelihood"]),
        "extent": palette.paint_extent(codes["extent"]),
        "exclusion": palette.paint_exclusion(codes["exclusion"]),
        "agreement": palette.paint_agreement(codes["agreement"], len(run["methods"]["ran"])),
        **{name: paint(codes[name]) for name, paint in more.items()},
    }


def _photographs(scene: Scene, shape: tuple[int, int]) -> dict[str, U8]:
    """The image after, and that before which is its pair."""
    pictures = {}
    after = scene.layers["after"]
    beside = {before.name.partition("-")[0]: before.name for other, before in scene.pairs() if other is after}
    shown = {**beside, "after": after.name}
    thumbs = dict(zip(shown, ahead(lambda name: scene.thumbnail(name, shape), shown.values(), workers=2), strict=True))
    for key, pixels in thumbs.items():
        layer = scene.layers[beside.get(key, key)]
        names = [band.common if (band := layer.sensor.band(n)) else n for n in layer.bands]
        like = thumbs["after"] if layer.bands == after.bands and layer.unit == "dB" else None
        pictures[key] = palette.photograph(pixels, names, like=like)
    return pictures
