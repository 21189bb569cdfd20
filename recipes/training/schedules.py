"""Learning rates and momenta as data: one number per step, to be printed and tested. Plain NumPy.

A schedule is a function of (learning rate, steps, …) that returns float32 (steps,). `SCHEDULES` has all of
them by name. Momentum is another curve of the same length (`cycled_momentum`); without one it is constant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from secateur.runs.registry import Registry


def constant(learning_rate: float, steps: int) -> np.ndarray:
    """The same rate always: KESI's rows "PFEC" and "MWP", rethinking's fine-tuning (0.001)."""
    return np.full(steps, learning_rate, np.float32)


def step_decay(
    learning_rate: float, steps: int, points: Sequence[float], decay: float | Sequence[float]
) -> np.ndarray:
    """One rate per step, float32 (steps,): the first, times `decay` at each of `points` (parts in [0, 1]).

    `decay` is one factor for all points, or one for each; HAP's first one, 10, ends a warm-up.
    """
    position = np.arange(steps) / max(steps, 1)
    if not np.isscalar(decay):
        factors = [np.where(position >= point, d, 1.0) for point, d in zip(points, decay, strict=True)]
        return (learning_rate * np.prod(factors, axis=0)).astype(np.float32)
    passed = np.sum([position >= point for point in points], axis=0) if len(points) else 0
    return (learning_rate * decay ** np.broadcast_to(passed, (steps,))).astype(np.float32)


def cosine(learning_rate: float, steps: int, final: float = 0.0) -> np.ndarray:
    """Half a cosine from the rate to `final`, one step beyond the last (Loshchilov & Hutter 2017, eq. 5)."""
    return _half_cosine(np.arange(steps) / max(steps, 1), learning_rate, final).astype(np.float32)


def one_cycle(
    learning_rate: float, steps: int, share: float = 0.1, initial: float = 0.1, final: float = 1e-3
) -> np.ndarray:
    """Up to `learning_rate` and down again, by half a cosine each (Smith & Topin 2018; KESI's fine-tuning).

    The way up takes `share`·steps − 1 steps, the way down the others, as in PyTorch's `OneCycleLR`. Defaults
    are KESI's: 10 % of the steps, from a tenth of the peak to a hundredth of that tenth.

    Args:
        learning_rate: at the peak.
        share: of the steps that go up, in [0, 1]. With no way up the curve begins at the peak.
        initial, final: first and last rate, as parts of the peak.
    """
    return _cycle(steps, share, initial * learning_rate, learning_rate, final * learning_rate)


def cycled_momentum(steps: int, share: float = 0.1, high: float = 0.95, low: float = 0.85) -> np.ndarray:
    """Momentum against `one_cycle`'s rate, float32 (steps,): `low` where that peaks, `high` at both ends.

    KESI's defaults, for SGD's momentum and for β₁ of Adam.
    """
    return _cycle(steps, share, high, low, high)


def _cycle(steps: int, share: float, start: float, peak: float, end: float) -> np.ndarray:
    up = max(share * steps - 1, 0.0)  # not rounded: PyTorch's peak may lie between two steps
    down = max(steps - 1 - up, 1e-9)
    step = np.arange(steps)
    rising = _half_cosine(step / up, start, peak) if up else np.full(steps, peak)
    falling = _half_cosine(np.clip((step - up) / down, 0, 1), peak, end)
    return np.where(step <= up, rising, falling).astype(np.float32)


def _half_cosine(position: np.ndarray, start: float, end: float) -> np.ndarray:
    """From `start` at position 0 to `end` at 1."""
    return end + (start - end) / 2 * (1 + np.cos(np.pi * position))


SCHEDULES: Registry[Callable[..., np.ndarray]] = Registry(
    "schedule", "schedules", {f.__name__: f for f in (constant, step_decay, cosine, one_cycle)}
)
