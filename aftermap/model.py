"""A network: one encoder, a fusion of the dates, a decoder and a head; saved as a folder with its card, never as a pickle.

What leaves here for mapping is a graph that reads raw sensor units with NaN where nothing was observed and gives probabilities.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from math import lcm
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from aftermap import doubleconv
from aftermap.activation import Activation
from aftermap.card import WEIGHTS, Card
from aftermap.encoders import Weights
from aftermap.encoders import build as encoder_of
from aftermap.enlarging import ALLOWED, multiple_of, ratio
from aftermap.errors import InputRefusedError, UnknownNameError, UsageError
from aftermap.export import EXPORTS, export
from aftermap.foundation import FOUNDATIONS, libraries
from aftermap.journal import sha256
from aftermap.ocr import Gathered, ObjectContext
from aftermap.shallow import NAMES, ConvMean, FullyConnected, Pixels
from aftermap.surgery import freeze
from aftermap.torchdoor import Tensor, functional, nn, smp, torch
from aftermap.unet import WINNERS, PlainDecoder
from aftermap.vit import SIZES, Deconvolved, First, Upward

PATCHES = {name: size.patch for name, size in SIZES.items()} | {name: one.patch for name, one in FOUNDATIONS.items()}
"""Of transformers: side of a patch in px."""
FUSIONS = ("single", "early", "siamese", "each")
EMBEDDINGS = ("mean", "token", "projected")
"""Decoders that give what the encoder makes of a chip: the mean of its deepest features, the class token of a transformer, or a
linear map of that token, as contrast across modalities trains it."""
WHOLE = ("pool", "activation", "conv_mean", "fc", *EMBEDDINGS)
"""Decoders that give one answer for a whole chip; "activation" a map too."""
OF_VIT = ("upward", "deconv", "pool", *EMBEDDINGS)
"""Decoders of a transformer, which has features at one stride."""
OWN_GRID = ("conv8", "conv_mean", "fc")
"""Decoders of the encoders of shallow.py, whose features are on the image's own grid, and of no others."""
DECODERS = (
    "unet_plain", "unet", "unetplusplus", "fpn", "segformer", "upernet", "deeplabv3", "ocr", "conv8", "upward", "deconv",
    "doubling", *WHOLE,
)  # fmt: skip
DILATED = 8
"""Stride of the deepest features that DeepLabV3 sees (Chen et al. 2017)."""
_LIBRARIES = ("torch", "timm", "segmentation-models-pytorch", "openvino")


@dataclass(frozen=True)
class Spec:
    """What a network is made of; all that `build` needs besides weights."""

    encoder: str
    """A name of encoders.names(), or of the four of unet.WINNERS with the decoder "unet_plain"."""
    decoder: str
    bands: tuple[int, ...]
    """Number of bands of each layer, in the order of the inputs: (2,) or, with before, (2, 2)."""
    outputs: int = 1
    """Logits per pixel: 1 for one hazard, else one for each class."""
    fusion: str = "single"
    """early: all dates at once. siamese: the same encoder on each date, features side by side. each: the same encoder, of one
    band, on each band that is there, the mean of their features."""
    widths: tuple[int, ...] = ()
    """Channels of the decoder d1 to d5, shallow to deep; empty for the decoder's own."""
    upsample: float = 1
    """The encoder sees images enlarged so many times, 1 to 8; logits come back to the image's own grid as means by area
    (methods.md C.2). What is not whole asks for sides of `multiple_of`."""
    gives: str = "map"
    """As the card's: what the outputs are, for the graph that gives them in [0, 1] or, of a number, as they are."""
    side: int = 0
    """Of a transformer: side in px of the grid that its positions are learned on; 0: 224."""
    reads: tuple[str, ...] = ()
    """Of a foundation model: each band and its unit, "B02 reflectance"."""
    beside: Spec | None = None
    """A network whose encoder stands frozen beside this one's, its last features after this one's; both on the image's grid."""

    def __post_init__(self) -> None:
        for kind, given, known in (("fusion", self.fusion, FUSIONS), ("decoder", self.decoder, DECODERS)):
            if given not in known:
                raise UnknownNameError(kind, given, known)
        if self.fusion == "single" and len(self.bands) != 1:
            raise UsageError(
                f"a single image was meant, and {len(self.bands)} are given", repair='choose the fusion "early" or "siamese"'
            )
        if self.fusion == "siamese" and (len(self.bands) < 2 or len(set(self.bands)) > 1):
            raise UsageError(f"siamese wants the same bands on each date, not {self.bands}", repair='choose the fusion "early"')
        if not self.multiple_of:
            raise UsageError(f"upsample is {self.upsample}", repair=ALLOWED)
        self._refuse_grids()

    def _refuse_grids(self) -> None:
        strange = self.beside is not None and self.beside.encoder not in NAMES
        if strange or ((self.encoder in NAMES) != (self.decoder in OWN_GRID) and self.decoder != "pool"):
            what = f"{self.encoder} with {self.decoder}: only {', '.join(NAMES)} give features on the image's own grid"
            raise UsageError(what, repair='give them the decoder "conv8", or of whole chips "conv_mean", "fc" or "pool"')
        alone = ("upward", "deconv", "token", "projected")
        if (self.decoder not in OF_VIT) if self.encoder in PATCHES else self.decoder in alone:
            what = f"{self.encoder} with {self.decoder}: the decoders of a transformer are {', '.join(OF_VIT)}"
            raise UsageError(what, repair=f"choose one of them, or of the encoders that are none of {', '.join(PATCHES)}")
        if (self.encoder in doubleconv.NAMES) != (self.decoder == "doubling") and self.decoder not in ("pool", "mean"):
            what = f"{self.encoder} with {self.decoder}: only {', '.join(doubleconv.NAMES)} give features at strides 1 to 16"
            raise UsageError(what, repair='give them "doubling", or of whole chips "pool" or "mean", and others theirs')
        if self.decoder == "deconv" and (patch := PATCHES[self.encoder]) & (patch - 1):
            raise UsageError(
                f"deconv doubles, and {self.encoder} has patches of {patch} px", repair='choose the decoder "upward"'
            )
        if self.decoder in ("conv_mean", "fc") and self.outputs > 1:
            raise UsageError(f"{self.decoder} gives one logit, not {self.outputs}", repair='choose the decoder "pool"')
        if self.beside and sum(self.beside.bands) != sum(self.bands):
            what = f"the network beside reads {sum(self.beside.bands)} bands, this one {sum(self.bands)}"
            raise UsageError(what, repair="train both on the same inputs")

    @property
    def multiple_of(self) -> int:
        """Of heights and widths of what it is given."""
        whole = multiple_of(self.upsample)
        if self.encoder in FOUNDATIONS:
            return lcm(whole, self.side or FOUNDATIONS[self.encoder].side)
        return lcm(whole, SIZES[self.encoder].patch) if self.encoder in SIZES else whole


class Model(nn.Module):
    """Normalised pixels (n, band, y, x), 0 where not valid -> logits (n, output, y, x).

    (n, output) with the decoder "pool", and with "activation" unless the spec gives a map.
    """

    def __init__(self, spec: Spec, weights: Weights | None = None):
        super().__init__()
        self.spec = spec
        self.encoder = _encoder(spec, weights)
        channels = _channels(spec, self.encoder)
        self.beside = None if spec.beside is None else freeze(_encoder(spec.beside, None))
        if spec.beside is not None and self.beside is not None:
            channels[-1] += _channels(spec.beside, self.beside)[-1]
        self.decoder, self.head = _decoder(spec, channels, int(self.encoder.output_stride))  # type: ignore[arg-type]

    def forward(self, pixels: Tensor) -> Tensor:
        """As the class says."""
        return self.logits(self.features(pixels))

    def features(self, pixels: Tensor) -> list[Tensor]:
        """Of the encoder, (n, channel, y, x) at strides 1 to 32 of what it sees; those of several dates side by side."""
        if (times := self.spec.upsample) > 1:
            pixels = functional.interpolate(pixels, scale_factor=times, mode="bilinear", align_corners=False)
        found = _features(self.spec, self.encoder, pixels)
        if self.spec.beside is None or self.beside is None:
            return found
        other = _features(self.spec.beside, self.beside, pixels)
        return [*found[:-1], torch.cat([found[-1], other[-1]], dim=1)]

    def logits(self, features: list[Tensor]) -> Tensor:
        """As the class says, from `features`."""
        found: Tensor = self.head(self.decoder(features))
        return _reduced(found, self.spec.upsample) if self.spec.upsample > 1 and found.ndim == 4 else found


def _encoder(spec: Spec, weights: Weights | None) -> nn.Module:
    dates = len(spec.bands) if spec.fusion == "siamese" else 1
    winner = WINNERS.get(spec.encoder) if spec.decoder == "unet_plain" else None
    make: Any = {"deeplabv3": _dilated, "ocr": _branched}.get(spec.decoder, encoder_of)
    bands = 1 if spec.fusion == "each" else sum(spec.bands) // dates
    options: dict[str, Any] = {"side": spec.side} if spec.encoder in PATCHES else {}
    if spec.encoder in FOUNDATIONS:
        options["reads"] = spec.reads
    made: nn.Module = make(winner.encoder if winner else spec.encoder, bands, weights, **options)
    return made


def _channels(spec: Spec, encoder: nn.Module) -> list[int]:
    """Of the features of all dates together."""
    return [(len(spec.bands) if spec.fusion == "siamese" else 1) * c for c in encoder.out_channels]  # type: ignore[union-attr]


def _features(spec: Spec, encoder: nn.Module, pixels: Tensor) -> list[Tensor]:
    """Of an encoder, those of several dates side by side."""
    if spec.fusion == "siamese":
        # All dates in one batch: batch norm that saw each alone would train on statistics that no map ever uses.
        dates = len(spec.bands)
        each = encoder(torch.unflatten(pixels, 1, (dates, -1)).flatten(0, 1))  # (n date, band, y, x)
        return [torch.unflatten(one, 0, (-1, dates)).flatten(1, 2) for one in each]  # (n, date channel, y, x)
    if spec.fusion == "each":
        share = there(pixels)
        each = encoder(pixels.flatten(0, 1)[:, None])  # (n band, 1, y, x)
        return [(one.unflatten(0, (-1, pixels.shape[1])) * share[..., None, None, None]).sum(dim=1) for one in each]
    features: list[Tensor] = encoder(pixels)
    return features


def varied(pixels: Tensor) -> Tensor:
    """Which bands (n, band) of pixels (n, band, y, x) are not constant."""
    return pixels.amax(dim=(2, 3)) > pixels.amin(dim=(2, 3))


def there(pixels: Tensor) -> Tensor:
    """Share (n, band) that each band of pixels (n, band, y, x) has in the mean of all: a constant one says nothing."""
    each = varied(pixels).to(pixels)
    return each / each.sum(dim=1, keepdim=True).clamp(min=1)


def build(spec: Spec, *, seed: int = 0, weights: Weights | None = None) -> Model:
    """The network with its first weights drawn by `seed`; the caller's own random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Model(spec, weights)


def _reduced(enlarged: Tensor, times: float) -> Tensor:
    """Means (n, output, y, x) over the area that each pixel has in what was enlarged so many times."""
    up, down = ratio(times).as_integer_ratio()
    if down == 1:
        return functional.avg_pool2d(enlarged, up)
    # Every `up` pixels become `down`; both counted in parts that divide both.
    small, large = torch.arange(up)[:, None] * down, torch.arange(down) * up
    covered = torch.minimum(small + down, large + up) - torch.maximum(small, large)
    shares = (covered.clamp(min=0) / up).to(enlarged)  # (enlarged, reduced)
    for _ in range(2):  # along x, then along y
        enlarged = (torch.unflatten(enlarged, 3, (-1, up)) @ shares).flatten(3).transpose(2, 3)
    return enlarged


def _branched(name: str, bands: int, weights: Weights | None) -> nn.Module:
    """An encoder; of an HRNet its branches as they are, without the layers by which it classifies (Yuan et al. 2020)."""
    return encoder_of(name, bands, weights, **({"feature_location": ""} if name.startswith("hrnet") else {}))


def _dilated(name: str, bands: int, weights: Weights | None) -> nn.Module:
    """An encoder whose deepest features have the stride `DILATED`. Raises UsageError where timm cannot make one."""
    with suppress(TypeError, AssertionError):  # how timm says that it cannot
        encoder = encoder_of(name, bands, weights, output_stride=DILATED)
        if encoder.output_stride == DILATED:
            return encoder
    raise UsageError(
        f"{name} cannot be dilated to a stride of {DILATED}, which deeplabv3 needs",
        repair="choose a ResNet or the like: resnet50",
    )


def _decoder(spec: Spec, channels: list[int], stride: int) -> tuple[nn.Module, nn.Module]:
    """Decoder and head for features of these channels, strides 1 to 32, or dilated to end at `stride`."""
    head = smp.base.SegmentationHead
    if spec.decoder == "pool":
        return Pooled(), nn.Linear(channels[-1], spec.outputs)
    if spec.decoder in EMBEDDINGS:
        part: nn.Module = Pooled() if spec.decoder == "mean" else First()
        return part, nn.Linear(channels[-1], spec.outputs, bias=False) if spec.decoder == "projected" else nn.Identity()
    if spec.decoder == "upward":
        width = spec.widths[0] if spec.widths else 256
        return Upward(channels[-1], width, stride), nn.Conv2d(width, spec.outputs, 1)
    if spec.decoder == "deconv":
        up = Deconvolved(channels[-1], spec.widths[0] if spec.widths else 256, stride)
        return up, nn.Conv2d(up.width, spec.outputs, 3, padding=1)
    if spec.decoder == "doubling":
        return doubleconv.Doubling(channels), nn.Conv2d(channels[1], spec.outputs, 1)
    if spec.decoder == "activation":
        return Activation(channels[-1], spec.outputs, stride, dense=spec.gives == "map"), nn.Identity()
    if spec.decoder == "conv8":
        return Pixels(channels[-1], spec.outputs), nn.Identity()
    if spec.decoder == "conv_mean":
        return ConvMean(channels[-1]), nn.Identity()
    if spec.decoder == "fc":
        return FullyConnected(channels[-1], spec.widths[0] if spec.widths else 128), nn.Identity()
    if spec.decoder == "deeplabv3":
        width = spec.widths[0] if spec.widths else 256
        aspp = smp.decoders.deeplabv3.decoder.DeepLabV3Decoder(channels[-1], width, (12, 24, 36), False, 0.5)
        return aspp, head(width, spec.outputs, kernel_size=1, upsampling=stride)
    if spec.decoder == "unet_plain":
        winner = WINNERS.get(spec.encoder)
        widths = spec.widths or (winner.widths if winner else (32, 48, 64, 128, 256))
        plain = PlainDecoder(channels[1:], widths, gated=bool(winner and winner.gated))
        last = nn.Conv2d(widths[0], spec.outputs, 1)
        nn.init.kaiming_normal_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        return plain, last
    if spec.decoder == "ocr":
        width = spec.widths[0] if spec.widths else 512
        return Gathered(channels, width), ObjectContext(width, spec.outputs)
    if spec.decoder in ("unet", "unetplusplus"):
        widths = spec.widths or (16, 32, 64, 128, 256)
        kinds = smp.decoders
        make = kinds.unet.decoder.UnetDecoder if spec.decoder == "unet" else kinds.unetplusplus.decoder.UnetPlusPlusDecoder
        return make(channels, widths[::-1], n_blocks=5), head(widths[0], spec.outputs, kernel_size=3)
    made, width = _pyramid(spec, channels)
    return made, head(width, spec.outputs, kernel_size=1, upsampling=4)


def _pyramid(spec: Spec, channels: list[int]) -> tuple[nn.Module, int]:
    """A decoder of strides 4 to 32 that gives features at stride 4, and their channels."""
    if spec.decoder == "fpn":
        fpn = smp.decoders.fpn.decoder.FPNDecoder(channels, segmentation_channels=spec.widths[0] if spec.widths else 128)
        return fpn, fpn.out_channels
    width = spec.widths[0] if spec.widths else 256
    if spec.decoder == "segformer":
        return smp.decoders.segformer.decoder.SegformerDecoder(channels, segmentation_channels=width), width
    return smp.decoders.upernet.decoder.UPerNetDecoder(channels, decoder_channels=width), width


class Pooled(nn.Module):
    """Features -> the mean (n, channel) of the deepest."""

    def forward(self, features: list[Tensor]) -> Tensor:
        """As the class says."""
        return features[-1].mean(dim=(2, 3))


def save_weights(folder: Path, model: Model, *, half: bool = False) -> Path:
    """Writes the weights alone, with what the network is made of; numbers with fractions in half precision where asked for."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    if half:
        tensors = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"spec": json.dumps(asdict(model.spec))})
    return folder / WEIGHTS


def save(folder: Path, model: Model, card: Card) -> Card:
    """Writes weights, graph and card; gives the card with checksums, versions, encoder and decoder filled in."""
    folder.mkdir(parents=True, exist_ok=True)
    card = replace(card, multiple_of=model.spec.multiple_of)
    weights, graph = save_weights(folder, model), export(model, folder, card)
    files = (weights, graph, graph.with_suffix(".bin"))
    facts = replace(
        card, encoder=model.spec.encoder, decoder=f"{model.spec.decoder}, {model.spec.fusion}",
        sha256={file.name: sha256(file) for file in files},
        versions={name: version(name) for name in (*_LIBRARIES, *libraries(model.spec.encoder))},
    )  # fmt: skip
    facts.write(folder)
    return facts


def add_graph(folder: Path, kind: str) -> Card:
    """Makes a graph of a saved network from its weights, beside those it has, and enters it in the card.

    `kind` is one of EXPORTS. Raises the errors of `load`, UnknownNameError, and UsageError ("extra-missing").
    """
    if kind not in EXPORTS:
        raise UnknownNameError("format", kind, EXPORTS)
    model, card = load(folder)
    graph = EXPORTS[kind](model, folder, card)
    files = [f for f in (graph, graph.with_suffix(".bin")) if f.is_file()]
    versions = {**card.versions, **{name: version(name) for name in ("torch", kind)}}
    card = replace(card, sha256={**card.sha256, **{f.name: sha256(f) for f in files}}, versions=versions)
    card.write(folder)
    return card


def load(folder: Path) -> tuple[Model, Card]:
    """The network and its card, checksums compared. Raises the errors of Card.read, InputRefusedError ("weights-misfit")."""
    card = Card.read(folder)
    model = build(spec_of(folder))
    model.load_state_dict(load_file(folder / WEIGHTS))
    return model.eval(), card


def spec_of(folder: Path) -> Spec:
    """What the network of a model folder is made of. Raises InputRefusedError ("weights-misfit")."""
    if not (folder / WEIGHTS).is_file():
        raise InputRefusedError(
            f"{folder} holds no {WEIGHTS}", repair="a graph maps, but only weights train", code="weights-misfit"
        )
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        stored = (file.metadata() or {}).get("spec")
    if stored is None:
        raise InputRefusedError(
            f"{folder / WEIGHTS} does not say its network", repair="save it with model.save", code="weights-misfit"
        )
    return _spec(json.loads(stored))


def dense(folder: Path, out: Path) -> Card:
    """Saves a network that was trained on labels of chips, with the decoder "activation", as one that maps.

    Its card has one class, the hazard, no scores and no calibration: those of chips say nothing of a map. Raises the errors of
    `load`, and UsageError for a network of another decoder or of several logits.
    """
    model, card = load(folder)
    if model.spec.decoder != "activation" or model.spec.outputs != 1:
        raise UsageError(
            f"{folder} has the decoder {model.spec.decoder} and {model.spec.outputs} outputs, and only an activation of one maps",
            repair='train one with decoder = "activation" on one class of chips',
        )
    mapping = build(replace(model.spec, gives="map"))
    mapping.load_state_dict(model.state_dict())
    made = replace(card, gives="map", chip_px=0, classes=(card.hazard,), hazard_classes=(), calibration=None, scores=())
    return save(out, mapping.eval(), made)


def _spec(stored: Mapping[str, Any]) -> Spec:
    arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
    if beside := arguments.get("beside"):
        arguments["beside"] = _spec(beside)
    return Spec(**arguments)
