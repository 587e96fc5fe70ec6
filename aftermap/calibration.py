"""What a score is worth: monotone tables from score to likelihood by method and kind of sensor, where real chips bear them out.

The tables are made, and their use decided, by benchmarks/calibrate.py; static/calibration.json says when and on what.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]

FILE = Path(__file__).parent / "static" / "calibration.json"
UNCALIBRATED = "uncalibrated"


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
