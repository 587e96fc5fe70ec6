"""Radar and optical images of one date: which files are which, what was declared for which, and the layer that each becomes.

The bands of the two kinds never share a name, so a band tells its image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from aftermap import naming, raster, safe
from aftermap.area import pixel_size_m
from aftermap.errors import UsageError
from aftermap.layer import Declared, Layer, fits, open_layer
from aftermap.raster import Facts
from aftermap.sensors import POLARISATIONS, SAR_UNITS, sensor

RADAR, OPTICAL = "radar", "optical"


def open_date(name: str, paths: Sequence[Path], declared: Declared | None = None) -> list[Layer]:
    """The layers of one date, that of the finest pixels first under `name`, the other one as NAME-radar or NAME-optical.

    Files of one kind are one layer, as `open_layer` has it. Raises its errors.
    """
    declared = declared or Declared()
    files = [raster.facts(file) for path in paths for file in safe.expand(path)]
    names = _names(files, declared)
    kinds = [RADAR if set(bands) <= set(POLARISATIONS) else OPTICAL for bands in names]
    if len(set(kinds)) < 2 or not all(names):
        return [open_layer(name, paths, declared)]
    layers = []
    for kind in dict.fromkeys(kinds):
        places = [k for k, other in enumerate(kinds) if other == kind]
        said = _said_of(kind, declared, [files[k] for k in places], [b for k in places for b in names[k]])
        layers.append(open_layer(name, [files[k].path for k in places], said))
    layers.sort(key=lambda layer: round(pixel_size_m(layer.grid) or 1.0, 3))
    return [layers[0], *(replace(layer, name=f"{name}-{kind_of(layer)}") for layer in layers[1:])]


def kind_of(layer: Layer) -> str:
    """RADAR or OPTICAL."""
    return RADAR if layer.sensor.is_sar else OPTICAL


def _names(files: Sequence[Facts], declared: Declared) -> list[tuple[str, ...]]:
    """The bands of each file, () where nothing says: those declared of all files, or of those that do not say themselves."""
    stated = [naming.band_names(f)[0] for f in files]
    counts = [len(f.indexes) + f.alpha for f in files]
    silent = [k for k, bands in enumerate(stated) if not bands]
    for places in (list(range(len(files))), silent):
        if fits(declared.bands, [counts[k] for k in places]):
            bands, given = declared.bands, list(stated)
            together = len(bands) == sum(counts[k] for k in places)
            for k in places:
                given[k] = bands[: counts[k]]
                bands = bands[counts[k] :] if together else bands
            return given
    return [()] * len(files) if declared.bands else stated


def _said_of(kind: str, declared: Declared, files: Sequence[Facts], names: Sequence[str]) -> Declared:
    """What was declared that fits one kind of image; a nodata value or a date holds where its files state none."""
    unit = declared.unit
    if unit and unit not in SAR_UNITS and unit != "reflectance":
        raise UsageError(
            f"--unit {unit} may be meant for the radar or for the optical image",
            repair="leave it out, and state units in the files' tags",
        )
    known = declared.sensor and (RADAR if sensor(declared.sensor).is_sar else OPTICAL) == kind
    return Declared(
        bands=tuple(names) if declared.bands else (),
        sensor=declared.sensor if known else "",
        unit=unit if (unit in SAR_UNITS) == (kind == RADAR) else "",
        nodata=None if any(v is not None for f in files for v in f.nodata) else declared.nodata,
        acquired="" if any(naming.acquired(f) for f in files) else declared.acquired,
    )
