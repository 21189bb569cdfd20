"""Layers of somebody's own that are known by what they do to numbers: dropped paths, normalisations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from secateur.nets.weighted import Weighted

SAMPLES = 4096  # of a rate of 0.5 %, hardly ever none is dropped
SIZE = 2  # along every other axis
CLOSE = 0.05  # the share that is dropped, to the rate
DIGITS = 6
NORMS = {1: (("scale",), ("gamma",)), 2: (("gamma", "beta"), ("beta", "gamma"))}
"""Number of weights → what Keras may call them. RMSNormalization has a scale, LayerNormalization a gamma."""
SAME = 1e-5  # of the largest output


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


def as_norm(layer: Any, x: Any) -> Weighted | None:
    """The RMSNormalization or LayerNormalization over the last axis that a layer is; None where it is none.

    Written by hand it is a mean over channels, which keeps them all; Keras' own is understood.

    Args:
        layer: whose `call` takes one tensor; its weights are vectors with one number for each channel.
        x: the symbolic tensor that it reads.
    """
    size, weights = x.shape[-1], layer.variables
    if len(weights) not in NORMS or any(tuple(w.shape) != (size,) for w in weights) or len(x.shape) < 2:
        return None
    rng = np.random.default_rng(0)
    numbers = rng.normal(1, 2, (3, *[SIZE] * (len(x.shape) - 2), size)).astype("float32")
    for names in NORMS[len(weights)]:
        make = keras.layers.RMSNormalization if names == ("scale",) else keras.layers.LayerNormalization
        config = {"epsilon": _epsilon(layer, names, numbers), "dtype": layer.dtype_policy}
        config |= {"center": "beta" in names} if "gamma" in names else {}
        if config["epsilon"] > 0 and _same(layer, make(**config), names, numbers):
            made = keras.KerasTensor(x.shape, x.dtype)
            values = {name: _value(weight) for name, weight in zip(names, weights, strict=True)}
            return Weighted(make, config, values, x, [made], weights[0].name, list(weights), layer)
    return None


def _value(weight: keras.Variable) -> Callable[[], np.ndarray]:
    return lambda: keras.ops.convert_to_numpy(weight.value)


def _epsilon(layer: Any, names: Sequence[str], numbers: np.ndarray) -> float:
    """What is added to the mean square, or variance, seen where this is small; two digits of it."""
    small = numbers * 1e-3
    square = small.var(-1) if "gamma" in names else (small**2).mean(-1)
    ones = [np.full(w.shape, n != "beta", "float32") for n, w in zip(names, layer.variables, strict=True)]
    made = _run(layer, ones, small)
    with np.errstate(all="ignore"):  # what is no normalisation may make zeros
        found = float(np.median(square / (made**2).mean(-1) - square))
    return float(f"{found:.1e}")


def _same(layer: Any, other: keras.Layer, names: Sequence[str], numbers: np.ndarray) -> bool:
    """Whether two layers do the same, also to small numbers, with any weights."""
    other.build(numbers.shape)
    rng = np.random.default_rng(1)
    values = {name: rng.normal(1, 1, numbers.shape[-1]).astype("float32") for name in names}
    for name, value in values.items():
        getattr(other, name).assign(value)
    for given in (numbers, numbers * 1e-2):
        ours = keras.ops.convert_to_numpy(other(given))
        for mode in [{"training": x} for x in (False, True)] if layer._call_has_training_arg else [{}]:
            theirs = _run(layer, list(values.values()), given, **mode)
            if not np.allclose(ours, theirs, atol=SAME * np.abs(ours).max(), rtol=0):
                return False
    return True


def _run(layer: Any, values: Sequence[np.ndarray], numbers: np.ndarray, **mode: bool) -> np.ndarray:
    """What the layer makes with these weights; it keeps its own."""
    tensors = [keras.ops.convert_to_tensor(value) for value in values]
    with keras.StatelessScope(list(zip(layer.variables, tensors, strict=True))):
        return keras.ops.convert_to_numpy(layer.call(keras.ops.convert_to_tensor(numbers), **mode))
