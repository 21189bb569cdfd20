"""The loss that a criterion takes the gradient of, unless the user says another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from pruning.groups import Analysis
from runs.errors import UsageError

Loss = Callable[[Any, Any], tf.Tensor]


def cross_entropy(analysis: Analysis, labels: Any, outputs: Any) -> tf.Tensor:
    """Losses (images,) of one output (images, classes): logits, or what softmax or sigmoid made of them.

    Labels are integers or one-hot. Raises `UsageError` for other outputs: then the user must say the loss.
    """
    if isinstance(outputs, list) or len(outputs.shape) != 2:
        many = isinstance(outputs, list)
        got = f"{len(outputs)} outputs" if many else f"an output of shape {outputs.shape}"
        raise UsageError(
            "Give loss=, a function of labels and outputs, for a model that is no classifier. "
            f"Received: {got}"
        )
    last = last_activation(analysis)
    logits = last not in ("softmax", "sigmoid")
    labels = tf.convert_to_tensor(labels)
    if outputs.shape[1] == 1 or last == "sigmoid":
        labels = tf.reshape(tf.cast(labels, outputs.dtype), tf.shape(outputs))
        return keras.ops.binary_crossentropy(labels, outputs, from_logits=logits)
    if labels.shape == outputs.shape:
        return keras.ops.categorical_crossentropy(labels, outputs, from_logits=logits)
    return keras.ops.sparse_categorical_crossentropy(tf.reshape(labels, [-1]), outputs, from_logits=logits)


def last_activation(analysis: Analysis) -> str:
    """Name of the function that makes the first output, in small letters."""
    call = next(c for c in analysis.calls if analysis.graph.outputs[0] in c.outputs)
    activation = getattr(call.layer, "activation", None)
    return getattr(activation, "__name__", call.kind.removeprefix("ops.")).lower()
