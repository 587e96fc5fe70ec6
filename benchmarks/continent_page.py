"""Tables of the runs over a continent's worth: the plan, memory, seconds, bytes, and what grows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks import continent_growth as growth
from benchmarks.continent_growth import Cost, alone
from benchmarks.continent_runs import Ran, parts, stored
from benchmarks.continent_scene import TILE_PX, World

SMALL_PX, CELL_MPX, MEMORY_MB = 10_000, 1024**2 / 1e6, 1000
FAST = "sar-threshold"
"""The method that leads on such a pair, alone; "auto" runs all others and the bundled network beside it."""
MANY = 19_208
"""Windows of both dates."""
BEFORE = """What was found to grow and was mended on 27 November 2026, and what it took before, measured once: each window
compared with the area by itself (9.4 ms, or 90 s for a date), the outline of each unit cut at the antimeridian (19 ms a unit),
every window hashed at each start, and all windows in one virtual raster for each process to hold. The last two are measured again
below."""
STAGES = (
    ("read", "fetch", "reading, windows"),
    ("map", "map", f"mapping by {FAST}, blocks"),
    ("auto", "map", "mapping by auto, blocks"),
    ("whole", "deliver", "delivery of the square, windows"),
)
"""Run, its stage, and both in words."""


def row(*cells: object) -> str:
    """Of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def head(*cells: str) -> tuple[str, str]:
    """Of a table."""
    return row(*cells), row(*["---"] * len(cells))


def planned(items: Path, tile: Path, size: int) -> Iterator[str]:
    """The plan."""
    yield from ("", "## The plan", "", *head("what the client plans", "how many", "seconds", "MB"))
    cells = alone(growth.plan_cells, items)
    yield row("item file read, windows of both dates", f"{cells.more['cells']:,}", f"{cells.seconds:.1f}", f"{cells.mb:.1f}")
    units = alone(growth.plan_units, items, 1000)
    yield row("units of reading, as they are handed out", "1,000", f"{units.seconds:.1f}", f"{units.mb:.1f}")
    found = alone(growth.plan_blocks, tile, size, MEMORY_MB)
    yield row("blocks, each a unit of mapping", f"{found.more['blocks']:,}", f"{found.seconds:.2f}", f"{found.mb:.1f}")


def memory(runs: Mapping[str, Ran]) -> Iterator[str]:
    """Resident memory."""
    yield from ("## Memory", "")
    yield "Resident MB. Slope: for 1,000 units more, over the last two thirds, with its standard error if looks were independent;"
    yield "the last column goes on with it to the end of the plan, as if nothing filled up."
    yield from ("", *head("stage, units", "process", "done", "first third", "last third", "most", "slope", "at the end"))
    for key, stage, name in STAGES:
        last = runs[key].of(stage)[-1]
        for process, one in runs[key].trends(stage):
            if stage == "deliver" and process != "client":
                continue
            end = f"{one.at(last.whole - last.done):.0f}" if last.done < last.whole else "-"
            levels = (f"{mb:.0f}" for mb in (one.first_mb, one.last_mb, one.peak_mb))
            done = f"{last.done:,} of {last.whole:,}"
            yield row(name, process, done, *levels, f"{one.slope_mb:.1f} ± {one.error_mb:.1f}", end)


def block_mpx(size: int, runs: Mapping[str, Ran], key: str) -> float:
    """The mean block of a run over the whole."""
    return size**2 / 1e6 / runs[key].of("map")[-1].whole


def seconds(size: int, runs: Mapping[str, Ran]) -> Iterator[str]:
    """Of each stage."""
    yield from ("## Seconds", "")
    yield "Processor seconds are of all processes, and so those of one core. Mpx are of the map: a pair, two bands of each date."
    yield from ("", *head("stage", "Mpx", "seconds by the clock", "processor seconds for each Mpx"))
    mpx = {"read": CELL_MPX / 2, "map": block_mpx(size, runs, "map"), "auto": block_mpx(size, runs, "auto")}
    for key, stage, name in STAGES[:-1]:
        begin, end = runs[key].of(stage)[0], runs[key].of(stage)[-1]
        done = mpx[key] * (end.done if stage == "fetch" else parts(runs[key])[0])
        spent = runs[key].cpu_s(begin.when, end.when)
        yield row(name.partition(",")[0], f"{done:.0f}", f"{end.when - begin.when:.0f}", f"{spent / done:.3f}")
    whole, square = runs["whole"], SMALL_PX**2 / 1e6
    times = whole.at("map", -1), whole.at("deliver", -1), whole.at("end")
    for name, start, stop in (("outlines, in two passes", *times[:2]), ("rasters, package and report", *times[1:])):
        spent = whole.cpu_s(start, stop) / square
        yield row(f"delivery: {name}, by the client alone", f"{square:.0f}", f"{stop - start:.0f}", f"{spent:.3f}")
    yield from ("", *head("before the first block, by the client alone", "whole size, s", "square, s"))
    for name, first, last in (("imports, plan, windows that are there", ("start", 0), ("fetch", 0)),
                              ("virtual rasters written and opened, images sampled and checked", ("fetch", -1), ("prepare", 0)),
                              ("first pass of the method", ("prepare", 0), ("map", 0))):  # fmt: skip
        yield row(name, *(f"{one.at(*last) - one.at(*first):.1f}" for one in (runs["map"], whole)))


def kept(size: int, made: World, runs: Mapping[str, Ran]) -> Iterator[str]:
    """Bytes."""
    square, whole = SMALL_PX**2 / 1e6, runs["whole"].out
    yield from ("## Bytes", "", *head("kept", "MB for each Mpx"))
    yield row("in the catalog: both dates as Cloud Optimized GeoTIFF, deflated", f"{2 * made.cog_bytes / TILE_PX**2:.2f}")
    yield row("windows of both dates", f"{stored(made.folder / 'windows-small', '*.tif') / square / 1e6:.2f}")
    for key, name in (("map", FAST), ("auto", "auto")):
        count, held = parts(runs[key])
        yield row(
            f"finished blocks by {name}, until they are delivered", f"{held / 1e6 / count / block_mpx(size, runs, key):.2f}"
        )
    yield row(f"products by {FAST}", f"{stored(whole) / square / 1e6:.3f}")
    for path in sorted((p for p in whole.rglob("*") if p.is_file()), key=lambda p: -p.stat().st_size)[:5]:
        yield row(f"of these {path.name}", f"{path.stat().st_size / square / 1e6:.3f}")


def grows(work: Path, items: Path, small: Path, size: int, mapped: Path) -> Iterator[str]:
    """What may grow, each by itself."""
    yield from ("## What grows", "", BEFORE, "", "Each in a process of its own; MB are those that it holds more afterwards.", "")
    yield from head("what", "smaller", "larger")
    few, many = (growth.flat_virtual(at, work / f"windows{end}", "flat.vrt") for at, end in ((small, "-small"), (items, "")))
    for name, larger in (("one file", many), ("in squares of 16 x 16 windows", many.with_name("after.vrt"))):
        costs = [alone(growth.read_virtual, few, SMALL_PX), alone(growth.read_virtual, larger, size)]
        yield row(f"virtual raster of 100 and of {MANY // 2:,} windows, {name}", *map(_opened, costs))
    costs = [alone(growth.start_store, path.parent, False) for path in (few, many)]
    yield row("start over windows that nobody touched, one date", *(_said(c, "windows") for c in costs))
    yield row("the same where all are hashed", *_hashed(alone(growth.start_store, few.parent, True)))
    yield row("windows written down", *(_said(alone(growth.add_lines, work / "lines", n), "windows") for n in (200, MANY)))
    yield row(
        "outlines, both passes, of the extent side by side",
        *(_outlined(alone(growth.outline_all, mapped, n)) for n in (4096, 16_384)),
    )
    counts = (50, 100, 150, 200)
    held = alone(growth.map_in_turn, work / "map" / "out", work / "again", counts).more["mb"]
    words = [f"{mb:.0f} MB after {count}" for count, mb in zip(counts, held, strict=True)]
    yield row(f"blocks by {FAST}, one process in turn", ", ".join(words[:2]), ", ".join(words[2:]))
    yield from _handed(work, items)


def _opened(cost: Cost) -> str:
    opened, read = (1000 * cost.more[name] for name in ("open_s", "read_s"))
    return f"opened in {opened:.0f} ms, a square of {growth.READ_PX:,} px read in {read:.0f} ms, {cost.mb:.0f} MB"


def _said(cost: Cost, what: str) -> str:
    return f"{cost.more[what]:,} in {cost.seconds:.2f} s"


def _hashed(cost: Cost) -> tuple[str, str]:
    many = MANY / cost.more["windows"]
    whole = f"{MANY:,} by this {cost.seconds * many:.0f} s and {cost.more['bytes'] * many / 1e9:.0f} GB at each start"
    return f"{_said(cost, 'windows')}, {cost.more['bytes'] / 1e6:.0f} MB, from memory", whole


def _outlined(cost: Cost) -> str:
    told = cost.more
    held = f"{cost.mb:.0f} MB, census {told['census_mb']:.2f} MB"
    return f"{told['windows']} windows: {cost.seconds:.0f} s, {held}, {told['polygons']:,} polygons"


def _handed(work: Path, items: Path) -> Iterator[str]:
    counts = (500, 2000, 6000)
    cost = alone(growth.hand, work / "dask", items, counts)
    each = f"{1000 * cost.seconds / counts[-1]:.1f} ms each"
    for process in cost.more["mb"][0]:
        held = [f"{mb[process]:.0f} MB after {count:,}" for count, mb in zip(counts, cost.more["mb"], strict=True)]
        yield row(f"units in which nothing is read, {each}: {process}", ", ".join(held[:2]), held[2])
