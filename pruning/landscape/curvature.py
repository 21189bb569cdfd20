"""Eigenvalues of the loss's Hessian by Lanczos' method, from products with vectors alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh_tridiagonal

from secateur.pruning.landscape.loss_at import LossAt

Product = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Spectrum:
    """What Lanczos' method says of a symmetric matrix.

    Attributes:
        smallest, largest: eigenvalues at both ends, in rising order.
        errors: bounds of their distance to an eigenvalue, the norms of what is left.
        values: of all probes, (probes, steps): places of the spectral density.
        shares: (probes, steps), each row sums to 1: its mass there (stochastic Lanczos quadrature; Ghorbani
            et al. 2019). The mean over probes of Σ share · value is the mean eigenvalue, but for chance.
    """

    smallest: float
    largest: float
    errors: tuple[float, float]
    values: np.ndarray
    shares: np.ndarray

    @property
    def condition(self) -> float:
        """|λ_min| / |λ_max|, 0 … : how far from convex the loss is (Li et al. 2018); smaller is smoother."""
        return abs(self.smallest) / max(abs(self.largest), np.finfo(float).tiny)

    def to_json(self) -> dict:
        """Plain types."""
        arrays = {name: getattr(self, name).tolist() for name in ("values", "shares")}
        ends = {"smallest": self.smallest, "largest": self.largest, "errors": list(self.errors)}
        return {"condition": self.condition, **ends, **arrays}


def spectrum(
    loss: LossAt, steps: int = 40, probes: int = 1, seed: int = 0, tick: Callable[[], object] = lambda: None
) -> Spectrum:
    """The Hessian's eigenvalues at both ends, and its density, at the model's own weights.

    Args:
        loss: on the images that the Hessian is the mean over.
        steps: products with vectors for each probe; the ends are found to some digits with 30 to 80.
        probes: random vectors to start from. One finds the ends; the density wants several.
        seed: of these.
        tick: called behind every product, for a bar.
    """
    weights = loss.weights
    size, rng = sum(w.size for w in weights), np.random.default_rng(seed)

    def product(vector: np.ndarray) -> np.ndarray:
        found = loss.hessian_times(vector, weights)
        tick()
        return found

    return lanczos(product, rng.choice([-1.0, 1.0], (probes, size)), steps)


def lanczos(product: Product, starts: np.ndarray, steps: int) -> Spectrum:
    """Lanczos' method with every vector made orthogonal to all before it, float64.

    Args:
        product: vector (n,) → matrix · vector, of a symmetric matrix.
        starts: (probes, n), none zero.
        steps: for each probe, at most n; fewer where the vectors span all that the matrix can reach.
    """
    rows = [_walk(product, start, min(steps, len(start))) for start in starts]
    most = max(len(values) for values, *_ in rows)
    low, high = (pick(rows, key=lambda row: row[0][end]) for pick, end in ((min, 0), (max, -1)))
    values, shares = (np.stack([np.pad(row[i], (0, most - len(row[i]))) for row in rows]) for i in (0, 1))
    errors = float(low[2][0]), float(high[2][-1])
    return Spectrum(float(low[0][0]), float(high[0][-1]), errors, values, shares)


def _walk(product: Product, start: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ritz values in rising order, their shares of the start, and bounds of their errors."""
    basis = [start / np.linalg.norm(start)]
    diagonal, beside = [], []
    for _ in range(steps):
        made = product(basis[-1])
        diagonal.append(float(made @ basis[-1]))
        for _ in range(2):  # once leaves of float32 products what grows in later steps
            made = made - np.stack(basis).T @ (np.stack(basis) @ made)
        beside.append(float(np.linalg.norm(made)))
        if beside[-1] <= 1e-10 * max(map(abs, diagonal)):
            break
        basis.append(made / beside[-1])
    values, vectors = eigh_tridiagonal(diagonal, beside[: len(diagonal) - 1])
    return values, vectors[0] ** 2, np.abs(beside[-1] * vectors[-1])
