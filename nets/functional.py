"""Any model that can be run on symbolic tensors as a functional model of layers and operations of Keras."""

from __future__ import annotations

from typing import Any

import keras

from secateur.nets.copies import copied, flat_names, with_same_weights
from secateur.nets.graph import Graph, has_graph, trace
from secateur.nets.unfolding import unrun, untouched
from secateur.runs.errors import UsageError


def functional(model: keras.Model, input_shape: Any = None) -> keras.Model:
    """A subclassed model, or one with layers made of layers, as a functional model that computes the same.

    Layers and operations that the model's `call` runs become the layers of the new model: their names are
    those of the attributes that hold them, or their own; their weights are copies. An operation with a
    weight, as `x * self.gamma`, becomes a layer of Keras. A layer that cannot be unfolded stays a layer.

    Args:
        model: subclassed, functional or Sequential; it stays as it is.
        input_shape: of one example, without the batch axis: (32, 32, 3). Several inputs are a list or a
            dictionary of shapes, in the form in which `call` takes them; an input of another type than
            float32 is a `keras.Input`. None: what the model was built with. A functional model with inputs of
            open size is made one of this size, at which more layers can be unfolded.

    Returns a model with the loss that `model` was compiled with; `model` itself where it is functional and
    there is nothing to unfold. Its outputs are the same to the last bit, or to 1e-6 where operations with
    weights are layers now. Raises `UsageError`, with the reason, for a subclassed model that cannot be
    unfolded, and for one without a known input shape.
    """
    if has_graph(model):
        fixed = model if input_shape is None else _of_size(model, _inputs(input_shape))
        graph = trace(fixed)
        return _copy(model, fixed, graph) if graph.unfolded else fixed
    if not isinstance(model, keras.Model):
        raise UsageError(f"This takes a Keras model. Received: {type(model).__name__}")
    inputs = _inputs(_built_with(model) if input_shape is None else input_shape)
    try:
        with untouched(model):
            outer = keras.Model(inputs, model(inputs), name=model.name)
            graph = trace(outer)
    except UsageError:
        raise
    except Exception as error:  # whatever the model's own code raises
        raise _refused(model, unrun(error)) from error
    if whole := next((call.whole for call in graph.calls if call.layer is model), ""):
        raise _refused(model, whole)
    return _copy(model, outer, graph.without_prefix(f"{model.name}/"))


def _of_size(model: keras.Model, inputs: Any) -> keras.Model:
    """A copy of a functional model for these inputs; the model itself where it has such."""
    if [x.shape for x in keras.tree.flatten(inputs)] == [x.shape for x in model.inputs]:
        return model
    with untouched(model):
        outer = keras.Model(inputs, model(inputs), name=model.name)
        return _copy(model, outer, trace(outer).without_prefix(f"{model.name}/"))


def _copy(model: keras.Model, outer: keras.Model, graph: Graph) -> keras.Model:
    names = flat_names(graph)
    layers = {path: copied(layer, names[path]) for path, layer in graph.layers.items()}
    made = with_same_weights(outer, graph, layers)
    if getattr(model, "compiled", False) and model.loss is not None:
        made.compile(loss=model.loss)
    return made


def _refused(model: keras.Model, why: str) -> UsageError:
    return UsageError(
        f"{model.name!r} cannot be unfolded: {why}. Received: {type(model).__name__}\n"
        "write its call with layers of Keras and keras.ops alone"
    )


def _built_with(model: keras.Model) -> Any:
    """The input shapes that a model was built with, without the batch axis."""
    config = model.get_build_config() if model.built else None
    shape = (config or {}).get("input_shape")
    if shape is None:
        raise UsageError(
            f"The input shape of {model.name!r} is not known. Received: input_shape=None\n"
            "give that of one example: input_shape=(height, width, channels)"
        )
    return _map(lambda one, _: tuple(one[1:]), shape)


def _inputs(given: Any) -> Any:
    def of(shape: Any, name: str | None) -> Any:
        return shape if isinstance(shape, keras.KerasTensor) else keras.Input(tuple(shape), name=name)

    return _map(of, given)


def _map(function: Any, shapes: Any, name: str | None = None) -> Any:
    """`function` of every shape in a structure, and of the key that it has in a dictionary."""
    if isinstance(shapes, dict):
        return {key: _map(function, one, key) for key, one in shapes.items()}
    one = isinstance(shapes, keras.KerasTensor) or all(n is None or isinstance(n, int) for n in shapes)
    return function(shapes, name) if one else [_map(function, shape) for shape in shapes]
