"""Filters whose BN scale is small go, all groups by one threshold: the cut of network slimming."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from pruning import Plan, plan_of_widths, slimming_widths
from pruning.scores import score_groups
from recipes.context import RunContext
from recipes.options import option
from recipes.steps.narrowing import Narrowing
from recipes.steps.state import State
from recipes.steps.step import step


@step("prune_scales")
@dataclass(frozen=True, kw_only=True)
class PruneScales(Narrowing):
    """Channels stay whose |γ| lies above the one at `percent` of all (Liu et al. 2017)."""

    criterion: str = option("bn_scale", "which channels stay")
    percent: float = option(0.7, "ratio of all channels that go", at_least=0, below=1)
    max_drop: float = option(0.99, "largest ratio of its channels that a group loses", above=0, at_most=1)

    def plan(self, context: RunContext, state: State, model: keras.Model) -> Plan:
        """What stays of `model`."""
        scores = score_groups(model, self.criterion, normalise="none", **self.scoring(context))
        return plan_of_widths(model, slimming_widths(scores, self.percent, self.max_drop), scores)
