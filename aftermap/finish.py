"""Finished windows to delivered rasters and polygons: minimum mapping unit, outlines, areas, summary, in two passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from aftermap import vector
from aftermap.area import pixel_area_m2
from aftermap.journal import Journal
from aftermap.outline import Classes, outlines, take_census
from aftermap.predict import OUTSIDE_AOI, Parts
from aftermap.products.cog import RASTERS, RasterSet
from aftermap.products.geopackage import Event, MapPackage, Source
from aftermap.products.styles import raster_styles
from aftermap.products.summary import Summary
from aftermap.scene import Scene
from aftermap.tiles import Window, blocks

WINDOW_PX = 1024
_EVENT_TYPES = {"flood": "5-Flood"}
"""EM-DAT type as Copernicus EMS writes it."""
_PHASES = {"after": "Post-event", "before": "Pre-event"}


def finish(scene: Scene, parts: Parts, log: Journal, run: Mapping[str, Any], *, progress: Callable[[int, int], None]) -> Summary:
    """Writes the rasters, map.gpkg and styles into the stage of `log`; `progress(windows done, all)` over both passes."""
    windows = list(blocks(scene.shape, WINDOW_PX))
    area = partial(pixel_area_m2, scene.grid, gsd_m=run["parameters"]["gsd_m"])
    steps = _Steps(progress, 4 * len(windows))
    names = [n for n in RASTERS if n != "score" or run["parameters"]["keep_scores"]]
    words = {"what": run["maps"], "calibration": run["calibration"], "methods": str(len(run["methods"]["ran"]))}
    rasters = RasterSet(names, scene.grid, log.work, log.stage, words)
    summary = Summary(run["classes"][0], run["area_unit"])
    with MapPackage(log.stage / "map.gpkg", scene.grid, _event(run), gsd_m=run["parameters"]["gsd_m"]) as package:
        _hazard(
            scene,
            parts,
            Classes(steps.reading(partial(parts.plane, "extent")), windows, scene.shape, area),
            rasters,
            package,
            summary,
            run,
        )
        excluded = Classes(steps.reading(partial(parts.plane, "exclusion")), windows, scene.shape, area, frozenset({0}))
        for found in outlines(excluded, take_census(excluded), scene.grid.affine):
            rasters.write("exclusion", found.codes, found.window)
            summary.add_exclusion(found.codes, area(found.window))
            package.not_analysed(found.outlines.only(*(c for c in range(1, 255) if c != OUTSIDE_AOI)))
        _context(scene, package, run)
        package.summary(summary.rows())
    rasters.finish()
    (log.stage / "styles").mkdir()
    for name, qml in raster_styles(run["maps"], len(run["methods"]["ran"])).items():
        (log.stage / "styles" / name).write_text(qml, encoding="utf-8")
    return summary


def _hazard(
    scene: Scene,
    parts: Parts,
    classes: Classes,
    rasters: RasterSet,
    package: MapPackage,
    summary: Summary,
    run: Mapping[str, Any],
) -> None:
    """The extent after the minimum mapping unit, its polygons, and the rasters beside it."""

    def values(window: Window) -> dict[str, npt.NDArray[np.uint8]]:
        return {name: parts.plane(name, window) for name in ("likelihood", "agreement")}

    least = {1: run["parameters"].get("min_area_m2") or run["parameters"].get("min_area_px", 0.0)}
    for found in outlines(classes, take_census(classes), scene.grid.affine, values=values, min_area_m2=least):
        rasters.write("extent", found.codes, found.window)
        for name, codes in values(found.window).items():
            rasters.write(name, codes, found.window)
        if run["parameters"]["keep_scores"]:
            rasters.write("score", parts.score(found.window), found.window)
        summary.add_extent(found.codes, classes.area(found.window), found.outlines.area_m2)
        package.observed(found.outlines)


class _Steps:
    """Counts windows read, over all passes, for the progress bar."""

    def __init__(self, progress: Callable[[int, int], None], whole: int):
        self._progress, self._whole, self._done = progress, whole, 0

    def reading(self, read: Callable[[Window], npt.NDArray[np.uint8]]) -> Callable[[Window], npt.NDArray[np.uint8]]:
        """`read`, counted."""

        def counted(window: Window) -> npt.NDArray[np.uint8]:
            self._done += 1
            self._progress(self._done, self._whole)
            return read(window)

        return counted


def _event(run: Mapping[str, Any]) -> Event:
    inputs = run["inputs"]
    return Event(
        event_type=_EVENT_TYPES[run["hazard"]],
        obj_desc="Flooded area" if run["maps"] == "flood" else "Open water, permanent water not separated",
        notation=f"{run['methods']['lead']}, likelihood {run['calibration']}",
        dmg_src_id="after",
        sensor=inputs["after"]["sensor"],
        acq_before=inputs.get("before", {}).get("acquired"),
        acq_after=inputs["after"]["acquired"],
    )


def _context(scene: Scene, package: MapPackage, run: Mapping[str, Any]) -> None:
    """The area of interest, and each image with its footprint."""
    package.area_of_interest(scene.area_of_interest or [vector.rectangle(scene.grid)])
    for key, layer in scene.layers.items():
        name = ", ".join(f["name"] for f in run["inputs"][key]["files"])
        gsd = min((b.gsd_m for n in layer.bands if (b := layer.sensor.band(n))), default=0.0)
        package.source(Source(key, f"{layer.sensor.name}: {name}", layer.acquired, gsd or None, _PHASES.get(key, "Reference")))
        package.footprint(key, name, _footprint(layer.grid, scene.grid))


def _footprint(own: GeoBox, grid: GeoBox) -> Any:
    """The outer edge of one grid as a polygon in the CRS of another."""
    return vector.rectangle(own) if grid.crs is None else own.extent.to_crs(grid.crs).geom
