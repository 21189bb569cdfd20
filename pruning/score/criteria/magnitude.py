"""How large the weights of a channel are."""

from __future__ import annotations

import numpy as np

from secateur.pruning.score.registry import criterion

MEMBERS = ("producer", "follower", "consumer")


@criterion
def l1(filters: np.ndarray) -> np.ndarray:
    """‖w_i‖₁ (Li et al. 2017, Pruning Filters for Efficient ConvNets)."""
    return np.abs(filters).sum(1, dtype=np.float64)


@criterion
def l2(filters: np.ndarray) -> np.ndarray:
    """‖w_i‖₂ (He et al. 2018, Soft Filter Pruning)."""
    return np.sqrt(np.square(filters).sum(1, dtype=np.float64))


@criterion(normalise="none")
def lamp(filters: np.ndarray) -> np.ndarray:
    """‖w_i‖² / Σ_{j: ‖w_j‖ ≥ ‖w_i‖} ‖w_j‖²: LAMP of channels, comparable between layers.

    Lee et al. 2021, Layer-adaptive Sparsity for the Magnitude-based Pruning, there for single weights. The
    largest channel of each layer has the score 1, so that no layer is emptied.
    """
    energy = np.square(filters).sum(1, dtype=np.float64)
    ascending = np.sort(energy)
    at_least = np.cumsum(ascending[::-1])[::-1]  # of the energies in a row, this one and all behind it
    rest = at_least[np.searchsorted(ascending, energy)]
    return np.divide(energy, rest, out=np.zeros_like(energy), where=rest > 0)


@criterion(normalise="none")
def bn_scale(gamma: np.ndarray) -> np.ndarray:
    """|γ_i| (Liu et al. 2017, Network Slimming)."""
    return np.abs(gamma)


@criterion(roles=MEMBERS)
def group_l1(filters: np.ndarray) -> np.ndarray:
    """Σ|w| in every member of the group: filters, scales, and the weights that read the channel.

    Fang et al. 2023, DepGraph, with p = 1; members are reduced by their mean unless another is asked for.
    """
    return l1(filters)


@criterion(roles=MEMBERS)
def group_l2(filters: np.ndarray) -> np.ndarray:
    """Σ|w|² in every member of the group (DepGraph with p = 2)."""
    return np.square(filters).sum(1, dtype=np.float64)


@criterion
def random(filters: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """U(0, 1), the control that every other criterion has to beat."""
    return rng.random(len(filters))
