"""Layers that pass each channel on by itself, and normalisations."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from secateur.nets.graph import Call
from secateur.pruning.layers import costs, normalising, over_channels, running
from secateur.pruning.layers.activations import FUNCTIONS, SOFTMAX, mixes, operation
from secateur.pruning.layers.labels import Labels, channel_axis, channel_vector
from secateur.pruning.layers.merging import merge
from secateur.pruning.layers.producers import spread
from secateur.pruning.layers.registry import Cut, Label, layer_class, plain_twin

LINEAR = (
    "GaussianDropout", "GaussianNoise", "SpatialDropout1D", "SpatialDropout2D",
    "SpatialDropout3D", "ActivityRegularization", "Identity", "StochasticDepth", "ops.Negative",
    "ops.Copy", "ops.Cast", "ops.SaturateCast", "ops.StopGradient", "ops.ZerosLike",
)  # fmt: skip
SPATIAL = (
    *(f"{name}{rank}" for rank in ("1D", "2D", "3D")
      for name in ("UpSampling", "Cropping", "AdaptiveMaxPooling", "AdaptiveAveragePooling")),
    "ZeroPadding1D", "ZeroPadding3D", "Resizing", "CenterCrop",
    "ops.MaxPool", "ops.AveragePool", "ops.Resize",
)  # fmt: skip
POOLING = [f"{how}Pooling{rank}" for how in ("Max", "Average") for rank in ("1D", "2D", "3D")]
NO_CHANNELS = "its inputs are not channels alone"
OTHER_AXIS = "it normalises another axis than the channels'"
BELONG = "its constants belong to channels"


def _elementwise(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    if reason := mixes(getattr(call.layer, "activation", None)):
        over_pixels = reason == SOFTMAX and labels[0].ndim and labels[0].shape[-1] == 1 < labels[0].size
        return labels[:1] if over_pixels else reason
    if any(np.ndim(constant) for constant in call.constants):
        return BELONG
    return [labels[0]]


def _lambda(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    """Of a function that does not run on symbolic tensors, as those of TensorFlow: tried on numbers."""
    alone = len(call.inputs) == len(call.outputs) == 1
    return labels if alone and mixes(call.layer) is None else f"its function is not understood: {call.whole}"


def _resize_noise(config: dict, call: Call, cut: Cut) -> dict:
    """One draw for several positions, or for each of those that are left."""
    shape = config.get("noise_shape")
    if not shape:
        return config
    left = [
        n if n in (None, 1) or size is None else size
        for n, size in zip(shape[1:], cut.outputs[0], strict=True)
    ]
    return config | {"noise_shape": (shape[0], *left)}


def _spatial(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    if channel_vector(labels[0], call.input_shapes[0][-1]) is None:
        return NO_CHANNELS
    return [labels[0]]


def _rescaling(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    one = np.ndim(call.layer.scale) == 0 and np.ndim(call.layer.offset) == 0
    return [labels[0]] if one else BELONG


def _normalization(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    """By statistics of the data: one of each for all, or one for each channel."""
    layer, vector = call.layer, channel_vector(labels[0], call.shapes[0][-1])
    if layer._keep_axis == () and layer.input_mean is None:
        return [labels[0]]
    if layer._keep_axis != (len(call.shapes[0]) - 1,) or layer.input_mean is not None or vector is None:
        return BELONG
    state.use(call, "follower", {"mean": 0, "variance": 0}, vector)
    return [labels[0]]


def _batch_norm(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    vector = channel_vector(labels[0], call.shapes[0][-1])
    if vector is None or isinstance(getattr(call.layer, "axis", -1), (list, tuple)):
        return OTHER_AXIS
    axes = dict.fromkeys(("gamma", "beta", "moving_mean", "moving_variance", "mask"), 0)
    state.use(call, "follower", axes, vector)
    return [labels[0]]


def _group_norm(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    """A group that shares its statistics goes as a whole, so that no statistic changes with the plan.

    Equal parts of each group would leave an instance normalisation, one channel a group, nothing to lose. Of
    one group for all, each channel goes by itself.
    """
    layer, size = call.layer, call.shapes[0][-1]
    vector = channel_vector(labels[0], size)
    if vector is None:
        return OTHER_AXIS
    groups = size if layer.groups == -1 else layer.groups
    if groups == 1:
        return over_channels.over_channels(state, call, labels)
    rows = vector.reshape(groups, -1)
    state.unite(rows[:, :1], rows)
    state.use(call, "follower", {"gamma": 0, "beta": 0}, vector)
    return [labels[0]]


def _resize_group_norm(config: dict, call: Call, cut: Cut) -> dict:
    if config["groups"] in (-1, 1):
        return config
    return config | {"groups": cut.outputs[0][-1] * config["groups"] // call.shapes[0][-1]}


def _prelu(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    axis = channel_axis(labels[0])
    if (vector := channel_vector(labels[0], call.shapes[0][axis + 1], axis)) is None:
        return NO_CHANNELS
    if call.layer.alpha.shape[axis] == len(vector) > 1:
        state.use(call, "follower", {"alpha": axis}, vector)
    return [labels[0]]


def passing(follows: Mapping[str, int]) -> Label:
    """The label rule of a layer that passes each channel on by itself, and has weights with one of each.

    Several inputs meet as in a sum.
    """

    def label(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
        size = call.shapes[0][-1]
        if len(call.outputs) > 1 or any(shape[-1] != size for shape in call.input_shapes):
            return "it does not make the channels that it reads"
        if isinstance(joined := merge(state, call, labels), str):
            return joined
        if (vector := channel_vector(joined[0], size)) is None:
            return NO_CHANNELS
        state.use(call, "follower", follows, vector)
        return [spread(call, vector)]

    return label


layer_class("Activation", *map(operation, FUNCTIONS), label=_elementwise, activation=True)
layer_class("LeakyReLU", "ELU", label=_elementwise, activation=True)
layer_class("ReLU", label=_elementwise, activation=True, cost=costs.relu, run=running.relu)
layer_class("ops.ReLU", label=_elementwise, activation=True, run=running.relu)  # `activations.relu(tensor)`
layer_class("PReLU", label=_prelu, activation=True, cost=costs.prelu)
layer_class("Lambda", label=_lambda, activation=True)
layer_class(*LINEAR, label=_elementwise)
layer_class("Dropout", "AlphaDropout", label=_elementwise, resize=_resize_noise)
layer_class(*SPATIAL, label=_spatial)
layer_class(*POOLING, label=_spatial, cost=costs.pool)
layer_class("Rescaling", label=_rescaling)
layer_class("Normalization", label=_normalization, cost=costs.normalization, run=normalising.normalization)
batch_norm = {"label": _batch_norm, "cost": costs.norm, "run": normalising.batch_norm}
layer_class("BatchNormalization", **batch_norm)
layer_class("FusedBatchNorm", **batch_norm, plain=plain_twin(keras.layers.BatchNormalization))
layer_class(
    "GroupNormalization",
    label=_group_norm,
    resize=_resize_group_norm,
    cost=costs.affine,
    run=normalising.group_norm,
    masked=over_channels.masked,
)
layer_class(  # Keras gave its gamma no name
    "LayerScale", label=passing({"variable": 0}), size="projection_dim", cost=costs.affine
)
