"""Losses of bidirectional adaptation (methods.md A'.2): what unlabelled images of a target can teach a network.

Forward: agree with a teacher on another view. Backward: give features that do not tell the domain, behind reversed gradients.
Auxiliary: know where, when and by which sensor the image was taken. And `closed_form`, the linear probes of Chen et al. (NeurIPS
2022; arXiv 2301.02931), from which the words forward and backward come.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from aftermap.errors import UnknownNameError, UsageError
from aftermap.torchdoor import Tensor, functional, torch

SENSORS = ("S1", "S2", "Planet", "MODIS", "Maxar")
CHARACTERISTICS = {"location": 3, "date": 2, "sensor": len(SENSORS)}
"""What can be told of an image, and how many numbers tell it."""
PERCENTILE = 0.95
"""Of an image's scores: the teacher's threshold, as the paper's maps have it (methods.md A.5)."""
RIDGE = 1e-3
_YEAR_DAYS = 365.25


@dataclass(frozen=True)
class Metadata:
    """What is known of an image; None what is not."""

    location: tuple[float, float] | None = None
    """Latitude and longitude in degrees."""
    day: date | None = None
    sensor: str | None = None
    """One of SENSORS."""

    def __post_init__(self) -> None:
        if self.sensor is not None and self.sensor not in SENSORS:
            raise UnknownNameError("sensor", self.sensor, SENSORS)
        if self.location is not None and not (abs(self.location[0]) <= 90 and abs(self.location[1]) <= 360):
            raise UsageError(f"{self.location} is no latitude and longitude", repair="give degrees, latitude first")


def probabilities(logits: Tensor) -> Tensor:
    """float32 (n, class, y, x) in [0, 1]; of one logit that of the hazard."""
    return logits.float().sigmoid() if logits.shape[1] == 1 else logits.float().softmax(dim=1)


def consistency(found: Tensor, taught: Tensor, valid: Tensor, *, margin: float = 0.1) -> tuple[Tensor, float]:
    """Mean over valid pixels of m (p - teacher's p)^2, and the mean of m.

    Both are logits (n, class, y, x), valid is (n, y, x). m is 1 where the teacher is more than `margin` from its 95th percentile
    of that image and class, else 0; with a margin of 0 it is 1 everywhere. No gradient goes to the teacher.
    """
    p, wanted = probabilities(found), probabilities(taught).detach()
    seen = valid[:, None].expand_as(p)
    certain = seen if margin == 0 else seen & ((wanted - _thresholds(wanted, valid)).abs() > margin)
    pixels = seen.sum().clamp(min=1)
    return ((p - wanted) ** 2 * certain).sum() / pixels, float(certain.sum() / pixels)


def _thresholds(scores: Tensor, valid: Tensor) -> Tensor:
    """The percentile (n, class, 1, 1) over each image's valid pixels, linear between ranks; 0 where none is valid."""
    each = [
        torch.quantile(one[:, seen], PERCENTILE, dim=1) if bool(seen.any()) else one.new_zeros(len(one))
        for one, seen in zip(scores, valid, strict=True)
    ]
    return torch.stack(each)[:, :, None, None]


class _Reversed(torch.autograd.Function):
    """Identity whose gradient is times -alpha (Ganin & Lempitsky 2015)."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, alpha: float) -> Tensor:
        ctx.alpha = alpha
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return -ctx.alpha * grads[0], None


def reverse(features: Tensor, alpha: float = 1.0) -> Tensor:
    """The same numbers; what minimises a loss of them maximises it in what made them, `alpha` times."""
    found: Tensor = _Reversed.apply(features, alpha)  # type: ignore[no-untyped-call]
    return found


def pooled(features: Tensor, valid: Tensor) -> Tensor:
    """Means (n, channel) of features (n, channel, y, x), each place by its share of valid pixels; 0 where nothing is valid."""
    share = functional.interpolate(valid[:, None].float(), features.shape[-2:], mode="area")  # (n, 1, y, x)
    return (features.float() * share).sum(dim=(2, 3)) / share.sum(dim=(2, 3)).clamp(min=torch.finfo(torch.float32).tiny)


def described(metadata: Sequence[Metadata]) -> dict[str, Tensor]:
    """Targets by characteristic: location (n, 3) and date (n, 2) of length 1, NaN unknown; sensor (n,), -1 unknown."""
    unknown = math.nan
    return {
        "location": torch.tensor([_place(*one.location) if one.location else (unknown,) * 3 for one in metadata]),
        "date": torch.tensor([_season(one.day) if one.day else (unknown,) * 2 for one in metadata]),
        "sensor": torch.tensor([SENSORS.index(one.sensor) if one.sensor else -1 for one in metadata]),
    }


def _place(latitude: float, longitude: float) -> tuple[float, float, float]:
    phi, lam = math.radians(latitude), math.radians(longitude)
    return math.cos(phi) * math.cos(lam), math.cos(phi) * math.sin(lam), math.sin(phi)


def _season(day: date) -> tuple[float, float]:
    angle = 2 * math.pi * day.timetuple().tm_yday / _YEAR_DAYS
    return math.sin(angle), math.cos(angle)


def characteristics(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, distance: bool = True) -> Tensor:
    """A third each of 1 - cos of the location, 1 - cos of the date and the cross entropy of the sensor.

    Each is a mean over the images of which it is known, and 0 where there is none. With `distance` False the cosine itself is
    taken in place of 1 - cos, as paper 001 prints it: its least value is the opposite of the truth.
    """
    terms = []
    for name in CHARACTERISTICS:
        known = wanted[name] >= 0 if name == "sensor" else torch.isfinite(wanted[name]).all(dim=1)
        here, target = found[name].float()[known], wanted[name][known]
        if not len(target):
            terms.append(found[name].float().sum() * 0)
        elif name == "sensor":
            terms.append(functional.cross_entropy(here, target))
        else:
            cosine = functional.cosine_similarity(here, target, dim=1).mean()
            terms.append(1 - cosine if distance else cosine)
    return torch.stack(terms).mean()


def closed_form(source: Tensor, labels: Tensor, target: Tensor, *, ridge: float = RIDGE) -> tuple[Tensor, Tensor]:
    """Forward and backward loss of linear probes on features: source (p, c) with labels (p, k), target (q, c).

    Forward: the squared error of a probe fitted to the source. It scores the target; a second probe is fitted to the target with
    those scores, and its squared error on the labels of the source is the backward loss.
    """
    forth = fit(source, labels, ridge)
    back = fit(target, _scored(forth, target), ridge)
    return functional.mse_loss(_scored(forth, source), labels), functional.mse_loss(_scored(back, source), labels)


def fit(features: Tensor, labels: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Weights (c, k) and intercept (k,) of least mean squared error + ridge |weights|^2; the intercept is not shrunk."""
    centre, level = features.mean(dim=0), labels.mean(dim=0)
    x, y = features - centre, labels - level
    gram = (x.T @ x / len(x)).double()
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    weights = torch.linalg.solve(gram + ridge * eye, (x.T @ y / len(x)).double()).to(features)
    return weights, level - centre @ weights


def _scored(probe: tuple[Tensor, Tensor], features: Tensor) -> Tensor:
    return features @ probe[0] + probe[1]
