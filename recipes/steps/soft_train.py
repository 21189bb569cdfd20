"""Training that prunes after every epoch: filters that may come back (SFP), or that may not (FPGM)."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import keras
import numpy as np

from secateur.pruning import Plan, find_groups, fpgm_mix, fpgm_plan, plan_of_widths
from secateur.pruning.constrain.gradients import hold_filters
from secateur.pruning.constrain.soft import soft_pruning, soften
from secateur.pruning.rounding import removed
from secateur.pruning.score.registry import get_criterion
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import option
from secateur.recipes.engine.step import State, step
from secateur.recipes.steps.narrowing import final_sparsity
from secateur.recipes.steps.train import Train
from secateur.runs import UsageError

MIX = "fpgm_mix"


@step("soft_train")
class SoftTrain(Train):
    """Sets filters to zero after each epoch and trains on (He et al. 2018; He et al. 2019).

    The network keeps its width: a step that prunes by the same criterion slices it afterwards.
    """

    widens: ClassVar[bool] = False

    criterion: str = option("l2", f"which filters stay, or {MIX}")
    sparsity: float = option(0.4, "ratio of the filters of each group that go", gt=0, lt=1)
    keep_norm: float = option(1.0, "of fpgm_mix: ratio that stays by its norm, before distances", gt=0)
    every: int = option(1, "epochs between two choices", ge=1)
    hard: bool = option(False, "choose once, before the training; filters that are zero get no gradient")

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        if self.criterion == MIX:
            fpgm_mix(np.ones((2, 1)), self.keep_norm, self.sparsity)  # raises for ratios out of range
        if self.criterion != MIX and get_criterion(self.criterion).needs_data:
            raise UsageError(
                "Filters are chosen by their weights between epochs. "
                f"Received: {self.label}.criterion={self.criterion!r}"
            )

    def hooks(self, context: RunContext, state: State, model: keras.Model, trained: keras.Model) -> dict:
        if state.shared:
            raise UsageError(
                "Filters that become zero cannot share weights with others. Received: "
                f"{self.label} behind a step that shares\nlet it share afterwards"
            )
        chosen = partial(self._choose, sparsity=final_sparsity(context, state, self.sparsity))
        if not self.hard:
            choose = soft_pruning(model, chosen, self.every, self.length(context, state))
            return {"adjust": self.held(state, model, trained), "after_epoch": choose}
        # Once: he-y's program chooses again after each epoch, when dead filters may rank above others.
        soften(model, chosen(model))
        return {"adjust": self.held(state, model, trained, hold_filters(model, trained))}

    def _choose(self, model: keras.Model, sparsity: float) -> Plan:
        if self.criterion == MIX:
            return fpgm_plan(model, self.keep_norm, sparsity)
        sizes = {group.name: group.size for group in find_groups(model)}
        widths = {name: n - removed(n, sparsity, "floor") for name, n in sizes.items()}
        return plan_of_widths(model, widths, self.criterion)
