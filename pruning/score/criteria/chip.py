"""How independent the map of a channel is of those of the other channels."""

from __future__ import annotations

import numpy as np

from secateur.pruning.score.registry import criterion


@criterion(batches="mean")
def chip(activations: np.ndarray) -> np.ndarray:
    """Mean over images of ‖A‖_* − ‖A without row i‖_*, A (n, positions) (Sui et al. 2021, CHIP).

    The nuclear norm ‖·‖_* is the sum of singular values. It takes n + 1 decompositions an image: a few
    hundred images are enough (the authors' program takes five batches).
    """
    return np.mean([_independence(image.T) for image in activations.astype(np.float64)], 0)


def _independence(rows: np.ndarray) -> np.ndarray:
    """‖A‖_* − ‖A without row i‖_* of each row i, (n,)."""
    n, positions = rows.shape
    if positions < n:  # AᵀA is smaller, and a row less is a product of the row less
        whole = rows.T @ rows
        less = whole - rows[:, :, None] * rows[:, None, :]
    else:
        whole = rows @ rows.T
        others = ~np.eye(n, dtype=bool)
        less = whole * (others[:, :, None] & others[:, None, :])
    return _nuclear(whole) - _nuclear(less)


def _nuclear(squares: np.ndarray) -> np.ndarray:
    """The nuclear norm from AᵀA or AAᵀ (…, m, m), whose eigenvalues are squared singular values."""
    return np.sqrt(np.maximum(np.linalg.eigvalsh(squares), 0)).sum(-1)
