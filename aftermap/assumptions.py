"""What a map takes for granted, in words: what its layers do not say, what was resampled, what excludes ground."""

from __future__ import annotations

from aftermap import exclude
from aftermap.scene import Scene
from aftermap.sight import Look


def assumptions(scene: Scene, limits: exclude.Limits | None, look: Look | None) -> list[str]:
    """What was taken from where, in words."""
    said = [f"{layer.name}: {what} from {why}" for layer in scene.layers.values() for what, why in layer.reasons.items()]
    warped = [f"{k} was resampled to the grid of after: {way}" for k in scene.layers if (way := scene.resampling(k)) != "none"]
    images = (*scene.images("after"), *scene.images("before"))
    dates = [f"{layer.name} states no date of acquisition" for layer in images if not layer.acquired]
    warped += [f"{k} was read {x:+.2f} px right of and {y:+.2f} px below its place" for k, (x, y) in scene.shifts.items()]
    return said + warped + dates + exclude.words(scene, limits, look)
