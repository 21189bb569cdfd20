"""Layers that drop paths by Python on `training`, in the form of Keras' Dropout."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

SAMPLES = 4096  # of a rate of 0.5 %, hardly ever none is dropped
SIZE = 2  # along every other axis
CLOSE = 0.05  # the share that is dropped, to the rate
DIGITS = 6


def as_dropout(layer: Any, x: Any) -> keras.layers.Dropout | None:
    """The Dropout that a layer is, one draw for all positions along some axes; None where it is none.

    Such a layer returns what it reads, and in training divides it by 1 − rate or puts zeros in its place.
    It is run on numbers to see so; what it does to its variables is forgotten.

    Args:
        layer: whose `call` takes one tensor, and `training`.
        x: the symbolic tensor that it reads.
    """
    numbers = np.random.default_rng(0).uniform(1, 2, (SAMPLES, *[SIZE] * (len(x.shape) - 1)))
    numbers = keras.ops.convert_to_tensor(numbers.astype("float32"))
    with keras.StatelessScope():
        kept, drawn = (layer.call(numbers, training=training) for training in (False, True))
    if kept is not numbers:
        return None
    factors = np.asarray(drawn) / np.asarray(numbers)
    zeros = factors == 0
    rate = round(1 - 1 / float(factors.max()), DIGITS)
    same = np.allclose(factors[~zeros], factors.max(), rtol=1e-5)
    if not same or not 0 < rate < 1 or abs(zeros.mean() - rate) > CLOSE:
        return None
    shape = [1 if (zeros == zeros.take([0], axis)).all() else None for axis in range(zeros.ndim)]
    if shape[0] == 1:  # one draw for all images, which shows nothing of the next one
        return None
    return keras.layers.Dropout(
        rate, noise_shape=tuple(shape) if 1 in shape else None, dtype=layer.dtype_policy
    )
