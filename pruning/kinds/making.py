"""Layers that make channels: convolutions of all sorts, dense layers, embeddings."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from pruning.graph import Call
from pruning.kinds import cost
from pruning.kinds.registry import Cut, kind
from pruning.labels import Labels, channel_vector

ELEMENTWISE_FUNCTIONS = {
    "relu", "leaky_relu", "relu6", "celu", "elu", "selu", "softplus", "softsign", "squareplus", "soft_shrink",
    "sparse_plus", "silu", "swish", "gelu", "tanh", "tanh_shrink", "threshold", "sigmoid", "sparse_sigmoid",
    "exponential", "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "hard_shrink", "linear", "mish",
    "log_sigmoid", "exp", "square", "sin", "cos", "abs", "absolute",
}  # fmt: skip
ELEMENTWISE_LAYERS = (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU)
CHANNELS_FIRST = "its channels are not the last axis"


def mixes(activation: Any) -> str | None:
    """Why an activation (function, layer or None) does not act on each channel by itself, if it does not."""
    name = getattr(activation, "__name__", type(activation).__name__)
    if activation is None or type(activation) in ELEMENTWISE_LAYERS:
        return None
    if getattr(activation, "__module__", "").partition(".")[0] not in ("keras", "tensorflow", "jax"):
        return f"its activation {name!r} is not understood"
    if name in ELEMENTWISE_FUNCTIONS:
        return None
    return "its softmax mixes channels" if "softmax" in name else f"its activation {name!r} is not understood"


def spread(call: Call, vector: np.ndarray) -> np.ndarray:
    """Labels of the last axis as those of the output."""
    return vector.reshape([1] * (len(call.shapes[0]) - 2) + [-1])


def _closed(call: Call) -> str | None:
    """Why the weights of a layer cannot be cut, if they cannot."""
    if getattr(call.layer, "data_format", None) == "channels_first":
        return CHANNELS_FIRST
    if getattr(call.layer, "quantization_mode", None) or getattr(call.layer, "lora_enabled", False):
        return "it is quantised or has LoRA weights"
    return None


def _read(state: Labels, call: Call, labels: list[np.ndarray]) -> np.ndarray:
    """Labels (channels,) that a layer reads; where its inputs are not channels alone, one that stays."""
    size = call.input_shapes[0][-1]
    vector = channel_vector(labels[0], size)
    if vector is None:
        vector = np.repeat(state.fresh(1), size)
        for stays in (labels[0], vector):
            state.lock(stays, f"{call.name}: its inputs are not channels alone")
    return vector


def _made(state: Labels, call: Call, made: np.ndarray) -> list[np.ndarray]:
    """Labels (channels,) that a layer makes, as those of its output; behind a softmax all of them stay."""
    if reason := mixes(getattr(call.layer, "activation", None)):
        state.lock(made, f"{call.name}: {reason}")
    return [spread(call, made)]


def _dense(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    if reason := _closed(call):
        return reason
    read = _read(state, call, labels)
    state.use(call.name, "consumer", {"kernel": 0}, read)
    made = state.fresh(call.shapes[0][-1])
    state.use(call.name, "producer", {"kernel": 1, "bias": 0, "mask": 0}, made)
    return _made(state, call, made)


def _conv(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    layer, groups = call.layer, getattr(call.layer, "groups", 1)
    if reason := _closed(call):
        return reason
    read = _read(state, call, labels)
    rank = len(layer.kernel.shape)
    if groups == len(read) > 1:  # a depthwise convolution in other words
        made = np.repeat(read, layer.filters // groups)
        state.use(call.name, "follower", {"kernel": rank - 1, "bias": 0}, made)
        return _made(state, call, made)
    made = state.fresh(layer.filters)
    if groups > 1:  # all groups stay equally wide: channel j of each of them is one channel
        for vector in (read, made):
            rows = vector.reshape(groups, -1)
            state.unite(rows[:1], rows)
    state.use(call.name, "consumer", {"kernel": rank - 2}, read[: len(read) // groups])
    state.use(call.name, "producer", {"kernel": rank - 1, "bias": 0, "mask": 0}, made)
    return _made(state, call, made)


def _transposed(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    if reason := _closed(call):
        return reason
    read = _read(state, call, labels)
    rank = len(call.layer.kernel.shape)
    state.use(call.name, "consumer", {"kernel": rank - 1}, read)
    made = state.fresh(call.layer.filters)
    state.use(call.name, "producer", {"kernel": rank - 2, "bias": 0}, made)
    return _made(state, call, made)


def _depthwise(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    if reason := _closed(call):
        return reason
    read = _read(state, call, labels)
    made = np.repeat(read, call.layer.depth_multiplier)
    state.use(call.name, "follower", {"kernel": len(call.layer.kernel.shape) - 2}, read)
    state.use(call.name, "follower", {"bias": 0, "mask": 0}, made)
    return _made(state, call, made)


def _separable(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    if reason := _closed(call):
        return reason
    read = _read(state, call, labels)
    rank = len(call.layer.pointwise_kernel.shape)
    state.use(call.name, "consumer", {"depthwise_kernel": rank - 2}, read)
    state.use(
        call.name, "consumer", {"pointwise_kernel": rank - 2}, np.repeat(read, call.layer.depth_multiplier)
    )
    made = state.fresh(call.layer.filters)
    state.use(call.name, "producer", {"pointwise_kernel": rank - 1, "bias": 0}, made)
    return _made(state, call, made)


def _embedding(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    if reason := _closed(call):
        return reason
    made = state.fresh(call.shapes[0][-1])
    state.use(call.name, "producer", {"embeddings": 1}, made)
    return _made(state, call, made)


# --- sizes of the smaller layers ----------------------------------------------------------------------------


def _resize_conv(config: dict, call: Call, cut: Cut) -> dict:
    filters = cut.weights["kernel"].shape[-1]
    if config.get("groups", 1) > 1 and config["groups"] == call.input_shapes[0][-1]:
        config["groups"] = filters * config["groups"] // config["filters"]
    return config | {"filters": filters}


def _width(option: str, weight: str, axis: int):
    return lambda config, call, cut: config | {option: cut.weights[weight].shape[axis]}


kind("Conv1D", "Conv2D", "Conv3D", "MaskedConv2D", label=_conv, resize=_resize_conv, cost=cost.conv)
kind(
    "Conv1DTranspose",
    "Conv2DTranspose",
    "Conv3DTranspose",
    label=_transposed,
    resize=_width("filters", "kernel", -2),
    cost=cost.transposed,
)
kind("DepthwiseConv1D", "DepthwiseConv2D", "MaskedDepthwiseConv2D", label=_depthwise, cost=cost.depthwise)
kind(
    "SeparableConv1D",
    "SeparableConv2D",
    label=_separable,
    resize=_width("filters", "pointwise_kernel", -1),
    cost=cost.separable,
)
kind("Dense", "MaskedDense", label=_dense, resize=_width("units", "kernel", -1), cost=cost.dense)
kind("Embedding", label=_embedding, resize=_width("output_dim", "embeddings", -1), cost=cost.embedding)
