"""Images as a network takes them, some at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from pruning.groups import Analysis
from runs.errors import UsageError


def input_types(analysis: Analysis) -> list[tf.TensorSpec]:
    """Shape (with an open number of images) and type of each input."""
    layers = {call.outputs[0]: call for call in analysis.calls if call.kind == "InputLayer"}
    calls = [layers[tensor] for tensor in analysis.graph.inputs]
    return [tf.TensorSpec((None, *call.shapes[0][1:]), call.layer.dtype) for call in calls]


def batches(analysis: Analysis, images: Any, size: int) -> Iterator[tuple[slice, list[tf.Tensor]]]:
    """Which images, and one tensor for each input, in the type that the input has.

    `images` is one array, or as many as the network has inputs. Raises `UsageError` for another number.
    """
    arrays, types = keras.tree.flatten(images), input_types(analysis)
    if len(arrays) != len(types):
        raise UsageError(
            f"This model has {len(types)} inputs: data=(images, labels) needs as many arrays of images. "
            f"Received: {len(arrays)}"
        )
    for start in range(0, len(arrays[0]), size):
        part = slice(start, min(start + size, len(arrays[0])))
        yield part, [tf.cast(x[part], spec.dtype) for x, spec in zip(arrays, types, strict=True)]
