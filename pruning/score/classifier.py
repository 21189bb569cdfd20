"""Loss and accuracy of a classifier, unless the user says others: logits or shares, as its end makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from secateur.nets.graph import Graph
from secateur.pruning.groups.analysis import Analysis
from secateur.runs.errors import UsageError

Loss = Callable[[Any, Any], tf.Tensor]
SHARES = ("softmax", "sigmoid")  # activations whose outputs are no logits


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
    last = last_activation(analysis.graph)
    logits = last not in SHARES
    labels = tf.convert_to_tensor(labels)
    if outputs.shape[1] == 1 or last == "sigmoid":
        if outputs.shape[1] > 1 and labels.shape[1:].num_elements() == 1:  # integers
            labels = tf.one_hot(tf.reshape(tf.cast(labels, tf.int32), [-1]), outputs.shape[1])
        labels = tf.reshape(tf.cast(labels, outputs.dtype), tf.shape(outputs))
        return tf.reduce_mean(keras.ops.binary_crossentropy(labels, outputs, from_logits=logits), -1)
    if labels.shape == outputs.shape:
        return keras.ops.categorical_crossentropy(labels, outputs, from_logits=logits)
    return keras.ops.sparse_categorical_crossentropy(tf.reshape(labels, [-1]), outputs, from_logits=logits)


def accuracy(graph: Graph, labels: Any, outputs: Any) -> float:
    """Share of images, in [0, 1], whose largest output is the label's.

    One output says class 1 above 0 where it is a logit, above ½ behind a sigmoid. Labels are integers or
    one-hot. Raises `UsageError` for outputs that are no classes.
    """
    if isinstance(outputs, list) or outputs.ndim != 2:
        raise UsageError("Give metric=, a function of labels and outputs, for a model that is no classifier.")
    labels = np.asarray(labels)
    if outputs.shape[1] == 1:
        threshold = 0.5 if last_activation(graph) in SHARES else 0.0
        return float(np.mean((outputs[:, 0] > threshold) == (labels.reshape(-1) > 0.5)))
    labels = labels.argmax(1) if labels.shape == outputs.shape else labels.reshape(-1)
    return float(np.mean(outputs.argmax(1) == labels))


def last_activation(graph: Graph, output: int = 0) -> str:
    """Name of the function that makes an output, in small letters."""
    call = next(c for c in graph.calls if graph.outputs[output] in c.outputs)
    activation = getattr(call.layer, "activation", None)
    return getattr(activation, "__name__", call.kind.removeprefix("ops.")).lower()
