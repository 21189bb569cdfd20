"""What a search over widths moves in: channels in the order in which they go, a cost and its bound."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from secateur.pruning.choose.budgets import Budget, check_reachable
from secateur.pruning.choose.ranking import Limits, Ranking
from secateur.pruning.choose.targets import COUNTED, Target
from secateur.pruning.groups.analysis import Analysis
from secateur.pruning.plan import Plan
from secateur.runs.errors import TrainingError

CAPPED = Limits(max_drop=0.95)  # no group is emptied for the sake of the others


@dataclass(frozen=True, eq=False)
class Space:
    """Widths that may be searched.

    Attributes:
        ranking: the channels of all groups, best first, and how few may stay.
        budget: what the network may cost in the end.
        weights: group → parameters that it frees on the way to its smallest width, its size for annealing.

    Raises `UsageError`, which says the smallest cost, for a budget below that of the smallest widths.
    """

    ranking: Ranking
    budget: Budget
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_reachable(self.ranking, self.budget)

    @classmethod
    def of(cls, analysis: Analysis, ranking: Ranking, target: Target, *, convention: str = "mac") -> Space:
        """The space of a network.

        Args:
            analysis: of the network.
            ranking: the channels of its groups.
            target: a ratio of a cost that is counted: not of milliseconds.
            convention: how operations are counted.

        Raises `UsageError` for a ratio out of reach.
        """
        params = COUNTED["keep_params"](analysis, ranking, convention)
        whole = params(ranking.sizes)
        freed = {n: whole - params({**ranking.sizes, n: least}) for n, least in ranking.lowest.items()}
        return cls(ranking, target.budget(analysis, ranking, convention), freed)

    def cost(self, plan: Plan) -> float:
        """The cost of a plan's widths."""
        return self.budget.cost(plan.widths())

    def narrower(self, widths: Mapping[str, int], name: str) -> list[int]:
        """Allowed widths of a group below that of `widths`, the widest first."""
        lowest, now = self.ranking.lowest[name], widths[name]
        allowed = {self.ranking.width(name, width) for width in range(lowest, now)}
        return sorted((width for width in allowed if width < now), reverse=True)


def finite(accuracy: float) -> float:
    """The accuracy of a plan. Raises `TrainingError` for one that no other can be compared with."""
    if not math.isfinite(accuracy):
        raise TrainingError(
            f"A plan's accuracy is not finite: the network or its images are broken. Received: {accuracy}"
        )
    return float(accuracy)
