"""Filters whose BN scale is small go, all groups by one threshold: the cut of network slimming."""

from __future__ import annotations

import keras

from secateur.pruning import Plan, plan_of_widths, slimming_widths
from secateur.pruning.score.scores import score_groups
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import option
from secateur.recipes.engine.step import State, step
from secateur.recipes.steps.narrowing import Narrowing


@step("prune_scales")
class PruneScales(Narrowing):
    """Channels stay whose |γ| lies above the one at `percent` of all (Liu et al. 2017)."""

    criterion: str = option("bn_scale", "which channels stay")
    percent: float = option(0.7, "ratio of all channels that go", ge=0, lt=1)
    max_drop: float = option(0.99, "largest ratio of its channels that a group loses", gt=0, le=1)

    def plan(self, context: RunContext, state: State, model: keras.Model) -> Plan:
        scores = score_groups(model, self.criterion, normalise="none", **self.scoring(context))
        if keep_macs := context.config.keep_macs:
            how = {"allocation": "global", "max_drop": self.max_drop}
            return self.budgeted(context, state, model, keep_macs, criterion=scores, **how)
        return plan_of_widths(model, slimming_widths(scores, self.percent, self.max_drop), scores)
