"""Filters go by a plan that a paper fixes by hand."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from pruning import Plan, plan_of_widths, published_widths
from pruning.published import PUBLISHED, find_shares
from recipes.config_program import ProgramOptions
from recipes.context import RunContext
from recipes.options import option
from recipes.steps.narrowing import Narrowing
from recipes.steps.state import State
from recipes.steps.step import step


@step("prune_fixed")
@dataclass(frozen=True, kw_only=True)
class PruneFixed(Narrowing):
    """One round of a published plan, which removes shares of the channels that are there."""

    widths: str = option("kesi", "the plan", choices=tuple(PUBLISHED))

    def check(self, config: ProgramOptions, images: int, replicas: int) -> None:
        """The plan must be published for the architecture, or for its family."""
        find_shares(self.widths, config.arch)

    def plan(self, context: RunContext, state: State, model: keras.Model) -> Plan:
        """What stays of `model`."""
        return plan_of_widths(
            model, published_widths(self.widths, model), self.criterion, **self.scoring(context)
        )
