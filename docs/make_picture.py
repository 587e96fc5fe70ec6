"""The pictures of the README and of the quick start: images, map and truth of simulated scenes.

Run: aftermap demo && python docs/make_picture.py    for docs/demo.jpg
     python docs/make_picture.py flood landslide     for docs/flood.jpg and docs/landslide.jpg, from scenes made for them
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from matplotlib.image import imsave

import aftermap as am
from aftermap import palette, pieces, raster
from aftermap.scene import open_scene
from aftermap.tiles import Window

DEMO, SIDE, GAP = Path("aftermap-demo"), 480, 8
SMALL, SIZE, SEED = 300, 1024, 1
BANDS = {
    "flood": ("VV", "VH"),
    "landslide": ("red", "green", "blue"),
    "fracture": ("grey",),
    "building": ("red", "green", "blue"),
}
ONE_IMAGE = ("fracture", "building")
METHOD = {"landslide": "ndvi-change", "building": "brightness"}
"""Where the quick start asks for one by name."""
TRUTH_BAND = {"building": 3}
CLOUDLESS = 0.2
"""Reflectance that soil and plants stay below."""


def over(picture: np.ndarray, paint: np.ndarray) -> np.ndarray:
    """RGBA paint over an RGB picture."""
    alpha = paint[..., 3:] / 255
    return np.rint(picture * (1 - alpha) + paint[..., :3] * alpha).astype(np.uint8)


def join(panels: list[np.ndarray], path: Path, quality: int = 85) -> None:
    """Panels side by side, as a JPEG."""
    gap = np.full((panels[0].shape[0], GAP, 3), 255, np.uint8)
    picture = np.concatenate([p for panel in panels for p in (panel, gap)][:-1], axis=1)
    imsave(path, picture, pil_kwargs={"quality": quality})


def demo() -> None:
    """Four panels: before, after, likelihood, extent."""
    scene = open_scene({k: [DEMO / "scene" / f"{k}.tif"] for k in ("before", "after")}, hazard="flood")
    shape = (SIDE, SIDE)
    after, before = scene.thumbnail("after", shape), scene.thumbnail("before", shape)
    photos = [palette.photograph(p, BANDS["flood"], like=after) for p in (before, after)]
    codes = {n: raster.thumbnail(DEMO / "map" / f"{n}.tif", shape) for n in ("likelihood", "extent")}
    painted = [
        over(photos[1], palette.paint_likelihood(codes["likelihood"])),
        over(photos[1], palette.paint_extent(codes["extent"])),
    ]
    join([*photos, *painted], Path("docs/demo.jpg"))


def quick_start(hazard: str, folder: Path) -> None:
    """Before (where there is one), after, extent, truth; the last two over the after image."""
    pieces.load("simulate", hazard)(folder / "scene", size=SIZE, seed=SEED)
    names = ("after",) if hazard in ONE_IMAGE else ("before", "after")
    files = {k: folder / "scene" / f"{k}.tif" for k in names}
    am.map(files["after"], files.get("before", ()), hazard=hazard, method=METHOD.get(hazard, "auto"), out=folder / "map")
    scene, shape = open_scene({k: [f] for k, f in files.items()}, hazard=hazard), (SMALL, SMALL)
    seen = {k: scene.thumbnail(k, shape)[[_place(scene, k, b) for b in BANDS[hazard]]] for k in names}
    like = seen["after"]
    if hazard == "landslide":  # beside cloud everything else would be black
        like = np.where(like > CLOUDLESS, np.nan, like)
    photos = [palette.photograph(seen[k], BANDS[hazard], like=like) for k in names]
    reader = raster.Reader(folder / "scene" / "truth.tif", scene.grid, [TRUTH_BAND.get(hazard, 1)], classes=True)
    known = reader.read(Window(0, 0, SIZE, SIZE))[0].astype(np.uint8)
    every = np.arange(SMALL) * SIZE // SMALL
    truth = known[np.ix_(every, every)]
    drawn = [raster.thumbnail(folder / "map" / "extent.tif", shape), truth]
    join([*photos, *(over(photos[-1], palette.paint_extent(codes)) for codes in drawn)], Path(f"docs/{hazard}.jpg"), 80)


def _place(scene: am.Scene, layer: str, band: str) -> int:
    place = scene.layers[layer].index(band)
    assert place is not None
    return place


if len(sys.argv) == 1:
    demo()
for chosen in sys.argv[1:]:
    with TemporaryDirectory() as scratch:
        quick_start(chosen, Path(scratch))
