"""Filters go group by group, from the end of the network to its beginning ("IteB")."""

from __future__ import annotations

import keras

from secateur.pruning import Plan, backward, cluster_plan, plan_of_widths
from secateur.pruning.rounding import removed
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import option
from secateur.recipes.engine.step import State, step
from secateur.recipes.steps.narrowing import Narrowing

CLUSTERING = "clustering"


@step("prune_backward")
class PruneBackward(Narrowing):
    """Each round narrows one group, the last one first; behind the first group it begins again."""

    criterion: str = option("l1", "which channels stay; clustering keeps one filter of each cluster")
    keep: float = option(0.7, "ratio of the channels of the group that stay", gt=0, lt=1)

    def plan(self, context: RunContext, state: State, model: keras.Model) -> Plan:
        groups = backward(model)
        group = groups[(state.turn - 1) % len(groups)]
        widths = {group.name: group.size - removed(group.size, 1 - self.keep, "floor_kept")}
        if self.criterion == CLUSTERING:
            return cluster_plan(model, widths, seed=context.config.seed)
        return plan_of_widths(model, widths, self.criterion, **self.scoring(context))
