"""What a plan can change of the shapes in a graph, and the sizes that layers need to know then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from secateur.nets.graph import Call
from secateur.pruning.groups.analysis import Analysis
from secateur.pruning.layers import find
from secateur.pruning.layers.shaping import picked, picks
from secateur.pruning.shrink.surgery import channel_paddings

Shape = tuple[int | None, ...]


def open_shapes(analysis: Analysis) -> dict[int, Shape]:
    """Tensor → its shape, with None for the batch and along every axis that a plan can cut."""
    rows = ((t, s) for c in analysis.calls for t, s in zip(c.outputs, c.shapes, strict=True))
    return {tensor: _open(analysis, tensor, shape) for tensor, shape in rows}


def _open(analysis: Analysis, tensor: int, shape: Shape) -> Shape:
    sizes = list(shape)
    for slots, labels in analysis.planes:
        own = labels[tensor]
        cut = (slots[own] >= 0).any()
        sizes = [None if i and cut and own.shape[i - 1] > 1 else n for i, n in enumerate(sizes)]
    return tuple(sizes)


def sizes_of(analysis: Analysis, masks: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Layer → what it needs to know under one mask for each group: integers by name.

    "pad": zeros in front of and behind the channels; "parts": widths into which they are split; "shape": what
    a reshape makes, where more than one axis of it is cut; "picks": the channels that are picked.
    """
    pads = {name: {"pad": np.array(pad, np.int32)} for name, pad in channel_paddings(analysis, masks).items()}
    splits = {
        call.name: {"parts": _parts(analysis, call, masks)}
        for call in analysis.calls
        if splits_channels(analysis, call)
    }
    shapes = {
        call.name: {"shape": _made(analysis, call, masks)}
        for call in analysis.calls
        if reshapes_channels(analysis, call)
    }
    found = {name: {"picks": row(masks)} for name, row in picking(analysis).items()}
    return pads | splits | shapes | found


def reshapes_channels(analysis: Analysis, call: Call) -> bool:
    """Whether a call makes several axes that a plan can cut, as heads and their width."""
    if call.kind not in ("Reshape", "ops.Reshape"):
        return False
    return sum(n is None for n in _open(analysis, call.outputs[0], call.shapes[0])) > 2  # one is the batch


def _made(analysis: Analysis, call: Call, masks: Mapping[str, np.ndarray]) -> np.ndarray:
    sizes = analysis.sizes(call.outputs[0], call.shapes[0], masks)
    return np.array([-1 if n is None else n for n in sizes], np.int32)


def picking(analysis: Analysis) -> dict[str, Callable]:
    """Call that picks channels by their numbers → masks → these among what is left."""
    return {
        call.name: partial(_picks, analysis, call, axis)
        for call in analysis.calls
        if (known := find(call.kind)) and known.replace
        for axis in [analysis.axis(call.inputs[0])]
        if _open(analysis, call.inputs[0], call.input_shapes[0])[axis + 1] is None
        and picked(call, axis) is not None
    }


def _picks(analysis: Analysis, call: Call, axis: int, masks: Mapping[str, np.ndarray]) -> np.ndarray:
    return picks(call, axis, analysis.alive(call.inputs[0], masks)).astype(np.int32)


def splits_channels(analysis: Analysis, call: Call) -> bool:
    """Whether a call parts an axis that a plan can cut."""
    if call.kind != "ops.Split":
        return False
    axis = call.layer.axis % len(call.input_shapes[0])
    return axis > 0 and _open(analysis, call.inputs[0], call.input_shapes[0])[axis] is None


def _parts(analysis: Analysis, call: Call, masks: Mapping[str, np.ndarray]) -> np.ndarray:
    axis = call.layer.axis % len(call.input_shapes[0]) - 1
    pairs = zip(call.outputs, call.shapes, strict=True)
    return np.array([analysis.sizes(tensor, shape, masks)[axis] for tensor, shape in pairs], np.int32)
