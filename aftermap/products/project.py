"""map.qgz: a QGIS project over the delivered files, so that a double click opens them in their styles and order."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from odc.geo.geobox import GeoBox

from aftermap.products.styles import layer_styles
from aftermap.vector import polygon_layers

PROJECT = "map.qgz"
_OUTLINES = {
    "priority": "Look here first", "observed_event": "Outlines", "built_up": "Buildings",
    "not_analysed": "Not analysed, outlines", "area_of_interest": "Area of interest",
    "image_footprint": "Images", "unosat": "UNOSAT profile",
}  # fmt: skip
"""Layer of map.gpkg -> its name for people, the first on top."""
_RASTERS = {
    "extent": "Extent", "likelihood": "Likelihood", "exclusion": "Not analysed, and why", "agreement": "Agreement of methods",
    "spread": "Spread", "familiarity": "Familiarity", "density": "Density", "density_class": "Density, classes",
}  # fmt: skip
_SHOWN = ("observed_event", "priority", "built_up", "area_of_interest", "extent")
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)
"""Equal maps, equal bytes."""


@dataclass(frozen=True)
class _Entry:
    """One layer of the project."""

    id: str
    title: str
    source: str
    kind: str
    style: str
    """The inside of its QML."""

    @property
    def provider(self) -> str:
        return "gdal" if self.kind == "raster" else "ogr"


def write_project(stage: Path, grid: GeoBox, run: Mapping[str, Any]) -> None:
    """Writes the project over what lies in `stage`, addresses relative to it."""
    entries = [*_vectors(stage, run), *_rasters(stage)]
    west, south, east, north = grid.extent.boundingbox
    crs = _crs(grid)
    tree = "".join(_leaf(e) for e in entries)
    order = "".join(f'<layer id="{e.id}"/>' for e in entries)
    layers = "".join(_layer(e, crs) for e in entries)
    extent = f"<extent><xmin>{west}</xmin><ymin>{south}</ymin><xmax>{east}</xmax><ymax>{north}</ymax></extent>"
    text = (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
        f'<qgis version="3.22" projectname={quoteattr(str(run["name"]))}><title>{escape(str(run["name"]))}</title>'
        f"<projectCrs>{crs}</projectCrs><layer-tree-group>{tree}</layer-tree-group>"
        f'<mapcanvas name="theMapCanvas">{extent}<destinationsrs>{crs}</destinationsrs></mapcanvas>'
        f"<projectlayers>{layers}</projectlayers><layerorder>{order}</layerorder>"
        '<properties><Paths><Absolute type="bool">false</Absolute></Paths>'
        f'<SpatialRefSys><ProjectionsEnabled type="int">{int(grid.crs is not None)}</ProjectionsEnabled></SpatialRefSys>'
        "</properties></qgis>\n"
    )
    with zipfile.ZipFile(stage / PROJECT, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(zipfile.ZipInfo("map.qgs", _FIXED_TIME), text, zipfile.ZIP_DEFLATED)


def _vectors(stage: Path, run: Mapping[str, Any]) -> Iterator[_Entry]:
    package = stage / "map.gpkg"
    held = polygon_layers(package) if package.exists() else ()
    styles = layer_styles(str(run["maps"]))
    for name, title in _OUTLINES.items():
        if name in held:
            yield _Entry(f"outline_{name}", title, f"./map.gpkg|layername={name}", "vector", _inside(styles[name]))


def _rasters(stage: Path) -> Iterator[_Entry]:
    for name, title in _RASTERS.items():
        style = stage / "styles" / f"{name}.qml"
        if (stage / f"{name}.tif").exists() and style.exists():
            yield _Entry(f"raster_{name}", title, f"./{name}.tif", "raster", _inside(style.read_text(encoding="utf-8")))


def _inside(qml: str) -> str:
    found = re.search(r"<qgis [^>]*>(.*)</qgis>", qml, flags=re.S)
    assert found is not None
    return found[1]


def _leaf(entry: _Entry) -> str:
    seen = "Qt::Checked" if entry.id.partition("_")[2] in _SHOWN else "Qt::Unchecked"
    said = f'id="{entry.id}" name={quoteattr(entry.title)} source={quoteattr(entry.source)}'
    return f'<layer-tree-layer {said} providerKey="{entry.provider}" checked="{seen}" expanded="0"/>'


def _layer(entry: _Entry, crs: str) -> str:
    geometry = ' geometry="Polygon"' if entry.kind == "vector" else ""
    return (
        f'<maplayer type="{entry.kind}"{geometry}><id>{entry.id}</id><datasource>{escape(entry.source)}</datasource>'
        f"<layername>{escape(entry.title)}</layername><provider>{entry.provider}</provider><srs>{crs}</srs>"
        f"{entry.style}</maplayer>"
    )


def _crs(grid: GeoBox) -> str:
    if grid.crs is None:
        return "<spatialrefsys/>"
    epsg = grid.crs.to_epsg()
    name = f"<authid>EPSG:{epsg}</authid>" if epsg else ""
    return f"<spatialrefsys><wkt>{escape(grid.crs.to_wkt())}</wkt>{name}</spatialrefsys>"
