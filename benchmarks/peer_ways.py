"""One map of a scene by a peer's own tiled inference, or a plain torch loop: whole process, likelihood and extent.

Run in the peer's environment, which has this package beside it for the weights:

    python -m benchmarks.peer_ways WAY IMAGE MODEL OUT [--bf16]

All take the same network with its normalisation, as `aftermap.model.load` gives it, and write the same two rasters. Tiles are of
512 px at a stride of 448, in batches of 4, but for "terratorch-defaults", which takes what tiled_inference does by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.windows import Window

from aftermap.export import Graph
from aftermap.model import load
from aftermap.tiles import starts
from aftermap.torchdoor import torch

F32 = npt.NDArray[np.float32]
TILE_PX, STRIDE_PX, BATCH = 512, 448, 4
Forward = Callable[[Any], Any]


def forward(model: Path, *, bf16: bool) -> Forward:
    """The network: (n, band, y, x) in sensor units -> scores (n, 1, y, x), in bf16 as one gives it to torch by hand."""
    torch.set_num_threads(os.cpu_count() or 1)
    network, card = load(model)
    graph = Graph(network, card.mean, card.std).eval()
    if bf16:
        graph = graph.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(raw: Any) -> Any:
        laid = raw.contiguous(memory_format=torch.channels_last) if bf16 else raw
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            return graph(laid)[:, :1].float()

    return run


def loop(image: Path, run: Forward) -> F32:
    """What one would write by hand: tile by tile, averaged where they overlap."""
    with rasterio.open(image) as source:
        total, weight = np.zeros(source.shape, np.float32), np.zeros(source.shape, np.float32)
        for row in starts(source.height, TILE_PX, STRIDE_PX):
            for col in starts(source.width, TILE_PX, STRIDE_PX):
                pixels = source.read(window=Window(col, row, TILE_PX, TILE_PX))
                at = slice(row, row + TILE_PX), slice(col, col + TILE_PX)
                total[at] += run(torch.from_numpy(pixels)[None])[0, 0].numpy()
                weight[at] += 1
    return np.asarray(total / weight)


def torchgeo(image: Path, run: Forward) -> F32:
    """RasterDataset, GridGeoSampler and DataLoader; it has no stitcher, so this averages as its users do."""
    from torch.utils.data import DataLoader
    from torchgeo.datasets import RasterDataset, stack_samples
    from torchgeo.samplers import GridGeoSampler

    scene = RasterDataset(str(image))
    batches = DataLoader(scene, batch_size=BATCH, sampler=GridGeoSampler(scene, TILE_PX, STRIDE_PX), collate_fn=stack_samples)
    with rasterio.open(image) as source:
        shape, affine = source.shape, source.transform
    total, weight = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for batch in batches:
        scores = run(batch["image"])[:, 0].numpy()
        for found, place in zip(scores, _bounds(batch), strict=True):
            col, row = (round(v) for v in ~affine @ place)
            top, left = max(row, 0), max(col, 0)  # the last tiles reach over the edge
            at = slice(top, min(row + TILE_PX, shape[0])), slice(left, min(col + TILE_PX, shape[1]))
            total[at] += found[at[0].start - row : at[0].stop - row, at[1].start - col : at[1].stop - col]
            weight[at] += 1
    return np.asarray(total / weight)


def _bounds(batch: Any) -> Iterator[tuple[float, float]]:
    """Upper left corner (x, y) of each sample."""
    for x, y, _ in batch["bounds"]:
        yield x.start, y.stop


def terratorch(image: Path, run: Forward, **how: int) -> F32:
    """tiled_inference, with or without its own defaults."""
    from terratorch.tasks.tiled_inference import tiled_inference

    with rasterio.open(image) as source:
        whole = torch.from_numpy(source.read())[None]
    return np.asarray(tiled_inference(run, whole, out_channels=1, **how)[0, 0].numpy())


def write(scores: F32, image: Path, out: Path) -> None:
    """likelihood.tif and extent.tif, in plain tiles."""
    out.mkdir(parents=True, exist_ok=True)
    with rasterio.open(image) as source:
        profile = {"driver": "GTiff", "crs": source.crs, "transform": source.transform, "height": source.height,
                   "width": source.width, "count": 1, "dtype": "uint8", "tiled": True, "compress": "deflate"}  # fmt: skip
    for name, codes in (("likelihood", np.rint(100 * scores)), ("extent", scores > 0.5)):
        with rasterio.open(out / f"{name}.tif", "w", **profile) as target:
            target.write(codes.astype(np.uint8), 1)


WAYS: dict[str, Callable[[Path, Forward], F32]] = {
    "loop": loop,
    "torchgeo": torchgeo,
    "terratorch": lambda image, run: terratorch(image, run, crop=TILE_PX, stride=STRIDE_PX, batch_size=BATCH),
    "terratorch-defaults": terratorch,
}


@click.command()
@click.argument("way", type=click.Choice([*WAYS]))
@click.argument("image", type=click.Path(exists=True, path_type=Path))
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--bf16", is_flag=True, help="By autocast, channels last.")
@click.option("--keep-scores", is_flag=True, help="Keeps the scores as OUT/score.npy too.")
def main(way: str, image: Path, model: Path, out: Path, bf16: bool, keep_scores: bool) -> None:
    """Map IMAGE with MODEL by WAY."""
    scores = WAYS[way](image, forward(model, bf16=bf16))
    write(scores, image, out)
    if keep_scores:
        np.save(out / "score.npy", scores)


if __name__ == "__main__":
    main()
