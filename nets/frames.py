"""Calls on single frames as calls on sequences of them: what lies inside of `TimeDistributed`."""

from __future__ import annotations

from typing import Any

import keras

from secateur.nets.unfolding import untouched

ALIKE = (
    "Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Divide", "TrueDivide", "Negative",
    "Activation", "ReLU", "Relu", "Relu6", "LeakyRelu", "Elu", "Gelu", "Silu", "Sigmoid",
    "HardSigmoid", "HardSilu", "Tanh", "Softplus", "Square", "Sqrt", "Abs", "Exp", "Clip",
)  # fmt: skip
"""Layers and operations that do the same to a sequence as to each of its frames."""


def over_frames(node: Any, frames: int | None, made: dict[int, keras.Layer], name: str) -> Any:
    """Keras' record of a call on sequences that does to each frame what `node` does; None: there is none.

    Args:
        node: Keras' record of a call on frames (b, …).
        frames: how many a sequence (b, frames, …) has.
        made: id of a layer → `TimeDistributed` around it; grows.
        name: of a new one.
    """
    operation, arguments = node.operation, node.arguments
    longer = {
        id(t): keras.KerasTensor((t.shape[0], frames, *t.shape[1:]), t.dtype) for t in arguments.keras_tensors
    }
    last = type(operation).__name__ == "Concatenate" and operation.axis == -1
    if last or type(operation).__name__ in ALIKE:
        args, kwargs = arguments.fill_in(longer)
        with untouched(operation):
            outputs = keras.tree.flatten(operation(*args, **kwargs))
            return operation._inbound_nodes[outputs[0]._keras_history.node_index]
    given = [x for x in (*arguments.args, *arguments.kwargs.values()) if x is not None and x is not False]
    if not isinstance(operation, keras.Layer) or len(given) != 1 or len(node.outputs) != 1:
        return None
    if id(operation) not in made:
        made[id(operation)] = keras.layers.TimeDistributed(operation, name=name)
    output = made[id(operation)](longer[id(arguments.keras_tensors[0])])
    return made[id(operation)]._inbound_nodes[output._keras_history.node_index]
