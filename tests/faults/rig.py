"""A small scene of several blocks, its undisturbed map, and what is promised of one that was disturbed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aftermap as am
from aftermap import journal
from aftermap.deliver import Progress
from tests.conftest import flood_pair, grid, write

SHAPE = (140, 620)
"""Two blocks."""
SMALL = am.Options(memory_mb=420)
NO_ANSWER_S = 300
"""After which a run is taken to hang: one takes a second or two."""


@dataclass(frozen=True)
class Rig:
    """Files of one event and where maps of it are made."""

    folder: Path
    expected: Mapping[str, str]
    """The products of a run to which nothing happened, by their SHA-256."""

    @property
    def files(self) -> dict[str, Path]:
        """The images."""
        return {name: self.folder / f"{name}.tif" for name in ("after", "before")}

    def map(self, out: Path, options: am.Options = SMALL, progress: Progress | None = None) -> am.HazardMap:
        """The map, made in this process."""
        return am.map(self.files["after"], self.files["before"], out=out, options=options, progress=progress)

    def disturbed(self, out: Path, fault: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
        """The map, made by the command line in another process to which something happens."""
        files = ["--after", str(self.files["after"]), "--before", str(self.files["before"])]
        how = ["--hazard", "flood", "--memory", "420", "--quiet", "-o", str(out)]
        command = [sys.executable, "-m", "tests.faults.child", json.dumps(fault), "map", *files, *how]
        return subprocess.run(command, capture_output=True, text=True, timeout=NO_ANSWER_S, check=False)

    def refuse_wrong(self, out: Path) -> bool:
        """Whether a map is delivered; what is delivered has to be the right one."""
        if not (out / journal.SEAL).exists():
            return False
        assert products(out) == self.expected
        return True

    def resume(self, out: Path) -> None:
        """The same command once more ends in the right map, to the last byte."""
        self.map(out)
        assert self.refuse_wrong(out)


def make(folder: Path, *, seed: int = 0) -> Rig:
    """The files of an event, and the products of its map."""
    before, after, _ = flood_pair(SHAPE, seed)
    for name, pixels in (("before", before), ("after", after)):
        write(folder / f"{name}.tif", pixels, grid(SHAPE), ("VV", "VH"), unit="dB", nodata=float("nan"))
    Rig(folder, {}).map(folder / "undisturbed")
    return Rig(folder, products(folder / "undisturbed"))


def products(out: Path) -> dict[str, str]:
    """Files of a delivered folder but for the log, by their SHA-256."""
    found = (p for p in sorted(out.rglob("*")) if p.is_file() and p.name not in journal.UNSEALED)
    return {str(p.relative_to(out)): journal.sha256(p) for p in found}


def said(result: subprocess.CompletedProcess[str]) -> str:
    """The code that a failed command says; a traceback is none."""
    assert "Traceback" not in result.stderr, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("aftermap: ") and line.endswith("]")]
    return lines[-1].rpartition("[")[2].rstrip("]") if lines else ""
