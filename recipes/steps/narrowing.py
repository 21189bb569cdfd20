"""The base of steps that remove channels: slice, mend BN's averages, measure on the holdout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from secateur.op_utils import reestimate_batch_norm
from secateur.pruning import Plan, narrow
from secateur.pruning.score.registry import get_criterion
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import option
from secateur.recipes.engine.state import State
from secateur.recipes.engine.step import Step
from secateur.runs import load_snapshot


class Narrowing(Step):
    """Removes channels; `plan` says which."""

    criterion: str = option("l1", "which channels stay")
    reestimate: bool = option(True, "estimate BN's averages again, which belong to the wider network")

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        get_criterion(self.criterion)

    def plan(self, context: RunContext, state: State, model: keras.Model) -> Plan:
        """What stays of `model`, the network as it is."""
        raise NotImplementedError(type(self).__name__)

    def run(self, context: RunContext, state: State) -> State:
        """snap_<name>.pkl: the narrower network, with the channels of the dense one that it has left."""

        def make(path: Path) -> dict:
            model = context.load(state.network)
            facts = {"holdout_before": context.accuracy(model, context.splits.holdout)}
            plan = self.plan(context, state, model)
            with context.strategy.scope():
                small = narrow(model, plan)
            if self.reestimate:
                images = context.splits.warmup.images
                reestimate_batch_norm(small, context.inputs, images, context.config.val_batch_size)
            facts["holdout_after"] = context.accuracy(small, context.splits.holdout)
            return context.save(path, small, state.narrowed(plan)) | facts

        path = context.step(state.name, f"snap_{state.name}.pkl", make)
        return state.after(path, plan=Plan.from_json(load_snapshot(path).plan))

    def scoring(self, context: RunContext) -> dict:
        """Images and seed for the criterion: options of `make_plan`."""
        data = context.sample() if get_criterion(self.criterion).needs_data else None
        return {"data": data, "seed": context.config.seed}
