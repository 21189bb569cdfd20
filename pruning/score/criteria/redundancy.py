"""How well the other channels of a layer can stand in for a channel."""

from __future__ import annotations

import numpy as np

from secateur.pruning.score.registry import criterion


def distances(filters: np.ndarray) -> np.ndarray:
    """‖w_i − w_j‖₂, (n, n), in float64: one matrix product, which thousands of filters need."""
    w = np.asarray(filters, np.float64)
    energy = np.square(w).sum(1)
    squared = energy[:, None] + energy - 2 * (w @ w.T)
    # What cancellation leaves of equal filters is not a distance.
    noise = 16 * np.finfo(np.float64).eps * (energy[:, None] + energy)
    return np.sqrt(np.where(squared > noise, squared, 0.0))


@criterion
def fpgm(filters: np.ndarray) -> np.ndarray:
    """Σ_j ‖w_i − w_j‖₂ (He et al. 2019, Filter Pruning via Geometric Median)."""
    return distances(filters).sum(1)


@criterion
def fpgm_squared(filters: np.ndarray) -> np.ndarray:
    """Σ_j ‖w_i − w_j‖₂², as HAP computes it: another ranking, that of the distance from the mean filter."""
    w = np.asarray(filters, np.float64)
    from_mean = np.square(w - w.mean(0)).sum(1)
    return len(w) * from_mean + from_mean.sum()


@criterion(normalise="none")
def clustering(filters: np.ndarray) -> np.ndarray:
    """When a channel loses its cluster, in (0, 1]: the last ones to go stand for the largest differences.

    Ward's method puts the two nearest clusters together until one is left. Each time the filter that is
    farther from their centroid goes (of equally far ones that of the smaller L1 norm). With k channels left,
    each of k clusters keeps one: what k-means with k centroids aims at, for all k at once and without a seed.
    """
    from scipy.cluster.hierarchy import ward
    from scipy.spatial.distance import squareform

    n = len(filters)
    if n == 1:
        return np.ones(1)
    w = np.asarray(filters, np.float64)
    merges = ward(squareform(distances(w), checks=False))[:, :2].astype(int)
    norm = np.abs(w).sum(1)
    sums, sizes, stands = [*w], [1] * n, [*range(n)]
    score = np.ones(n)
    for step, (a, b) in enumerate(merges.tolist()):
        total, size = sums[a] + sums[b], sizes[a] + sizes[b]
        keep, drop = _nearer(stands[a], stands[b], total / size, w, norm)
        score[drop] = (step + 1) / n
        sums.append(total)
        sizes.append(size)
        stands.append(keep)
        sums[a] = sums[b] = None  # thousands of wide filters fill the memory otherwise
    return score


def _nearer(i: int, j: int, centroid: np.ndarray, w: np.ndarray, norm: np.ndarray) -> tuple[int, int]:
    far_i, far_j = (float(np.linalg.norm(w[k] - centroid)) for k in (i, j))
    if np.isclose(far_i, far_j, rtol=1e-9, atol=0):
        far_i, far_j = -norm[i], -norm[j]
    return (i, j) if far_i <= far_j else (j, i)
