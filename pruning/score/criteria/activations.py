"""What a channel says on real images."""

from __future__ import annotations

import numpy as np

from secateur.pruning.score.registry import criterion


@criterion(batches="mean", normalise="none")
def apoz(activations: np.ndarray) -> np.ndarray:
    """1 − share of zeros (Hu et al. 2016, Network Trimming, whose APoZ is the share of zeros)."""
    return 1 - (activations == 0).mean((0, 1))


@criterion(batches="mean")
def mean_activation(activations: np.ndarray) -> np.ndarray:
    """Mean over images and positions (Molchanov et al. 2017, arXiv 1611.06440)."""
    return activations.mean((0, 1), dtype=np.float64)
