"""Learning rates as data: one number per step, to be printed and tested. Plain NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def step_decay(rate: float, steps: int, points: Sequence[float], decay: float) -> np.ndarray:
    """`rate`, multiplied by `decay` at each of `points` (parts of the whole, 0 … 1): float32 (steps,)."""
    position = np.arange(steps) / max(steps, 1)
    passed = np.sum([position >= point for point in points], axis=0) if len(points) else 0
    return (rate * decay ** np.broadcast_to(passed, (steps,))).astype(np.float32)
