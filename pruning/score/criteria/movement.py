"""Where the training would move the weights of a channel."""

from __future__ import annotations

import numpy as np

from secateur.pruning.score.registry import criterion


@criterion(batches="sum", normalise="none")
def movement(filters: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """−Σ_batches Σ_w w · ∂L/∂w (Sanh et al. 2020, Movement Pruning, arXiv 2005.07683, for whole channels).

    Above 0 for a channel that a descent moves away from zero, below 0 for one that it moves towards it. The
    paper adds up over a fine-tuning; here the weights stand still, as in its first steps.
    """
    return -(filters * gradients).sum(1, dtype=np.float64)
