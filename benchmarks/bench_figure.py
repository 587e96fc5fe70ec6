"""Speed and memory of each way to map a scene, as bars: benchmarks/results/bench.jpg."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

OURS, GIVEN, OTHERS = "#0072b2", "#e69f00", "#999999"
"""Of Okabe and Ito: this package, peers that were given bf16, and what else there is."""


def draw(path: Path, rows: Sequence[Mapping[str, Any]], ceilings: Mapping[str, float]) -> None:
    """Of rows with "way", "mpx", "wall_s", "peak_mb", "given"; `ceilings` in Mpx/s by precision, as matrices have it."""
    sizes = sorted({row["mpx"] for row in rows})
    figure = Figure(figsize=(11, 1.2 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots(len(sizes), 2, squeeze=False, gridspec_kw={"height_ratios": [_count(rows, size) for size in sizes]})
    for (speed, memory), size in zip(axes, sizes, strict=True):
        own = sorted((row for row in rows if row["mpx"] == size), key=lambda row: float(row["wall_s"]), reverse=True)
        names, colours = [row["way"] for row in own], [_colour(row) for row in own]
        mpx_s = [size / row["wall_s"] for row in own]
        speed.barh(names, mpx_s, color=colours)
        memory.barh(names, [row["peak_mb"] / 1000 for row in own], color=colours)
        for place, value in enumerate(mpx_s):
            speed.text(value, place, f" {value:.2f}", va="center", fontsize=8)
        for precision, limit in ceilings.items():
            speed.axvline(limit, color="black", linewidth=0.8, linestyle=":")
            speed.text(limit, -0.5, f"{precision} matrices", rotation=90, va="bottom", ha="right", fontsize=7)
        memory.tick_params(labelleft=False)
        speed.set_title(f"{size:g} Mpx: Mpx/s, the whole process", fontsize=9)
        memory.set_title("peak memory, GB", fontsize=9)
        for one in (speed, memory):
            one.spines[["top", "right"]].set_visible(False)
            one.tick_params(labelsize=8)
    figure.savefig(path, dpi=110, pil_kwargs={"quality": 88})


def _count(rows: Sequence[Mapping[str, Any]], size: float) -> int:
    return sum(row["mpx"] == size for row in rows)


def _colour(row: Mapping[str, Any]) -> str:
    return OURS if row["way"].startswith("aftermap") else GIVEN if row["given"] else OTHERS
