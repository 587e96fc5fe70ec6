"""The command line in a process of its own to which something happens: `python -m tests.faults.child '{"at": 3, ...}' map ...`"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import aftermap.deliver  # noqa: F401 - before memory is limited: what is loaded is not what is tried
from aftermap import card
from aftermap.cli import main
from aftermap.progress import Progress


class Fault(dict[str, Any]):
    """What happens: `signal` this many seconds (`delay`) after the `at`-th word of progress; no more than `room` bytes of address
    space beyond what is taken then; no file beyond `file_size` bytes."""

    def __call__(self) -> None:
        """It happens."""
        if "room" in self:
            _limit("AS", int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE") + self["room"])
        if "signal" in self:
            timer = threading.Timer(self.get("delay", 0), os.kill, (os.getpid(), getattr(signal, self["signal"])))
            timer.daemon = True
            timer.start()


def _limit(name: str, most: int) -> None:
    import resource

    which = getattr(resource, f"RLIMIT_{name}")
    resource.setrlimit(which, (most, resource.getrlimit(which)[1]))


def run(fault: Fault, args: list[str]) -> None:
    """The command, with progress that counts."""
    words = iter(range(1, 10**9))

    def count(*_: object) -> None:
        if next(words) == fault.get("at", 1):
            fault()

    Progress.__call__ = count  # type: ignore[method-assign,assignment]
    card.BUNDLED = Path("no-bundled-models")
    if "file_size" in fault:
        _limit("FSIZE", fault["file_size"])
    main(args)


if __name__ == "__main__":
    run(Fault(json.loads(sys.argv[1])), sys.argv[2:])
