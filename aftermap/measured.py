"""Timings, memory, workers and host of a run: what log.json holds, the one file that differs between equal runs."""

from __future__ import annotations

import os
import platform
import sys
import time
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
    if sys.platform != "win32":
        import resource

        facts["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return facts
