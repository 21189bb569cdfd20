"""Whether a removed channel is zero in the masked network, so that it adds nothing to a sum over channels."""

from __future__ import annotations

import re

import numpy as np

from secateur.nets.graph import OWN, Call
from secateur.nets.kernels import named_variables
from secateur.pruning.layers.labels import Labels
from secateur.pruning.layers.running import BROKEN
from secateur.runs.errors import UsageError

NOT_ZERO = "a removed channel is not zero there, and would count in its sums"
OTHER = 0.7  # a value of what is not removed


def silent(state: Labels, tensor: int) -> bool:
    """Whether the channels of a tensor that a plan can remove are zeros where their weights are.

    Layers without weights are run on zeros to see it, up to the call whose rule is running.
    """
    makers = {use.layer for use in state.uses.values() if use.role == "producer"}
    for call in state.calls:
        if call.outputs and call.outputs[0] not in state.silence:
            found = _silent(state, call, call.name in makers)
            state.silence |= dict.fromkeys(call.outputs, found)
    return state.silence[tensor]


def _silent(state: Labels, call: Call, makes: bool) -> bool:
    if call.kind == "InputLayer":
        return True
    if not getattr(call.layer, "weights", ()):
        return _runs_to_zero(state, call)
    if _shifts_all(state, call):
        return False
    kept = makes and len(call.inputs) == 1
    if not kept and not all(state.silence[t] and state.of_tensor[t].size > 1 for t in call.inputs):
        return False
    activation = getattr(call.layer, "activation", None)
    own = type(call.layer).__module__.partition(".")[0] in OWN
    return own and (activation is None or not np.any(np.asarray(activation(np.zeros((1, 4), np.float32)))))


def _shifts_all(state: Labels, call: Call) -> bool:
    """Whether a bias is added to channels that are gone, too: it belongs to other axes."""
    cut = {weight for use in state.uses.values() if use.layer == call.name for weight in use.axes}
    return any(re.match("bias|beta", name) for name in named_variables(call.layer).keys() - cut)


def _runs_to_zero(state: Labels, call: Call) -> bool:
    """Whether zeros become zeros. What has no channels of its own is no zero."""
    read = []
    for tensor, shape in zip(call.inputs, call.input_shapes, strict=True):
        zero = state.silence[tensor] and state.of_tensor[tensor].size > 1
        rows = (state.batch or 1) * state.rows[tensor]
        read.append(np.full((rows, *(n or 2 for n in shape[1:])), 0.0 if zero else OTHER, np.float32))
    try:
        return not any(np.any(np.asarray(y)) for y in call.run(read, training=False))
    except (*BROKEN, UsageError):
        return False
