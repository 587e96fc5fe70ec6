"""What mapping costs beside its limits: time to --help, and peak memory on a small and a large simulated pair.

Run:     python benchmarks/footprint.py [--sizes 4000,12000]
Writes:  benchmarks/results/footprint.md
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import click

RESULTS = Path(__file__).parent / "results"
HELP_LIMIT_S, MEMORY_LIMIT_MB, GROWTH_LIMIT = 0.3, 1200, 1.10


def aftermap(*args: str | Path) -> None:
    """Runs the command line as a process of its own."""
    subprocess.run([sys.executable, "-m", "aftermap", *map(str, args)], check=True, stdout=subprocess.DEVNULL)


def help_seconds(runs: int = 9) -> float:
    """Median wall time of `aftermap --help`, whole process."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        aftermap("--help")
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def map_pair(folder: Path, size: int) -> dict[str, float]:
    """Peak memory (MB) and seconds of mapping a simulated before/after pair of two float32 bands with all products."""
    scene, out = folder / f"scene{size}", folder / f"map{size}"
    aftermap("simulate", "flood", "-o", scene, "--size", str(size), "--quiet")
    files = ("--after", scene / "after.tif", "--before", scene / "before.tif")
    aftermap("map", *files, "--hazard", "flood", "-o", out, "--quiet")
    log: dict[str, float] = json.loads((out / "log.json").read_text())
    return log


@click.command()
@click.option("--sizes", default="4000,12000", show_default=True)
def main(sizes: str) -> None:
    """Measure, compare with the limits, and write the table."""
    shown = help_seconds()
    with tempfile.TemporaryDirectory() as folder:
        logs = {size: map_pair(Path(folder), size) for size in map(int, sizes.split(","))}
    peaks = [log["peak_memory_mb"] for log in logs.values()]
    lines = [
        "# Footprint",
        "",
        f"{date.today().isoformat()}, {platform.machine()}, {logs[max(logs)]['cores']:.0f} cores, "
        f"`python benchmarks/footprint.py --sizes {sizes}`",
        "",
        f"`aftermap --help`, whole process, median of 9: **{shown:.3f} s** (limit {HELP_LIMIT_S} s)",
        "",
        "Mapping a simulated before/after pair, VV and VH, float32, `--memory 1000`, three methods and all products:",
        "",
        "| pixels | peak memory MB | limit MB | Mpx/s end to end |",
        "|---|---|---|---|",
        *(
            f"| {n:,} x {n:,} | {log['peak_memory_mb']:.0f} | {MEMORY_LIMIT_MB} | {n * n / 1e6 / log['seconds']:.2f} |"
            for n, log in logs.items()
        ),
        "",
        f"Peak memory of the largest over the smallest: **{peaks[-1] / peaks[0]:.3f}** (limit {GROWTH_LIMIT})",
        "",
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "footprint.md").write_text("\n".join(lines))
    click.echo("\n".join(lines))
    if shown > HELP_LIMIT_S or max(peaks) > MEMORY_LIMIT_MB or peaks[-1] / peaks[0] > GROWTH_LIMIT:
        sys.exit(1)


if __name__ == "__main__":
    main()
