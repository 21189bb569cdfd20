"""Layers that make channels: convolutions of all sorts, dense layers, embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from secateur.nets.graph import Call
from secateur.pruning.layers import convolving, costs
from secateur.pruning.layers.activations import mixes
from secateur.pruning.layers.labels import Labels, channel_vector
from secateur.pruning.layers.registry import (
    Cut,
    Label,
    last_and_others,
    layer_class,
    plain_twin,
    staying,
)

QUANTISED = "it is quantised or has LoRA weights"


def spread(call: Call, vector: np.ndarray) -> np.ndarray:
    """Labels of the last axis as those of the output."""
    return vector.reshape([1] * (len(call.shapes[0]) - 2) + [-1])


def closed(call: Call) -> str | None:
    """Why the weights of a layer cannot be cut, if they cannot."""
    return QUANTISED if quantised(call.layer) else None


def quantised(layer: Any) -> bool:
    """Whether it has other weights than its kernel and bias."""
    return bool(getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False))


def read_channels(state: Labels, call: Call, labels: list[np.ndarray]) -> np.ndarray:
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
        if len(call.inputs) > 1 or len(call.outputs) > 1:
            return "it reads or makes several tensors"
        return closed(call) or _made(state, call, rule(state, call, read_channels(state, call, labels)))

    return label


def making(reads: Mapping[str, int], makes: Mapping[str, int]) -> Label:
    """The label rule of a layer whose weights have one axis for what it reads, and one for what it makes."""

    @_weighted
    def rule(state: Labels, call: Call, read: np.ndarray) -> np.ndarray:
        made = state.fresh(call.shapes[0][-1])
        state.use(call, "consumer", reads, read)
        state.use(call, "producer", makes, made)
        return made

    return rule


KERNEL = {"kernel": -1, "bias": -1, "mask": -1}  # what convolutions and dense layers make
_over_channels = making({"kernel": 0}, KERNEL)


def _dense(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    """Over another axis than that of the channels, as tokens in a mixer, it does the same to each of them."""
    if reason := closed(call):
        return reason
    if len(labels) == 1 and labels[0].ndim > 1 and labels[0].shape[-1] == 1 < labels[0].size:
        why = f"{call.name}: what it makes lies along another axis than the channels"
        state.whole[call.name] = (call.shapes[0][-1], why)
        return labels
    return _over_channels(state, call, labels)


@_weighted
def _conv(state: Labels, call: Call, read: np.ndarray) -> np.ndarray:
    filters, groups = call.shapes[0][-1], getattr(call.layer, "groups", 1)
    if groups == len(read) > 1:  # a depthwise convolution in other words
        made = np.repeat(read, filters // groups)
        state.use(call, "follower", KERNEL, made)
        return made
    made = state.fresh(filters)
    if groups > 1:  # all groups stay equally wide: channel j of each of them is one channel
        for vector in (read, made):
            rows = vector.reshape(groups, -1)
            state.unite(rows[:1], rows)
    state.use(call, "consumer", {"kernel": -2}, read[: len(read) // groups])
    state.use(call, "producer", KERNEL, made)
    return made


@_weighted
def _depthwise(state: Labels, call: Call, read: np.ndarray) -> np.ndarray:
    made = np.repeat(read, call.layer.depth_multiplier)
    state.use(call, "follower", {"kernel": -2}, read)
    state.use(call, "follower", {"bias": 0, "mask": 0}, made)
    return made


@_weighted
def _separable(state: Labels, call: Call, read: np.ndarray) -> np.ndarray:
    made = state.fresh(call.shapes[0][-1])
    between = np.repeat(read, call.layer.depth_multiplier)
    state.use(call, "consumer", {"depthwise_kernel": -2}, read)
    state.use(call, "consumer", {"pointwise_kernel": -2}, between)
    state.use(call, "producer", {"pointwise_kernel": -1, "bias": -1}, made)
    return made


def _embedding(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    """Reads words, which have no channels."""
    if reason := closed(call):
        return reason
    made = state.fresh(call.shapes[0][-1])
    state.use(call, "producer", {"embeddings": -1}, made)
    return _made(state, call, made)


def _resize_groups(config: dict, call: Call, left: Cut) -> dict:
    """A convolution with a group for each channel has as many groups as channels are left."""
    groups, whole = config.get("groups", 1), call.input_shapes[0][-1]
    return config | {"groups": left.inputs[0][-1]} if groups == whole > 1 else config


conv = {
    "label": _conv, "size": "filters", "resize": _resize_groups, "cost": costs.conv, "timed": True,
    "run": convolving.conv,
}  # fmt: skip
depthwise = {"label": _depthwise, "cost": costs.depthwise, "timed": True, "run": convolving.depthwise}
dense = {
    "label": _dense, "size": "units", "cost": costs.dense, "sized": last_and_others, "timed": True,
    "run": convolving.dense,
}  # fmt: skip

layer_class("InputLayer", label=staying("it is an input of the model"))
layer_class("Conv1D", "Conv2D", "Conv3D", **conv)
layer_class("MaskedConv2D", **conv, plain=plain_twin(keras.layers.Conv2D))
layer_class("DepthwiseConv1D", "DepthwiseConv2D", **depthwise)
layer_class(
    "MaskedDepthwiseConv2D", **depthwise, plain=plain_twin(keras.layers.DepthwiseConv2D, use_bias=False)
)
layer_class("Dense", **dense)
layer_class("MaskedDense", **dense, plain=plain_twin(keras.layers.Dense))
layer_class(
    "Conv1DTranspose",
    "Conv2DTranspose",
    "Conv3DTranspose",
    label=making({"kernel": -1}, {"kernel": -2, "bias": -1}),
    size="filters",
    cost=costs.transposed,
    timed=True,
    run=convolving.transposed,
)
layer_class(
    "SeparableConv1D",
    "SeparableConv2D",
    label=_separable,
    size="filters",
    cost=costs.separable,
    timed=True,
    run=convolving.separable,
)
layer_class("Embedding", label=_embedding, size="output_dim", cost=costs.embedding)
