"""A mosaic of 100,000 x 100,000 px planned whole and run for a share, by items and two workers: seconds, bytes, what grows.

Nothing of that size is written: one simulated pair of 2,048 px lies side by side (continent_scene.py). Runs are of the whole,
stopped after a share of reading or mapping, and of a square of a hundredth of it, whole, for delivery comes last.

Run:     python -m benchmarks.continent --work DIR
Writes:  benchmarks/results/continent.md
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from benchmarks.continent_page import FAST, MEMORY_MB, SMALL_PX, grows, kept, memory, planned, seconds
from benchmarks.continent_runs import run
from benchmarks.continent_scene import fill, world
from benchmarks.sar_landslides_table import measured

RESULTS = Path(__file__).parent / "results"

HEAD = """# A continent's worth

{measured} `python -m benchmarks.continent {words}`, {minutes:.0f} minutes; load of the machine {before} before and {after}
after, of which this is some 2: other work ran beside it, so processor seconds say more than a clock. {side:,} x {side:,} px of
10 m, 1,000 x 1,000 km: a simulated Sentinel-1 pair of 2,048 px, VV and VH, in linear power, side by side, {items} items of
205 km, of local files: no network is in these figures. One client, one scheduler and two workers of one thread, each its own
process, `--memory {memory}`. No elevation, reference water or low-sensitivity layer lies beside; a real `find` adds them.

Whole of it was planned; {read:.0%} of the windows were read, {mapped:.0%} of the blocks mapped by `{fast}` and {auto:.0%} by
`auto` (all methods and `flood-s1`), always the first of the plan. For the mapping all {cells:,} windows were there beforehand:
links to those of the first tile. A square of {small:,} x {small:,} px was read, mapped and delivered whole.
"""


@click.command()
@click.option("--work", type=click.Path(file_okay=False, path_type=Path), required=True, help="Keeps the simulated pair.")
@click.option("--size", default=100_000, show_default=True, help="Side of the whole, in pixels.")
@click.option("--read", default=0.01, show_default=True, help="Share of the windows that is read.")
@click.option("--mapped", default=0.05, show_default=True, help=f"Share of the blocks that is mapped by {FAST}.")
@click.option("--auto", default=0.01, show_default=True, help="Share of the blocks that is mapped by auto.")
def main(work: Path, size: int, read: float, mapped: float, auto: float) -> None:
    """As the module says."""
    began, before = time.time(), os.getloadavg()[0]
    made = world(work, size)
    items, small = made.event(size), made.event(SMALL_PX)
    lines = list(planned(items, work / "tile", size))
    runs = {"whole": run(work / "whole", small, work / "windows-small", method=FAST)}
    runs["read"] = run(work / "read", items, work / "windows-read", method=FAST, stop=("fetch", read))
    cells = fill(items, work / "windows-small", work / "windows")
    for name, method, share in (("map", FAST, mapped), ("auto", "auto", auto)):
        runs[name] = run(work / name, items, work / "windows", method=method, stop=("map", share))
    tables = (memory(runs), seconds(size, runs), kept(size, made, runs), grows(work, items, small, size, runs["whole"].out))
    for table in tables:
        lines += ["", *table]
    text = HEAD.format(
        measured=measured(), words=f"--read {read} --mapped {mapped} --auto {auto}", minutes=(time.time() - began) / 60,
        before=f"{before:.1f}", after=f"{os.getloadavg()[0]:.1f}", side=size, items=2 * len(made.items["after"]),
        memory=MEMORY_MB, read=read, mapped=mapped, auto=auto, fast=FAST, cells=cells, small=SMALL_PX,
    )  # fmt: skip
    text += "\n".join(lines) + "\n"
    (RESULTS / "continent.md").write_text(text, encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
