"""How `Chain` computes a layer: with weights of any width as arguments, and with the statistics of the batch.

Every function takes a call, the weights of its layer by name, and what it reads; it returns what it makes.
Where a plan can cut an axis, the call's shapes say None.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import keras
import tensorflow as tf

from secateur.nets.graph import Call
from secateur.nets.kernels import named_variables
from secateur.pruning.layers.registry import find
from secateur.runs.errors import UsageError, first_line

Weights = Mapping[str, tf.Tensor]
READ = {"kernel", "depthwise_kernel", "pointwise_kernel", "bias", "gamma", "beta", "mean", "variance"}
AVERAGES = ("moving_mean", "moving_variance")
BROKEN = (AttributeError, LookupError, NotImplementedError, TypeError, ValueError, tf.errors.OpError)


def run(call: Call, w: Weights, *xs: tf.Tensor) -> list[tf.Tensor]:
    """All that a call makes. Raises `UsageError`, with the layer's name, where TensorFlow cannot."""
    try:
        return keras.tree.flatten((own_rule(call) or layer_itself)(call, w, *xs))
    except BROKEN as error:
        said = re.sub(r"^Exception encountered.*\n|\x1b\[\d*m", "", str(error))  # by Keras, in bold type
        raise UsageError(
            f"The search cannot run layer {call.name!r} of class {call.kind} at any width; its call must "
            f"take sizes from its weights and keras.ops.shape. Received: {first_line(said)}"
        ) from error


def own_rule(call: Call) -> Callable | None:
    """The function below for a class; None where it has none, or the layer has options that none knows."""
    known, layer = find(call.kind), call.layer
    other = getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False)
    first = getattr(layer, "data_format", None) == "channels_first" and call.kind != "ZeroPadding2D"
    return None if known is None or other or first else known.run


def weights_read(call: Call) -> set[str]:
    """Names of the weights that the rule of a call may take as arguments."""
    return READ.union(AVERAGES if frozen(call) else ())


def layer_itself(call: Call, w: Weights, *xs: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
    """All that the layer itself makes, as in inference, with these weights in place of its own."""
    with keras.StatelessScope() as scope:
        if not w:
            return call.run(xs, training=training)
        own = {name: v for name, v in named_variables(call.layer).items() if name in w}
        tensors = {id(v): tf.cast(w[name], v.dtype) for name, v in own.items()}
        for variable in own.values():
            scope.add_update((variable, tensors[id(variable)]))
        return call.run(xs, _standing_in(call.layer, tensors), training)


def _standing_in(layer: keras.Layer, tensors: Mapping[int, tf.Tensor]) -> keras.Layer:
    """The layer with tensors for its variables, by their ids: these still say the shape that they had."""
    other = object.__new__(type(layer))
    vars(other).update({name: tensors.get(id(value), value) for name, value in vars(layer).items()})
    return other


# --- layers that make channels ------------------------------------------------------------------------------


def conv(call: Call, w: Weights, x: tf.Tensor) -> tf.Tensor:
    """Convolution along one, two or three axes, also in groups."""
    kernel, groups = w["kernel"], getattr(call.layer, "groups", 1)
    if groups == 1:
        return _finished(call, w, _convolved(call, kernel, x))
    if groups < call.node.arguments.keras_tensors[0].shape[-1]:
        parts = zip(tf.split(kernel, groups, -1), tf.split(x, groups, -1), strict=True)
        return _finished(call, w, tf.concat([_convolved(call, *part) for part in parts], -1))
    if x.shape.rank == 5:  # TensorFlow knows groups along three axes under XLA alone
        run = tf.function(lambda kernel, x: _convolved(call, kernel, x), jit_compile=True, autograph=False)
        return _finished(call, w, run(kernel, x))
    kernel = tf.reshape(kernel, [*kernel.shape[:-2], -1, call.layer.filters // groups])
    return depthwise(call, {**w, "kernel": kernel}, x)


def _convolved(call: Call, kernel: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    padding, dilations = call.layer.padding.upper(), getattr(call.layer, "dilation_rate", 1)
    if padding == "CAUSAL":
        padding, before = "VALID", dilations[0] * (kernel.shape[0] - 1)
        x = tf.pad(x, [(0, 0), (before, 0), (0, 0)])
    return tf.nn.convolution(x, kernel, call.layer.strides, padding, dilations=dilations)


def transposed(call: Call, w: Weights, x: tf.Tensor) -> tf.Tensor:
    """Transposed convolution along one, two or three axes."""
    layer, padding = call.layer, call.layer.padding.upper()
    shape = [tf.shape(x)[0], *call.shapes[0][1:-1], tf.shape(w["kernel"])[-2]]
    y = tf.nn.conv_transpose(x, w["kernel"], shape, layer.strides, padding, dilations=layer.dilation_rate)
    return _finished(call, w, y)


def depthwise(call: Call, w: Weights, x: tf.Tensor) -> tf.Tensor:
    """Convolution of each channel by itself, along one or two axes."""
    return _finished(call, w, _by_channel(call, w["kernel"], x))


def separable(call: Call, w: Weights, x: tf.Tensor) -> tf.Tensor:
    """Convolution of each channel by itself, then one of single positions."""
    y = _by_channel(call, w["depthwise_kernel"], x)
    return _finished(call, w, tf.nn.convolution(y, w["pointwise_kernel"]))


def _by_channel(call: Call, kernel: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    if x.shape.rank == 3:  # TensorFlow knows images only
        return tf.squeeze(_by_channel(call, kernel[None], x[:, None]), 1)
    strides, dilations = (
        (option if isinstance(option, tuple) else (option,)) * 2
        for option in (call.layer.strides, getattr(call.layer, "dilation_rate", 1))
    )
    strides = [1, *strides[-2:], 1]
    return tf.nn.depthwise_conv2d(x, kernel, strides, call.layer.padding.upper(), dilations=dilations[-2:])


def dense(call: Call, w: Weights, x: tf.Tensor) -> tf.Tensor:
    """Matrix and bias, at each position."""
    y = tf.matmul(x, w["kernel"]) if x.shape.rank == 2 else tf.tensordot(x, w["kernel"], 1)
    return _finished(call, w, y)


def _finished(call: Call, w: Weights, y: tf.Tensor) -> tf.Tensor:
    """With bias and activation."""
    y = y + w["bias"] if "bias" in w else y
    activation = getattr(call.layer, "activation", None)
    return y if activation is None else activation(y)


# --- normalisations -----------------------------------------------------------------------------------------


def batch_norm(call: Call, w: Weights, x: tf.Tensor, *mask: tf.Tensor) -> tf.Tensor | list[tf.Tensor]:
    """BatchNorm by the statistics of the batch; where it is frozen, by its averages."""
    if getattr(call.layer, "axis", -1) not in (-1, x.shape.rank - 1):
        return layer_itself(call, {}, x, *mask, training=True)
    channels = tf.shape(x)[-1:]
    scale = tf.cast(w["gamma"], tf.float32) if "gamma" in w else tf.ones(channels)
    offset = tf.cast(w["beta"], tf.float32) if "beta" in w else tf.zeros(channels)
    if mask and not frozen(call):
        x, places = tf.cast(x, tf.float32), tf.cast(mask[0], tf.float32)[..., None]
        moments = tf.nn.weighted_moments(x, list(range(x.shape.rank - 1)), places)
        return tf.nn.batch_normalization(x, *moments, offset, scale, call.layer.epsilon)
    options: dict = {"epsilon": call.layer.epsilon, "is_training": not frozen(call)}
    if frozen(call):
        mean, variance = (tf.cast(w[name], tf.float32) for name in AVERAGES)
        options |= {"mean": mean, "variance": variance}
    y = tf.compat.v1.nn.fused_batch_norm(_as_maps(x), scale, offset, **options)[0]
    return y if x.shape.rank == 4 else tf.reshape(y, tf.shape(x))


def _as_maps(x: tf.Tensor) -> tf.Tensor:
    """(…, h, w, channels), the only shape that the fused kernel knows."""
    if x.shape.rank == 4:
        return x
    if x.shape.rank < 4:
        return x[(slice(None), *[None] * (4 - x.shape.rank))]
    return tf.reshape(x, tf.concat([[-1], tf.shape(x)[-3:]], 0))


def frozen(call: Call) -> bool:
    """Whether BN has its averages in training, too, as Keras' own where it is not trainable."""
    return call.kind == "BatchNormalization" and not call.layer.trainable


def group_norm(call: Call, w: Weights, x: tf.Tensor) -> tf.Tensor | list[tf.Tensor]:
    """GroupNorm of any number of groups of the size that they had."""
    if call.layer.axis not in (-1, x.shape.rank - 1):
        return layer_itself(call, w, x)
    each, shape = call.node.outputs[0].shape[-1] // call.layer.groups, tf.shape(x)
    groups = tf.cast(tf.reshape(x, tf.concat([shape[:-1], [-1, each]], 0)), tf.float32)
    mean, variance = tf.nn.moments(groups, [*range(1, x.shape.rank - 1), x.shape.rank], keepdims=True)
    y = tf.reshape((groups - mean) * tf.math.rsqrt(variance + call.layer.epsilon), shape)
    y = tf.cast(y, x.dtype)
    y = y * w["gamma"] if "gamma" in w else y
    return y + w["beta"] if "beta" in w else y


def normalization(call: Call, w: Weights, x: tf.Tensor) -> tf.Tensor | list[tf.Tensor]:
    """By the mean and the variance of each channel in the data; by a common one, the layer itself."""
    if call.layer._keep_axis != (x.shape.rank - 1,) or call.layer.input_mean is not None:
        return layer_itself(call, {}, x)
    deviation = tf.maximum(tf.sqrt(w["variance"]), keras.config.epsilon())
    return x * deviation + w["mean"] if call.layer.invert else (x - w["mean"]) / deviation


# --- what has no weights ------------------------------------------------------------------------------------


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


def zero_padding(call: Call, w: Weights, x: tf.Tensor) -> tf.Tensor | list[tf.Tensor]:
    """Zeros around; where it pads channels, as many as the weight "pad" says: (front, back)."""
    if "pad" not in w:
        return layer_itself(call, w, x)
    return tf.pad(x, tf.concat([tf.zeros([3, 2], tf.int32), w["pad"][None]], 0))


def reshape(call: Call, w: Weights, x: tf.Tensor) -> tf.Tensor | list[tf.Tensor]:
    """Another shape; of two open axes the last one holds the channels."""
    if tuple(call.node.outputs[0].shape) == call.shapes[0]:  # nothing is cut here
        return layer_itself(call, w, x)
    shape = [-1 if n is None else n for n in call.shapes[0][1:]]
    if shape.count(-1) > 1:
        shape[-1] = tf.shape(x)[-1]
    return tf.reshape(x, [tf.shape(x)[0], *shape])


def split(call: Call, w: Weights, x: tf.Tensor) -> list[tf.Tensor]:
    """Parts; where channels are parted, of the widths that the weight "parts" says."""
    if "parts" not in w:
        return layer_itself(call, w, x)
    return tf.split(x, w["parts"], call.layer.axis, num=len(call.outputs))
