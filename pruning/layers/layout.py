"""Calls whose channels lie along another axis than the last one, seen as if they were the last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from secateur.nets.graph import Call

MOVED = ("Flatten", "ZeroPadding2D", "ops.DepthToSpace", "ops.SpaceToDepth")  # run as they are, see `shaping`
NORMS = (
    "BatchNormalization", "FusedBatchNorm", "LayerNormalization", "RMSNormalization", "UnitNormalization",
    "GroupNormalization", "MaskedNormalization",
)  # fmt: skip


def own_axis(call: Call) -> int | None:
    """The axis (without batch) that a layer's weights belong to; None: the last one, or any."""
    if getattr(call.layer, "data_format", None) == "channels_first" and call.kind not in MOVED:
        return 0
    axis, rank = getattr(call.layer, "axis", -1), len(call.input_shapes[0]) if call.inputs else 0
    axis = axis[0] if isinstance(axis, (list, tuple)) and len(axis) == 1 else axis
    if call.kind in NORMS and isinstance(axis, int) and 0 < axis % rank < rank - 1:
        return axis % rank - 1
    return None


def last(sizes: Sequence, axis: int | None) -> tuple:
    """Sizes along all axes, with that of one axis at the end."""
    if axis is None or axis >= len(sizes):
        return tuple(sizes)
    return (*sizes[:axis], *sizes[axis + 1 :], sizes[axis])


def channels_last(call: Call, *axes: int | None) -> Call:
    """The call with its channels at the end of every shape.

    Args:
        axes: of the channels (without batch) of each tensor that it reads, and then makes; none are given
            where all of them have the axis that the layer says.
    """
    shapes = (*call.input_shapes, *call.shapes)
    axes = axes or (own_axis(call),) * len(shapes)
    turned = [(*s[:1], *last(s[1:], axis)) for s, axis in zip(shapes, axes, strict=True)]
    n = len(call.inputs)
    return replace(call, input_shapes=tuple(turned[:n]), shapes=tuple(turned[n:]))


def to_last(labels: np.ndarray, axis: int | None) -> np.ndarray:
    """Labels as those of a tensor whose channels are at the end."""
    return labels if axis is None or axis >= labels.ndim else np.moveaxis(labels, axis, -1)


def from_last(labels: np.ndarray, axis: int | None) -> np.ndarray:
    """Inverse of `to_last`."""
    return labels if axis is None or axis >= labels.ndim else np.moveaxis(labels, -1, axis)
