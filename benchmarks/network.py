"""The network as it maps: a whole scene end to end, beside a plain torch loop with the same weights and the processor's ceiling.

Run:     python benchmarks/network.py [--size 10980] [--folder DIR]   (DIR keeps scene, model and rows: a run goes on there)
Writes:  benchmarks/results/network.md and network.csv

The network is a U-Net with ResNet-34, trained shortly on another simulated flood, so that its scores spread. "CPU" is what the
process itself computed, on all cores: unlike wall time it hardly depends on what else the machine does.
"""

from __future__ import annotations

import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.windows import Window as RasterWindow
from torch.utils.flop_counter import FlopCounterMode

from aftermap.engine import NEAR, SHARE, Network, agreement
from aftermap.export import Graph
from aftermap.journal import write_json
from aftermap.model import load
from aftermap.seamless import Tiling
from aftermap.tiles import starts, taper
from aftermap.torchdoor import torch

F32 = npt.NDArray[np.float32]
RESULTS = Path(__file__).parent / "results"
PART_PX, AGREE_PX, GEMM_PX = 2048, 4000, 4096
"""Sides of what the torch loop maps, of what is compared with one whole image, and of the matrices."""
CORES, REPEATS = os.cpu_count() or 1, 3
LEAST_RATIO = 5.0
RUNS: dict[str, tuple[str, ...]] = {"all products": (), "likelihood and extent": ("--only", "likelihood,extent")}
Row = dict[str, Any]


def aftermap(*args: str | Path) -> Row:
    """Runs the command line as a process of its own: seconds of wall and of CPU, and its peak memory in MB."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "aftermap", *map(str, args)], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"aftermap {args[0]} failed")
    return {"wall_s": time.perf_counter() - began, "cpu_s": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024}


def prepare(folder: Path, size: int) -> tuple[Path, Path]:
    """The scene, and the folder of a network trained on another one; made unless they are there."""
    scene, learn, model = folder / f"scene-{size}", folder / "learn", folder / "model"
    for where, px, seed in ((scene, size, 0), (learn, 2048, 1)):
        if not (where / "after.tif").exists():
            aftermap("simulate", "flood", "-o", where, "--size", str(px), "--seed", str(seed), "--quiet")
    if not (model / "model.toml").exists():
        chips = ("--after", learn / "after.tif", "--truth", learn / "truth.tif", "--size", "128", "--split", "blocks")
        aftermap("chips", *chips, "-o", folder / "chips", "--quiet")
        network = ("--encoder", "resnet34", "--decoder", "unet", "--epochs", "4", "--batch", "8")
        aftermap("train", "--data", folder / "chips", "--hazard", "flood", *network, "-o", model, "--quiet")
    return scene / "after.tif", model


def crop(source: Path, side: int, out: Path) -> Path:
    """The upper left corner of an image, with its tags."""
    with rasterio.open(source) as given:
        profile = given.profile | {"height": side, "width": side}
        with rasterio.open(out, "w", **profile) as made:
            made.write(given.read(window=RasterWindow(0, 0, side, side)))
            made.update_tags(**given.tags())
            for band, name in enumerate(given.descriptions, 1):
                made.set_band_description(band, name)
                made.update_tags(band, **given.tags(band))
    return out


def mapped(image: Path, model: Path, *args: str) -> Row:
    """One mapping by the network alone, end to end."""
    with tempfile.TemporaryDirectory() as scratch:
        return aftermap(
            "map", "--after", image, "--hazard", "flood", "--model", model, "--no-baseline", "-o", Path(scratch) / "out",
            *args, "--quiet",
        )  # fmt: skip


def torch_loop(image: Path, model: Path, side: int, out: Path) -> Row:
    """What one would write by hand: the same tiles, weights and blending, in fp32, one tile at a time on all cores."""
    torch.set_num_threads(CORES)
    began, used = time.perf_counter(), time.process_time()
    network, card = load(model)
    graph = Graph(network, card.mean, card.std).eval()
    tiling = Tiling.of(Network.open(model, precision="f32"))
    total, weight = np.zeros((side, side), np.float32), np.zeros((side, side), np.float32)
    begins = starts(side, tiling.size, tiling.stride)
    with rasterio.open(image) as source, torch.no_grad():
        for row in begins:
            for col in begins:
                pixels = source.read(window=RasterWindow(col, row, tiling.size, tiling.size))
                scores = graph(torch.from_numpy(pixels)[None])[0, 0].numpy()
                wy, wx = (
                    taper(tiling.size, trim=tiling.trim, ramp=tiling.blend, at_start=s == 0, at_end=s == begins[-1])
                    for s in (row, col)
                )
                shares = (wy[:, None] * wx[None, :]).astype(np.float32)
                at = slice(row, row + tiling.size), slice(col, col + tiling.size)
                total[at] += scores * shares
                weight[at] += shares
        profile = source.profile | {"count": 1, "height": side, "width": side}
    with rasterio.open(out, "w", **profile) as target:
        target.write((total / weight)[None])
    return {"wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - used, "tiles": len(begins) ** 2}


def gemm(dtype: Any) -> Row:
    """GFLOP/s (of int8 GOP/s) of large matrices, median."""
    torch.set_num_threads(CORES)
    a, b = (torch.randn(GEMM_PX, GEMM_PX).to(dtype) for _ in range(2))
    walls, cpus, product = [], [], torch._int_mm if dtype == torch.int8 else torch.matmul
    for _ in range(2 * REPEATS + 1):
        began, used = time.perf_counter(), time.process_time()
        product(a, b)
        walls.append(time.perf_counter() - began)
        cpus.append(time.process_time() - used)
    work = 2 * GEMM_PX**3 / 1e9
    return {"wall": work / statistics.median(walls[1:]), "cpu": CORES * work / statistics.median(cpus[1:])}


def kflop_per_px(model: Path) -> float:
    """Of the convolutions and matrix products, two for each multiplication with its addition."""
    network, card = load(model)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, len(card.mean), 512, 512))
    return float(counter.get_total_flops() / 512**2 / 1e3)


def agreed(image: Path, model: Path, side: int) -> Row:
    """The map's scores beside those of the whole image at once, by torch in fp32."""
    with tempfile.TemporaryDirectory() as scratch:
        out, part = Path(scratch) / "out", crop(image, side, Path(scratch) / "part.tif")
        aftermap(
            "map", "--after", part, "--hazard", "flood", "--model", model, "--no-baseline", "-o", out, "--keep-scores",
            "--only", "likelihood", "--quiet",
        )  # fmt: skip
        with rasterio.open(out / "score.tif") as source:
            scores = source.read(1)
        precision = json.loads((out / "run.json").read_text())["methods"]["ran"]["model"]["precision"]
        network, card = load(model)
        with rasterio.open(part) as source, torch.no_grad():
            whole = Graph(network, card.mean, card.std).eval()(torch.from_numpy(source.read())[None])[0, 0].numpy()
    seen = np.isfinite(scores)
    scores, whole = scores[seen], whole[seen]
    ours, theirs = scores > 0.5, whole > 0.5
    return {
        "side": side, "analysed": float(seen.mean()), "precision": precision,
        "near": agreement(whole, scores), "largest": float(np.abs(whole - scores).max()),
        "iou": float((ours & theirs).sum() / (ours | theirs).sum()), "hazard": float(theirs.mean()),
        "quantiles": [float(q) for q in np.quantile(whole, (0.05, 0.5, 0.95))],
        "between": float(((whole > 0.05) & (whole < 0.95)).mean()),
    }  # fmt: skip


def measure(folder: Path, size: int, say: Callable[[str], None]) -> dict[str, Row]:
    """Every row, those of an earlier run taken over."""
    image, model = prepare(folder, size)
    path = folder / f"rows-{size}.json"
    rows: dict[str, Row] = json.loads(path.read_text()) if path.exists() else {}
    part = min(PART_PX, size)
    work: dict[str, Callable[[], Row]] = {
        "gemm float32": lambda: gemm(torch.float32),
        "gemm bfloat16": lambda: gemm(torch.bfloat16),
        "flops": lambda: {"kflop_per_px": kflop_per_px(model)},
    }
    work |= {f"map {name}": lambda args=args: mapped(image, model, *args) for name, args in RUNS.items()}  # type: ignore[misc]
    work |= {f"torch {n}": lambda: torch_loop(image, model, part, folder / "torch.tif") for n in range(REPEATS)}
    work["agreement"] = lambda: agreed(image, model, min(AGREE_PX, size // 32 * 32))
    for name, run in work.items():
        if name not in rows:
            rows[name] = run() | {"load": round(os.getloadavg()[0], 1)}
            write_json(path, rows)
        say(f"{name}: {rows[name]}")
    return rows


def table(rows: dict[str, Row], size: int) -> tuple[list[Row], list[str]]:
    """Rows of the CSV, and lines of the page."""
    part, kflop = min(PART_PX, size) ** 2 / 1e6, rows["flops"]["kflop_per_px"]
    loops = [rows[f"torch {n}"] for n in range(REPEATS)]
    loop = {k: statistics.median(one[k] for one in loops) for k in ("wall_s", "cpu_s", "load")}
    found: list[Row] = []
    runs = {"torch fp32 loop": (loop, part, "gemm float32")}
    runs |= {f"aftermap map, {n}": (rows[f"map {n}"], size**2 / 1e6, "gemm bfloat16") for n in RUNS}
    for name, (row, px, ceiling) in runs.items():
        speeds = {"wall": px / row["wall_s"], "cpu": CORES * px / row["cpu_s"]}
        found.append(
            {"run": name, "mpx": round(px, 1), "wall_s": round(row["wall_s"], 1), "cpu_s": round(row["cpu_s"], 1),
             "peak_mb": round(row["peak_mb"]) if "peak_mb" in row else "", "mpx_per_s": round(speeds["wall"], 3),
             "mpx_per_s_of_free_cores": round(speeds["cpu"], 3), "load": row["load"],
             "ceiling_share": round(speeds["cpu"] * kflop / rows[ceiling]["cpu"], 3)}
        )  # fmt: skip
    for row in found:
        for key, out in (("mpx_per_s", "ratio"), ("mpx_per_s_of_free_cores", "ratio_of_free_cores")):
            row[out] = round(row[key] / found[0][key], 1)
    lines = [
        "| run | Mpx | wall s | CPU s | peak MB | Mpx/s | ratio | Mpx/s by CPU | **ratio by CPU** | share of ceiling | load |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {r['run']} | {r['mpx']} | {r['wall_s']} | {r['cpu_s']} | {r['peak_mb'] or '-'} | {r['mpx_per_s']} | {r['ratio']} "
            f"| {r['mpx_per_s_of_free_cores']} | **{r['ratio_of_free_cores']}** | {r['ceiling_share']:.0%} | {r['load']} |"
            for r in found
        ),
    ]
    return found, lines


def page(rows: dict[str, Row], size: int) -> None:
    """Writes both files."""
    found, lines = table(rows, size)
    near, gemms = rows["agreement"], {k: rows[f"gemm {k}"] for k in ("float32", "bfloat16")}
    said = " and ".join(f"{v['wall']:.0f} ({v['cpu']:.0f} by CPU) in {k}" for k, v in gemms.items())
    part, kflop = min(PART_PX, size), rows["flops"]["kflop_per_px"]
    text = [
        "# The network as it maps",
        "",
        f"{date.today().isoformat()}, {CORES} cores, `python benchmarks/network.py --size {size}`. Load is that of the machine",
        f"(1 minute) when a row ended; what lies above {CORES} is other people's work, and wall times then say little.",
        f"By CPU: {CORES} times the pixels over the seconds that the process itself computed, as free cores would have it.",
        "",
        *lines,
        "",
        f"Wanted: a ratio of at least {LEAST_RATIO:g}. The torch loop maps the upper left {part} px of the same scene in",
        f"the same tiles, median of {REPEATS}, loading the weights included. U-Net with ResNet-34: {kflop:.0f} kFLOP per pixel.",
        f"Matrices of {GEMM_PX} px: {said} GFLOP/s. Share of ceiling: FLOP of the scene's pixels, each once, by CPU.",
        "",
        f"Scores of {near['side']} x {near['side']} px, mapped ({near['precision']}) beside the whole at once (torch, fp32):",
        f"within {NEAR} on **{near['near']:.3%}** of pixels (wanted {SHARE:.1%}), at most {near['largest']:.3f} apart; extents",
        f"at IoU **{near['iou']:.4f}**; {near['analysed']:.1%} analysed, {near['hazard']:.1%} above 0.5,",
        f"{near['between']:.1%} between 0.05 and 0.95;",
        "quantiles 5, 50, 95: " + ", ".join(f"{q:.3f}" for q in near["quantiles"]) + ".",
        "",
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "network.md").write_text("\n".join(text))
    with (RESULTS / "network.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, found[0])
        writer.writeheader()
        writer.writerows(found)


@click.command()
@click.option("--size", default=10_980, show_default=True, help="Pixels along each side of the scene.")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="Where scene, model and rows are kept.")
def main(size: int, folder: Path | None) -> None:
    """Measure, and write the tables."""
    with tempfile.TemporaryDirectory() as temporary:
        rows = measure(folder or Path(temporary), size, click.echo)
    page(rows, size)
    click.echo((RESULTS / "network.md").read_text())


if __name__ == "__main__":
    main()
