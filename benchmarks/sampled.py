"""Memory and processor time of processes while they run, and what of it grows."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
TICK = os.sysconf("SC_CLK_TCK")


class Look(NamedTuple):
    """One process at one time."""

    when: float
    """Seconds since the epoch."""
    resident_mb: float
    cpu_s: float


@dataclass
class Sampler:
    """Looks at processes by name every so often, from a thread, until its context ends."""

    pids: Mapping[str, int]
    every_s: float = 0.5
    looks: dict[str, list[Look]] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Sampler:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            for name, pid in self.pids.items():
                if (found := look(pid)) is not None:
                    self.looks.setdefault(name, []).append(found)
            if self._ended.wait(self.every_s):
                return

    def cpu_s(self, name: str, first: float, last: float) -> float:
        """Processor seconds of a process between two times."""
        own = self.looks.get(name, [])
        if not own:
            return 0.0
        at = np.interp([first, last], [one.when for one in own], [one.cpu_s for one in own])
        return float(at[1] - at[0])

    def between(self, name: str, first: float, last: float) -> list[Look]:
        """Of one process."""
        return [one for one in self.looks.get(name, []) if first <= one.when <= last]


def look(pid: int) -> Look | None:
    """None where it is gone, or waits to be buried."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, IndexError):
        return None
    if pages == 0:
        return None
    return Look(time.time(), pages * os.sysconf("SC_PAGE_SIZE") / 1e6, (int(told[11]) + int(told[12])) / TICK)


@dataclass(frozen=True)
class Trend:
    """Resident memory of a process over units of work."""

    first_mb: float
    """Median of the first third of the looks."""
    last_mb: float
    peak_mb: float
    slope_mb: float
    """For 1,000 units, over the last two thirds: in the first, libraries load and caches fill."""
    error_mb: float
    """Standard error of it, as if looks were independent."""

    def at(self, units: float) -> float:
        """Memory after so many more units."""
        return self.last_mb + self.slope_mb * units / 1000


def trend(looks: Sequence[Look], steps: Sequence[tuple[float, int]]) -> Trend:
    """Of looks, and times at which so many units were done."""
    when = np.array([one.when for one in looks])
    mb = np.array([one.resident_mb for one in looks])
    times, counts = np.array(steps, dtype=np.float64).T
    units = np.interp(when, times, counts)
    third = max(len(mb) // 3, 1)
    slope, error = _line(units[third:], mb[third:])
    return Trend(float(np.median(mb[:third])), float(np.median(mb[-third:])), float(mb.max()), 1000 * slope, 1000 * error)


def _line(x: F64, y: F64) -> tuple[float, float]:
    """Slope of a line through points, and its standard error."""
    spread = float(((x - x.mean()) ** 2).sum()) if len(x) else 0.0
    if len(x) < 3 or spread == 0:
        return 0.0, float("nan")
    slope = float(((x - x.mean()) * (y - y.mean())).sum()) / spread
    left = y - y.mean() - slope * (x - x.mean())
    return slope, float(np.sqrt((left**2).sum() / (len(x) - 2) / spread))
