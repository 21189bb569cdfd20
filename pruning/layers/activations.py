"""Which activations act on each channel by itself."""

from __future__ import annotations

from typing import Any

import keras

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
        return f"its activation {name!r} is not understood"
    if name == "linear" or name in FUNCTIONS:
        return None
    return "its softmax mixes channels" if "softmax" in name else f"its activation {name!r} is not understood"
