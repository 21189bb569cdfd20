"""k-means over filters: one filter stands for each cluster, the others go."""

from __future__ import annotations

import warnings

import numpy as np

from secateur.runs.errors import UsageError

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
    labels, far = k_means(w, keep, seed)
    least = np.full(keep, np.inf)
    np.minimum.at(least, labels, far)
    order = np.lexsort((-np.abs(filters).sum(1, dtype=np.float64), far > least[labels] * (1 + EQUAL)))
    first = order[np.unique(labels[order], return_index=True)[1]]
    copies = np.setdiff1d(order, first, assume_unique=True)  # where fewer kinds of filters are there than k
    return np.sort([*first, *copies[: keep - len(first)]])


def k_means(points: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cluster of each point (n, d) and its distance from the centroid; fewer than k of equal points."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        found = KMeans(k, n_init=1, tol=0, random_state=seed).fit(points)
    return found.labels_, np.linalg.norm(points - found.cluster_centers_[found.labels_], axis=1)
