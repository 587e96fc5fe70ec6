"""Foundation models by name, as facts: the images that each was trained on, their units, statistics and wavelengths. No torch.

Numbers are of the authors' code or configuration; a model that states none takes those of the data at hand. Weights are not
here, and none can be had without asking: encoders.Weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from aftermap.errors import InputRefusedError, UsageError
from aftermap.normalise import Normaliser
from aftermap.scorer import LayerBands
from aftermap.sensors import SENSORS, canonical

S2 = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
L2A = tuple(b for b in S2 if b != "B10")
RGB, RADAR = ("B04", "B03", "B02"), ("VV", "VH")
AS_TRAINED = "as_trained"
"""A recipe's `normalise` for the statistics that are here."""
STRETCH = 0.3
"""Reflectance that counts as white where a model was trained on pictures."""
_DATES = ("after", "before")
GSD_M = 10.0
"""Pixels of Sentinel-1 and -2; models that ask for it are told this, whatever they see."""


@dataclass(frozen=True)
class Image:
    """One kind of image that a model takes."""

    kind: str
    """As the model calls it."""
    bands: tuple[str, ...]
    unit: str
    mean: tuple[float, ...] = ()
    """In `unit`; empty where the model has none of its own."""
    std: tuple[float, ...] = ()
    waves_um: tuple[float, ...] = ()
    """As the model was told them; for radar a number by which it knows the polarisation, or the wavelength."""

    def of(self, places: Sequence[int]) -> Image:
        """Some of its bands."""
        mean, std, waves = ([row[k] for k in places] if row else [] for row in (self.mean, self.std, self.waves_um))
        return Image(self.kind, tuple(self.bands[k] for k in places), self.unit, tuple(mean), tuple(std), tuple(waves))


@dataclass(frozen=True)
class Foundation:
    """An encoder that others trained, and what it wants to see."""

    library: str
    """That keeps its architecture; "" where it is ours (satmae.py)."""
    model: str
    """As the library calls it."""
    width: int
    patch: int
    side: int
    """Of the images that it was trained on, in px."""
    images: tuple[Image, ...]
    paper: str
    licence: str
    """Of the published weights."""
    any_bands: bool = False
    """Whether it takes any of its bands, in any order, told by wavelength."""
    eight_bits: bool = False
    """Whether it sees two standard deviations about the mean as [0, 1] and nothing beyond: what pictures of eight bits held."""


def _thousands(
    bands: Sequence[str], mean: Sequence[float], std: Sequence[float], kind: str, waves: Sequence[float] = ()
) -> Image:
    """Of numbers as Sentinel-2 stores reflectance, times 10,000."""
    return Image(kind, tuple(bands), "reflectance", tuple(m / 1e4 for m in mean), tuple(s / 1e4 for s in std), tuple(waves))


def _pictures(mean: Sequence[float], std: Sequence[float]) -> tuple[Image, Image]:
    """Red, green, blue in [0, 1] of white: as stored in eight bits, or as reflectance."""
    return (
        Image("picture", RGB, "digital_number", tuple(m * 255 for m in mean), tuple(s * 255 for s in std)),
        Image("picture", RGB, "reflectance", tuple(m * STRETCH for m in mean), tuple(s * STRETCH for s in std)),
    )


_HLS = ("B02", "B03", "B04", "B8A", "B11", "B12")
_PRITHVI1 = _thousands(_HLS, (775, 1081, 1229, 2497, 2204, 1611), (1282, 1270, 1399, 1368, 1292, 1155), "hls")
_PRITHVI2 = _thousands(_HLS, (1087, 1342, 1433, 2734, 1958, 1363), (2248, 2179, 2178, 1850, 1242, 1049), "hls")
_CLAY = (
    _thousands(
        ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"),
        (1105, 1355, 1552, 1887, 2422, 2630, 2743, 2785, 2388, 1835),
        (1809, 1757, 1888, 1870, 1732, 1697, 1742, 1648, 1470, 1379),
        "sentinel-2-l2a", (0.493, 0.56, 0.665, 0.704, 0.74, 0.783, 0.842, 0.865, 1.61, 2.19),
    ),
    Image("sentinel-1-rtc", RADAR, "dB", (-12.113, -18.673), (8.314, 8.017), (3.5, 4.0)),
)  # fmt: skip
_TERRAMIND = (
    _thousands(
        S2, (2357.089, 2137.385, 2018.788, 2082.986, 2295.651, 2854.537, 3122.849, 3040.56, 3306.481, 1473.847, 506.07, 2472.825,
             1838.929),
        (1624.683, 1675.806, 1557.708, 1833.702, 1823.738, 1733.977, 1732.131, 1679.732, 1727.26, 1024.687, 442.165, 1331.411,
         1160.419), "S2L1C",
    ),
    _thousands(
        L2A, (1390.458, 1503.317, 1718.197, 1853.91, 2199.1, 2779.975, 2987.011, 3083.234, 3132.22, 3162.988, 2424.884, 1857.648),
        (2106.761, 2141.107, 2038.973, 2134.138, 2085.321, 1889.926, 1820.257, 1871.918, 1753.829, 1797.379, 1434.261, 1334.311),
        "S2L2A",
    ),
    Image("S1GRD", RADAR, "dB", (-12.599, -20.293), (5.195, 5.890)),
    Image("DEM", ("dem.elevation",), "metres", (670.665,), (951.272,)),
)  # fmt: skip
_DOFA = (
    Image("optical", S2, "reflectance",
          waves_um=(0.44, 0.49, 0.56, 0.665, 0.705, 0.74, 0.783, 0.842, 0.864, 0.945, 1.373, 1.61, 2.19)),
    Image("radar", RADAR, "dB", waves_um=(5.405, 5.405)),
)  # fmt: skip
_CROMA = (Image("sar", RADAR, "dB"), Image("optical", L2A, "reflectance"))
_SATMAE = _thousands(
    ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"),
    (1184.3824625, 1120.77120066, 1136.26026392, 1263.73947144, 1645.40315151, 1846.87040806, 1762.59530783, 1972.62420416,
     1732.16362238, 1247.91870117),
    (650.2842772, 712.12507725, 965.23119807, 948.9819932, 1108.06650639, 1258.36394548, 1233.1492281, 1364.38688993,
     1310.36996126, 1087.6020813), "fmow-sentinel",
)  # fmt: skip
_IMAGENET = _pictures((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_SAT493M = _pictures((0.430, 0.411, 0.296), (0.213, 0.156, 0.143))
_PRITHVI = "Szwarcman et al. 2024, arXiv 2412.02732"

FOUNDATIONS: Mapping[str, Foundation] = {
    "prithvi_tiny": Foundation(
        "terratorch", "prithvi_eo_tiny", 256, 16, 224, (_PRITHVI2,), "no weights were published", "none",
    ),
    "prithvi1_100": Foundation(
        "terratorch", "prithvi_eo_v1_100", 768, 16, 224, (_PRITHVI1,), "Jakubik et al. 2023, arXiv 2310.18660", "Apache-2.0",
    ),
    "prithvi2_300": Foundation("terratorch", "prithvi_eo_v2_300", 1024, 16, 224, (_PRITHVI2,), _PRITHVI, "Apache-2.0"),
    "prithvi2_600": Foundation("terratorch", "prithvi_eo_v2_600", 1280, 14, 224, (_PRITHVI2,), _PRITHVI, "Apache-2.0"),
    "clay1": Foundation(
        "terratorch", "clay_v1_base", 768, 8, 256, _CLAY, "Clay Foundation, model v1, 2024", "Apache-2.0", any_bands=True,
    ),
    **{
        f"terramind_{size}": Foundation(
            "terratorch", f"terramind_v1_{size}", width, 16, 224, _TERRAMIND, "Jakubik et al. 2025, arXiv 2504.11171",
            "Apache-2.0",
        )
        for size, width in (("tiny", 192), ("small", 384), ("base", 768), ("large", 1024))
    },
    **{
        f"dofa_{size}": Foundation(
            "torchgeo", f"dofa_{size}_patch16_224", width, 16, 224, _DOFA, "Xiong et al. 2024, arXiv 2403.15356",
            "none published" if size == "small" else "CC-BY-4.0", any_bands=True,
        )
        for size, width in (("small", 384), ("base", 768), ("large", 1024))
    },
    **{
        f"croma_{size}": Foundation(
            "torchgeo", f"croma_{size}", width, 8, 120, _CROMA, "Fuller et al. 2023, arXiv 2311.00566", "MIT", eight_bits=True,
        )
        for size, width in (("base", 768), ("large", 1024))
    },
    "scalemae_large": Foundation(
        "torchgeo", "scalemae_large_patch16", 1024, 16, 224, _IMAGENET, "Reed et al. 2023, arXiv 2212.14532", "CC-BY-NC-4.0",
    ),
    **{
        f"satmae_{size}": Foundation(
            "", size, width, 8, 96, (_SATMAE,), "Cong et al. 2022, arXiv 2207.08051",
            "none published" if size == "base" else "CC-BY-NC-4.0", eight_bits=True,
        )
        for size, width in (("base", 768), ("large", 1024))
    },
    **{
        name: Foundation("timm", model, width, 16, 256, images, "Siméoni et al. 2025, arXiv 2508.10104", "DINOv3 License")
        for name, model, width, images in (
            ("dinov3_small", "vit_small_patch16_dinov3.lvd1689m", 384, _IMAGENET),
            ("dinov3_base", "vit_base_patch16_dinov3.lvd1689m", 768, _IMAGENET),
            ("dinov3_large", "vit_large_patch16_dinov3.lvd1689m", 1024, _IMAGENET),
            ("dinov3_large_satellite", "vit_large_patch16_dinov3.sat493m", 1024, _SAT493M),
        )
    },
}  # fmt: skip
"""Sizes whose weights nobody published are here for who trains them, and to try a recipe on."""


@dataclass(frozen=True)
class Reading:
    """The bands of a network in the images of a foundation model."""

    images: tuple[Image, ...]
    """One for each run of bands."""

    @cached_property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and std of every band; None where the model has none of its own."""
        if not all(one.mean for one in self.images):
            return None
        return tuple(m for one in self.images for m in one.mean), tuple(s for one in self.images for s in one.std)

    @property
    def kinds(self) -> Mapping[str, int]:
        """How many bands each image has."""
        return {one.kind: len(one.bands) for one in self.images}

    @property
    def waves_um(self) -> tuple[float, ...]:
        """Of every band."""
        return tuple(w for one in self.images for w in one.waves_um)


def reading(name: str, bands: Sequence[str], units: Sequence[str]) -> Reading:
    """How a model reads bands of these units, whose names are a sensor's or common ("B2", "B02", "blue"), those
    of the ground with their layer ("dem.elevation").

    Raises InputRefusedError ("foundation-bands") where it was not trained on them.
    """
    model, left = FOUNDATIONS[name], list(zip(map(_official, bands), units, strict=True))
    found: list[Image] = []
    while left:
        image = _single(model, *left[0]) if model.any_bands else _whole(model, left)
        if image is None or (not model.any_bands and image.kind in [one.kind for one in found]):
            raise _refuse(name, bands, units)
        found.append(image)
        left = left[len(image.bands) :]
    return Reading(tuple(found))


def libraries(encoder: str) -> tuple[str, ...]:
    """What keeps an encoder beside timm, which is asked for anyway."""
    return (FOUNDATIONS[encoder].library,) if encoder in FOUNDATIONS and FOUNDATIONS[encoder].library not in ("", "timm") else ()


def reads(inputs: Sequence[LayerBands], *, each_date: bool) -> tuple[str, ...]:
    """Every band of a network's inputs and its unit, as model.Spec has them; of the first date alone where each has its turn."""
    return tuple(
        f"{'' if one.layer in _DATES else f'{one.layer}.'}{band} {one.unit}"
        for one in inputs
        if not each_date or one.layer == inputs[0].layer
        for band in one.bands
    )


def told(words: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Bands and units of `reads`."""
    pairs = [word.rpartition(" ") for word in words]
    return tuple(band for band, _, _ in pairs), tuple(unit for _, _, unit in pairs)


def normaliser(name: str, of: Normaliser, inputs: Sequence[LayerBands], *, each_date: bool) -> Normaliser:
    """The statistics that a model was trained with, for the bands of another normaliser, which are those of the inputs.

    Raises UsageError ("foundation-statistics") where it states none.
    """
    found = reading(name, *told(reads(inputs, each_date=each_date))).statistics
    if found is None:
        what = f"{name} has no statistics of its own: it was trained with those of its data"
        raise UsageError(what, repair='say normalise = "all"', code="foundation-statistics")
    mean, std = (row * (len(of.bands) // len(row)) for row in found)
    return Normaliser(of.bands, of.unit, mean, std)


def _single(model: Foundation, band: str, unit: str) -> Image | None:
    return next((one.of([one.bands.index(band)]) for one in model.images if one.unit == unit and band in one.bands), None)


def _whole(model: Foundation, left: Sequence[tuple[str, str]]) -> Image | None:
    """The image that begins what is left."""
    return next((one for one in model.images if [(b, one.unit) for b in one.bands] == list(left[: len(one.bands)])), None)


def _official(band: str) -> str:
    """A band of Sentinel-2 as it is called there, anything else as it is."""
    known = SENSORS["sentinel-2-l1c"].band(band)
    return known.name if known else band if "." in band else canonical(band)


def _refuse(name: str, bands: Sequence[str], units: Sequence[str]) -> InputRefusedError:
    model = FOUNDATIONS[name]
    wanted = " or ".join(f"{', '.join(one.bands)} in {one.unit}" for one in model.images)
    given = ", ".join(f"{b} in {u}" for b, u in zip(bands, units, strict=True))
    how = "any of" if model.any_bands else "in this order"
    return InputRefusedError(
        f"{name} was trained on {wanted} ({how}), and is given {given}",
        repair="choose such bands with `inputs`, or another model",
        code="foundation-bands",
    )  # fmt: skip
