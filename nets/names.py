"""The one map between our variables and the names in published checkpoints.

Keras 3 forbids `/` in layer names, published files use it:
`BasicBlock0.0_conv1` ↔ `BasicBlock0.0/conv1/kernel:0`.
"""

from __future__ import annotations

import keras

NO_WEIGHTS = ("mask", "seed_generator_state")  # the plan's, and dropout's
_PUBLISHED = {"bias": "biases"}


def published_name(layer: str, weight: str) -> str:
    """Name of a weight in a snapshot: ("BasicBlock0.0_conv1", "kernel") → "BasicBlock0.0/conv1/kernel:0"."""
    return f"{layer.replace('_', '/', 1)}/{_PUBLISHED.get(weight, weight)}:0"


def layer_and_weight(name: str) -> tuple[str, str]:
    """Inverse of `published_name`."""
    layer, _, weight = name.removesuffix(":0").rpartition("/")
    own = {published: ours for ours, published in _PUBLISHED.items()}
    return layer.replace("/", "_", 1), own.get(weight, weight)


def variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Published name → variable, for all that a snapshot holds (masks are the plan's, not the weights')."""
    return {
        published_name(layer.name, variable.name): variable
        for layer in model.layers
        for variable in layer.variables
        if variable.name not in NO_WEIGHTS
    }
