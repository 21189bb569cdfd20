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
    "absolute", "nan_to_num", "sin", "cos", "sinh", "cosh", "arctan", "sign", "floor", "ceil", "round",
    "trunc",
)  # fmt: skip
"""Non-linear functions of `keras.activations` and `keras.ops` of one number; all are finite at 0."""
LAYERS = (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU)
FRAMEWORKS = ("keras", "tensorflow", "jax")  # whose functions are known by their names
SOFTMAX = "its softmax mixes channels"


def operation(function: str) -> str:
    """What `Call.kind` calls a function of `keras.ops`: "leaky_relu" is "ops.LeakyRelu"."""
    return "ops." + "".join(word.capitalize() for word in function.split("_"))


def mixes(activation: Any) -> str | None:
    """Why an activation (function, layer or None) does not act on each channel by itself, if it does not.

    A function that is not known by its name is tried.
    """
    name = getattr(activation, "__name__", type(activation).__name__)
    if activation is None or type(activation) in LAYERS:
        return None
    known = getattr(activation, "__module__", "").partition(".")[0] in FRAMEWORKS
    if known and (name == "linear" or name in FUNCTIONS):
        return None
    if known and "softmax" in name:
        return SOFTMAX
    return None if _by_element(activation) else f"its activation {name!r} is not understood"


def _by_element(function: Any) -> bool:
    """Whether what a function makes of a number depends on nothing else, and is finite at 0.

    Numbers that change places take their results along, and one alone has the same result.
    """
    x = np.random.default_rng(0).normal(0, 2, (3, 4, 5)).astype(np.float32)
    turned = np.random.default_rng(1).permutation(x.size)
    if isinstance(function, keras.Layer) and function.weights:
        return False
    try:
        y, other, one, zero = (
            np.asarray(function(keras.ops.convert_to_tensor(v)))
            for v in (
                x,
                x.reshape(-1)[turned].reshape(x.shape),
                x[:1, :1, :1],
                np.zeros((1, 1, 1), np.float32),
            )
        )
    except Exception:  # a function of somebody else may raise anything
        return False
    if not (y.shape == x.shape and one.shape == (1, 1, 1) and np.isfinite(zero).all()):
        return False
    same = np.allclose(other, y.reshape(-1)[turned].reshape(x.shape), rtol=1e-5, atol=1e-6)
    return bool(same and np.allclose(one, y[:1, :1, :1], rtol=1e-5, atol=1e-6))
