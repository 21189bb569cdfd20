"""Learning rates as data: one number per step, to be printed and tested. Plain NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def step_decay(learning_rate: float, steps: int, points: Sequence[float], decay: float) -> np.ndarray:
    """One rate per step, float32 (steps,): the first, times `decay` at each of `points` (parts in [0, 1])."""
    position = np.arange(steps) / max(steps, 1)
    passed = np.sum([position >= point for point in points], axis=0) if len(points) else 0
    return (learning_rate * decay ** np.broadcast_to(passed, (steps,))).astype(np.float32)
