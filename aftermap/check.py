"""The input doctor: what is wrong with these files. Each finding has a code, what, where, and the repair.

A fault that forbids mapping is raised as InputRefusedError while the scene is opened; here stand the faults that a map can
live with, each said in the report.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from odc.geo.geobox import GeoBox

from aftermap import clouds, coregister, meridian
from aftermap.errors import InputRefusedError
from aftermap.layer import SAMPLE_PX, SAMPLE_SIDE, Layer, open_layer
from aftermap.scene import Scene
from aftermap.scorer import LayerBands
from aftermap.tiles import lattice


@dataclass(frozen=True)
class Finding:
    """One thing the doctor found; `severity` is "refuse" or "warn"."""

    code: str
    severity: str
    what: str
    where: str
    repair: str

    def facts(self) -> dict[str, str]:
        """As recorded in run.json."""
        return asdict(self)


def _warn(code: str, what: str, where: str, repair: str) -> Finding:
    return Finding(code, "warn", what, where, repair)


def examine(scene: Scene) -> list[Finding]:
    """Warnings about a scene that could be opened, in the order of its layers."""
    return [f for layer in scene.layers.values() for f in examine_layer(layer)] + list(_clouds(scene)) + list(_pair(scene))


def examine_layer(layer: Layer) -> Iterator[Finding]:
    """Warnings about one layer."""
    where = ", ".join(p.name for p in layer.paths)
    if layer.grid.crs is None:
        yield _warn(
            "no-crs", "no CRS: mapped in pixel space; areas are in pixels unless --gsd-m is given", where,
            "georeference the image (gdalwarp, where it carries ground control points)",
        )  # fmt: skip
    if "nodata" in layer.reasons:
        yield _warn("nodata-undeclared", layer.reasons["nodata"], where, "declare the value with --nodata, or set it in the file")
    if layer.sensor.is_sar and layer.unit == "digital_number":
        yield _warn("sar-8bit", "8-bit radar picture: no method that needs dB can run", where, "give calibrated backscatter")
    if layer.reasons.get("unit", "").startswith("assumed"):
        yield _warn("unit-assumed", f"unit {layer.reasons['unit']}", where, "confirm it with --unit")
    if layer.reasons.get("offset", "").startswith("unknown"):
        yield _warn(
            "s2-offset-unknown",
            f"Sentinel-2 offset {layer.reasons['offset']}",
            where,
            "subtract 1000 if the baseline is 04.00 or later",
        )
    yield from _swapped(layer, where)
    yield from _constant(layer, where)


def _swapped(layer: Layer, where: str) -> Iterator[Finding]:
    """Land and water alike send back less in cross-polarisation."""
    for co, cross in (("VV", "VH"), ("HH", "HV")):
        places = layer.index(co), layer.index(cross)
        if layer.sensor.is_sar and places[0] is not None and places[1] is not None:
            one, other = (layer.sampled[k][np.isfinite(layer.sampled[k])] for k in places)
            if one.size and other.size and np.median(other) > np.median(one):
                yield _warn("bands-swapped", f"{cross} is brighter than {co} in {layer.name}: swapped?", where, "correct --bands")


def _constant(layer: Layer, where: str) -> Iterator[Finding]:
    for band, values in zip(layer.bands, layer.sampled, strict=True):
        seen = values[np.isfinite(values)]
        if seen.size > 1 and seen.min() == seen.max() and layer.unit != "class":
            yield _warn(
                "constant-band",
                f"band {band} of {layer.name} has one value, {seen[0]:g}, wherever it was sampled",
                where,
                "check the export",
            )


def _clouds(scene: Scene) -> Iterator[Finding]:
    """Optical images that come without a cloud mask, and how much of them a spectral test takes for cloud."""
    for layer in (*scene.images("after"), *scene.images("before")):
        if clouds.class_band(layer) is not None or not (bands := clouds.testable(layer)):
            continue
        wanted = LayerBands(layer.name, bands, "reflectance")
        cubes = [scene.read(wanted, window).reshape(len(bands), -1) for window in lattice(scene.shape, SAMPLE_PX, SAMPLE_SIDE)]
        pixels = np.concatenate(cubes, axis=1)  # (band, n)
        seen = np.isfinite(pixels).all(axis=0)
        share = 100 * float(clouds.spectral(dict(zip(bands, pixels[:, seen], strict=True))).mean()) if seen.any() else 0.0
        yield _warn(
            "cloud-mask-missing",
            f"{layer.name} has no cloud mask, and no cloud is excluded; "
            f"a spectral test, right on 3 of 4 pixels, finds {share:.1f} %",
            ", ".join(p.name for p in layer.paths),
            f"give one of the bands {', '.join(clouds.CLASS_BANDS)} with the image",
        )


def _pair(scene: Scene) -> Iterator[Finding]:
    grid = scene.grid
    for layer in scene.layers.values():
        if grid.crs is not None and not _covers(layer.grid, grid):
            where = layer.sources[0].path.name
            yield _warn("part-covered", f"{layer.name} covers only part of after", where, "give images that cover it")
    for name in ("after", "before"):
        yield from _beside(scene, name)
    for after, before in scene.pairs():
        yield from _dates(scene, after, before)
        yield from _shifted(scene, after, before)


def _beside(scene: Scene, name: str) -> Iterator[Finding]:
    """Radar and optical images of one date that are not of one day."""
    days = {layer.name: layer.acquired[:10] for layer in scene.images(name) if layer.acquired}
    if len(set(days.values())) > 1:
        words = f"the images {name} are of different days: {', '.join(f'{k} of {day}' for k, day in days.items())}"
        yield _warn("beside-dates", words, scene.name, "prefer images of one day; what moved between them is averaged")


def _dates(scene: Scene, after: Layer, before: Layer) -> Iterator[Finding]:
    """Two dates that are swapped, the same, or seen from two sides."""
    if after.acquired and before.acquired and after.acquired[:10] < before.acquired[:10]:
        yield _warn(
            "dates-reversed",
            f"{before.name} ({before.acquired}) is later than {after.name} ({after.acquired})",
            scene.name,
            "swap --before and --after",
        )
    if after.paths == before.paths:
        yield _warn("same-image", f"{before.name} and {after.name} are the same file", scene.name, "give two dates")
    if after.orbit and before.orbit and after.orbit != before.orbit:
        yield _warn(
            "orbit-differs",
            f"{before.name} is from {'an' if before.orbit[0] == 'a' else 'a'} {before.orbit} orbit and {after.name} from "
            f"{'an' if after.orbit[0] == 'a' else 'a'} {after.orbit} one: slopes look different", scene.name,
            "give a pair of one orbit direction; trust changes on slopes less",
        )  # fmt: skip


def _covers(own: GeoBox, grid: GeoBox) -> bool:
    """True where a layer's own grid reaches everywhere on another; parts that meet at the antimeridian are one."""
    return bool(meridian.footprint(own, grid).geom.buffer(1e-9).covers(grid.extent.geom))


def _shifted(scene: Scene, after: Layer, before: Layer) -> Iterator[Finding]:
    """Before and after that do not lie on each other."""
    shift = coregister.shift_of(scene, after, before)
    if shift is not None and shift.length > coregister.TELLING_PX:
        repair = "give --coregister to take the shift out" if scene.grid.crs is not None else "align the images first"
        words = f"{before.name} lies {shift.dx:+.2f} px right of and {shift.dy:+.2f} px below {after.name}"
        yield _warn("pair-shifted", f"{words} (median of {shift.clear} of {shift.windows} windows)", scene.name, repair)


def examine_files(paths: Sequence[Path]) -> tuple[list[Finding], list[str]]:
    """Findings on files one by one, refusals included, and what was understood of each, in words; for `aftermap check`."""
    found: list[Finding] = []
    understood: list[str] = []
    for path in paths:
        try:
            layer = open_layer("after", [path])
            found.extend(examine_layer(layer))
            crs = f"EPSG:{layer.grid.crs.to_epsg()}" if layer.grid.crs is not None else "no CRS"
            bands, date = " ".join(layer.bands), layer.acquired or "date not stated"
            understood.append(f"{path.name}: {layer.sensor.name}, {bands}, {layer.unit} ({layer.reasons['unit']}), {date}, {crs}")
        except InputRefusedError as error:
            found.append(Finding(error.code, "refuse", error.what, path.name, error.repair))
    return found, understood
