"""Fine-tuning few parameters of a frozen encoder: low-rank updates of its layers (LoRA), or its biases alone. The door to peft.

Hu et al. 2021 (arXiv 2106.09685): W + s B A, A drawn, B 0 at first, so that nothing changes before a step is taken; of linear
layers and of convolutions alike. What is delivered is merged: the network it was, its layers' weights changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Any

from safetensors.torch import load_file, save_file

from aftermap.errors import UsageError
from aftermap.model import Model
from aftermap.surgery import freeze
from aftermap.torchdoor import nn, torch

ADAPTER = "adapter.safetensors"
_MARK = "lora_"


@dataclass(frozen=True)
class Facts:
    """What learns of a network, for its row of results."""

    trainable: int
    parameters: int
    """Of the network as it is delivered."""
    layers: int
    """That have an update."""
    effective_rank: float
    """Mean over them of the largest rank that an update can have: the smaller of the rank and of both sides of the layer."""
    not_low_rank: int
    """Layers whose update can be any matrix: the rank is no less than a side. It has more numbers than the layer."""


def put(
    model: Model, *, rank: int, alpha: int = 0, root: bool = False, dropout: float = 0.0, layers: str = "all", seed: int = 0,
) -> Facts:  # fmt: skip
    """Freezes the encoder and gives its layers updates that learn, as page.LowRank has it; decoder and head learn as before.

    The seed draws A, and nothing else does.

    Raises UsageError ("no-layers") where the encoder has none of the kind.
    """
    from peft import LoraConfig, inject_adapter_in_model

    parameters = sum(p.numel() for p in model.parameters())
    wanted = [name for name, layer in model.encoder.named_modules() if _takes(name, layer, layers)]
    fused = [name for name, layer in model.encoder.named_modules() if isinstance(layer, nn.TransformerEncoderLayer)]
    wanted = [name for name in wanted if not name.startswith(tuple(f"{one}." for one in fused))]
    if not wanted:
        what = f"{model.spec.encoder} has no {layers} layers"
        raise UsageError(what, repair='lora.layers = "all" takes linear layers and convolutions', code="no-layers")
    sides = [_side(model.encoder.get_submodule(name)) for name in wanted]
    config = LoraConfig(
        r=rank, lora_alpha=alpha or rank, lora_dropout=dropout, target_modules=wanted, use_rslora=root,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model.encoder)
    freeze(model.encoder)
    for name, one in model.encoder.named_parameters():
        one.requires_grad_(_MARK in name)
    drops = [part for name, part in model.encoder.named_modules() if name.rpartition(".")[0].endswith("lora_dropout")]
    for drop in drops:
        drop.__dict__.pop("train", None)  # which `freeze` took: these drop in training, as all that learns
    model.encoder.__dict__["train"] = MethodType(_Dropping(drops), model.encoder)
    return Facts(
        sum(p.numel() for p in model.parameters() if p.requires_grad), parameters, len(wanted),
        sum(min(rank, side) for side in sides) / len(sides), sum(rank >= side for side in sides),
    )  # fmt: skip


def _side(layer: Any) -> int:
    """The smaller of what a layer takes and gives: of a convolution it takes whole neighbourhoods."""
    return int(min(len(layer.weight), layer.weight[0].numel()))


def _takes(name: str, layer: nn.Module, layers: str) -> bool:
    if layers == "attention":
        return isinstance(layer, nn.Linear) and (".attn." in f".{name}." or name.endswith(("to_qkv", "to_out", "to_q", "to_kv")))
    return isinstance(layer, (nn.Linear, nn.Conv2d)) and getattr(layer, "groups", 1) == 1


@dataclass
class _Dropping:
    """In place of `train` of a frozen encoder: its batch norms stay, what drops of the updates follows."""

    drops: list[nn.Module]

    def __call__(self, encoder: nn.Module, mode: bool = True) -> nn.Module:
        for drop in self.drops:
            drop.train(mode)
        return encoder


def only_biases(model: Model) -> Facts:
    """Freezes the encoder but for its biases, those of norms too (BitFit, Ben Zaken et al. 2022); their statistics stay."""
    freeze(model.encoder)
    for name, one in model.encoder.named_parameters():
        one.requires_grad_(name.endswith("bias"))
    parameters = sum(p.numel() for p in model.parameters())
    return Facts(sum(p.numel() for p in model.parameters() if p.requires_grad), parameters, 0, 0.0, 0)


def adapted(model: Model) -> bool:
    """Whether any layer has an update."""
    return any(True for _ in _updated(model))


def _updated(model: nn.Module) -> Iterator[tuple[str, Any]]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    yield from ((name, part) for name, part in model.named_modules() if isinstance(part, BaseTunerLayer))


@torch.no_grad()
def merged(model: Model) -> Model:
    """A copy without updates whose layers give the same."""
    made = deepcopy(model).eval()
    for name, layer in list(_updated(made)):
        layer.merge()
        holder, _, own = name.rpartition(".")
        setattr(made.get_submodule(holder), own, layer.get_base_layer())
    made.encoder.__dict__.pop("train", None)
    return made


def write(folder: Path, model: Model, how: Mapping[str, Any]) -> Path:
    """The updates, decoder and head alone, with what they are of: what differs from the network that it began with."""
    folder.mkdir(parents=True, exist_ok=True)
    own = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items() if _MARK in k or not k.startswith("encoder.")}
    save_file(own, folder / ADAPTER, metadata={k: str(v) for k, v in how.items()})
    return folder / ADAPTER


def read(path: Path, model: Model, how: Mapping[str, Any]) -> Model:
    """Puts updates, decoder and head onto the network that they were learned on, in place."""
    put(model, **how)
    missing, unexpected = model.load_state_dict(load_file(path), strict=False)
    if unexpected or any(_MARK in name or not name.startswith("encoder.") for name in missing):
        raise UsageError(f"{path} is not of {model.spec.encoder} as {dict(how)}", repair="give the network that it began with")
    return model
