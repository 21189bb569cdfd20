"""Images as a network takes them: checked, and some at a time."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import keras
import tensorflow as tf

from secateur.pruning.groups.analysis import Analysis
from secateur.runs.errors import UsageError

MEMORY = 2**30  # bytes for the tensors of a batch
MOST = 128  # images of one


def input_types(analysis: Analysis) -> list[tf.TensorSpec]:
    """Shape (with an open number of images) and type of each input."""
    layers = {call.outputs[0]: call for call in analysis.calls if call.kind == "InputLayer"}
    calls = [layers[tensor] for tensor in analysis.graph.inputs]
    return [tf.TensorSpec((None, *call.shapes[0][1:]), call.layer.dtype) for call in calls]


def arrays_of(analysis: Analysis, images: Any) -> list[Any]:
    """One array for each input, from one, a list, or a dict that may be by the names of the inputs.

    Raises `UsageError` for another number of arrays.
    """
    names = {call.outputs[0]: call.name for call in analysis.calls if call.kind == "InputLayer"}
    wanted = [names[tensor] for tensor in analysis.graph.inputs]
    if isinstance(images, dict) and images.keys() >= set(wanted):
        return [images[name] for name in wanted]
    arrays = keras.tree.flatten(images)
    if len(arrays) != len(wanted):
        raise UsageError(
            f"This model has {len(wanted)} inputs: data=(images, labels) needs as many arrays of images. "
            f"Received: {len(arrays)}"
        )
    return arrays


def batches(
    analysis: Analysis, images: Any, size: int, within: slice = slice(0, None)
) -> Iterator[tuple[slice, list[tf.Tensor]]]:
    """Which images, and one tensor for each input, in the type that the input has.

    `images` are those of `arrays_of`, `within` says which of them. Raises `UsageError` for another number
    of arrays.
    """
    arrays, types = arrays_of(analysis, images), input_types(analysis)
    for part in parts(len(arrays[0]), size, within):
        yield part, [tf.cast(x[part], spec.dtype) for x, spec in zip(arrays, types, strict=True)]


def parts(count: int, size: int, within: slice = slice(0, None)) -> Iterator[slice]:
    """The numbers 0 … count − 1, or those of them in `within`, at most `size` at a time."""
    start, stop, _ = within.indices(count)
    for first in range(start, stop, size):
        yield slice(first, min(first + size, stop))


def fitting(analysis: Analysis, images: Any, memory: int | None = None) -> int:
    """Images to run at a time, 1 to `MOST`, so that all tensors take `memory` (`MEMORY`) bytes at most.

    Every tensor of the graph counts, at 4 bytes a number and twice, for its gradient. An axis of open size
    counts as the longest axis of the images, which is too long behind poolings.
    """
    longest = max(max(x.shape[1:], default=1) for x in keras.tree.flatten(images))
    shapes = [shape for call in analysis.calls for shape in call.shapes]
    each = 8 * sum(prod(longest if n is None else n for n in shape[1:]) for shape in shapes)
    return max(1, min(MOST, (memory or MEMORY) // each))
