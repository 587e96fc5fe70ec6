"""One layer of a scene: files to named bands with a sensor and a unit, every decision recorded with its reason.

What was declared wins; then what the files say (naming.py); then what only one reading of the values allows. Anything
else is refused with the flag that settles it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from aftermap import archive, mosaic, naming, raster, safe
from aftermap.area import pixel_size_m
from aftermap.errors import BandError, UsageError
from aftermap.sensors import S2_OFFSET, SAR_UNITS, UNITS, Sensor, canonical, convert, sensor
from aftermap.tiles import lattice

SAMPLE_PX, SAMPLE_SIDE = 96, 5
"""Facts that lie in the values are read from 5 x 5 windows of 96 px, corners included."""
_NODATA_SUSPECTS = (0.0, 255.0)
_NODATA_SENTINELS = (-9999.0, -32768.0, -99.0, -999.0)
"""No sensor measures these, so a corner of one band is enough; 0 and 255 must fill it in every band."""
_LEAST_DB = -90.0
"""Power is lifted to -100 dB at the least and noise floors lie above -40: below stand only undeclared sentinels."""


@dataclass(frozen=True)
class Declared:
    """What the user said of a layer; empty means not said."""

    bands: tuple[str, ...] = ()
    sensor: str = ""
    unit: str = ""
    nodata: float | None = None
    acquired: str = ""

    def __post_init__(self) -> None:
        try:
            datetime.fromisoformat(self.acquired or "2000-01-01")
        except ValueError as error:
            raise UsageError(f"{self.acquired!r} is no date", repair="write 2024-05-13 or 2024-05-13T05:00:00Z") from error


@dataclass(frozen=True)
class BandSource:
    """Where one band lies and how its stored numbers become the layer's unit: value = stored * scale + offset."""

    path: Path
    index: int
    nodata: float | None = None
    scale: float = 1.0
    offset: float = 0.0

    def __getstate__(self) -> dict[str, Any]:
        """For other processes, which may work in another folder."""
        whole = self.path.absolute()
        return {**vars(self), "path": whole if archive.home(whole).exists() else self.path}


@dataclass(frozen=True)
class Layer:
    """Bands of one date on their own finest grid. `reasons` says how each thing was decided."""

    name: str
    sensor: Sensor
    bands: tuple[str, ...]
    unit: str
    sources: tuple[BandSource, ...]
    grid: GeoBox
    acquired: str | None
    orbit: str | None = None
    """"ascending" or "descending"; None where nothing says."""
    reasons: dict[str, str] = field(default_factory=dict)
    sampled: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32), repr=False, compare=False)
    """Sampled values as stored, (band, n), NaN where not observed; what the doctor looks at."""
    beneath: tuple[Layer, ...] = ()
    """Further images of the same date and bands: each fills, in this order, what those before it did not observe."""

    def __getstate__(self) -> dict[str, Any]:
        """For other processes, which judge no files."""
        return {**vars(self), "sampled": np.empty((0, 0), np.float32)}

    @property
    def images(self) -> tuple[Layer, ...]:
        """This image and those beneath it."""
        return (self, *self.beneath)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file of every image, once."""
        return tuple(dict.fromkeys(s.path for image in self.images for s in image.sources))

    def is_class(self, index: int) -> bool:
        """True where the band at that position holds codes, which are never averaged or interpolated."""
        band = self.sensor.band(self.bands[index])
        return self.unit == "class" or (band is not None and band.unit == "class")

    def unit_of(self, band: str) -> str:
        """The unit of one band, by its own or its common name: that of the layer, unless it is ground stacked on light."""
        found = self.sensor.band(band)
        return found.unit if found is not None and found.unit == "relative" else self.unit

    def index(self, band: str) -> int | None:
        """Position of a band by its own or its common name; None when the layer has no such band."""
        keys = [canonical(b) for b in self.bands]
        if canonical(band) in keys:
            return keys.index(canonical(band))
        commons = [canonical(found.common) if (found := self.sensor.band(b)) else "" for b in self.bands]
        return commons.index(canonical(band)) if canonical(band) in commons else None


def open_layer(name: str, paths: Sequence[Path], declared: Declared | None = None) -> Layer:
    """The layer that these files hold, bands stacked or one per file; images that hold the same bands become one mosaic.

    Raises RasterError, BandError or UsageError.
    """
    declared = declared or Declared()
    paths = [file for path in paths for file in safe.expand(path)]
    files = [raster.facts(p) for p in paths]
    if fits(declared.bands, [len(f.indexes) + f.alpha for f in files]):
        files = [raster.facts(p, alpha_is_band=True) for p in paths]
    names, names_from = _names(name, files, declared)
    groups = mosaic.images(name, files, names, dated=name not in _SINGLE_BAND)
    images = [
        _open_image(name, [files[k] for k in group], [n for k in group for n in names[k]], declared, {"bands": names_from})
        for group in groups
    ]
    return images[0] if len(images) == 1 else _joined(images)


def fits(bands: Sequence[str], counts: Sequence[int]) -> bool:
    """True where the declared bands are those of all the files together, or of each of them."""
    return bool(bands) and (len(bands) == sum(counts) or set(counts) == {len(bands)})


def _open_image(
    name: str, files: Sequence[raster.Facts], names: Sequence[str], declared: Declared, reasons: dict[str, str]
) -> Layer:
    known = sensor(declared.sensor) if declared.sensor else naming.sensor_of(names, files)
    _refuse_strangers(names, known)
    grid = min((f.grid for f in files), key=lambda g: (pixel_size_m(g) or 1.0, -g.shape[0] * g.shape[1]))
    places = [(f, k) for f in files for k in range(len(f.indexes))]
    layer = Layer(
        name=name, sensor=known, bands=tuple(names), unit="", grid=grid,
        sources=tuple(
            BandSource(f.path, f.indexes[k], f.nodata[k] if declared.nodata is None else declared.nodata) for f, k in places
        ),
        acquired=declared.acquired or next((a for f in files if (a := naming.acquired(f))), None),
        orbit=next((o for f in files if (o := naming.orbit(f))), None),
        reasons=reasons | {"sensor": "declared" if declared.sensor else "band and file names"},
    )  # fmt: skip
    layer = _with_samples(layer)
    return _with_sar_unit(layer, files, declared) if known.is_sar else _with_optical_unit(layer, files, declared)


def _joined(images: Sequence[Layer]) -> Layer:
    """One layer of several images of a date: the grid of the finest over all of them, and the bands in the first one's order."""
    first, seen = images[0], [i for i in images if np.isfinite(i.sampled).any()]
    unit = (seen or [first])[0].unit
    if {i.sensor.name for i in images} != {first.sensor.name} or not ({i.unit for i in images} <= {unit} | set(SAR_UNITS)):
        said = "; ".join(f"{i.sources[0].path.name} is {i.sensor.name} in {i.unit}" for i in images)
        raise BandError(f"the images of {first.name} are not of one kind: {said}", repair="give one kind", code="mosaic-mixed")
    images = [_with_scene_class_fill(i) for i in images]
    sampled = [
        (i.sampled if i.unit == unit else convert(i.sampled, i.unit, unit))[[i.bands.index(b) for b in first.bands]]
        for i in images
    ]
    said = f"of {len(images)} images; where they overlap the one given first wins"
    return replace(
        images[0], grid=mosaic.union([i.grid for i in images]), unit=unit, sampled=np.concatenate(sampled, axis=1),
        reasons={**{k: v for i in reversed(images) for k, v in i.reasons.items()}, "mosaic": said}, beneath=tuple(images[1:]),
    )  # fmt: skip


def _with_scene_class_fill(image: Layer) -> Layer:
    # Scene class 0 is no data, which no tag says; as a code it would keep the next image from filling it.
    zero = {k for k, b in enumerate(image.bands) if b == "SCL"}
    sources = (replace(s, nodata=0.0) if k in zero and s.nodata is None else s for k, s in enumerate(image.sources))
    return replace(image, sources=tuple(sources))


def _names(name: str, files: Sequence[raster.Facts], declared: Declared) -> tuple[list[tuple[str, ...]], str]:
    """The bands of each file, and what says so."""
    counts = [len(f.indexes) for f in files]
    if declared.bands:
        return _declared_names(name, counts, declared.bands), "declared"
    if set(counts) == {1} and name in _SINGLE_BAND:
        return [(_SINGLE_BAND[name],)] * len(files), "layer"
    found = [naming.band_names(f) for f in files]
    for f, (bands, _) in zip(files, found, strict=True):
        if not bands:
            raise BandError(
                f"nothing in {f.path.name} says what its {len(f.indexes)} bands are",
                repair="declare them in file order, for example --bands VV,VH or --bands red,green,blue,nir",
                code="bands-unknown",
            )
    return [bands for bands, _ in found], found[0][1]


def _declared_names(name: str, counts: Sequence[int], bands: Sequence[str]) -> list[tuple[str, ...]]:
    if not fits(bands, counts):
        raise UsageError(
            f"{len(bands)} bands are declared for {name} and its files hold {sum(counts)}",
            repair=f"name all {sum(counts)} in file order, for example --bands VV,VH",
        )
    if len(bands) != sum(counts):
        return [tuple(bands)] * len(counts)
    ends = np.cumsum(counts).tolist()
    return [tuple(bands[end - count : end]) for end, count in zip(ends, counts, strict=True)]


_SINGLE_BAND = {"dem": "elevation", "reference_water": "mask", "low_sensitivity": "mask"}


def _refuse_strangers(names: Sequence[str], known: Sensor) -> None:
    strangers = [n for n in names if known.band(n) is None]
    if strangers:
        raise BandError(
            f"{known.name} has no band {', '.join(strangers)}; it has {', '.join(b.name for b in known.bands)}",
            repair="correct --bands or --sensor",
            code="bands-unknown",
        )


def _with_samples(layer: Layer) -> Layer:
    """Sampled values, and nodata that no tag declares: a suspect value that fills a corner."""
    measured = {s.path: [t.index for t in layer.sources if t.path == s.path] for s in layer.sources}
    cubes = [_sample(s.path, s.index, measured[s.path]) for s in layer.sources]
    reasons, sources = dict(layer.reasons), layer.sources
    if layer.name not in _SINGLE_BAND:
        sources, words = _undeclared_nodata(layer, cubes)
        reasons |= {"nodata": words} if words else {}
    flat = [
        np.where(c == s.nodata, np.nan, c).ravel() if s.nodata is not None else c.ravel()
        for c, s in zip(cubes, sources, strict=True)
    ]
    longest = max(len(f) for f in flat)
    sampled = np.stack([np.pad(f, (0, longest - len(f)), constant_values=np.nan) for f in flat]).astype(np.float32)
    return replace(layer, sources=sources, reasons=reasons, sampled=sampled)


def _undeclared_nodata(layer: Layer, cubes: Sequence[npt.NDArray[np.float64]]) -> tuple[tuple[BandSource, ...], str]:
    found: dict[int, float] = {}
    for k, (source, cube) in enumerate(zip(layer.sources, cubes, strict=True)):
        if source.nodata is None:
            sentinel = next((v for v in _NODATA_SENTINELS if _fills_a_corner(cube[None], v)), None)
            found |= {} if sentinel is None else {k: sentinel}
    if not found and all(s.nodata is None for s in layer.sources) and len({c.shape for c in cubes}) == 1:
        value = next((v for v in _NODATA_SUSPECTS if _fills_a_corner(np.stack(cubes), v)), None)
        found = {} if value is None else dict.fromkeys(range(len(cubes)), value)
    if not found:
        return layer.sources, ""
    bands = "every band" if len(found) == len(cubes) else f"band {', '.join(layer.bands[k] for k in found)}"
    value = next(iter(found.values()))
    sources = tuple(replace(s, nodata=found.get(k, s.nodata)) for k, s in enumerate(layer.sources))
    return sources, f"{value:g} fills a corner in {bands} and is taken as not observed"


def _sample(path: Path, index: int, measured: Sequence[int]) -> npt.NDArray[np.float64]:
    """Values (window, y, x) of a lattice of windows that reaches into every corner."""
    return raster.sample(path, index, lattice(raster.size_of(path), SAMPLE_PX, SAMPLE_SIDE), measured=measured)


def _fills_a_corner(stack: npt.NDArray[np.float64], value: float, patch: int = 8) -> bool:
    side = round(stack.shape[1] ** 0.5) or 1
    first, last = slice(None, patch), slice(-patch, None)
    corners = ((0, first, first), (side - 1, first, last), (-side, last, first), (-1, last, last))
    alike = bool(np.all(stack == value))
    return not alike and any(np.all(stack[:, w, ys, xs] == value) for w, ys, xs in corners)


def _with_sar_unit(layer: Layer, files: Sequence[raster.Facts], declared: Declared) -> Layer:
    unit, reason = (declared.unit, "declared") if declared.unit else naming.stated_unit(files[0])
    values = layer.sampled[np.isfinite(layer.sampled)]
    if not unit and files[0].dtype == "uint8":
        unit, reason = "digital_number", "8-bit values are a picture, not backscatter"
    if not unit:
        unit, reason = _unit_in_values(values, layer)
    _refuse_impossible(unit, values, layer)
    return replace(layer, unit=unit, reasons={**layer.reasons, "unit": reason})


def _unit_in_values(values: npt.NDArray[np.float32], layer: Layer) -> tuple[str, str]:
    """The unit only one reading allows: values below zero are dB; small positive ones are power if that gives a land-like dB."""
    if values.size == 0:
        return "dB", "no pixel is observed"
    if np.median(values) < 0:
        return "dB", "values below zero"
    as_db = 10 * np.log10(max(float(np.median(values)), 1e-10))
    if values.min() >= 0 and -35 < as_db < -5:
        return "power", f"assumed: values are positive and as linear power their median is {as_db:.1f} dB"
    raise BandError(
        f"the unit of {layer.name} is not stated and its values (median {np.median(values):.3g}) do not tell",
        repair="declare it with --unit dB, power or amplitude; calibrate digital numbers to gamma0 or sigma0 first",
        code="unit-unknown",
    )


def _refuse_impossible(unit: str, values: npt.NDArray[np.float32], layer: Layer) -> None:
    if unit not in UNITS:
        raise UsageError(f"{unit!r} is no unit", repair=f"known: {', '.join(UNITS)}")
    if values.size == 0 or unit not in SAR_UNITS:
        return
    low, middle = float(values.min()), float(np.median(values))
    if unit in ("power", "amplitude") and low < 0:
        wrong = f"{unit} cannot be below zero and values reach {low:.3g}"
    elif unit == "dB" and (low >= 0 or middle > 10):
        wrong = f"no land is that bright: values start at {low:.3g} and their median is {middle:.3g} dB"
    elif unit == "dB" and low < _LEAST_DB:
        wrong = f"{low:g} dB is no backscatter but a mark of pixels that were not observed; declare it with --nodata"
    elif unit in ("power", "amplitude") and middle > 10:
        wrong = f"a median {unit} of {middle:.3g} is brighter than any land: these are uncalibrated digital numbers"
    else:
        return
    raise BandError(
        f"the unit of {layer.name} cannot be {unit}: {wrong}",
        repair="declare the true unit with --unit, or calibrate to gamma0 or sigma0 first",
        code="unit-impossible",
    )


def _with_optical_unit(layer: Layer, files: Sequence[raster.Facts], declared: Declared) -> Layer:
    native = sorted({b.unit for n in layer.bands if (b := layer.sensor.band(n)) and b.unit != "class"}, key=UNITS.index)
    if native != ["reflectance"]:
        return replace(layer, unit=declared.unit or next(iter(native), "class"), reasons={**layer.reasons, "unit": "sensor"})
    values = layer.sampled[[n not in _class_bands(layer) for n in layer.bands]]
    values = values[np.isfinite(values)]
    stored_whole = values.size > 0 and float(np.percentile(values, 90)) > 2
    if declared.unit or files[0].dtype == "uint8":
        unit = declared.unit or "digital_number"
        reason = "declared" if declared.unit else "8-bit values carry no calibration"
    else:
        unit, reason = "reflectance", "stored numbers scaled" if stored_whole else "values"
    _refuse_impossible(unit, values, layer)
    layer = replace(layer, unit=unit, reasons={**layer.reasons, "unit": reason})
    return _scaled(layer, files, values) if unit == "reflectance" and stored_whole else layer


def _scaled(layer: Layer, files: Sequence[raster.Facts], values: npt.NDArray[np.float32]) -> Layer:
    scale, offset, reasons = layer.sensor.scale, layer.sensor.offset, dict(layer.reasons)
    if layer.sensor.name.startswith("sentinel-2"):
        baseline = next((b for f in files if (b := naming.s2_baseline(f)) is not None), None)
        added = next((a for f in files if (a := naming.s2_added(f)) is not None), None)
        if added is not None:
            offset, reasons["offset"] = added * scale, f"{added:g}: the file says so"
        else:
            offset, reasons["offset"] = _s2_offset(baseline, float(np.percentile(values, 1)), layer.acquired)
    reasons["scale"] = f"reflectance = stored * {scale:g} + {offset:g}"
    classes = _class_bands(layer)
    return replace(
        layer,
        reasons=reasons,
        sources=tuple(
            s if n in classes else replace(s, scale=scale, offset=offset) for n, s in zip(layer.bands, layer.sources, strict=True)
        ),
    )


def _class_bands(layer: Layer) -> set[str]:
    return {n for n in layer.bands if (band := layer.sensor.band(n)) and band.unit == "class"}


def _s2_offset(baseline: float | None, darkest: float, acquired: str | None) -> tuple[float, str]:
    """The -1000 of baseline 04.00 and later, unless dark pixels prove that it has been subtracted already."""
    if baseline is not None and baseline < 4:
        return 0.0, f"none: baseline {baseline:05.2f}"
    if darkest < 900:
        return 0.0, "none: numbers below 1000 show that it is not there or already subtracted"
    if baseline is not None:
        return S2_OFFSET, f"-1000: baseline {baseline:05.2f}"
    if acquired and acquired < "2022-01-25":
        return 0.0, "none: acquired before 25 January 2022"
    return 0.0, "unknown: the processing baseline is not stated and no dark pixel tells; none subtracted"
