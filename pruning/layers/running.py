"""How `Chain` computes a layer: with weights of any width as arguments, and with the statistics of the batch.

Every function takes a call, the weights of its layer by name, and what it reads; it returns what it makes.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import tensorflow as tf

from secateur.nets.graph import Call
from secateur.nets.kernels import named_variables
from secateur.pruning.layers.registry import find
from secateur.runs.errors import UsageError

Weights = Mapping[str, tf.Tensor]
USED = {"kernel", "bias", "gamma", "beta"}  # by the functions below


def conv(call: Call, w: Weights, x: tf.Tensor) -> tf.Tensor:
    """2-D convolution."""
    strides = call.layer.strides
    strides = strides if isinstance(strides, int) else list(strides)
    dilations = getattr(call.layer, "dilation_rate", 1)
    y = tf.nn.conv2d(x, w["kernel"], strides, call.layer.padding.upper(), dilations=dilations)
    return _activated(call, y + w["bias"] if "bias" in w else y)


def depthwise(call: Call, w: Weights, x: tf.Tensor) -> tf.Tensor:
    """2-D convolution of each channel by itself."""
    strides, dilations = call.layer.strides, getattr(call.layer, "dilation_rate", (1, 1))
    strides = [1, *(strides if isinstance(strides, tuple) else (strides, strides)), 1]
    y = tf.nn.depthwise_conv2d(x, w["kernel"], strides, call.layer.padding.upper(), dilations=dilations)
    return _activated(call, y + w["bias"] if "bias" in w else y)


def dense(call: Call, w: Weights, x: tf.Tensor) -> tf.Tensor:
    """Matrix and bias."""
    y = tf.matmul(x, w["kernel"])
    return _activated(call, y + w["bias"] if "bias" in w else y)


def _activated(call: Call, y: tf.Tensor) -> tf.Tensor:
    activation = getattr(call.layer, "activation", None)
    return y if activation is None else activation(y)


def batch_norm(call: Call, w: Weights, x: tf.Tensor) -> tf.Tensor:
    """BatchNorm of maps (b, h, w, channels) or vectors (b, channels) by the statistics of the batch."""
    if getattr(call.layer, "axis", -1) not in (-1, x.shape.rank - 1):
        raise UsageError(f"The search needs BN over the last axis. Received: {call.name!r}")
    maps = x if x.shape.rank == 4 else x[:, None, None]  # the fused kernel knows images only
    channels = tf.shape(x)[-1:]
    scale = tf.cast(w["gamma"], tf.float32) if "gamma" in w else tf.ones(channels)
    offset = tf.cast(w["beta"], tf.float32) if "beta" in w else tf.zeros(channels)
    y = tf.compat.v1.nn.fused_batch_norm(maps, scale, offset, epsilon=call.layer.epsilon, is_training=True)[0]
    return y if x.shape.rank == 4 else y[:, 0, 0]


def relu(call: Call, w: Weights, x: tf.Tensor) -> tf.Tensor:
    """ReLU, or a leaky or limited one."""
    options = [getattr(call.layer, name, None) for name in ("max_value", "negative_slope", "threshold")]
    return tf.nn.relu(x) if options == [None, 0, 0] else layer_itself(call, w, x)[0]


def add(call: Call, w: Weights, *xs: tf.Tensor) -> tf.Tensor:
    """Sum of all."""
    return tf.add_n(list(xs))


def global_average(call: Call, w: Weights, x: tf.Tensor) -> tf.Tensor:
    """Mean over the positions of maps (b, h, w, channels)."""
    return tf.reduce_mean(x, [1, 2], keepdims=call.layer.keepdims)


def zero_padding(call: Call, w: Weights, x: tf.Tensor) -> tf.Tensor:
    """Zeros around; where it pads channels, as many as the weight "pad" says: (front, back)."""
    if "pad" not in w:
        return layer_itself(call, w, x)[0]
    return tf.pad(x, tf.concat([tf.zeros([3, 2], tf.int32), w["pad"][None]], 0))


def run(call: Call, w: Weights, *xs: tf.Tensor) -> list[tf.Tensor]:
    """All that a call makes."""
    known = find(call.kind)
    return [known.run(call, w, *xs)] if known and known.run else layer_itself(call, w, *xs)


def layer_itself(call: Call, w: Weights, *xs: tf.Tensor) -> list[tf.Tensor]:
    """All that the layer itself makes with these weights in place of its own."""
    with keras.StatelessScope() as scope:
        for name, variable in (named_variables(call.layer) if w else {}).items():
            if name in w:
                scope.add_update((variable, w[name]))
        made = call.run(xs)
    return [tf.cast(y, xs[0].dtype) for y in made]
