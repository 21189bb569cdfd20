"""Filters go by a plan that a paper fixes by hand."""

from __future__ import annotations

from typing import Literal

import keras

from secateur.pruning import Plan, plan_of_widths, published_widths
from secateur.pruning.choose.published import PUBLISHED, find_shares
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import option
from secateur.recipes.engine.step import Start, State, step
from secateur.recipes.steps.narrowing import Narrowing
from secateur.runs import UsageError


@step("prune_fixed")
class PruneFixed(Narrowing):
    """One round of a published plan, which removes shares of the channels that are there.

    With --keep_macs all groups lose the same share of their channels, in equal parts over the rounds.
    """

    widths: Literal[tuple(PUBLISHED)] = option("kesi", "the plan")

    def check(self, start: Start) -> None:
        """The plan must be published for the architecture, or for its family."""
        if start.config.keep_macs is None:
            _find(self.widths, start)

    def plan(self, context: RunContext, state: State, model: keras.Model) -> Plan:
        if keep_macs := context.config.keep_macs:
            return self.budgeted(context, state, model, keep_macs, **self.scoring(context))
        return plan_of_widths(
            model, published_widths(self.widths, model), self.criterion, **self.scoring(context)
        )


def _find(widths: str, start: Start) -> None:
    if start.subject.original is not None:
        raise UsageError(
            f"The plan {widths} is published for nets of this project: give --keep_macs. "
            f"Received: {start.config.arch}"
        )
    find_shares(widths, start.config.arch)
