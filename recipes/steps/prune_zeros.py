"""Filters go that training has left at zero."""

from __future__ import annotations

import keras

from secateur.pruning import Plan
from secateur.pruning.constrain.soft import nonzero_channels
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.step import State, step
from secateur.recipes.steps.narrowing import Narrowing


@step("prune_zeros")
class PruneZeros(Narrowing):
    """Removes channels of which every filter is zero: the end of soft pruning."""

    def plan(self, context: RunContext, state: State, model: keras.Model) -> Plan:
        """What stays of `model`; of a group that is zero altogether its first channel."""
        masks = nonzero_channels(model)
        for alive in masks.values():
            alive[0] |= not alive.any()
        return Plan.from_masks(masks)
