"""The compiled evaluation step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from secateur.compute.devices import use_xla
from secateur.compute.precision import as_float32
from secateur.dataloader.batches import in_parts
from secateur.dataloader.splits import parts_of


def tensors(images: Any) -> Any:
    """Arrays, or `Columns` of several, as tensors in their structure."""
    return keras.tree.map_structure(tf.convert_to_tensor, parts_of(images))


def batch_spec(tensor: tf.Tensor) -> tf.TensorSpec:
    """Type and shape of batches like this one, of any length."""
    return tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype)


def make_forward(
    model: keras.Model, preprocess: Callable, batch_statistics: bool = False, compile_: bool | None = None
) -> Callable[[np.ndarray, int], np.ndarray]:
    """Makes `f(images uint8 (n, h, w, c), batch size) -> logits (n, classes)`, or several outputs.

    With `batch_statistics` BN uses those of each batch (EKG evaluates so) and the moving averages stay as
    they are. The last batch is filled with the images before it: 16 left over would have statistics of 16.
    """

    @tf.function(jit_compile=use_xla(compile_), autograph=False)
    def logits(images):
        x = preprocess(images)
        if not batch_statistics:
            return as_float32(model(x, training=False))
        own = model.trainable_variables, model.non_trainable_variables
        return as_float32(model.stateless_call(*own, x, training=True)[0])

    def forward(images: np.ndarray, batch_size: int = 256) -> np.ndarray:
        n = len(images)
        # One trace for every number of images: hold-out and test split are of two sizes.
        spec = keras.tree.map_structure(batch_spec, tensors(images[:1]))
        traced = logits.get_concrete_function(spec)
        starts, rest = range(0, n, batch_size), max(0, n - batch_size)
        parts = [np.arange(min(start, rest), min(start + batch_size, n)) for start in starts]
        rows = []
        for start, index, part in zip(starts, parts, in_parts(images, parts), strict=True):
            found = traced(tensors(part))
            rows.append(keras.tree.map_structure(lambda y, skip=start - index[0]: y.numpy()[skip:], found))
        return keras.tree.map_structure(lambda *parts: np.concatenate(parts), *rows)

    return forward
