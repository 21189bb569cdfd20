"""Inputs and outputs of any functional or Sequential model as flat lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from secateur.nets.graph import functional_of

Runner = Callable[..., Any]  # one array per input → an array, or a list where the model has several outputs

OPEN_SIZES = (32, 64, 96, 128, 256, 512)  # what axes of open size are given: the first that the model takes


def input_specs(model: keras.Model, batch_size: int | None) -> list[tf.TensorSpec]:
    """Shape and type of each input, in the model's order; None leaves the number of samples open.

    A number that the model itself fixes counts.
    """
    batch_size = fixed_batch(model) or batch_size
    return [
        tf.TensorSpec([batch_size, *tensor.shape[1:]], tensor.dtype, name=f"input_{i}")
        for i, tensor in enumerate(model.inputs)
    ]


def fixed_batch(model: keras.Model) -> int | None:
    """The number of samples that a model takes, where its inputs fix it."""
    return next((tensor.shape[0] for tensor in model.inputs if tensor.shape[0]), None)


def in_batches(run: Callable[..., list[np.ndarray]], size: int | None) -> Callable[..., list[np.ndarray]]:
    """A function of samples, for any number of them, that is run on `size` at a time; None: on all.

    The last batch is filled up with the last sample.
    """

    def batched(*inputs: np.ndarray) -> list[np.ndarray]:
        count, parts = len(inputs[0]), []
        for start in range(0, count, size):
            places = np.minimum(np.arange(start, start + size), count - 1)
            parts.append([made[: count - start] for made in run(*(values[places] for values in inputs))])
        return [np.concatenate(made) for made in zip(*parts, strict=True)]

    return batched if size else run


def sample_inputs(model: keras.Model, count: int) -> list[np.ndarray]:
    """Inputs to compare and to time with: normal numbers; 0 or 1 where the model reads whole numbers.

    Axes of open size get the first of `OPEN_SIZES` that the model takes.
    """
    rng = np.random.default_rng(1)
    made = []
    for tensor, size in zip(model.inputs, sample_sizes(model), strict=True):
        shape = (count, *size)
        floating = tf.as_dtype(tensor.dtype).is_floating
        values = rng.normal(size=shape) if floating else rng.integers(0, 2, shape)
        made.append(values.astype(tf.as_dtype(tensor.dtype).as_numpy_dtype))
    return made


def sample_sizes(model: keras.Model) -> list[tuple[int, ...]]:
    """Sizes of one sample of each input, with the first of `OPEN_SIZES` that fits where they are open."""
    shapes = [tensor.shape[1:] for tensor in model.inputs]
    made = [[tuple(open_ if n is None else n for n in shape) for shape in shapes] for open_ in OPEN_SIZES]
    if not any(None in shape for shape in shapes):
        return made[0]
    return next((sizes for sizes in made if _takes(model, sizes)), made[0])


def _takes(model: keras.Model, sizes: Sequence[tuple[int, ...]]) -> bool:
    """Whether shapes can be followed through the model; a pooling of too few pixels raises."""
    inputs = [keras.KerasTensor((1, *s), t.dtype) for s, t in zip(sizes, model.inputs, strict=True)]
    try:
        made = call(model, inputs)
    except (ValueError, TypeError, tf.errors.OpError):
        return False
    return all(n is None or n > 0 for tensor in made for n in tensor.shape)


def call(model: keras.Model, inputs: Sequence[Any]) -> list[Any]:
    """Outputs of inference, flat, whatever structures the model itself takes and gives."""
    packed = keras.tree.pack_sequence_as(functional_of(model)._inputs_struct, list(inputs))
    return keras.tree.flatten(model(packed, training=False))


def outputs(model: keras.Model, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """`call` on arrays, as arrays."""
    return [tensor.numpy() for tensor in call(model, [tf.convert_to_tensor(x) for x in inputs])]


def alone(values: Sequence[np.ndarray]) -> Any:
    """The one array of a list of one; any other list as it is."""
    return values[0] if len(values) == 1 else list(values)
