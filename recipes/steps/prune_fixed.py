"""Filters go by a plan that a paper fixes by hand."""

from __future__ import annotations

from typing import Literal

import keras

from secateur.pruning import Plan, plan_of_widths, published_widths
from secateur.pruning.choose.published import PUBLISHED, find_shares
from secateur.recipes.engine.config import RunOptions
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import option
from secateur.recipes.engine.step import State, step
from secateur.recipes.steps.narrowing import Narrowing


@step("prune_fixed")
class PruneFixed(Narrowing):
    """One round of a published plan, which removes shares of the channels that are there."""

    widths: Literal[tuple(PUBLISHED)] = option("kesi", "the plan")

    def check(self, config: RunOptions, images: int, replicas: int) -> None:
        """The plan must be published for the architecture, or for its family."""
        find_shares(self.widths, config.arch)

    def plan(self, context: RunContext, state: State, model: keras.Model) -> Plan:
        """What stays of `model`."""
        return plan_of_widths(
            model, published_widths(self.widths, model), self.criterion, **self.scoring(context)
        )
