"""How `Chain` computes a layer: with weights of any width as arguments, and with the statistics of the batch.

Every function takes a call, the weights of its layer by name, and what it reads; it returns what it makes.
Where a plan can cut an axis, the call's shapes say None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import Any

import keras
import tensorflow as tf

from secateur.nets.graph import Call
from secateur.nets.kernels import named_variables
from secateur.pruning.layers.registry import find
from secateur.runs.errors import UsageError, reason_of_keras

Weights = Mapping[str, tf.Tensor]
READ = {
    "kernel", "depthwise_kernel", "pointwise_kernel", "recurrent_kernel", "bias", "gamma", "beta", "mean",
    "variance", "kernel#1", "recurrent_kernel#1", "bias#1",
}  # fmt: skip
AVERAGES = ("moving_mean", "moving_variance")
BROKEN = (AttributeError, LookupError, NotImplementedError, TypeError, ValueError, tf.errors.OpError)


def run(call: Call, w: Weights, *xs: tf.Tensor) -> list[tf.Tensor]:
    """All that a call makes. Raises `UsageError`, with the layer's name, where TensorFlow cannot."""
    try:
        return keras.tree.flatten((own_rule(call) or layer_itself)(call, w, *xs))
    except BROKEN as error:
        raise UsageError(
            f"The search cannot run layer {call.name!r} of class {call.kind} at any width; its call must "
            f"take sizes from its weights and keras.ops.shape. Received: {reason_of_keras(error)}"
        ) from error


def own_rule(call: Call) -> Callable | None:
    """The function below for a class; None where it has none, or the layer has options that none knows."""
    known, layer = find(call.kind), call.layer
    other = getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False)
    first = getattr(layer, "data_format", None) == "channels_first" and call.kind != "ZeroPadding2D"
    return None if known is None or other or first else known.run


def weights_read(call: Call) -> set[str]:
    """Names of the weights that the rule of a call may take as arguments."""
    known = find(call.kind)
    return READ.union(AVERAGES if frozen(call) else (), ("scale", "mask") if known and known.masked else ())


def frozen(call: Call) -> bool:
    """Whether BN has its averages in training, too, as Keras' own where it is not trainable."""
    return call.kind == "BatchNormalization" and not call.layer.trainable


def layer_itself(
    call: Call, w: Weights, *xs: tf.Tensor, training: bool = False, **more: Any
) -> list[tf.Tensor]:
    """All that the layer itself makes, as in inference, with these weights in place of its own.

    `more` are further arguments of its call.
    """
    with keras.StatelessScope() as scope:
        if not w:
            return call.run(xs, training=training)
        own = {name: v for name, v in named_variables(call.layer).items() if name in w}
        tensors = {id(v): tf.cast(w[name], v.dtype) for name, v in own.items()}
        for variable in own.values():
            scope.add_update((variable, tensors[id(variable)]))
        layer = _standing_in(call.layer, tensors)
        return call.run(xs, partial(layer, **more) if more else layer, training)


def _standing_in(layer: keras.Layer, tensors: Mapping[int, tf.Tensor]) -> keras.Layer:
    """The layer with tensors for its variables, by their ids: these still say the shape that they had."""
    other = object.__new__(type(layer))
    vars(other).update({name: tensors.get(id(value), value) for name, value in vars(layer).items()})
    return other


# --- layers without weights ---------------------------------------------------------------------------------


def relu(call: Call, w: Weights, x: tf.Tensor) -> tf.Tensor | list[tf.Tensor]:
    """ReLU, or a leaky or limited one."""
    options = [getattr(call.layer, name, None) for name in ("max_value", "negative_slope", "threshold")]
    return tf.nn.relu(x) if options == [None, 0, 0] else layer_itself(call, w, x)


def add(call: Call, w: Weights, *xs: tf.Tensor) -> tf.Tensor | list[tf.Tensor]:
    """Sum of all."""
    return tf.add_n(list(xs)) if len(set(call.input_shapes)) == 1 else layer_itself(call, w, *xs)


def global_average(call: Call, w: Weights, x: tf.Tensor) -> tf.Tensor:
    """Mean over the positions of maps (b, h, w, channels)."""
    return tf.reduce_mean(x, [1, 2], keepdims=call.layer.keepdims)


def padding(call: Call, w: Weights, x: tf.Tensor) -> tf.Tensor | list[tf.Tensor]:
    """Zeros around; where it pads channels, as many as the weight "pad" says: (front, back)."""
    if "pad" not in w:
        return layer_itself(call, w, x)
    rank, axis = x.shape.rank, call.shapes[0].index(None, 1)
    options = [(0, 0)] * rank
    if call.kind == "ops.Pad":
        options = list(call.layer.pad_width)
        fill = call.argument(1, "constant_values") or 0
    else:
        options[2:], fill = call.layer.padding, 0
    options[axis] = tuple(w["pad"][i] for i in (0, 1))
    return tf.pad(x, options, constant_values=tf.cast(fill, x.dtype))


def reshape(call: Call, w: Weights, x: tf.Tensor) -> tf.Tensor | list[tf.Tensor]:
    """Another shape; of two open axes the last one holds the channels. The weight "shape" knows all sizes."""
    if "shape" in w:
        return tf.reshape(x, tf.concat([tf.shape(x)[:1], w["shape"]], 0))
    if tuple(call.node.outputs[0].shape) == call.shapes[0]:  # nothing is cut here
        return layer_itself(call, w, x)
    shape = [-1 if n is None else n for n in call.shapes[0][1:]]
    if shape.count(-1) > 1:
        shape[-1] = tf.shape(x)[-1]
    read, made = (t.shape[1:] for t in (call.node.arguments.keras_tensors[0], call.node.outputs[0]))
    rows = tf.shape(x)[0]
    if None not in (*read, *made):  # frames may be folded into the batch
        rows = rows * prod(read) // prod(made)
    return tf.reshape(x, [rows, *shape])


def split(call: Call, w: Weights, x: tf.Tensor) -> list[tf.Tensor]:
    """Parts; where channels are parted, of the widths that the weight "parts" says."""
    if "parts" not in w:
        return layer_itself(call, w, x)
    return tf.split(x, w["parts"], call.layer.axis, num=len(call.outputs))
