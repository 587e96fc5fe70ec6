"""Linear regressions in closed form: one decomposition of the features serves all tasks, penalties and sets (methods.md H).

Least squares is what a probe is called by; ridge, its penalty chosen by leaving one out, is what to believe where chips are
hardly more than features. All in float64, on features standardised by those of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aftermap.errors import UsageError

F64 = npt.NDArray[np.float64]

PENALTIES: tuple[float, ...] = tuple(10.0 ** np.arange(-2, 5))
ILL = 1e6
"""Condition of the smaller Gram matrix above which the features themselves are decomposed: there squaring would cost half of the
digits of what little varies."""


@dataclass(frozen=True, eq=False)
class Linear:
    """Slopes (d, task) and intercepts (task,) on features as they are given."""

    slopes: F64
    intercepts: F64
    penalties: F64
    """Of each task (task,); 0 without."""

    def __call__(self, features: F64) -> F64:
        """(m, d) -> (m, task)."""
        return features @ self.slopes + self.intercepts


@dataclass(frozen=True, eq=False)
class Decomposed:
    """Standardised features (n, d) as u s v^T, without what does not vary: rank r, at most the smaller of n - 1 and d."""

    mean: F64
    scale: F64
    u: F64
    """(n, r), columns orthogonal to the vector of ones."""
    s: F64
    """(r,), falling."""
    v: F64
    """(d, r)."""

    def least_squares(self, wanted: F64) -> Linear:
        """Of tasks (n, task); of all that fit alike, the slopes of least norm on standardised features."""
        told = self.u.T @ (wanted - wanted.mean(axis=0))
        return self._linear(told / self.s[:, None], wanted, np.zeros(wanted.shape[1]))

    def ridge(self, wanted: F64, penalties: Sequence[float] = PENALTIES) -> Linear:
        """Of tasks (n, task), each with the penalty of the smallest squared error of leaving one out, intercept unpenalised."""
        told, centred = self.u.T @ (wanted - wanted.mean(axis=0)), wanted - wanted.mean(axis=0)
        squared, errors = self.u**2, []
        for penalty in penalties:
            kept = self.s**2 / (self.s**2 + penalty)
            left = (centred - self.u @ (kept[:, None] * told)) / (1 - 1 / len(self.u) - squared @ kept)[:, None]
            errors.append((left**2).mean(axis=0))
        best = np.asarray(penalties, np.float64)[np.argmin(errors, axis=0)]  # (task,)
        return self._linear((self.s / (self.s**2 + best[:, None])).T * told, wanted, best)

    def _linear(self, along: F64, wanted: F64, penalties: F64) -> Linear:
        slopes = (self.v @ along) / self.scale[:, None]
        return Linear(slopes, wanted.mean(axis=0) - self.mean @ slopes, penalties)


def decompose(features: F64) -> Decomposed:
    """Of features (n, d), n at least 3, by the smaller Gram matrix, or, where that is ill-conditioned, themselves.

    Raises UsageError ("too-few-chips").
    """
    count, wide = features.shape
    if count < 3:
        raise UsageError(f"{count} chips are given to fit on", repair="give at least 3", code="too-few-chips")
    mean, std = features.mean(axis=0), features.std(axis=0)
    scale = np.where(std > 0, std, 1.0)
    given = (features - mean) / scale
    if not given.any():
        return Decomposed(mean, scale, np.empty((count, 0)), np.empty(0), np.empty((wide, 0)))
    reduced = _without_ones(given)
    return Decomposed(mean, scale, *_through(reduced, count))


def _without_ones(given: F64) -> F64:
    """The n - 1 other rows of a reflection that takes the vector of ones to the first: centred features in full rank."""
    return _reflected(given)[1:]


def _reflected(rows: F64) -> F64:
    """Householder: swaps the vector of ones, of unit length, with the first axis; its own inverse."""
    count = len(rows)
    normal = np.full(count, 1 / np.sqrt(count))
    normal[0] -= 1
    return np.asarray(rows - np.outer(normal, normal @ rows) * (2 / (normal @ normal)))


def _through(reduced: F64, count: int) -> tuple[F64, F64, F64]:
    """u (n, r), s and v of features without the direction of ones (n - 1, d)."""
    tall = len(reduced) >= reduced.shape[1]
    values, vectors = np.linalg.eigh(reduced.T @ reduced if tall else reduced @ reduced.T)
    if values[0] * ILL > values[-1]:
        s, inner = np.sqrt(values[::-1]), vectors[:, ::-1]
        u, v = ((reduced @ inner) / s, inner) if tall else (inner, (reduced.T @ inner) / s)
    else:
        u, s, transposed = np.linalg.svd(reduced, full_matrices=False)
        kept = s > s[0] * np.finfo(np.float64).eps * max(count, reduced.shape[1])
        u, s, v = u[:, kept], s[kept], transposed[kept].T
    return _reflected(np.concatenate([np.zeros((1, len(s))), u])), s, v
