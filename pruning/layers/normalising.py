"""How `Chain` computes normalisations, see `running`: with the statistics of the batch."""

from __future__ import annotations

import keras
import tensorflow as tf

from secateur.nets.graph import Call
from secateur.pruning.layers import over_channels
from secateur.pruning.layers.running import AVERAGES, Weights, frozen, layer_itself


def batch_norm(call: Call, w: Weights, x: tf.Tensor, *mask: tf.Tensor) -> tf.Tensor | list[tf.Tensor]:
    """BatchNorm by the statistics of the batch; where it is frozen, by its averages."""
    axis = getattr(call.layer, "axis", -1)
    if not isinstance(axis, int) or mask and axis % x.shape.rank != x.shape.rank - 1:
        return layer_itself(call, {}, x, *mask, training=True)
    y = _batch_norm(call, w, keras.ops.moveaxis(x, axis, -1), *mask)
    return keras.ops.moveaxis(y, -1, axis)


def _batch_norm(call: Call, w: Weights, x: tf.Tensor, *mask: tf.Tensor) -> tf.Tensor:
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


def group_norm(call: Call, w: Weights, x: tf.Tensor) -> tf.Tensor | list[tf.Tensor]:
    """GroupNorm of any number of groups of the size that they had; or of one, of any size."""
    if call.layer.groups == 1:
        return over_channels.run(call, w, x)
    axis = call.layer.axis
    each = call.node.outputs[0].shape[axis] // call.layer.groups
    return keras.ops.moveaxis(_by_groups(call, w, keras.ops.moveaxis(x, axis, -1), each), -1, axis)


def _by_groups(call: Call, w: Weights, x: tf.Tensor, each: int) -> tf.Tensor:
    shape = tf.shape(x)
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
