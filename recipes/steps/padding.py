"""Widths that train fast: a network of 15 channels a layer takes longer than one of 16."""

from __future__ import annotations

import keras

from secateur.pruning import Plan, mask, narrow
from secateur.pruning.plan import FAST_WIDTH
from secateur.pruning.shrink.fill import fill
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.state import State


def widened(context: RunContext, state: State) -> tuple[keras.Model, Plan | None]:
    """The network as it is, with surplus channels that are masked; and the plan that cuts them off again.

    The surplus comes from the dense network: as many channels as make widths multiples of 8. None where there
    is nothing to add.
    """
    small = context.load(state.network)
    outer = state.plan.padded(FAST_WIDTH) if state.plan else None
    if outer == state.plan:
        return small, None
    with context.strategy.scope():
        model = narrow(mask(context.load(state.dense), state.plan), outer)
    inner = state.plan.within(outer)
    fill(model, inner, small)
    return model, inner
