"""How independent the map of a channel is of those of the other channels."""

from __future__ import annotations

import numpy as np

from secateur.pruning.score.registry import criterion

STEP = 0.5  # between logarithms of s: the integral is right to some 8 digits
NODES = np.exp(np.arange(-20, 20, STEP))


@criterion(batches="mean")
def chip(activations: np.ndarray) -> np.ndarray:
    """Mean over images of ‖A‖_* − ‖A without row i‖_*, A (n, positions) (Sui et al. 2021, CHIP).

    The nuclear norm ‖·‖_* is the sum of singular values.
    """
    return np.mean([_independence(image.T) for image in activations.astype(np.float64)], 0)


def _independence(rows: np.ndarray) -> np.ndarray:
    """‖A‖_* − ‖A without row i‖_* of each row i, (n,), from one decomposition AAᵀ = U diag(λ) Uᵀ.

    √x = 2/π ∫ x / (x + s²) ds, and the trace of (AAᵀ + t)⁻¹ loses −h'/h without row i, where
    h(t) = [(AAᵀ + t)⁻¹]_ii = Σ_k U_ik² / (λ_k + t): the difference of determinants is their ratio 1/h. So
    the norm loses 2/π ∫ (Σ_k U_ik² λ_k / (λ_k + s²)²) / h(s²) ds over all s > 0.
    """
    squares, shares = _decomposed(rows)
    if not (top := squares.max(initial=0.0)) > 0:
        return np.zeros(len(rows))
    s = np.sqrt(top) * NODES
    inverse = 1 / (squares[:, None] + np.square(s))
    lost = (shares @ (squares[:, None] * np.square(inverse))) / (shares @ inverse)
    return 2 / np.pi * STEP * (lost @ s)  # ds = s d(log s)


def _decomposed(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """λ (r,) and U² (n, r) of AAᵀ, by the smaller one of AAᵀ and AᵀA."""
    n, positions = rows.shape
    if n <= positions:
        squares, vectors = np.linalg.eigh(rows @ rows.T)
        return np.maximum(squares, 0), np.square(vectors)
    squares, vectors = np.linalg.eigh(rows.T @ rows)
    found = squares > 1e-12 * squares.max()
    shares = np.square(rows @ vectors[:, found]) / squares[found]
    rest = np.maximum(1 - shares.sum(1), 0)  # of a unit vector in the null space of Aᵀ
    return np.append(squares[found], 0), np.column_stack([shares, rest])
