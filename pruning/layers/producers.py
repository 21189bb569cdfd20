"""Layers that make channels: convolutions of all sorts, dense layers, embeddings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from secateur.nets.graph import Call
from secateur.pruning.layers import cost
from secateur.pruning.layers.activations import mixes
from secateur.pruning.layers.labels import Labels, channel_vector
from secateur.pruning.layers.registry import Cut, Label, kind

CHANNELS_FIRST = "its channels are not the last axis"


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


def _weighted(rule: Callable[[Labels, Call, np.ndarray], np.ndarray]) -> Label:
    """The label rule of a layer with weights, from (state, call, labels that it reads) → those made.

    Both have the shape (channels,). A layer whose weights cannot be cut is refused.
    """

    def label(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
        return _closed(call) or _made(state, call, rule(state, call, _read(state, call, labels)))

    return label


@_weighted
def _dense(state: Labels, call: Call, read: np.ndarray) -> np.ndarray:
    made = state.fresh(call.shapes[0][-1])
    state.use(call.name, "consumer", {"kernel": 0}, read)
    state.use(call.name, "producer", {"kernel": 1, "bias": 0, "mask": 0}, made)
    return made


@_weighted
def _conv(state: Labels, call: Call, read: np.ndarray) -> np.ndarray:
    layer, groups, rank = call.layer, getattr(call.layer, "groups", 1), len(call.layer.kernel.shape)
    if groups == len(read) > 1:  # a depthwise convolution in other words
        made = np.repeat(read, layer.filters // groups)
        state.use(call.name, "follower", {"kernel": rank - 1, "bias": 0}, made)
        return made
    made = state.fresh(layer.filters)
    if groups > 1:  # all groups stay equally wide: channel j of each of them is one channel
        for vector in (read, made):
            rows = vector.reshape(groups, -1)
            state.unite(rows[:1], rows)
    state.use(call.name, "consumer", {"kernel": rank - 2}, read[: len(read) // groups])
    state.use(call.name, "producer", {"kernel": rank - 1, "bias": 0, "mask": 0}, made)
    return made


@_weighted
def _transposed(state: Labels, call: Call, read: np.ndarray) -> np.ndarray:
    made, rank = state.fresh(call.layer.filters), len(call.layer.kernel.shape)
    state.use(call.name, "consumer", {"kernel": rank - 1}, read)
    state.use(call.name, "producer", {"kernel": rank - 2, "bias": 0}, made)
    return made


@_weighted
def _depthwise(state: Labels, call: Call, read: np.ndarray) -> np.ndarray:
    made = np.repeat(read, call.layer.depth_multiplier)
    state.use(call.name, "follower", {"kernel": len(call.layer.kernel.shape) - 2}, read)
    state.use(call.name, "follower", {"bias": 0, "mask": 0}, made)
    return made


@_weighted
def _separable(state: Labels, call: Call, read: np.ndarray) -> np.ndarray:
    made, rank = state.fresh(call.layer.filters), len(call.layer.pointwise_kernel.shape)
    between = np.repeat(read, call.layer.depth_multiplier)
    state.use(call.name, "consumer", {"depthwise_kernel": rank - 2}, read)
    state.use(call.name, "consumer", {"pointwise_kernel": rank - 2}, between)
    state.use(call.name, "producer", {"pointwise_kernel": rank - 1, "bias": 0}, made)
    return made


def _embedding(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    """Reads words, which have no channels."""
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
