"""Precision and recall of flood maps at other thresholds on the score, on simulated floods: python -m benchmarks.favour

Each event is weighed alike; the truth is that of `aftermap simulate flood`, seeds 0 to 2, by sensor.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

import aftermap as am
from aftermap import raster
from aftermap.simulate.flood import simulate
from aftermap.tiles import Window

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SIZE, SEEDS, SENSORS = 1024, (0, 1, 2), ("sentinel-1", "sentinel-2")


def event(folder: Path, sensor: str, seed: int) -> npt.NDArray[np.float64]:
    """Precision and recall (threshold, 2) of one event."""
    simulate(folder, size=SIZE, seed=seed, sensor=sensor)
    mapped = am.map(folder / "after.tif", folder / "before.tif", out=folder / "map", options=am.Options(keep_scores=True))
    whole = Window(0, 0, SIZE, SIZE)
    score, truth = mapped.score(whole), raster.read_window(folder / "truth.tif", whole)[0]
    known = np.isfinite(score) & np.isin(truth, (0, 1))
    score, flood = score[known], truth[known] == 1
    found = [score > t for t in THRESHOLDS]
    return np.array([[(flood & f).sum() / max(f.sum(), 1), (flood & f).sum() / flood.sum()] for f in found])


def main() -> None:
    """Prints a table for each sensor."""
    for sensor in SENSORS:
        with tempfile.TemporaryDirectory() as folder:
            rows = np.stack([event(Path(folder) / str(seed), sensor, seed) for seed in SEEDS])  # (event, threshold, 2)
        sys.stdout.write(
            f"{sensor}\nthreshold  precision  recall  F1  (lowest precision, lowest recall of {len(SEEDS)} events)\n"
        )
        for k, threshold in enumerate(THRESHOLDS):
            precision, recall = rows[:, k].mean(axis=0)
            f1 = (2 * rows[:, k].prod(axis=1) / np.maximum(rows[:, k].sum(axis=1), 1e-9)).mean()
            low = rows[:, k].min(axis=0)
            sys.stdout.write(f"{threshold:9.1f}  {precision:9.3f}  {recall:6.3f}  {f1:.3f}  ({low[0]:.3f}, {low[1]:.3f})\n")


if __name__ == "__main__":
    main()
