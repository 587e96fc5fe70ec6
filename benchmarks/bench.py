"""This package beside its peers: one run, one machine, the same weights and scene; and what share of the limit it reaches.

Run:     make bench           16 and 120 Mpx, an hour or more; --folder keeps what is done, and a run goes on there
         make bench-quick     4 Mpx, five minutes, and three more the first time, for a network is trained
Writes:  benchmarks/results/bench.md, bench.csv and bench.jpg; bench-quick.md with --quick

Every row is a process of its own, timed whole: imports, weights, reading, tiles, writing of likelihood and extent. Peers run in
an environment of their own (`make build/foundation/ready`); without it they are left out, and the page says so. A row is the
median of --repeats runs, by the seconds of a clock; on larger scenes than the first it is one run.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import rasterio

from aftermap.engine import NEAR, SHARE, agreement, has_bf16
from aftermap.export import Graph
from aftermap.journal import write_json
from aftermap.model import load
from aftermap.torchdoor import torch
from benchmarks.bench_figure import draw
from benchmarks.bench_growth import growth, growth_lines, raw, startup, startup_lines
from benchmarks.network import aftermap, crop, gemm, kflop_per_px, prepare
from benchmarks.sar_landslides_table import measured

ROOT = Path(__file__).parent.parent
RESULTS, PEERS = Path(__file__).parent / "results", ROOT / "build" / "foundation" / "bin" / "python"
SIZES, QUICK_SIZES, AGREE_PX = (4000, 10_980), (2048,), 4000
LONGEST_S, DEFAULTS = 1800, "terratorch-defaults"
Row = dict[str, Any]


class Way(NamedTuple):
    """One way to map a scene."""

    name: str
    command: tuple[str, ...]
    ceiling: str
    """The matrices that it is held against."""
    peer: bool = False
    given: bool = False
    """Whether somebody had to give it what it does not do by itself."""


def ways() -> list[Way]:
    """Those of this machine."""
    map_ = (
        sys.executable,
        "-m",
        "aftermap",
        "map",
        "--hazard",
        "flood",
        "--no-baseline",
        "--only",
        "likelihood,extent",
        "--quiet",
    )
    best = "bfloat16" if has_bf16() else "float32"
    found = [
        Way("aftermap", map_, best),
        Way("aftermap, OpenVINO fp32", (*map_, "--precision", "f32"), "float32"),
        Way(
            "aftermap, ONNX Runtime fp32", (*map_, "--engine", "onnxruntime", "--precision", "f32", "--memory", "1300"), "float32"
        ),
        Way("plain torch loop", (sys.executable, "-m", "benchmarks.peer_ways", "loop"), "float32"),
        Way(
            "plain torch loop, given bf16",
            (sys.executable, "-m", "benchmarks.peer_ways", "loop", "--bf16"),
            "bfloat16",
            given=True,
        ),
    ]
    for peer in ("torchgeo", "terratorch", DEFAULTS):
        own = (str(PEERS), "-m", "benchmarks.peer_ways", peer)
        found.append(Way(peer, own, "float32", peer=True))
        if peer != DEFAULTS:
            found.append(Way(f"{peer}, given bf16", (*own, "--bf16"), "bfloat16", peer=True, given=True))
    return found


def run(way: Way, image: Path, model: Path, out: Path, *more: str) -> Row:
    """One map: seconds by the clock and of the processor, peak memory in MB; or why there is none."""
    shutil.rmtree(out, ignore_errors=True)
    ours = "aftermap" in way.command
    args = ["--after", str(image), "--model", str(model), "-o", str(out)] if ours else [str(image), str(model), str(out)]
    began = time.perf_counter()
    process = subprocess.Popen([*way.command, *args, *more], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    peak = _peak(process)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        return {"failed": f"ended with {os.waitstatus_to_exitcode(status)} after {seconds:.0f} s"}
    return {"wall_s": seconds, "cpu_s": used.ru_utime + used.ru_stime, "peak_mb": peak, "load": os.getloadavg()[0]}


def _peak(process: subprocess.Popen[bytes]) -> float:
    """The most that it has had resident, in MB, looked at until it ends: its children start as copies of this process."""
    status, found, began = Path(f"/proc/{process.pid}/status"), 0, time.perf_counter()
    while time.perf_counter() - began < LONGEST_S:
        try:
            line = next((one for one in status.read_text().splitlines() if one.startswith("VmHWM")), None)
        except OSError:
            break
        if line is None:
            return found / 1024
        found = int(line.split()[1])
        time.sleep(0.05)
    else:
        process.kill()
    return found / 1024


def agreed(way: Way, image: Path, model: Path, out: Path, whole: Callable[[], Any]) -> Row:
    """Its scores and extent beside those of the whole image at once, by torch in fp32."""
    ours = "aftermap" in way.command
    ended = run(way, image, model, out, "--keep-scores")
    if "failed" in ended:
        return ended
    if ours:
        with rasterio.open(out / "score.tif") as source:
            scores = source.read(1)
    else:
        scores = np.load(out / "score.npy")
    seen = np.isfinite(scores)  # what a scene lacks is not analysed by this package, and guessed by the others
    scores, exact = scores[seen], whole()[seen]
    here, there = scores > 0.5, exact > 0.5
    return {
        "near": agreement(exact, scores), "largest": float(np.abs(exact - scores).max()),
        "iou": float((here & there).sum() / (here | there).sum()),
    }  # fmt: skip


def at_once(image: Path, model: Path) -> Any:
    """The scores (y, x) of a whole image in one pass."""
    network, card = load(model)
    with rasterio.open(image) as source, torch.no_grad():
        return Graph(network, card.mean, card.std).eval()(torch.from_numpy(source.read())[None])[0, 0].numpy()


class Kept:
    """Rows by name, each measured once and written down at once."""

    def __init__(self, path: Path):
        self._path = path
        self.rows: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def __call__(self, name: str, act: Callable[[], Any]) -> Any:
        """What `act` gives, or gave."""
        if name not in self.rows:
            self.rows[name] = act()
            write_json(self._path, self.rows)
            click.echo(f"{name}: {self.rows[name]}", err=True)
        return self.rows[name]


def medians(rows: Sequence[Row]) -> Row:
    """Of every number; or why there is none."""
    lost = next((one for one in rows if "failed" in one), None)
    return lost or {key: statistics.median(one[key] for one in rows) for key in rows[0]}


def compare(rows: Kept, folder: Path, model: Path, sizes: Sequence[int], repeats: int, *, quick: bool) -> list[Row]:
    """Each way on each scene, in the quick form all but one; peers that are not installed, and bf16 that only slows down, with
    the reason."""
    found: list[Row] = []
    for size in sizes:
        image = scene(folder, size)
        for way in (one for one in ways() if not (quick and one.name == DEFAULTS)):
            row: Row = {
                "way": way.name,
                "mpx": round(size**2 / 1e6, 1),
                "ceiling": way.ceiling,
                "peer": way.peer,
                "given": way.given,
            }
            if way.peer and not PEERS.exists():
                row["failed"] = "not installed here"
            elif size > sizes[0] and (why := _left_out(found, way)):
                row["failed"] = why
            else:
                many = repeats if size == sizes[0] else 1
                each = [rows(f"{way.name}, {size} px, {n}", partial(run, way, image, model, folder / "out")) for n in range(many)]
                row |= medians(each) | {"runs": many}
            found.append(row)
    return found


def _left_out(rows: Sequence[Row], way: Way) -> str:
    """Why a way is not run on a larger scene, by how it did on the first: an hour buys peers as their users run them, the fastest
    of them given bf16, and this package as it chooses by itself."""
    first = [row for row in rows if row["mpx"] == rows[0]["mpx"] and "wall_s" in row]
    given = min((row for row in first if row["given"]), key=lambda row: float(row["wall_s"]), default=rows[0])
    if way.given:
        return "" if way.name == given["way"] else f"slower than {given['way']} on {rows[0]['mpx']:g} Mpx: not run"
    return "" if way.name in ("aftermap", "torchgeo", "terratorch") else "not run on this scene"


def scene(folder: Path, size: int) -> Path:
    """The image of that size: simulated, or the corner of the largest that is there."""
    own = folder / f"scene-{size}" / "after.tif"
    larger = next((p for p in sorted(folder.glob("scene-*/after.tif"), key=lambda p: p.stat().st_size) if _side(p) > size), None)
    if own.exists() or larger is None:
        return prepare(folder, size)[0]
    own.parent.mkdir()
    return crop(larger, size, own)


def _side(image: Path) -> int:
    with rasterio.open(image) as source:
        return int(source.width)


def lines_of(found: Sequence[Row], limits: Row) -> list[str]:
    """The table, each scene held against the fastest peer as its users run it."""
    told = [
        "| scene | way | s | CPU s | peak MB | Mpx/s | to the fastest peer | share of its ceiling | load |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        if "failed" in row:
            told.append(f"| {row['mpx']:g} Mpx | {row['way']} | {row['failed']} | | | | | | |")
            continue
        speed = row["mpx"] / row["wall_s"]
        share = speed * limits["kflop_per_px"] / limits[row["ceiling"]]["wall"]
        told.append(
            f"| {row['mpx']:g} Mpx | {row['way']} | {row['wall_s']:.1f} | {row['cpu_s']:.1f} "
            f"| {row['peak_mb']:.0f} | {speed:.2f} | {_ratio(found, row, speed)} | {share:.0%} of {row['ceiling']} "
            f"| {row['load']:.1f} |"
        )
    return told


def _ratio(found: Sequence[Row], row: Row, speed: float) -> str:
    peers = [
        one["mpx"] / one["wall_s"]
        for one in found
        if one["mpx"] == row["mpx"] and one["peer"] and not one["given"] and "wall_s" in one
    ]
    return f"**{speed / max(peers):.1f}**" if peers else "-"


def agreement_lines(rows: Kept, folder: Path, model: Path, side: int, *, quick: bool) -> list[str]:
    """Each way beside the whole image at once; in the quick form as their users run them."""
    image = scene(folder, side)
    whole = cache(partial(at_once, image, model))
    told = ["| way | within 0.02 | at most apart | IoU of extents |", "|---|---|---|---|"]
    for way in ways():
        name = f"{way.name}, agreement, {side} px"
        if (
            (way.peer and not PEERS.exists())
            or way.name == DEFAULTS
            or (quick and (way.given or way.name.startswith("aftermap,")))
        ):
            continue
        row = rows(name, partial(agreed, way, image, model, folder / "out", whole))
        if "failed" not in row:
            told.append(f"| {way.name} | {row['near']:.3%} | {row['largest']:.3f} | {row['iou']:.4f} |")
    return told


@click.command()
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="Where scenes, model and rows are kept.")
@click.option("--quick", is_flag=True, help="4 Mpx, one run each, no growth.")
@click.option("--side", "sides", type=int, multiple=True, help="Of the scenes, in pixels; by default 4000 and 10980.")
@click.option("--repeats", default=3, show_default=True, help="Runs of each row; once on larger scenes than the first.")
@click.option("--growth/--no-growth", "grown", default=True, help="Whether cost is followed over sizes, members and workers.")
def main(folder: Path | None, quick: bool, sides: tuple[int, ...], repeats: int, grown: bool) -> None:
    """Measure, and write the page."""
    sides = QUICK_SIZES if quick else sides or SIZES
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            measure(Path(temporary), sides, quick=quick, repeats=repeats, grown=grown and not quick)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        measure(folder, sides, quick=quick, repeats=repeats, grown=grown and not quick)


def measure(folder: Path, sizes: Sequence[int], *, quick: bool, repeats: int, grown: bool) -> None:
    """Every row, those that are there taken over."""
    name, rows = "bench-quick" if quick else "bench", Kept(folder / f"rows{'-quick' * quick}.json")
    model = prepare(folder, max(sizes))[1]
    if not (model / "graph.onnx").exists():
        aftermap("export", model, "--format", "onnx")
    limits: Row = {"kflop_per_px": rows("kflop_per_px", lambda: kflop_per_px(model))}
    limits |= {k: rows(f"gemm {k}", partial(gemm, getattr(torch, k))) for k in ("float32", "bfloat16", "int8")}
    limits["raw"] = rows("raw", lambda: raw(scene(folder, sizes[-1]), folder / "raw"))
    found = compare(rows, folder, model, sizes, 1 if quick else repeats, quick=quick)
    near = agreement_lines(rows, folder, model, QUICK_SIZES[0] if quick else AGREE_PX, quick=quick)
    command = " ".join(["python -m benchmarks.bench", *(one for one in sys.argv[1:] if one not in ("--folder", str(folder)))])
    text = [*HEAD.format(
        measured=measured(), command=command, kflop=limits["kflop_per_px"], f32=limits["float32"]["wall"],
        bf16=limits["bfloat16"]["wall"], int8=limits["int8"]["wall"], mpx=limits["raw"]["mpx"] / limits["raw"]["wall_s"],
    ).splitlines(), "", *([] if quick else ["![speed and memory](bench.jpg)", ""]),
        *lines_of(found, limits), "", NEARNESS.format(near=NEAR, share=SHARE), "", *near]  # fmt: skip
    text += ["", "## Start-up", "", *startup_lines(rows("start-up", lambda: startup(folder, 5 if quick else 9)))]
    if grown:
        text += ["", "## Growth", "", *growth_lines(growth(rows, folder))]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text("\n".join([*text, ""]), encoding="utf-8")
    if not quick:
        ceilings = {k: limits[k]["wall"] / limits["kflop_per_px"] for k in ("float32", "bfloat16")}
        draw(RESULTS / "bench.jpg", [row for row in found if "failed" not in row], ceilings)
        with (RESULTS / "bench.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(key for row in found for key in row)))
            writer.writeheader()
            writer.writerows(found)
    click.echo("\n".join(text))


HEAD = """# Beside peers, and beside the limit

{measured} `{command}`. One image of two bands in float32, U-Net with ResNet-34 of
{kflop:.0f} kFLOP per pixel, the same weights for all; likelihood and extent, the whole process by the clock, imports and files
included. Peers as their users run them: torch in fp32, tiles of 512 px at a stride of 448, batches of 4 (terratorch-defaults:
its own 224 px at 192, 16). "Given bf16": by autocast and channels last, which none of them does by itself. The ceiling is what
large matrices reach here: {f32:.0f} GFLOP/s in fp32, {bf16:.0f} in bf16, {int8:.0f} in int8 ([not taken](int8.md)). Reading
the image and writing two rasters of its size by rasterio alone runs at {mpx:.0f} Mpx/s. Load is that of the machine when a row
ended: what lies above 2 is other work.
"""
NEARNESS = """Scores beside those of the whole image at once in fp32: within {near} on at least {share:.1%} of pixels is wanted,
and extents at IoU 0.99."""

if __name__ == "__main__":
    main()
