"""Changes to a finished network: freezing."""

from __future__ import annotations

from types import MethodType

from aftermap.torchdoor import nn


def freeze(module: nn.Module) -> nn.Module:
    """Stops a module from learning: no gradients, and batch norm keeps its statistics whatever mode is asked for later.

    A frozen network whose batch norm still counted would change with every batch it sees (methods.md section 16, trap 4).
    """
    module.requires_grad_(False)
    for part in module.modules():
        part.train(False)
        # On each part, since whoever holds only the part may ask it.
        part.__dict__["train"] = MethodType(_stay, part)
    return module


def thaw(module: nn.Module) -> nn.Module:
    """Undoes `freeze`."""
    module.requires_grad_(True)
    for part in module.modules():
        part.__dict__.pop("train", None)
    return module.train()


def _stay(self: nn.Module, mode: bool = True) -> nn.Module:
    return self
