"""What is known of a map before its first score, and determines every pixel after it: the key of a run."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aftermap import check, exclude, journal, meridian, provenance, raster
from aftermap.area import pixel_size_m
from aftermap.assumptions import assumptions
from aftermap.calibration import FILE as CALIBRATION
from aftermap.chipdensity import DensityModel
from aftermap.choice import Chosen
from aftermap.errors import UsageError
from aftermap.predict import BASE_MB
from aftermap.products.density import FEWEST, USUAL_M, Cells
from aftermap.scene import Scene
from aftermap.sight import Look
from aftermap.witness import Witness

if TYPE_CHECKING:
    from aftermap.deliver import Options

MIN_AREA_M2, MIN_BUILDING_M2, MIN_AREA_PX = 1000.0, 30.0, 10.0
"""Minimum mapping units: 10 pixels of 10 m (UN-SPIDER uses 8), a small house (Vulcan's), and 10 pixels without a scale."""
_LIBRARIES = ("numpy", "scipy", "rasterio", "odc-geo", "shapely", "pyogrio", "pyproj")


def known(
    scene: Scene,
    method: str,
    options: Options,
    chosen: Chosen,
    *,
    look: Look | None,
    assets: Path | None,
    footprints: Path | None,
    witness: Witness,
    density: DensityModel | None = None,
) -> dict[str, Any]:
    """Inputs with hashes, networks, parameters, versions, warnings. Raises UsageError where options do not fit the scene."""
    grid = scene.grid
    size = pixel_size_m(grid) or options.gsd_m
    _refuse(scene, options, size, counted=bool(assets or footprints))
    limits = exclude.limits_for(scene, gsd_m=options.gsd_m)
    return {
        "aftermap": version("aftermap"),
        "name": scene.name,
        "hazard": scene.hazard,
        "inputs": provenance.inputs(scene, witness),
        "area_of_interest": provenance.polygons(scene.area_of_interest),
        "low_sensitivity": provenance.polygons(scene.insensitive),
        "assets": provenance.assets(assets, witness),
        "footprints": provenance.footprints(footprints, grid, witness),
        "grid": {
            "crs": None if grid.crs is None else (f"EPSG:{e}" if (e := grid.crs.to_epsg()) else grid.crs.to_wkt()),
            "shape": list(scene.shape), "transform": list(grid.affine)[:6], "pixel_m": size,
            "centre": None if grid.crs is None else [round(v, 5) for v in meridian.centre(grid)],
        },
        "models": chosen.models | ({density.name: density.facts} if density else {}),
        "parameters": {
            "method": method, "threshold": options.level, "keep_scores": options.keep_scores,
            "baseline": options.baseline, "lead": options.lead,
            "adapt": [options.adapt, options.adapt_mode] if options.adapt else None,
            "cut": [options.cut, options.band_map] if options.cut else None,
            "favour": options.favour, "gsd_m": options.gsd_m, "density": _cells(scene, options, density),
            "profile": options.profile, "event_code": options.event_code,
            "exclusion": asdict(limits) if limits else None,
            "radar_look": look.facts() if look else None,
            "coregister": options.coregister,
            "shifts_px": {k: list(v) for k, v in scene.shifts.items()},
            "only": list(options.only),
            **_least(scene.hazard, options, size),
        },
        "area_unit": "ha" if size else "px",
        "warnings": [f.facts() for f in check.examine(scene)],
        "assumptions": assumptions(scene, limits, look),
        "versions": {
            "python": platform.python_version(), "gdal": raster.GDAL_VERSION, **{n: version(n) for n in _LIBRARIES},
            "calibration": journal.sha256(CALIBRATION)[:16],
        },
    }  # fmt: skip


def _refuse(scene: Scene, options: Options, size: float | None, *, counted: bool) -> None:
    if options.profile == "unosat" and scene.hazard != "flood":
        raise UsageError(f"the UNOSAT profile is for floods, not for {scene.hazard}", repair="leave --profile out")
    if options.gsd_m is not None and scene.grid.crs is not None:
        raise UsageError("--gsd-m is for images without CRS, and this one has one", repair="leave it out")
    if options.only and counted:
        raise UsageError("--only counts no assets and no buildings", repair="leave out --only, or what asks for them")
    if options.min_area_m2 is not None and size is None:
        raise UsageError("--min-area-m2 needs to know how large a pixel is", repair="give --gsd-m too, for the image has no CRS")


def _least(hazard: str, options: Options, size: float | None) -> dict[str, float]:
    """The minimum mapping unit."""
    if not size:
        return {"min_area_px": 0.0 if options.only else MIN_AREA_PX}
    if options.only:
        return {"min_area_m2": 0.0}
    usual = MIN_BUILDING_M2 if hazard == "building" else MIN_AREA_M2
    return {"min_area_m2": usual if options.min_area_m2 is None else options.min_area_m2}


def _cells(scene: Scene, options: Options, model: DensityModel | None) -> dict[str, Any] | None:
    """The cells of density.tif in pixels (rows, columns), beside what was asked for; None for no density."""
    asked, grid, by, told = options.density_m, scene.grid, None, {}
    if model is not None:
        if asked is not None or options.only:
            other = "--only" if options.only else "--density-m"
            raise UsageError(f"{other} does not go with {model.name}, whose chips are the cells", repair="leave one of them out")
        if pixel_size_m(grid) is None and options.gsd_m is None:
            raise UsageError("densities need to know how large a pixel is", repair="give --gsd-m too, for the image has no CRS")
        model.refuse_above(options.memory_mb, BASE_MB)
        cells, rule, by = model.cells, f"the chips of {model.name}", model.name
        told = {"training_data": model.network.training_data, "licence": model.network.licence}
    elif asked:
        cells, rule = Cells.nearest(grid, asked, gsd_m=options.gsd_m), "asked for"
    else:
        usual = Cells.usual(grid, gsd_m=options.gsd_m) if scene.hazard == "landslide" and not options.only else None
        if usual is None or asked == 0:
            return None
        cells, rule = usual, f"{USUAL_M:g} m, or 1 / {FEWEST} of the shorter side of a smaller scene"
    return {"asked_m": asked, "cell_px": [cells.rows, cells.cols], "rule": rule, "model": by, **told}
