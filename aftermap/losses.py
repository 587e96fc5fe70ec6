"""Losses of logits and truth that leave out what is not known: class code 255, and NaN among numbers.

Every loss takes logits (n, class, ...) and truth (n, ...) and gives a scalar; one class means one hazard, its logit against 0. A
whole batch counts as one set. One of which nothing is known has the loss 0, with gradients of 0.

Lovasz hinge is that of segmentation-models-pytorch. Its other losses are not used: dice there is 0 where a batch has no hazard,
so that false alarms cost nothing; Lovasz softmax takes no class weights and gives no scalar for a batch of unknown pixels; cross
entropy there cannot weight classes and smooth labels at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from aftermap.errors import UnknownNameError, UsageError
from aftermap.torchdoor import Tensor, functional, smp, torch

UNKNOWN = 255
EPSILON = 1e-6
"""Of dice and focal (methods.md A.3)."""
Weights = Sequence[float] | None
"""One per class; with one hazard (background, hazard)."""
Loss = Callable[[Tensor, Tensor], Tensor]


def known(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (p, class) as float32, two columns for one hazard, and codes (p,) of the pixels whose truth is known."""
    flat = logits.float().movedim(1, -1).reshape(-1, logits.shape[1])  # (n y x, class)
    if flat.shape[1] == 1:
        flat = torch.cat([torch.zeros_like(flat), flat], dim=1)
    kept = truth.reshape(-1) != UNKNOWN
    return flat[kept], truth.reshape(-1)[kept].long()


def _nothing(logits: Tensor) -> Tensor:
    return logits.float().sum() * 0


def _per_class(weights: Weights, logits: Tensor) -> Tensor:
    return torch.ones(logits.shape[1], device=logits.device) if weights is None else torch.tensor(weights, device=logits.device)


def cross_entropy(logits: Tensor, truth: Tensor, *, smoothing: float = 0.0, weights: Weights = None) -> Tensor:
    """Mean of -log p of the true class, weighted by class; smoothing e makes the target (1 - e) + e / K (Szegedy et al. 2016)."""
    flat, code = known(logits, truth)
    if not len(code):
        return _nothing(logits)
    return functional.cross_entropy(flat, code, weight=_per_class(weights, flat), label_smoothing=smoothing)


def hard_pixels(logits: Tensor, truth: Tensor, *, keep: float = 0.5, smoothing: float = 0.0, weights: Weights = None) -> Tensor:
    """OHEM: the mean cross entropy of the largest share `keep` of known pixels, at least one (methods.md C.5)."""
    flat, code = known(logits, truth)
    if not len(code):
        return _nothing(logits)
    each = functional.cross_entropy(flat, code, weight=_per_class(weights, flat), label_smoothing=smoothing, reduction="none")
    return each.topk(max(1, round(keep * len(each)))).values.mean()


@torch.no_grad()
def hardest(logits: Tensor, truth: Tensor, keep: float) -> Tensor:
    """The truth with all but the share `keep` of known pixels of the largest cross entropy, at least one, unknown."""
    flat, code = known(logits, truth)
    if not len(code):
        return truth
    each = functional.cross_entropy(flat, code, reduction="none")
    unknown = torch.ones_like(code, dtype=torch.bool)
    unknown[each.topk(max(1, round(keep * len(each)))).indices] = False
    left = truth.reshape(-1).clone()
    left[torch.nonzero(left != UNKNOWN)[:, 0][unknown]] = UNKNOWN
    return left.reshape(truth.shape)


def dice(logits: Tensor, truth: Tensor, *, weights: Weights = None) -> Tensor:
    """1 - (2 sum(py) + e) / (sum p + sum y + e) over the whole batch (methods.md A.3); of several classes the weighted mean."""
    flat, code = known(logits, truth)
    if not len(code):
        return _nothing(logits)
    p, y = flat.softmax(dim=1), functional.one_hot(code, flat.shape[1]).float()  # (p, class)
    share = (2 * (p * y).sum(dim=0) + EPSILON) / (p.sum(dim=0) + y.sum(dim=0) + EPSILON)
    each = 1 - share
    if logits.shape[1] == 1:
        return each[1]  # dice of the hazard alone
    by = _per_class(weights, flat)
    return (by * each).sum() / by.sum()


def focal(logits: Tensor, truth: Tensor, *, gamma: float = 2.0, weights: Weights = None) -> Tensor:
    """Mean of -(1 - pt)^gamma log pt, probabilities and targets clamped to [1e-6, 1 - 1e-6] (methods.md A.3)."""
    flat, code = known(logits, truth)
    if not len(code):
        return _nothing(logits)
    p = flat.softmax(dim=1).clamp(EPSILON, 1 - EPSILON)
    if logits.shape[1] == 1:
        y = code.float().clamp(EPSILON, 1 - EPSILON)
        pt = y * p[:, 1] + (1 - y) * (1 - p[:, 1])
    else:
        pt = p.gather(1, code[:, None])[:, 0]
    by = _per_class(weights, flat)[code]
    return (-by * (1 - pt) ** gamma * pt.log()).sum() / by.sum()


def lovasz_hinge(logits: Tensor, truth: Tensor) -> Tensor:
    """Lovasz hinge of one hazard, errors 1 - z (2y - 1) (Berman et al. 2018, section 2.2). Class weights have no meaning here."""
    if logits.shape[1] != 1 or not bool((truth != UNKNOWN).any()):
        assert logits.shape[1] == 1, "the hinge is of one logit"
        return _nothing(logits)
    found: Tensor = smp.losses.LovaszLoss("binary", ignore_index=UNKNOWN)(logits.float(), truth)
    return found


def lovasz_softmax(logits: Tensor, truth: Tensor, *, weights: Weights = None) -> Tensor:
    """Lovasz softmax of the classes present in the batch (Berman et al. 2018, equation 11), their weighted mean."""
    flat, code = known(logits, truth)
    if not len(code):
        return _nothing(logits)
    present = torch.unique(code)
    p, by = flat.softmax(dim=1), _per_class(weights, flat)
    each = torch.stack([_lovasz((code == c).float(), p[:, c]) for c in present])
    return (by[present] * each).sum() / by[present].sum()


def _lovasz(truth: Tensor, p: Tensor) -> Tensor:
    """Errors |y - p| (p,) in descending order times the steps of the Jaccard loss along them."""
    error, order = (truth - p).abs().sort(descending=True)
    y = truth[order]
    jaccard = 1 - (y.sum() - y.cumsum(0)) / (y.sum() + (1 - y).cumsum(0))
    return error @ torch.diff(jaccard, prepend=jaccard.new_zeros(1))


def mse(found: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over what is known; found (n, 1, ...) or (n, ...), target (n, ...), NaN unknown."""
    return _regression(found, target, functional.mse_loss)


def huber(found: Tensor, target: Tensor, *, delta: float = 1.0) -> Tensor:
    """Half the squared error up to `delta`, then linear (Huber 1964); mean over what is known."""
    return _regression(found, target, partial(functional.huber_loss, delta=delta))


def _regression(found: Tensor, target: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    found = found.reshape(target.shape).float()
    kept = torch.isfinite(target)
    return loss(found[kept], target[kept].float()) if bool(kept.any()) else _nothing(found)


def batch_softmax(logits: Tensor, truth: Tensor) -> Tensor:
    """-sum_i y_i log softmax(z)_i over chips i of the batch: cross entropy of logits (n, 1) and truth (n,) taken for one sample.

    It ranks chips within a batch; a logit by itself means nothing (methods.md B.3).
    """
    kept = truth != UNKNOWN
    if not bool(kept.any()):
        return _nothing(logits)
    return -(truth[kept].float() * functional.log_softmax(logits[kept, 0].float(), dim=0)).sum()


LOSSES: dict[str, Callable[..., Tensor]] = {
    "ce": cross_entropy, "soft_ce": partial(cross_entropy, smoothing=0.1), "ohem": hard_pixels, "dice": dice, "focal": focal,
    "lovasz_hinge": lovasz_hinge, "lovasz": lovasz_softmax, "mse": mse, "huber": huber,
    "batch_softmax": batch_softmax,
}  # fmt: skip
_UNWEIGHTED = ("lovasz_hinge", "mse", "huber", "batch_softmax")


@dataclass(frozen=True)
class Sum:
    """Losses by name, each times its share: {"dice": 1, "focal": 10}."""

    shares: Mapping[str, float]
    class_weights: tuple[float, ...] | None = None
    hard_pixels: float = 1.0
    """Share of the known pixels that every loss sees: those of the largest cross entropy (OHEM; methods.md C.5)."""

    def __post_init__(self) -> None:
        for name in self.shares:
            if name not in LOSSES:
                raise UnknownNameError("loss", name, LOSSES)
        if not 0 < self.hard_pixels <= 1:
            raise UsageError(f"hard_pixels is {self.hard_pixels}", repair="give a share above 0, at most 1")

    def __call__(self, logits: Tensor, truth: Tensor) -> Tensor:
        """A scalar."""
        if self.hard_pixels < 1:
            truth = hardest(logits, truth, self.hard_pixels)
        total = _nothing(logits)
        for name, share in self.shares.items():
            options: dict[str, Any] = {} if name in _UNWEIGHTED else {"weights": self.class_weights}
            total = total + share * LOSSES[name](logits, truth, **options)
        return total
