"""Timings, memory, workers and host of a run: what log.json holds, the one file that differs between equal runs."""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aftermap.deliver import Options


def measured(started: float, prepared: float, mapped: float, options: Options, workers: int) -> dict[str, Any]:
    """Times are in seconds since the epoch; memory is of this process, not of its workers."""
    facts = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)), "seconds_to_scores": round(mapped - started, 2),
        "seconds_to_map": round(mapped - prepared, 2), "seconds": round(time.time() - started, 2),
        "memory_limit_mb": options.memory_mb, "host": platform.node(), "cores": os.cpu_count(), "system": platform.platform(),
        "workers": {"count": workers, "cluster": options.cluster} if options.spread else None,
    }  # fmt: skip
    if (peak := peak_mb()) is not None:
        facts["peak_memory_mb"] = round(peak)
    return facts


def peak_mb() -> float | None:
    """The most memory that this process has had resident; None where the system does not say."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux counts that of the process that started this one in its ru_maxrss
        found = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM")), None)
        return int(found.split()[1]) / 2**10 if found else None
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
