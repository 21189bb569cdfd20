"""What a network computes with the statistics of the batch and without noise: as Keras itself trains it."""

from __future__ import annotations

import keras
import numpy as np

from secateur.nets.graph import trace

NOISE = ("rate", "drop_path_rate", "stddev")  # options of layers that draw random numbers


def outputs_in_training(model: keras.Model, batch: list) -> list[np.ndarray]:
    """Flat outputs of `training=True`; the rates of dropout become 0 in the model."""
    for layer in trace(model).layers.values():
        for name in NOISE:
            if hasattr(layer, name):
                setattr(layer, name, 0.0)
    state = model.trainable_variables, model.non_trainable_variables
    made, _ = model.stateless_call(*state, batch if len(batch) > 1 else batch[0], training=True)
    return [np.asarray(y) for y in keras.tree.flatten(made)]
