"""Budgets: what a network may cost, and the widest network within one."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from secateur.pruning.choose.ranking import Ranking, Widths
from secateur.pruning.choose.rules import Rule
from secateur.runs.errors import UsageError
from secateur.runs.text import few

Cost = Callable[[Mapping[str, int]], float]  # of group → width

HALVINGS = 30  # of the dial


@dataclass(frozen=True)
class Budget:
    """An upper bound for a cost.

    Attributes:
        name: as error messages call it.
        cost: group → width to a number that does not fall as widths grow: operations, bytes, milliseconds.
        target: the largest cost allowed, in the same unit.
    """

    name: str
    cost: Cost
    target: float


THIN = 5  # a group that keeps less than one of so many channels is worth a word
SHOWN = 3


def paid_by_few(widths: Widths, ranking: Ranking, budget: Budget) -> str | None:
    """A line where most of a counted budget goes to layers that stay whole, so that few groups pay for it."""
    sizes, free = ranking.sizes, ranking.free()
    whole = budget.cost({**sizes, **dict.fromkeys(free, 0)}) / budget.target
    thin = [f"{name} {widths[name]} of {sizes[name]}" for name in free if THIN * widths[name] < sizes[name]]
    if whole <= 0.5 or not thin:
        return None
    return (
        f"{budget.name}: {whole:.0%} of the budget goes to layers that stay whole; these groups pay for it: "
        f"{few(thin, SHOWN)}. A larger budget keeps them"
    )


def widest(rule: Rule, ranking: Ranking, budget: Budget, fill: bool) -> Widths:
    """The widths at the highest dial within the budget; with `fill`, then single steps until none fits.

    Raises `UsageError`, which says the smallest cost that can be reached, for a budget out of reach.
    """
    if budget.cost(ranking.sizes) <= budget.target:
        return dict(ranking.sizes)
    check_reachable(ranking, budget)
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        fits = budget.cost(rule.widths(middle)) <= budget.target
        low, high = (middle, high) if fits else (low, middle)
    return filled(rule.widths(low), rule, ranking, budget) if fill else rule.widths(low)


def filled(widths: Widths, rule: Rule, ranking: Ranking, budget: Budget) -> Widths:
    """Adds the step that is worth most, as long as one fits.

    A step that does not fit now will not fit later, so each group is refused once: as many counts as groups.
    """
    widths = dict(widths)
    waiting = [
        (-rule.worth(n, widths[n]), i, n) for i, n in enumerate(widths) if widths[n] < ranking.sizes[n]
    ]
    heapq.heapify(waiting)
    while waiting:
        _, i, name = heapq.heappop(waiting)
        wider = {**widths, name: ranking.limits.above(widths[name], ranking.sizes[name])}
        if budget.cost(wider) > budget.target:
            continue
        widths = wider
        if widths[name] < ranking.sizes[name]:
            heapq.heappush(waiting, (-rule.worth(name, widths[name]), i, name))
    return widths


def check_reachable(ranking: Ranking, budget: Budget) -> None:
    """Raises `UsageError` where even the smallest widths cost more than the budget."""
    least, dense = budget.cost(ranking.lowest), budget.cost(ranking.sizes)
    if least > budget.target:
        raise UsageError(
            f"The target is out of reach: the smallest net keeps {least / dense:.4f} of the cost. "
            f"Received: {budget.name}={budget.target / dense:.4g} ({budget.target:g} of {dense:g})"
            f"{ranking.limits.remedy()}"
        )
