"""What a map takes for granted, in words: what its layers do not say, what was resampled, what excludes ground."""

from __future__ import annotations

from aftermap import clouds, exclude
from aftermap.drainage import coarsening
from aftermap.scene import Scene


def assumptions(scene: Scene, limits: exclude.Limits | None) -> list[str]:
    """What was taken from where, in words."""
    said = [f"{layer.name}: {what} from {why}" for layer in scene.layers.values() for what, why in layer.reasons.items()]
    warped = [f"{k} was resampled to the grid of after: {way}" for k in scene.layers if (way := scene.resampling(k)) != "none"]
    dates = [
        f"{k} states no date of acquisition" for k in ("after", "before") if k in scene.layers and not scene.layers[k].acquired
    ]
    warped += [f"{k} was read {x:+.2f} px right of and {y:+.2f} px below its place" for k, (x, y) in scene.shifts.items()]
    return said + warped + dates + _excluded_by(scene, limits)


def _excluded_by(scene: Scene, limits: exclude.Limits | None) -> list[str]:
    """What excludes ground from the analysis, and what could not, in words."""
    images = [k for k in ("after", "before") if k in scene.layers]
    said = [
        f"cloud and cloud shadow of {k} are excluded by its own band {band} where the leading method looks at {k}"
        for k in images if (band := clouds.class_band(scene.layers[k]))
    ]  # fmt: skip
    if any(scene.layers[k].sensor.is_sar for k in images):
        said.append("radar shadow and layover are not excluded: no file gives the angle of incidence")
    if limits is not None:
        factor = coarsening(scene.shape)
        said += [
            f"ground steeper than {limits.slope_deg:g} degrees and not within {limits.low_m:g} m above the nearest drainage, and "
            f"ground more than {limits.high_m:g} m above it, is excluded",
            f"drainage (catchments from {limits.channel_km2:g} km2) is routed on the elevation model within the image"
            + (f", coarsened {factor} times" if factor > 1 else ""),
        ]
    elif "dem" in scene.layers:
        said.append("nothing is excluded by the elevation model")
    return said
