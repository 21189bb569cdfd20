"""Filters go: which, how many of each group, and what is done to the network right after."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from pruning import Plan, make_plan
from pruning.criteria import get_criterion
from recipes.context import RunContext
from recipes.options import option
from recipes.steps.narrowing import narrowed
from recipes.steps.state import State
from recipes.steps.step import Step, step
from runs import UsageError

SCORED = 3200  # training images behind a criterion that reads some, as many as HAP takes
BUDGETS = ("keep", "keep_macs", "keep_params")


@step("prune")
@dataclass(frozen=True, kw_only=True)
class Prune(Step):
    """Removes the worst channels of groups by a criterion, at once."""

    criterion: str = option("l1", "which channels stay")
    keep: float | None = option(None, "ratio of the channels of a group that stay", above=0, at_most=1)
    keep_macs: float | None = option(None, "ratio of the dense network's MACs", above=0, below=1)
    keep_params: float | None = option(None, "ratio of the dense network's parameters", above=0, below=1)
    allocation: str = option(
        "uniform", "how the budget is spread over groups", choices=("uniform", "global", "isomorphic")
    )
    max_drop: float = option(1.0, "largest ratio of its channels that a group loses", above=0, at_most=1)
    ignore: list[str] = option([], "layers whose channels all stay; patterns may be used")
    reestimate: bool = option(True, "estimate BN's averages again, which belong to the wider network")

    def __post_init__(self) -> None:
        super().__post_init__()
        get_criterion(self.criterion)
        given = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(given) != 1:
            wanted = " or ".join(f"{self.label}.{name}" for name in BUDGETS)
            raise UsageError(f"Give {wanted}. Received: {', '.join(given) or 'none of them'}")

    def run(self, context: RunContext, state: State, name: str) -> State:
        """snap_<name>.pkl: the narrower network, with the channels of the dense one that it has left."""

        def choose(model: keras.Model) -> Plan:
            return self.plan(context, state, model)

        return narrowed(context, state, name, choose, self.reestimate)

    def plan(self, context: RunContext, state: State, model: keras.Model) -> Plan:
        """What stays of `model`, the network as it is."""
        budget = {n: getattr(self, n) for n in BUDGETS if getattr(self, n) is not None}
        return make_plan(
            model, self.criterion, **budget, allocation=self.allocation, max_drop=self.max_drop,
            ignore=self.ignore, data=data_for(context, self.criterion), seed=context.config.seed,
        )  # fmt: skip


def data_for(context: RunContext, criterion: str) -> tuple | None:
    """Training images and labels for a criterion that reads some."""
    if not get_criterion(criterion).needs_data:
        return None
    train = context.splits.train
    return context.inputs(train.images[:SCORED]).numpy(), train.labels[:SCORED]
