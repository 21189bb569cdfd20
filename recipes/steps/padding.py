"""Widths that train fast: a network of 15 channels a layer takes longer than one of 16."""

from __future__ import annotations

import keras

from secateur.pruning import Plan, narrow
from secateur.pruning.plan import FAST_WIDTH
from secateur.pruning.shrink.fill import fill
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.step import State


def padded(model: keras.Model, plan: Plan, preserve_norm: bool) -> tuple[keras.Model, Plan]:
    """What a plan keeps, with surplus channels that are masked; and the plan that cuts them off again.

    The surplus are channels of `model`, as many as make widths multiples of 8.
    """
    outer = plan.padded(FAST_WIDTH)
    return narrow(model, outer, preserve_norm, alive=plan), plan.within(outer)


def widened(context: RunContext, state: State) -> tuple[keras.Model, Plan | None]:
    """The network as it is, with a surplus from the dense network; None where there is nothing to add.

    Plain layers have no masks that would hold a surplus at zero.
    """
    small = context.load(state.network)
    if state.plan is None or not hasattr(small, "spec") or state.plan.padded(FAST_WIDTH) == state.plan:
        return small, None
    model, inner = padded(context.load(state.dense), state.plan, preserve_norm=False)
    fill(model, inner, small)
    return model, inner
