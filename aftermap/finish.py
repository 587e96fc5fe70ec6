"""Finished windows to delivered rasters and polygons: minimum mapping unit, outlines, areas, summary, in two passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from aftermap import meridian, vector
from aftermap.ahead import ahead
from aftermap.area import pixel_area_m2
from aftermap.chipdensity import DensityModel
from aftermap.familiarity import FAMILIARITY, Familiarity
from aftermap.features import Features
from aftermap.hazardmap import OUTSIDE_AOI
from aftermap.journal import Journal
from aftermap.outline import Classes, Outlined, outlines, take_census
from aftermap.palette import EXCLUSION, NODATA
from aftermap.parts import PLANES, SPREAD, Parts
from aftermap.products import exposure as exposed
from aftermap.products.buildings import Buildings, Grader
from aftermap.products.cog import RASTERS, RasterSet
from aftermap.products.density import Cells, Density
from aftermap.products.exposure import Exposure
from aftermap.products.geopackage import BUILT_UP, PRIORITY, UNOSAT, Event, MapPackage, Source
from aftermap.products.outlined import own_outlines
from aftermap.products.priority import FILE
from aftermap.products.styles import raster_styles
from aftermap.products.summary import Summary
from aftermap.scene import Scene
from aftermap.tiles import Window, blocks
from aftermap.vector import Layer as PackageLayer

U8 = npt.NDArray[np.uint8]

WINDOW_PX = 1024
"""Fixed, for the order of polygons follows from it."""
_BESIDE = ("likelihood", "agreement")
"""The planes that polygons have statistics of."""
HAZARD = 100
"""The hazard among the codes that are outlined: those of exclusion.tif are below."""
_EVENT_TYPES = {"flood": "5-Flood", "landslide": "6-Mass movement", "fracture": "Other", "building": "Other"}
"""EM-DAT type as Copernicus EMS writes it (field.md 2.1); it has none for ice, nor for damage of unknown cause."""
_DESCRIPTIONS = {"flood": "Flooded area", "fracture": "Glacier fracture"}
"""What Copernicus EMS calls what is mapped, where that is not the word of the map."""
_PHASES = {"after": "Post-event", "before": "Pre-event"}


def finish(
    scene: Scene, parts: Parts, log: Journal, run: Mapping[str, Any], *, assets: Path | None = None,
    footprints: Path | None = None, grader: Grader | None = None, model: DensityModel | None = None,
    familiarity: Familiarity | None = None, progress: Callable[[int, int], None],
) -> Summary:  # fmt: skip
    """Writes the rasters, map.gpkg and styles into the stage of `log`; `progress(windows done, all)` over both passes.

    Buildings are graded by `grader`, where there is one: `footprints`, or the outlines that it has itself. Cells of the density
    are ordered by `model`, where there is one.

    Where `parameters.only` names rasters, these and their styles alone.
    """
    parameters, windows = run["parameters"], list(blocks(scene.shape, WINDOW_PX))
    area = partial(pixel_area_m2, scene.grid, gsd_m=parameters["gsd_m"])
    if parameters["only"]:
        return _rasters_alone(scene, parts, log, run, area, familiarity, progress)
    least = {HAZARD: parameters["min_area_m2"] if "min_area_m2" in parameters else parameters["min_area_px"]}
    classes = Classes(_counted(partial(_codes, parts), progress, 2 * len(windows)), windows, scene.shape, area, frozenset({0}))
    outlined = footprints or (own_outlines(scene, parts, grader, windows, area, log.work) if grader else None)
    tables, rasters = _tables(scene, parts, log, run, assets, outlined, grader, model), _rasters(scene, log, run)
    package_of = partial(MapPackage, log.stage / "map.gpkg", scene.grid, _event(run), gsd_m=parameters["gsd_m"])
    with package_of(extra=tables.layers) as package:
        beside = partial(_beside, parts)
        for found in outlines(classes, take_census(classes), scene.grid.affine, values=beside, min_area_m2=least):
            _write(found, parts, rasters, familiarity)
            tables.add(found, package, parts)
        _context(scene, package, run)
        tables.finish(package, log.stage)
    _finish_rasters(rasters, log, run, density=tables.density)
    return tables.summary


@dataclass(frozen=True)
class _Tables:
    """What is counted over the windows beside the rasters: the summary, and what was asked for."""

    run: Mapping[str, Any]
    grid: GeoBox
    summary: Summary
    density: Density | None
    exposure: Exposure | None
    buildings: Buildings | None
    grader: Grader | None = None

    @property
    def layers(self) -> list[PackageLayer]:
        """Layers of map.gpkg that not every map has."""
        unosat = self.run["parameters"]["profile"] == "unosat"
        return [layer for layer, there in ((BUILT_UP, self.buildings), (PRIORITY, self.density), (UNOSAT, unosat)) if there]

    def add(self, found: Outlined, package: MapPackage, parts: Parts) -> None:
        """Takes one window."""
        hazard = found.outlines.only(HAZARD)
        self.summary.add(found.codes == HAZARD, found.codes * (found.codes != HAZARD), found.area_m2, hazard.area_m2)
        package.observed(hazard)
        if UNOSAT in self.layers:
            package.unosat(hazard, self.run["classes"][0], self.run["parameters"]["event_code"])
        if self.density:
            lowest = vector.lowest_pixels(hazard.geometry, self.grid.affine)
            analysed = np.isin(found.codes, (0, HAZARD))
            likelihood = found.values["likelihood"]
            self.density.add(found.window, found.codes == HAZARD, analysed, found.area_m2, lowest, likelihood)
        if self.exposure:
            self.exposure.add(found.window, _states(found.codes), found.area_m2)
        if self.buildings:
            classes = parts.classes(found.window, len(self.grader.classes)) if self.grader else None
            self.buildings.add(found.window, _states(found.codes), found.values["likelihood"], classes)
        package.not_analysed(found.outlines.only(*(c for c in EXCLUSION if c not in (0, OUTSIDE_AOI, NODATA))))

    def finish(self, package: MapPackage, stage: Path) -> None:
        """Writes what only the whole tells."""
        self.summary.exposure = self.exposure.rows() if self.exposure else []
        if self.buildings:
            for shapes, columns in self.buildings.rows():
                package.built_up(shapes, columns)
            self.summary.exposure += self.buildings.summary()
            self.summary.graded = self.buildings.facts()
        package.summary(self.summary.rows())
        if self.density:
            self.density.finish(stage)
            model, cell_px = self.density.model, (self.density.cells.rows, self.density.cells.cols)
            methods = " + ".join(self.run["methods"]["combined"])
            priority = self.density.priority
            columns = priority.columns(model.classes if model else (), model.name if model else "", methods)
            package.priority(priority, cell_px, columns)
            priority.write(stage / FILE, cell_px, self.grid, columns)


def _tables(
    scene: Scene, parts: Parts, log: Journal, run: Mapping[str, Any], assets: Path | None, outlined: Path | Features | None,
    grader: Grader | None, model: DensityModel | None,
) -> _Tables:  # fmt: skip
    exposure = Exposure(assets, scene.grid, log.work, gsd_m=run["parameters"]["gsd_m"]) if assets else None
    found = run["classes"][0]
    buildings = Buildings(outlined, scene, log.work, found=found, grader=grader) if outlined else None
    summary = Summary(run["classes"][0], run["area_unit"])
    return _Tables(run, scene.grid, summary, _density(scene, parts, log, run, model), exposure, buildings, grader)


def _rasters_alone(
    scene: Scene, parts: Parts, log: Journal, run: Mapping[str, Any], area: Callable[[Window], npt.NDArray[np.float64]],
    familiarity: Familiarity | None, progress: Callable[[int, int], None],
) -> Summary:  # fmt: skip
    """The rasters that were asked for, in one pass, and the areas of the summary."""
    windows, rasters = list(blocks(scene.shape, WINDOW_PX)), _rasters(scene, log, run)
    summary = Summary(run["classes"][0], run["area_unit"], outlined=False)
    kept = (*PLANES, SPREAD) if SPREAD in rasters.names else PLANES
    read = ahead(lambda window: (parts.planes(window, *kept), area(window)), windows)
    for done, (window, (planes, areas)) in enumerate(zip(windows, read, strict=True), start=1):
        found = dict(zip(kept, planes, strict=True))
        if familiarity:
            found[FAMILIARITY] = familiarity.codes(window, found["exclusion"])
        for name in rasters.names:
            rasters.write(name, parts.score(window) if name == "score" else found[name], window)
        summary.add(found["extent"] == 1, found["exclusion"], areas, np.zeros(0))
        progress(done, len(windows))
    _finish_rasters(rasters, log, run)
    return summary


def _finish_rasters(rasters: RasterSet, log: Journal, run: Mapping[str, Any], *, density: Density | None = None) -> None:
    """The rasters as they are delivered, each with its style."""
    rasters.finish()
    (log.stage / "styles").mkdir()
    classes = density.model.classes if density and density.model else ()
    styles = raster_styles(run["maps"], len(run["methods"]["ran"]), density=density is not None, classes=classes)
    for name, qml in styles.items():
        if Path(name).stem in (*rasters.names, "density", "density_class"):
            (log.stage / "styles" / name).write_text(qml, encoding="utf-8")


def _codes(parts: Parts, window: Window) -> U8:
    """Exclusion codes (y, x), and HAZARD where the leading method maps it."""
    extent, exclusion = parts.planes(window, "extent", "exclusion")
    return np.where(extent == 1, np.uint8(HAZARD), exclusion)


def _beside(parts: Parts, window: Window) -> dict[str, U8]:
    return dict(zip(_BESIDE, parts.planes(window, *_BESIDE), strict=True))


def _rasters(scene: Scene, log: Journal, run: Mapping[str, Any]) -> RasterSet:
    spread, known, only = run["methods"]["spread"], run["methods"]["familiarity"], run["parameters"]["only"]
    wanted = only or (*PLANES, *([SPREAD] if spread else ()), *([FAMILIARITY] if known else ()))
    names = [n for n in RASTERS if n in wanted or (n == "score" and run["parameters"]["keep_scores"])]
    words = {"what": run["maps"], "calibration": run["calibration"], "methods": str(len(run["methods"]["ran"]))}
    words |= {"members": f"{spread['over']} scores of {spread['of']} for {spread['finds']}"} if spread else {}
    words |= {"knows": known["of"]} if known else {}
    return RasterSet(names, scene.grid, log.work, log.stage, words)


def _density(
    scene: Scene, parts: Parts, log: Journal, run: Mapping[str, Any], model: DensityModel | None
) -> Density | None:  # fmt: skip
    """The cells that were asked for; slides are counted too, for their number tells what their area does not."""
    asked = run["parameters"]["density"]
    if asked is None:
        return None
    graded = model.of(scene, lambda window: parts.planes(window, "exclusion")[0] == 0) if model else None
    return Density(
        Cells(*asked["cell_px"]), scene.grid, log.work, what=run["maps"], counted=run["hazard"] == "landslide", model=graded
    )


def _states(codes: U8) -> U8:
    """What a code means for what stands there (exposure.py)."""
    states = np.full(256, exposed.NOT_ANALYSED, np.uint8)
    states[[0, HAZARD, OUTSIDE_AOI]] = exposed.CLEAR, exposed.AFFECTED, exposed.OUTSIDE
    return np.asarray(states[codes])


def _write(found: Outlined, parts: Parts, rasters: RasterSet, familiarity: Familiarity | None) -> None:
    """One window of every raster; the extent is what the minimum mapping unit has left of it."""
    excluded = (found.codes != 0) & (found.codes != HAZARD)
    rasters.write("extent", np.where(excluded, np.uint8(NODATA), found.codes == HAZARD).astype(np.uint8), found.window)
    rasters.write("exclusion", np.where(excluded, found.codes, 0).astype(np.uint8), found.window)
    for name, codes in found.values.items():
        rasters.write(name, codes, found.window)
    if "score" in rasters.names:
        rasters.write("score", parts.score(found.window), found.window)
    if SPREAD in rasters.names:
        rasters.write(SPREAD, parts.planes(found.window, SPREAD)[0], found.window)
    if familiarity:
        rasters.write(FAMILIARITY, familiarity.codes(found.window, np.where(excluded, found.codes, 0)), found.window)


def _counted(read: Callable[[Window], U8], progress: Callable[[int, int], None], whole: int) -> Callable[[Window], U8]:
    """`read`, which says after each window how far both passes have come."""
    done = 0

    def counted(window: Window) -> U8:
        nonlocal done
        done += 1
        progress(done, whole)
        return read(window)

    return counted


def _event(run: Mapping[str, Any]) -> Event:
    inputs, methods = run["inputs"], run["methods"]
    after, before = ([k for k in methods["images"] if k.partition("-")[0] == date] for date in ("after", "before"))
    return Event(
        event_type=_EVENT_TYPES[run["hazard"]],
        obj_desc=_DESCRIPTIONS.get(run["maps"], run["maps"].capitalize()),
        notation=f"{' + '.join(methods['combined'])}, likelihood {run['calibration']}",
        dmg_src_id=" + ".join(after),
        sensor=" + ".join(inputs[k]["sensor"] for k in after),
        acq_before=_latest(inputs[k]["acquired"] for k in before),
        acq_after=_latest(inputs[k]["acquired"] for k in after),
    )


def _latest(acquired: Iterable[str | None]) -> str | None:
    """The last of the times that are known: a map of several images shows the state up to the last of them."""
    return max((a for a in acquired if a), default=None)


def _context(scene: Scene, package: MapPackage, run: Mapping[str, Any]) -> None:
    """The area of interest, and each image with its footprint."""
    package.area_of_interest(scene.area_of_interest or [vector.rectangle(scene.grid)])
    for key, layer in scene.layers.items():
        name = ", ".join(f["name"] for f in run["inputs"][key]["files"])
        gsd = min((b.gsd_m for n in layer.bands if (b := layer.sensor.band(n))), default=0.0)
        package.source(
            Source(
                key, f"{layer.sensor.name}: {name}", layer.acquired, gsd or None, _PHASES.get(key.partition("-")[0], "Reference")
            )
        )
        package.footprint(key, name, _footprint(layer.grid, scene.grid))


def _footprint(own: GeoBox, grid: GeoBox) -> Any:
    """The outer edge of one grid as a polygon in the CRS of another."""
    return vector.rectangle(own) if grid.crs is None else meridian.footprint(own, grid).geom
