"""How much the outputs would change without a channel: no labels, no loss."""

from __future__ import annotations

import numpy as np

from secateur.pruning.score.registry import criterion


@criterion(normalise="none")
def lfh(filters: np.ndarray, jacobian: np.ndarray) -> np.ndarray:
    """‖w_i‖² · Tr(H_i) / |w_i|: the label-free Hessian of Sony's Model Compression Toolkit.

    Tr(H_i) = Σ_{w of channel i} E_x Σ_c (∂f_c/∂w)², with the outputs f as the model gives them, and |w_i|
    weights in a channel. H = JᵀJ is what the Hessian of ½‖f − y‖² is where the model is linear.
    """
    trace = jacobian.sum(1, dtype=np.float64)
    return np.square(filters).sum(1, dtype=np.float64) * trace / filters.shape[1]
