"""A delivered map made again from its run.json, whole or some windows of it, and compared."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from aftermap import deliver, journal, raster
from aftermap.asking import asked as asked_for
from aftermap.deliver import Job, Options
from aftermap.errors import InputRefusedError
from aftermap.hazardmap import HazardMap
from aftermap.layer import Declared
from aftermap.parts import PLANES, Parts, part_name
from aftermap.predict import THREADS, mapped
from aftermap.predict import Job as Unit
from aftermap.relief import with_relief
from aftermap.scene import Scene, open_scene
from aftermap.tiles import Window
from aftermap.witness import Witness

_BESIDE = ("aoi", "assets", "footprints")
"""What is given beside the layers of a scene."""


@dataclass(frozen=True)
class Compared:
    """Of windows made again: how many pixels of each plane differ, and how many the minimum mapping unit took."""

    windows: tuple[Window, ...]
    pixels: int
    differ: Mapping[str, int]
    unit_px: int


def repeat(out: Path, again: Path, inputs: Sequence[Path] = ()) -> list[str]:
    """Makes the map anew into another folder; names of products whose bytes differ. `inputs` are folders to look for its files
    in, beside those of its log.json. Raises InputRefusedError ("not-repeatable") where one is missing, or a catalog was asked."""
    job = _job(out, again, inputs)
    job.run(0.0)
    names = sorted({p.relative_to(folder) for folder in (out, again) for p in _products(folder)})
    return [str(name) for name in names if not _same(out / name, again / name)]


def sample(out: Path, count: int, rng: np.random.Generator, inputs: Sequence[Path] = ()) -> Compared:
    """Makes some windows anew and compares them with the delivered rasters. Raises as `repeat`.

    Likelihood, agreement and exclusion have to be the same; so has the extent, but where the minimum mapping unit has left a
    patch out, which only the whole map tells.
    """
    with tempfile.TemporaryDirectory(prefix="aftermap-sample-") as scratch:
        job = _job(out, Path(scratch), inputs)
        chosen, _, facts = job.settled()
        key = journal.digest(facts)
        if key != HazardMap(out).made_by["key"]:
            what = f"{out} was made from other inputs, models or versions than are here"
            raise InputRefusedError(what, repair=_unlike(facts, HazardMap(out).made_by), code="not-repeatable")
        plan, _, _, exclusions = job.planned(chosen, THREADS)
        with journal.Journal(Path(scratch), key) as log:
            log.open(overwrite=True)
            blocks = plan.blocks(job.scene.shape)
            picked = sorted(rng.permutation(len(blocks))[:count].tolist())
            names = {block: part_name(block, key) for block in blocks}
            unit = Unit(job.scene, plan, exclusions, log.work, names)
            windows = [blocks[k] for k in picked]
            for made in mapped(unit, windows):
                log.note(made)
            return _compared(HazardMap(out), Parts(log, names), windows)


def _compared(found: HazardMap, parts: Parts, windows: Sequence[Window]) -> Compared:
    differ, taken, pixels = dict.fromkeys(PLANES, 0), 0, 0
    there = [name for name in PLANES if (found.folder / f"{name}.tif").exists()]
    for window in windows:
        planes = dict(zip(PLANES, parts.planes(window, *PLANES), strict=True))
        pixels += window.height * window.width
        for name in there:
            (now,) = raster.read_window(found.folder / f"{name}.tif", window)
            unlike = planes[name] != now
            if name == "extent":
                dropped = unlike & (planes[name] == 1) & (now == 0)
                taken += int(dropped.sum())
                unlike &= ~dropped
            differ[name] += int(unlike.sum())
    return Compared(tuple(windows), pixels, {name: differ[name] for name in there}, taken)


def scene(out: Path, inputs: Sequence[Path] = ()) -> Scene:
    """What a delivered map was made from, as it was read. `inputs` and errors as of `repeat`."""
    return _read(out, inputs).scene


def files(out: Path) -> dict[str, list[Path]]:
    """The files that a delivered map was made from, by layer and by what else was given, found as `scene` finds them."""
    return _files(_asked(out), _found(out, ()))


def _asked(out: Path) -> Mapping[str, Any]:
    said: Mapping[str, Any] | None = HazardMap(out).made_by.get("asked")
    if not said:
        what = f"{out} does not say what it was asked for: it is of a catalog, or of an older version"
        raise InputRefusedError(what, repair="run the command that made it again", code="not-repeatable")
    return said


def _files(said: Mapping[str, Any], found: _Found) -> dict[str, list[Path]]:
    return {layer: [found(name) for name in names] for layer, names in said["files"].items()}


def _found(out: Path, inputs: Sequence[Path]) -> _Found:
    return _Found(HazardMap(out).made_by, [*inputs, *_folders(out), Path()])


@dataclass(frozen=True)
class _Read:
    """What a map was asked for, its files found again."""

    scene: Scene
    files: Mapping[str, list[Path]]
    """By layer, and by what else was given: aoi, assets, footprints."""
    declared: Mapping[str, Declared]
    options: Options
    name: str
    witness: Witness


def _read(out: Path, inputs: Sequence[Path]) -> _Read:
    said, found = _asked(out), _found(out, inputs)
    files = _files(said, found)
    options, layers = _options(said["options"], found), {k: v for k, v in files.items() if k not in _BESIDE}
    declared = {layer: Declared(**_tuples(one)) for layer, one in said["declared"].items()}
    aoi = next(iter(files.get("aoi", ())), None)
    witness = Witness.of(chain(*layers.values()), chain(*(files.get(k, ()) for k in _BESIDE)))
    read = open_scene(layers, hazard=found.run["hazard"], declared=declared, area_of_interest=aoi, name=said["name"])
    read = with_relief(deliver.coregistered(read) if options.coregister else read, gsd_m=options.gsd_m)
    return _Read(read, files, declared, options, said["name"], witness)


def _job(out: Path, again: Path, inputs: Sequence[Path]) -> Job:
    read = _read(out, inputs)
    assets, footprints = (next(iter(read.files.get(name, ())), None) for name in ("assets", "footprints"))
    return Job(
        read.scene, HazardMap(out).made_by["parameters"]["method"], read.options, again, lambda *_: None, assets, footprints,
        asked=asked_for(read.files, read.declared, read.name, read.options), witness=read.witness,
    )  # fmt: skip


@dataclass(frozen=True)
class _Found:
    """Files of a run by name, in folders and what lies below them; of several of one name that with the recorded hash."""

    run: Mapping[str, Any]
    folders: Sequence[Path]

    def __call__(self, name: str) -> Path:
        """Raises InputRefusedError ("not-repeatable")."""
        known = {f["sha256"] for f in self._recorded() if f["name"] == name}
        near = (folder / name for folder in self.folders)
        below = (path for folder in self.folders[:-1] if folder.is_dir() for path in sorted(folder.rglob(name)))
        strange = ""
        for path in (*(p for p in near if p.exists()), *below):
            if not known or path.is_dir() or journal.sha256(path) in known:
                return path
            strange = f"; {path} is another file of that name"
        what = f"{name}, which the map was made from, is not there as it was{strange}"
        raise InputRefusedError(what, repair="say where it lies: --inputs FOLDER", code="not-repeatable")

    def _recorded(self) -> Iterator[Mapping[str, Any]]:
        for layer in self.run["inputs"].values():
            yield from layer["files"]
        for key in ("assets", "footprints"):
            yield from self.run[key]


def _options(said: Mapping[str, Any], found: _Found) -> Options:
    told = _tuples(said)
    if "model" in told:
        every = (told["model"],) if isinstance(told["model"], str) else told["model"]
        paths = tuple(_model(name, found) for name in every)
        told["model"] = paths if len(paths) > 1 else paths[0]
    return Options(**told)


def _tuples(said: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in said.items()}


def _model(name: str, found: _Found) -> str:
    """A folder of that name beside the inputs, else a model that is listed."""
    try:
        return str(found(name))
    except InputRefusedError:
        return name


def _folders(out: Path) -> list[Path]:
    """Where the files lay, as the log has it, which is no part of the map."""
    try:
        return [Path(str(one)) for one in journal.read_facts(out / "log.json").get("folders", ())]
    except InputRefusedError:
        return []


def _unlike(facts: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """The first of what determines the map that is not as it was, in words."""
    for key, now in facts.items():
        if key in run and key != "warnings" and journal.digest(run[key]) != journal.digest(now):
            inner = [k for k in now if now[k] != run[key].get(k)] if isinstance(now, dict) and isinstance(run[key], dict) else []
            return f"{'.'.join([key, *inner[:1]])} is not as it was; install and give what run.json names"
    return "install and give what run.json names"


def _products(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).parts[0] not in (journal.WORK, *journal.UNSEALED):
            yield path


def _same(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and journal.sha256(one) == journal.sha256(other)
