"""What the fracture methods share: the band that shows the ice, its span, and a threshold for what stands out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from aftermap.indices.exact import LEVELS
from aftermap.indices.survey import middle_and_std, otsu_of_rarer, sampled, span_of, survey
from aftermap.indices.threshold import F32, F64, Found, logistic
from aftermap.scorer import LayerBands

if TYPE_CHECKING:
    from aftermap.scene import Scene

BANDS = (("grey", "digital_number"), *((b, "dB") for b in ("HH", "VV", "HV", "VH")),
         *((b, "digital_number") for b in ("red", "nir", "green")))  # fmt: skip
"""In order of choice; any one shows a fracture."""
ANGLES = tuple(np.pi * k / 18 for k in range(18))
"""Every 10 degrees (field.md 3.9)."""


def choice(scene: Scene) -> tuple[str, str] | None:
    """The band and unit to look at."""
    return next(((b, u) for b, u in BANDS if not scene.missing(LayerBands("after", (b,), u))), None)


def why_not(scene: Scene) -> str:
    """Why no band of the after image shows fractures, in words; empty when one does."""
    return "" if choice(scene) else scene.missing(LayerBands("after", ("grey",), "digital_number"))


def view(scene: Scene) -> tuple[str, str, float, float]:
    """Band, unit and span."""
    band, unit = choice(scene) or BANDS[0]
    low, high = span_of(survey(scene, (LayerBands("after", (band,), unit),), lambda pixels: pixels[0]))
    return band, unit, low, high


class Responder(Protocol):
    """A scorer that thresholds one response (y, x) to one band."""

    @property
    def inputs(self) -> tuple[LayerBands, ...]: ...
    @property
    def halo_px(self) -> int: ...
    @property
    def threshold(self) -> float | None: ...
    @property
    def scale(self) -> float: ...
    def response(self, image: F32) -> F64: ...


def found_threshold(scene: Scene, scorer: Responder, tail_stds: float, least_tail: float) -> Found:
    """Otsu's threshold among the responses above their median, where the response has a heavy tail.

    Noise alone has none, and Otsu's threshold would part it all the same: fewer than `least_tail` of its responses lie
    `tail_stds` robust standard deviations above the median.
    """
    values = sampled(survey(scene, scorer.inputs, lambda pixels: scorer.response(pixels[0]), scorer.halo_px))
    middle, std = middle_and_std(values, least_std=1 / LEVELS)
    tail = float((values > middle + tail_stds * std).mean()) if values.size else 0.0
    told = f"{tail:.2%} of the sampled responses are {tail_stds:g} robust standard deviations above the median"
    if tail < least_tail:
        return Found(None, f"nothing found: {told}, at least {least_tail:.2%} must be")
    bins = np.arange(2 * LEVELS + 1) / LEVELS - 1
    counts = np.histogram(values, bins)[0].astype(np.float64)
    return Found(float(otsu_of_rarer(counts, (bins[1:] + bins[:-1]) / 2)), f"Otsu above the median; {told}")


def scores(scorer: Responder, pixels: F32) -> F32:
    """Scores (n, 1, y, x): the margin of the response over the threshold; 0 without one."""
    if scorer.threshold is None:
        return np.zeros_like(pixels[:, :1])
    responses = np.stack([scorer.response(image[0]) for image in pixels])[:, None]
    return logistic(responses - scorer.threshold, scorer.scale)
