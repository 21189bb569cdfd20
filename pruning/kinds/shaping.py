"""Layers that move positions about: reshapes, permutations, global pooling."""

from __future__ import annotations

import numpy as np

from pruning.graph import Call
from pruning.kinds.making import CHANNELS_FIRST
from pruning.kinds.passing import cost_pool
from pruning.kinds.registry import Cut, kind
from pruning.labels import Labels, compressed, expanded


def _reshape(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    if call.kind == "Flatten" and call.layer.data_format == "channels_first":
        return CHANNELS_FIRST
    shape, made = call.input_shapes[0][1:], call.shapes[0][1:]
    if None in shape or None in made:
        varying = [axis for axis, n in enumerate(labels[0].shape) if n > 1]
        if varying in ([], [len(shape) - 1]) and shape[-1:] == made[-1:]:
            return [labels[0].reshape([1] * (len(made) - 1) + [-1])]
        return "it reshapes an axis of open size"
    return [compressed(expanded(labels[0], shape).reshape(made))]


def _resize_reshape(config: dict, call: Call, cut: Cut) -> dict:
    option = "newshape" if call.kind == "ops.Reshape" else "target_shape"
    old = tuple(config[option])
    batch = old[:1] if call.kind == "ops.Reshape" else ()
    sizes = [
        -1 if given == -1 else (left if left is not None else -1)
        for given, left in zip(old[len(batch) :], cut.outputs[0], strict=True)
    ]
    return config | {option: (*batch, *sizes)}


def _permute(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    if call.kind == "Permute":
        return [labels[0].transpose([d - 1 for d in call.layer.dims])]
    axes = call.layer.axes or tuple(reversed(range(len(call.shapes[0]))))
    if axes[0] != 0:
        return "it moves the batch axis"
    return [labels[0].transpose([a - 1 for a in axes[1:]])]


def _repeat_vector(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    return [labels[0][None]]


def _reduce(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    """Global pooling, and means and sums over axes along which channels do not change."""
    rank = len(call.input_shapes[0])
    axes = _reduced_axes(call, rank)
    if axes is None or 0 in axes:
        return "it reduces the batch axis"
    if getattr(call.layer, "data_format", None) == "channels_first":
        return CHANNELS_FIRST
    vector = labels[0]
    if any(vector.shape[a - 1] > 1 for a in axes):
        return "it reduces over channels"
    return [vector if call.layer.keepdims else vector.squeeze(tuple(a - 1 for a in axes))]


def _reduced_axes(call: Call, rank: int) -> list[int] | None:
    if call.kind.startswith("Global"):
        return list(range(1, rank - 1))
    axis = call.layer.axis
    if axis is None:
        return None
    return [a % rank for a in ([axis] if isinstance(axis, int) else axis)]


def _expand_dims(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    axes = [call.layer.axis] if isinstance(call.layer.axis, int) else list(call.layer.axis)
    rank = len(call.shapes[0])
    if any(a % rank == 0 for a in axes):
        return "it moves the batch axis"
    return [np.expand_dims(labels[0], tuple(a % rank - 1 for a in axes))]


kind("Flatten", label=_reshape)
kind("Reshape", "ops.Reshape", label=_reshape, resize=_resize_reshape)
kind("Permute", "ops.Transpose", label=_permute)
kind("RepeatVector", label=_repeat_vector)
kind(
    *(f"Global{how}Pooling{rank}" for how in ("Average", "Max") for rank in ("1D", "2D", "3D")),
    label=_reduce,
    cost=cost_pool,
)
kind("ops.Mean", "ops.Max", "ops.Sum", "ops.Min", label=_reduce)
kind("ops.ExpandDims", label=_expand_dims)
