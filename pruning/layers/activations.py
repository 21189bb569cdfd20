"""Which activations act on each channel by itself."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

FUNCTIONS = (
    "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "swish", "mish", "hard_silu",
    "hard_swish", "sigmoid", "hard_sigmoid", "log_sigmoid", "sparse_sigmoid", "tanh", "hard_tanh",
    "tanh_shrink", "softplus", "softsign", "squareplus", "sparse_plus", "soft_shrink", "hard_shrink",
    "threshold", "clip", "exponential", "exp", "exp2", "expm1", "log1p", "square", "sqrt", "erf", "abs",
    "absolute", "sin", "cos", "sinh", "cosh", "arctan", "sign", "floor", "ceil", "round", "trunc",
)  # fmt: skip
"""Non-linear functions of `keras.activations` and `keras.ops` of one number; all are finite at 0."""
LAYERS = (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU)
FRAMEWORKS = ("keras", "tensorflow", "jax")  # whose functions are known by their names


def operation(function: str) -> str:
    """What `Call.kind` calls a function of `keras.ops`: "leaky_relu" is "ops.LeakyRelu"."""
    return "ops." + "".join(word.capitalize() for word in function.split("_"))


def mixes(activation: Any) -> str | None:
    """Why an activation (function, layer or None) does not act on each channel by itself, if it does not."""
    name = getattr(activation, "__name__", type(activation).__name__)
    if activation is None or type(activation) in LAYERS:
        return None
    if getattr(activation, "__module__", "").partition(".")[0] not in FRAMEWORKS:
        alone = not isinstance(activation, keras.Layer) and _by_element(activation)
        return None if alone else f"its activation {name!r} is not understood"
    if name == "linear" or name in FUNCTIONS:
        return None
    return "its softmax mixes channels" if "softmax" in name else f"its activation {name!r} is not understood"


def _by_element(function: Any) -> bool:
    """Whether a function of somebody's own makes of each number the same, whatever stands around it."""
    x = np.array([[-3, 0.5, 2, 0], [1, -0.1, 7, -1]], np.float32).reshape(1, 2, 1, 4)
    try:
        together = np.asarray(function(keras.ops.convert_to_tensor(x)))
        single = [np.asarray(function(keras.ops.full((1, 1, 1, 1), number))) for number in x.flat]
    except Exception:  # whatever the function itself raises
        return False
    same = together.shape == x.shape and np.isfinite(together).all()
    return bool(same and np.allclose(together.ravel(), np.ravel(single), rtol=1e-5, atol=1e-6))
