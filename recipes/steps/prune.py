"""Filters go at once: a ratio of every group, as many as a budget asks for, or those of a plan."""

from __future__ import annotations

import contextlib
from typing import Any

import keras

from secateur.pruning import Plan, find_groups, narrow
from secateur.pruning.score.registry import get_criterion
from secateur.recipes.engine.config import RunOptions
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.cutting import PlanOptions
from secateur.recipes.engine.step import State, step
from secateur.recipes.engine.timing import setup_for
from secateur.recipes.steps.narrowing import Cutting
from secateur.recipes.steps.planning import Evidence, choose_plan
from secateur.runs import UsageError


@step("prune")
class Prune(PlanOptions, Cutting):
    """Removes the worst channels by a criterion. In a loop each round takes an equal part of the way."""

    @property
    def idle(self) -> bool:
        """With all channels kept."""
        return super().idle or self.keep == 1

    def needs_labels(self, config: RunOptions) -> bool:
        """For accuracies that decide, and for gradients."""
        return self.curved or get_criterion(self.criterion).needs_labels

    def check_options(self, config: RunOptions) -> None:
        """Another budget must leave it something to choose."""
        if config.keep_macs and self.keep == 1:
            raise UsageError(
                f"{self.label}.keep=1 removes nothing, which keep_macs could take the place of: give "
                f"{self.label}.keep=0.7 instead. Received: keep_macs={config.keep_macs}"
            )
        if config.keep_macs and self.plan:
            raise UsageError(
                f"{self.label}.plan says which channels stay: give --set {self.label}.keep_macs=0.5. "
                f"Received: keep_macs={config.keep_macs}, {self.label}.plan={self.plan}"
            )

    def planned(self, context: RunContext, state: State, model: keras.Model) -> tuple[Plan, dict]:
        """What stays of `model`, all of it where the budget is met already; and curves of sensitivity."""
        known = Evidence(
            self.scoring(context),
            lambda: context.shown(context.splits.search),
            context.subject.task and context.subject.task.score,
            context.config.val_batch_size,
        )
        with contextlib.closing(setup_for(self.backend, self.threads, self.ms_batch)) as setup:
            name, value = self._target(context, state, model, setup)
            if name.startswith("keep") and value >= 1:
                return Plan.full(find_groups(model, self.channel_statistics)), {}
            plan, curves = choose_plan(model, self, (name, value), setup, known)
        return plan, {"sensitivity": curves.to_json()} if curves else {}

    def facts(
        self, context: RunContext, state: State, model: keras.Model, plan: Plan, small: keras.Model
    ) -> dict:
        """Accuracy with the averages of the wide network."""
        stale = narrow(model, plan, self.preserve_norm)
        return {"holdout_stale_averages": context.accuracy(stale, context.splits.holdout)}

    def _target(
        self, context: RunContext, state: State, model: keras.Model, setup: Any
    ) -> tuple[str, float | str]:
        """The budget as a ratio of what `model` has, from a ratio of what the dense network has."""
        name, value = self.target
        if keep_macs := context.config.keep_macs:
            name, value = "keep_macs", keep_macs
        if name in ("plan", "keep", "max_ms"):
            return name, value
        ratio = self.ratio(context, state, model, name, value, convention=self.convention, setup=setup)
        return name, ratio
