"""Where several tensors meet: sums, products, concatenations, splits."""

from __future__ import annotations

import keras
import numpy as np

from secateur.nets.graph import Call
from secateur.pruning.layers import running
from secateur.pruning.layers.labels import Labels
from secateur.pruning.layers.registry import layer_class

CONSTANT = "a constant that belongs to channels cannot be cut"
SUMS = ("Subtract", "Multiply", "Average", "Maximum", "Minimum")
COMPARISONS = (
    "Greater", "GreaterEqual", "Less", "LessEqual", "Equal", "NotEqual", "LogicalNot", "LogicalAnd",
    "LogicalOr", "Isfinite", "Isnan",
)  # fmt: skip


def merge(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    """The label rule of sums: channels at the same place are one channel."""
    rank = max(vector.ndim for vector in labels)
    if any(vector.ndim != rank for vector in labels) and call.kind.startswith("ops."):
        return "it broadcasts the batch axis"
    if any(not _fits(np.shape(constant), labels) for constant in call.constants):
        return CONSTANT
    aligned = [vector.reshape([1] * (rank - vector.ndim) + list(vector.shape)) for vector in labels]
    shapes = [[1] * (rank - len(s) + 1) + list(s[1:]) for s in call.input_shapes]
    made, shape = aligned[0], shapes[0]
    for other, other_shape in zip(aligned[1:], shapes[1:], strict=True):
        made = _join(state, call, made, shape, other, other_shape)
        shape = [m if n == 1 else n for n, m in zip(shape, other_shape, strict=True)]
    return [made]


def _join(
    state: Labels, call: Call, a: np.ndarray, a_shape: list, b: np.ndarray, b_shape: list
) -> np.ndarray:
    """Equal labels; one channel that is broadcast over the other's must stay, or all would go with it."""
    for axis in range(a.ndim):
        sizes = (a_shape[axis], b_shape[axis])
        if 1 in sizes and sizes != (1, 1) and max(a.shape[axis], b.shape[axis]) > 1:
            narrow, wide = (a, b) if a_shape[axis] == 1 else (b, a)
            reason = f"{call.name}: it is broadcast over other channels"
            state.lock(narrow, reason)
            if narrow.size > 1:  # its own channels lie along another axis, which the other must keep as well
                state.lock(wide, reason)
            return wide
    state.unite(a, b)
    return a if a.size >= b.size else b


def _fits(shape: tuple, labels: list[np.ndarray]) -> bool:
    """Whether a constant (with batch axis or without) has one value for all channels."""
    return all(
        n == 1 or (len(shape) - i <= vector.ndim and vector.shape[i - len(shape)] == 1)
        for vector in labels
        for i, n in enumerate(shape)
    )


def _divide(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    if len(labels) == 1 and isinstance(call.argument(0, "x1"), keras.KerasTensor):
        return [labels[0]] if _fits(np.shape(call.argument(1, "x2")), labels) else CONSTANT
    if len(labels) > 1 and labels[1].size == 1:
        return merge(state, call, labels)
    return "a removed channel would be divided by zero"


def _power(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    exponent = call.argument(1, "x2")
    if isinstance(exponent, (int, float)) and exponent > 0:
        return [labels[0]]
    return "only powers with a fixed exponent above 0 keep a removed channel at zero"


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


def _scaled_sum(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    state.unite(*labels)
    return [labels[0]]


def _glu(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    """A gated linear unit: one half of the channels times the sigmoid of the other."""
    axis = call.layer.axis % len(call.shapes[0]) - 1
    if axis < 0:
        return "it splits the batch"
    if labels[0].shape[axis] == 1:
        return [labels[0]]
    first, second = np.split(labels[0], 2, axis)
    state.unite(first, second)
    return [first]


layer_class("Add", label=merge, run=running.add)
layer_class(*SUMS, "ops.Add", *(f"ops.{name}" for name in SUMS if name != "Average"), label=merge)
layer_class(*(f"ops.{name}" for name in COMPARISONS), "ops.Where", label=merge)
layer_class("ops.Divide", "ops.TrueDivide", label=_divide)
layer_class("ops.Power", label=_power)
layer_class("ops.Glu", label=_glu)
layer_class("Concatenate", "ops.Concatenate", label=_concatenate)
layer_class("CustomScaleLayer", label=_scaled_sum)  # of keras.applications' InceptionResNetV2: x + scale · y
