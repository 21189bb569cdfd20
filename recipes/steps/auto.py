"""Several plans for one budget, as many as the time allows; the best one on the holdout is cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Literal

import keras
from pydantic import Field

from secateur.pruning import Plan
from secateur.pruning.planning import ALLOCATIONS
from secateur.pruning.score.registry import get_criterion
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.ending import ending_seconds
from secateur.recipes.engine.options import option
from secateur.recipes.engine.step import State, step
from secateur.recipes.steps.narrowing import Narrowing
from secateur.recipes.steps.trials import Search, Trials, adapted, searched

SEARCHES: dict[str, Search] = {"netadapt": adapted, "ekg": searched}


@step("auto")
class Auto(Narrowing):
    """Removes channels by the plan that keeps most accuracy, BN's averages estimated again.

    First come plans of a criterion and an allocation, which take seconds, then the searches, each of which
    gets a part of the time and is left out where it would need more.
    """

    keep_macs: float = option(0.5, "ratio of the dense network's MACs, without --keep_macs", gt=0, lt=1)
    criteria: list[str] = option(["l1", "taylor"], "of plans at once")
    allocations: list[Literal[ALLOCATIONS]] = option(["uniform", "global"], "of plans at once")
    searches: list[Literal[tuple(SEARCHES)]] = option([*SEARCHES], "for plans, in this order")
    search_share: Annotated[float, Field(ge=0, le=1)] = option(
        0.15, "of the time before the report that each search may take"
    )
    max_drop: float = option(0.9, "largest ratio of its channels that a group loses", gt=0, le=1)

    def plan(self, context: RunContext, state: State, model: keras.Model) -> Plan:
        """The plan of the best trial; those that a killed run has made are not made again."""
        trials = Trials(context, state.name, model)
        limit = self.limit(context, state)
        for name, make in self.candidates(context, state, model, limit):
            trials.add(name, make)
        return trials.best.plan

    def limit(self, context: RunContext, state: State) -> float:
        """Seconds that a search may take."""
        if context.clock is None:
            return float("inf")
        return self.search_share * context.clock.left(ending_seconds(context, state))

    def candidates(
        self, context: RunContext, state: State, model: keras.Model, limit: float
    ) -> Iterator[tuple[str, Callable[[], Plan]]]:
        """Names and makers of plans, the cheapest first."""
        keep = context.config.keep_macs or self.keep_macs
        for criterion in self.criteria:
            data = context.sample() if get_criterion(criterion).needs_data else None
            for allocation in self.allocations:
                how = {"allocation": allocation, "max_drop": self.max_drop, "data": data}
                make = partial(self.budgeted, context, state, model, keep, criterion=criterion, **how)
                yield f"{criterion}, {allocation}", partial(make, seed=context.config.seed)
        for name in self.searches:
            yield name, partial(SEARCHES[name], context, model, keep, limit)

    def facts(
        self, context: RunContext, state: State, model: keras.Model, plan: Plan, small: keras.Model
    ) -> dict:
        """What was tried, and which of it was chosen."""
        trials = Trials(context, state.name, model)
        return {"tried": [one.to_json() for one in trials.all], "chosen": trials.best.name}
