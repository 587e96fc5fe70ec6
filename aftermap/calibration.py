"""What a score is worth: monotone tables from score to likelihood, and how they are fitted.

Those of the methods without training stand by method and kind of sensor in static/calibration.json, where real chips bear them
out: benchmarks/calibrate.py makes them and decides; the file says when and on what. A network's stands in its card.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy  # whose parts load when they are first used

F32 = npt.NDArray[np.float32]

FILE = Path(__file__).parent / "static" / "calibration.json"
UNCALIBRATED = "uncalibrated"
MOST_KNOTS = 32


class Key(NamedTuple):
    """What a table is for: a method of a hazard, the kind of image it looks at (beside.py), and what it finds there."""

    hazard: str
    method: str
    kind: str
    finds: str
    """The scorer's class: a method may find flood in a pair and open water in one image."""


@dataclass(frozen=True)
class Calibration:
    """Knots of one table, both ascending in [0, 1], and in words how good it is."""

    scores: tuple[float, ...]
    likelihoods: tuple[float, ...]
    words: str

    def __call__(self, scores: F32) -> F32:
        """Likelihoods in [0, 1] of scores (y, x), linear between the knots; NaN stays NaN."""
        return np.interp(scores, self.scores, self.likelihoods).astype(np.float32)


def find(key: Key) -> Calibration | None:
    """The table for a key; None where none is borne out, and likelihood is the score, uncalibrated."""
    return _tables().get(key)


@lru_cache
def _tables() -> dict[Key, Calibration]:
    found = {}
    for entry in json.loads(FILE.read_text(encoding="utf-8"))["tables"]:
        seeds = f"seeds {entry['seeds'][0]} to {entry['seeds'][-1]}"
        words = (
            f"isotonic, {entry['scenes']} simulated scenes ({seeds}), ECE there {entry['ece_simulated']:.3f}, "
            f"ECE on real chips {entry['ece_real']:.3f} ({entry['events']} events; {entry['ece_real_uncalibrated']:.3f} without)"
        )
        key = Key(*(entry[k] for k in Key._fields))
        found[key] = Calibration(tuple(entry["scores"]), tuple(entry["likelihoods"]), words)
    return found


def isotonic(counts: npt.NDArray[np.floating | np.integer]) -> tuple[list[float], list[float]]:
    """Knots (scores, likelihoods) fitted to pixels (2, level), without and with the hazard by score from 0 to 1.

    Isotonic regression, thinned to at most MOST_KNOTS where a straight line says the same; `metrics.Ranking.levels` is such
    a table.
    """
    pixels, highest = counts.sum(axis=0), counts.shape[1] - 1
    used = pixels > 0
    at, shares = np.flatnonzero(used) / highest, counts[1, used] / pixels[used]
    value = scipy.optimize.isotonic_regression(shares, weights=pixels[used]).x
    kept = [0, len(at) - 1]
    while len(kept) < min(MOST_KNOTS, len(at)):
        off = np.abs(np.interp(at, at[kept], value[kept]) - value)
        if off.max() < 0.002:
            break
        kept = sorted([*kept, int(off.argmax())])
    return [round(float(v), 4) for v in at[kept]], [round(float(v), 4) for v in value[kept]]


def temperature(counts: npt.NDArray[np.floating | np.integer]) -> float:
    """T that makes expit(logit(score) / T) likeliest, for pixels (2, level) as in `isotonic`; above 1 for the overconfident."""
    used = np.flatnonzero(counts.sum(axis=0))
    logits = scipy.special.logit(np.clip(used / (counts.shape[1] - 1), 1e-6, 1 - 1e-6))
    without, hazard = counts[:, used].astype(np.float64) / counts.sum()

    def surprise(log_t: float) -> float:
        scaled = logits / np.exp(log_t)
        return float((hazard * np.logaddexp(0, -scaled) + without * np.logaddexp(0, scaled)).sum())

    return float(np.exp(scipy.optimize.minimize_scalar(surprise, bounds=(-4, 4), method="bounded").x))


def tempered(temperature: float) -> tuple[list[float], list[float]]:
    """Knots of expit(logit(score) / temperature): straight lines between them are within 0.001 of it for T from 0.2 to 5."""
    logits = np.linspace(-16, 16, 1025)
    scores, likelihoods = (np.r_[0, scipy.special.expit(logits / t), 1] for t in (1.0, temperature))
    return scores.tolist(), likelihoods.tolist()
