"""A scene: the named layers of one event on one grid, read by window; NaN where not observed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from aftermap import clouds, vector
from aftermap.errors import BandError, InputRefusedError
from aftermap.layer import Declared, Layer, open_layer
from aftermap.raster import Reader
from aftermap.scorer import LayerBands
from aftermap.sensors import SAR_UNITS, convert
from aftermap.tiles import Window

LAYERS = ("after", "before", "dem", "reference_water")


class Derived(Protocol):
    """Bands worked out of a layer's own: their units by name, and a window (y, x) of one on the scene's grid."""

    @property
    def units(self) -> Mapping[str, str]: ...
    def read(self, band: str, window: Window) -> npt.NDArray[np.float32]: ...


@dataclass(frozen=True)
class Scene:
    """Layers of one event on the grid of `after`. Not safe to read from two threads at once: GDAL handles are inside.

    `domain` is what shares statistics (sensor and place); `area_of_interest` are polygons in the grid's CRS.
    """

    name: str
    hazard: str
    domain: str
    grid: GeoBox
    layers: Mapping[str, Layer]
    area_of_interest: tuple[Any, ...] = ()
    shifts: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Pixels (x, y) that a layer lies to the right of and below its place by its georeference; taken out on reading."""
    derived: Mapping[str, Derived] = field(default_factory=dict, compare=False, repr=False)
    """By layer, what no file holds: relief.py gives the slope and height above drainage of `dem`."""
    _readers: dict[tuple[str, Path, bool], Reader] = field(default_factory=dict, repr=False, compare=False)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.grid.shape[0]), int(self.grid.shape[1])

    def missing(self, wanted: LayerBands) -> str:
        """Why these bands cannot be read in this unit, in words; empty when they can."""
        layer = self.layers.get(wanted.layer)
        if layer is None:
            return f"there is no {wanted.layer.replace('_', ' ')} image"
        units = self._derived_units(wanted.layer)
        if wrong := [b for b in wanted.bands if units.get(b, wanted.unit) != wanted.unit]:
            return f"{wrong[0]} of the {layer.name} image is in {units[wrong[0]]}, not in {wanted.unit}"
        if units.keys() >= set(wanted.bands):
            return ""
        absent = [b for b in wanted.bands if layer.index(b) is None and b not in units]
        if absent:
            return f"the {layer.name} image has no band {', '.join(absent)} (it has {', '.join(layer.bands)})"
        if wanted.unit not in ("digital_number", layer.unit) and not {wanted.unit, layer.unit} <= set(SAR_UNITS):
            return f"the {layer.name} image is in {layer.unit.replace('_', ' ')}, not in {wanted.unit}"
        return ""

    def read(self, wanted: LayerBands, window: Window) -> npt.NDArray[np.float32]:
        """Pixels (band, y, x) in the unit asked for ("digital_number": as the layer has them), NaN where not observed.

        Where the layer's own class band says cloud or cloud shadow, the ground was not observed either.
        """
        if why := self.missing(wanted):
            raise BandError(why, repair="give the image that has it", code="band-missing")
        if (units := self._derived_units(wanted.layer)).keys() & set(wanted.bands):
            own = self.derived[wanted.layer]
            each = ((b, replace(wanted, bands=(b,))) for b in wanted.bands)
            return np.stack([own.read(b, window) if b in units else self.read(alone, window)[0] for b, alone in each])
        pixels = self._gather(wanted, (window.height, window.width), lambda reader: reader.read(window))
        layer = self.layers[wanted.layer]
        if (band := clouds.class_band(layer)) is not None:
            codes = self._codes(layer.name, band, window)
            unseen = clouds.hidden(codes, band) | clouds.fill(codes, band)
            for k, name in enumerate(wanted.bands):
                if (i := layer.index(name)) is not None and not layer.is_class(i):
                    pixels[k][unseen] = np.nan
        return pixels

    def _derived_units(self, layer: str) -> Mapping[str, str]:
        return self.derived[layer].units if layer in self.derived else {}

    def thumbnail(self, layer: str, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
        """All bands (band, y, x) of a layer averaged down to `shape`, in the layer's own unit."""
        wanted = LayerBands(layer, self.layers[layer].bands, "digital_number")
        return self._gather(wanted, shape, lambda reader: reader.thumbnail(shape))

    def _gather(
        self, wanted: LayerBands, shape: tuple[int, int], read: Callable[[Reader], npt.NDArray[np.float32]]
    ) -> npt.NDArray[np.float32]:
        layer = self.layers[wanted.layer]
        names = [layer.bands[i] for b in wanted.bands if (i := layer.index(b)) is not None]
        pixels = np.full((len(names), *shape), np.nan, np.float32)
        for image in layer.images:
            if (unseen := np.isnan(pixels)).any():
                found = self._gather_image(image, names, shape, read)
                np.copyto(pixels, found if image.unit == layer.unit else convert(found, image.unit, layer.unit), where=unseen)
        return convert(pixels, layer.unit, wanted.unit)

    def _gather_image(
        self, image: Layer, names: Sequence[str], shape: tuple[int, int], read: Callable[[Reader], npt.NDArray[np.float32]]
    ) -> npt.NDArray[np.float32]:
        """Bands (band, y, x) of one image of a layer, in that image's unit."""
        places = [image.bands.index(b) for b in names]
        files = [(image.sources[i].path, image.is_class(i)) for i in places]
        pixels = np.empty((len(places), *shape), np.float32)
        for path, classes in dict.fromkeys(files):
            stored = read(self._reader(image, path, classes))
            held = [image.sources[i].index for i in _bands_of(image, path, classes)]
            for k in (k for k, file in enumerate(files) if file == (path, classes)):
                source = image.sources[places[k]]
                pixels[k] = stored[held.index(source.index)]
                if (source.scale, source.offset) != (1.0, 0.0):
                    pixels[k] = pixels[k] * np.float32(source.scale) + np.float32(source.offset)
        return pixels

    def clouded(self, layer: str, window: Window) -> npt.NDArray[np.bool_] | None:
        """True (y, x) where the layer's own class band says cloud or cloud shadow; None where it has no such band."""
        band = clouds.class_band(self.layers[layer])
        return None if band is None else clouds.hidden(self._codes(layer, band, window), band)

    def _codes(self, layer: str, band: str, window: Window) -> npt.NDArray[np.float32]:
        wanted = LayerBands(layer, (band,), "digital_number")
        return np.asarray(self._gather(wanted, (window.height, window.width), lambda reader: reader.read(window))[0])

    def resampling(self, layer: str) -> str:
        """How a layer reaches the scene's grid: "none", or the resampling of each of its files."""
        found = self.layers[layer]
        ways = {
            self._reader(image, s.path, image.is_class(i)).resampling
            for image in found.images
            for i, s in enumerate(image.sources)
        }
        return ", ".join(sorted(ways))

    def _reader(self, layer: Layer, path: Path, classes: bool) -> Reader:
        key = (layer.name, path, classes)
        if key not in self._readers:
            sources = [layer.sources[i] for i in _bands_of(layer, path, classes)]
            affine = self.grid.affine @ self.grid.affine.translation(*self.shifts.get(layer.name, (0.0, 0.0)))
            self._readers[key] = Reader(
                path,
                GeoBox(self.shape, affine, self.grid.crs),
                [s.index for s in sources],
                nodata=[s.nodata for s in sources],
                classes=classes,
            )
        return self._readers[key]


def _bands_of(layer: Layer, path: Path, classes: bool) -> list[int]:
    """Positions of the bands that one reader of a file gives: codes and measurements are warped in different ways."""
    return [i for i, s in enumerate(layer.sources) if s.path == path and layer.is_class(i) == classes]


def open_scene(
    paths: Mapping[str, Sequence[Path]],
    *,
    hazard: str,
    declared: Mapping[str, Declared] | None = None,
    area_of_interest: Path | None = None,
    name: str = "",
) -> Scene:
    """The scene of these files by layer name; its grid is that of the finest `after` file.

    Raises the errors of `open_layer`, and InputRefusedError ("no-overlap") where a layer lies wholly beside `after`.
    """
    layers = {k: open_layer(k, files, (declared or {}).get(k)) for k, files in paths.items() if files}
    after = layers["after"]
    for layer in layers.values():
        _refuse_apart(after, layer)
    aoi = _area_of_interest(area_of_interest, after) if area_of_interest else ()
    return Scene(
        name=name or after.sources[0].path.stem, hazard=hazard, domain=after.sensor.name,
        grid=after.grid, layers=layers, area_of_interest=aoi,
    )  # fmt: skip


def _area_of_interest(path: Path, after: Layer) -> tuple[Any, ...]:
    polygons = tuple(vector.read_polygons(path, after.grid))
    if not any(after.grid.extent.geom.intersects(p) for p in polygons):
        raise InputRefusedError(
            f"the area of interest {path.name} lies wholly beside after",
            repair="give polygons that overlap the image",
            code="aoi-outside",
        )
    return polygons


def _refuse_apart(after: Layer, other: Layer) -> None:
    if after.grid.crs is None or other.grid.crs is None:
        if (after.grid.crs is None) != (other.grid.crs is None) or after.grid.shape != other.grid.shape:
            raise InputRefusedError(
                f"{other.name} and after cannot be aligned: not both have a CRS and they are not the same pixels",
                repair="georeference both, or cut them to the same pixels",
                code="no-common-grid",
            )
        return
    if not other.grid.extent.to_crs(after.grid.crs).intersects(after.grid.extent):
        raise InputRefusedError(
            f"{other.name} does not overlap after: {_where(other)} against {_where(after)}",
            repair="give images of the same place",
            code="no-overlap",
        )


def _where(layer: Layer) -> str:
    west, south, east, north = layer.grid.extent.to_crs("EPSG:4326").boundingbox
    return f"{layer.sources[0].path.name} at {west:.3f}..{east:.3f} E, {south:.3f}..{north:.3f} N"
