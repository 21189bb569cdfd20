"""Which activations act on each channel by itself."""

from __future__ import annotations

from typing import Any

import keras

ELEMENTWISE_FUNCTIONS = {
    "relu", "leaky_relu", "relu6", "celu", "elu", "selu", "softplus", "softsign", "squareplus", "soft_shrink",
    "sparse_plus", "silu", "swish", "gelu", "tanh", "tanh_shrink", "threshold", "sigmoid", "sparse_sigmoid",
    "exponential", "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "hard_shrink", "linear", "mish",
    "log_sigmoid", "exp", "square", "sin", "cos", "abs", "absolute",
}  # fmt: skip
ELEMENTWISE_LAYERS = (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU)


def mixes(activation: Any) -> str | None:
    """Why an activation (function, layer or None) does not act on each channel by itself, if it does not."""
    name = getattr(activation, "__name__", type(activation).__name__)
    if activation is None or type(activation) in ELEMENTWISE_LAYERS:
        return None
    if getattr(activation, "__module__", "").partition(".")[0] not in ("keras", "tensorflow", "jax"):
        return f"its activation {name!r} is not understood"
    if name in ELEMENTWISE_FUNCTIONS:
        return None
    return "its softmax mixes channels" if "softmax" in name else f"its activation {name!r} is not understood"
