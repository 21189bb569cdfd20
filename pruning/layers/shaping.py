"""Layers that move positions about: reshapes, permutations, global pooling."""

from __future__ import annotations

from math import prod

import numpy as np

from secateur.nets.graph import Call
from secateur.pruning.layers import costs, running
from secateur.pruning.layers.labels import Labels, compressed, expanded, on_one_axis
from secateur.pruning.layers.producers import CHANNELS_FIRST
from secateur.pruning.layers.registry import Cut, layer_class


def _reshape(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    if call.kind == "Flatten" and call.layer.data_format == "channels_first":
        return CHANNELS_FIRST
    shape, made = call.input_shapes[0][1:], call.shapes[0][1:]
    if None in shape or None in made:
        varying = [axis for axis, n in enumerate(labels[0].shape) if n > 1]
        if varying in ([], [len(shape) - 1]) and shape[-1:] == made[-1:]:
            return _same(state, call, labels[0].reshape([1] * (len(made) - 1) + [-1]))
        return "it reshapes an axis of open size"
    if prod(shape) != prod(made):
        return "it reshapes the batch axis"
    return _same(state, call, on_one_axis(state, compressed(expanded(labels[0], shape).reshape(made))))


def _same(state: Labels, call: Call, made: np.ndarray) -> list[np.ndarray]:
    if call.kind != "Flatten":
        state.same_shape(call.name, [made])
    return [made]


def _resize_reshape(config: dict, call: Call, cut: Cut) -> dict:
    option = "newshape" if call.kind == "ops.Reshape" else "target_shape"
    if isinstance(config[option], int):  # everything in one row, with the batch: nothing is cut here
        return config
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


def _squeeze(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    shape, axes = call.input_shapes[0], call.layer.axis
    if axes is None:
        axes = [axis for axis, n in enumerate(shape) if n == 1]
    axes = [a % len(shape) for a in ([axes] if isinstance(axes, int) else axes)]
    return "it moves the batch axis" if 0 in axes else [labels[0].squeeze(tuple(a - 1 for a in axes))]


def _swap_axes(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    axes = [a % len(call.shapes[0]) - 1 for a in (call.layer.axis1, call.layer.axis2)]
    return "it moves the batch axis" if -1 in axes else [labels[0].swapaxes(*axes)]


def _get_item(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    """x[:, 0] and x[:, ::2, :, None]: along axes where channels do not change."""
    key = _full_key(call)
    if key[0] != slice(None):
        return "it picks from the batch"
    axis, index = 0, []
    for k in key[1:]:
        if k is not None and k != slice(None) and labels[0].shape[axis] > 1:
            return "it picks channels by their numbers"
        axis += k is not None
        index.append(k if k is None else 0 if isinstance(k, int) else slice(None))
    return [np.asarray(labels[0][tuple(index)])]


def _full_key(call: Call) -> list:
    """The key of x[key] with one entry for each axis, and None for each new one."""
    key = call.argument(1, "key")
    key = list(key) if isinstance(key, (tuple, list)) else [key]
    missing = len(call.input_shapes[0]) - sum(k is not None and k is not Ellipsis for k in key)
    place = next((i for i, k in enumerate(key) if k is Ellipsis), len(key))
    key[place : place + 1] = [slice(None)] * missing
    return key


def _expand_dims(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    axes = [call.layer.axis] if isinstance(call.layer.axis, int) else list(call.layer.axis)
    rank = len(call.shapes[0])
    if any(a % rank == 0 for a in axes):
        return "it moves the batch axis"
    return [np.expand_dims(labels[0], tuple(a % rank - 1 for a in axes))]


layer_class("Flatten", label=_reshape)
layer_class("Reshape", "ops.Reshape", label=_reshape, resize=_resize_reshape, run=running.reshape)
layer_class("Permute", "ops.Transpose", label=_permute)
layer_class("RepeatVector", label=_repeat_vector)
layer_class(
    *(f"Global{how}Pooling{rank}" for how in ("Average", "Max") for rank in ("1D", "2D", "3D")),
    label=_reduce,
    cost=costs.pool,
)
layer_class("GlobalAveragePooling2D", label=_reduce, cost=costs.pool, run=running.global_average)
layer_class(
    *(f"ops.{how}" for how in ("Mean", "Max", "Sum", "Min", "Amax", "Amin", "Std", "Var")), label=_reduce
)
layer_class("ops.ExpandDims", label=_expand_dims)
layer_class("ops.Squeeze", label=_squeeze)
layer_class("ops.Swapaxes", label=_swap_axes)
layer_class("ops.GetItem", label=_get_item)
