"""Mixtures of distance, gradient and size: NGGM and the other modes of HAP's code, under its names.

GM is `fpgm_squared`, mm(x) = (x − min) / (max − min) over the layer, g the gradient of the mean loss.
"""

from __future__ import annotations

import numpy as np

from secateur.pruning.score.criteria.magnitude import l1
from secateur.pruning.score.criteria.redundancy import fpgm_squared
from secateur.pruning.score.registry import criterion

GAMMA = 0.5  # the share of the distance in NGGM


def min_max(x: np.ndarray) -> np.ndarray:
    """(x − min) / (max − min); zeros where all are equal."""
    low, high = x.min(), x.max()
    return (x - low) / (high - low) if high > low else np.zeros_like(x)


@criterion
def nggm(filters: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """γ · mm(GM) + (1 − γ) · mm(‖g‖₁), γ = 0.5 (HAP's mode n-g-gm-1)."""
    return GAMMA * min_max(fpgm_squared(filters)) + (1 - GAMMA) * min_max(l1(gradients))


@criterion
def g_gm_1(filters: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """GM · ‖g‖₁."""
    return fpgm_squared(filters) * l1(gradients)


@criterion
def g_gm_2(filters: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """GM + ‖g‖₁."""
    return fpgm_squared(filters) + l1(gradients)


@criterion
def g_gm_3(filters: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """GM · ‖g‖₁ · ‖w‖₁."""
    return fpgm_squared(filters) * l1(gradients) * l1(filters)


@criterion
def n_g_gm_2(filters: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """mm(GM) + mm(‖g‖₁) + mm(‖w‖₁)."""
    return min_max(fpgm_squared(filters)) + min_max(l1(gradients)) + min_max(l1(filters))


@criterion
def n_g_gm_3(filters: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """mm(GM) · mm(‖g‖₁)."""
    return min_max(fpgm_squared(filters)) * min_max(l1(gradients))


@criterion
def n_g_a(filters: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Σ_w [mm(|w|) + mm(|g|)], mm over all weights of the layer."""
    return l1(min_max(np.abs(filters))) + l1(min_max(np.abs(gradients)))


@criterion
def n_g_a_2(filters: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """mm(‖w‖₁) + mm(‖g‖₁)."""
    return min_max(l1(filters)) + min_max(l1(gradients))
