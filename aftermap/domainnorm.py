"""Batch norm with one set of statistics for each domain and one affine for all: cross-sensor normalisation (methods.md C.4).

The domain is an argument of every call, so none is ever left over from the call before; a batch of several domains goes through
the network once for each, since a mean over two domains is of neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy

from aftermap.errors import InputRefusedError
from aftermap.surgery import norms
from aftermap.torchdoor import Tensor, nn, torch

_domain: ContextVar[int] = ContextVar("domain", default=0)


class DomainNorm(nn.Module):
    """A batch norm (n, channel, y, x) in whose place it stands; domain 0 has the statistics that were there."""

    def __init__(self, norm: nn.BatchNorm2d, domains: int):
        super().__init__()
        self.norm = norm
        self.others = nn.ModuleList(
            nn.BatchNorm2d(norm.num_features, eps=norm.eps, momentum=norm.momentum, affine=False) for _ in range(domains - 1)
        )
        self.after = nn.ModuleList(
            getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)
        )  # timm's BatchNormAct2d
        for domain in range(1, domains):
            self.begin(domain)

    def statistics(self, domain: int) -> nn.Module:
        """What holds the mean and variance of a domain."""
        return self.others[domain - 1] if domain else self.norm

    def begin(self, domain: int) -> None:
        """Gives a domain the statistics of domain 0."""
        own = self.statistics(domain)
        for name, buffer in self.norm.named_buffers(recurse=False):
            getattr(own, name).copy_(buffer)

    def forward(self, features: Tensor) -> Tensor:
        """As the batch norm, of the domain of the call."""
        domain = _domain.get()
        if domain == 0:
            first: Tensor = self.norm(features)
            return first
        found: Tensor = self.others[domain - 1](features)
        if self.norm.affine:
            found = found * self.norm.weight.reshape(1, -1, 1, 1) + self.norm.bias.reshape(1, -1, 1, 1)
        for after in self.after:
            found = after(found)
        return found


class Domained(nn.Module):
    """A copy of a network, called with pixels (n, band, y, x) and their domain: one number, or one for each image (n,).

    Every domain begins with the statistics that the network had. Raises InputRefusedError ("no-batch-norm").
    """

    def __init__(self, network: nn.Module, domains: int = 2):
        super().__init__()
        self.network, self.domains = deepcopy(network), domains
        found = norms(self.network)
        if not found:
            what = "this network has no batch norm, so its domains would share everything"
            raise InputRefusedError(what, repair="leave domain_norm out of the surgery", code="no-batch-norm")
        for part, name, child in found:
            setattr(part, name, DomainNorm(child, domains))

    def forward(self, pixels: Tensor, domain: int | Tensor = 0) -> Tensor:
        """As the network."""
        if isinstance(domain, int):
            return self._of(pixels, domain)
        kinds = sorted(set(domain.tolist()))
        if len(kinds) == 1:
            return self._of(pixels, kinds[0])
        each = [self._of(pixels[domain == one], one) for one in kinds]
        order = torch.cat([torch.nonzero(domain == one)[:, 0] for one in kinds])
        return torch.cat(each)[order.argsort()]

    def _of(self, pixels: Tensor, domain: int) -> Tensor:
        with _as(domain, self.domains):
            found: Tensor = self.network(pixels)
        return found

    def begin(self, domain: int) -> None:
        """Gives a domain the statistics of domain 0 in every layer."""
        for part in self.network.modules():
            if isinstance(part, DomainNorm):
                part.begin(domain)

    def folded(self, domain: int) -> nn.Module:
        """The network as it was before, with the statistics of one domain: what is exported and maps there."""
        plain = deepcopy(self.network)
        for part in list(plain.modules()):
            for name, child in list(part.named_children()):
                if isinstance(child, DomainNorm):
                    own = child.statistics(domain)
                    for kind, buffer in own.named_buffers(recurse=False):
                        getattr(child.norm, kind).copy_(buffer)
                    setattr(part, name, child.norm)
        return plain


@contextmanager
def _as(domain: int, domains: int) -> Iterator[None]:
    if not 0 <= domain < domains:
        raise ValueError(f"domain {domain} of {domains}")
    token = _domain.set(domain)
    try:
        yield
    finally:
        _domain.reset(token)
