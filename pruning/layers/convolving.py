"""How `Chain` computes layers that make channels, see `running`."""

from __future__ import annotations

import tensorflow as tf

from secateur.nets.graph import Call
from secateur.pruning.layers.running import Weights


def conv(call: Call, w: Weights, x: tf.Tensor) -> tf.Tensor:
    """Convolution along one, two or three axes, also in groups."""
    layer, kernel, padding = call.layer, w["kernel"], call.layer.padding.upper()
    if padding == "CAUSAL":
        padding, before = "VALID", layer.dilation_rate[0] * (kernel.shape[0] - 1)
        x = tf.pad(x, [(0, 0), (before, 0), (0, 0)])
    return _finished(call, w, _in_groups(call, kernel, x, padding))


def _in_groups(call: Call, kernel: tf.Tensor, x: tf.Tensor, padding: str) -> tf.Tensor:
    groups, dilations = getattr(call.layer, "groups", 1), getattr(call.layer, "dilation_rate", 1)

    def convolved(kernel: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.convolution(x, kernel, call.layer.strides, padding, dilations=dilations)

    if groups == 1:
        return convolved(kernel, x)
    if groups < call.node.arguments.keras_tensors[0].shape[-1]:
        parts = zip(tf.split(kernel, groups, -1), tf.split(x, groups, -1), strict=True)
        return tf.concat([convolved(*part) for part in parts], -1)
    if x.shape.rank == 5:  # TensorFlow knows groups along three axes under XLA alone
        return tf.function(convolved, jit_compile=True, autograph=False)(kernel, x)
    kernel = tf.reshape(kernel, [*kernel.shape[:-2], -1, call.layer.filters // groups])
    return _by_channel(call, kernel, x, padding)


def transposed(call: Call, w: Weights, x: tf.Tensor) -> tf.Tensor:
    """Transposed convolution along one, two or three axes."""
    layer, padding = call.layer, call.layer.padding.upper()
    shape = [tf.shape(x)[0], *call.shapes[0][1:-1], tf.shape(w["kernel"])[-2]]
    y = tf.nn.conv_transpose(x, w["kernel"], shape, layer.strides, padding, dilations=layer.dilation_rate)
    return _finished(call, w, y)


def depthwise(call: Call, w: Weights, x: tf.Tensor) -> tf.Tensor:
    """Convolution of each channel by itself, along one or two axes."""
    return _finished(call, w, _by_channel(call, w["kernel"], x, call.layer.padding.upper()))


def separable(call: Call, w: Weights, x: tf.Tensor) -> tf.Tensor:
    """Convolution of each channel by itself, then one of single positions."""
    y = _by_channel(call, w["depthwise_kernel"], x, call.layer.padding.upper())
    return _finished(call, w, tf.nn.convolution(y, w["pointwise_kernel"]))


def _by_channel(call: Call, kernel: tf.Tensor, x: tf.Tensor, padding: str) -> tf.Tensor:
    if x.shape.rank == 3:  # TensorFlow knows images only
        return tf.squeeze(_by_channel(call, kernel[None], x[:, None], padding), 1)
    strides, dilations = (
        (option if isinstance(option, tuple) else (option,)) * 2
        for option in (call.layer.strides, getattr(call.layer, "dilation_rate", 1))
    )
    return tf.nn.depthwise_conv2d(x, kernel, [1, *strides[-2:], 1], padding, dilations=dilations[-2:])


def dense(call: Call, w: Weights, x: tf.Tensor) -> tf.Tensor:
    """Matrix and bias, at each position."""
    y = tf.matmul(x, w["kernel"]) if x.shape.rank == 2 else tf.tensordot(x, w["kernel"], 1)
    return _finished(call, w, y)


def _finished(call: Call, w: Weights, y: tf.Tensor) -> tf.Tensor:
    """With bias and activation."""
    y = y + w["bias"] if "bias" in w else y
    activation = getattr(call.layer, "activation", None)
    return y if activation is None else activation(y)
