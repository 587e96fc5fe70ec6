"""Files of one event or several to a folder of chips: opened as scenes, windows chosen, split by blocks or at random, written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from aftermap import chipfolder, features, published
from aftermap.area import pixel_area_m2, pixel_size_m
from aftermap.chips import PRESENCE, UNKNOWN, Bands, Candidate, Chip, Codes, Cutter, Labels, balanced, random, regular
from aftermap.dealing import NOT_DRAWN, Dealing, deal
from aftermap.errors import UsageError
from aftermap.journal import sha256
from aftermap.layer import Declared
from aftermap.passes import open_passes
from aftermap.scene import Scene, open_scene
from aftermap.splits import LEAK
from aftermap.terrain import DERIVATIVES, TerrainBands, derivatives
from aftermap.tiles import Window
from aftermap.vector import is_vector

TOO_SMALL = "the image is smaller than a chip"
_COUNT = 100
_LEAST_VALID = 0.9
_ROLES = ("after", "after_pass", "before", "before_pass", "truth", "points", "dem")
_TOLD_ELSEWHERE = (*_ROLES, "bands", "unit", "classes", "shares")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Cut:
    """What to cut: the options of `aftermap chips`."""

    after: tuple[Path, ...]
    truth: Path | None = None
    before: tuple[Path, ...] = ()
    after_pass: tuple[Path, ...] = ()
    """Further passes, from the event outward; `before_pass` too."""
    before_pass: tuple[Path, ...] = ()
    dem: tuple[Path, ...] = ()
    terrain: str = ""
    """Names of terrain.DERIVATIVES, with commas; empty: all, where there is a `dem`."""
    points: Path | None = None
    """Heads or centroids of landslides; alone they tell which chips have any."""
    band: int = 1
    """Of the truth raster."""
    hazard_code: int | None = None
    classes: tuple[str, ...] = ()
    """Names of the codes of the truth from 0 on; empty: the hazard, 1, or its code."""
    size: int = 256
    how: str = "regular"
    count: int | None = None
    stride: int | None = None
    least_valid: float | None = None
    """0.9; 1 where `how` is "published"."""
    split: str = "none"
    shares: str = ""
    """As splits.read_shares has them."""
    block_px: int | None = None
    gap_px: int | None = None
    bands: str = ""
    unit: str = ""
    event: str = ""
    seed: int = 0
    unlabelled: bool = False
    """Whether neither truth nor points are wanted."""


def cut(out: Path, what: Cut, *, progress: Progress | None = None) -> dict[str, Any]:
    """Writes the chips; returns what `Dealing.told` says of them.

    Raises the errors of its readers, and UsageError for options that contradict one another.
    """
    return cut_each(out, [what], progress=progress)


def cut_each(out: Path, events: Sequence[Cut], *, title: str = "", progress: Progress | None = None) -> dict[str, Any]:
    """The same of several events, each a scene of its own; what is said besides files is that of the first for all.

    Raises UsageError where their bands or units differ, naming both.
    """
    what, held = events[0], lru_cache(1)(_cutter)  # a scene keeps its files open, and there may be thousands
    for one in events:
        _refuse_options(one)
    rng, kinds = np.random.default_rng(what.seed), _Kinds()
    chosen: list[tuple[Candidate, Cut]] = []
    left_out: Counter[str] = Counter()
    for done, one in enumerate(events, 1):
        kinds.refuse_other(held(one))
        if len(events) > 1 and min(held(one).scene.shape) < one.size:
            left_out[TOO_SMALL] += 1
            continue
        found, why = _chosen(held(one), one, rng)
        chosen += [(candidate, one) for candidate in found]
        left_out.update(why)
        if progress and len(events) > 1:
            progress("scenes", done, len(events))
    how = _dealing(held(what), what)
    dealt = deal([candidate for candidate, _ in chosen], how, rng, [one.event for _, one in chosen])
    kept = [(*chosen[i], side) for i, side in dealt.sides.items() if side]
    left_out[NOT_DRAWN] += dealt.not_drawn
    reasons = {reason: n for reason, n in left_out.items() if n}

    def made() -> Iterator[tuple[Chip, str, GeoBox | None]]:
        for done, (candidate, one, side) in enumerate(kept, 1):
            yield held(one).chip(candidate.window), side, held(one).scene.grid[candidate.window.slices]
            if progress:
                progress("chips", done, len(kept))

    names = what.classes or (("absent", "present") if what.truth else ("landslide",) if what.points else ())
    facts = {"title": f"chips of {title or held(what).scene.name}", **_facts(events, reasons)}
    counted = (lambda chip: _counted(held(what), chip)) if what.points else (lambda _: {})
    if kept:
        chipfolder.write(out, made(), classes=names, facts=facts, beside=counted, protocol=how.protocol)
    return how.told(dealt.sides, reasons)


@dataclass
class _Kinds:
    """The bands and units that every scene must have: those of the first."""

    first: str = ""
    wanted: tuple[Any, ...] = ()

    def refuse_other(self, cutter: Cutter) -> None:
        """Raises UsageError with both named."""
        chip = cutter.chip(Window(0, 0, 1, 1))
        own = (chip.bands, chip.unit)
        self.first, self.wanted = self.first or cutter.scene.name, self.wanted or own
        if own != self.wanted:
            said = [f"{name} has {', '.join(bands)} in {unit}" for name, (bands, unit) in (
                (cutter.scene.name, own), (self.first, self.wanted))]  # fmt: skip
            raise UsageError("; ".join(said), repair="keep images of one kind in a folder, or cut each kind by itself")


def _refuse_options(what: Cut) -> None:
    if what.truth is None and what.points is None and not what.unlabelled:
        raise UsageError(
            "there is neither truth nor points", repair="give --truth, --points, or both; or say --unlabelled for chips without"
        )
    if what.unlabelled and (what.truth or what.points or what.classes or what.hazard_code is not None):
        raise UsageError("labels are given, and --unlabelled", repair="leave one of them out")
    if what.unlabelled and what.how not in ("regular", "random"):
        raise UsageError(f"--how {what.how} goes by labels", repair="say --how regular or random for --unlabelled chips")
    if what.truth is None and (what.classes or what.hazard_code is not None):
        raise UsageError("points have no codes", repair="leave --classes and --hazard-code out, or give --truth")
    if what.terrain and not what.dem:
        raise UsageError(f"--terrain {what.terrain} without an elevation model", repair="give --dem")
    if what.split == "none" and (what.shares or what.block_px is not None or what.gap_px is not None):
        raise UsageError("shares, blocks or a gap without a split", repair="say --split random or --split blocks")
    if what.split == "random" and (what.block_px is not None or what.gap_px is not None):
        raise UsageError("chips dealt at random lie in no blocks", repair="leave --block-px and --gap-px out, or --split blocks")
    if what.how == "published" and not (what.count is what.stride is None and what.least_valid in (None, 1.0)):
        raise UsageError(
            "published cutting takes every whole chip with a landslide, and as many without",
            repair="leave --count, --stride and --least-valid out, or say --how balanced",
        )


def _cutter(what: Cut) -> Cutter:
    bands = tuple(b.strip() for b in what.bands.split(",")) if what.bands else ()
    declared = dict.fromkeys(("after", "before"), Declared(bands=bands, unit=what.unit))
    paths = {"after": what.after, "before": what.before, "dem": what.dem}
    scene = open_scene(paths, hazard="", declared=declared, name=what.event)
    further = {"after": what.after_pass, "before": what.before_pass}
    more: tuple[Bands, ...] = open_passes(scene, what.after, further, declared)
    if what.dem:
        more += (_terrain(scene, what.terrain),)
    heads = None if what.points is None else features.read_points(what.points, scene.grid)
    skipped = Counter[str]() if what.unlabelled else None
    return Cutter(scene, _labels(scene, what), len(what.classes) or 2, what.event, more, heads, skipped)


def _labels(scene: Scene, what: Cut) -> Labels | None:
    if what.truth is None:
        return None
    code = what.hazard_code
    codes: Codes = PRESENCE if code is None else {0: 0, -1: UNKNOWN, UNKNOWN: UNKNOWN} | {code: 1}
    if what.classes:
        _refuse_classes(what, what.truth)
        codes = {-1: UNKNOWN, UNKNOWN: UNKNOWN} | {k: k for k in range(len(what.classes))}
    return Labels(what.truth, scene.grid, codes, band=what.band)


def _terrain(scene: Scene, said: str) -> TerrainBands:
    if pixel_size_m(scene.grid) is None:
        raise UsageError("slopes of an image without CRS have no scale", repair="georeference it, or leave --dem out")
    return TerrainBands(scene, tuple(derivatives([n.strip() for n in said.split(",")] if said else list(DERIVATIVES))))


def _refuse_classes(what: Cut, truth: Path) -> None:
    if what.hazard_code is not None:
        raise UsageError("--hazard-code and --classes both say what codes mean", repair="give one of them")
    if len(what.classes) < 2 or len(set(what.classes)) < len(what.classes) or is_vector(truth):
        given = f"--classes {','.join(what.classes)} of {truth.name}"
        raise UsageError(given, repair="name the codes of a raster from 0 on: two at least, none twice")


def _chosen(cutter: Cutter, what: Cut, rng: np.random.Generator) -> tuple[list[Candidate], dict[str, int]]:
    """Chips that may be dealt, and how many may not, by reason."""
    left_out: dict[str, int] = {}
    if what.how == "published":
        whole = published.whole(cutter, what.size)
        chosen, left_out = whole.candidates, {"not wholly observed": whole.unseen, "water": whole.water}
    else:
        chosen, left_out = _choose(cutter, what, rng), dict(cutter.skipped or {})
    if cutter.labels is not None:
        cutter.labels.refuse_ambiguous()
    return chosen, left_out


def _dealing(cutter: Cutter, what: Cut) -> Dealing:
    as_published = what.how == "published"
    block = what.block_px or (published.block_px(cutter, what.size) if as_published else 4 * what.size)
    gap = what.gap_px if what.gap_px is not None else what.size if as_published else 0
    return Dealing(what.split, as_published, what.seed, block, gap, what.shares)


def _choose(cutter: Cutter, what: Cut, rng: np.random.Generator) -> list[Candidate]:
    least = _LEAST_VALID if what.least_valid is None else what.least_valid
    if what.how == "regular":
        if what.count is not None:
            raise UsageError("regular cutting takes every window", repair="leave --count out, or say --how random")
        return regular(cutter, what.size, stride=what.stride, least_valid=least)
    count = _COUNT if what.count is None else what.count
    if what.how == "random":
        return random(cutter, what.size, count, rng, least_valid=least)
    return balanced(cutter, what.size, count, rng, stride=what.stride, least_valid=least)


def _counted(cutter: Cutter, chip: Chip) -> dict[str, Any]:
    """Points of the inventory in a chip, and how many that is per km2 of its ground ("" without CRS)."""
    assert chip.window is not None
    count, grid = cutter.points_in(chip.window), cutter.scene.grid
    km2 = float(pixel_area_m2(grid, chip.window).sum()) / 1e6
    return {"points": count, "points_per_km2": "" if pixel_size_m(grid) is None else f"{count / km2:.6f}"}


def _facts(events: Sequence[Cut], left_out: Mapping[str, int]) -> dict[str, Any]:
    own = {f.name: getattr(events[0], f.name) for f in fields(Cut) if f.name not in _TOLD_ELSEWHERE}
    said = {k: v for k, v in own.items() if v not in (None, "") and v is not False}
    if len(events) > 1:
        said.pop("event", None)
    if events[0].split == "random":
        said["caution"] = LEAK
    if left_out:
        said["left_out"] = [{"reason": reason, "chips": n} for reason, n in left_out.items()]
    return said | {"sources": [source for one in events for source in _sources(one)]}


def _sources(what: Cut) -> Iterator[dict[str, str]]:
    files = {role: given if isinstance(given, tuple) else (given,) for role in _ROLES if (given := getattr(what, role))}
    for role, paths in files.items():
        for path in paths:
            yield {"role": role.replace("_", "-"), "name": path.name, "sha256": sha256(path) if path.is_file() else ""}
