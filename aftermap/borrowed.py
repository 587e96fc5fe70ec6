"""Encoders of foundation models (foundation.py) as one kind of module, through the libraries that keep them: timm, TorchGeo and
TerraTorch.

Each sees squares of one side, as it was trained; a larger image falls into squares, so positions are never made up.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from aftermap.errors import UsageError
from aftermap.foundation import FOUNDATIONS, GSD_M, Reading, reading, told
from aftermap.satmae import GroupedVit, places
from aftermap.torchdoor import Tensor, nn, timm, torch

COMPUTED = ("pos_embed", "pos_emb", "attn_bias", "channel_embed", "channel_cls_embed")
"""Ends of names of tensors that follow from the side; those of published weights are of another side."""


class Borrowed(nn.Module):
    """Normalised pixels (n, band, y, x) -> [pixels, mean token (n, width, 1, 1), tokens (n, width, y / patch, x / patch)].

    y and x are multiples of `side`. Raises InputRefusedError ("foundation-bands"), UsageError ("extra-missing",
    "foundation-side").
    """

    def __init__(self, name: str, bands: int, reads: Sequence[str], side: int = 0):
        super().__init__()
        facts = FOUNDATIONS[name]
        self.side = side or facts.side
        if self.side % facts.patch:
            what = f"{name} has patches of {facts.patch} px, which do not fill squares of {self.side} px"
            raise UsageError(what, repair=f"give chips.size = {facts.side}, or a multiple of both", code="foundation-side")
        self.eight_bits = facts.eight_bits
        self.out_channels, self.output_stride = [bands, facts.width, facts.width], facts.patch
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a library says of how it was written helps nobody here
            make = next(kind for begin, kind in _MADE.items() if name.startswith(begin))
            self.inner: Any = make(facts.model, reading(name, *told(reads)), self.side)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """As the class says."""
        seen = (pixels / 4 + 0.5).clamp(0, 1) if self.eight_bits else pixels
        rows, cols = pixels.shape[2] // self.side, pixels.shape[3] // self.side
        parts = torch.unflatten(torch.unflatten(seen, 3, (cols, self.side)), 2, (rows, self.side))
        tokens = self.inner(parts.permute(0, 2, 4, 1, 3, 5).flatten(0, 2))  # (n row col, token, width)
        grid = self.side // self.output_stride
        own = torch.unflatten(torch.unflatten(tokens, 1, (grid, grid)), 0, (-1, rows, cols))  # (n, row, col, y, x, width)
        whole = own.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
        return [pixels, whole.mean(dim=(2, 3), keepdim=True), whole]


def _through(model: Any, patches: Tensor) -> Tensor:
    """Patches (n, token, width) at their places through the layers, the class token first and then left out."""
    first = (model.cls_token + model.pos_embed[:, :1]).expand(patches.shape[0], -1, -1)
    every = torch.cat([first, patches + model.pos_embed[:, 1:]], dim=1)
    for block in model.blocks:
        every = block(every)
    found: Tensor = model.norm(every)[:, 1:]
    return found


class _Prithvi(nn.Module):
    """Of one date."""

    def __init__(self, model: str, _: Reading, side: int):
        super().__init__()
        self.model = _backbone(model, side, num_frames=1)

    def forward(self, squares: Tensor) -> Tensor:
        # Not through its own `forward`, which the library binds to this very module: a copy would call the original.
        return _through(self.model, self.model.patch_embed(squares.unsqueeze(2)))


class _Clay(nn.Module):
    """Without date and place."""

    def __init__(self, _: str, seen: Reading, side: int):
        super().__init__()
        self.waves = nn.Buffer(torch.tensor(seen.waves_um), persistent=False)
        library = _library("terratorch", "terratorch.models.backbones.clay_v1.embedder")
        self.model: Any = library.Embedder(img_size=side).clay_encoder

    def forward(self, squares: Tensor) -> Tensor:
        nothing = squares.new_zeros(squares.shape[0], 4)
        told = {"pixels": squares, "time": nothing, "latlon": nothing, "gsd": GSD_M, "waves": self.waves}
        found: Tensor = self.model(told)[-1][:, 1:]
        return found


class _TerraMind(nn.Module):
    """Tokens are means over images."""

    def __init__(self, model: str, seen: Reading, side: int):
        super().__init__()
        self.kinds = seen.kinds
        self.model = _backbone(model, side, modalities=list(self.kinds))

    def forward(self, squares: Tensor) -> Tensor:
        found: Tensor = self.model(_parts(squares, self.kinds))[-1]
        return found


class _Dofa(nn.Module):
    def __init__(self, model: str, seen: Reading, side: int):
        super().__init__()
        self.waves = seen.waves_um
        make = getattr(_library("torchgeo", "torchgeo.models"), model)
        self.model: Any = make(img_size=side, num_classes=0, global_pool=False)
        known = places(self.model.embed_dim, side // self.model.patch_size)  # which the library leaves to the weights
        self.model.pos_embed.data[0, 1:] = known

    def forward(self, squares: Tensor) -> Tensor:
        return _through(self.model, self.model.patch_embed(squares, squares.new_tensor(self.waves))[0])


class _Croma(nn.Module):
    """Of radar, optical or both, whose tokens are then joint ones."""

    def __init__(self, model: str, seen: Reading, side: int):
        super().__init__()
        self.kinds = seen.kinds
        self.model: Any = getattr(_library("torchgeo", "torchgeo.models"), model)(modalities=list(self.kinds), image_size=side)

    def forward(self, squares: Tensor) -> Tensor:
        given = _parts(squares, self.kinds)
        found = self.model(**{f"x_{kind}": part for kind, part in given.items()})
        tokens: Tensor = found[f"{'joint' if len(given) > 1 else next(iter(given))}_encodings"]
        return tokens


class _ScaleMae(nn.Module):
    """Told GSD_M."""

    def __init__(self, model: str, _: Reading, side: int):
        super().__init__()
        make = getattr(_library("torchgeo", "torchgeo.models"), model)
        self.model: Any = make(img_size=side, res=GSD_M, num_classes=0)

    def forward(self, squares: Tensor) -> Tensor:
        found: Tensor = self.model.forward_features(squares)[:, 1:]
        return found


class _SatMae(nn.Module):
    def __init__(self, model: str, _: Reading, side: int):
        super().__init__()
        self.model = GroupedVit(model, side, 8)

    def forward(self, squares: Tensor) -> Tensor:
        found: Tensor = self.model(squares)
        return found


class _Dino(nn.Module):
    def __init__(self, model: str, _: Reading, side: int):
        super().__init__()
        self.model: Any = timm.create_model(model, num_classes=0, img_size=side)

    def forward(self, squares: Tensor) -> Tensor:
        found: Tensor = self.model.forward_features(squares)[:, self.model.num_prefix_tokens :]
        return found


_MADE: dict[str, type[nn.Module]] = {
    "prithvi": _Prithvi, "clay": _Clay, "terramind": _TerraMind, "dofa": _Dofa, "croma": _Croma, "scalemae": _ScaleMae,
    "satmae": _SatMae, "dinov3": _Dino,
}  # fmt: skip
"""By how names begin."""


def _backbone(model: str, side: int, **options: Any) -> Any:
    registry = _library("terratorch", "terratorch.registry").BACKBONE_REGISTRY
    return registry.build(f"terratorch_{model}", pretrained=False, img_size=side, **options)


def _parts(squares: Tensor, kinds: Mapping[str, int]) -> dict[str, Tensor]:
    """Bands by the image that they are of."""
    return dict(zip(kinds, torch.split(squares, list(kinds.values()), dim=1), strict=True))


def _library(name: str, module: str) -> Any:
    if find_spec(name) is None:
        what = f"{name}, which keeps this encoder, is not installed"
        raise UsageError(what, repair='pip install "aftermap[foundation]"', code="extra-missing")
    found = import_module(module)
    warnings.simplefilter("ignore")  # which the library may have undone; whoever builds brings the filters back
    return found
