"""Encoders of foundation models (foundation.py) as one kind of module, through the libraries that keep them: timm, TorchGeo and
TerraTorch.

Each sees squares of one side, as it was trained; a larger image falls into squares, so positions are never made up.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
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
        self.facts, self.reading = facts, reading(name, *told(reads))
        self.out_channels, self.output_stride = [bands, facts.width, facts.width], facts.patch
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a library says of how it was written helps nobody here
            self.inner: Any = _MADE[facts.library](facts.model, self.reading, self.side, facts.patch)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """As the class says."""
        seen = (pixels / 4 + 0.5).clamp(0, 1) if self.facts.eight_bits else pixels
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


class _Timm(nn.Module):
    def __init__(self, model: str, _: Reading, side: int, __: int):
        super().__init__()
        self.model: Any = timm.create_model(model, num_classes=0, img_size=side)

    def forward(self, squares: Tensor) -> Tensor:
        found: Tensor = self.model.forward_features(squares)[:, self.model.num_prefix_tokens :]
        return found


class _TerraTorch(nn.Module):
    """Prithvi of one date, TerraMind of any of its images, Clay without date and place."""

    def __init__(self, model: str, seen: Reading, side: int, _: int):
        super().__init__()
        _needs("terratorch")
        self.kinds = {one.kind: len(one.bands) for one in seen.images}
        self.clay, self.terramind = model.startswith("clay"), model.startswith("terramind")
        if self.clay:
            self.waves = nn.Buffer(torch.tensor(seen.waves_um), persistent=False)
            self.model: Any = import_module("terratorch.models.backbones.clay_v1.embedder").Embedder(img_size=side).clay_encoder
        else:
            options = {"modalities": list(self.kinds)} if self.terramind else {"num_frames": 1}
            registry = import_module("terratorch.registry").BACKBONE_REGISTRY
            self.model = registry.build(f"terratorch_{model}", pretrained=False, img_size=side, **options)

    def forward(self, squares: Tensor) -> Tensor:
        if self.terramind:
            parts = torch.split(squares, list(self.kinds.values()), dim=1)
            found: Tensor = self.model(dict(zip(self.kinds, parts, strict=True)))[-1]
            return found
        if self.clay:
            nothing = squares.new_zeros(squares.shape[0], 4)
            told = {"pixels": squares, "time": nothing, "latlon": nothing, "gsd": GSD_M, "waves": self.waves}
            return self.model(told)[-1][:, 1:]  # type: ignore[no-any-return]
        # Not through its own `forward`, which the library binds to this very module: a copy would call the original.
        return _through(self.model, self.model.patch_embed(squares.unsqueeze(2)))


class _TorchGeo(nn.Module):
    """DOFA told by wavelengths, CROMA of radar, optical or both, Scale-MAE at GSD_M."""

    def __init__(self, model: str, seen: Reading, side: int, _: int):
        super().__init__()
        _needs("torchgeo")
        make, self.kinds = getattr(import_module("torchgeo.models"), model), {one.kind: len(one.bands) for one in seen.images}
        if model.startswith("croma"):
            self.model: Any = make(modalities=sorted(self.kinds, reverse=True), image_size=side)
        elif model.startswith("dofa"):
            self.waves = seen.waves_um
            self.model = make(img_size=side, num_classes=0, global_pool=False)
            known = places(self.model.embed_dim, side // self.model.patch_size)  # which the library leaves to the weights
            self.model.pos_embed.data[0, 1:] = known
        else:
            self.model = make(img_size=side, res=GSD_M, num_classes=0)
        self.read = {"croma": self._croma, "dofa": self._dofa, "scalemae": self._scalemae}[model.partition("_")[0]]

    def forward(self, squares: Tensor) -> Tensor:
        return self.read(squares)

    def _croma(self, squares: Tensor) -> Tensor:
        given = dict(zip(self.kinds, torch.split(squares, list(self.kinds.values()), dim=1), strict=True))
        found = self.model(**{f"x_{kind}": part for kind, part in given.items()})
        tokens: Tensor = found[f"{'joint' if len(given) > 1 else next(iter(given))}_encodings"]
        return tokens

    def _dofa(self, squares: Tensor) -> Tensor:
        return _through(self.model, self.model.patch_embed(squares, squares.new_tensor(self.waves))[0])

    def _scalemae(self, squares: Tensor) -> Tensor:
        found: Tensor = self.model.forward_features(squares)[:, 1:]
        return found


class _Own(nn.Module):
    def __init__(self, model: str, _: Reading, side: int, patch: int):
        super().__init__()
        self.model = GroupedVit(model, side, patch)

    def forward(self, squares: Tensor) -> Tensor:
        found: Tensor = self.model(squares)
        return found


_MADE: dict[str, type[nn.Module]] = {"timm": _Timm, "terratorch": _TerraTorch, "torchgeo": _TorchGeo, "": _Own}


def _needs(library: str) -> None:
    if find_spec(library) is None:
        raise UsageError(
            f"{library}, which keeps this encoder, is not installed", repair='pip install "aftermap[foundation]"',
            code="extra-missing",
        )  # fmt: skip
