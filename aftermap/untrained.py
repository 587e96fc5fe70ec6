"""The map without training, of samples: each is written out as images and mapped by the methods that `aftermap map` would take.

So that a network is compared with what a responder has without it, on the same pixels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from odc.geo.geobox import GeoBox

from aftermap import choice, raster
from aftermap.chips import F32, Chip
from aftermap.errors import AftermapError, BandError
from aftermap.layer import Declared
from aftermap.normalise import units
from aftermap.scene import Scene, open_scene
from aftermap.scorer import Scorer
from aftermap.seamless import Tiling, score_window
from aftermap.sensors import POLARISATIONS
from aftermap.tiles import Window


@dataclass
class Untrained:
    """A callable that gives the scores (y, x) of a chip; it remembers which methods made them, and what they refused."""

    hazard: str
    made_by: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)

    def __call__(self, chip: Chip) -> F32:
        """NaN where nothing was analysed; a chip that no method takes is NaN all over, and in `refused` with the reason."""
        with tempfile.TemporaryDirectory(prefix="aftermap-chip-") as folder:
            try:
                scene = scene_of(chip, self.hazard, Path(folder))
                scorers, combined = _chosen(scene)
            except AftermapError as error:
                self.refused[chip.name] = str(error)
                return np.full(chip.shape, np.nan, np.float32)
            self.made_by.add(" + ".join(combined))
            each = [scores_of(scene, scorers[name]) for name in combined]
        seen = np.isfinite(each)
        mean = np.where(seen, each, 0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
        return np.where(seen.any(axis=0), mean, np.nan).astype(np.float32)


def _chosen(scene: Scene) -> tuple[dict[str, Scorer], tuple[str, ...]]:
    """Every method without training that can run, prepared, and which of them make the map."""
    chosen = choice.choose(scene, "auto", bundled=False)
    scorers = {name: method.prepare(scene) for name, method in chosen.methods.items()}
    return scorers, choice.make(scene, scorers, chosen).combined


def scores_of(scene: Scene, scorer: Scorer) -> F32:
    """Scores (y, x) of the class a scorer leads with, of a scene small enough to be read whole."""
    whole = Window(0, 0, *scene.shape)
    pixels = np.concatenate([scene.read(i, whole) for i in scorer.inputs])
    found: F32 = score_window(scorer, lambda w: pixels[(..., *w.slices)], whole, scene.shape, Tiling.of(scorer))[0]
    return found


def scene_of(chip: Chip, hazard: str, folder: Path) -> Scene:
    """The images of a chip as files, a file per date and kind, on a grid of plain pixels; each opened as what it is."""
    paths: dict[str, list[Path]] = {}
    declared: dict[str, Declared] = {}
    named = [band.rpartition(".") for band in chip.bands]
    for layer in dict.fromkeys(layer or "after" for layer, _, _ in named):
        own = [k for k, (other, _, _) in enumerate(named) if (other or "after") == layer]
        bands = tuple(named[k][2] for k in own)
        radar = [b in POLARISATIONS for b in bands]
        for kind in sorted(set(radar)):
            held = [k for k, one in zip(own, radar, strict=True) if one == kind]
            path = folder / f"{layer}-{'radar' if kind else 'optical'}.tif"
            unit = units(chip)[held[0]]
            _write(path, chip.pixels[held], [named[k][2] for k in held], unit)
            paths.setdefault(layer, []).append(path)
        known = "" if len(set(radar)) > 1 else _sensor(bands)
        declared[layer] = Declared(bands=() if len(set(radar)) > 1 else bands, sensor=known)
    if "after" not in paths:
        what = f"{chip.name} has no image after an event, but {', '.join(paths)}"
        raise BandError(what, repair="maps without training need one", code="band-missing")
    return open_scene(paths, hazard=hazard, declared=declared, name=chip.name)


def _sensor(bands: Sequence[str]) -> str:
    """What images of these bands are opened as: no sensor in particular."""
    if set(bands) <= set(POLARISATIONS):
        return "sentinel-1"
    return {("grey",): "modis-grey", ("red", "green", "blue"): "vhr-rgb"}.get(tuple(bands), "optical")


def _write(path: Path, pixels: F32, bands: Sequence[str], unit: str) -> None:
    """Numbers without a unit as the whole numbers that they were, with 0 where not observed."""
    seen, tag = np.isfinite(pixels), "" if unit == "digital_number" else unit
    known = np.where(seen, pixels, 0)
    whole = not tag and bool((known == np.rint(known)).all()) and float(known.min()) >= 0 and float(known.max()) <= 65535
    kind = ("uint8" if known.max() <= 255 else "uint16") if whole else "float32"
    nodata = float("nan") if not whole else None if seen.all() else 0.0
    grid = GeoBox(pixels.shape[1:], raster.PIXEL_SPACE, None)
    with raster.Writer(path, grid, dtype=kind, descriptions=bands, nodata=nodata, unit=tag) as out:
        out.write((known if whole else pixels).astype(kind), Window(0, 0, *pixels.shape[1:]))
