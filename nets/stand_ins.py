"""A layer that is called in place of another one, so that all that it does with weights leaves records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from secateur.nets.nodes import graph_of

KERAS_OWN = ("_layers", "_tracker", "_metrics", "_trainable_variables", "_non_trainable_variables")


class WeightTensor(keras.KerasTensor):
    """A symbolic tensor for a weight or a constant, which takes `weight[None]` as these do."""

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__((None,) if key is None else key)


def with_symbolic_weights(layer: Any) -> tuple[Any, dict[int, tuple[str, Any]]]:
    """The layer with symbolic tensors for its own weights, and id of such a tensor → (attribute, variable).

    Operations of weights alone, as in a standardised kernel, leave nodes so, and inner layers that are called
    on constants, as an embedding of all positions. Models inside of it leave those of their layers, for the
    shapes that they are shown.
    """
    weights, known = {}, {}

    def replaced(name: str, value: Any) -> Any:
        if isinstance(value, keras.Variable):
            if id(value) not in known:
                half = layer.autocast and keras.backend.is_float_dtype(value.dtype)
                dtype = layer.compute_dtype if half else value.dtype
                known[id(value)] = WeightTensor(value.shape, dtype)
            weights[id(known[id(value)])] = (name, value)
            return known[id(value)]
        if isinstance(value, keras.Model) and graph_of(value) is not None:
            return _called(value, value.call)
        if isinstance(value, keras.Layer) and value.weights:
            return _called(
                value, lambda *args, **kwargs: _tensors(value, _symbolic(args, kwargs, weights), kwargs)
            )
        if isinstance(value, (list, tuple)) and any(map(_is_replaced, value)):
            return [replaced(f"{name}_{i}", x) for i, x in enumerate(value)]
        if isinstance(value, dict) and any(map(_is_replaced, value.values())):
            return {key: replaced(f"{name}_{key}", x) for key, x in value.items()}
        return value

    own = {name: value for name, value in vars(layer).items() if name not in KERAS_OWN}
    other = object.__new__(type(layer))
    vars(other).update(vars(layer) | {name: replaced(name, value) for name, value in own.items()})
    return other, weights


def _is_replaced(value: Any) -> bool:
    return isinstance(value, (keras.Variable, keras.Layer))


def _symbolic(args: tuple, kwargs: dict, weights: dict[int, tuple[str, Any]]) -> tuple:
    """The arguments; constants as symbolic tensors, noted beside the weights, where there is no other."""

    def of(x: Any) -> Any:
        if not keras.ops.is_tensor(x) and not isinstance(x, np.ndarray):
            return x
        tensor = WeightTensor(x.shape, keras.backend.standardize_dtype(x.dtype))
        weights[id(tensor)] = ("", x)
        return tensor

    if any(isinstance(x, keras.KerasTensor) for x in keras.tree.flatten((args, kwargs))):
        return args
    return keras.tree.map_structure(of, args)


def _tensors(layer: keras.Layer, args: tuple, kwargs: dict) -> Any:
    """What the layer makes of symbolic tensors. Keras refuses a None beside these."""
    if not any(isinstance(x, keras.KerasTensor) for x in keras.tree.flatten((args, kwargs))):
        return layer(*args, **kwargs)
    found, shapes = [], layer.compute_output_spec

    def of_tensors(*args: Any, **kwargs: Any) -> Any:
        try:
            found.append(shapes(*args, **kwargs))
        except TypeError:  # one of somebody's own, that takes less than `call`
            found.append(keras.Operation.compute_output_spec(layer, *args, **kwargs))
        tensors = [x for x in keras.tree.flatten(found[-1]) if x is not None]
        return found[-1] if len(tensors) == len(keras.tree.flatten(found[-1])) else tensors

    vars(layer)["compute_output_spec"] = of_tensors
    try:
        made = layer(*args, **kwargs)
    finally:
        del vars(layer)["compute_output_spec"]
    tensors = iter(keras.tree.flatten(made))
    return keras.tree.map_structure(lambda x: x if x is None else next(tensors), found[-1])


def _called(layer: keras.Layer, call: Callable) -> keras.Layer:
    """A stand-in for a layer, that does this when it is called."""
    kind = type(layer)
    made = type(kind.__name__, (kind,), {"__call__": lambda self, *args, **kwargs: call(*args, **kwargs)})
    stand_in = object.__new__(made)
    vars(stand_in).update(vars(layer))
    return stand_in
