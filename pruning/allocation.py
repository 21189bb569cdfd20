"""How many channels each group keeps, and which: from scores and a budget to a plan."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from pruning.counting import Counter
from pruning.groups import analyse
from pruning.plan import Plan
from pruning.scores import score_groups
from runs.errors import UsageError


def make_plan(
    model: keras.Model,
    criterion: str = "l1",
    *,
    keep: float | None = None,
    keep_macs: float | None = None,
    round_to: int = 1,
    convention: str = "mac",
    seed: int = 1,
) -> Plan:
    """Chooses channels: the same keep ratio in every group, the channels with the best scores.

    Args:
        model: functional model.
        criterion: name of a registered criterion; a channel's score is the mean over its producers.
        keep: ratio of the channels that each group keeps, in (0, 1]; or
        keep_macs: ratio of the operations, in (0, 1); the largest widths that do not exceed it are found.
        round_to: widths become multiples of this where the group is large enough.
        convention: how operations are counted.
        seed: of the random criterion.

    Raises `UsageError` when the ratio is out of range or out of reach; it says the smallest reachable.
    """
    if (keep is None) == (keep_macs is None):
        raise UsageError(f"Give either keep or keep_macs. Received: keep={keep}, keep_macs={keep_macs}")
    if round_to < 1:
        raise UsageError(f"round_to must be at least 1. Received: round_to={round_to}")
    analysis = analyse(model)
    scores = score_groups(model, criterion, analysis=analysis, seed=seed)
    if keep is not None:
        _check_ratio("keep", keep, one_allowed=True)
        return _uniform(analysis.groups, scores, keep, round_to)
    _check_ratio("keep_macs", keep_macs)
    counter = Counter(model, convention, analysis)
    return _largest(lambda ratio: _uniform(analysis.groups, scores, ratio, round_to), counter, keep_macs)


def rounded_width(width: float, size: int, round_to: int) -> int:
    """The nearest multiple of `round_to` in [min(round_to, size), size]; 1 ≤ result ≤ size."""
    steps = max(1, int(np.floor(width / round_to + 0.5)))
    return int(min(size, steps * round_to))


def _uniform(groups, scores, ratio: float, round_to: int) -> Plan:
    keep = {}
    for group in groups:
        width = rounded_width(group.size * ratio, group.size, round_to)
        order = np.argsort(-scores[group.name], kind="stable")
        keep[group.name] = tuple(group.best(order, width).tolist())
    return Plan(keep, {g.name: g.size for g in groups})


def _largest(plan_at: Callable[[float], Plan], counter: Counter, keep_macs: float) -> Plan:
    """Bisection on the ratio: widths, and so the operations, never fall as it grows."""
    low, high = 0.0, 1.0
    dense, least = (counter.macs(plan_at(ratio).masks()) for ratio in (high, low))
    budget = keep_macs * dense
    if least > budget:
        raise UsageError(
            f"The target is out of reach: the smallest net keeps {least / dense:.4f} of the operations. "
            f"Received: keep_macs={keep_macs:g}"
        )
    for _ in range(30):
        middle = (low + high) / 2
        fits = counter.macs(plan_at(middle).masks()) <= budget
        low, high = (middle, high) if fits else (low, middle)
    return plan_at(low)


def _check_ratio(name: str, value: float, one_allowed: bool = False) -> None:
    if not 0 < value < 1 and not (one_allowed and value == 1):
        raise UsageError(f"{name} must lie in (0, 1{']' if one_allowed else ')'}. Received: {name}={value}")
