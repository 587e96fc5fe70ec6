"""One event's files to a folder of chips: opened as a scene, windows chosen, split by blocks of ground, written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from aftermap import chipfolder
from aftermap.chips import PRESENCE, UNKNOWN, Candidate, Chip, Codes, Cutter, Labels, balanced, random, regular
from aftermap.errors import UsageError
from aftermap.journal import sha256
from aftermap.layer import Declared
from aftermap.scene import open_scene
from aftermap.splits import by_block
from aftermap.vector import is_vector

_COUNT = 100
_TOLD_ELSEWHERE = ("after", "before", "truth", "bands", "unit", "classes")


@dataclass(frozen=True)
class Cut:
    """What to cut: the options of `aftermap chips`."""

    after: tuple[Path, ...]
    truth: Path
    before: tuple[Path, ...] = ()
    band: int = 1
    """Of the truth raster."""
    hazard_code: int | None = None
    classes: tuple[str, ...] = ()
    """Names of the codes of the truth from 0 on; empty: the hazard, 1, or its code."""
    size: int = 256
    how: str = "regular"
    count: int | None = None
    stride: int | None = None
    least_valid: float = 0.9
    split: str = "none"
    block_px: int | None = None
    gap_px: int = 0
    bands: str = ""
    unit: str = ""
    event: str = ""
    seed: int = 0


def cut(out: Path, what: Cut, *, progress: Callable[[str, int, int], None] | None = None) -> dict[str, Any]:
    """Writes the chips; returns how many, and how many of each split ("": left out between two)."""
    cutter = _cutter(what)
    rng = np.random.default_rng(what.seed)
    chosen = _choose(cutter, what, rng)
    cutter.labels.refuse_ambiguous()
    sides = [""] * len(chosen)
    if what.split == "blocks":
        sides = by_block([c.window for c in chosen], rng, block_px=what.block_px or 4 * what.size, gap_px=what.gap_px)
    kept = [(c, side or "all") for c, side in zip(chosen, sides, strict=True) if side or what.split == "none"]

    def made() -> Iterator[tuple[Chip, str, GeoBox | None]]:
        for done, (candidate, side) in enumerate(kept, 1):
            yield cutter.chip(candidate.window), side, cutter.scene.grid[candidate.window.slices]
            if progress:
                progress("chips", done, len(kept))

    facts = {"title": f"chips of {cutter.scene.name}", **_facts(what)}
    written = chipfolder.write(out, made(), classes=what.classes or ("absent", "present"), facts=facts) if kept else 0
    lost = len(chosen) - len(kept)
    return {"chips": written, "splits": dict(Counter(side for _, side in kept)) | ({"": lost} if lost else {})}


def _cutter(what: Cut) -> Cutter:
    bands = tuple(b.strip() for b in what.bands.split(",")) if what.bands else ()
    declared = dict.fromkeys(("after", "before"), Declared(bands=bands, unit=what.unit))
    paths = {"after": what.after, "before": what.before}
    scene = open_scene(paths, hazard="", declared=declared, name=what.event)
    code = what.hazard_code
    codes: Codes = PRESENCE if code is None else {0: 0, -1: UNKNOWN, UNKNOWN: UNKNOWN} | {code: 1}
    if what.classes:
        _refuse_classes(what)
        codes = {-1: UNKNOWN, UNKNOWN: UNKNOWN} | {k: k for k in range(len(what.classes))}
    return Cutter(scene, Labels(what.truth, scene.grid, codes, band=what.band), len(what.classes) or 2, what.event)


def _refuse_classes(what: Cut) -> None:
    if what.hazard_code is not None:
        raise UsageError("--hazard-code and --classes both say what codes mean", repair="give one of them")
    if len(what.classes) < 2 or len(set(what.classes)) < len(what.classes) or is_vector(what.truth):
        given = f"--classes {','.join(what.classes)} of {what.truth.name}"
        raise UsageError(given, repair="name the codes of a raster from 0 on: two at least, none twice")


def _choose(cutter: Cutter, what: Cut, rng: np.random.Generator) -> list[Candidate]:
    if what.how == "regular":
        if what.count is not None:
            raise UsageError("regular cutting takes every window", repair="leave --count out, or say --how random")
        return regular(cutter, what.size, stride=what.stride, least_valid=what.least_valid)
    count = _COUNT if what.count is None else what.count
    if what.how == "random":
        return random(cutter, what.size, count, rng, least_valid=what.least_valid)
    return balanced(cutter, what.size, count, rng, stride=what.stride, least_valid=what.least_valid)


def _facts(what: Cut) -> dict[str, Any]:
    own = {f.name: getattr(what, f.name) for f in fields(what) if f.name not in _TOLD_ELSEWHERE}
    roles = [("after", p) for p in what.after] + [("before", p) for p in what.before] + [("truth", what.truth)]
    sources = [{"role": role, "name": p.name, "sha256": sha256(p) if p.is_file() else ""} for role, p in roles]
    return {k: v for k, v in own.items() if v is not None} | {"sources": sources}
