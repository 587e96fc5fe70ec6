"""How far two clouds of points (n, d) lie apart, and one point from a cloud; by numpy and scipy alone.

After methods.md E.2. Covariances are shrunk (Ledoit and Wolf 2004): clouds here have fewer points than they need.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy  # whose parts load when they are first used: most maps need none of them

from aftermap.errors import UsageError

F64 = npt.NDArray[np.float64]

NEAREST = 5
"""Neighbours whose mean distance is that of a point."""
PERMUTATIONS, PROJECTIONS, FOLDS = 999, 256, 5
PENALTY = 1.0
"""Of the squared weights of the classifier, beside the sum of losses, on embeddings of pooled standard deviation one."""
LEAST_POINTS = 5
"""Points that a cloud has to have: with fewer a covariance, a fold or a permutation says nothing."""


def clouds(*given: npt.ArrayLike) -> list[F64]:
    """Clouds (n, d) as float64. Raises UsageError for one of fewer points than LEAST_POINTS, or of other numbers each."""
    found = [np.asarray(one, np.float64) for one in given]
    few, wide = min(len(one) for one in found), {one.shape[1] for one in found}
    if few < LEAST_POINTS or len(wide) > 1:
        what = (
            f"a cloud of {few} chips"
            if few < LEAST_POINTS
            else f"clouds of {' and '.join(map(str, sorted(wide)))} numbers a chip"
        )
        raise UsageError(f"{what} cannot be compared", repair=f"give at least {LEAST_POINTS} chips, seen by one model")
    return found


def shrunk(points: F64) -> F64:
    """Covariance (d, d), moved towards a multiple of the identity as far as Ledoit and Wolf 2004 find best."""
    count, wide = points.shape
    centred = points - points.mean(axis=0)
    covariance = centred.T @ centred / count
    mean = np.trace(covariance) / wide
    apart = float((covariance**2).sum()) - wide * mean**2  # of the covariance from its target
    noise = (float(((centred**2).sum(axis=1) ** 2).sum()) / count - float((covariance**2).sum())) / count
    share = min(max(noise, 0.0) / apart, 1.0) if apart > 0 else 1.0
    return np.asarray((1 - share) * covariance + share * mean * np.eye(wide))


def frechet(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), squared as Heusel et al. 2017 (FID) have it; 0 of equal clouds."""
    one, other = clouds(first, second)
    covariances = shrunk(one), shrunk(other)
    values, vectors = np.linalg.eigh(covariances[0])
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariances[1] @ root), 0)).sum()
    found = ((one.mean(axis=0) - other.mean(axis=0)) ** 2).sum() + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * cross
    return max(float(found), 0.0)


def whitened(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Euclidean distance between the means after pooled whitening: in standard deviations within the clouds."""
    one, other = clouds(first, second)
    within = shrunk(np.concatenate([one - one.mean(axis=0), other - other.mean(axis=0)]))
    return float(_lengths((one.mean(axis=0) - other.mean(axis=0))[None], within)[0])


def sliced(first: npt.ArrayLike, second: npt.ArrayLike, rng: np.random.Generator, *, projections: int = PROJECTIONS) -> float:
    """Sliced 2-Wasserstein: the root of the mean over directions of the squared distance between sorted projections."""
    one, other = clouds(first, second)
    directions = rng.normal(size=(one.shape[1], projections))
    directions /= np.linalg.norm(directions, axis=0)
    sorted_by = [np.sort(cloud @ directions, axis=0) for cloud in (one, other)]
    shares = [np.arange(1, len(cloud) + 1) / len(cloud) for cloud in sorted_by]
    steps = np.unique(np.concatenate(shares).round(12))  # where the quantiles of either change
    weights = np.diff(steps, prepend=0)
    middle = steps - weights / 2
    quantiles = [cloud[np.searchsorted(share, middle)] for cloud, share in zip(sorted_by, shares, strict=True)]
    return float(np.sqrt((weights @ (quantiles[0] - quantiles[1]) ** 2).mean()))


@dataclass(frozen=True)
class Mmd:
    """Squared maximum mean discrepancy, and how often a random parting of the same points is as far apart."""

    squared: float
    bandwidth: float
    p: float
    permutations: int


def mmd(
    first: npt.ArrayLike, second: npt.ArrayLike, rng: np.random.Generator, *, permutations: int = PERMUTATIONS
) -> Mmd:  # fmt: skip
    """With a Gaussian kernel as wide as the median distance between points (Gretton et al. 2012); 0 of equal clouds."""
    one, other = clouds(first, second)
    squares = scipy.spatial.distance.squareform(scipy.spatial.distance.pdist(np.concatenate([one, other]), "sqeuclidean"))
    width = float(np.sqrt(np.median(squares[np.triu_indices(len(squares), 1)])))
    kernel = np.exp(-squares / (2 * width**2)) if width else np.ones_like(squares)
    sides = np.repeat([1 / len(one), -1 / len(other)], [len(one), len(other)])
    every = np.stack([sides, *(rng.permutation(sides) for _ in range(permutations))])
    found = np.maximum(((every @ kernel) * every).sum(axis=1), 0)
    above = int((found[1:] >= found[0] - 1e-12).sum())
    return Mmd(float(found[0]), width, (1 + above) / (1 + permutations), permutations)


@dataclass(frozen=True)
class Told:
    """How well points are told apart by the cloud that they are of."""

    accuracy: float
    majority: float
    """What naming the larger cloud every time would come to."""
    folds: int


def told_apart(first: npt.ArrayLike, second: npt.ArrayLike, rng: np.random.Generator, *, folds: int = FOLDS) -> Told:
    """Logistic regression, each point by weights that never saw it."""
    one, other = clouds(first, second)
    points, sides = np.concatenate([one, other]), np.repeat([0.0, 1.0], [len(one), len(other)])
    scale = points.std(axis=0)
    points = (points - points.mean(axis=0)) / np.where(scale > 0, scale, 1)
    fold = np.concatenate([rng.permutation(len(cloud)) % folds for cloud in (one, other)])  # every fold has both
    right = 0
    for k in range(folds):
        weights = _logistic(points[fold != k], sides[fold != k])
        right += int(((points[fold == k] @ weights[:-1] + weights[-1] > 0) == sides[fold == k]).sum())
    return Told(right / len(points), max(len(one), len(other)) / len(points), folds)


def _logistic(points: F64, sides: F64) -> F64:
    """Weights (d + 1,), the last that of no feature."""

    def loss(weights: F64) -> tuple[float, F64]:
        odds = points @ weights[:-1] + weights[-1]
        wrong = scipy.special.expit(odds) - sides
        value = np.logaddexp(0, odds).sum() - sides @ odds + PENALTY / 2 * (weights[:-1] ** 2).sum()
        return float(value), np.append(points.T @ wrong + PENALTY * weights[:-1], wrong.sum())

    found = scipy.optimize.minimize(loss, np.zeros(points.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return np.asarray(found.x)


def nearest(points: npt.ArrayLike, cloud: npt.ArrayLike, *, k: int = NEAREST) -> F64:
    """Mean Euclidean distance (n,) of each point to the k nearest of a cloud, or to all of a smaller one."""
    every = scipy.spatial.distance.cdist(np.asarray(points, np.float64), np.asarray(cloud, np.float64))
    k = min(k, every.shape[1])
    return np.asarray(np.partition(every, k - 1, axis=1)[:, :k].mean(axis=1))


def mahalanobis(points: npt.ArrayLike, cloud: npt.ArrayLike) -> F64:
    """Distance (n,) of each point from the mean of a cloud, in its own standard deviations."""
    given, own = np.asarray(points, np.float64), np.asarray(cloud, np.float64)
    return _lengths(given - own.mean(axis=0), shrunk(own))


def _lengths(vectors: F64, covariance: F64) -> F64:
    """(n,) of vectors (n, d) by a covariance; what no point varies in counts for nothing."""
    values, axes = np.linalg.eigh(covariance)
    kept = values > max(values[-1], 0) * 1e-12
    return np.asarray(np.linalg.norm((vectors @ axes[:, kept]) / np.sqrt(values[kept]), axis=1))


def conformal(distances: npt.ArrayLike, own: npt.ArrayLike) -> F64:
    """Conformal p (n,): of the distances of points that belong, and this one with them, the share at least as far."""
    known = np.sort(np.asarray(own, np.float64))
    nearer = np.searchsorted(known, np.asarray(distances, np.float64), side="left")
    return np.asarray((len(known) - nearer + 1) / (len(known) + 1))


def rank_correlation(first: npt.ArrayLike, second: npt.ArrayLike) -> float | None:
    """Spearman's; None where either does not vary."""
    pair = np.stack([scipy.stats.rankdata(np.asarray(one, np.float64)) for one in (first, second)])
    if pair.shape[1] < 2 or (np.ptp(pair, axis=1) == 0).any():
        return None
    ranks = pair - pair.mean(axis=1, keepdims=True)
    return float(ranks[0] @ ranks[1] / np.sqrt((ranks[0] @ ranks[0]) * (ranks[1] @ ranks[1])))


def permuted(
    first: npt.ArrayLike, second: npt.ArrayLike, rng: np.random.Generator,
    score: Callable[[npt.ArrayLike, npt.ArrayLike], float | None] = rank_correlation, *, permutations: int = PERMUTATIONS,
) -> float | None:  # fmt: skip
    """Two-sided p of a score of pairs: how often it is as large where either is dealt out anew. None where it is undefined."""
    if (found := score(first, second)) is None:
        return None
    other = np.asarray(second)
    drawn = (score(first, rng.permutation(other)) or 0.0 for _ in range(permutations))
    return (1 + sum(abs(one) >= abs(found) - 1e-12 for one in drawn)) / (1 + permutations)
