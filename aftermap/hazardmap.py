"""HazardMap: a delivered map as a handle on its files; nothing is held in memory."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from aftermap import journal, raster
from aftermap.errors import InputRefusedError, UsageError
from aftermap.tiles import Window

NOT_ANALYSED = 255
"""In likelihood, extent, agreement and spread: not observed or excluded."""
NOT_OBSERVED, REFERENCE_WATER, SLOPE, RADAR, CLOUD, LOW_SENSITIVITY, OUTSIDE_AOI, ABOVE_DRAINAGE = range(1, 9)
"""Codes of exclusion.tif that mapping itself gives; all of them with their labels stand in palette.EXCLUSION."""


@dataclass(frozen=True)
class HazardMap:
    """A folder with the products of one run. Rasters are on `grid`; windows are in its pixels."""

    folder: Path

    def __post_init__(self) -> None:
        if not (self.folder / "run.json").exists():
            raise InputRefusedError(
                f"{self.folder} holds no map", repair="give the folder that aftermap map wrote", code="no-map"
            )

    @cached_property
    def made_by(self) -> Mapping[str, Any]:
        """All that determined the result: inputs with hashes, methods with their numbers, parameters, warnings (run.json)."""
        return journal.read_facts(self.folder / "run.json")

    @cached_property
    def summary(self) -> list[dict[str, str]]:
        """Rows of summary.csv."""
        with (self.folder / "summary.csv").open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    @cached_property
    def grid(self) -> GeoBox:
        """The grid of every raster."""
        return raster.facts(self.folder / "extent.tif").grid

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.grid.shape[0]), int(self.grid.shape[1])

    @property
    def classes(self) -> tuple[str, ...]:
        """The hazard classes mapped, for example ("flood",)."""
        return tuple(self.made_by["classes"])

    @property
    def answer(self) -> str:
        """ "found", "nothing found" or "not analysed"."""
        return str(self.made_by["answer"])

    @property
    def has_scores(self) -> bool:
        """True when the run kept float scores."""
        return (self.folder / "score.tif").exists()

    def likelihood(self, window: Window) -> npt.NDArray[np.uint8]:
        """Percent 0-100 (y, x), 255 not analysed."""
        return self._read("likelihood.tif", window)

    def extent(self, window: Window) -> npt.NDArray[np.uint8]:
        """0 no hazard, 1 hazard, 255 not analysed (y, x)."""
        return self._read("extent.tif", window)

    def exclusion(self, window: Window) -> npt.NDArray[np.uint8]:
        """Reason code per pixel (y, x), 0 analysed (products.md)."""
        return self._read("exclusion.tif", window)

    def valid(self, window: Window) -> npt.NDArray[np.bool_]:
        """True where analysed (y, x)."""
        return np.asarray(self.exclusion(window) == 0)

    def score(self, window: Window) -> npt.NDArray[np.float32]:
        """Float scores in [0, 1] (y, x), NaN not analysed. Raises UsageError when the run did not keep them."""
        if not self.has_scores:
            raise UsageError(f"{self.folder} holds no score.tif", repair="map with --keep-scores")
        return np.asarray(self._read("score.tif", window), np.float32)

    @property
    def has_spread(self) -> bool:
        """True when an ensemble ran."""
        return (self.folder / "spread.tif").exists()

    def spread(self, window: Window) -> npt.NDArray[np.uint8]:
        """How far the members of an ensemble lie apart (y, x): the standard deviation of their probabilities in percent, 0-50,
        255 not analysed. Raises UsageError when none ran."""
        if not self.has_spread:
            raise UsageError(f"{self.folder} holds no spread.tif", repair="map with several --model, or with --flips")
        return self._read("spread.tif", window)

    @property
    def has_familiarity(self) -> bool:
        """True when a network ran that knows its training."""
        return (self.folder / "familiarity.tif").exists()

    def familiarity(self, window: Window) -> npt.NDArray[np.uint8]:
        """Percent of a model's validation chips at least as far from its training (y, x), 255 not observed. Raises UsageError
        when no such model ran."""
        if not self.has_familiarity:
            raise UsageError(f"{self.folder} holds no familiarity.tif", repair="map with a --model that has known.npz")
        return self._read("familiarity.tif", window)

    def _read(self, name: str, window: Window) -> npt.NDArray[Any]:
        return np.asarray(raster.read_window(self.folder / name, window)[0])
