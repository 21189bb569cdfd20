"""What a layer of layers does: its `call` is run once on symbolic tensors, and leaves its parts as a graph.

Nothing stays behind on the layer: Keras' records of these calls are taken off its inner layers again.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from secateur.nets.weighted import Weighted, WeightsRefused, weighted
from secateur.runs.errors import first_line

READ = "_secateur_inside"  # on Keras' record of a call: what was read of it, for each mode of training


@dataclass(frozen=True)
class Inside:
    """The graph inside of a model or of a composite layer.

    Attributes:
        nodes: Keras' records of calls, and operations with weights; producers before consumers.
        inputs, outputs: symbolic tensors.
        names: id of an inner layer → the attribute that holds it; None: layers have names of their own.
    """

    nodes: list[Any]
    inputs: list[Any]
    outputs: list[Any]
    names: Mapping[int, str] | None = field(default=None)


def unfold(node: Any, training: bool | None) -> Inside | str:
    """What the layer of a call does, or in words why that cannot be seen.

    Args:
        node: Keras' record of the call.
        training: what the models around it were called with.
    """
    known = vars(node).setdefault(READ, {})
    if training not in known:
        try:
            with _untouched(node.operation):
                known[training] = _inside(node, training)
        except WeightsRefused as error:
            known[training] = str(error)
        except Exception as error:  # whatever the layer's own code raises
            known[training] = f"its call does not run on symbolic tensors ({first_line(error)})"
    return known[training]


def _inside(node: Any, training: bool | None) -> Inside | str:
    layer = node.operation
    if layer.activity_regularizer is not None:
        return "it has an activity regulariser"
    mode = mode_of(node) if training is None else training
    found = run_symbolically(layer, node, mode)
    if isinstance(found, str) or mode is not None or not layer._call_has_training_arg:
        return found
    other = run_symbolically(layer, node, True)
    if isinstance(other, str) or _shape_of(other) != _shape_of(found):
        return "its call does something else in training"
    return found


def mode_of(node: Any) -> bool | None:
    """What a call says of training; None where it is the default, which Keras records as if it had been said."""
    own = inspect.signature(node.operation.call).parameters.get("training")
    said = node.arguments.kwargs.get("training")
    return None if own is not None and said == own.default else said


def run_symbolically(layer: Any, node: Any, training: bool | None) -> Inside | str:
    """The graph of `layer.call` for the arguments of `node`; in words why there is none."""
    given = node.arguments.keras_tensors
    fresh = {id(t): keras.KerasTensor(t.shape, t.dtype) for t in given}
    args, kwargs = node.arguments.fill_in(fresh)
    if layer._call_has_training_arg:
        kwargs = kwargs | {"training": training}
    stand_in, weights = _with_symbolic_weights(layer)
    args, kwargs = keras.tree.map_structure(lambda x: _cast(layer, x), (args, kwargs))
    with keras.StatelessScope() as scope:
        made = keras.tree.flatten(stand_in.call(*args, **kwargs))
    if scope.state_mapping:
        return "its call changes variables"
    inputs = [fresh[id(t)] for t in given]
    nodes = in_order([x for x in made if isinstance(x, keras.KerasTensor)], _node)
    reached = {id(t) for node in nodes for t in node.outputs}.union(map(id, inputs))
    if len(made) != len(node.outputs) or any(id(x) not in reached for x in made):
        return "its outputs do not come from its inputs alone"
    return Inside(weighted(layer, nodes, inputs, made, weights), inputs, made, _attributes(layer))


def _shape_of(inside: Inside) -> list[tuple]:
    """What two runs of one call have in common."""
    return [(type(n.operation), *(tuple(t.shape) for t in n.outputs)) for n in inside.nodes]


def _cast(layer: Any, x: Any) -> Any:
    """As a layer does with what it is called on."""
    if not isinstance(x, keras.KerasTensor) or not layer.autocast or not keras.backend.is_float_dtype(x.dtype):
        return x
    return x if x.dtype == layer.compute_dtype else keras.ops.cast(x, layer.compute_dtype)


def _with_symbolic_weights(layer: Any) -> tuple[Any, dict[int, tuple[str, Any]]]:
    """The layer with symbolic tensors for its own weights, and id of such a tensor → (attribute, variable).

    Operations of weights alone, as in a standardised kernel, leave nodes so.
    """
    other, weights, known = object.__new__(type(layer)), {}, {}

    def replaced(name: str, value: Any) -> Any:
        if isinstance(value, keras.Variable):
            if id(value) not in known:
                half = layer.autocast and keras.backend.is_float_dtype(value.dtype)
                dtype = layer.compute_dtype if half else value.dtype
                known[id(value)] = keras.KerasTensor(value.shape, dtype)
            weights[id(known[id(value)])] = (name, value)
            return known[id(value)]
        if type(value).__name__ in ("list", "TrackedList", "tuple") and any(map(_is_variable, value)):
            return [replaced(f"{name}_{i}", x) for i, x in enumerate(value)]
        if isinstance(value, dict) and any(map(_is_variable, value.values())):
            return {key: replaced(f"{name}_{key}", x) for key, x in value.items()}
        return value

    lists = ("_trainable_variables", "_non_trainable_variables")
    vars(other).update({n: x if n in lists else replaced(n, x) for n, x in vars(layer).items()})
    return other, weights


def _is_variable(value: Any) -> bool:
    return isinstance(value, keras.Variable)


def _attributes(layer: Any) -> dict[int, str]:
    """Id of an inner layer → the attribute that holds it: "conv1", "blocks_0"."""
    names: dict[int, str] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, keras.Layer):
            names.setdefault(id(value), name.strip("_"))
        elif isinstance(value, (list, tuple)):
            for i, one in enumerate(value):
                add(f"{name}_{i}", one)
        elif isinstance(value, dict):
            for key, one in value.items():
                add(f"{name}_{key}", one)

    for name, value in vars(layer).items():
        if name not in ("_layers", "_tracker", "_metrics") and not name.startswith("_self_"):
            add(name, value)
    return names


@contextlib.contextmanager
def _untouched(layer: Any) -> Iterator[None]:
    """Takes away at the end what Keras has noted on a layer and those inside of it."""
    before = [(one, len(one._inbound_nodes), len(one._outbound_nodes)) for one in layer._flatten_layers()]
    try:
        yield
    finally:
        for one, inbound, outbound in before:
            del one._inbound_nodes[inbound:], one._outbound_nodes[outbound:]


def in_order(tensors: Iterable[Any], node_of: Callable[[Any], Any]) -> list[Any]:
    """The calls behind symbolic tensors, producers first; `node_of` a tensor of the outside is None."""
    order, done = [], set()
    stack = [node for tensor in tensors if (node := node_of(tensor)) is not None]
    while stack:  # depth first without recursion: ResNet-1202 is deeper than Python's stack
        node = stack[-1]
        read = (node_of(tensor) for tensor in node.arguments.keras_tensors)
        waiting = [n for n in read if n is not None and id(n) not in done]
        if waiting:
            stack.extend(reversed(waiting))
            continue
        stack.pop()
        if id(node) not in done:
            done.add(id(node))
            order.append(node)
    return order


def _node(tensor: Any) -> Any:
    """Keras' record of the call that made a tensor; None for what a graph begins with."""
    history = getattr(tensor, "_keras_history", None)
    if history is None or history.operation is None:
        return None
    return history.operation._inbound_nodes[history.node_index]
