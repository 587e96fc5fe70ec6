"""docs/demo.jpg, the picture of the README: before, after, likelihood and extent of the demonstration (simulated imagery).

Run: aftermap demo && python docs/make_picture.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.image import imsave

from aftermap import palette, raster
from aftermap.scene import open_scene

DEMO, SIDE, GAP = Path("aftermap-demo"), 480, 8


def over(picture: np.ndarray, paint: np.ndarray) -> np.ndarray:
    """RGBA paint over an RGB picture."""
    alpha = paint[..., 3:] / 255
    return np.rint(picture * (1 - alpha) + paint[..., :3] * alpha).astype(np.uint8)


def main() -> None:
    """Four panels side by side, the north-west of the scene."""
    scene = open_scene({k: [DEMO / "scene" / f"{k}.tif"] for k in ("before", "after")}, hazard="flood")
    shape = (SIDE, SIDE)
    after, before = scene.thumbnail("after", shape), scene.thumbnail("before", shape)
    photos = [palette.photograph(p, ("VV", "VH"), like=after) for p in (before, after)]
    codes = {n: raster.thumbnail(DEMO / "map" / f"{n}.tif", shape) for n in ("likelihood", "extent")}
    panels = [
        *photos,
        over(photos[1], palette.paint_likelihood(codes["likelihood"])),
        over(photos[1], palette.paint_extent(codes["extent"])),
    ]
    gap = np.full((SIDE, GAP, 3), 255, np.uint8)
    picture = np.concatenate([p for panel in panels for p in (panel, gap)][:-1], axis=1)
    imsave("docs/demo.jpg", picture, pil_kwargs={"quality": 85})


main()
