"""How much the loss would change without a channel, to second order."""

from __future__ import annotations

import numpy as np

from secateur.pruning.score.registry import criterion


@criterion(normalise="none")
def obd(filters: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """½ Σ_w w² · ∂²L/∂w² (LeCun, Denker and Solla 1990, Optimal Brain Damage, there for single weights).

    The diagonal is estimated by random vectors (`pruning.score.curvature`): the score of a channel that does
    little may come out below 0.
    """
    return (np.square(filters) * hessian).sum(1, dtype=np.float64) / 2


@criterion(normalise="none")
def obd_c(filters: np.ndarray, fisher: np.ndarray) -> np.ndarray:
    """½ Σ_w w² · F_ww (C-OBD of Wang et al. 2019, EigenDamage, arXiv 1905.05934).

    F is the empirical Fisher matrix, by the labels of the images; the paper draws labels from the network.
    """
    return (np.square(filters) * fisher).sum(1, dtype=np.float64) / 2
