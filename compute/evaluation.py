"""The compiled evaluation step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from secateur.compute.devices import use_xla
from secateur.compute.precision import as_float32
from secateur.compute.workers import Workers
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

    Made in the scope of a strategy it divides each batch over the devices of this process. The last batch is
    filled with the images before it.

    With `batch_statistics` BN uses those of each batch (EKG evaluates so; 16 images left over would have
    those of 16) and the moving averages stay as they are: one device has the batch as a whole.
    """
    strategy = tf.distribute.get_strategy()
    workers = Workers(strategy)
    devices = 1 if batch_statistics else len(workers.devices)

    @tf.function(jit_compile=use_xla(compile_), autograph=False)
    def logits(images):
        x = preprocess(images)
        if not batch_statistics:
            return as_float32(model(x, training=False))
        own = model.trainable_variables, model.non_trainable_variables
        return as_float32(model.stateless_call(*own, x, training=True)[0])

    def outputs(images: Any) -> Any:
        # One trace for every number of images: hold-out and test split are of two sizes.
        arrays = tensors(images)
        found = logits.get_concrete_function(keras.tree.map_structure(batch_spec, arrays))(arrays)
        return keras.tree.map_structure(lambda y: y.numpy(), found)

    def of_share(images: Any) -> Any:
        with strategy.scope():  # reads the copies of the weights that the device has
            return outputs(images)

    def divided(images: Any) -> Any:
        arrays = parts_of(images)
        shares = [
            keras.tree.map_structure(lambda x, i=i: np.array_split(x, devices)[i], arrays)
            for i in range(devices)
        ]
        return keras.tree.map_structure(lambda *y: np.concatenate(y), *workers.spread(of_share, shares))

    def forward(images: np.ndarray, batch_size: int = 256) -> np.ndarray:
        n = len(images)
        starts, rest = range(0, n, batch_size), max(0, n - batch_size)
        parts = [np.arange(min(start, rest), min(start + batch_size, n)) for start in starts]
        rows = []
        for start, index, part in zip(starts, parts, in_parts(images, parts), strict=True):
            found = divided(part) if 1 < devices <= len(index) else outputs(part)
            rows.append(keras.tree.map_structure(lambda y, skip=start - index[0]: y[skip:], found))
        return keras.tree.map_structure(lambda *parts: np.concatenate(parts), *rows)

    return forward
