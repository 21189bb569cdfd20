"""Fresh layers from old ones, and a graph run once more through them."""

from __future__ import annotations

import inspect
import tempfile
from collections import Counter
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from secateur.nets.graph import Graph, rebuilt
from secateur.nets.kernels import FILTERS, named_variables
from secateur.runs.errors import UsageError

ACTING = ("EinsumDense", *FILTERS)
"""Layers whose activation is the last that they do."""


def flat_names(graph: Graph) -> dict[str, str]:
    """Path of a layer → its name in a model without nesting: its own where no other layer has the same."""
    paths = list(graph.layers)
    short = {path: path.rpartition("/")[2] for path in paths}
    uses = Counter(short.values())
    names: dict[str, str] = {}
    taken: set[str] = set()
    for path in sorted(paths, key=lambda path: "/" in path):  # what is not nested keeps its name first
        name = short[path] if "/" not in path or uses[short[path]] == 1 else path.replace("/", "_")
        while name in taken:
            name += "_"
        names[path] = name
        taken.add(name)
    return names


def with_layers(model: keras.Model, graph: Graph, layers: Mapping[str, Any]) -> keras.Model:
    """The graph once more, with other layers by the paths of the old ones."""

    return rebuilt(model, graph, lambda call, values: call.run(values, layers[call.name]))


def with_same_weights(model: keras.Model, graph: Graph, layers: Mapping[str, Any]) -> keras.Model:
    """`with_layers`, where the other layers have the weights of the old ones."""
    made = with_layers(model, graph, layers)
    hand_on_weights(graph, layers)
    return made


def hand_on_weights(graph: Graph, layers: Mapping[str, Any]) -> None:
    """Gives every layer, by the path of the old one, that one's weights."""
    for path, layer in graph.layers.items():
        if getattr(layer, "variables", ()):
            give_weights(layers[path], {name: v.numpy() for name, v in named_variables(layer).items()})


def give_weights(layer: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Sets all variables of a layer, by the names of `named_variables`.

    Raises `UsageError` for a layer that has others than the one that the arrays are of, or of other sizes.
    """
    for name, variable in named_variables(layer).items():
        if name not in arrays:
            raise UsageError(
                f"Layer {layer.name!r} cannot be copied: a new one has other weights. Received: {name!r}"
            )
        if tuple(variable.shape) != np.shape(arrays[name]):
            raise _of_another_size(layer, name, tuple(variable.shape), np.shape(arrays[name]))
        variable.assign(arrays[name])
    if hasattr(layer, "finalize_state"):  # Normalization computes with copies of its weights
        layer.finalize_state()


def _of_another_size(layer: Any, name: str, new: tuple, old: tuple) -> UsageError:
    axis = next((i for i, (a, b) in enumerate(zip(new, old, strict=False)) if a != b), 0)
    return UsageError(
        f"Weight {name!r} of layer {layer.name!r} ({type(layer).__name__}) needs the shape {new}. "
        f"Received: {old}\nregister_layer has to name this weight with its axis, {name!r}: {axis}"
    )


def copied(layer: Any, name: str) -> Any:
    """The same layer with fresh weights. Raises `UsageError`, with its name, where that is not possible."""
    return remade(layer, type(layer), config_of(layer) | {"name": name})


def config_of(layer: Any) -> dict:
    """What a layer or an operation is made from again. What is not Keras' own goes along as it is.

    Functions cannot be found by their names, and constants of the size of a weight no longer fit one.
    """
    if not isinstance(layer, keras.Layer):
        names = inspect.signature(type(layer).__init__).parameters
        return {name: getattr(layer, name) for name in names if hasattr(layer, name)}
    try:
        config = layer.get_config()
    except Exception as error:  # whatever the layer's own code raises
        if not _foreign(type(layer)):  # Keras' own without options of their own, given an object for the type
            return {"name": layer.name, "trainable": layer.trainable, "dtype": layer.dtype_policy.name}
        raise _uncopied(layer.name, type(layer)) from error
    for key in config:
        own = getattr(layer, key, None)
        if isinstance(own, keras.initializers.Constant) and np.ndim(own.value):
            config[key] = "zeros"
        elif _foreign(own):
            config[key] = own
    return config


def _foreign(value: Any) -> bool:
    room = getattr(value, "__module__", None) or "keras"
    return callable(value) and not isinstance(value, keras.Layer) and room.partition(".")[0] != "keras"


def with_operations(layer: Any) -> Any:
    """What is called in place of a layer, so that Keras loads it without a function of somebody else.

    The operations of an activation stand behind the layer. One that does not run on symbolic tensors stays.
    """
    function = getattr(layer, "activation", None)
    alone = isinstance(layer, keras.layers.Activation)
    if not _foreign(function) or not (alone or type(layer).__name__ in ACTING):
        return layer
    try:
        function(keras.KerasTensor((None, 1)))
    except Exception:  # whatever the function raises
        return layer
    if alone:
        return lambda x, **_: function(x)
    layer.activation = keras.activations.linear
    return lambda *args, **kwargs: function(layer(*args, **kwargs))


def remade(layer: Any, make: type, config: dict) -> Any:
    """A layer of this class with what the old one keeps beside its weights, as a vocabulary.

    Raises `UsageError`, with its name, where the configuration does not fit the class.
    """
    direct = make is keras.layers.Lambda or not issubclass(make, keras.Layer)  # Lambda reads no functions
    try:
        fresh = make(**config) if direct else make.from_config(config)
    except TypeError as error:
        raise _uncopied(config["name"], make) from error
    if hasattr(layer, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            layer.save_assets(folder)
            fresh.load_assets(folder)
    return fresh


def _uncopied(name: str, make: type) -> UsageError:
    return UsageError(
        f"Layer {name!r} cannot be copied: its class needs a get_config with the arguments of __init__. "
        f"Received: {make.__name__}"
    )
