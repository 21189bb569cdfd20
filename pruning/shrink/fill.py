"""The way back from a narrow network into the kept channels of a wider one."""

from __future__ import annotations

import keras
import numpy as np

from secateur.nets.graph import trace
from secateur.nets.kernels import named_variables
from secateur.pruning.groups.analysis import analysis_for
from secateur.pruning.plan import Plan
from secateur.pruning.shrink.surgery import fitted
from secateur.pruning.shrink.weights import kept_positions, weights_of

MASK = "mask"  # which channels of a masked layer are alive; the wider network has its own


def fill(model: keras.Model, plan: Plan, small: keras.Model) -> None:
    """Puts weights into the channels that a plan keeps, in place; the others stay as they are.

    Args:
        model: functional model.
        plan: of groups of `model`.
        small: what `narrow(model, plan)` made, with weights of its own: it makes the same of `model` again.

    Raises `UsageError` for a plan of another network.
    """
    analysis, plan = analysis_for(model, plan)
    analysis.graph.check_in_place()
    weights, layers = weights_of(small), analysis.graph.layers
    kept = kept_positions(analysis.groups, plan.masks(), weights.keys())
    own = trace(small).layers
    for path, arrays in weights.items():
        if not (variables := named_variables(layers[path])):
            continue
        arrays = fitted(own[path], arrays, layers[path])
        for name in arrays.keys() - {MASK}:
            value = np.array(variables[name].numpy())
            alive = {axis % value.ndim: positions for axis, positions in kept[path][name].items()}
            places = [np.flatnonzero(alive.get(axis, np.ones(n))) for axis, n in enumerate(value.shape)]
            value[np.ix_(*places)] = arrays[name]
            variables[name].assign(value)
