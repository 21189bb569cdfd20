"""Alternating directions: weights that are pulled towards a sparse copy of themselves (Zhang et al. 2018).

min f(W) subject to W ∈ S, where S holds the kernels with enough zeros, is solved in turns: W by gradients of
f + (ρ/2)·‖W − Z + U‖²_F (`pruning.constrain.splitting`), then Z ← Π_S(W + U), then U ← U + W − Z. Plain
NumPy.
"""

from __future__ import annotations

import numpy as np

from secateur.runs.errors import UsageError
from secateur.runs.suggest import require

UNITS = ("filters", "weights")


def project(
    kernel: np.ndarray, sparsity: float, unit: str = "filters", axes: tuple[int, ...] = (-1,)
) -> np.ndarray:
    """Π_S: the kernel with its ⌊sparsity · n⌋ units of the smallest L1 norm set to zero.

    Args:
        kernel: any shape.
        sparsity: ratio of the units, in [0, 1).
        unit: "filters", or "weights" one by one.
        axes: negative, those that number the filters.

    Of equal norms the first go. For filters L1 is NNI's choice; the nearest point in S would take L2. Raises
    `UsageError` for another unit or a sparsity out of range.
    """
    require(unit, UNITS, "unit")
    if not 0 <= sparsity < 1:
        raise UsageError(f"A sparsity is at least 0 and below 1. Received: sparsity={sparsity}")
    inside = tuple(axis for axis in range(kernel.ndim) if axis - kernel.ndim not in axes)
    within = inside if unit == "filters" else ()
    norms = np.abs(kernel).sum(within, dtype=np.float64, keepdims=True)
    alive = np.ones(norms.size, bool)
    alive[np.argsort(norms.ravel(), kind="stable")[: int(sparsity * norms.size)]] = False
    return np.where(alive.reshape(norms.shape), kernel, 0).astype(kernel.dtype)


def update(
    kernel: np.ndarray,
    dual: np.ndarray,
    sparsity: float,
    unit: str = "filters",
    axes: tuple[int, ...] = (-1,),
) -> tuple[np.ndarray, np.ndarray]:
    """Z = Π_S(W + U) and U + W − Z, from W and U of the same shape; the others as in `project`."""
    wanted = kernel + dual
    sparse = project(wanted, sparsity, unit, axes)
    return sparse, wanted - sparse
