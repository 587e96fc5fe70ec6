"""Whether 8 bits would do: the bundled networks quantised after training, on real images, beside fp32 and bf16.

NNCF (Apache-2.0) quantises OpenVINO's graph: `pip install nncf`, no part of the package. Half of the images of a data set set the
ranges, the other half are compared. Speed is of one thread, by the seconds that the processor computed.

Run:     python -m benchmarks.int8 [--data ../shared/data]
Writes:  benchmarks/results/int8.md
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import numpy.typing as npt

from aftermap.adapt.crops import crops
from aftermap.card import BUNDLED
from aftermap.engine import NEAR, SHARE, Network, agreement, has_bf16
from aftermap.layer import Declared
from aftermap.readapt import IMAGES, Unlabelled
from aftermap.running import SCORES, alone, openvino
from benchmarks.sar_landslides_table import measured

F32 = npt.NDArray[np.float32]
RESULTS = Path(__file__).parent / "results"
SHOTS, SIDE_PX, TIMED, ENDS = 60, 256, 8, (1, 3)
REAL = {
    "flood-s1": "flood_sen1floods11/S1Hand", "landslide-rgb": "landslide_l4s_rgb/images",
    "building-rgb": "building_fair_ggaba/input", "fracture-grey": "glacier_fracture_antarctica/data_validset",
}  # fmt: skip
"""Model -> real images of its kind."""
CONVOLUTIONS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData")
Graph = Any


class Row(NamedTuple):
    """One network in one precision beside fp32: Mpx a processor second, and how near its scores are."""

    model: str
    way: str
    mpx_s: float
    near: float
    largest: float
    iou: float


def read(folder: Path) -> Graph:
    """The graph of scores alone."""
    return alone(openvino().Core().read_model(folder / "graph.xml"), SCORES)


def ways(folder: Path, known: Sequence[F32]) -> dict[str, tuple[Graph, str]]:
    """Graph and precision of each: all in 8 bits, and with so many convolutions at both ends left in floats."""
    nncf = import_module("nncf")
    nncf.set_log_level(logging.ERROR)
    found: dict[str, tuple[Graph, str]] = {"fp32": (read(folder), "f32")}
    rest = "bf16" if has_bf16() else "f32"
    if has_bf16():
        found["bf16"] = (read(folder), "bf16")
    names = [one.get_friendly_name() for one in read(folder).get_ordered_ops() if one.get_type_name() in CONVOLUTIONS]
    for ends in (0, *ENDS):
        kept = [*names[:ends], *names[-2 * ends :]] if ends else []
        scope = nncf.IgnoredScope(names=kept)
        graph = nncf.quantize(read(folder), nncf.Dataset(known), subset_size=len(known), ignored_scope=scope)
        found["int8" + (f", {len(kept)} of {len(names)} convolutions in {rest}" if ends else "")] = (graph, rest)
    return found


def scored(graph: Graph, precision: str, tiles: Sequence[F32]) -> tuple[list[F32], float]:
    """Scores of each tile, and Mpx a processor second."""
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    request = openvino().Core().compile_model(graph, "CPU", settings).create_infer_request()
    scores = [np.array(request.infer({0: tile})[0], np.float32) for tile in tiles]
    began, timed = time.process_time(), list(tiles[:TIMED])
    for tile in timed:
        request.infer({0: tile})
    return scores, sum(tile[0, 0].size for tile in timed) / 1e6 / (time.process_time() - began)


def compared(name: str, images: Sequence[Path]) -> list[Row]:
    """Every way of one network."""
    network = Network.open(BUNDLED / name, precision="f32")
    (wanted,) = network.inputs
    said = Declared(bands=wanted.bands, unit=wanted.unit)
    halves = (Unlabelled(images[k::2], declared=said).pictures(network) for k in (0, 1))
    known, asked = (
        [one.pixels[None] for one in crops(half, SHOTS, 0, side=SIDE_PX, multiple_of=network.multiple_of)] for half in halves
    )
    found: list[Row] = []
    exact: list[F32] = []
    for way, (graph, precision) in ways(network.folder, known).items():
        scores, speed = scored(graph, precision, asked)
        exact = exact or scores
        pairs = [np.concatenate([one.ravel() for one in many]) for many in (exact, scores)]
        here, there = (one > network.card.threshold for one in pairs)
        both = float((here & there).sum() / max(1, (here | there).sum()))
        found.append(Row(name, way, speed, agreement(*pairs), float(np.abs(pairs[0] - pairs[1]).max()), both))
        click.echo(found[-1], err=True)
    return found


def page(rows: Sequence[Row], counts: Mapping[str, int]) -> str:
    """The table."""
    images = ", ".join(f"{n} of {name}" for name, n in counts.items())
    fp32 = {row.model: row.mpx_s for row in rows if row.way == "fp32"}
    lines = [
        "# Whether 8 bits would do", "",
        f"{measured()} `python -m benchmarks.int8`, NNCF {version('nncf')}, OpenVINO {version('openvino')}.",
        f"Crops of {SIDE_PX} px of real images ({images}); every other image sets the ranges, the others",
        f"are compared. {NEAR} on {SHARE:.1%} of pixels is what any precision has to reach beside fp32; speed is of one",
        "thread, by processor time.", "",
        "| network | precision | Mpx/s | to fp32 | within 0.02 | at most apart | IoU of extents | allowed |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in rows:
        allowed = "yes" if row.near >= SHARE else "**no**"
        lines.append(
            f"| {row.model} | {row.way} | {row.mpx_s:.2f} | {row.mpx_s / fp32[row.model]:.1f} | {row.near:.2%} "
            f"| {row.largest:.3f} | {row.iou:.4f} | {allowed} |"
        )
    return "\n".join([*lines, ""])


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), default=Path("../shared/data"), show_default=True)
def main(data: Path) -> None:
    """Measure, and write the page."""
    images = {
        name: [p for p in sorted((data / where).rglob("*")) if p.suffix.lower() in IMAGES and "mask" not in p.stem]
        for name, where in REAL.items()
    }
    rows = [row for name, own in images.items() for row in compared(name, own)]
    text = page(rows, {name: len(own) for name, own in images.items()})
    (RESULTS / "int8.md").write_text(text, encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
