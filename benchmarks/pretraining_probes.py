"""What embeddings are worth with few labels: ridge regression, random forests and logistic regression on frozen ones.

Ridge with its penalty chosen by leaving one out (closedform.py); features are standardised by those of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score

from aftermap import stats
from aftermap.closedform import decompose

F64 = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]
TREES, LEAF = 100, 2
"""Of a forest (methods.md F)."""


@dataclass(frozen=True)
class Scaled:
    """Features (n, d) with mean 0 and deviation 1 over those of training."""

    mean: F64
    std: F64

    @classmethod
    def of(cls, features: F64) -> Scaled:
        """Of features of training."""
        std = features.std(axis=0)
        return cls(features.mean(axis=0), np.where(std > 1e-9, std, 1.0))

    def __call__(self, features: F64) -> F64:
        """As the class says."""
        return (features - self.mean) / self.std


def ridge(features: F64, wanted: F64, other: F64) -> F64:
    """What a ridge regression of wanted (n,) on features (n, d) makes of others (m, d): (m,)."""
    return decompose(features).ridge(wanted[:, None])(other)[:, 0]


def forest(features: F64, wanted: F64, other: F64, seed: int) -> F64:
    """The same of a random forest."""
    trees = RandomForestRegressor(TREES, min_samples_leaf=LEAF, max_features="sqrt", random_state=seed, n_jobs=1)
    return np.asarray(trees.fit(features, wanted).predict(other), np.float64)


def r2(found: F64, wanted: F64) -> float:
    """Of all together."""
    return float(1 - ((found - wanted) ** 2).sum() / ((wanted - wanted.mean()) ** 2).sum())


def rmse(found: F64, wanted: F64) -> float:
    """Of all together."""
    return float(np.sqrt(((found - wanted) ** 2).mean()))


def drawn(places: Places, count: int, seed: int) -> Places:
    """So many of them, or all."""
    return np.random.default_rng([seed, count]).permutation(places)[:count]


def balanced_draw(places: Places, yes: npt.NDArray[np.bool_], count: int, seed: int) -> Places:
    """Half of them of either kind, as a stratified fold has them."""
    parts = [drawn(places[yes[places] == side], count // 2, seed) for side in (True, False)]
    return np.concatenate(parts)


def classified(features: F64, yes: npt.NDArray[Any], train: Places, test: Places) -> tuple[float, float]:
    """Accuracy and macro F1 of a logistic regression."""
    scaled = Scaled.of(features[train])
    made = LogisticRegression(C=0.1, max_iter=2000).fit(scaled(features[train]), yes[train])
    found = made.predict(scaled(features[test]))
    return float(accuracy_score(yes[test], found)), float(f1_score(yes[test], found, average="macro"))


def needed(counts: Sequence[int], scores: Sequence[float], wanted: float) -> float | None:
    """Labels from which a curve of scores reaches what is wanted, between points by the logarithm; None where it never does."""
    for k, score in enumerate(scores):
        if score >= wanted:
            if k == 0:
                return float(counts[0])
            low, high = scores[k - 1], score
            share = (wanted - low) / (high - low)
            return float(np.exp(np.log(counts[k - 1]) + share * (np.log(counts[k]) - np.log(counts[k - 1]))))
    return None


def by_image(images: npt.NDArray[np.str_], values: F64) -> F64:
    """The mean of values (n,) over each image, in the order of their names."""
    _, place = np.unique(images, return_inverse=True)
    return np.asarray(np.bincount(place, values) / np.bincount(place), np.float64)


def compared(ours: F64, theirs: F64) -> tuple[int, float, float, float, float]:
    """Images, mean gain of scores (seed, image), its interval by resampling images, and p of the signed rank over images."""
    gains = (ours - theirs).mean(axis=0)
    found = stats.interval(list(gains), lambda one: float(np.mean(one)), np.random.default_rng(0))
    return len(gains), found.value, found.low, found.high, stats.signed_rank_over_images(ours, theirs).p


def adjusted(lines: list[Any]) -> list[Any]:
    """Rows with a p, and Holm's over all of them as p_holm."""
    return [replace(one, p_holm=p) for one, p in zip(lines, stats.holm([one.p for one in lines]), strict=True)] if lines else []
