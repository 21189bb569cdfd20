"""Layers that pass each channel on by itself, and normalisations."""

from __future__ import annotations

from math import prod

import numpy as np

from pruning.conventions import Convention
from pruning.graph import Call
from pruning.kinds.making import CHANNELS_FIRST, mixes, spread
from pruning.kinds.registry import Cut, kind
from pruning.labels import Labels, channel_vector

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


# --- cost ---------------------------------------------------------------------------------------------------


def _cost_norm(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    statistics = rule.norm_params - 2
    return (_vectors(call) + statistics) * n_out, rule.norm * prod(call.shapes[0][1:-1]) * n_out


def _cost_normalization(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    """Mean and variance of each channel or of all, and how many values they are of."""
    each = n_out if call.layer._keep_axis else 1
    adapted = call.layer.input_mean is None and rule.norm_params > 2
    return (2 * each + 1) * adapted, rule.norm * prod(call.shapes[0][1:-1]) * n_out


def _cost_affine(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    return _vectors(call) * n_out, rule.norm * prod(call.shapes[0][1:-1]) * n_out


def _vectors(call: Call) -> int:
    return sum(getattr(call.layer, name, None) is not None for name in ("gamma", "beta"))


def _cost_relu(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    return 0, rule.relu * prod(call.shapes[0][1:-1]) * n_out


def cost_pool(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    """Elements that a pooling reads."""
    read = prod(call.input_shapes[0][1:-1])
    made = prod(call.shapes[0][1:-1]) if len(call.shapes[0]) == len(call.input_shapes[0]) else 1
    window = prod(getattr(call.layer, "pool_size", (read // made,)))
    return 0, {"": 0, "window": made * window * n_out, "input": read * n_in}[rule.pool]


def _cost_prelu(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    shape = call.layer.alpha.shape
    width = n_out if shape[-1] == call.shapes[0][-1] else shape[-1]
    return prod(shape[:-1]) * width, rule.relu * prod(call.shapes[0][1:-1]) * n_out


kind(*ELEMENTWISE, *(f"ops.{name}" for name in OPERATIONS), label=_elementwise)
kind("ReLU", label=_elementwise, cost=_cost_relu)
kind(*SPATIAL, label=_spatial)
kind(
    *(name for name in SPATIAL if "Pooling" in name and "Adaptive" not in name),
    label=_spatial,
    cost=cost_pool,
)
kind("ZeroPadding2D", label=_padding)
kind("Rescaling", label=_rescaling)
kind("Normalization", label=_normalization, cost=_cost_normalization)
kind("BatchNormalization", "FusedBatchNorm", label=_batch_norm, cost=_cost_norm)
kind("GroupNormalization", label=_group_norm, resize=_resize_group_norm, cost=_cost_affine)
kind("PReLU", label=_prelu, cost=_cost_prelu)
kind(
    "LayerScale",
    label=_layer_scale,
    resize=lambda config, call, cut: config | {"projection_dim": cut.outputs[0][-1]},
    cost=_cost_affine,
)
