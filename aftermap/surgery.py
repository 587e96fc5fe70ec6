"""Changes to a finished network: freezing, batch norm whose statistics are inputs, and how weights lie in memory."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from types import MethodType

import numpy as np
import numpy.typing as npt

from aftermap.torchdoor import Tensor, nn, torch

F32 = npt.NDArray[np.float32]


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


def norms(network: nn.Module) -> list[tuple[nn.Module, str, nn.BatchNorm2d]]:
    """Every batch norm with what holds it and under which name, in the order of `Stated`."""
    return [
        (part, name, child) for part in network.modules() for name, child in part.named_children()
        if isinstance(child, nn.BatchNorm2d)
    ]  # fmt: skip


def restate(network: nn.Module, means: F32, variances: F32) -> nn.Module:
    """Gives batch norm other statistics (channel,), all layers one after the other in the order of `Stated`."""
    first = 0
    with torch.no_grad():
        for _, _, norm in norms(network):
            own = slice(first, first + norm.num_features)
            for buffer, values in ((norm.running_mean, means), (norm.running_var, variances)):
                assert buffer is not None
                buffer.copy_(torch.from_numpy(values[own]))
            first = own.stop
    return network


def after(norm: nn.BatchNorm2d) -> nn.ModuleList:
    """What a norm does after it has normalised: timm's BatchNormAct2d drops and activates."""
    return nn.ModuleList(getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name))


@dataclass
class _Given:
    """Means and variances (channel,) of all layers one after the other, while a network runs."""

    means: Tensor | None = None
    variances: Tensor | None = None


class _Stated(nn.Module):
    """A batch norm that reads its statistics where `given` has them; what a subclass does after the norm is kept."""

    def __init__(self, norm: nn.BatchNorm2d, first: int, given: _Given):
        super().__init__()
        self.norm, self.first, self.given = norm, first, given
        self.after = after(norm)

    def forward(self, features: Tensor) -> Tensor:
        """(n, channel, y, x) as nn.BatchNorm2d in eval."""
        assert self.given.means is not None
        assert self.given.variances is not None
        own, shape = slice(self.first, self.first + self.norm.num_features), (1, -1, 1, 1)
        mean, variance = (t[own].reshape(shape) for t in (self.given.means, self.given.variances))
        found = (features - mean) * torch.rsqrt(variance + self.norm.eps)
        if self.norm.affine:
            found = found * self.norm.weight.reshape(shape) + self.norm.bias.reshape(shape)
        for after in self.after:
            found = after(found)
        return found


class Stated(nn.Module):
    """A copy of a network in eval, called with the statistics of its batch norm: (pixels, mean, variance).

    Both (channel,) are those of all its batch norms, one after the other; `means` and `variances` hold what the network had
    learned in that order, and are empty where it has no batch norm.
    """

    means: Tensor
    variances: Tensor

    def __init__(self, network: nn.Module):
        super().__init__()
        self._given = _Given()
        self.network = deepcopy(network).eval()
        found: list[nn.BatchNorm2d] = []
        for part, name, child in norms(self.network):
            setattr(part, name, _Stated(child, sum(one.num_features for one in found), self._given))
            found.append(child)
        empty = [torch.zeros(0)]
        self.means, self.variances = (
            nn.Buffer(torch.cat([*(getattr(one, kind).detach().clone() for one in found), *empty]))
            for kind in ("running_mean", "running_var")
        )

    def forward(self, pixels: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """As the network."""
        self._given.means, self._given.variances = mean, variance
        found: Tensor = self.network(pixels)
        return found


def bands_last(network: nn.Module) -> None:
    """Lays weights of convolutions out as images with bands last, in place: up to twice as fast. Those over time stay."""
    for weights in network.parameters():
        if weights.ndim == 4:
            weights.data = weights.data.contiguous(memory_format=torch.channels_last)
