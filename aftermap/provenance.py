"""What a map was made from: each file with its hash, each layer as it is read, polygons by a hash of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from odc.geo.geobox import GeoBox

from aftermap import archive, features, journal
from aftermap.ahead import ahead
from aftermap.layer import Layer
from aftermap.scene import Scene
from aftermap.witness import Witness


def assets(path: Path | None, witness: Witness) -> list[dict[str, Any]]:
    """The files that hold the assets."""
    if path is None:
        return []
    features.layer_of(path)
    return files_of(path, witness)


def footprints(path: Path | None, grid: GeoBox, witness: Witness) -> list[dict[str, Any]]:
    """The files that hold the footprints, of which some lie in the image."""
    if path is None:
        return []
    features.refuse_apart(path, grid)
    return files_of(path, witness)


def files_of(path: Path, witness: Witness) -> list[dict[str, Any]]:
    """A shapefile keeps its parts in several."""
    parts = sorted(path.parent.glob(f"{path.stem}.*")) if path.suffix.lower() == ".shp" else [path]
    return [_file(p, witness) for p in parts]


def polygons(given: Sequence[Any]) -> dict[str, Any] | None:
    """How many polygons there are, and a hash of them in the grid's CRS; None where there are none."""
    shapes = [polygon.wkb_hex for polygon in given]
    return {"polygons": len(shapes), "sha256": journal.digest(shapes)} if shapes else None


def _file(path: Path, witness: Witness) -> dict[str, Any]:
    return {"name": path.name, "sha256": witness.sha256(path), "bytes": witness.stamps[path].bytes}


def inputs(scene: Scene, witness: Witness) -> dict[str, Any]:
    """What each layer is made of, and how it is read."""
    layers = {
        key: [file for home in archive.homes(layer.paths) for file in (home, *witness.named.get(home, ()))]
        for key, layer in scene.layers.items()
    }
    every = list(dict.fromkeys(chain(*layers.values())))
    files = dict(zip(every, ahead(lambda path: _file(path, witness), every, workers=2), strict=True))
    return {key: _input(scene, layer, [files[path] for path in layers[key]]) for key, layer in scene.layers.items()}


def _input(scene: Scene, layer: Layer, files: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "files": list(files),
        "sensor": layer.sensor.name, "bands": list(layer.bands), "unit": layer.unit, "unit_from": layer.reasons.get("unit", ""),
        "acquired": layer.acquired, "resampling": scene.resampling(layer.name),
        "stored": [[str(s.nodata), s.scale, s.offset] for image in layer.images for s in image.sources],
    }  # fmt: skip
