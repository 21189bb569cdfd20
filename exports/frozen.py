"""A model as a TensorFlow function whose weights are constants."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from secateur.exports.signature import Runner, alone, call, input_specs


def freeze(model: keras.Model, batch_size: int | None) -> Any:
    """A concrete function of the model's inputs, in order; None leaves the number of samples open."""
    values = [(variable, variable.numpy()) for variable in model.variables]

    def constant(*inputs: tf.Tensor) -> list[tf.Tensor]:
        with keras.StatelessScope([(variable, tf.constant(value)) for variable, value in values]):
            return call(model, inputs)

    function = tf.function(constant, autograph=False)
    made = function.get_concrete_function(*input_specs(model, batch_size))
    # A layer may compute with variables and arrays that Keras does not know of.
    return convert_variables_to_constants_v2(made) if made.captured_inputs else made


def frozen_runner(model: keras.Model, batch_size: int) -> Runner:
    """f(one array (batch, …) per input) → outputs, computed by TensorFlow."""
    frozen = freeze(model, batch_size)
    return lambda *inputs: alone([x.numpy() for x in frozen(*map(tf.convert_to_tensor, inputs))])
