"""A model as a TensorFlow function whose weights are constants."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from secateur.exports.signature import Runner, alone, call, fixed_batch, in_batches, input_specs
from secateur.nets.copies import config_of, flat_names, remade, with_same_weights
from secateur.nets.graph import trace

MIXED = "mixed_"  # policies of layers whose weights are float32 and whose products are not


def freeze(model: keras.Model, batch_size: int | None) -> Any:
    """A concrete function of the model's inputs, in order; None leaves the number of samples open.

    It computes in float32 what the model computes in mixed precision, and takes as many samples as the model
    where that number is fixed.
    """
    model = in_float32(model)
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
    frozen, types = freeze(model, batch_size), [tensor.dtype for tensor in model.inputs]

    def compute(*inputs: Any) -> list[Any]:
        return [x.numpy() for x in frozen(*(tf.cast(x, t) for x, t in zip(inputs, types, strict=True)))]

    run = in_batches(compute, fixed_batch(model))
    return lambda *inputs: alone(run(*inputs))


def in_float32(model: keras.Model) -> keras.Model:
    """A copy that computes in float32, as its weights are; a model without mixed precision itself."""
    if not any(layer.dtype_policy.name.startswith(MIXED) for layer in model._flatten_layers()):
        return model
    graph = trace(model)
    names = flat_names(graph)
    layers = {
        path: remade(layer, type(layer), _unmixed(config_of(layer)) | {"name": names[path]})
        for path, layer in graph.layers.items()
    }
    return with_same_weights(model, graph, layers)


def _unmixed(config: Any) -> Any:
    """A configuration, and those of layers inside of it, with float32 for every mixed policy."""
    if isinstance(config, (list, tuple)):
        return type(config)(map(_unmixed, config))
    if not isinstance(config, dict):
        return "float32" if isinstance(config, str) and config.startswith(MIXED) else config
    policy = config.get("class_name") == "DTypePolicy" and config["config"]["name"].startswith(MIXED)
    return "float32" if policy else {key: _unmixed(value) for key, value in config.items()}
