"""NetAdapt (Yang et al. 2018): in every step each group alone pays the same price, and the best one does.

A step lowers the cost of the network by a fixed share of the whole one's. Every group is tried at the largest
width with which it pays that by itself; the most accurate of these networks is committed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import takewhile

import keras

from secateur.pruning.choose.budgets import Budget, Cost, check_reachable
from secateur.pruning.choose.ranking import Ranking, Widths
from secateur.pruning.choose.targets import Target
from secateur.pruning.groups.analysis import Analysis
from secateur.pruning.latency.fit import fit
from secateur.pruning.plan import Plan
from secateur.pruning.search.space import Space, finite
from secateur.runs.errors import UsageError

SMALLEST = 1e-9  # share of the whole cost below which no step is tried


@dataclass(frozen=True)
class Adapted:
    """One committed network.

    Attributes:
        plan: what it keeps; cost: what it costs; accuracy: as measured when it was tried.
        group, width: the group that paid, and its new width ("" and 0 for the whole network).
        step: share of the whole cost that was asked for; it stays halved once no group could pay more.
        candidates: networks that were tried.
    """

    plan: Plan
    cost: float
    accuracy: float
    group: str
    width: int
    step: float
    candidates: int

    def to_json(self) -> dict:
        """Plain types; `from_json` gives an equal object."""
        return {**asdict(self), "plan": self.plan.to_json()}

    @classmethod
    def from_json(cls, data: Mapping) -> Adapted:
        """Inverse of `to_json`. Raises `UsageError` on anything else."""
        try:
            return cls(**{**data, "plan": Plan.from_json(data["plan"])})
        except (KeyError, TypeError) as error:
            raise UsageError(f"This is no step of NetAdapt; start anew. Received: {error!r}") from error


class NetAdapt:
    """The search in one space of widths.

    Args:
        space: the groups, the order of their channels, and the target.
        accuracy: plan → its network's accuracy, larger = better. It may train a little before it measures;
            whoever wants to go on from the trained weights keeps those of the plan that is committed.
        step: share of the whole cost that a step saves, in (0, 1); NNI takes 5 %.
    """

    def __init__(self, space: Space, accuracy: Callable[[Plan], float], step: float = 0.05) -> None:
        if not 0 < step < 1:
            raise UsageError(f"step must lie in (0, 1). Received: step={step:g}")
        self._space, self._accuracy, self._step = space, accuracy, step
        self.whole = space.budget.cost(space.ranking.sizes)

    def run(self, history: Sequence[Adapted] = ()) -> Iterator[Adapted]:
        """Yields the committed networks, the whole one first, until one costs at most the target.

        Args:
            history: networks that a search before has committed: this one goes on behind the last of them.
        """
        if history:
            last = history[-1]
        else:
            yield (last := self.start())
        while last.cost > self._space.budget.target:
            yield (last := self.step(last))

    def start(self) -> Adapted:
        """The whole network."""
        plan = self._space.ranking.plan(self._space.ranking.sizes)
        return Adapted(plan, self.whole, finite(self._accuracy(plan)), "", 0, self._step, 0)

    def step(self, last: Adapted) -> Adapted:
        """The most accurate network that is one step cheaper; of equal ones the cheapest, then the first."""
        step, candidates = self._candidates(last)
        found = []
        for name, width in candidates.items():
            plan = self._space.ranking.plan({**last.plan.widths(), name: width})
            accuracy, cost = finite(self._accuracy(plan)), self._space.cost(plan)
            found.append(Adapted(plan, cost, accuracy, name, width, step, len(candidates)))
        return max(found, key=lambda one: (one.accuracy, -one.cost))

    def _candidates(self, last: Adapted) -> tuple[float, dict[str, int]]:
        """The step that some group can pay, and the widths of those that can."""
        step, widths = last.step, last.plan.widths()
        while step > SMALLEST:
            most = max(last.cost - step * self.whole, self._space.budget.target)
            if found := {n: w for n in self._space.ranking.free() if (w := self._paid(widths, n, most))}:
                return step, found
            step /= 2
        raise UsageError(
            "No group by itself lowers the cost, and the target is not met. "
            f"Received: {self._space.budget.name}, {last.cost:g} of {self.whole:g}"
        )

    def _paid(self, widths: Mapping[str, int], name: str, most: float) -> int:
        """The largest width of a group with which the network costs at most `most`; 0 if there is none."""
        allowed = self._space.narrower(widths, name)
        place = bisect_left(allowed, -most, key=lambda w: -self._space.budget.cost({**widths, name: w}))
        return allowed[place] if place < len(allowed) else 0


class AdaptedWidths:
    """The search as a rule for widths, for budgets that come one after another as `latency.fit.fit` has them.

    Each budget gets the widths that it gets alone. What was searched above it for another one is not searched
    again; only the last step to a budget is that budget's own.

    Args:
        ranking: the channels of all groups, best first.
        accuracy, step: as `NetAdapt` takes them.
        history: networks that a search for the first budget has committed before it was cut off.
        each: is told the networks committed so far, and the budget, behind every new one.
    """

    def __init__(
        self,
        ranking: Ranking,
        accuracy: Callable[[Plan], float],
        step: float = 0.05,
        history: Sequence[Adapted] = (),
        each: Callable[[Sequence[Adapted], float], object] = lambda history, most: None,
    ) -> None:
        self._ranking, self._accuracy, self._step, self._each = ranking, accuracy, step, each
        self._history, self._most = [*history], None

    def __call__(self, cost: Cost, most: float, name: str = "milliseconds") -> Widths:
        """The widths with which the search ends, at a cost of `most` or less.

        Raises `UsageError`, with the budget's name, where no group by itself lowers the cost any more.
        """
        # The costs are those of today: a table of milliseconds may have been measured again.
        history = [replace(one, cost=cost(one.plan.widths())) for one in self._history]
        if self._most not in (None, most):
            history = history[:-1] or history
        if not history or history[-1].cost > most or self._most not in (None, most):
            history = [*takewhile(lambda one: one.cost > most, history)] or history[:1]
        self._history, self._most = history, most
        space = Space(self._ranking, Budget(name, cost, most))
        for one in NetAdapt(space, self._accuracy, self._step).run(self._history[:]):
            self._history.append(one)
            self._each(self._history, most)
        return self._history[-1].plan.widths()

    def plan(self, model: keras.Model, analysis: Analysis, target: Target) -> Plan:
        """The plan for a budget; one of milliseconds is measured on LiteRT, one thread and one image.

        Raises `UsageError` for one out of reach, and where no group by itself lowers the cost any more.
        """
        if target.measured:
            found = {target.name: target.value}
            return fit(model, analysis, self._ranking, choose=self, **found).best.plan
        budget = target.budget(analysis, self._ranking, "mac")
        check_reachable(self._ranking, budget)
        return self._ranking.plan(self(budget.cost, budget.target, budget.name))
