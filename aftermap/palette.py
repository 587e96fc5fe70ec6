"""The one place where colours live, and the pictures painted with them; rasters, styles and legends take theirs from here."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from aftermap.sensors import POLARISATIONS

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]

Colour = tuple[int, int, int, int]
"""Red, green, blue, opacity, each 0 to 255."""

NODATA = 255
EXTENT: Colour = (0, 196, 255, 255)
"""The mapped hazard: a cyan that no natural surface has, in true or false colour, and that colour-blind eyes keep apart."""
NOT_ANALYSED: Colour = (128, 132, 138, 255)
PRIORITY: Colour = (255, 96, 0, 255)
"""Outline of the cells to look at first."""
GRADES: tuple[Colour, ...] = ((254, 240, 190, 255), (253, 190, 90, 255), (240, 90, 40, 255), (150, 0, 30, 255))
"""Graded buildings from no visible damage to destroyed: darker is graver, also to colour-blind eyes."""
UNSEEN: Colour = (120, 124, 128, 255)
"""Pixels of a photograph that the sensor did not see."""

LIKELIHOOD: tuple[tuple[int, Colour], ...] = (
    (0, (68, 1, 84, 90)),
    (25, (59, 82, 139, 170)),
    (50, (33, 145, 140, 215)),
    (75, (94, 201, 98, 235)),
    (100, (253, 231, 37, 245)),
)
"""Percent -> colour: viridis (van der Walt and Smith 2015), luminance rising all the way; the unlikely lets the image through."""

SPREAD: tuple[tuple[int, Colour], ...] = (
    (0, (255, 255, 212, 0)),
    (10, (254, 217, 142, 150)),
    (20, (254, 153, 41, 205)),
    (35, (217, 95, 14, 235)),
    (50, (140, 45, 4, 245)),
)
"""Percent -> colour: YlOrBr (Brewer 2003), where members agree clear; most lie near one another, so it changes fastest there."""

FAMILIARITY: tuple[tuple[int, Colour], ...] = (
    (0, (122, 1, 119, 235)),
    (5, (197, 27, 138, 215)),
    (20, (247, 104, 161, 150)),
    (50, (251, 180, 185, 60)),
    (100, (255, 247, 243, 0)),
)
"""Percent -> colour: RdPu (Brewer 2003) turned round, what a model knows clear; a warning begins at 5."""

AGREEMENT: tuple[Colour, Colour] = ((245, 166, 35, 225), (0, 150, 255, 225))
"""One method alone, and all methods together; between them by mixing. Orange against blue survives every colour blindness."""

EXCLUSION: dict[int, tuple[str, Colour]] = {
    0: ("analysed", (0, 0, 0, 0)),
    1: ("not observed", (128, 132, 138, 255)),
    2: ("reference water", (72, 120, 190, 255)),
    3: ("slope", (166, 106, 60, 255)),
    4: ("radar shadow or layover", (140, 92, 170, 255)),
    5: ("cloud", (206, 212, 218, 255)),
    6: ("low sensitivity", (214, 170, 60, 255)),
    7: ("outside AOI", (70, 76, 84, 255)),
    8: ("high above drainage", (134, 142, 84, 255)),
    255: ("no data", (0, 0, 0, 0)),
}
"""Code of exclusion.tif -> label and colour. Code 255 is the raster's nodata."""

CHANGE: dict[int, tuple[str, Colour]] = {
    0: ("neither", (0, 0, 0, 0)),
    1: ("still", EXTENT),
    2: ("new", (214, 0, 110, 255)),
    3: ("receded", (255, 214, 90, 255)),
    255: ("not analysed both times", NOT_ANALYSED),
}
"""Code of change.tif -> label and colour: what came is dark, what went is pale, to colour-blind eyes too."""


def css(colour: Colour) -> str:
    """The colour as CSS writes it."""
    red, green, blue, opacity = colour
    return f"rgb({red} {green} {blue} / {opacity / 255:.2f})"


def mix(low: Colour, high: Colour, share: float) -> Colour:
    """The colour `share` of the way from `low` (0) to `high` (1), opacity included."""
    red, green, blue, opacity = (round(a + (b - a) * share) for a, b in zip(low, high, strict=True))
    return red, green, blue, opacity


_COMPOSITES = {("red", "green", "blue"): 1.0, ("swir1", "nir", "green"): 0.55, ("nir", "red", "green"): 0.55}
"""Bands shown as red, green and blue -> how much of their colour is kept: false colour at full strength drowns every overlay."""
_RADAR_COLOUR = 0.5


def photograph(pixels: F32, bands: Sequence[str], *, like: F32 | None = None) -> U8:
    """A picture (y, x, 3) of pixels (band, y, x); red, green, blue by common name, else false colour, else grey; NaN is grey.

    Each display band is stretched between its 2nd and 98th percentile, or those of `like` so that two pictures compare.
    """
    (shown, kept), (scale, _) = _display(pixels, bands), _display(pixels if like is None else like, bands)
    seen, counted = np.isfinite(shown).all(axis=0), np.isfinite(scale).all(axis=0)
    picture = np.empty((*seen.shape, 3), np.uint8)
    picture[:] = UNSEEN[:3]
    if seen.any() and counted.any():
        low, high = np.percentile(scale[:, counted], (2, 98), axis=1)  # (3,) each
        share = np.clip((shown[:, seen].T - low) / np.maximum(high - low, 1e-6), 0, 1)  # (n, 3)
        grey = share.mean(axis=1, keepdims=True)
        picture[seen] = np.rint(255 * (grey + kept * (share - grey))).astype(np.uint8)
    return picture


def _display(pixels: F32, bands: Sequence[str]) -> tuple[F32, float]:
    """The three bands (3, y, x) to show as red, green and blue, and how much of their colour to keep."""
    at = {name.lower(): pixels[i] for i, name in enumerate(bands)}
    for names, kept in _COMPOSITES.items():
        if set(names) <= set(at):
            return np.stack([at[n] for n in names]), kept
    radar = [_logarithm(at[p.lower()]) for p in POLARISATIONS if p.lower() in at]
    if len(radar) >= 2:
        return np.stack([radar[0], radar[1], (radar[0] + radar[1]) / 2]), _RADAR_COLOUR  # dark in both, as water is, stays dark
    return np.stack([radar[0] if radar else pixels[0]] * 3), 1.0


def _logarithm(backscatter: F32) -> F32:
    """Backscatter on a log scale: dB as it is, power and amplitude through log10 (a stretch cannot tell them apart)."""
    positive = backscatter[backscatter > 0]
    if not positive.size or np.nanmin(backscatter) < 0:
        return backscatter
    return np.asarray(np.log10(np.maximum(backscatter, positive.min())), dtype=np.float32)


def paint_likelihood(codes: U8) -> U8:
    """Colours (y, x, 4) of percents (y, x) in [0, 100]; 255 is hatched grey."""
    return _paint(codes, {percent: ramp(percent) for percent in range(101)} | {NODATA: NOT_ANALYSED})


def paint_density(codes: U8) -> U8:
    """Colours (y, x, 4) of roots (y, x) of shares of area, in percent; none is clear, 255 is hatched grey."""
    shares = {root: ramp(root) for root in range(1, 101)}
    return _paint(codes, {0: (0, 0, 0, 0)} | shares | {NODATA: NOT_ANALYSED})


def paint_spread(codes: U8) -> U8:
    """Colours (y, x, 4) of standard deviations (y, x) in percent, [0, 50]; 255 is hatched grey."""
    return _paint(codes, {percent: ramp(percent, SPREAD) for percent in range(51)} | {NODATA: NOT_ANALYSED})


def paint_familiarity(codes: U8) -> U8:
    """Colours (y, x, 4) of familiarity (y, x) in percent; 255 is hatched grey."""
    return _paint(codes, {percent: ramp(percent, FAMILIARITY) for percent in range(101)} | {NODATA: NOT_ANALYSED})


def paint_extent(codes: U8) -> U8:
    """Colours (y, x, 4) of the extent: 1 filled lightly and outlined, 0 clear, 255 hatched grey."""
    inside = np.pad(codes == 1, 1, mode="edge")
    deep = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    picture = _paint(codes, {1: EXTENT, NODATA: NOT_ANALYSED})
    picture[(codes == 1) & deep, 3] = 165
    return picture


def paint_exclusion(codes: U8) -> U8:
    """Colours (y, x, 4) of exclusion codes, hatched; what was analysed is clear."""
    return _paint(codes, {code: colour for code, (_, colour) in EXCLUSION.items()}, hatched=tuple(EXCLUSION))


def excluded(label: str) -> Colour:
    """The colour of a reason for exclusion; grey for one that the table does not know."""
    return next((colour for known, colour in EXCLUSION.values() if known == label), NOT_ANALYSED)


def paint_agreement(codes: U8, count: int) -> U8:
    """Colours (y, x, 4) of how many of `count` methods call it hazard; 0 is clear, 255 hatched grey."""
    return _paint(codes, {k: agreed(k, count) for k in range(1, count + 1)} | {NODATA: NOT_ANALYSED})


def ramp(percent: float, stops: Sequence[tuple[int, Colour]] = LIKELIHOOD) -> Colour:
    """The colour of a percentage between stops that rise from 0, those of likelihood."""
    below = max(i for i, (stop, _) in enumerate(stops[:-1]) if stop <= percent)
    (low, dark), (high, bright) = stops[below], stops[below + 1]
    return mix(dark, bright, (percent - low) / (high - low))


def clusters(count: int) -> dict[int, Colour]:
    """Code from 1 -> a colour unlike its neighbours': hues by the golden ratio, every second darker."""
    colours = {}
    for k in range(count):
        red, green, blue = colorsys.hsv_to_rgb(k * 0.618034 % 1, 0.75 - 0.3 * (k % 3 == 2), 0.95 - 0.3 * (k % 2))
        colours[k + 1] = (round(255 * red), round(255 * green), round(255 * blue), 255)
    return colours


def agreed(methods: int, count: int) -> Colour:
    """The colour of a pixel that `methods` of `count` methods call hazard."""
    return mix(AGREEMENT[0], AGREEMENT[1], (methods - 1) / (count - 1) if count > 1 else 1.0)


def _paint(codes: U8, colours: Mapping[int, Colour], *, hatched: Sequence[int] = (NODATA,)) -> U8:
    """Colours (y, x, 4) of codes (y, x); codes without a colour are clear, the hatched ones in diagonal stripes."""
    table = np.zeros((2, 256, 4), np.uint8)  # between the stripes, and in them
    for code, colour in colours.items():
        table[:, code] = colour
    table[1, list(hatched), 3] = table[1, list(hatched), 3].astype(np.uint16) * 2 // 5
    y, x = np.ogrid[: codes.shape[0], : codes.shape[1]]
    width = max(2, max(codes.shape) // 220)
    striped = (y + x) // width % 3 > 0
    picture: U8 = table.view(np.uint32).ravel()[codes + np.uint16(256) * striped].view(np.uint8).reshape(*codes.shape, 4)
    return picture
