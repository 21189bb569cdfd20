"""Numbers on a grid: what is left of a small file once its kernels share weights."""

from __future__ import annotations

import keras
import numpy as np

from secateur.coding.sharing.kernels import VECTOR_BITS, kernels_of
from secateur.nets.folding import normalises_by_batch, scale_and_shift
from secateur.nets.graph import trace
from secateur.runs.errors import UsageError

VECTORS = ("bias", "gamma", "beta")


def round_numbers(model: keras.Model, bits: int) -> None:
    """Biases, vectors of normalisations and shared values become multiples of a power of two, in place.

    Args:
        model: functional Keras model.
        bits: 2 … 24. Each array has a step of its own, the least whose multiples need so many bits with
            their sign.

    Weights that Keras calls so, and kernels most of whose weights that are not 0 are equal to others. The
    averages of BatchNorms with γ and β go into these, and 0 and 1 stay of them: inference computes what it
    did, but for the rounding. Raises `UsageError` for other bits.
    """
    if bits not in VECTOR_BITS:
        raise UsageError(
            f"Bits of rounded numbers are {VECTOR_BITS[0]} to {VECTOR_BITS[-1]}. Received: {bits}"
        )
    _take_averages(model)
    kernels = {id(variable): variable for *_, variable in kernels_of(model, "all")}
    for variable in kernels.values():
        value = np.asarray(variable.numpy())
        if 2 * len(np.unique(value[value != 0])) <= np.count_nonzero(value):
            variable.assign(on_grid(value, bits))
    for variable in model.weights:
        if id(variable) not in kernels and variable.name in VECTORS:
            variable.assign(on_grid(np.asarray(variable.numpy()), bits))


def on_grid(value: np.ndarray, bits: int) -> np.ndarray:
    """The nearest multiples of the least power of two that needs `bits`, with the sign, for the largest.

    Values of which one is not finite, or would not be, stay as they are.
    """
    largest = float(np.abs(value).max(initial=0))
    if largest == 0 or not np.isfinite(largest):
        return value
    step = 2.0 ** np.ceil(np.log2(largest / (2 ** (bits - 1) - 1)))
    with np.errstate(over="ignore"):
        found = (np.round(value.astype(np.float64) / step) * step + 0.0).astype(value.dtype)  # + 0: no −0
    return found if np.isfinite(found).all() else value


def _take_averages(model: keras.Model) -> None:
    calls = [call for call in trace(model).calls if call.kind == "BatchNormalization"]
    kept = {call.name for call in calls if normalises_by_batch(call)}
    for layer in {call.name: call.layer for call in calls if call.name not in kept}.values():
        if layer.scale and layer.center:
            scale, shift = scale_and_shift(layer)
            layer.gamma.assign(scale * np.sqrt(1 + layer.epsilon))
            layer.beta.assign(shift)
            layer.moving_mean.assign(np.zeros_like(shift))
            layer.moving_variance.assign(np.ones_like(shift))
