"""From a plan to the next network of a run: sliced, its averages mended, and measured on the holdout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras

from op_utils import reestimate_batch_norm
from pruning import Plan, narrow
from recipes.context import RunContext
from recipes.steps.state import State
from runs import load_snapshot


def narrowed(
    context: RunContext,
    state: State,
    name: str,
    choose: Callable[[keras.Model], Plan],
    reestimate: bool = True,
) -> State:
    """The step NAME: what `choose` leaves of the network, as snap_<name>.pkl.

    With `reestimate` BN's averages are those of the narrower network on training images.
    """

    def make(path: Path) -> dict:
        model = context.load(state.network)
        plan = choose(model)
        with context.strategy.scope():
            small = narrow(model, plan)
        facts = {"holdout_before": context.accuracy(model, context.splits.holdout)}
        if reestimate:
            images = context.splits.warmup.images
            reestimate_batch_norm(small, context.inputs, images, context.config.val_batch_size)
        facts["holdout_after"] = context.accuracy(small, context.splits.holdout)
        return context.save(path, small, state.narrowed(plan)) | facts

    path = context.step(name, f"snap_{name}.pkl", make)
    return state.after(path, plan=Plan.from_json(load_snapshot(path).plan))
