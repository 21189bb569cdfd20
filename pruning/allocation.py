"""How many channels each group keeps, and which: from scores and a budget to a plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from pruning.budgets import Budget, Cost, check_ratio, share, widest
from pruning.costs import operations, parameters, stored_bytes
from pruning.counting import Counter
from pruning.cross_entropy import Loss
from pruning.groups import Analysis, analyse
from pruning.limits import Limits, Ranking, Widths, check_prunable, names, structures
from pruning.plan import Plan
from pruning.polynomial import Polynomial
from pruning.rules import Rule, ranked_together, uniform
from pruning.scores import score_groups
from pruning.sensitivity import Sensitivity, by_sensitivity, measure
from runs.errors import UsageError
from runs.suggest import nearest

ALLOCATIONS = ("uniform", "global", "isomorphic", "sensitivity")


def make_plan(
    model: keras.Model, criterion: str | Mapping[str, np.ndarray] = "l1", *,
    keep: float | None = None, keep_macs: float | None = None, keep_params: float | None = None,
    keep_bytes: float | None = None, keep_ms: float | None = None, budget: Budget | None = None,
    allocation: str | Sensitivity | None = None, fill: bool = True,
    round_to: int = 1, min_channels: int = 1, max_drop: float = 1.0, ignore: str | Iterable[str] = (),
    data: Any = None, loss: Loss | None = None, reduce: str = "mean", normalise: str | None = None,
    convention: str = "mac", latency: Cost | None = None, seed: int = 1,
) -> Plan:  # fmt: skip
    """Chooses the channels that stay: those with the best scores, as many as a budget allows.

    Args:
        model: functional model.
        criterion: name of a registered criterion, or scores by group as `score_groups` gives them.
        keep: ratio of the channels, in (0, 1]; or
        keep_macs, keep_params, keep_bytes: ratio of the operations, of the parameters (as `convention` counts
            them) or of the bytes of all weights, in (0, 1); or
        keep_ms: ratio of the milliseconds, in (0, 1): measured (`pruning.latency`), or what the function
            `latency` of group → width gives; or
        budget: any other cost and its upper bound.
        allocation: "uniform": the same ratio in every group; "global": all channels in one row by score;
            "isomorphic": a row for each structure of groups, the same ratio of each; "sensitivity": widths at
            which the accuracy on `data` falls equally in every group, or curves measured before. None is
            "uniform", and for measured milliseconds the widths that keep most of the scores.
        fill: whether single channels are added until none fits. Without it the groups of "uniform" have the
            same ratio to a channel, and the next larger ratio exceeds the budget.
        round_to, min_channels, max_drop, ignore: see `Limits`.
        data, loss, reduce, normalise, seed: see `score_groups`.

    Raises `UsageError` for a value out of range, a layer to ignore that does not exist, a model of which
    nothing can be removed, and a budget out of reach; then it says the smallest that can be reached.
    """
    ratios = {"keep": keep, "keep_macs": keep_macs, "keep_params": keep_params, "keep_bytes": keep_bytes}
    name, value = _one(ratios | {"keep_ms": keep_ms, "budget": budget})
    limits = Limits(round_to, min_channels, max_drop, names(ignore))
    _check(allocation, keep)
    analysis = analyse(model)
    check_prunable(analysis, model.name)
    scores = criterion
    if isinstance(criterion, str):
        options = {"data": data, "loss": loss, "reduce": reduce, "normalise": normalise, "seed": seed}
        scores = score_groups(model, criterion, analysis=analysis, **options)
    if allocation == "sensitivity":
        allocation = measure(model, scores, data=data, analysis=analysis)
    ranking = Ranking.of(analysis, scores, limits)
    if name == "keep_ms" and latency is None:
        return _timed(model, analysis, ranking, keep_ms, allocation and _rule(allocation, ranking, analysis))
    rule = _rule(allocation or "uniform", ranking, analysis)
    if keep is not None and allocation in (None, "uniform"):
        return ranking.plan(rule.widths(keep))
    cost = _cost(name, model, analysis, ranking, convention, latency)
    budget = budget or share(name, cost, value, ranking.sizes)
    return ranking.plan(widest(rule, ranking, budget, fill))


def _timed(
    model: keras.Model, analysis: Analysis, ranking: Ranking, keep_ms: float, rule: Rule | None
) -> Plan:
    from pruning.latency.fit import fit  # brings the programs that are measured

    def choose(cost: Cost, target: float) -> Widths:
        return widest(rule, ranking, Budget("keep_ms", cost, target), fill=True)

    return fit(model, analysis, ranking, keep_ms=keep_ms, choose=rule and choose).best.plan


def _one(options: Mapping[str, Any]) -> tuple[str, Any]:
    given = {name: value for name, value in options.items() if value is not None}
    if len(given) != 1:
        got = ", ".join(f"{name}={value}" for name, value in given.items()) or "none of them"
        raise UsageError(f"Give one of {', '.join(options)}. Received: {got}")
    return next(iter(given.items()))


def _check(allocation: str | Sensitivity | None, keep: float | None) -> None:
    if not isinstance(allocation, Sensitivity) and allocation not in (None, *ALLOCATIONS):
        valid = nearest(allocation, ALLOCATIONS)
        raise UsageError(f"Unknown allocation. Received: allocation={allocation!r}. {valid}")
    if keep is not None:
        check_ratio("keep", keep, one_allowed=True)


def _rule(allocation: str | Sensitivity, ranking: Ranking, analysis: Analysis) -> Rule:
    if isinstance(allocation, Sensitivity):
        return by_sensitivity(ranking, allocation)
    if allocation == "uniform":
        return uniform(ranking)
    return ranked_together(ranking, structures(analysis) if allocation == "isomorphic" else None)


def _cost(
    name: str, model: keras.Model, analysis: Analysis, ranking: Ranking, convention: str, latency: Cost | None
) -> Cost | None:
    """The cost behind an option of `make_plan`."""
    if name == "keep":
        return lambda widths: sum(widths.values())
    if name == "keep_ms":
        return latency
    if name == "budget":
        return None
    if name == "keep_bytes":
        return Polynomial(stored_bytes(analysis), ranking.orders)
    rule = Counter(model, convention, analysis).rule  # says what cannot be counted
    terms = operations if name == "keep_macs" else parameters
    return Polynomial(terms(analysis, rule), ranking.orders)
