"""Where several tensors meet: sums, products, concatenations, splits."""

from __future__ import annotations

import keras
import numpy as np

from pruning.graph import Call
from pruning.kinds.registry import Cut, kind
from pruning.labels import Labels

SUMS = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")


def _merge(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    if any(np.ndim(keras.ops.convert_to_numpy(c)) and np.size(c) > 1 for c in _arrays(call)):
        return "a constant that belongs to channels cannot be cut"
    rank = max(vector.ndim for vector in labels)
    aligned = [vector.reshape([1] * (rank - vector.ndim) + list(vector.shape)) for vector in labels]
    shapes = [[1] * (rank - len(s) + 1) + list(s[1:]) for s in call.input_shapes]
    made = aligned[0]
    for other, shape in zip(aligned[1:], shapes[1:], strict=True):
        made = _join(state, made, shapes[0], other, shape)
    return [made]


def _join(state: Labels, a: np.ndarray, a_shape: list, b: np.ndarray, b_shape: list) -> np.ndarray:
    """Equal labels; one channel that is broadcast over the other's must stay, or all would go with it."""
    for axis in range(a.ndim):
        if a.shape[axis] != b.shape[axis]:
            narrow, shape = (a, a_shape) if a.shape[axis] == 1 else (b, b_shape)
            if shape[axis] == 1:
                state.lock(narrow, "it is broadcast over other channels")
                return b if narrow is a else a
    state.unite(a, b)
    return a if a.size >= b.size else b


def _arrays(call: Call) -> list:
    return [c for c in call.constants if hasattr(c, "shape") or isinstance(c, (list, tuple))]


def _concatenate(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    rank = len(call.shapes[0])
    axis = call.layer.axis % rank - 1
    if axis < 0:
        return "it joins along the batch"
    others = [i for i in range(rank - 1) if i != axis]
    if any(vector.shape[i] != labels[0].shape[i] for vector in labels for i in others):
        return "it joins along another axis than the channels'"
    if all(vector.shape[axis] == 1 for vector in labels) and any(labels[0].shape[i] > 1 for i in others):
        for vector in labels[1:]:  # pixels are joined, channels stay what they are
            state.unite(labels[0], vector)
        return [labels[0]]
    parts = []
    for vector, shape in zip(labels, call.input_shapes, strict=True):
        if shape[axis + 1] is None:
            return "it joins along an axis of open size"
        parts.append(np.repeat(vector, shape[axis + 1], axis) if vector.shape[axis] == 1 else vector)
    return [np.concatenate(parts, axis)]


def _split(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    rank = len(call.input_shapes[0])
    axis = call.layer.axis % rank - 1
    if axis < 0:
        return "it splits the batch"
    if labels[0].shape[axis] == 1:
        return [labels[0]] * len(call.outputs)
    sizes = np.cumsum([shape[axis + 1] for shape in call.shapes])[:-1]
    return list(np.split(labels[0], sizes, axis))


def _resize_split(config: dict, call: Call, cut: Cut) -> dict:
    axis = call.layer.axis % len(call.input_shapes[0]) - 1
    sizes = [shape[axis] for shape in cut.outputs]
    if call.input_shapes[0][axis + 1] == sum(sizes):
        return config
    return config | {"indices_or_sections": np.cumsum(sizes)[:-1].tolist(), "axis": call.layer.axis}


def _scaled_sum(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    state.unite(*labels)
    return [labels[0]]


kind(*SUMS, *(f"ops.{name}" for name in SUMS if name != "Average"), label=_merge)
kind("ops.Divide", "ops.TrueDivide", label=lambda *_: "a removed channel would be divided by zero")
kind("Concatenate", "ops.Concatenate", label=_concatenate)
kind("ops.Split", label=_split, resize=_resize_split)
kind("CustomScaleLayer", label=_scaled_sum)  # of keras.applications' InceptionResNetV2: x + scale · y
