"""Layers that pass each channel on by itself, and normalisations."""

from __future__ import annotations

import numpy as np

from secateur.nets.graph import Call
from secateur.pruning.layers import cost
from secateur.pruning.layers.activations import mixes
from secateur.pruning.layers.labels import Labels, channel_vector
from secateur.pruning.layers.producers import CHANNELS_FIRST, spread
from secateur.pruning.layers.registry import Cut, kind

ELEMENTWISE = (
    "ReLU", "LeakyReLU", "ELU", "Activation", "Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise",
    "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "ActivityRegularization", "Identity",
    "StochasticDepth",
)  # fmt: skip
OPERATIONS = (
    "Relu", "Relu6", "Sigmoid", "Softplus", "Softsign", "Silu", "LogSigmoid", "LeakyRelu", "HardSigmoid",
    "HardSilu", "Elu", "Selu", "Gelu", "Celu", "HardTanh", "Tanh", "Absolute", "Exp", "Square", "Sqrt",
    "Negative", "Clip", "Sin", "Cos", "Expm1", "Log1p", "Identity", "Copy", "Cast", "StopGradient",
    "SparseSigmoid", "SoftShrink", "SparsePlus", "Squareplus", "TanhShrink", "HardShrink", "Threshold", "Erf",
    "Abs", "Arctan", "Sinh", "Cosh", "Exp2", "Sign", "Floor", "Ceil", "Round", "Trunc", "SaturateCast",
)  # fmt: skip
SPATIAL = (
    *(f"{name}{rank}" for rank in ("1D", "2D", "3D")
      for name in ("MaxPooling", "AveragePooling", "UpSampling", "Cropping", "ZeroPadding",
                   "AdaptiveMaxPooling", "AdaptiveAveragePooling")),
    "Resizing", "CenterCrop", "ops.MaxPool", "ops.AveragePool", "ops.Resize",
)  # fmt: skip


def _elementwise(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    if call.kind == "Activation" and (reason := mixes(call.layer.activation)):
        return reason
    if any(np.ndim(constant) for constant in call.constants):
        return "its constants belong to channels"
    return [labels[0]]


def _spatial(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    if getattr(call.layer, "data_format", None) == "channels_first":
        return CHANNELS_FIRST
    if channel_vector(labels[0], call.input_shapes[0][-1]) is None:
        return "its inputs are not channels alone"
    return [labels[0]]


def _padding(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    """With channels first, on our layout, the last axis is padded: how option A of ResNet widens a stream."""
    if call.layer.data_format != "channels_first":
        return _spatial(state, call, labels)
    if (read := channel_vector(labels[0], call.input_shapes[0][-1])) is None:
        return "its inputs are not channels alone"
    front, back = call.layer.padding[1]
    made = np.concatenate([state.fresh(front), read, state.fresh(back)])
    state.use(call.name, "padding", {}, made)
    return [spread(call, made)]


def _rescaling(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    one = np.ndim(call.layer.scale) == 0 and np.ndim(call.layer.offset) == 0
    return [labels[0]] if one else "its constants belong to channels"


def _normalization(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    """By statistics of the data: one of each for all, or one for each channel."""
    layer, vector = call.layer, channel_vector(labels[0], call.shapes[0][-1])
    if layer._keep_axis == () and layer.input_mean is None:
        return [labels[0]]
    if layer._keep_axis != (len(call.shapes[0]) - 1,) or layer.input_mean is not None or vector is None:
        return "its constants belong to channels"
    state.use(call.name, "follower", {"mean": 0, "variance": 0}, vector)
    return [labels[0]]


def _batch_norm(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    rank, axis = len(call.shapes[0]), getattr(call.layer, "axis", -1)
    vector = channel_vector(labels[0], call.shapes[0][-1])
    if axis not in (-1, rank - 1) or vector is None:
        return "it normalises another axis than the channels'"
    axes = dict.fromkeys(("gamma", "beta", "moving_mean", "moving_variance", "mask"), 0)
    state.use(call.name, "follower", axes, vector)
    return [labels[0]]


def _group_norm(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    """A group that shares its statistics goes as a whole."""
    layer, size = call.layer, call.shapes[0][-1]
    vector = channel_vector(labels[0], size)
    if layer.axis not in (-1, len(call.shapes[0]) - 1) or vector is None:
        return "it normalises another axis than the channels'"
    groups = size if layer.groups == -1 else layer.groups
    if groups == 1:
        return "its statistics are taken over all channels"
    rows = vector.reshape(groups, -1)
    state.unite(rows[:, :1], rows)
    state.use(call.name, "follower", {"gamma": 0, "beta": 0}, vector)
    return [labels[0]]


def _resize_group_norm(config: dict, call: Call, cut: Cut) -> dict:
    if config["groups"] == -1:
        return config
    return config | {"groups": cut.outputs[0][-1] * config["groups"] // call.shapes[0][-1]}


def _prelu(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    alpha = call.layer.alpha.shape
    vector = channel_vector(labels[0], call.shapes[0][-1])
    if vector is None:
        return "its inputs are not channels alone"
    if alpha[-1] == len(vector) and len(vector) > 1:
        state.use(call.name, "follower", {"alpha": len(alpha) - 1}, vector)
    return [labels[0]]


def _layer_scale(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    vector = channel_vector(labels[0], call.shapes[0][-1])
    if vector is None:
        return "its inputs are not channels alone"
    state.use(call.name, "follower", {"variable": 0}, vector)  # Keras gave its gamma no name
    return [labels[0]]


kind(*ELEMENTWISE, *(f"ops.{name}" for name in OPERATIONS), label=_elementwise)
kind("ReLU", label=_elementwise, cost=cost.relu)
kind(*SPATIAL, label=_spatial)
kind(
    *(name for name in SPATIAL if "Pooling" in name and "Adaptive" not in name),
    label=_spatial,
    cost=cost.pool,
)
kind("ZeroPadding2D", label=_padding)
kind("Rescaling", label=_rescaling)
kind("Normalization", label=_normalization, cost=cost.normalization)
kind("BatchNormalization", "FusedBatchNorm", label=_batch_norm, cost=cost.norm)
kind("GroupNormalization", label=_group_norm, resize=_resize_group_norm, cost=cost.affine)
kind("PReLU", label=_prelu, cost=cost.prelu)
kind(
    "LayerScale",
    label=_layer_scale,
    resize=lambda config, call, cut: config | {"projection_dim": cut.outputs[0][-1]},
    cost=cost.affine,
)
