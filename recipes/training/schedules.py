"""Learning rates and momenta as data: one number per step, to be printed and tested. Plain NumPy.

A schedule is a function of (learning rate, steps, …) that returns float32 (steps,). `SCHEDULES` has all of
them by name. Momentum is another curve of the same length (`cycled_momentum`); without one it is constant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from secateur.runs.errors import UsageError
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


def at_epochs(
    learning_rate: float, steps: int, epochs: int, milestones: Sequence[int], factors: float | Sequence[float]
) -> np.ndarray:
    """The first rate, multiplied at the beginning of each of the epochs `milestones`.

    Args:
        epochs: that `steps` consist of, > 0. Milestones behind the last epoch are never reached, as in the
            published "small learning rate" of KESI (epoch 50 of 40).
        milestones: epochs, counted from 0: at 1 the second epoch begins with another rate.
        factors: one for all milestones, or one for each. HAP trains its networks from 0.01 with factors 10,
            0.2, 0.2, 0.2 at epochs 1, 60, 120, 160: a warm-up of one epoch.

    Raises `UsageError` when factors and milestones do not pair.
    """
    factors = [factors] * len(milestones) if np.isscalar(factors) else factors
    if len(factors) != len(milestones):
        raise UsageError(
            "A schedule needs one factor for all milestones, or one for each. "
            f"Received: milestones={list(milestones)}, factors={list(factors)}"
        )
    epoch = np.arange(steps) * epochs // max(steps, 1)
    rates = np.full(steps, learning_rate)
    for milestone, factor in zip(milestones, factors, strict=True):
        rates[epoch >= milestone] *= factor
    return rates.astype(np.float32)


def cosine(learning_rate: float, steps: int, final: float = 0.0) -> np.ndarray:
    """Half a cosine from the rate to `final`, one step beyond the last (Loshchilov & Hutter 2017, eq. 5)."""
    return _half_cosine(np.arange(steps) / max(steps, 1), learning_rate, final).astype(np.float32)


def warm_up(rates: np.ndarray, steps: int, start: float = 0.0) -> np.ndarray:
    """Any schedule, whose first `steps` rates are multiplied by a line from `start` to 1 (Goyal et al. 2017).

    Step 0 has the factor `start`, step number `steps` the factor 1.
    """
    part = np.minimum(np.arange(len(rates)) / steps, 1) if steps else 1.0
    return (rates * (start + (1 - start) * part)).astype(np.float32)


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
    "schedule", "schedules", {f.__name__: f for f in (constant, step_decay, at_epochs, cosine, one_cycle)}
)
