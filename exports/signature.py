"""Inputs and outputs of any functional or Sequential model as flat lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

Runner = Callable[..., Any]  # one array per input → an array, or a list where the model has several outputs

OPEN_SIZE = 32  # what an axis of open size is given: five poolings by 2 leave something of it


def input_specs(model: keras.Model, batch_size: int | None) -> list[tf.TensorSpec]:
    """Shape and type of each input, in the model's order; None leaves the number of samples open."""
    return [
        tf.TensorSpec([batch_size, *tensor.shape[1:]], tensor.dtype, name=f"input_{i}")
        for i, tensor in enumerate(model.inputs)
    ]


def sample_inputs(model: keras.Model, count: int, seed: int = 1) -> list[np.ndarray]:
    """Inputs to compare and to time with: normal numbers; 0 or 1 where the model reads whole numbers."""
    rng = np.random.default_rng(seed)
    made = []
    for tensor in model.inputs:
        shape = (count, *(OPEN_SIZE if n is None else n for n in tensor.shape[1:]))
        floating = tf.as_dtype(tensor.dtype).is_floating
        values = rng.normal(size=shape) if floating else rng.integers(0, 2, shape)
        made.append(values.astype(tf.as_dtype(tensor.dtype).as_numpy_dtype))
    return made


def call(model: keras.Model, inputs: Sequence[Any]) -> list[Any]:
    """Outputs of inference, flat, whatever structures the model itself takes and gives."""
    functional = getattr(model, "_functional", None) or model  # a Sequential wraps the graph that it built
    packed = keras.tree.pack_sequence_as(functional._inputs_struct, list(inputs))
    return keras.tree.flatten(model(packed, training=False))


def outputs(model: keras.Model, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """`call` on arrays, as arrays."""
    return [tensor.numpy() for tensor in call(model, [tf.convert_to_tensor(x) for x in inputs])]


def alone(values: Sequence[np.ndarray]) -> Any:
    """The one array of a list of one; any other list as it is."""
    return values[0] if len(values) == 1 else list(values)
