"""The verb `explain`: what a vision transformer looks at in a scene, as rasters, and how like a reference that is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import sobel

from aftermap import check, journal, mishaps, normalise, provenance
from aftermap.attended import Look, Seen
from aftermap.attention import Onlooker, one_thread, open_onlooker
from aftermap.clusters import MOST, Groups, fit
from aftermap.errors import InputRefusedError, UsageError
from aftermap.layer import Declared
from aftermap.likened import Beside, Ledger
from aftermap.products.overlays import Overlays, enlarged
from aftermap.reference import Reference, open_reference
from aftermap.scene import Scene, open_scene
from aftermap.tiles import Window, spread
from aftermap.witness import Witness

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
I16 = npt.NDArray[np.int16]
U8 = npt.NDArray[np.uint8]
RECORD = "explain.json"
"""Delivered last: where it is, the others are whole."""
FITTED, PLACES, FEW = 20_000, 24, 4
"""Tokens that clusters are fitted on, at most, and the squares over the scene that they come from; all of it in a few blocks."""
OVERLAYS = ("attention.tif", "clusters.tif", "mask.tif")
_STAGE = ".explain"
_LIBRARIES = ("numpy", "scipy", "rasterio", "torch", "timm")


@dataclass(frozen=True)
class Options:
    """How to explain; all but `overwrite` is in explain.json."""

    clusters: int = 11
    """Groups of tokens, at most."""
    mass: float | None = None
    """Share of attention that mask.tif keeps, the most looked at first; None for no mask.tif."""
    seed: int = 0
    """Of the clusters."""
    reference_band: int = 1
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.mass is not None and not 0 < self.mass < 1:
            raise UsageError(f"--mass is {self.mass:g}", repair="give a share between 0 and 1, such as 0.6")
        if not 2 <= self.clusters <= MOST:
            raise UsageError(f"--clusters is {self.clusters}", repair=f"give 2 to {MOST}")


def explain(
    model: Path,
    after: Sequence[Path],
    before: Sequence[Path] = (),
    *,
    out: Path,
    reference: Path | None = None,
    declared: Mapping[str, Declared] | None = None,
    name: str = "",
    options: Options | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """The record, explain.json in `out`, beside attention.tif, clusters.tif and, with options.mass, mask.tif.

    Returns at once where `out` holds this very job. Raises UsageError ("model-attention", "other-run"), InputRefusedError, and
    as mishaps.told.
    """
    onlooker = open_onlooker(model)
    scene = open_scene({"after": after, "before": before}, hazard=onlooker.card.hazard, declared=declared, name=name)
    if why := onlooker.card.why_not(scene):
        what, repair = f"the model {model} cannot look at these images: {why}", "give the images that it was made for"
        raise InputRefusedError(what, repair=repair, code="model-input")
    known = open_reference(reference, scene.grid, band=(options or Options()).reference_band) if reference else None
    job = _Job(scene, onlooker, known, options or Options(), out, progress or (lambda *_: None))
    with mishaps.told(out, kept="nothing was written"):
        return job.run()


@dataclass(frozen=True)
class _Job:
    """One explanation: what determines it, and the steps."""

    scene: Scene
    onlooker: Onlooker
    reference: Reference | None
    options: Options
    out: Path
    progress: Callable[[str, int, int], None]

    def run(self) -> dict[str, Any]:
        """Explains, or finds it already done."""
        facts = self._facts()
        key = journal.digest(facts)
        if (found := _delivered(self.out, key, self.options.overwrite)) is not None:
            return found
        stage = self.out / _STAGE
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir(parents=True)
        with one_thread():
            made, outcome = self._make(stage)
        record = {"key": key, **facts, **outcome, "files": {path.name: journal.sha256(path) for path in made}}
        journal.write_json(stage / RECORD, record)
        for path in (*made, stage / RECORD):
            os.replace(path, self.out / path.name)
        shutil.rmtree(stage)
        return record

    def _facts(self) -> dict[str, Any]:
        """What determines every pixel and number."""
        card, spec, grid = self.onlooker.card, self.onlooker.model.spec, self.scene.grid
        return {
            "aftermap": version("aftermap"), "name": self.scene.name,
            "model": {
                "name": card.name, "sha256": self.onlooker.sha256, "encoder": spec.encoder, "decoder": spec.decoder,
                "fusion": spec.fusion, "reads": card.reads, "training_data": card.training_data, "licence": card.licence,
            },
            "inputs": provenance.inputs(self.scene, Witness()),
            "grid": {
                "crs": None if grid.crs is None else (f"EPSG:{e}" if (e := grid.crs.to_epsg()) else grid.crs.to_wkt()),
                "shape": list(self.scene.shape), "transform": list(grid.affine)[:6],
            },
            "reference": {"files": provenance.files_of(self.reference.path, Witness()), "codes": list(self.reference.codes)}
            if self.reference else None,
            "settings": {k: v for k, v in asdict(self.options).items() if k != "overwrite"}
            | {"square_px": self.onlooker.side, "patch_px": self.onlooker.patch, "heads": self.onlooker.heads},
            "scaled": "attention of each square over its mean over the patches that were seen: 1 is as much as at any",
            "warnings": [finding.facts() for finding in check.examine(self.scene)],
            "versions": {library: version(library) for library in _LIBRARIES},
        }  # fmt: skip

    def _make(self, stage: Path) -> tuple[list[Path], dict[str, Any]]:
        look, bands = self._look, [f"{i.layer} {b}" for i in self.onlooker.card.inputs for b in i.bands]
        groups = self._groups(look)
        overlays = Overlays(self.scene.grid, stage, heads=self.onlooker.heads, groups=len(groups.centres), mass=self.options.mass)
        classes = self.reference.names if self.reference else ()
        ledger = Ledger(look.patches, look.side, self.onlooker.width, self.onlooker.heads, bands, classes)
        windows = look.windows()
        for n, seen in enumerate(look.over(windows)):
            codes, window = _coded(seen, groups), look.pixels(seen.window)
            around = window.pad(1, self.scene.shape)  # edges look a pixel beyond
            pixels, own = self._read(around), window.within(around).slices
            self._write(overlays, seen, codes, self.onlooker.seen(pixels[:, *own]), window)
            if self.reference is not None:
                ledger.add(seen, codes, self._beside(seen, pixels, own, self.reference.read(window)))
            self.progress("look", n + 1, len(windows))
        likeness = ledger.facts(self.options.clusters, self.options.seed) if self.reference else None
        return overlays.finish(), {"clusters": len(groups.centres), "likeness": likeness}

    @cached_property
    def _look(self) -> Look:
        card, onlooker = self.onlooker.card, self.onlooker
        if card.normalise != "all":  # pixels at the scene's own level
            own = normalise.of_scene(self.scene, card.inputs)
            mean, std = (np.asarray(k, np.float32)[:, None, None] for k in (own.mean, own.std))
            onlooker = replace(onlooker, mean=mean, std=std)
        return Look(onlooker, self.scene.shape, self._read, self.options.mass or 0.5)

    def _read(self, window: Window) -> F32:
        return np.concatenate([self.scene.read(one, window) for one in self.onlooker.card.inputs])

    def _groups(self, look: Look) -> Groups:
        """Clusters of tokens of squares spread over the scene."""
        rng = np.random.default_rng(self.options.seed)
        windows, found = look.windows(), []
        if len(windows) > FEW:
            windows = spread(look.patches, look.side, PLACES)
        for n, seen in enumerate(look.over(windows)):
            tokens = seen.tokens[:, seen.there].T
            found.append(tokens[np.sort(rng.permutation(len(tokens))[: FITTED // len(windows)])])
            self.progress("clusters", n + 1, len(windows))
        tokens = np.ascontiguousarray(np.concatenate(found))
        if not len(tokens):
            what = f"no pixel of {self.scene.name} has all of {self.onlooker.card.reads}"
            raise InputRefusedError(what, repair="give an image that shows ground", code="no-pixels")
        return fit(tokens, self.options.clusters, rng)

    def _write(self, overlays: Overlays, seen: Seen, codes: U8, observed: Bool, window: Window) -> None:
        attention = np.concatenate([seen.attention, seen.attention.mean(axis=0, keepdims=True)])
        planes = {"attention": attention, "clusters": codes[None], "mask": seen.kept.astype(np.uint8)}
        there = observed & enlarged(seen.there[None], self.onlooker.patch, observed.shape)[0]
        overlays.write(planes, there, window, self.onlooker.patch)

    def _beside(self, seen: Seen, pixels: F32, own: tuple[slice, slice], codes: I16) -> Beside:
        """The block by patch; pixels (band, y, x) reach around it, `own` is its part of them."""
        edges = np.stack([np.hypot(sobel(band, axis=0), sobel(band, axis=1)) for band in pixels])
        observed, patch = self.onlooker.seen(pixels[:, *own]), self.onlooker.patch
        assert self.reference is not None
        classes = np.stack([(codes == k) & observed for k in range(len(self.reference.codes))])
        shape = seen.there.shape
        counts = _by_patch(classes.astype(np.float32), patch, shape)[0]
        bands, fringes = (_mean(plane[:, *own], patch, shape) for plane in (pixels, edges))
        return Beside(bands, fringes, np.rint(counts).astype(np.int64))


def _coded(seen: Seen, groups: Groups) -> U8:
    """Cluster of each patch (row, col); 255 where nothing was seen."""
    codes = np.full(seen.there.shape, 255, np.uint8)
    if seen.there.any():
        codes[seen.there] = groups.of(np.ascontiguousarray(seen.tokens[:, seen.there].T))
    return codes


def _by_patch(planes: F32, patch: int, shape: tuple[int, ...]) -> tuple[F64, F64]:
    """Sums and numbers (plane, row, col) of what is finite of pixels (plane, y, x)."""
    beyond = [(0, 0), *((0, n * patch - own) for n, own in zip(shape, planes.shape[1:], strict=True))]
    whole = np.pad(planes, beyond, constant_values=np.nan).reshape(len(planes), shape[0], patch, shape[1], patch)
    return np.nansum(whole, axis=(2, 4), dtype=np.float64), np.isfinite(whole).sum(axis=(2, 4)).astype(np.float64)


def _mean(planes: F32, patch: int, shape: tuple[int, ...]) -> F32:
    """Mean (plane, row, col) of what is finite of pixels (plane, y, x); NaN where nothing is."""
    total, count = _by_patch(planes, patch, shape)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _delivered(out: Path, key: str, overwrite: bool) -> dict[str, Any] | None:
    """The record of this very job where it lies whole in `out`. Raises UsageError ("other-run") for another job's."""
    if not (out / RECORD).is_file():
        return None
    try:
        found: dict[str, Any] = json.loads((out / RECORD).read_text(encoding="utf-8"))
        files = dict(found["files"])
    except (ValueError, KeyError, TypeError):
        found, files = {}, {}
    if found.get("key") == key and all((out / n).is_file() and journal.sha256(out / n) == h for n, h in files.items()):
        return found
    if found.get("key") != key and not overwrite:
        what = f"{out} holds another explanation: its inputs, settings or version differ"
        raise UsageError(what, repair="choose another -o, or --overwrite to replace it", code="other-run")
    for name in (RECORD, *OVERLAYS):
        (out / name).unlink(missing_ok=True)
    return None
