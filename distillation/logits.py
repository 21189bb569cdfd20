"""Where a classifier's logits are, also when it ends in softmax."""

from __future__ import annotations

from typing import Any

import keras

from secateur.distillation.graph import Call
from secateur.runs.errors import UsageError


def logits_of(model: keras.Model, calls: list[Call]) -> Any:
    """The output, or what its softmax is taken of. Raises `UsageError` for any other end."""
    last = calls[-1]
    if last.activation == "softmax":
        if type(last.layer).__name__ in ("Softmax", "Activation"):
            return last.inputs[0]
        if isinstance(last.layer, keras.layers.Dense):
            return BeforeActivation(last.layer)(last.inputs[0])
    if last.activation in ("softmax", "sigmoid"):
        raise UsageError(
            f"{model.name} has no logits. Received: last layer {last.layer.name!r}, activation="
            f"{last.activation!r}\nBuild it without one (in keras.applications: classifier_activation=None)"
        )
    return last.output


class BeforeActivation(keras.layers.Layer):
    """What a dense layer computes before its activation, with that layer's own weights."""

    def __init__(self, dense: keras.layers.Dense) -> None:
        super().__init__(name=f"{dense.name}_logits", dtype=dense.dtype_policy)
        self.dense = dense

    def call(self, x: Any) -> Any:
        """(b, features) → (b, classes)."""
        x = keras.ops.matmul(x, self.dense.kernel)
        return x if self.dense.bias is None else x + self.dense.bias
