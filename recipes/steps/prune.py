"""Filters go at once: a ratio of every group, or as many as a budget asks for."""

from __future__ import annotations

from typing import Any, Literal

import keras

from secateur.pruning import Plan, complexity, find_groups, make_plan
from secateur.recipes.engine.config import RunOptions
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import option
from secateur.recipes.engine.step import State, step
from secateur.recipes.steps.narrowing import Narrowing
from secateur.runs import UsageError

BUDGETS = ("keep", "keep_macs", "keep_params")


@step("prune")
class Prune(Narrowing):
    """Removes the worst channels by a criterion."""

    keep: float | None = option(None, "ratio of the channels of a group that stay", gt=0, le=1)
    keep_macs: float | None = option(None, "ratio of the dense network's MACs", gt=0, lt=1)
    keep_params: float | None = option(None, "ratio of the dense network's parameters", gt=0, lt=1)
    allocation: Literal["uniform", "global", "isomorphic"] = option(
        "uniform", "how the budget is spread over groups"
    )
    max_drop: float = option(1.0, "largest ratio of its channels that a group loses", gt=0, le=1)
    round_to: int = option(1, "widths are multiples of this", ge=1)
    ignore: list[str] = option([], "layers whose channels all stay; patterns may be used")

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        given = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(given) != 1:
            wanted = " or ".join(f"{self.label}.{name}" for name in BUDGETS)
            raise UsageError(f"Give {wanted}. Received: {', '.join(given) or 'none of them'}")

    @property
    def idle(self) -> bool:
        """With all channels kept."""
        return super().idle or self.keep == 1

    def check_options(self, config: RunOptions) -> None:
        """With all channels kept no budget is met."""
        if config.keep_macs and self.keep == 1:
            raise UsageError(
                f"{self.label} keeps all channels: give --set {self.label}.keep=0.5. "
                f"Received: keep_macs={config.keep_macs}, {self.label}.keep=1.0"
            )

    def plan(self, context: RunContext, state: State, model: keras.Model) -> Plan:
        """What stays of `model`; all of it where the budget is met already."""
        how = {
            "allocation": self.allocation, "max_drop": self.max_drop, "round_to": self.round_to,
            "ignore": self.ignore, **self.scoring(context),
        }  # fmt: skip
        if keep_macs := context.config.keep_macs or self.keep_macs:
            return self.budgeted(context, state, model, keep_macs, **how)
        budget = {"keep": self.keep} if self.keep is not None else self._params(context, state, model)
        if next(iter(budget.values())) >= 1:
            return Plan.full(find_groups(model))
        return make_plan(model, self.criterion, **budget, **how)

    def _params(self, context: RunContext, state: State, model: keras.Model) -> dict[str, float]:
        """The ratio of what `model` has. In a loop each round takes an equal part of the way."""
        dense, now = context.cost(state.dense).params, complexity(model).params
        return {"keep_params": self.keep_params ** (state.turn / state.turns) * dense / now}
