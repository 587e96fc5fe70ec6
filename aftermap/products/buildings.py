"""The layer `built_up`: for each footprint how much of it was seen, how much of that is hazard, and a grade in words.

A grade never says more than the map it comes from can tell; what was not seen is "Not analysed", never "No visible damage".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap import features
from aftermap.confusion import DAMAGE as GRADED
from aftermap.indices import pattern
from aftermap.indices.footprint import RoofChange, roof_change
from aftermap.products.exposure import AFFECTED, CLEAR, OUTSIDE
from aftermap.scene import Scene
from aftermap.tiles import Window

F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]

DAMAGE = ("No visible damage", "Possibly damaged", "Damaged", "Destroyed")
"""The words of Copernicus EMS (field.md 2.1), for roofs compared on two images."""
DAMAGE_FROM = (0.25, 0.45, 0.8)
"""Score from which each next word of DAMAGE holds; chosen on simulated towns of seeds 1 to 4 (docs/methods.md)."""
GRADES = dict(zip(GRADED, DAMAGE, strict=True))
"""Class of a network -> the word of its grade."""
LEAST_BUILDING = 0.25
"""Mean likelihood of any building on a footprint below which the network sees none there, and nothing is graded."""
REACHED = ("No hazard seen", "Possibly affected", "Affected")
"""For a map of the hazard around buildings: it tells what reached them, not what it did to them."""
REACHED_FROM = (1e-9, 0.5)
"""Share of the analysed footprint that is hazard from which each next word of REACHED holds."""
UNGRADED = "Not analysed"
LEAST_SEEN = 0.5
"""Share of a footprint that must have been analysed for a grade."""
_NO_EVENT = ("bright surface", "rough surface")
"""Classes of maps that show no event at all."""
_UNITS = 2.0**20
"""Shares of a pixel are whole multiples of its inverse, so that they add to the same bits in any order; a pixel only touched
by a large footprint counts one such unit, which decides where a footprint holds no pixel's centre."""
_STATES, _SCORE = 4, 4
_BATCH = 20_000


@dataclass(frozen=True)
class Rule:
    """How a footprint is graded: its words from the least grade up, the level from which each next one holds, and why."""

    words: tuple[str, ...]
    levels: tuple[float, ...]
    source: str

    @property
    def grades(self) -> tuple[str, ...]:
        """Every grade that may occur, the gravest first."""
        return (*reversed(self.words), UNGRADED)

    def of(self, value: F64) -> list[str]:
        """The grade (n,) of scores or shares; NaN is not analysed."""
        places = np.digitize(np.nan_to_num(value), self.levels)
        return [UNGRADED if np.isnan(v) else self.words[k] for v, k in zip(value, places, strict=True)]


@dataclass(frozen=True)
class Grader:
    """A network that tells the grades of damage apart, and the classes that it gives levels of, in their order."""

    name: str
    classes: tuple[str, ...]
    levels: int
    """That of certainty."""
    why: str = ""
    """Why it may not lead the map, where it may not."""

    @property
    def places(self) -> list[int]:
        """Of the grades among the classes, the least first."""
        return [self.classes.index(name) for name in GRADES]

    @property
    def rule(self) -> Rule:
        """A value is the place of a grade."""
        aside = f" (which does not lead the map: {self.why})" if self.why else ""
        words = f"the likeliest grade by the network {self.name}{aside}, of its mean likelihoods on the footprint"
        return Rule(DAMAGE, tuple(map(float, range(1, len(DAMAGE)))), words)


def grades(classes: Sequence[str]) -> bool:
    """Whether a network with these classes tells the grades of damage apart."""
    return set(GRADES) <= set(classes)


def rule_for(hazard: str, found: str, pair: RoofChange | None) -> Rule:
    """The rule for a map of `hazard` whose class is `found` ("water", "change", ... where it is not the hazard itself)."""
    if pair is not None:
        if pair.why_not:
            return Rule((), (), f"no roof can be compared, for {pair.why_not}")
        return Rule(DAMAGE, DAMAGE_FROM, "each roof compared on both images")
    if found in _NO_EVENT:
        return Rule((), (), f"a map of {found} shows no damage: give an image from before")
    if hazard == "building":
        return Rule(DAMAGE[:2], REACHED_FROM[:1], f"share of the footprint mapped as {found}, which need not be damage")
    if found != hazard:
        return Rule(REACHED[:2], REACHED_FROM[:1], f"share of the footprint mapped as {found}, which need not be {hazard}")
    return Rule(REACHED, REACHED_FROM, f"share of the footprint mapped as {found}; not what it did to the building")


class Buildings:
    """Footprints met by the states of a map, window by window; in memory are some 90 bytes for each, and those of one window."""

    def __init__(
        self, outlines: Path | features.Features, scene: Scene, scratch: Path, *, found: str, grader: Grader | None = None
    ):
        self._scene, self._grader = scene, grader
        self._pair = roof_change(scene) if scene.hazard == "building" and grader is None else None
        self.rule = grader.rule if grader else rule_for(scene.hazard, found, self._pair)
        self._own = not isinstance(outlines, Path)
        self._features = (
            features.stage(outlines, scene.grid, scratch / "scratch-footprints.gpkg", polygons=True)
            if isinstance(outlines, Path) else outlines
        )  # fmt: skip
        self._levels = np.zeros((self._features.count if grader else 0, len(GRADES)))
        self._sums = np.zeros((self._features.count, _STATES + 1))
        self._moments = np.zeros((self._features.count if self._compares else 0, pattern.MOMENTS))
        self._count = dict.fromkeys(self.rule.grades, 0)

    @property
    def _compares(self) -> bool:
        return self._pair is not None and not self._pair.why_not

    def add(self, window: Window, states: U8, likelihood: U8, classes: U8 | None = None) -> None:
        """Adds a window: state (exposure.py) and likelihood in percent (y, x) of each pixel, and levels (class, y, x) of the
        classes of the grader, where there is one. Windows cover the scene once."""
        feature, shapes = self._features.near(window)
        met = list(features.shares_in(shapes, window)) if len(shapes) else []
        if not met:
            return
        of, row, col, share = (np.concatenate(parts) for parts in zip(*((o, *at, s) for o, at, s in met), strict=True))
        number, state = feature[of], states[row, col]
        weight = np.maximum(np.rint(share * _UNITS), 1.0)
        np.add.at(self._sums, (number, state), weight)
        seen = (state == CLEAR) | (state == AFFECTED)
        np.add.at(self._sums[:, _SCORE], number[seen], (weight * likelihood[row, col])[seen])
        if self._grader and classes is not None:
            for k, place in enumerate(self._grader.places):
                np.add.at(self._levels[:, k], number[seen], (weight * classes[place][row, col])[seen])
        if self._compares and self._pair is not None:
            inner = seen & (share >= 0.5)
            levels = self._pair.read(self._scene, window)[:, row[inner], col[inner]]
            np.add.at(self._moments, number[inner], pattern.moments(levels).T)

    def rows(self) -> Iterator[tuple[Any, Mapping[str, Any]]]:
        """Shapes in pixels of the grid and their columns, in batches, in the order of the file; each is counted by grade."""
        inside = self._sums[:, :OUTSIDE].sum(axis=1) > 0
        for number, shapes in features.wholes(self._features, _BATCH):
            keep = inside[number]
            if keep.any():
                columns = self._columns(number[keep], shapes[keep])
                for grade in columns["damage_gra"]:
                    self._count[grade] += 1
                yield shapes[keep], columns

    def _columns(self, number: npt.NDArray[np.int64], shapes: Any) -> dict[str, Any]:
        sums = self._sums[number] / _UNITS
        analysed = sums[:, CLEAR] + sums[:, AFFECTED]
        # What lies outside the image was met by no window, and was not seen.
        whole = np.maximum(sums[:, :_STATES].sum(axis=1), features.area_beyond(shapes, self._scene.shape))
        seen, some = analysed / whole, analysed > 0
        share, mean = (
            np.divide(v, analysed, out=np.full(len(number), np.nan), where=some) for v in (sums[:, AFFECTED], sums[:, _SCORE])
        )
        score, value = self._graded(number, mean / 100, share)
        score, value = (np.where(seen >= LEAST_SEEN, v, np.nan) for v in (score, value))
        unknown = (100 * (1 - seen)).round(2)
        return {
            "damage_gra": self.rule.of(value) if self.rule.words else [UNGRADED] * len(number),
            "damage_pct": (100 * share).round(2), "observed_pct": (100 - unknown).round(2), "unknown_pct": unknown,
            "score": score.round(4),
        }  # fmt: skip

    def _graded(self, number: npt.NDArray[np.int64], mean: F64, share: F64) -> tuple[F64, F64]:
        """Scores (n,) and what is graded by (n,): the likeliest grade, the change of each roof, or the share of hazard."""
        if self._grader:
            levels = self._levels[number]
            total, analysed = levels.sum(axis=1), self._sums[number][:, [CLEAR, AFFECTED]].sum(axis=1)
            built = total >= LEAST_BUILDING * self._grader.levels * np.maximum(analysed, 1)
            score = np.divide(levels.max(axis=1), total, out=np.full(len(number), np.nan), where=built)
            return score, np.where(built, levels.argmax(axis=1), np.nan)
        if self._pair and self._compares:
            compared = self._pair.scores(self._moments[number])
            return compared, compared
        return mean, share

    def summary(self) -> list[dict[str, Any]]:
        """Rows of the summary once `rows` has been gone through; percent is of the buildings in the area of interest."""
        total = sum(self._count.values())
        amounts = [("buildings_total", "", total), *(("buildings", grade, n) for grade, n in self._count.items())]
        return [
            {
                "quantity": quantity, "class": grade, "reason": "", "value": n, "unit": "count",
                "percent_of_aoi": round(100 * n / total, 3) if total else None,
            }
            for quantity, grade, n in amounts
        ]  # fmt: skip

    def facts(self) -> dict[str, Any]:
        """What the grades rest on, for run.json."""
        compared = {"quiet": self._pair.quiet, "shift_px": self._pair.shift_px} if self._pair else {}
        levels = [] if self._grader else list(self.rule.levels)
        outlined = {"outlines": "the network's own"} if self._own else {}
        return {"graded_by": self.rule.source, "words": list(self.rule.words), "from": levels, **compared, **outlined}
