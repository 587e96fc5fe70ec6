"""Encoders by name, for any number of bands: features at strides 2, 4, 8, 16, 32 from timm and segmentation-models-pytorch.

Weights come from a local safetensors file or a hub, with their facts: source, licence, checksum, normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aftermap import borrowed, doubleconv, plain, shallow, vit
from aftermap.errors import InputRefusedError, UnknownNameError, UsageError
from aftermap.foundation import FOUNDATIONS
from aftermap.journal import sha256
from aftermap.torchdoor import Tensor, nn, smp, timm, torch

MIX = tuple(f"mit_b{size}" for size in range(6))
"""Mix transformers, which timm does not have."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NARROW = {"resnet18_half": ("resnet18", {"channels": (32, 64, 128, 256)})}
"""Encoders of our own making: a timm network at other widths, for maps on a laptop; nobody publishes weights of these."""
OWN = (*shallow.NAMES, *doubleconv.NAMES, *vit.NAMES, *FOUNDATIONS)
"""Encoders of modules of their own."""
_WITHIN = ("", "encoder.", "model.encoder.")
"""Where publishers of foundation models keep the encoder among their tensors."""
_WINDOWED = ("swin",)
"""Attention in windows: timm has to be told that other sizes than the trained one are meant."""


@dataclass(frozen=True)
class Weights:
    """Pretrained weights of one encoder and their facts; weights never travel without them."""

    file: Path
    """A safetensors file."""
    sha256: str
    source: str
    """Where they came from, in words or as an address."""
    licence: str
    mean: tuple[float, ...] = ()
    """What their inputs were normalised with, in [0, 1] of their bands; empty where not known."""
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.file.suffix != ".safetensors":
            raise InputRefusedError(
                f"{self.file} is no safetensors file, and nothing else is loaded: a pickle can run what it likes",
                repair="convert it with safetensors.torch.save_file",
                code="weights-format",
            )
        if not self.file.is_file() or (found := sha256(self.file)) != self.sha256:
            what = f"has the checksum {found}" if self.file.is_file() else "is not there"
            raise InputRefusedError(
                f"{self.file} {what}, and {self.sha256} is expected", repair="fetch the weights again", code="weights-changed"
            )


def asked(name: str, said: str) -> Weights | None:
    """Those that are asked for: none, those of the encoder's hub, or of a page of facts (.toml). Raises as `hub`, `described`."""
    if said in ("", "none"):
        return None
    return hub(name) if said == "hub" else described(Path(said))


def described(page: Path) -> Weights:
    """Weights of a file of facts beside them, in TOML: file, sha256, source and licence, mean and std where they are known.

    Raises InputRefusedError ("weights-format", "weights-changed"), UsageError ("weights-format") for other or missing facts.
    """
    try:
        told: dict[str, Any] = plain.read_toml(page)
        told["file"] = page.parent / told["file"]
        return Weights(**(told | {k: tuple(v) for k, v in told.items() if isinstance(v, list)}))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{page} does not describe weights: {error}", repair="give it file, sha256, source and licence", code="weights-format"
        ) from error


def names() -> list[str]:
    """Every encoder that can be asked for."""
    return [*timm.list_models(), *MIX, *NARROW, *OWN]


def hub(name: str, *, endpoint: str | None = None, cache: Path | None = None) -> Weights:
    """The default weights of an encoder, fetched once into the hub's cache. Raises InputRefusedError ("weights-unreachable")."""
    from huggingface_hub import hf_hub_download  # here, because only this needs the network

    repository, revision, licence, mean, std = _published(name)
    try:
        file = Path(hf_hub_download(repository, "model.safetensors", revision=revision, endpoint=endpoint, cache_dir=cache))
    except Exception as error:
        raise InputRefusedError(
            f"{repository} cannot be fetched: {error}",
            repair="fetch its model.safetensors where there is a network, and give the file",
            code="weights-unreachable",
        ) from error
    return Weights(file, sha256(file), f"{repository}@{revision or file.parent.name}", licence, mean, std)


def _published(name: str) -> tuple[str, str | None, str, tuple[float, ...], tuple[float, ...]]:
    """Repository, revision, licence, mean and std of an encoder's default weights."""
    _known(name)
    if name in MIX:
        settings = smp.encoders.encoders[name]["pretrained_settings"]["imagenet"]
        return settings["repo_id"], settings["revision"], "see the repository", IMAGENET_MEAN, IMAGENET_STD
    of_timm = name in FOUNDATIONS and FOUNDATIONS[name].library == "timm"
    known = FOUNDATIONS[name].model if of_timm else name
    facts = None if name in (*NARROW, *OWN) and not of_timm else timm.models.get_pretrained_cfg(known)
    if facts is None or not facts.hf_hub_id:
        what = f"no hub has weights of {name} as safetensors"
        raise InputRefusedError(what, repair="give a file of them, and its page of facts", code="weights-unreachable")
    return f"{facts.hf_hub_id}{facts.architecture}.{facts.tag}", None, facts.license or "unknown", facts.mean, facts.std


def build(name: str, bands: int, weights: Weights | None = None, **options: Any) -> nn.Module:
    """An encoder: pixels (n, band, y, x) -> [pixels, features (n, channel, y / 2, x / 2), ..., (n, channel, y / 32, x / 32)].

    Its `out_channels` are the channels of each; 0 where it has no features at stride 2. Those of shallow.py give [pixels,
    features (n, channel, y, x)], those of doubleconv.py strides 1 to 16, those of vit.py [pixels, class token, tokens], as do
    foundation models, but for the token: the mean of the others. Weights trained on other bands are inflated, but for foundation
    models, which have their own. Raises UnknownNameError, InputRefusedError ("weights-misfit").
    """
    _known(name)
    own = weights is None or name in FOUNDATIONS
    encoder = _empty(name, bands if own else len(weights.mean) or 3, options)  # type: ignore[union-attr]
    if weights is not None:
        _load(encoder, weights)
        if not own:
            inflate(encoder, bands)
    return encoder


def _known(name: str) -> None:
    if name not in (*MIX, *NARROW, *OWN) and not timm.is_model(name):
        raise UnknownNameError("encoder", name, names())


def _empty(name: str, bands: int, options: dict[str, Any]) -> nn.Module:
    if name.startswith("dpn"):
        return DualPath(name, bands)
    if name in shallow.NAMES:
        return shallow.encoder(name, bands)
    if name in doubleconv.NAMES:
        return doubleconv.encoder(name, bands)
    if name in vit.NAMES:
        return vit.Vit(name, bands, **options)
    if name in FOUNDATIONS:
        return borrowed.Borrowed(name, bands, **options)
    if name in MIX:
        encoder: nn.Module = smp.encoders.get_encoder(name, in_channels=bands, weights=None)
        return encoder
    name, narrowed = NARROW.get(name, (name, {}))
    options = narrowed | options
    if name.startswith(_WINDOWED):
        options = {"strict_img_size": False} | options
    return smp.encoders.TimmUniversalEncoder(name, pretrained=False, in_channels=bands, **options)  # type: ignore[no-any-return]


class DualPath(nn.Module):
    """A dual path network with the features of the xView2 winners: the last stage with its closing norm and activation.

    timm's own `features_only` leaves that norm out; original: DIUx-xView/xView2_first_place, zoo/models.py.
    """

    def __init__(self, name: str, bands: int):
        super().__init__()
        self.model = timm.create_model(name, in_chans=bands, num_classes=0, global_pool="")
        channels: list[dict[str, int]] = self.model.feature_info  # type: ignore[assignment]
        self.out_channels = [bands, *(one["num_chs"] for one in channels)]
        self.output_stride = 32

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """As `build` says."""
        found = self.model.forward_intermediates(pixels, norm=True, intermediates_only=True)  # type: ignore[operator]
        return [pixels, *found]


def _load(encoder: nn.Module, weights: Weights) -> None:
    """Puts weights in; classifier layers are left, anything else that does not fit is refused."""
    from safetensors.torch import load_file

    own = encoder.state_dict()
    given = load_file(weights.file)
    matched = {key: given[other] for key in own if (other := _match(key, given)) is not None}
    left = ("num_batches_tracked", *(borrowed.COMPUTED if isinstance(encoder, borrowed.Borrowed) else ()))
    matched = {key: tensor for key, tensor in matched.items() if not key.endswith(left)}
    lacking = [k for k in own if (k not in matched or matched[k].shape != own[k].shape) and not k.endswith(left)]
    if lacking:
        raise InputRefusedError(
            f"{weights.file} does not fit: {len(lacking)} of {len(own)} tensors lack or have another shape, first {lacking[0]}",
            repair="name the encoder that these weights belong to",
            code="weights-misfit",
        )
    encoder.load_state_dict({**own, **matched})


def _match(key: str, given: dict[str, Tensor]) -> str | None:
    """The name under which a library publishes a tensor of the encoder: without its wrapper, with stages as lists."""
    plain = key.removeprefix("inner.").removeprefix("model.")
    flat = {k: k for k in (key, plain, plain.replace("stages_", "stages.").replace("layers_", "layers."))}
    flat |= {k: k for k in (f"{where}{plain}" for where in _WITHIN)}
    return next((name for name in flat if name in given), None)


def inflate(encoder: nn.Module, bands: int) -> None:
    """Makes the first layer read `bands`: the mean over the trained bands, for each, so that sums stay (methods.md C.3)."""
    first = next(m for m in encoder.modules() if isinstance(m, nn.Conv2d))
    trained = first.in_channels
    if trained == bands:
        return
    assert first.groups == 1
    with torch.no_grad():
        spread = first.weight.mean(dim=1, keepdim=True).repeat(1, bands, 1, 1) * (trained / bands)  # (channel, band, y, x)
    first.weight, first.in_channels = nn.Parameter(spread), bands
    held = "out_channels" if "out_channels" in encoder.__dict__ else "_out_channels"
    setattr(encoder, held, [bands, *getattr(encoder, held)[1:]])
