"""The demonstration: a simulated flood pair, mapped, and scored against its known truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from aftermap import deliver, pieces
from aftermap.evaluate import Evaluation, evaluate, write_scores
from aftermap.figures import draw_scores
from aftermap.hazardmap import HazardMap


def demo(out: Path, *, size: int, seed: int, progress: Callable[[str, int, int], None]) -> tuple[HazardMap, Evaluation]:
    """Writes `out`/scene, `out`/map and `out`/scores; the map and its scores."""
    scene = out / "scene"
    pieces.load("simulate", "flood")(scene, size=size, seed=seed, progress=lambda done, whole: progress("simulate", done, whole))
    options = deliver.Options(keep_scores=True, overwrite=True)
    mapped = deliver.map(
        scene / "after.tif",
        scene / "before.tif",
        out=out / "map",
        hazard="flood",
        name="demo, simulated imagery",
        options=options,
        progress=progress,
    )
    result = write_scores(out / "scores", [evaluate(mapped, scene / "truth.tif", event="demo")])
    draw_scores(out / "scores" / "scores.png", result)
    return mapped, result
