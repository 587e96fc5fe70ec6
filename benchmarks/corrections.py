"""What a few corrections are worth: flood-s1 on simulated floods whose radar is off by some dB, corrected as a person would.

    python -m benchmarks.corrections WORK --scenes 3,4 --gain=-3,3 --counts 8,24

A person is simulated: some pixels that the model has wrong are drawn, and each is corrected by a polygon of what the truth has
around it, within a square of 24 px. Scored is the network itself (probability 0.5), on all that lies 24 px and more from any
correction, and on the scene of another seed and no error of gain, for what was forgotten.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.features
import shapely.geometry
from scipy import ndimage

from aftermap import corrections, raster
from aftermap.card import find
from aftermap.corrected import Teaching, _Lesson, ground
from aftermap.corrections import HAZARD, LOCK, NOT_HAZARD, Said
from aftermap.engine import Network
from aftermap.model import Model, load
from aftermap.normalise import of_card
from aftermap.scene import open_scene
from aftermap.torchdoor import torch

MODEL, SIDE, AWAY, PX = "flood-s1", 24, 24, 512
Bool = npt.NDArray[np.bool_]
F32 = npt.NDArray[np.float32]


def scene_of(folder: Path, gain: float, work: Path) -> tuple[Path, Bool]:
    """The first PX pixels of a simulated flood with an error of gain, and its truth (permanent water is water)."""
    path = work / f"{folder.name}_{gain:+g}.tif"
    with rasterio.open(folder / "after.tif") as src:
        window = rasterio.windows.Window(0, 0, PX, PX)
        profile = src.profile | {"width": PX, "height": PX, "compress": "deflate"}
        pixels = src.read(window=window) + np.float32(gain)
        if not path.exists():
            with rasterio.open(path, "w", **profile) as out:
                out.write(pixels)
                out.descriptions = src.descriptions
                out.units = src.units
                out.update_tags(**src.tags())
    with rasterio.open(folder / "truth.tif") as src:
        truth = src.read(window=window).max(axis=0)  # flood and permanent water, which look alike
    return path, np.asarray(truth == 1)


def mapped(model: Model, path: Path) -> Bool:
    """Where the network says hazard, tile by tile with half a tile of overlap cut off."""
    level = of_card(load(find(MODEL))[1])
    with rasterio.open(path) as src:
        pixels = level.apply(src.read())
    with torch.no_grad():
        logits = model(torch.from_numpy(pixels[None]))[0, 0].numpy()
    return np.asarray(logits > 0)


def iou(found: Bool, truth: Bool, where: Bool) -> float:
    """Of the hazard, over those pixels."""
    both, either = (found & truth & where).sum(), ((found | truth) & where).sum()
    return round(float(both / max(1, either)), 3)


def errors(found: Bool, truth: Bool, count: int, kind: str, rng: np.random.Generator) -> Iterator[tuple[str, Bool]]:
    """Polygons that a person would draw, as masks: those of truth around wrong pixels."""
    wrong = ndimage.binary_opening(found != truth, iterations=2)
    if kind == "false alarms":
        wrong &= found
    places = np.argwhere(wrong)
    for row, col in places[rng.permutation(len(places))[:count]]:
        inside = np.zeros(truth.shape, bool)
        inside[max(0, row - SIDE // 2) : row + SIDE // 2, max(0, col - SIDE // 2) : col + SIDE // 2] = True
        labels, _ = ndimage.label(inside & (truth == truth[row, col]))
        yield (HAZARD if truth[row, col] else NOT_HAZARD), np.asarray(labels == labels[row, col])


def drawn(work: Path, path: Path, masks: list[tuple[str, Bool]]) -> tuple[Path, Bool]:
    """The log of these corrections, and where anything was said."""
    grid, covered = raster.facts(path).grid, np.zeros(masks[0][1].shape, bool)
    for name in (corrections.FILE, LOCK):
        (work / name).unlink(missing_ok=True)
    seen = 0
    for kind, mask in masks:
        shapes = rasterio.features.shapes(mask.astype(np.uint8), mask=mask, transform=grid.affine)
        shape = max((shapely.geometry.shape(s) for s, _ in shapes), key=lambda s: s.area)
        if shape.area >= 4 * abs(grid.affine.determinant):
            seen = len(corrections.append(work, grid, Said(kind, "anna", seen, shape)).rows)
            covered |= mask
    return work / corrections.FILE, covered


def main() -> None:
    say = argparse.ArgumentParser()
    say.add_argument("work", type=Path)
    say.add_argument("--scenes", default="3,4")
    say.add_argument("--gain", default="-6,6")
    say.add_argument("--counts", default="16")
    say.add_argument("--kinds", default="all,false alarms")
    say.add_argument("--ways", default="3e-4:4,3e-4:0")
    say.add_argument("--steps", type=int, default=20)
    given = say.parse_args()
    torch.set_num_threads(1)
    network = Network.open(find(MODEL), engine="openvino")
    base = load(network.folder)[0]
    for number in given.scenes.split(","):
        other, other_truth = scene_of(given.work / f"s{7 - int(number)}", 0, given.work)
        forgot = iou(mapped(base, other), other_truth, np.ones_like(other_truth))
        for gain in map(float, given.gain.split(",")):
            path, truth = scene_of(given.work / f"s{number}", gain, given.work)
            before = mapped(base, path)
            for kind in given.kinds.split(","):
                for count in map(int, given.counts.split(",")):
                    masks = list(errors(before, truth, count, kind, np.random.default_rng(count)))
                    if not masks:
                        continue
                    labels, covered = drawn(given.work, path, masks)
                    far = ~ndimage.binary_dilation(covered, iterations=AWAY)
                    scene = open_scene({"after": [path]}, hazard="flood")
                    for way in given.ways.split(","):
                        lr, _, hold = way.partition(":")
                        how = Teaching(steps=given.steps, lr=float(lr), hold=float(hold))
                        lesson = _Lesson(network.folder, [ground(network, scene, "auto", labels)], of_card(network.card), how)
                        made, facts = lesson.learned()
                        after = mapped(made, path)
                        print(
                            json.dumps(
                                {
                                    "scene": number,
                                    "gain": gain,
                                    "kind": kind,
                                    "count": count,
                                    "way": way,
                                    "steps": facts["steps"],
                                    "corrected": [iou(before, truth, covered), iou(after, truth, covered)],
                                    "right": [round(float((m == truth)[covered].mean()), 3) for m in (before, after)],
                                    "far": [iou(before, truth, far), iou(after, truth, far)],
                                    "other": [forgot, iou(mapped(made, other), other_truth, np.ones_like(other_truth))],
                                    "held": facts.get("held_out", {}).get("iou"),
                                    "held_loss": facts.get("held_out", {}).get("loss"),
                                }
                            ),
                            flush=True,
                        )


if __name__ == "__main__":
    main()
