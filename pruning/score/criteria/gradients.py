"""How much the loss would change without a channel, to first order."""

from __future__ import annotations

import numpy as np

from secateur.pruning.score.registry import criterion


@criterion(batches="sum", normalise="none")
def taylor(filters: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Σ_batches Σ_w (w · ∂L/∂w)² (Molchanov et al. 2019, arXiv 1906.10771)."""
    return np.square(filters * gradients).sum(1, dtype=np.float64)


@criterion(batches="sum", normalise="none")
def gate_taylor(activations: np.ndarray, activation_gradients: np.ndarray) -> np.ndarray:
    """|Σ_{images, positions} a · ∂L/∂a|, added up over places and batches (Lee and Song 2022, EKG)."""
    return np.abs(np.einsum("bpn,bpn->n", activations, activation_gradients, dtype=np.float64))


@criterion
def g_a(filters: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Σ_w |w| · |∂L/∂w| (HAP's mode g-a)."""
    return np.abs(filters * gradients).sum(1, dtype=np.float64)
