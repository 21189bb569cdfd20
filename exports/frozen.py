"""A model as a TensorFlow function whose weights are constants."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from secateur.exports.signature import Runner, alone, call, input_specs


def freeze(model: keras.Model, batch_size: int | None) -> Any:
    """A concrete function of the model's inputs, in order; None leaves the number of samples open."""
    function = tf.function(lambda *inputs: call(model, inputs), autograph=False)
    # LiteRT's converter itself leaves the variables of a Keras 3 model out of the file.
    return convert_variables_to_constants_v2(function.get_concrete_function(*input_specs(model, batch_size)))


def frozen_runner(model: keras.Model, batch_size: int) -> Runner:
    """f(one array (batch, …) per input) → outputs, computed by TensorFlow."""
    frozen = freeze(model, batch_size)
    return lambda *inputs: alone([x.numpy() for x in frozen(*map(tf.convert_to_tensor, inputs))])
