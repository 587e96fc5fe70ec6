"""HazardMap against truth: Counts, ranking and calibration per event, over what was analysed, saying how much was not."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap import raster, vector
from aftermap.calibration import UNCALIBRATED
from aftermap.errors import InputRefusedError, UsageError
from aftermap.hazardmap import NOT_ANALYSED, HazardMap
from aftermap.journal import write_json
from aftermap.metrics import Counts, Inspection, Ranking, Reliability, inspected
from aftermap.products.density import FILE as DENSITY
from aftermap.products.density import Cells
from aftermap.products.priority import FILE as PRIORITY
from aftermap.tiles import Window, blocks

WINDOW_PX = 2048
_RASTERS = (".tif", ".tiff", ".png", ".jp2", ".vrt", ".img")


@dataclass
class Evaluation:
    """Scores of one event, or of several pooled; pixels in which the truth is unknown are left out of everything."""

    event: str
    counts: Counts = field(default_factory=Counts)
    ranking: Ranking = field(default_factory=Ranking)
    reliability: Reliability = field(default_factory=Reliability)
    truth_px: int = 0
    hazard_px: int = 0
    not_analysed_px: int = 0
    hazard_not_analysed_px: int = 0
    ranked_on: str = "score"
    inspection: Inspection | None = None
    """What the list of cells to look at first finds, where the map has one that reaches far enough."""

    def add(
        self,
        truth: npt.NDArray[np.int8],
        extent: npt.NDArray[np.uint8],
        scores: npt.NDArray[np.float32],
        likelihood: npt.NDArray[np.float32],
    ) -> None:
        """Counts one window: truth 1, 0 or -1 unknown; extent 1, 0 or 255; scores and likelihood in [0, 1]."""
        known, analysed = truth >= 0, extent != 255
        both = known & analysed
        self.truth_px += int(known.sum())
        self.hazard_px += int((truth == 1).sum())
        self.not_analysed_px += int((known & ~analysed).sum())
        self.hazard_not_analysed_px += int(((truth == 1) & ~analysed).sum())
        actual = truth[both] == 1
        self.counts += Counts.of(extent[both] == 1, actual)
        self.ranking.add(scores[both], actual)
        self.reliability.add(likelihood[both], actual)

    def __iadd__(self, other: Evaluation) -> Evaluation:
        self.counts += other.counts
        self.ranking.levels += other.ranking.levels
        self.reliability.bins += other.reliability.bins
        for name in ("truth_px", "hazard_px", "not_analysed_px", "hazard_not_analysed_px"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.ranked_on = other.ranked_on if other.ranked_on != "score" else self.ranked_on
        if other.inspection is not None:
            self.inspection = other.inspection + (self.inspection or Inspection())
        return self

    def row(self) -> dict[str, Any]:
        """One table row; None where a score is undefined."""
        c = self.counts
        return {
            "event": self.event, "truth_px": self.truth_px, "scored_px": c.total, "not_analysed_px": self.not_analysed_px,
            "hazard_not_analysed_px": self.hazard_not_analysed_px, "prevalence": (c.tp + c.fn) / c.total if c.total else None,
            "tp": c.tp, "fp": c.fp, "fn": c.fn, "tn": c.tn, "balanced_accuracy": c.balanced_accuracy, "iou": c.iou, "f1": c.f1,
            "precision": c.precision, "recall": c.recall, "average_precision": self.ranking.average_precision,
            "auc": self.ranking.auc, "expected_calibration_error": self.reliability.expected_calibration_error,
            "area_error": c.area_error, "ranked_on": self.ranked_on, **(self.inspection.row() if self.inspection else {}),
        }  # fmt: skip


def evaluate(hazard_map: HazardMap, truth: Path, *, band: int = 1, hazard_code: int | None = None, event: str = "") -> Evaluation:
    """Scores of one map against polygons of the hazard or a raster: `hazard_code` (1) hazard, 0 not, -1, 255, nodata unknown.

    A raster on another grid is read by nearest neighbour on the map's grid. Ranking uses score.tif where the run kept it, else
    the 101 levels of likelihood.tif, said in `ranked_on`; calibration uses likelihood.tif where it is calibrated, else what
    ranking uses. Where the map has a list of cells to look at first, what its first tenth finds is scored too.

    Raises InputRefusedError for other codes, for a mask of 0 and 255 alone (which of the two readings?), and where nothing is
    known of the map's place.
    """
    result = Evaluation(
        event or hazard_map.folder.name, ranked_on="score" if hazard_map.has_scores else "likelihood (101 levels)"
    )
    cells = _PriorityCells.of(hazard_map)
    for window, actual in _truth(hazard_map, truth, band, hazard_code):
        extent = hazard_map.extent(window)
        if cells:
            cells.add(window, (actual == 1) & (extent != NOT_ANALYSED))
        likelihood = hazard_map.likelihood(window).astype(np.float32) / np.float32(100)
        scores = hazard_map.score(window) if hazard_map.has_scores else likelihood
        calibrated = hazard_map.made_by["calibration"] != UNCALIBRATED
        result.add(actual, extent, scores, likelihood if calibrated else scores)
    result.inspection = cells.inspection() if cells else None
    if result.truth_px == 0:
        raise InputRefusedError(
            f"{truth.name} knows the truth of no pixel of this map", repair="check place and codes", code="no-truth"
        )
    return result


@dataclass(frozen=True)
class _PriorityCells:
    """Affected pixels (row, column) of each cell of a density, which of them were analysed, and the list in its order."""

    cells: Cells
    affected: npt.NDArray[np.int64]
    analysed: npt.NDArray[np.bool_]
    listed: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]

    @classmethod
    def of(cls, hazard_map: HazardMap) -> _PriorityCells | None:
        """Of a map that has a list; None for another."""
        if not (hazard_map.folder / PRIORITY).exists():
            return None
        with (hazard_map.folder / PRIORITY).open(newline="", encoding="utf-8") as stream:
            rows = [(int(r["row"]), int(r["col"])) for r in csv.DictReader(stream)]
        height, width = raster.size_of(hazard_map.folder / DENSITY)
        share = raster.read_window(hazard_map.folder / DENSITY, Window(0, 0, height, width))[0]
        row, col = np.asarray(rows, np.intp).reshape(-1, 2).T
        cells = Cells(*hazard_map.made_by["parameters"]["density"]["cell_px"])
        return cls(cells, np.zeros((height, width), np.int64), np.isfinite(share), (row, col))

    def add(self, window: Window, affected: npt.NDArray[np.bool_]) -> None:
        """Counts the affected pixels (y, x) of a window."""
        y, x = np.nonzero(affected)
        np.add.at(self.affected, ((y + window.row) // self.cells.rows, (x + window.col) // self.cells.cols), 1)

    def inspection(self) -> Inspection | None:
        """Of the first tenth of the analysed cells; None where the list ends before."""
        places = np.cumsum(self.analysed.ravel()).reshape(self.analysed.shape) - 1  # among the analysed
        cells = int(self.analysed.sum())
        if len(self.listed[0]) < inspected(cells):
            return None
        return Inspection.of(self.affected[self.analysed].astype(np.float64), places[self.listed])


def _truth(
    hazard_map: HazardMap, truth: Path, band: int, hazard_code: int | None
) -> Iterator[tuple[Window, npt.NDArray[np.int8]]]:
    windows = list(blocks(hazard_map.shape, WINDOW_PX))
    if truth.suffix.lower() not in _RASTERS:
        shapes = vector.read_polygons(truth, hazard_map.grid)
        if not any(hazard_map.grid.extent.geom.intersects(s) for s in shapes):
            return
        for window in windows:
            yield window, vector.rasterise(shapes, hazard_map.grid, window).astype(np.int8)
        return
    known = raster.facts(truth)
    if band not in known.indexes:
        raise UsageError(f"{truth.name} has no band {band}; it has {', '.join(map(str, known.indexes))}", repair="correct --band")
    reader = raster.Reader(truth, hazard_map.grid, [band], classes=True)
    codes_seen: set[float] = set()
    for window in windows:
        stored = reader.read(window)[0]
        codes_seen |= set(np.unique(stored[np.isfinite(stored)]).tolist())
        yield window, _codes(stored, truth, 1 if hazard_code is None else hazard_code)
    if hazard_code is None and codes_seen == {0, 255}:
        raise InputRefusedError(
            f"{truth.name} holds only 0 and 255: is 255 the hazard, or unknown?",
            repair="say --hazard-code 255 or --hazard-code 1",
            code="truth-ambiguous",
        )


def _codes(stored: npt.NDArray[np.float32], truth: Path, hazard_code: int) -> npt.NDArray[np.int8]:
    codes = np.full(stored.shape, -1, np.int8)
    codes[stored == 0], codes[stored == hazard_code] = 0, 1
    strange = ~(np.isnan(stored) | np.isin(stored, [0, hazard_code, -1, 255]))
    if strange.any():
        raise InputRefusedError(
            f"{truth.name} holds the code {stored[strange][0]:g}; {hazard_code} is hazard, 0 not, -1, 255 and nodata unknown",
            repair="recode it, or name the code of the hazard with --hazard-code",
            code="truth-codes",
        )
    return codes


def write_scores(out: Path, results: Sequence[Evaluation]) -> Evaluation:
    """Writes scores.json and scores.csv into `out`: a row per event and, with several, one pooled, which is returned."""
    if not results:
        raise UsageError("no map to score", repair="give at least one folder")
    pooled = results[0] if len(results) == 1 else _pool(results)
    rows = [r.row() for r in results] + ([pooled.row()] if len(results) > 1 else [])
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "scores.json", rows)
    _write_csv(out / "scores.csv", rows)
    return pooled


def _pool(results: Sequence[Evaluation]) -> Evaluation:
    pooled = Evaluation("pooled over pixels")
    for result in results:
        pooled += result
    return pooled


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
