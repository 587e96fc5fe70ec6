"""The one table of names: what can be chosen by name, and where it lives. Reading it imports nothing heavy."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from aftermap.errors import UnknownNameError

PIECES: dict[str, dict[str, str]] = {
    "flood": {
        "sar-threshold": "aftermap.indices.sar:SarThreshold",
        "sar-darker": "aftermap.indices.sar:SarDarker",
        "sar-drop": "aftermap.indices.sar:SarDrop",
        "log-ratio": "aftermap.indices.change:LogRatio",
        "sar-fuzzy": "aftermap.indices.fuzzy:SarFuzzy",
        "mndwi": "aftermap.indices.optical:Mndwi",
        "mndwi-rise": "aftermap.indices.change:MndwiRise",
        "ndwi": "aftermap.indices.optical:Ndwi",
    },
    "landslide": {
        "ndvi-change": "aftermap.indices.landslide:NdviChange",
        "rdndvi": "aftermap.indices.landslide:RdNdvi",
        "log-ratio": "aftermap.indices.soil:LogRatio",
        "bare-soil": "aftermap.indices.soil:BareSoil",
    },
    "fracture": {
        "gabor": "aftermap.indices.fracture:Gabor",
        "contrast": "aftermap.indices.fracture:Contrast",
        "radon": "aftermap.indices.radon:Radon",
        "saturation": "aftermap.indices.radon:Saturation",
    },
    "building": {
        "building-change": "aftermap.indices.building:BuildingChange",
        "brightness": "aftermap.indices.building:Brightness",
        "texture": "aftermap.indices.building:Texture",
    },
    "simulate": {
        "flood": "aftermap.simulate.flood:simulate",
        "landslide": "aftermap.simulate.landslide:simulate",
        "fracture": "aftermap.simulate.fracture:simulate",
        "building": "aftermap.simulate.building:simulate",
        "landcover": "aftermap.simulate.landcover:simulate",
    },
    "dataset": {
        "sen1floods11": "aftermap.datasets.sen1floods11:SEN1FLOODS11",
        "xbd": "aftermap.datasets.xbd:XBD",
        "hr-gldd": "aftermap.datasets.hr_gldd:HR_GLDD",
        "landslide4sense": "aftermap.datasets.landslide4sense:LANDSLIDE4SENSE",
        "landslide4sense-rgb": "aftermap.datasets.landslide4sense_rgb:LANDSLIDE4SENSE_RGB",
        "antarctic-fractures": "aftermap.datasets.antarctic_fractures:ANTARCTIC_FRACTURES",
        "ombria": "aftermap.datasets.ombria:OMBRIA",
        "sar-landslides": "aftermap.datasets.sar_landslides:SAR_LANDSLIDES",
        "sen12landslides": "aftermap.datasets.sen12landslides:SEN12LANDSLIDES",
        "bigearthnet": "aftermap.datasets.bigearthnet:BIGEARTHNET",
        "worldfloods": "aftermap.datasets.worldfloods:WORLDFLOODS",
        "m3leo": "aftermap.datasets.m3leo:M3LEO",
        "worldcover": "aftermap.datasets.worldcover:WORLDCOVER",
        "simulated": "aftermap.datasets.simulated:SIMULATED",
        "simulated-landcover": "aftermap.datasets.landcover:LANDCOVER",
        "folder": "aftermap.datasets.folder:FOLDER",
    },
}
"""kind -> name -> "module:object". Under a hazard stand its methods, the one that leads by default first."""


HAZARDS = ("flood", "landslide", "fracture", "building")
"""Hazards that can be mapped."""
NO_HAZARD = "none"
"""Of a recipe or model that maps none: what learns without labels, land cover."""


def load(kind: str, name: str) -> Any:
    """The object of that kind and name; raises UnknownNameError with the near misses."""
    if name not in PIECES[kind]:
        raise UnknownNameError(kind, name, PIECES[kind])
    module, _, attribute = PIECES[kind][name].partition(":")
    return getattr(import_module(module), attribute)
