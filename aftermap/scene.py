"""A scene: the named layers of one event on one grid, read by window; NaN where not observed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from aftermap import clouds, meridian, vector
from aftermap.beside import kind_of, open_date
from aftermap.errors import BandError, InputRefusedError
from aftermap.layer import Declared, Layer
from aftermap.median import median_of
from aftermap.raster import Reader
from aftermap.scorer import LayerBands
from aftermap.sensors import SAR_UNITS, convert
from aftermap.tiles import Window

LAYERS = ("after", "before", "dem", "reference_water", "low_sensitivity")


class Derived(Protocol):
    """Bands worked out of a layer's own: their units by name, and a window (y, x) of one on the scene's grid."""

    @property
    def units(self) -> Mapping[str, str]: ...
    def read(self, band: str, window: Window) -> npt.NDArray[np.float32]: ...


@dataclass(frozen=True)
class Scene:
    """Layers of one event on the grid of `after`; a date with radar and optical images has two (beside.py).

    No layer may be read from two threads at once, for GDAL handles are inside; two layers may.

    `domain` is what shares statistics (sensor and place); `area_of_interest` are polygons in the grid's CRS.
    """

    name: str
    hazard: str
    domain: str
    grid: GeoBox
    layers: Mapping[str, Layer]
    area_of_interest: tuple[Any, ...] = ()
    insensitive: tuple[Any, ...] = ()
    """Polygons in the grid's CRS in which the method cannot tell; a raster of such ground is the layer `low_sensitivity`."""
    shifts: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Pixels (x, y) that a layer lies to the right of and below its place by its georeference; taken out on reading."""
    derived: Mapping[str, Derived] = field(default_factory=dict, compare=False, repr=False)
    """By layer, what no file holds: relief.py gives the slope and height above drainage of `dem`."""
    _readers: dict[tuple[str, Path, bool], Reader] = field(default_factory=dict, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        """For other processes, which open files themselves."""
        return {**vars(self), "_readers": {}}

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.grid.shape[0]), int(self.grid.shape[1])

    def images(self, name: str) -> list[Layer]:
        """The layers of that name: of a date with radar and optical images both, that of the grid first."""
        return [layer for key, layer in self.layers.items() if name in (key, key.partition("-")[0])]

    def pairs(self) -> list[tuple[Layer, Layer]]:
        """Each image before with the image after of its kind, or the first after where there is none."""
        kinds = {kind_of(layer): layer for layer in self.images("after")}
        return [(kinds.get(kind_of(b), self.layers["after"]), b) for b in self.images("before")]

    def seen(self, inputs: Iterable[LayerBands]) -> dict[str, Layer]:
        """The layers by their own names that hold these bands, in that order."""
        held = (self._holder(wanted.layer, band) for wanted in inputs for band in wanted.bands)
        return {layer.name: layer for layer in held if layer is not None}

    def missing(self, wanted: LayerBands) -> str:
        """Why these bands cannot be read in this unit, in words; empty when they can."""
        images = self.images(wanted.layer)
        if not images:
            return f"there is no {wanted.layer.replace('_', ' ')} image"
        units = self._derived_units(wanted.layer)
        if wrong := [b for b in wanted.bands if units.get(b, wanted.unit) != wanted.unit]:
            return f"{wrong[0]} of the {wanted.layer} image is in {units[wrong[0]]}, not in {wanted.unit}"
        absent = [b for b in wanted.bands if b not in units and self._holder(wanted.layer, b) is None]
        if absent:
            held = ", ".join(b for layer in images for b in layer.bands)
            return f"the {wanted.layer} image has no band {', '.join(absent)} (it has {held})"
        for band in wanted.bands:
            if (layer := self._holder(wanted.layer, band)) is None or band in units:
                continue
            given = layer.unit_of(band)
            if wanted.unit not in ("digital_number", given) and not {wanted.unit, given} <= set(SAR_UNITS):
                whose = "" if given == layer.unit else f"{band} of "
                return f"{whose}the {layer.name} image is in {given.replace('_', ' ')}, not in {wanted.unit}"
        return ""

    def _holder(self, name: str, band: str) -> Layer | None:
        return next((layer for layer in self.images(name) if layer.index(band) is not None), None)

    def read(self, wanted: LayerBands, window: Window) -> npt.NDArray[np.float32]:
        """Pixels (band, y, x) in the unit asked for ("digital_number": as the layer has them), NaN where not observed.

        Where the layer's own class band says cloud or cloud shadow, the ground was not observed either.
        """
        if why := self.missing(wanted):
            raise BandError(why, repair="give the image that has it", code="band-missing")
        if wanted.median_px > 1:
            around = window.pad(wanted.median_px // 2, self.shape)
            pixels = self.read(replace(wanted, median_px=1), around)
            return median_of(pixels, window.within(around), wanted.median_px)
        if (units := self._derived_units(wanted.layer)).keys() & set(wanted.bands):
            own = self.derived[wanted.layer]
            each = ((b, replace(wanted, bands=(b,))) for b in wanted.bands)
            return np.stack([own.read(b, window) if b in units else self.read(alone, window)[0] for b, alone in each])
        layers = self.seen([wanted])
        if len(layers) == 1:
            return self._read(next(iter(layers.values())), wanted, window)
        pixels = np.empty((len(wanted.bands), window.height, window.width), np.float32)
        for layer in layers.values():
            places = [k for k, b in enumerate(wanted.bands) if self._holder(wanted.layer, b) is layer]
            of_layer = LayerBands(layer.name, tuple(wanted.bands[k] for k in places), wanted.unit)
            pixels[places] = self._read(layer, of_layer, window)
        return pixels

    def _read(self, layer: Layer, wanted: LayerBands, window: Window) -> npt.NDArray[np.float32]:
        pixels = self._gather(layer, wanted, (window.height, window.width), lambda reader: reader.read(window))
        if (band := clouds.class_band(layer)) is not None:
            codes = self._codes(layer, band, window)
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
        return self._gather(self.layers[layer], wanted, shape, lambda reader: reader.thumbnail(shape))

    def _gather(
        self, layer: Layer, wanted: LayerBands, shape: tuple[int, int], read: Callable[[Reader], npt.NDArray[np.float32]]
    ) -> npt.NDArray[np.float32]:
        names = [layer.bands[i] for b in wanted.bands if (i := layer.index(b)) is not None]
        if not layer.beneath:
            return convert(self._gather_image(layer, names, shape, read), layer.unit_of(wanted.bands[0]), wanted.unit)
        pixels = np.full((len(names), *shape), np.nan, np.float32)
        for image in layer.images:
            if (unseen := np.isnan(pixels)).any():
                found = self._gather_image(image, names, shape, read)
                np.copyto(pixels, found if image.unit == layer.unit else convert(found, image.unit, layer.unit), where=unseen)
        return convert(pixels, layer.unit_of(wanted.bands[0]), wanted.unit)

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
        return None if band is None else clouds.hidden(self._codes(self.layers[layer], band, window), band)

    def _codes(self, layer: Layer, band: str, window: Window) -> npt.NDArray[np.float32]:
        wanted = LayerBands(layer.name, (band,), "digital_number")
        return np.asarray(self._gather(layer, wanted, (window.height, window.width), lambda reader: reader.read(window))[0])

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
    drawn = [p for p in paths.get("low_sensitivity", ()) if vector.is_vector(p)]
    paths = {k: [f for f in files if f not in drawn] for k, files in paths.items()}
    layers = {layer.name: layer for k, files in paths.items() if files for layer in open_date(k, files, (declared or {}).get(k))}
    after = layers["after"]
    for layer in layers.values():
        _refuse_apart(after, layer)
    aoi = _area_of_interest(area_of_interest, after) if area_of_interest else ()
    return Scene(
        name=name or after.sources[0].path.stem, hazard=hazard, grid=after.grid, layers=layers,
        domain="+".join(k.sensor.name for k in layers.values() if k.name.partition("-")[0] == "after"), area_of_interest=aoi,
        insensitive=tuple(shape for p in drawn for shape in vector.read_polygons(p, after.grid)),
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
    if not meridian.footprint(other.grid, after.grid).intersects(after.grid.extent):
        raise InputRefusedError(
            f"{other.name} does not overlap after: {_where(other)} against {_where(after)}",
            repair="give images of the same place",
            code="no-overlap",
        )


def _where(layer: Layer) -> str:
    west, south, east, north = layer.grid.extent.to_crs("EPSG:4326").boundingbox
    return f"{layer.sources[0].path.name} at {west:.3f}..{east:.3f} E, {south:.3f}..{north:.3f} N"
