"""k-means over filters: one filter stands for each cluster, the others go."""

from __future__ import annotations

import numpy as np

from secateur.pruning.score.criteria.redundancy import distances
from secateur.runs.errors import UsageError

ROUNDS = 100  # of Lloyd's algorithm, which stops as soon as no filter changes its cluster
EQUAL = 1e-9  # relative difference of distances that is rounding: both of a pair are as far from their middle


def clustered(filters: np.ndarray, keep: int, seed: int = 1, normalise: bool = False) -> np.ndarray:
    """Which filters stay: of each of k clusters the one nearest to the centroid, of equally near ones the
    one with the larger L1 norm.

    Args:
        filters: (n, weights).
        keep: k, from 1 to n.
        seed: of the first centroids (k-means++, Arthur and Vassilvitskii 2007).
        normalise: cluster directions: every filter divided by its L2 norm.

    Returns k indexes, ascending. Unlike the criterion "clustering", which ranks filters for every k at once,
    this looks for the clusters of one k. Raises `UsageError` for another number of filters.
    """
    if not 1 <= keep <= len(filters):
        raise UsageError(
            f"keep must lie in [1, {len(filters)}], the number of filters. Received: keep={keep}"
        )
    w = np.asarray(filters, np.float64)
    if normalise:
        norm = np.linalg.norm(w, axis=1, keepdims=True)
        w = np.divide(w, norm, out=np.zeros_like(w), where=norm > 0)
    labels = k_means(w, keep, np.random.default_rng(seed))
    far = np.linalg.norm(w - _centroids(w, labels)[labels], axis=1)
    return _nearest(labels, far, np.abs(filters).sum(1, dtype=np.float64))


def k_means(points: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Labels (n,) from 0 to k − 1, each used, of points (n, d): k-means++, then Lloyd's algorithm."""
    centroids = points[_seeds(np.square(distances(points)), k, rng)]
    labels = np.full(len(points), -1)
    for _ in range(ROUNDS):
        before, labels = labels, _assigned(points, centroids)
        if np.array_equal(before, labels):
            break
        centroids = _centroids(points, labels)
    return labels


def _seeds(squared: np.ndarray, k: int, rng: np.random.Generator) -> list[int]:
    """k different points, each drawn in proportion to its squared distance from those that are there."""
    chosen = [int(rng.integers(len(squared)))]
    free, nearest = np.ones(len(squared), bool), squared[chosen[0]]
    for _ in range(k - 1):
        free[chosen[-1]] = False
        nearest = np.minimum(nearest, squared[chosen[-1]])
        shares = nearest * free
        shares = shares if shares.any() else free.astype(float)  # only copies of what is there are left
        chosen.append(int(rng.choice(len(squared), p=shares / shares.sum())))
    return chosen


def _assigned(points: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """The nearest centroid of each point; one without any gets the point that is farthest from its own."""
    squared = np.square(centroids).sum(1) - 2 * points @ centroids.T  # and |point|², the same for all
    labels = squared.argmin(1)
    far = squared[np.arange(len(points)), labels] + np.square(points).sum(1)
    for empty in np.setdiff1d(np.arange(len(centroids)), labels):
        crowded = np.bincount(labels)[labels] > 1
        labels[np.where(crowded, far, -np.inf).argmax()] = empty
    return labels


def _centroids(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    order = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels)
    return np.add.reduceat(points[order], np.cumsum(sizes) - sizes) / sizes[:, None]


def _nearest(labels: np.ndarray, far: np.ndarray, norm: np.ndarray) -> np.ndarray:
    """Of each label the point with the smallest distance, of equal ones with the largest norm."""
    least = np.full(labels.max() + 1, np.inf)
    np.minimum.at(least, labels, far)
    behind = far > least[labels] * (1 + EQUAL)
    order = np.lexsort((-norm, behind, labels))
    return np.sort(order[np.unique(labels[order], return_index=True)[1]])
